"""BPF_MAP_TYPE_HASH, LRU_HASH and their per-CPU forms: open addressing over elements that never move.

An element is {u32 hash, u32 state, key, value(s)}; its address is what a program holds as a value pointer. The index
table has a u64 a slot: the hash in the upper half, element number + 1 in the lower, 0 for empty; it is at most half full,
probed linearly, and deletion shifts the run back, so there are no tombstones. LRU maps evict with a clock's hand over the
elements: a lookup from a program sets the referenced bit, the hand clears it and takes the first element without.

Kernel: kernel/bpf/hashtab.c. Differs: an update of an existing key is made in place, so a value pointer that a program
holds shows the new value; LRU evicts only when the map is full.
"""

from __future__ import annotations

from fastrtp.maps.bytes_native import bytes_equal, bytes_hash
from fastrtp.maps.field_rows_native import check_and_init_map_value, copy_map_value
from fastrtp.maps.fields_native import free_fields
from fastrtp.native.intrinsics import device, load32, load64, lshr, memcpy, memset, native, store32, store64
from fastrtp.native.layout import ENV, MAP, at

_VALUES = at(MAP, "values")
_SLOTS = at(MAP, "slots")
_MASK = at(MAP, "slot_mask")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUE_AT = at(MAP, "value_at")
_STRIDE = at(MAP, "value_stride")
_MAX_ENTRIES = at(MAP, "max_entries")
_KEY_SIZE = at(MAP, "key_size")
_VALUE_SIZE = at(MAP, "value_size")
_COUNT = at(MAP, "count")
_FRESH = at(MAP, "fresh")
_FREE = at(MAP, "free")
_HAND = at(MAP, "hand")
_CPUS = at(MAP, "cpus")
_FIELDS = at(MAP, "fields")
_MAP_MACHINE = at(MAP, "machine")
_CPU = at(ENV, "cpu")

_STATE = 4
_KEY = 8
_IN_USE = 1
_REFERENCED = 2

_ENOENT = -2
_E2BIG = -7
_EEXIST = -17
_EINVAL = -22
_BPF_NOEXIST = 1
_BPF_EXIST = 2


@device
def htab_find(map: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Address of the key's element, or 0."""
    hash = bytes_hash(key, key_size)
    slots = load64(map + _SLOTS)
    values = load64(map + _VALUES)
    index = hash & mask
    while True:
        slot = load64(slots + index * 8)
        if slot == 0:
            return 0
        if lshr(slot, 32) == hash:
            element = values + ((slot & 0xFFFFFFFF) - 1) * elem_size
            if bytes_equal(element + _KEY, key, key_size):
                return element
        index = (index + 1) & mask


@device
def _unlink(map: int, element: int, elem_size: int, mask: int) -> None:
    """Take an element out of the index table and shift the rest of its run back."""
    slots = load64(map + _SLOTS)
    hash = load32(element)
    number = (element - load64(map + _VALUES)) // elem_size + 1
    index = hash & mask
    while (load64(slots + index * 8) & 0xFFFFFFFF) != number:
        index = (index + 1) & mask
    hole = index
    while True:
        index = (index + 1) & mask
        slot = load64(slots + index * 8)
        if slot == 0:
            break
        home = lshr(slot, 32) & mask
        if ((index - home) & mask) >= ((index - hole) & mask):
            store64(slots + hole * 8, slot)
            hole = index
    store64(slots + hole * 8, 0)
    store32(element + _STATE, 0)
    store64(map + _COUNT, load64(map + _COUNT) - 1)


@device
def _evict(map: int, elem_size: int, mask: int) -> int:
    """Free the first element that was not used since the hand last passed."""
    values = load64(map + _VALUES)
    entries = load64(map + _MAX_ENTRIES)
    hand = load64(map + _HAND)
    while True:
        element = values + hand * elem_size
        hand += 1
        if hand == entries:
            hand = 0
        if load32(element + _STATE) == _IN_USE:
            break
        store32(element + _STATE, load32(element + _STATE) & ~_REFERENCED)
    store64(map + _HAND, hand)
    free_fields(load64(map + _MAP_MACHINE), map, element + load64(map + _VALUE_AT), 0)
    _unlink(map, element, elem_size, mask)
    return element


@device
def _new_element(map: int, elem_size: int, mask: int, max_entries: int, lru: int) -> int:
    """An element to fill, or 0 when the map is full."""
    free = load64(map + _FREE)
    if free != -1:
        element = load64(map + _VALUES) + free * elem_size
        store64(map + _FREE, load64(element + _KEY))
        return element
    fresh = load64(map + _FRESH)
    if fresh < max_entries:
        store64(map + _FRESH, fresh + 1)
        return load64(map + _VALUES) + fresh * elem_size
    return _evict(map, elem_size, mask) if lru != 0 else 0


@device
def _link(map: int, element: int, key: int, key_size: int, elem_size: int, mask: int) -> None:
    """Put a filled element into the index table."""
    hash = bytes_hash(key, key_size)
    slots = load64(map + _SLOTS)
    index = hash & mask
    while load64(slots + index * 8) != 0:
        index = (index + 1) & mask
    number = (element - load64(map + _VALUES)) // elem_size + 1
    store64(slots + index * 8, (hash << 32) | number)
    store32(element, hash)
    store32(element + _STATE, _IN_USE)
    memcpy(element + _KEY, key, key_size)
    store64(map + _COUNT, load64(map + _COUNT) + 1)


@device
def _copy_with_fields(
    map: int, target: int, value: int, fresh: bool, value_size: int, stride: int, cpus: int, cpu: int
) -> None:
    """The values of an element, but for their special fields."""
    if fresh and cpu >= 0:
        memset(target, 0, stride * cpus if stride != 0 else value_size)
    for number in range(cpus if stride != 0 else 1):
        if stride != 0 and cpu >= 0 and number != cpu:
            continue
        if fresh:
            check_and_init_map_value(map, target + number * stride)
        copy_map_value(map, target + number * stride, value if cpu >= 0 else value + number * stride, value_size)


@device
def _update(
    map: int,
    key: int,
    value: int,
    flags: int,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    max_entries: int,
    lru: int,
    stride: int,
    cpus: int,
    cpu: int,
    fields: int,
) -> int:
    """`cpu` < 0: plain map, or all CPUs' values at `value`; else that CPU's value (others are zeroed in a new element).

    `fields`: the values may have special fields, which are left alone (in a new element: zeroed).
    """
    if flags < 0 or flags > _BPF_EXIST:
        return _EINVAL
    element = htab_find(map, key, key_size, elem_size, mask)
    fresh = element == 0
    if fresh:
        if flags == _BPF_EXIST:
            return _ENOENT
        element = _new_element(map, elem_size, mask, max_entries, lru)
        if element == 0:
            return _E2BIG
        _link(map, element, key, key_size, elem_size, mask)
    elif flags == _BPF_NOEXIST:
        return _EEXIST
    elif lru != 0:
        store32(element + _STATE, _IN_USE | _REFERENCED)
    target = element + value_at
    if fields != 0:
        _copy_with_fields(map, target, value, fresh, value_size, stride, cpus, cpu)
    elif stride == 0:
        memcpy(target, value, value_size)
    elif cpu < 0:
        memcpy(target, value, stride * cpus)
    else:
        if fresh:
            memset(target, 0, stride * cpus)
        memcpy(target + cpu * stride, value, value_size)
    return 0


@native(inline=True)
def htab_map_lookup_elem(map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """Address of the value, or 0."""
    element = htab_find(map, key, key_size, elem_size, mask)
    return element + value_at if element != 0 else 0


@native(inline=True)
def htab_lru_map_lookup_elem(map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """The same for LRU maps: the element is marked as used."""
    element = htab_find(map, key, key_size, elem_size, mask)
    if element == 0:
        return 0
    state = load32(element + _STATE)
    if state != (_IN_USE | _REFERENCED):
        store32(element + _STATE, _IN_USE | _REFERENCED)
    return element + value_at


@native(inline=True)
def htab_percpu_map_lookup_elem(
    map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0."""
    element = htab_find(map, key, key_size, elem_size, mask)
    return element + value_at + load64(env + _CPU) * stride if element != 0 else 0


@native(inline=True)
def htab_lru_percpu_map_lookup_elem(
    map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0; the element is marked as used."""
    value = htab_lru_map_lookup_elem(map, key, env, key_size, elem_size, value_at, mask)
    return value + load64(env + _CPU) * stride if value != 0 else 0


@native(inline=True)
def htab_map_update_elem(
    map: int,
    key: int,
    value: int,
    flags: int,
    env: int,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    max_entries: int,
    lru: int,
    stride: int,
    cpus: int,
) -> int:
    """Update from a program. 0, -EINVAL, -EEXIST, -ENOENT or -E2BIG."""
    cpu = load64(env + _CPU)
    return _update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, max_entries, lru, stride, cpus, cpu, 0
    )


@native(inline=True)
def htab_map_delete_elem(map: int, key: int, env: int, key_size: int, elem_size: int, mask: int) -> int:
    """0, or -ENOENT."""
    element = htab_find(map, key, key_size, elem_size, mask)
    if element == 0:
        return _ENOENT
    _unlink(map, element, elem_size, mask)
    store64(element + _KEY, load64(map + _FREE))
    store64(map + _FREE, (element - load64(map + _VALUES)) // elem_size)
    return 0


@device
def htab_next(map: int, key: int) -> int:
    """Element after the key's (0: the first), or 0 at the end; a key that is not there starts over, as in the kernel."""
    elem_size = load64(map + _ELEM_SIZE)
    values = load64(map + _VALUES)
    element = values - elem_size
    if key != 0:
        found = htab_find(map, key, load64(map + _KEY_SIZE), elem_size, load64(map + _MASK))
        if found != 0:
            element = found
    end = values + load64(map + _FRESH) * elem_size
    element += elem_size
    while element < end:
        if load32(element + _STATE) != 0:
            return element
        element += elem_size
    return 0


@device
def htab_lookup_any(map: int, key: int) -> int:
    """Address of the (first CPU's) value by the descriptor alone, without marking it as used; 0 when absent."""
    element = htab_find(map, key, load64(map + _KEY_SIZE), load64(map + _ELEM_SIZE), load64(map + _MASK))
    return element + load64(map + _VALUE_AT) if element != 0 else 0


@device
def htab_update_any(map: int, key: int, value: int, flags: int, lru: int, cpu: int) -> int:
    """Update by the descriptor alone; see `_update` for `cpu`."""
    return _update(
        map, key, value, flags, load64(map + _KEY_SIZE), load64(map + _VALUE_SIZE), load64(map + _ELEM_SIZE),
        load64(map + _VALUE_AT), load64(map + _MASK), load64(map + _MAX_ENTRIES), lru,
        load64(map + _STRIDE), load64(map + _CPUS), cpu, load64(map + _FIELDS),
    )  # fmt: skip


@device
def htab_delete_any(map: int, key: int) -> int:
    """Delete by the descriptor alone; what special fields hold is given back."""
    if load64(map + _FIELDS) != 0:
        value = htab_lookup_any(map, key)
        if value != 0:
            free_fields(load64(map + _MAP_MACHINE), map, value, 0)
    return htab_map_delete_elem(map, key, 0, load64(map + _KEY_SIZE), load64(map + _ELEM_SIZE), load64(map + _MASK))
