"""Objects of programs: bpf_obj_new, bpf_obj_drop, reference counts, and kptrs in map values.

Before an object's header (native/heap_native.py) are its rows (field_rows_native.py), so it says itself what it holds.
Kernel: kernel/bpf/helpers.c:bpf_obj_new_impl and its neighbours, bpf_kptr_xchg.
"""

from __future__ import annotations

from fastrtp.maps.field_rows_native import (
    FIELD_KPTR_LOCAL,
    FIELD_LIST_HEAD,
    FIELD_RB_ROOT,
    FIELD_REFCOUNT,
)
from fastrtp.native.heap_native import HEADER, heap_alloc, heap_free
from fastrtp.native.intrinsics import device, load64, native, store32, store64
from fastrtp.native.records import Env, Machine
from fastrtp.native.smp_native import add32, exchange64, load32_shared, swap32

_CLASS = 8
_OWNER = 16
_MAX_SIZE = 4096 - 8
_RIGHT, _LEFT = 8, 16


@device
def _rows(made: int) -> int:
    return load64(made - _CLASS) >> 8


@device
def _row(made: int, number: int) -> int:
    return load64(made - HEADER - 8 * (number + 1))


@device
def field_of(made: int, kind: int) -> int:
    """Address of an object's field of a kind, 0 where it has none."""
    for number in range(_rows(made)):
        row = _row(made, number)
        if row >> 32 & 0xFF == kind:
            return made + (row & 0xFFFFFFFF)
    return 0


@native()
def bpf_obj_new_impl(
    local_type_id: int, meta: int, env: Env, size: int, rows: int,
    r0: int, r1: int, r2: int, r3: int, r4: int, r5: int, r6: int, r7: int, r8: int, r9: int, r10: int,
) -> int:  # fmt: skip
    """A zeroed object of `size` bytes with these special fields, or 0. A reference count starts at 1.

    Kernel: kernel/bpf/memalloc.c:bpf_mem_cache_idx - there are caches for 1 to 4096 bytes, 8 of them the allocator's.
    """
    if size == 0 or size > _MAX_SIZE:
        return 0
    made = heap_alloc(env.machine, size, rows)
    if made == 0:
        return 0
    base = made - HEADER
    for number in range(rows):
        row = r0
        if number == 1:
            row = r1
        elif number == 2:
            row = r2
        elif number == 3:
            row = r3
        elif number == 4:
            row = r4
        elif number == 5:
            row = r5
        elif number == 6:
            row = r6
        elif number == 7:
            row = r7
        elif number == 8:
            row = r8
        elif number == 9:
            row = r9
        elif number == 10:
            row = r10
        store64(base - 8 * (number + 1), row)
        if row >> 32 & 0xFF == FIELD_REFCOUNT:
            store32(made + (row & 0xFFFFFFFF), 1)
    return made


@device
def object_put(made: int, pending: int) -> int:
    """One owner less; with the last one gone, the object goes in front of the list `pending` (linked by headers)."""
    count = field_of(made, FIELD_REFCOUNT)
    if count != 0:
        left = add32(count, -1)
        if left != 0:
            return pending
    store64(made - HEADER, pending)
    return made


@device
def object_drop_fields(field: int, row: int, pending: int) -> int:
    """What one field holds is to be dropped: it goes to the list."""
    kind = row >> 32 & 0xFF
    node_at = row >> 40
    if kind == FIELD_KPTR_LOCAL:
        held = load64(field)
        store64(field, 0)
        if held != 0:
            pending = object_put(held, pending)
    elif kind == FIELD_LIST_HEAD:
        node = load64(field)
        store64(field, 0)
        store64(field + 8, 0)
        while node != 0 and node != field:
            following = load64(node)
            store64(node, 0)
            store64(node + 8, 0)
            store64(node + _OWNER, 0)
            pending = object_put(node - node_at, pending)
            node = following
    elif kind == FIELD_RB_ROOT:
        node = load64(field)
        store64(field, 0)
        store64(field + 8, 0)
        while node != 0:
            # down to a leaf, and unhook it: no stack is needed
            below = load64(node + _LEFT)
            if below == 0:
                below = load64(node + _RIGHT)
            if below != 0:
                node = below
                continue
            parent = load64(node) & ~3
            if parent != 0:
                if load64(parent + _LEFT) == node:
                    store64(parent + _LEFT, 0)
                else:
                    store64(parent + _RIGHT, 0)
            store64(node, 0)
            store64(node + 24, 0)
            pending = object_put(node - node_at, pending)
            node = parent
    return pending


@device
def object_drop_all(machine: Machine, pending: int) -> None:
    """Free the objects of the list, and what they hold."""
    while pending != 0:
        made = pending
        pending = load64(made - HEADER)
        for number in range(_rows(made)):
            row = _row(made, number)
            pending = object_drop_fields(made + (row & 0xFFFFFFFF), row, pending)
        heap_free(machine, made)


@native()
def bpf_obj_drop_impl(made: int, meta: int, env: Env) -> int:
    """Give up an object."""
    object_drop_all(env.machine, object_put(made, 0))
    return 0


@native()
def bpf_refcount_acquire_impl(made: int, meta: int, env: Env) -> int:
    """Another owner of the object: the object, or 0 where the last one had let go of it already."""
    count = field_of(made, FIELD_REFCOUNT)
    while count != 0:
        owners = load32_shared(count)
        if owners == 0:
            return 0
        if swap32(count, owners, owners + 1):
            return made
    return 0


@native()
def bpf_kptr_xchg(field: int, value: int, env: Env) -> int:
    """Put a pointer into a map value (or object) and take the one that was there."""
    return exchange64(field, value)
