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
from fastrtp.maps.records import IN_PLACE, REPLACE, REPLACE_FREE, HtabElem, MapRecord
from fastrtp.native.intrinsics import device
from fastrtp.native.records import Env
from fastrtp.uapi import BPF_F_NO_PREALLOC


@device
def htab_next(map: MapRecord, key: int) -> int:
    """Number of the element after the key's (0: the first), or 0 at the end; a key that is not there starts over."""
    key_size, mask = map.key_size, map.slot_mask
    number = 0
    if key != 0:
        number = htab_find(map, key, key_size, map.elem_size, mask)
    if number == 0:
        return htab_first_from(map, 0, mask)
    return htab_following(map, number, key, key_size, mask)


@device
def htab_lookup_any(map: MapRecord, key: int, touch: bool) -> int:
    """Address of the (first CPU's) value, or 0. `touch`: it counts as used by an LRU map."""
    elem_size = map.elem_size
    number = htab_find(map, key, map.key_size, elem_size, map.slot_mask)
    if number == 0:
        return 0
    if touch and map.lru != 0:
        htab_touch(HtabElem(htab_element(map, number, elem_size)))
    return htab_value(map, number)


@device
def htab_update_any(map: MapRecord, key: int, value: int, flags: int, cpu: int, env: Env) -> int:
    """Update; see `htab_write_value` for `cpu`. `env` 0: from a system call, which CPU 0 makes."""
    key_size, value_size, elem_size = map.key_size, map.value_size, map.elem_size
    value_at, mask, stride, cpus = map.value_at, map.slot_mask, map.value_stride, map.cpus
    fields = map.fields
    if map.lru != 0:
        own = env.cpu if env else 0
        return htab_lru_update(
            map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, own, fields
        )
    replace = IN_PLACE
    if stride == 0 and (env or fields != 0):
        replace = REPLACE_FREE if map.map_flags & BPF_F_NO_PREALLOC else REPLACE
    own = htab_own(env) if env else 0
    return htab_update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, own, fields, replace
    )


@device
def htab_delete_any(map: MapRecord, key: int, env: Env) -> int:
    """Delete, and give back what special fields hold. `env` 0: from a system call, which CPU 0 makes."""
    key_size, elem_size, mask, fields = (
        map.key_size,
        map.elem_size,
        map.slot_mask,
        map.fields,
    )
    if map.lru != 0:
        return htab_lru_delete(map, key, key_size, elem_size, mask, env.cpu if env else 0, fields)
    return htab_delete(map, key, key_size, elem_size, mask, htab_own(env) if env else 0, fields)
