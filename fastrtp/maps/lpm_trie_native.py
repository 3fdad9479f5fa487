"""BPF_MAP_TYPE_LPM_TRIE: a binary trie of prefixes; a lookup gives the value of the longest one that the key begins with.

A key is {u32 prefixlen, bytes}, most significant bit first. A node is {u64 child[2], u32 prefixlen, u32 flags, key bytes} and
the value, from the heap of programs' objects. A node that holds no element (INTERMEDIATE) is there to tell two children apart,
and has both. An update gives a prefix another node; what is taken out stays what it was until the turn of the machine ends.
Lookups take no lock.

Kernel: kernel/bpf/lpm_trie.c.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC

from fastrtp.maps.records import LpmNode, MapRecord
from fastrtp.native.heap_native import heap_alloc, heap_free
from fastrtp.native.intrinsics import (
    device,
    load8,
    load32,
    load64,
    load_acquire,
    memcpy,
    native,
    smp,
    store32,
    store64,
    store_release,
)
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Machine
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST

_ROOT = MapRecord.layout.at("slots")
_LOCK = MapRecord.layout.at("lock")
_DATA = LpmNode.layout.size
_KEY_DATA = 4
_INTERMEDIATE = 1


@device
def _data_size(map: MapRecord) -> int:
    return map.key_size - _KEY_DATA


@device
def _bit(data: int, index: int) -> int:
    return load8(data + (index >> 3)) >> (7 - (index & 7)) & 1


@device
def _slot(node: LpmNode, bit: int) -> int:
    return int(node.child) + 8 * bit


@device
def _follow(slot: int) -> int:
    return load64(slot) if smp() == 0 else load_acquire(slot)


@device
def _publish(slot: int, node: int) -> None:
    if smp() == 0:
        store64(slot, node)
    else:
        store_release(slot, node)


@device
def _longest_prefix_match(node: LpmNode, data: int, prefixlen: int) -> int:
    """How many bits of a node's prefix and this one are the same."""
    limit = min(node.prefixlen, prefixlen)
    matched = 0
    while matched < limit:
        differ = load8(int(node) + _DATA + (matched >> 3)) ^ load8(data + (matched >> 3))
        if differ == 0:
            matched += 8
            continue
        while differ & 0x80 == 0:
            differ <<= 1
            matched += 1
        break
    return min(matched, limit)


@device
def trie_lookup_elem(map: MapRecord, key: int) -> int:
    """Address of the value, or 0."""
    prefixlen = load32(key)
    top = 8 * _data_size(map)
    if prefixlen > top:
        return 0
    found = LpmNode(0)
    node = LpmNode(_follow(int(map) + _ROOT))
    while node:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        if matched == top:
            found = node
            break
        if matched < node.prefixlen:
            break
        if node.flags & _INTERMEDIATE == 0:
            found = node
        node = LpmNode(_follow(_slot(node, _bit(key + _KEY_DATA, node.prefixlen))))
    return int(found) + map.value_at if found else 0


@device
def _node_alloc(map: MapRecord, data: int, prefixlen: int, flags: int) -> LpmNode:
    node = LpmNode(heap_alloc(map.machine, map.value_at + map.value_size, 0))
    if node:
        node.prefixlen = prefixlen
        node.flags = flags
        memcpy(int(node) + _DATA, data, _data_size(map))
    return node


@device
def _check_add_elem(map: MapRecord, flags: int) -> int:
    if flags == BPF_EXIST:
        return -ENOENT
    if map.count == map.max_entries:
        return -ENOSPC
    map.count = map.count + 1
    return 0


@device
def _insert(map: MapRecord, new: LpmNode, flags: int) -> int:
    """Put a node that is complete in its place. 0, or why not."""
    machine = map.machine
    data, prefixlen = int(new) + _DATA, new.prefixlen
    slot = int(map) + _ROOT
    node = LpmNode(load64(slot))
    matched = 0
    while node:
        matched = _longest_prefix_match(node, data, prefixlen)
        own = node.prefixlen
        if own != matched or own == prefixlen or own == 8 * _data_size(map):
            break
        slot = _slot(node, _bit(data, own))
        node = LpmNode(load64(slot))
    if not node:
        status = _check_add_elem(map, flags)
        if status == 0:
            _publish(slot, int(new))
        return status
    if node.prefixlen == matched:
        if node.flags & _INTERMEDIATE:
            status = _check_add_elem(map, flags)
            if status != 0:
                return status
        elif flags == BPF_NOEXIST:
            return -EEXIST
        store64(_slot(new, 0), load64(_slot(node, 0)))
        store64(_slot(new, 1), load64(_slot(node, 1)))
        _publish(slot, int(new))
        heap_free(machine, int(node))
        return 0
    status = _check_add_elem(map, flags)
    if status != 0:
        return status
    if matched == prefixlen:
        store64(_slot(new, _bit(int(node) + _DATA, matched)), int(node))
        _publish(slot, int(new))
        return 0
    between = _node_alloc(map, int(node) + _DATA, matched, _INTERMEDIATE)
    if not between:
        map.count = map.count - 1
        return -ENOMEM
    side = _bit(data, matched)
    store64(_slot(between, side), int(new))
    store64(_slot(between, 1 - side), int(node))
    _publish(slot, int(between))
    return 0


@device
def trie_update_elem(map: MapRecord, key: int, value: int, flags: int) -> int:
    """0, -EINVAL for flags or a prefix that is too long, -EEXIST, -ENOENT, -ENOSPC, -ENOMEM."""
    prefixlen = load32(key)
    if flags < 0 or flags > BPF_EXIST or prefixlen > 8 * _data_size(map):
        return -EINVAL
    new = _node_alloc(map, key + _KEY_DATA, prefixlen, 0)
    if not new:
        return -ENOMEM
    memcpy(int(new) + map.value_at, value, map.value_size)
    spin_lock(int(map) + _LOCK)
    status = _insert(map, new, flags)
    spin_unlock(int(map) + _LOCK)
    if status != 0:
        heap_free(map.machine, int(new))
    return status


@device
def _remove(map: MapRecord, key: int, prefixlen: int) -> int:
    machine = map.machine
    slot = int(map) + _ROOT
    above = slot
    parent = LpmNode(0)
    node = LpmNode(load64(slot))
    matched = 0
    while node:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        own = node.prefixlen
        if own != matched or own == prefixlen:
            break
        parent = node
        above = slot
        slot = _slot(node, _bit(key + _KEY_DATA, own))
        node = LpmNode(load64(slot))
    if not node or matched != prefixlen or node.prefixlen != prefixlen or node.flags & _INTERMEDIATE:
        return -ENOENT
    map.count = map.count - 1
    left, right = load64(_slot(node, 0)), load64(_slot(node, 1))
    if left != 0 and right != 0:
        node.flags = node.flags | _INTERMEDIATE
        return 0
    if parent and parent.flags & _INTERMEDIATE and left == 0 and right == 0:
        # the parent told its children apart: the other one takes its place
        other = load64(_slot(parent, 1)) if load64(_slot(parent, 0)) == int(node) else load64(_slot(parent, 0))
        _publish(above, other)
        heap_free(machine, int(parent))
    else:
        _publish(slot, left if left != 0 else right)
    heap_free(machine, int(node))
    return 0


@device
def trie_delete_elem(map: MapRecord, key: int) -> int:
    """0, -EINVAL for a prefix that is too long, -ENOENT."""
    prefixlen = load32(key)
    if prefixlen > 8 * _data_size(map):
        return -EINVAL
    spin_lock(int(map) + _LOCK)
    status = _remove(map, key, prefixlen)
    spin_unlock(int(map) + _LOCK)
    return status


@device
def _leftmost(node: LpmNode) -> LpmNode:
    """The first element of a subtree: more specific ones come before less specific ones."""
    found = LpmNode(0)
    while node:
        left = load64(_slot(node, 0))
        if node.flags & _INTERMEDIATE == 0:
            found = node
            node = LpmNode(left if left != 0 else load64(_slot(node, 1)))
        else:
            node = LpmNode(left)
    return found


@device
def _after(map: MapRecord, key: int, prefixlen: int) -> LpmNode:
    """The element after the key's; the first, where that is not there; 0 after the last. No stack: a walk from the root."""
    root = LpmNode(map.slots)
    node = root
    behind, ancestor = (
        LpmNode(0),
        LpmNode(0),
    )  # where the walk goes on: a subtree to the right, or the nearest ancestor below that
    while node:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        own = node.prefixlen
        if own != matched:
            return _leftmost(root)
        if own == prefixlen:
            break
        if node.flags & _INTERMEDIATE == 0:
            behind, ancestor = LpmNode(0), node
        side = _bit(key + _KEY_DATA, own)
        if side == 0 and load64(_slot(node, 1)) != 0:
            behind = LpmNode(load64(_slot(node, 1)))
        node = LpmNode(load64(_slot(node, side)))
    if not node or node.flags & _INTERMEDIATE:
        return _leftmost(root)
    return _leftmost(behind) if behind else ancestor


@device
def trie_get_next_key(map: MapRecord, key: int, out: int) -> int:
    """The key after `key` (0, or one that is not there: the first) to `out`. 0 or -ENOENT."""
    root = LpmNode(map.slots)
    if not root:
        return -ENOENT
    known = key != 0 and load32(key) <= 8 * _data_size(map)
    node = _after(map, key, load32(key)) if known else _leftmost(root)
    if not node:
        return -ENOENT
    store32(out, node.prefixlen)
    memcpy(out + _KEY_DATA, int(node) + _DATA, _data_size(map))
    return 0


@native()
def trie_free(machine: Machine, map: MapRecord) -> int:
    """Give all nodes back."""
    enter(machine)
    while map.slots != 0:
        slot = int(map) + _ROOT
        node = LpmNode(load64(slot))
        while load64(_slot(node, 0)) != 0 or load64(_slot(node, 1)) != 0:
            slot = _slot(node, 0) if load64(_slot(node, 0)) != 0 else _slot(node, 1)
            node = LpmNode(load64(slot))
        store64(slot, 0)
        heap_free(machine, int(node))
    map.count = 0
    leave(machine)
    return 0
