"""The four batch commands.

Arrays are walked by key; hash maps by bucket, all of it or nothing, and the opaque `out_batch` is the number of the next one:
ENOSPC says that the first does not fit the caller's buffers. Which keys share a bucket is chance, in Linux too.

Kernel counterpart: kernel/bpf/syscall.c (bpf_map_do_batch, generic_map_*_batch),
kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import File
from fastrtp.kernel.files.uaccess import copy_from_user, copy_to_user, put_user_u32
from fastrtp.kernel.objects.bpf_map import BpfMap, not_supported
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.syscall.map import check_lock_flag, check_readable, check_writable
from fastrtp.kernel.syscall.map_value import bpf_map_copy_value, bpf_map_update_value
from fastrtp.uapi import BPF_F_LOCK, BpfCmd, BpfMapType


def bpf_map_do_batch(call: Call) -> int:
    """One of the batch commands: 0; `count` in the attr says how many elements were done, on errors too.

    BpfError EINVAL, EBADF, EPERM, EFAULT, ENOENT (lookup: the end is reached), ENOTSUPP; else the element's own.
    Kernel: kernel/bpf/syscall.c:bpf_map_do_batch
    """
    from fastrtp.maps import Batch

    attr = call.attr
    call.check_attr()
    bpf_map, file = call.map_get(attr.map_fd), call.file(attr.map_fd)
    cmd = call.cmd
    if cmd in (BpfCmd.BPF_MAP_LOOKUP_BATCH, BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH):
        check_readable(bpf_map, file)
    if cmd != BpfCmd.BPF_MAP_LOOKUP_BATCH:
        check_writable(bpf_map, file)
    batch, deletes = bpf_map.map.ops.batch, cmd in (BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH, BpfCmd.BPF_MAP_DELETE_BATCH)
    if batch is Batch.BUCKETS:
        if cmd in (BpfCmd.BPF_MAP_LOOKUP_BATCH, BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH):
            return htab_map_lookup_batch(call, bpf_map, delete=cmd == BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH)
    elif batch is Batch.NONE or cmd == BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH or (deletes and batch is Batch.KEYS):
        raise not_supported(f"{cmd.name} on a map of type {BpfMapType(bpf_map.map_type).name}")
    if cmd == BpfCmd.BPF_MAP_LOOKUP_BATCH:
        return generic_map_lookup_batch(call, bpf_map)
    return _generic_map_change_batch(call, bpf_map, file, delete=cmd == BpfCmd.BPF_MAP_DELETE_BATCH)


def _check_elem_flags(bpf_map: BpfMap, flags: int) -> None:
    if flags & ~BPF_F_LOCK:
        raise BpfError(errno.EINVAL, f"EINVAL: elem_flags {flags:#x} of a batch, only BPF_F_LOCK is allowed")
    check_lock_flag(bpf_map, flags)


def generic_map_lookup_batch(call: Call, bpf_map: BpfMap) -> int:
    """Keys and values in the order of BPF_MAP_GET_NEXT_KEY. Kernel: kernel/bpf/syscall.c:generic_map_lookup_batch"""
    attr = call.attr
    _check_elem_flags(bpf_map, attr.elem_flags)
    if not attr.count:
        return 0
    call.put_user("count", 0)
    key_size, value_size = bpf_map.map.key_size, bpf_map.value_size_user
    key = copy_from_user(attr.in_batch, key_size) if attr.in_batch else None
    done = 0
    end: BpfError | None = None
    while done < attr.count:
        try:
            key_next = bpf_map.map.get_next_key(key)
        except BpfError as error:
            end = error
            break
        key = key_next
        value = bpf_map_copy_value(call, bpf_map, key, attr.elem_flags)
        copy_to_user(attr.keys + done * key_size, key)
        copy_to_user(attr.values + done * value_size, value)
        done += 1
    call.put_user("count", done)
    if done and key is not None:
        copy_to_user(attr.out_batch, key)
    if end is not None:
        raise end
    return 0


def htab_map_lookup_batch(call: Call, bpf_map: BpfMap, *, delete: bool) -> int:
    """Elements of bucket `in_batch` and later ones. Kernel: kernel/bpf/hashtab.c:__htab_map_lookup_and_delete_batch"""
    attr = call.attr
    _check_elem_flags(bpf_map, attr.elem_flags)
    if attr.flags:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x} of a batch, none are allowed")
    if not attr.count:
        return 0
    call.put_user("count", 0)
    batch = int.from_bytes(copy_from_user(attr.in_batch, 4), "little") if attr.in_batch else 0
    if batch >= bpf_map.map.n_buckets:
        raise BpfError(errno.ENOENT, f"ENOENT: batch {batch} of a map with {bpf_map.map.n_buckets} buckets")
    key_size, value_size = bpf_map.map.key_size, bpf_map.value_size_user
    done, status = 0, errno.ENOENT
    for bucket, rows in _by_bucket(bpf_map.map, batch):
        if len(rows) > attr.count - done:
            batch, status = bucket, 0 if done else errno.ENOSPC
            break
        for key, value in rows:
            copy_to_user(attr.keys + done * key_size, key)
            copy_to_user(attr.values + done * value_size, value)
            done += 1
        if delete:
            for key, _value in rows:
                bpf_map.map.delete_elem(key)
    put_user_u32(attr.out_batch, bpf_map.map.n_buckets if status == errno.ENOENT else batch)
    call.put_user("count", done)
    if status == errno.ENOENT:
        raise BpfError(status, f"ENOENT: the map is through: {done} elements were left")
    if status:
        raise BpfError(status, f"ENOSPC: bucket {batch} has more elements than the {attr.count} that there is room for")
    return 0


def _by_bucket(contents: Any, start: int) -> Iterator[tuple[int, list[tuple[bytes, bytes]]]]:
    """(bucket, its keys and values) of the buckets with elements from `start` on, as of now."""
    numbers, keys, values = contents.buckets(start)
    bounds = [0, *(1 + index for index in range(len(numbers) - 1) if numbers[index] != numbers[index + 1]), len(numbers)]
    for first, end in pairwise(bounds):
        if first < end:
            yield int(numbers[first]), [(keys[at].tobytes(), values[at].tobytes()) for at in range(first, end)]


def _generic_map_change_batch(call: Call, bpf_map: BpfMap, file: File, *, delete: bool) -> int:
    """Kernel: kernel/bpf/syscall.c:generic_map_update_batch, generic_map_delete_batch"""
    attr = call.attr
    _check_elem_flags(bpf_map, attr.elem_flags)
    if not attr.count:
        return 0
    if not delete:
        call.put_user("count", 0)
    key_size, value_size = bpf_map.map.key_size, bpf_map.value_size_user
    done = 0
    try:
        while done < attr.count:
            key = copy_from_user(attr.keys + done * key_size, key_size)
            if delete:
                bpf_map.map.delete_elem(key)
            else:
                value = copy_from_user(attr.values + done * value_size, value_size)
                bpf_map_update_value(call, bpf_map, file, key, value, attr.elem_flags)
            done += 1
    finally:
        call.put_user("count", done)
    return 0
