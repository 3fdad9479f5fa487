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
from fastrtp.maps.records import LocalStorageElem, MapRecord
from fastrtp.native.heap_native import heap_alloc, heap_free
from fastrtp.native.intrinsics import device, load32, load64, load_acquire, memcpy, mix, native, smp, store64, store_release
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Env, Machine
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST

_LOCK = MapRecord.layout.at("lock")
_NEXT = LocalStorageElem.layout.at("next")
_HEAD = LocalStorageElem.layout.size
_CREATE = 1
_SPREAD = -7046029254386353131  # 2**64 / golden ratio


@device
def _bucket(map: MapRecord, owner: int) -> int:
    return map.slots + 8 * (mix(owner, _SPREAD) & map.slot_mask)


@device
def _next(link: int) -> int:
    return load64(link) if smp() == 0 else load_acquire(link)


@device
def _find(map: MapRecord, owner: int) -> LocalStorageElem:
    element = LocalStorageElem(_next(_bucket(map, owner)))
    while element and element.owner != owner:
        element = LocalStorageElem(_next(int(element) + _NEXT))
    return element


@device
def _create(map: MapRecord, owner: int, value: int, pid: int) -> LocalStorageElem:
    """The owner's element, which has none: zeroed, or with this value; 0 where there is no memory."""
    size = map.value_size
    element = LocalStorageElem(heap_alloc(map.machine, _HEAD + size, 0))
    if not element:
        return LocalStorageElem(0)
    element.owner = owner
    element.pid = pid
    if value != 0:
        copy_map_value(map, int(element) + _HEAD, value, size)
    bucket = _bucket(map, owner)
    spin_lock(int(map) + _LOCK)
    found = _find(map, owner)
    if not found:
        element.next = load64(bucket)
        if smp() == 0:
            store64(bucket, int(element))
        else:
            store_release(bucket, int(element))
        map.count = map.count + 1
    spin_unlock(int(map) + _LOCK)
    if found:  # another CPU was faster
        heap_free(map.machine, int(element))
        return found
    return element


@device
def _delete(map: MapRecord, owner: int) -> int:
    link = _bucket(map, owner)
    spin_lock(int(map) + _LOCK)
    element = LocalStorageElem(load64(link))
    while element and element.owner != owner:
        link = int(element) + _NEXT
        element = LocalStorageElem(load64(link))
    if element:
        store64(link, element.next)
        map.count = map.count - 1
    spin_unlock(int(map) + _LOCK)
    if not element:
        return -ENOENT
    if map.fields != 0:
        free_fields(int(map.machine), map, int(element) + _HEAD, 0)
    heap_free(map.machine, int(element))
    return 0


@device
def _storage_get(map: MapRecord, owner: int, value: int, flags: int, env: Env, task: bool) -> int:
    if owner == 0 or flags & ~_CREATE != 0:
        return 0
    element = _find(map, owner)
    if not element and flags != 0:
        pid = 0
        inside = owner - env.arena_base
        if task and inside >= 0 and inside < env.arena_size - env.pid_at - 4:
            pid = load32(owner + env.pid_at)
        element = _create(map, owner, value, pid)
    return int(element) + _HEAD if element else 0


# what programs call


@native()
def bpf_task_storage_get(map: MapRecord, task: int, value: int, flags: int, env: Env) -> int:
    """The task's value; made where it has none and flags say so, zeroed or from `value`. 0: none."""
    return _storage_get(map, task, value, flags, env, True)


@native()
def bpf_task_storage_delete(map: MapRecord, task: int, env: Env) -> int:
    """0, -EINVAL for no task, -ENOENT."""
    return _delete(map, task) if task != 0 else -EINVAL


@native()
def bpf_cgrp_storage_get(map: MapRecord, cgroup: int, value: int, flags: int, env: Env) -> int:
    """The cgroup's value, as that of a task."""
    return _storage_get(map, cgroup, value, flags, env, False)


@native()
def bpf_cgrp_storage_delete(map: MapRecord, cgroup: int, env: Env) -> int:
    """0, -EINVAL for no cgroup, -ENOENT."""
    return _delete(map, cgroup) if cgroup != 0 else -EINVAL


@native()
def bpf_sk_storage_get(map: MapRecord, sk: int, value: int, flags: int, env: Env) -> int:
    """The socket's value, as that of a task."""
    return _storage_get(map, sk, value, flags, env, False)


@native()
def bpf_sk_storage_delete(map: MapRecord, sk: int, env: Env) -> int:
    """0, -EINVAL for no socket, -ENOENT."""
    return _delete(map, sk) if sk != 0 else -EINVAL


# what system calls call


@native()
def storage_lookup(machine: Machine, map: MapRecord, owner: int, out: int) -> int:
    """Copy the owner's value to `out`. 0 or -ENOENT."""
    enter(machine)
    element = _find(map, owner)
    if element:
        memcpy(out, int(element) + _HEAD, map.value_size)
        check_and_init_map_value(map, out)
    leave(machine)
    return 0 if element else -ENOENT


@device
def _update(map: MapRecord, owner: int, value: int, flags: int, pid: int) -> int:
    element = _find(map, owner)
    if element and flags & ~BPF_F_LOCK == BPF_NOEXIST:
        return -EEXIST
    if not element:
        if flags & ~BPF_F_LOCK == BPF_EXIST:
            return -ENOENT
        return 0 if _create(map, owner, value, pid) else -ENOMEM
    target, size = int(element) + _HEAD, map.value_size
    if flags & BPF_F_LOCK and has_field(map, FIELD_LOCK):
        spin_lock(target + field_offset(map, FIELD_LOCK))
        copy_map_value(map, target, value, size)
        spin_unlock(target + field_offset(map, FIELD_LOCK))
        return 0
    copy_map_value(map, target, value, size)  # Linux takes another element, which no program can tell: none runs
    free_fields(int(map.machine), map, target, 0)
    return 0


@native()
def storage_update(machine: Machine, map: MapRecord, owner: int, value: int, flags: int, pid: int) -> int:
    """Set the owner's value. 0, -EEXIST, -ENOENT or -ENOMEM."""
    enter(machine)
    status = _update(map, owner, value, flags, pid)
    leave(machine)
    return status


@native()
def storage_delete_gone(machine: Machine, map: MapRecord) -> int:
    """Take the values of owners that are gone away; how many."""
    enter(machine)
    gone = 0
    for slot in range(map.slot_mask + 1):
        link = map.slots + 8 * slot
        element = LocalStorageElem(load64(link))
        while element:
            following = element.next
            if element.owner == 0:
                store64(link, following)
                free_fields(int(machine), map, int(element) + _HEAD, 0)
                heap_free(machine, int(element))
                gone += 1
            else:
                link = int(element) + _NEXT
            element = LocalStorageElem(following)
    map.count = map.count - gone
    leave(machine)
    return gone


@native()
def storage_delete(machine: Machine, map: MapRecord, owner: int) -> int:
    """Take the owner's value away. 0 or -ENOENT."""
    enter(machine)
    status = _delete(map, owner)
    leave(machine)
    return status


@native()
def storage_clear(machine: Machine, map: MapRecord) -> int:
    """Take everybody's value away."""
    enter(machine)
    for slot in range(map.slot_mask + 1):
        bucket = map.slots + 8 * slot
        element = LocalStorageElem(load64(bucket))
        store64(bucket, 0)
        while element:
            following = element.next
            free_fields(int(machine), map, int(element) + _HEAD, 0)
            heap_free(machine, int(element))
            element = LocalStorageElem(following)
    map.count = 0
    leave(machine)
    return 0
