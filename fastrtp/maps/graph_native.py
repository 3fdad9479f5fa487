"""Lists and trees of programs' objects: bpf_list_*, bpf_rbtree_*, under the lock of the value that they are in.

A list is a ring: {first, last} and {next, prev, owner}. A tree is a treap, ordered by the program's function, its shape by
a hash of the nodes' addresses: {root, unused} and {parent, right, left, owner}. Kernel: kernel/bpf/helpers.c.
Differs: the kernel's tree is red-black; no program sees the shape.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.maps.object_native import object_drop_all, object_put
from fastrtp.native.intrinsics import call_subprog, device, load64, lshr, native, store64, ult
from fastrtp.native.records import Env

_PREV = 8
_LIST_OWNER = 16
_RIGHT, _LEFT, _TREE_OWNER = 8, 16, 24
_MIX = -7046029254386353131


@device
def _ring(head: int) -> None:
    """A head that was zeroed is an empty ring."""
    if load64(head) == 0:
        store64(head, head)
        store64(head + _PREV, head)


@device
def _push(head: int, node: int, env: Env, off: int, before: int) -> int:
    if load64(node + _LIST_OWNER) != 0:
        object_drop_all(env.machine, object_put(node - off, 0))
        return -EINVAL
    _ring(head)
    following = head if before == 0 else load64(head)
    previous = load64(following + _PREV)
    store64(node, following)
    store64(node + _PREV, previous)
    store64(previous, node)
    store64(following + _PREV, node)
    store64(node + _LIST_OWNER, head)
    return 0


@native()
def bpf_list_push_front_impl(head: int, node: int, env: Env, off: int) -> int:
    """Put a node (at `off` of its object) first. 0; -EINVAL where it is in a list already: then one owner lets go of it."""
    return _push(head, node, env, off, 1)


@native()
def bpf_list_push_back_impl(head: int, node: int, env: Env, off: int) -> int:
    """Put a node last."""
    return _push(head, node, env, off, 0)


@device
def _pop(head: int, node: int) -> int:
    if node == head:
        return 0
    store64(load64(node + _PREV), load64(node))
    store64(load64(node) + _PREV, load64(node + _PREV))
    store64(node, 0)
    store64(node + _PREV, 0)
    store64(node + _LIST_OWNER, 0)
    return node


@native()
def bpf_list_pop_front(head: int, env: Env) -> int:
    """The first node, which is taken out; 0 for an empty list."""
    _ring(head)
    return _pop(head, load64(head))


@native()
def bpf_list_pop_back(head: int, env: Env) -> int:
    """The last node."""
    _ring(head)
    return _pop(head, load64(head + _PREV))


@native()
def bpf_list_front(head: int, env: Env) -> int:
    """The first node, which stays; 0 for an empty list."""
    _ring(head)
    return 0 if load64(head) == head else load64(head)


@native()
def bpf_list_back(head: int, env: Env) -> int:
    """The last node, which stays."""
    _ring(head)
    return 0 if load64(head + _PREV) == head else load64(head + _PREV)


@device
def _rank(node: int) -> int:
    """What a parent has less of than its children."""
    value = node * _MIX
    return value ^ lshr(value, 29)


@device
def _replace(root: int, parent: int, old: int, new: int) -> None:
    """`new` stands where `old` stood."""
    if parent == 0:
        store64(root, new)
    elif load64(parent + _LEFT) == old:
        store64(parent + _LEFT, new)
    else:
        store64(parent + _RIGHT, new)
    if new != 0:
        store64(new, parent)


@device
def _rotate_up(root: int, node: int) -> None:
    """The node and its parent change places; the order stays."""
    parent = load64(node)
    above = load64(parent)
    from_left = load64(parent + _LEFT) == node
    inner = load64(node + (_RIGHT if from_left else _LEFT))
    store64(parent + (_LEFT if from_left else _RIGHT), inner)
    if inner != 0:
        store64(inner, parent)
    _replace(root, above, parent, node)
    store64(node + (_RIGHT if from_left else _LEFT), parent)
    store64(parent, node)


@native()
def bpf_rbtree_add_impl(root: int, node: int, less: int, env: Env, off: int) -> int:
    """Put a node in before the first that it is less than. 0; -EINVAL where it is in a tree already, as for lists."""
    if load64(node + _TREE_OWNER) != 0:
        object_drop_all(env.machine, object_put(node - off, 0))
        return -EINVAL
    store64(node + _LEFT, 0)
    store64(node + _RIGHT, 0)
    store64(node + _TREE_OWNER, root)
    parent = 0
    side = _LEFT
    at_node = load64(root)
    while at_node != 0:
        parent = at_node
        side = _LEFT if call_subprog(less, node, parent, 0, 0, 0, int(env)) != 0 else _RIGHT
        at_node = load64(parent + side)
    store64(node, parent)
    if parent == 0:
        store64(root, node)
    else:
        store64(parent + side, node)
    while load64(node) != 0 and ult(_rank(node), _rank(load64(node))):
        _rotate_up(root, node)
    return 0


@native()
def bpf_rbtree_remove(root: int, node: int, env: Env) -> int:
    """Take a node out: the node, or 0 where it is not in this tree."""
    if load64(node + _TREE_OWNER) != root:
        return 0
    while True:
        left, right = load64(node + _LEFT), load64(node + _RIGHT)
        if left == 0 or right == 0:
            break
        _rotate_up(root, left if ult(_rank(left), _rank(right)) else right)
    _replace(root, load64(node), node, left if left != 0 else right)
    store64(node, 0)
    store64(node + _LEFT, 0)
    store64(node + _RIGHT, 0)
    store64(node + _TREE_OWNER, 0)
    return node


@native()
def bpf_rbtree_first(root: int, env: Env) -> int:
    """The least node, which stays; 0 for an empty tree."""
    node = load64(root)
    if node == 0:
        return 0
    while load64(node + _LEFT) != 0:
        node = load64(node + _LEFT)
    return node
