"""Reading and writing one value by key, for the element and the batch commands: descriptors stored in maps included.

Kernel counterpart: kernel/bpf/syscall.c (bpf_map_copy_value, bpf_map_update_value).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import File, signed
from fastrtp.kernel.objects.bpf_map import BpfMap, not_supported
from fastrtp.kernel.objects.perf_event import PerfEvent
from fastrtp.kernel.syscall.map_owner import owner_of
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    from fastrtp.kernel.syscall.call import Call


def has_spin_lock(bpf_map: BpfMap) -> bool:
    """Whether the values' BTF has a struct bpf_spin_lock. Kernel: btf_record_has_field"""
    return bool(bpf_map.map.has_lock)


def bpf_map_copy_value(call: Call, bpf_map: BpfMap, key: bytes, flags: int) -> bytes:
    """The value as a system call sees it: of a program array the program's id. BpfError ENOENT, ENOTSUPP."""
    if bpf_map.map_type == BpfMapType.BPF_MAP_TYPE_PROG_ARRAY:
        return bpf_map.lookup_prog(int.from_bytes(key, "little")).id.to_bytes(4, "little")
    if bpf_map.is_map_of_maps:
        return bpf_map.lookup_inner(key).id.to_bytes(4, "little")
    if bpf_map.is_fd_array:
        raise not_supported(f"lookup in a map of type {BpfMapType(bpf_map.map_type).name}")
    if bpf_map.map.ops.owner:
        return bytes(bpf_map.map.lookup_owner(owner_of(call, bpf_map, key)[0], flags))
    return bytes(bpf_map.map.lookup_elem(key, flags))


def bpf_map_update_value(call: Call, bpf_map: BpfMap, file: File, key: bytes, value: bytes, flags: int) -> None:
    """Write a value; in maps of descriptors it is one of the calling process. BpfError as the kernel's."""
    if bpf_map.is_map_of_maps:
        if bpf_map.is_fd_array:
            bpf_map.check_index(int.from_bytes(key, "little"), flags)
        inner = call.map_get(int.from_bytes(value, "little"))
        bpf_map.update_inner(key, inner, flags)
        return
    if bpf_map.map.ops.owner:
        owner, pid = owner_of(call, bpf_map, key)
        bpf_map.map.update_owner(owner, value, flags, pid)
        return
    if not bpf_map.is_fd_array:
        bpf_map.map.update_elem(key, value, flags)
        return
    index, fd = int.from_bytes(key, "little"), int.from_bytes(value, "little")
    bpf_map.check_index(index, flags)
    if bpf_map.map_type == BpfMapType.BPF_MAP_TYPE_PROG_ARRAY:
        prog = call.prog_get(fd)
        if not bpf_map.compatible(prog):
            raise BpfError(errno.EINVAL, f"EINVAL: program {prog.id} is of another kind than those in program array {bpf_map.id}")
        if not bpf_map.admits(prog):
            accesses = f"program {prog.id} accesses {prog.max_tp_access} bytes of its tracepoint's buffer"
            raise BpfError(errno.EINVAL, f"EINVAL: {accesses}, more than a program that calls it from program array {bpf_map.id}")
        prog.get()
        bpf_map.update_prog(index, prog)
        return
    if bpf_map.map_type == BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY:
        call.file(fd)
        raise BpfError(errno.EBADF, f"EBADF: file descriptor {signed(fd)} is not a cgroup")
    event = call.file(fd).private_data
    if not isinstance(event, PerfEvent):
        raise BpfError(errno.EBADF, f"EBADF: file descriptor {signed(fd)} is not a perf event")
    event.get()
    bpf_map.update_event(index, event, file)
