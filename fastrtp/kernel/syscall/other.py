"""Smaller commands: BPF_TASK_FD_QUERY, BPF_ENABLE_STATS, and those that no program here takes.

Kernel counterpart: kernel/bpf/syscall.c.
"""

from __future__ import annotations

import errno
import os

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import File
from fastrtp.kernel.files.uaccess import copy_string_to_user
from fastrtp.kernel.objects.bpf_map import not_supported
from fastrtp.kernel.objects.link import BpfRawTpLink
from fastrtp.kernel.syscall.call import Call
from fastrtp.kernel.tracing.perf_tracepoint import TracepointEvent
from fastrtp.uapi import BPF_F_ALLOW_MULTI, BPF_F_ALLOW_OVERRIDE, BPF_F_REPLACE, BpfAttachType, BpfStatsType, BpfTaskFdType

_QUERY_EFFECTIVE = 1
_STREAM_IDS = (1, 2)


def bpf_task_fd_query(call: Call) -> int:
    """BPF_TASK_FD_QUERY: what is behind a process's descriptor. BpfError EINVAL, EPERM, ENOENT, EBADF, ENOTSUPP, EFAULT;
    ENOSPC for a short buffer, with the outputs filled all the same. Kernel: bpf_task_fd_query
    """
    attr = call.attr
    call.check_attr()
    call.require_capable("BPF_TASK_FD_QUERY")
    if attr.flags:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x}, none are allowed")
    process = call.kernel.find_process(attr.pid)
    if process is None:
        raise BpfError(errno.ENOENT, f"ENOENT: no process {attr.pid}")
    target = process.files.fget(attr.fd).private_data
    if isinstance(target, BpfRawTpLink):
        name, prog_id, fd_type = target.tp_name.encode(), target.prog.id, BpfTaskFdType.BPF_FD_TYPE_RAW_TRACEPOINT
    elif isinstance(target, TracepointEvent):
        if target.prog is None:
            raise BpfError(errno.ENOENT, f"ENOENT: the perf event of file descriptor {attr.fd} has no program")
        name, prog_id, fd_type = target.tp_event.name.encode(), target.prog.id, BpfTaskFdType.BPF_FD_TYPE_TRACEPOINT
    else:
        raise not_supported(f"file descriptor {attr.fd} of process {attr.pid} has no program attached")
    room = attr.buf_len
    call.put_user("buf_len", len(name))
    fits = copy_string_to_user(attr.buf, room, name) if room and attr.buf else True
    call.put_user("prog_id", prog_id)
    call.put_user("fd_type", fd_type)
    call.put_user("probe_offset", 0)
    call.put_user("probe_addr", 0)
    if not fits:
        raise BpfError(errno.ENOSPC, f"ENOSPC: name of {len(name)} bytes and a NUL, the buffer has {room}")
    return 0


def bpf_enable_stats(call: Call) -> int:
    """BPF_ENABLE_STATS: run_cnt and run_time_ns count while the descriptor is open. BpfError EINVAL, EPERM, EMFILE.

    Kernel: kernel/bpf/syscall.c:bpf_enable_runtime_stats
    """
    call.check_attr()
    call.require_capable("BPF_ENABLE_STATS")
    if call.attr.type != BpfStatsType.BPF_STATS_RUN_TIME:
        raise BpfError(errno.EINVAL, f"EINVAL: statistics of type {call.attr.type}")
    kernel = call.kernel

    def release(_file: File) -> None:
        kernel.hold_stats(-1)

    fd = call.new_fd("bpf-stats", None, os.O_RDONLY, release)
    kernel.hold_stats(1)
    return fd


def bpf_prog_attach(call: Call) -> int:
    """BPF_PROG_ATTACH: raw tracepoints are not attached this way. BpfError EINVAL, EBADF. Kernel: bpf_prog_attach"""
    attr = call.attr
    call.check_attr()
    _check_attach(attr.attach_type)
    known = BPF_F_ALLOW_OVERRIDE | BPF_F_ALLOW_MULTI | BPF_F_REPLACE
    if attr.attach_flags & ~known or attr.relative_fd or attr.expected_revision:
        raise BpfError(errno.EINVAL, f"EINVAL: attach_flags {attr.attach_flags:#x}, relative_fd {attr.relative_fd}")
    call.prog_get(attr.attach_bpf_fd)
    raise BpfError(errno.EINVAL, "EINVAL: tracing programs are attached with BPF_RAW_TRACEPOINT_OPEN or BPF_LINK_CREATE")


def bpf_prog_detach(call: Call) -> int:
    """BPF_PROG_DETACH. BpfError EINVAL. Kernel: bpf_prog_detach"""
    call.check_attr()
    _check_attach(call.attr.attach_type)
    raise BpfError(errno.EINVAL, "EINVAL: tracing programs are detached by closing their link")


def _check_attach(attach_type: int) -> None:
    if attach_type not in list(BpfAttachType):
        raise BpfError(errno.EINVAL, f"EINVAL: no attach type {attach_type}")


def bpf_prog_query(call: Call) -> int:
    """BPF_PROG_QUERY: there is nothing here that it knows. BpfError EINVAL, EPERM. Kernel: bpf_prog_query"""
    attr = call.attr
    call.require_capable("BPF_PROG_QUERY")
    call.check_attr()
    if attr.query_flags & ~_QUERY_EFFECTIVE:
        raise BpfError(errno.EINVAL, f"EINVAL: query_flags {attr.query_flags:#x}, only BPF_F_QUERY_EFFECTIVE is allowed")
    raise BpfError(errno.EINVAL, f"EINVAL: attach type {attr.attach_type} has no list of programs")


def bpf_iter_create(call: Call) -> int:
    """BPF_ITER_CREATE: no link here is an iterator's. BpfError EINVAL, EBADF. Kernel: bpf_iter_create"""
    call.check_attr()
    if call.attr.flags:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {call.attr.flags:#x}, none are allowed")
    link = call.link_get(call.attr.link_fd)
    raise BpfError(errno.EINVAL, f"EINVAL: link {link.id} is not an iterator")


def token_create(call: Call) -> int:
    """BPF_TOKEN_CREATE: the BPF file system here delegates nothing. BpfError EINVAL, EBADF. Kernel: token_create"""
    call.check_attr()
    if call.attr.flags:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {call.attr.flags:#x}, none are allowed")
    call.file(call.attr.bpffs_fd)
    raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {call.attr.bpffs_fd} is not a BPF file system")


def prog_stream_read(call: Call) -> int:
    """BPF_PROG_STREAM_READ_BY_FD: bytes read, 0: no helper here writes to a stream. BpfError EINVAL, EBADF, ENOENT.

    Kernel: kernel/bpf/syscall.c:prog_stream_read
    """
    attr = call.attr
    call.check_attr()
    call.prog_get(attr.prog_fd)
    if attr.stream_id not in _STREAM_IDS:
        raise BpfError(errno.ENOENT, f"ENOENT: no stream {attr.stream_id}, there are 1 (stdout) and 2 (stderr)")
    return 0
