"""Storage that belongs to an object of the kernel: BPF_MAP_TYPE_TASK_STORAGE, CGRP_STORAGE, INODE_STORAGE and SK_STORAGE.

A map has one element for each owner that was given one: {u64 next, owner, pid} and the value, from the heap of programs'
objects, in chains by the owner's address. A lookup takes no lock: an element that is taken out stays what it was until the
turn of the machine ends, as it does in Linux until the grace period is over.

Kernel: kernel/bpf/bpf_local_storage.c, bpf_task_storage.c, bpf_cgrp_storage.c, net/core/bpf_sk_storage.c.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from fastrtp.maps.field_rows_native import FIELD_LOCK, check_and_init_map_value, copy_map_value, field_offset, has_field
from fastrtp.maps.fields_native import free_fields
from fastrtp.native.heap_native import heap_alloc, heap_free
from fastrtp.native.intrinsics import device, load32, load64, load_acquire, memcpy, mix, native, smp, store64, store_release
from fastrtp.native.layout import ENV, LOCAL_STORAGE, MAP, at
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST

_SLOTS = at(MAP, "slots")
_MASK = at(MAP, "slot_mask")
_VALUE_SIZE = at(MAP, "value_size")
_COUNT = at(MAP, "count")
_LOCK = at(MAP, "lock")
_MACHINE = at(MAP, "machine")
_FIELDS = at(MAP, "fields")
_NEXT, _OWNER, _PID = at(LOCAL_STORAGE, "next"), at(LOCAL_STORAGE, "owner"), at(LOCAL_STORAGE, "pid")
_ARENA_BASE, _ARENA_SIZE, _PID_AT = at(ENV, "arena_base"), at(ENV, "arena_size"), at(ENV, "pid_at")
_HEAD = LOCAL_STORAGE.itemsize
_CREATE = 1
_SPREAD = -7046029254386353131  # 2**64 / golden ratio


@device
def _bucket(map: int, owner: int) -> int:
    return load64(map + _SLOTS) + 8 * (mix(owner, _SPREAD) & load64(map + _MASK))


@device
def _next(link: int) -> int:
    return load64(link) if smp() == 0 else load_acquire(link)


@device
def _find(map: int, owner: int) -> int:
    element = _next(_bucket(map, owner))
    while element != 0 and load64(element + _OWNER) != owner:
        element = _next(element + _NEXT)
    return element


@device
def _create(map: int, owner: int, value: int, pid: int) -> int:
    """The owner's element, which has none: zeroed, or with this value; 0 where there is no memory."""
    size = load64(map + _VALUE_SIZE)
    element = heap_alloc(load64(map + _MACHINE), _HEAD + size, 0)
    if element == 0:
        return 0
    store64(element + _OWNER, owner)
    store64(element + _PID, pid)
    if value != 0:
        copy_map_value(map, element + _HEAD, value, size)
    bucket = _bucket(map, owner)
    spin_lock(map + _LOCK)
    found = _find(map, owner)
    if found == 0:
        store64(element + _NEXT, load64(bucket))
        if smp() == 0:
            store64(bucket, element)
        else:
            store_release(bucket, element)
        store64(map + _COUNT, load64(map + _COUNT) + 1)
    spin_unlock(map + _LOCK)
    if found != 0:  # another CPU was faster
        heap_free(load64(map + _MACHINE), element)
        return found
    return element


@device
def _delete(map: int, owner: int) -> int:
    link = _bucket(map, owner)
    spin_lock(map + _LOCK)
    element = load64(link)
    while element != 0 and load64(element + _OWNER) != owner:
        link = element + _NEXT
        element = load64(link)
    if element != 0:
        store64(link, load64(element + _NEXT))
        store64(map + _COUNT, load64(map + _COUNT) - 1)
    spin_unlock(map + _LOCK)
    if element == 0:
        return -ENOENT
    if load64(map + _FIELDS) != 0:
        free_fields(load64(map + _MACHINE), map, element + _HEAD, 0)
    heap_free(load64(map + _MACHINE), element)
    return 0


@device
def _storage_get(map: int, owner: int, value: int, flags: int, env: int, task: bool) -> int:
    if owner == 0 or flags & ~_CREATE != 0:
        return 0
    element = _find(map, owner)
    if element == 0 and flags != 0:
        pid = 0
        inside = owner - load64(env + _ARENA_BASE)
        if task and inside >= 0 and inside < load64(env + _ARENA_SIZE) - load64(env + _PID_AT) - 4:
            pid = load32(owner + load64(env + _PID_AT))
        element = _create(map, owner, value, pid)
    return element + _HEAD if element != 0 else 0


# what programs call


@native()
def bpf_task_storage_get(map: int, task: int, value: int, flags: int, env: int) -> int:
    """The task's value; made where it has none and flags say so, zeroed or from `value`. 0: none."""
    return _storage_get(map, task, value, flags, env, True)


@native()
def bpf_task_storage_delete(map: int, task: int, env: int) -> int:
    """0, -EINVAL for no task, -ENOENT."""
    return _delete(map, task) if task != 0 else -EINVAL


@native()
def bpf_cgrp_storage_get(map: int, cgroup: int, value: int, flags: int, env: int) -> int:
    """The cgroup's value, as that of a task."""
    return _storage_get(map, cgroup, value, flags, env, False)


@native()
def bpf_cgrp_storage_delete(map: int, cgroup: int, env: int) -> int:
    """0, -EINVAL for no cgroup, -ENOENT."""
    return _delete(map, cgroup) if cgroup != 0 else -EINVAL


@native()
def bpf_sk_storage_get(map: int, sk: int, value: int, flags: int, env: int) -> int:
    """The socket's value, as that of a task."""
    return _storage_get(map, sk, value, flags, env, False)


@native()
def bpf_sk_storage_delete(map: int, sk: int, env: int) -> int:
    """0, -EINVAL for no socket, -ENOENT."""
    return _delete(map, sk) if sk != 0 else -EINVAL


# what system calls call


@native()
def storage_lookup(machine: int, map: int, owner: int, out: int) -> int:
    """Copy the owner's value to `out`. 0 or -ENOENT."""
    enter(machine)
    element = _find(map, owner)
    if element != 0:
        memcpy(out, element + _HEAD, load64(map + _VALUE_SIZE))
        check_and_init_map_value(map, out)
    leave(machine)
    return 0 if element != 0 else -ENOENT


@device
def _update(map: int, owner: int, value: int, flags: int, pid: int) -> int:
    element = _find(map, owner)
    if element != 0 and flags & ~BPF_F_LOCK == BPF_NOEXIST:
        return -EEXIST
    if element == 0:
        if flags & ~BPF_F_LOCK == BPF_EXIST:
            return -ENOENT
        return 0 if _create(map, owner, value, pid) != 0 else -ENOMEM
    target, size = element + _HEAD, load64(map + _VALUE_SIZE)
    if flags & BPF_F_LOCK and has_field(map, FIELD_LOCK):
        spin_lock(target + field_offset(map, FIELD_LOCK))
        copy_map_value(map, target, value, size)
        spin_unlock(target + field_offset(map, FIELD_LOCK))
        return 0
    copy_map_value(map, target, value, size)  # Linux takes another element, which no program can tell: none runs
    free_fields(load64(map + _MACHINE), map, target, 0)
    return 0


@native()
def storage_update(machine: int, map: int, owner: int, value: int, flags: int, pid: int) -> int:
    """Set the owner's value. 0, -EEXIST, -ENOENT or -ENOMEM."""
    enter(machine)
    status = _update(map, owner, value, flags, pid)
    leave(machine)
    return status


@native()
def storage_delete_gone(machine: int, map: int) -> int:
    """Take the values of owners that are gone away; how many."""
    enter(machine)
    gone = 0
    for slot in range(load64(map + _MASK) + 1):
        link = load64(map + _SLOTS) + 8 * slot
        element = load64(link)
        while element != 0:
            following = load64(element + _NEXT)
            if load64(element + _OWNER) == 0:
                store64(link, following)
                free_fields(machine, map, element + _HEAD, 0)
                heap_free(machine, element)
                gone += 1
            else:
                link = element + _NEXT
            element = following
    store64(map + _COUNT, load64(map + _COUNT) - gone)
    leave(machine)
    return gone


@native()
def storage_delete(machine: int, map: int, owner: int) -> int:
    """Take the owner's value away. 0 or -ENOENT."""
    enter(machine)
    status = _delete(map, owner)
    leave(machine)
    return status


@native()
def storage_clear(machine: int, map: int) -> int:
    """Take everybody's value away."""
    enter(machine)
    for slot in range(load64(map + _MASK) + 1):
        bucket = load64(map + _SLOTS) + 8 * slot
        element = load64(bucket)
        store64(bucket, 0)
        while element != 0:
            following = load64(element + _NEXT)
            free_fields(machine, map, element + _HEAD, 0)
            heap_free(machine, element)
            element = following
    store64(map + _COUNT, 0)
    leave(machine)
    return 0
