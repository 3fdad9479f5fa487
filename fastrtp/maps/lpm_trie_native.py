"""BPF_MAP_TYPE_LPM_TRIE: a binary trie of prefixes; a lookup gives the value of the longest one that the key begins with.

A key is {u32 prefixlen, bytes}, most significant bit first. A node is {u64 child[2], u32 prefixlen, u32 flags, key bytes} and
the value, from the heap of programs' objects. A node that holds no element (INTERMEDIATE) is there to tell two children apart,
and has both. An update gives a prefix another node; what is taken out stays what it was until the turn of the machine ends.
Lookups take no lock.

Kernel: kernel/bpf/lpm_trie.c.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM, ENOSPC

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
from fastrtp.native.layout import LPM_NODE, MAP, at
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST

_ROOT = at(MAP, "slots")
_KEY_SIZE = at(MAP, "key_size")
_VALUE_SIZE = at(MAP, "value_size")
_VALUE_AT = at(MAP, "value_at")
_MAX_ENTRIES = at(MAP, "max_entries")
_COUNT = at(MAP, "count")
_LOCK = at(MAP, "lock")
_MACHINE = at(MAP, "machine")
_CHILD, _PREFIXLEN, _FLAGS = at(LPM_NODE, "child"), at(LPM_NODE, "prefixlen"), at(LPM_NODE, "flags")
_DATA = LPM_NODE.itemsize
_KEY_DATA = 4
_INTERMEDIATE = 1


@device
def _data_size(map: int) -> int:
    return load64(map + _KEY_SIZE) - _KEY_DATA


@device
def _bit(data: int, index: int) -> int:
    return load8(data + (index >> 3)) >> (7 - (index & 7)) & 1


@device
def _slot(node: int, bit: int) -> int:
    return node + _CHILD + 8 * bit


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
def _longest_prefix_match(node: int, data: int, prefixlen: int) -> int:
    """How many bits of a node's prefix and this one are the same."""
    limit = min(load32(node + _PREFIXLEN), prefixlen)
    matched = 0
    while matched < limit:
        differ = load8(node + _DATA + (matched >> 3)) ^ load8(data + (matched >> 3))
        if differ == 0:
            matched += 8
            continue
        while differ & 0x80 == 0:
            differ <<= 1
            matched += 1
        break
    return min(matched, limit)


@device
def trie_lookup_elem(map: int, key: int) -> int:
    """Address of the value, or 0."""
    prefixlen = load32(key)
    top = 8 * _data_size(map)
    if prefixlen > top:
        return 0
    found = 0
    node = _follow(map + _ROOT)
    while node != 0:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        if matched == top:
            found = node
            break
        if matched < load32(node + _PREFIXLEN):
            break
        if load32(node + _FLAGS) & _INTERMEDIATE == 0:
            found = node
        node = _follow(_slot(node, _bit(key + _KEY_DATA, load32(node + _PREFIXLEN))))
    return found + load64(map + _VALUE_AT) if found != 0 else 0


@device
def _node_alloc(map: int, data: int, prefixlen: int, flags: int) -> int:
    node = heap_alloc(load64(map + _MACHINE), load64(map + _VALUE_AT) + load64(map + _VALUE_SIZE), 0)
    if node != 0:
        store32(node + _PREFIXLEN, prefixlen)
        store32(node + _FLAGS, flags)
        memcpy(node + _DATA, data, _data_size(map))
    return node


@device
def _check_add_elem(map: int, flags: int) -> int:
    if flags == BPF_EXIST:
        return -ENOENT
    if load64(map + _COUNT) == load64(map + _MAX_ENTRIES):
        return -ENOSPC
    store64(map + _COUNT, load64(map + _COUNT) + 1)
    return 0


@device
def _insert(map: int, new: int, flags: int) -> int:
    """Put a node that is complete in its place. 0, or why not."""
    machine = load64(map + _MACHINE)
    data, prefixlen = new + _DATA, load32(new + _PREFIXLEN)
    slot = map + _ROOT
    node = load64(slot)
    matched = 0
    while node != 0:
        matched = _longest_prefix_match(node, data, prefixlen)
        own = load32(node + _PREFIXLEN)
        if own != matched or own == prefixlen or own == 8 * _data_size(map):
            break
        slot = _slot(node, _bit(data, own))
        node = load64(slot)
    if node == 0:
        status = _check_add_elem(map, flags)
        if status == 0:
            _publish(slot, new)
        return status
    if load32(node + _PREFIXLEN) == matched:
        if load32(node + _FLAGS) & _INTERMEDIATE:
            status = _check_add_elem(map, flags)
            if status != 0:
                return status
        elif flags == BPF_NOEXIST:
            return -EEXIST
        store64(_slot(new, 0), load64(_slot(node, 0)))
        store64(_slot(new, 1), load64(_slot(node, 1)))
        _publish(slot, new)
        heap_free(machine, node)
        return 0
    status = _check_add_elem(map, flags)
    if status != 0:
        return status
    if matched == prefixlen:
        store64(_slot(new, _bit(node + _DATA, matched)), node)
        _publish(slot, new)
        return 0
    between = _node_alloc(map, node + _DATA, matched, _INTERMEDIATE)
    if between == 0:
        store64(map + _COUNT, load64(map + _COUNT) - 1)
        return -ENOMEM
    side = _bit(data, matched)
    store64(_slot(between, side), new)
    store64(_slot(between, 1 - side), node)
    _publish(slot, between)
    return 0


@device
def trie_update_elem(map: int, key: int, value: int, flags: int) -> int:
    """0, -EINVAL for flags or a prefix that is too long, -EEXIST, -ENOENT, -ENOSPC, -ENOMEM."""
    prefixlen = load32(key)
    if flags < 0 or flags > BPF_EXIST or prefixlen > 8 * _data_size(map):
        return -EINVAL
    new = _node_alloc(map, key + _KEY_DATA, prefixlen, 0)
    if new == 0:
        return -ENOMEM
    memcpy(new + load64(map + _VALUE_AT), value, load64(map + _VALUE_SIZE))
    spin_lock(map + _LOCK)
    status = _insert(map, new, flags)
    spin_unlock(map + _LOCK)
    if status != 0:
        heap_free(load64(map + _MACHINE), new)
    return status


@device
def _remove(map: int, key: int, prefixlen: int) -> int:
    machine = load64(map + _MACHINE)
    slot = map + _ROOT
    above = slot
    parent = 0
    node = load64(slot)
    matched = 0
    while node != 0:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        own = load32(node + _PREFIXLEN)
        if own != matched or own == prefixlen:
            break
        parent = node
        above = slot
        slot = _slot(node, _bit(key + _KEY_DATA, own))
        node = load64(slot)
    if node == 0 or matched != prefixlen or load32(node + _PREFIXLEN) != prefixlen or load32(node + _FLAGS) & _INTERMEDIATE:
        return -ENOENT
    store64(map + _COUNT, load64(map + _COUNT) - 1)
    left, right = load64(_slot(node, 0)), load64(_slot(node, 1))
    if left != 0 and right != 0:
        store32(node + _FLAGS, load32(node + _FLAGS) | _INTERMEDIATE)
        return 0
    if parent != 0 and load32(parent + _FLAGS) & _INTERMEDIATE and left == 0 and right == 0:
        # the parent told its children apart: the other one takes its place
        other = load64(_slot(parent, 1)) if load64(_slot(parent, 0)) == node else load64(_slot(parent, 0))
        _publish(above, other)
        heap_free(machine, parent)
    else:
        _publish(slot, left if left != 0 else right)
    heap_free(machine, node)
    return 0


@device
def trie_delete_elem(map: int, key: int) -> int:
    """0, -EINVAL for a prefix that is too long, -ENOENT."""
    prefixlen = load32(key)
    if prefixlen > 8 * _data_size(map):
        return -EINVAL
    spin_lock(map + _LOCK)
    status = _remove(map, key, prefixlen)
    spin_unlock(map + _LOCK)
    return status


@device
def _leftmost(node: int) -> int:
    """The first element of a subtree: more specific ones come before less specific ones."""
    found = 0
    while node != 0:
        left = load64(_slot(node, 0))
        if load32(node + _FLAGS) & _INTERMEDIATE == 0:
            found = node
            node = left if left != 0 else load64(_slot(node, 1))
        else:
            node = left
    return found


@device
def _after(map: int, key: int, prefixlen: int) -> int:
    """The element after the key's; the first, where that is not there; 0 after the last. No stack: a walk from the root."""
    root = load64(map + _ROOT)
    node = root
    behind, ancestor = 0, 0  # where the walk goes on: a subtree to the right, or the nearest ancestor below that
    while node != 0:
        matched = _longest_prefix_match(node, key + _KEY_DATA, prefixlen)
        own = load32(node + _PREFIXLEN)
        if own != matched:
            return _leftmost(root)
        if own == prefixlen:
            break
        if load32(node + _FLAGS) & _INTERMEDIATE == 0:
            behind, ancestor = 0, node
        side = _bit(key + _KEY_DATA, own)
        if side == 0 and load64(_slot(node, 1)) != 0:
            behind = load64(_slot(node, 1))
        node = load64(_slot(node, side))
    if node == 0 or load32(node + _FLAGS) & _INTERMEDIATE:
        return _leftmost(root)
    return _leftmost(behind) if behind != 0 else ancestor


@device
def trie_get_next_key(map: int, key: int, out: int) -> int:
    """The key after `key` (0, or one that is not there: the first) to `out`. 0 or -ENOENT."""
    root = load64(map + _ROOT)
    if root == 0:
        return -ENOENT
    known = key != 0 and load32(key) <= 8 * _data_size(map)
    node = _after(map, key, load32(key)) if known else _leftmost(root)
    if node == 0:
        return -ENOENT
    store32(out, load32(node + _PREFIXLEN))
    memcpy(out + _KEY_DATA, node + _DATA, _data_size(map))
    return 0


@native()
def trie_free(machine: int, map: int) -> int:
    """Give all nodes back."""
    enter(machine)
    while load64(map + _ROOT) != 0:
        slot = map + _ROOT
        node = load64(slot)
        while load64(_slot(node, 0)) != 0 or load64(_slot(node, 1)) != 0:
            slot = _slot(node, 0) if load64(_slot(node, 0)) != 0 else _slot(node, 1)
            node = load64(slot)
        store64(slot, 0)
        heap_free(machine, node)
    store64(map + _COUNT, 0)
    leave(machine)
    return 0
