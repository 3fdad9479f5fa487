"""Elements of hash maps, numbered from 1: where they are, with key and value, and whether in use (hashtab_native.py)."""

from __future__ import annotations

from fastrtp.native.intrinsics import cmpxchg32, device, load32, load64, load_acquire32, smp, store32, store_release32
from fastrtp.native.layout import HTAB_ELEM, MAP, at
from fastrtp.native.smp_native import wait_turn

_VALUES = at(MAP, "values")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUE_AT = at(MAP, "value_at")
_PERCPU = at(MAP, "percpu")
_PERCPU_SIZE = at(MAP, "percpu_size")
_KEY_SIZE = at(MAP, "key_size")
_STATE = at(HTAB_ELEM, "state")

IN_USE = 1 << 31
REFERENCED = 1 << 30
HELD = 1 << 29


@device
def htab_element(map: int, number: int, elem_size: int) -> int:
    """Address of an element."""
    return load64(map + _VALUES) - elem_size + number * elem_size


@device
def htab_key_at(key_size: int) -> int:
    """Offset of the key in an element."""
    return 4 if key_size <= 4 else 8


@device
def htab_key(map: int, element: int) -> int:
    """Address of an element's key."""
    return element + htab_key_at(load64(map + _KEY_SIZE))


@device
def htab_in_use(element: int) -> bool:
    """Whether an element is in the map."""
    return load32(element + _STATE) & IN_USE != 0


@device
def htab_value(map: int, number: int) -> int:
    """Address of the (first CPU's) value of an element."""
    size = load64(map + _PERCPU_SIZE)
    if size != 0:
        return load64(map + _PERCPU) - size + number * size
    return htab_element(map, number, load64(map + _ELEM_SIZE)) + load64(map + _VALUE_AT)


@device
def htab_hold(element: int) -> bool:
    """Keep an element from being freed, and its value from being written by others."""
    state = load32(element + _STATE)
    return state & (IN_USE | HELD) == IN_USE and cmpxchg32(element + _STATE, state, state | HELD) == state


@device
def htab_let_go(element: int) -> None:
    """End that."""
    store_release32(element + _STATE, load32(element + _STATE) & ~HELD)


@device
def htab_touch(element: int) -> None:
    """Mark an LRU map's element as used, unless it is on its way out. Kernel: bpf_lru_node_set_ref"""
    state = element + _STATE
    if load32(state) == IN_USE:
        if smp() == 0:
            store32(state, IN_USE | REFERENCED)
        else:
            cmpxchg32(state, IN_USE, IN_USE | REFERENCED)


@device
def htab_take_out(element: int) -> None:
    """Mark an element that was in the map as one that is not. Its bucket is held."""
    if smp() == 0:
        store32(element + _STATE, 0)
        return
    spins = 0
    while True:
        state = load_acquire32(element + _STATE)
        if state & HELD == 0 and cmpxchg32(element + _STATE, state, 0) == state:
            return
        wait_turn(spins)
        spins += 1
