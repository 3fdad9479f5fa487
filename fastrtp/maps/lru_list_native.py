"""Which element of an LRU map goes next: lists of active, inactive and free elements, and each CPU's own few in front of them.

An element is a node of one doubly linked list at a time; nodes stand apart from the elements, numbered as they are, and behind
the elements' come those that are the heads of lists. The reference bit is REFERENCED of the element's state: a lookup from a
program sets it in a line that it has read anyway.

A map has one LruList and a pair of local lists (free, pending) for each CPU: an update takes from the CPU's free list, which
fetches `target` elements when it is empty, after giving the pending ones to the list. With BPF_F_NO_COMMON_LRU each CPU has an
LruList of its own and no local ones. What goes is decided as Linux decides it, scan for scan, so that a map that is replayed
loses the keys that it lost. Elements never used are the end of the free list, and only counted: they are linked when taken.

With several CPUs a CPU's local lists, the LruList and a bucket are locked in this order, never the other way round.

Kernel: kernel/bpf/bpf_lru_list.c, kernel/bpf/hashtab.c:htab_lru_map_delete_node. As of 6.18: `target` is a share of the map.
"""

from __future__ import annotations

from fastrtp.maps.fields_native import free_fields
from fastrtp.maps.htab_chain_native import htab_bucket, htab_link_of, htab_lock_bucket, htab_unlock_bucket
from fastrtp.maps.htab_elem_native import REFERENCED, htab_element, htab_take_out, htab_value
from fastrtp.maps.htab_pool_native import htab_count
from fastrtp.maps.records import (
    ACTIVE,
    FREE,
    INACTIVE,
    LOCAL_FREE,
    LOCAL_FREE_TARGET,
    LOCAL_PENDING,
    PERCPU_FREE_TARGET,
    HtabBucket,
    HtabElem,
    LruList,
    LruLocal,
    LruNode,
    MapRecord,
)
from fastrtp.native.intrinsics import (
    cmpxchg32,
    device,
    load32,
    load64,
    load_acquire32,
    native,
    smp,
    store32,
    store64,
)
from fastrtp.native.records import Env
from fastrtp.native.smp_native import spin_lock, spin_unlock, store32_shared

_MAP_LOCK = MapRecord.layout.at("lock")
_STATE = HtabElem.layout.at("state")
_LIST_SIZE = LruList.layout.size
_LOCK = LruList.layout.at("lock")
_LOCAL_LOCK = LruLocal.layout.at("lock")

_COUNTED = 2


# lists


@device
def _node(map: MapRecord, number: int) -> LruNode:
    return map.lru_nodes[number]


@device
def _prev(map: MapRecord, number: int) -> int:
    return _node(map, number).prev


@device
def _next(map: MapRecord, number: int) -> int:
    return _node(map, number).next


@device
def _list_del(map: MapRecord, number: int) -> None:
    node = _node(map, number)
    before, behind = node.prev, node.next
    _node(map, before).next = behind
    _node(map, behind).prev = before


@device
def _list_add(map: MapRecord, number: int, head: int) -> None:
    """Put a node at the front of a list."""
    node, front = _node(map, number), _node(map, head)
    first = front.next
    node.prev = head
    node.next = first
    _node(map, first).prev = number
    front.next = number


@device
def _head(lists: LruList, kind: int) -> int:
    """Number of the node that heads a list: of an LruList, or of an LruLocal."""
    return lists.heads + kind


@device
def _local_head(locals: LruLocal, kind: int) -> int:
    return locals.heads + kind - LOCAL_FREE


# nodes


@device
def _state(map: MapRecord, number: int) -> int:
    return htab_element(map, number, map.elem_size) + _STATE


@device
def _is_ref(map: MapRecord, number: int) -> bool:
    return load32(_state(map, number)) & REFERENCED != 0


@device
def _clear_ref(map: MapRecord, number: int) -> None:
    address = _state(map, number)
    state = load32(address)
    if smp() == 0:
        store32(address, state & ~REFERENCED)
        return
    while state & REFERENCED and cmpxchg32(address, state, state & ~REFERENCED) != state:
        state = load_acquire32(address)


@device
def _count(lists: LruList, kind: int, more: int) -> None:
    if kind < _COUNTED:
        address = int(lists.counts) + 8 * kind
        store64(address, load64(address) + more)


@device
def _leave(map: MapRecord, lists: LruList, number: int) -> None:
    """Take a node out of a list of an LruList; the next rotation starts with what was before it, if with it."""
    if lists.next_inactive_rotation == number:
        lists.next_inactive_rotation = _prev(map, number)
    _list_del(map, number)
    _count(lists, _node(map, number).type, -1)


@device
def _bpf_lru_node_move_to_free(map: MapRecord, lists: LruList, number: int, head: int, kind: int) -> None:
    """From a list of an LruList to a list of free nodes."""
    _leave(map, lists, number)
    _node(map, number).type = kind
    _list_add(map, number, head)


@device
def _bpf_lru_node_move_in(map: MapRecord, lists: LruList, number: int, kind: int) -> None:
    """From a local list to a list of an LruList."""
    _list_del(map, number)
    _count(lists, kind, 1)
    _node(map, number).type = kind
    _clear_ref(map, number)
    _list_add(map, number, _head(lists, kind))


@device
def _bpf_lru_node_move(map: MapRecord, lists: LruList, number: int, kind: int) -> None:
    """Between lists of an LruList, or to the front of its own."""
    _leave(map, lists, number)
    _count(lists, kind, 1)
    _node(map, number).type = kind
    _clear_ref(map, number)
    _list_add(map, number, _head(lists, kind))


@device
def _htab_lru_map_delete_node(map: MapRecord, number: int, cpu: int) -> bool:
    """Take an element out of the map; False when it is not in it (yet)."""
    mask = map.slot_mask
    bucket = HtabBucket(htab_bucket(map, _node(map, number).hash, mask))
    htab_lock_bucket(bucket)
    link = bucket
    found = load32(int(link)) & mask
    while found != 0 and found != number:
        link = HtabBucket(htab_link_of(map, found))
        found = load32(int(link)) & mask
    if found == 0:
        htab_unlock_bucket(bucket)
        return False
    store32_shared(int(link), load32(htab_link_of(map, number)))
    htab_take_out(HtabElem(htab_element(map, number, map.elem_size)))
    htab_unlock_bucket(bucket)
    htab_count(map, cpu, -1)
    free_fields(int(map.machine), map, htab_value(map, number), 0)
    return True


# rotation and shrinking


@device
def _nr_scans(map: MapRecord) -> int:
    return LOCAL_FREE_TARGET if map.lru_locals else PERCPU_FREE_TARGET


@device
def _bpf_lru_list_rotate_active(map: MapRecord, lists: LruList) -> None:
    """From the end of the active list: what was used goes to its front, the rest to the inactive list."""
    head = _head(lists, ACTIVE)
    first = _next(map, head)
    number = _prev(map, head)
    scans = 0
    while number != head:
        before = _prev(map, number)
        _bpf_lru_node_move(map, lists, number, ACTIVE if _is_ref(map, number) else INACTIVE)
        scans += 1
        if scans == _nr_scans(map) or number == first:
            return
        number = before


@device
def _bpf_lru_list_rotate_inactive(map: MapRecord, lists: LruList) -> None:
    """From where the last rotation ended: what was used becomes active, the rest stays where it is."""
    head = _head(lists, INACTIVE)
    if _next(map, head) == head:
        return
    number = lists.next_inactive_rotation
    last = _next(map, number)
    if last == head:
        last = _next(map, last)
    following = head
    scans = 0
    while scans < _nr_scans(map):
        if number == head:
            number = _prev(map, head)
            continue
        following = _prev(map, number)
        if _is_ref(map, number):
            _bpf_lru_node_move(map, lists, number, ACTIVE)
        if number == last:
            break
        number = following
        scans += 1
    lists.next_inactive_rotation = following


@device
def _bpf_lru_list_rotate(map: MapRecord, lists: LruList) -> None:
    if lists.counts[INACTIVE] < lists.counts[ACTIVE]:
        _bpf_lru_list_rotate_active(map, lists)
    _bpf_lru_list_rotate_inactive(map, lists)


@device
def _bpf_lru_list_shrink_inactive(map: MapRecord, lists: LruList, wanted: int, head_free: int, kind: int, cpu: int) -> int:
    """Free up to `wanted` of the inactive elements at the end that were not used; how many that were."""
    head = _head(lists, INACTIVE)
    number = _prev(map, head)
    shrunk = 0
    scans = 0
    while number != head:
        before = _prev(map, number)
        if _is_ref(map, number):
            _bpf_lru_node_move(map, lists, number, ACTIVE)
        elif _htab_lru_map_delete_node(map, number, cpu):
            _bpf_lru_node_move_to_free(map, lists, number, head_free, kind)
            shrunk += 1
            if shrunk == wanted:
                break
        scans += 1
        if scans == _nr_scans(map):
            break
        number = before
    return shrunk


@device
def _bpf_lru_list_shrink(map: MapRecord, lists: LruList, wanted: int, head_free: int, kind: int, cpu: int) -> None:
    """Free up to `wanted` elements; where all were used, the oldest one nevertheless."""
    if _bpf_lru_list_shrink_inactive(map, lists, wanted, head_free, kind, cpu) != 0:
        return
    head = _head(lists, INACTIVE)
    if _next(map, head) == head:
        head = _head(lists, ACTIVE)
    number = _prev(map, head)
    while number != head:
        if _htab_lru_map_delete_node(map, number, cpu):
            _bpf_lru_node_move_to_free(map, lists, number, head_free, kind)
            return
        number = _prev(map, number)


@device
def _take_unused(map: MapRecord, lists: LruList) -> int:
    """An element that was never used, or 0. The LruList is locked; how many are handed out, all lists have in common."""
    left = lists.unused
    if left == 0:
        return 0
    lists.unused = left - 1
    spin_lock(int(map) + _MAP_LOCK)
    number = map.fresh + 1
    map.fresh = number
    spin_unlock(int(map) + _MAP_LOCK)
    return number


# local lists


@device
def _local_list_flush(map: MapRecord, lists: LruList, locals: LruLocal) -> None:
    head = _local_head(locals, LOCAL_PENDING)
    number = _prev(map, head)
    while number != head:
        before = _prev(map, number)
        _bpf_lru_node_move_in(map, lists, number, ACTIVE if _is_ref(map, number) else INACTIVE)
        number = before


@device
def _bpf_lru_list_pop_free_to_local(map: MapRecord, locals: LruLocal, cpu: int) -> None:
    lists = LruList(map.lru)
    target = map.lru_target
    free, local_free = _head(lists, FREE), _local_head(locals, LOCAL_FREE)
    spin_lock(int(lists) + _LOCK)
    _local_list_flush(map, lists, locals)
    _bpf_lru_list_rotate(map, lists)
    fetched = 0
    number = _next(map, free)
    while number != free and fetched < target:
        behind = _next(map, number)
        _bpf_lru_node_move_to_free(map, lists, number, local_free, LOCAL_FREE)
        fetched += 1
        number = behind
    while fetched < target:
        number = _take_unused(map, lists)
        if number == 0:
            break
        _node(map, number).type = LOCAL_FREE
        _list_add(map, number, local_free)
        fetched += 1
    if fetched < target:
        _bpf_lru_list_shrink(map, lists, target - fetched, local_free, LOCAL_FREE, cpu)
    spin_unlock(int(lists) + _LOCK)


@device
def _local_list_add_pending(map: MapRecord, locals: LruLocal, cpu: int, number: int, hash: int) -> None:
    node = _node(map, number)
    node.hash = hash
    node.cpu = cpu
    node.type = LOCAL_PENDING
    _clear_ref(map, number)
    _list_add(map, number, _local_head(locals, LOCAL_PENDING))


@device
def _local_list_pop_free(map: MapRecord, locals: LruLocal) -> int:
    head = _local_head(locals, LOCAL_FREE)
    number = _next(map, head)
    if number == head:
        return 0
    _list_del(map, number)
    return number


@device
def _local_list_pop_pending(map: MapRecord, locals: LruLocal, cpu: int) -> int:
    """The oldest pending element that was not used, or else that was."""
    head = _local_head(locals, LOCAL_PENDING)
    for force in range(2):
        number = _prev(map, head)
        while number != head:
            if (force != 0 or not _is_ref(map, number)) and _htab_lru_map_delete_node(map, number, cpu):
                _list_del(map, number)
                return number
            number = _prev(map, number)
    return 0


# what an update and a deletion call


@device
def _bpf_percpu_lru_pop_free(map: MapRecord, hash: int, cpu: int) -> int:
    lists = LruList(map.lru + cpu * _LIST_SIZE)
    free = _head(lists, FREE)
    spin_lock(int(lists) + _LOCK)
    _bpf_lru_list_rotate(map, lists)
    number = 0
    if _next(map, free) == free:
        number = _take_unused(map, lists)
        if number == 0:
            _bpf_lru_list_shrink(map, lists, PERCPU_FREE_TARGET, free, FREE, cpu)
        else:
            _node(map, number).cpu = cpu
            _node(map, number).type = FREE
            _list_add(map, number, free)
    number = _next(map, free)
    if number == free:
        number = 0
    else:
        _node(map, number).hash = hash
        _bpf_lru_node_move(map, lists, number, INACTIVE)
    spin_unlock(int(lists) + _LOCK)
    return number


@device
def _bpf_common_lru_pop_free(map: MapRecord, hash: int, cpu: int) -> int:
    first = map.lru_locals
    mine = first[cpu]
    spin_lock(int(mine) + _LOCAL_LOCK)
    number = _local_list_pop_free(map, mine)
    if number == 0:
        _bpf_lru_list_pop_free_to_local(map, mine, cpu)
        number = _local_list_pop_free(map, mine)
    if number != 0:
        _local_list_add_pending(map, mine, cpu, number, hash)
    spin_unlock(int(mine) + _LOCAL_LOCK)
    if number != 0:
        return number
    # all that there is lies in the local lists: take from them in turns, one's own included
    steal = mine.next_steal
    for _turn in range(map.cpus):
        theirs = first[steal]
        spin_lock(int(theirs) + _LOCAL_LOCK)
        number = _local_list_pop_free(map, theirs)
        if number == 0:
            number = _local_list_pop_pending(map, theirs, cpu)
        spin_unlock(int(theirs) + _LOCAL_LOCK)
        steal = steal + 1 if steal + 1 < map.cpus else 0
        if number != 0:
            break
    mine.next_steal = steal
    if number != 0:
        spin_lock(int(mine) + _LOCAL_LOCK)
        _local_list_add_pending(map, mine, cpu, number, hash)
        spin_unlock(int(mine) + _LOCAL_LOCK)
    return number


@native()
def bpf_lru_pop_free(map: MapRecord, hash: int, cpu: int, env: Env) -> int:
    """An element to fill on a CPU for a key with this hash, at the cost of others' where need be; 0: none is to be had."""
    if not map.lru_locals:
        return _bpf_percpu_lru_pop_free(map, hash, cpu)
    return _bpf_common_lru_pop_free(map, hash, cpu)


@native()
def bpf_lru_push_free(map: MapRecord, number: int, env: Env) -> int:
    """An element that is not in the map, or not any more, is free again."""
    node = _node(map, number)
    cpu = node.cpu
    lists = LruList(map.lru)
    locals = map.lru_locals
    if not locals:
        lists = LruList(map.lru + cpu * _LIST_SIZE)
    elif node.type == LOCAL_PENDING:
        mine = locals[cpu]
        spin_lock(int(mine) + _LOCAL_LOCK)
        pending = node.type == LOCAL_PENDING
        if pending:
            node.type = LOCAL_FREE
            _clear_ref(map, number)
            _list_del(map, number)
            _list_add(map, number, _local_head(mine, LOCAL_FREE))
        spin_unlock(int(mine) + _LOCAL_LOCK)
        if pending:
            return 0
    spin_lock(int(lists) + _LOCK)
    _bpf_lru_node_move(map, lists, number, FREE)
    spin_unlock(int(lists) + _LOCK)
    return 0
