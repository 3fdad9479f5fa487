"""Elements of hash maps, numbered from 1: where they are, with key and value, and whether in use (hashtab_native.py)."""

from __future__ import annotations

from fastrtp.maps.records import HtabElem, MapRecord
from fastrtp.native.intrinsics import cmpxchg32, device, load32, load_acquire32, smp, store32, store_release32
from fastrtp.native.smp_native import wait_turn

_STATE = HtabElem.layout.at("state")

IN_USE = 1 << 31
REFERENCED = 1 << 30
HELD = 1 << 29


@device
def htab_element(map: MapRecord, number: int, elem_size: int) -> int:
    """Address of an element."""
    return map.values - elem_size + number * elem_size


@device
def htab_key_at(key_size: int) -> int:
    """Offset of the key in an element."""
    return 4 if key_size <= 4 else 8


@device
def htab_key(map: MapRecord, element: int) -> int:
    """Address of an element's key."""
    return element + htab_key_at(map.key_size)


@device
def htab_in_use(element: HtabElem) -> bool:
    """Whether an element is in the map."""
    return element.state & IN_USE != 0


@device
def htab_value(map: MapRecord, number: int) -> int:
    """Address of the (first CPU's) value of an element."""
    size = map.percpu_size
    if size != 0:
        return map.percpu - size + number * size
    return htab_element(map, number, map.elem_size) + map.value_at


@device
def htab_hold(element: HtabElem) -> bool:
    """Keep an element from being freed, and its value from being written by others."""
    state = element.state
    return state & (IN_USE | HELD) == IN_USE and cmpxchg32(int(element) + _STATE, state, state | HELD) == state


@device
def htab_let_go(element: HtabElem) -> None:
    """End that."""
    store_release32(int(element) + _STATE, element.state & ~HELD)


@device
def htab_touch(element: HtabElem) -> None:
    """Mark an LRU map's element as used, unless it is on its way out. Kernel: bpf_lru_node_set_ref"""
    state = int(element) + _STATE
    if load32(state) == IN_USE:
        if smp() == 0:
            store32(state, IN_USE | REFERENCED)
        else:
            cmpxchg32(state, IN_USE, IN_USE | REFERENCED)


@device
def htab_take_out(element: HtabElem) -> None:
    """Mark an element that was in the map as one that is not. Its bucket is held."""
    if smp() == 0:
        element.state = 0
        return
    spins = 0
    while True:
        state = load_acquire32(int(element) + _STATE)
        if state & HELD == 0 and cmpxchg32(int(element) + _STATE, state, 0) == state:
            return
        wait_turn(spins)
        spins += 1
