"""Operations of all hash maps by the descriptor alone, for programs that reach one through a variable, and for system calls.

A walk goes by buckets, as in Linux: an element's place in it is its key's, so that it stays while values are replaced.
Kernel: kernel/bpf/hashtab.c:htab_map_get_next_key, bpf_for_each_hash_elem.
"""

from __future__ import annotations

from fastrtp.maps.hashtab_lru_native import htab_lru_delete, htab_lru_update
from fastrtp.maps.hashtab_native import htab_delete, htab_update
from fastrtp.maps.htab_chain_native import htab_find, htab_first_from, htab_following
from fastrtp.maps.htab_elem_native import htab_element, htab_touch, htab_value
from fastrtp.maps.htab_pool_native import htab_own
from fastrtp.native.intrinsics import device, load64
from fastrtp.native.layout import ENV, IN_PLACE, MAP, REPLACE, REPLACE_FREE, at
from fastrtp.uapi import BPF_F_NO_PREALLOC

_MASK = at(MAP, "slot_mask")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUE_AT = at(MAP, "value_at")
_STRIDE = at(MAP, "value_stride")
_KEY_SIZE = at(MAP, "key_size")
_VALUE_SIZE = at(MAP, "value_size")
_CPUS = at(MAP, "cpus")
_FIELDS = at(MAP, "fields")
_LRU = at(MAP, "lru")
_FLAGS = at(MAP, "map_flags")
_CPU = at(ENV, "cpu")


@device
def htab_next(map: int, key: int) -> int:
    """Number of the element after the key's (0: the first), or 0 at the end; a key that is not there starts over."""
    key_size, mask = load64(map + _KEY_SIZE), load64(map + _MASK)
    number = 0
    if key != 0:
        number = htab_find(map, key, key_size, load64(map + _ELEM_SIZE), mask)
    if number == 0:
        return htab_first_from(map, 0, mask)
    return htab_following(map, number, key, key_size, mask)


@device
def htab_lookup_any(map: int, key: int, touch: bool) -> int:
    """Address of the (first CPU's) value, or 0. `touch`: it counts as used by an LRU map."""
    elem_size = load64(map + _ELEM_SIZE)
    number = htab_find(map, key, load64(map + _KEY_SIZE), elem_size, load64(map + _MASK))
    if number == 0:
        return 0
    if touch and load64(map + _LRU) != 0:
        htab_touch(htab_element(map, number, elem_size))
    return htab_value(map, number)


@device
def htab_update_any(map: int, key: int, value: int, flags: int, cpu: int, env: int) -> int:
    """Update; see `htab_write_value` for `cpu`. `env` 0: from a system call, which CPU 0 makes."""
    key_size, value_size, elem_size = load64(map + _KEY_SIZE), load64(map + _VALUE_SIZE), load64(map + _ELEM_SIZE)
    value_at, mask, stride, cpus = load64(map + _VALUE_AT), load64(map + _MASK), load64(map + _STRIDE), load64(map + _CPUS)
    fields = load64(map + _FIELDS)
    if load64(map + _LRU) != 0:
        own = load64(env + _CPU) if env != 0 else 0
        return htab_lru_update(
            map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, own, fields
        )
    replace = IN_PLACE
    if stride == 0 and (env != 0 or fields != 0):
        replace = REPLACE_FREE if load64(map + _FLAGS) & BPF_F_NO_PREALLOC else REPLACE
    own = htab_own(env) if env != 0 else 0
    return htab_update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, own, fields, replace
    )


@device
def htab_delete_any(map: int, key: int, env: int) -> int:
    """Delete, and give back what special fields hold. `env` 0: from a system call, which CPU 0 makes."""
    key_size, elem_size, mask, fields = (
        load64(map + _KEY_SIZE),
        load64(map + _ELEM_SIZE),
        load64(map + _MASK),
        load64(map + _FIELDS),
    )
    if load64(map + _LRU) != 0:
        return htab_lru_delete(map, key, key_size, elem_size, mask, load64(env + _CPU) if env != 0 else 0, fields)
    return htab_delete(map, key, key_size, elem_size, mask, htab_own(env) if env != 0 else 0, fields)
