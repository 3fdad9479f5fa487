"""*_GET_NEXT_ID and *_GET_FD_BY_ID.

Kernel counterpart: kernel/bpf/syscall.c (bpf_obj_get_next_id, bpf_prog_get_fd_by_id, ...).
"""

from __future__ import annotations

import errno
from typing import Any

from fastrtp.errors import BpfError
from fastrtp.kernel.files.idr import INT_MAX, Idr
from fastrtp.kernel.syscall.call import Call, bpf_get_file_flag
from fastrtp.uapi import BPF_F_RDONLY, BPF_F_WRONLY, BpfCmd

_BPF_OBJ_FLAG_MASK = BPF_F_RDONLY | BPF_F_WRONLY


def _idr(call: Call) -> Idr[Any]:
    kernel = call.kernel
    tables: dict[BpfCmd, Idr[Any]] = {
        BpfCmd.BPF_PROG_GET_NEXT_ID: kernel.progs,
        BpfCmd.BPF_MAP_GET_NEXT_ID: kernel.maps,
        BpfCmd.BPF_BTF_GET_NEXT_ID: kernel.btfs,
        BpfCmd.BPF_LINK_GET_NEXT_ID: kernel.links,
    }
    return tables[call.cmd]


def bpf_obj_get_next_id(call: Call) -> int:
    """The lowest id above `start_id` into `next_id`. BpfError EINVAL, EPERM, ENOENT (no more). Kernel: bpf_obj_get_next_id"""
    call.check_attr()
    start = call.attr.id
    if start >= INT_MAX:
        raise BpfError(errno.EINVAL, f"EINVAL: start_id {start}, ids are below {INT_MAX}")
    call.require_capable(call.cmd.name)
    number = _idr(call).get_next(start + 1)
    if number is None:
        raise BpfError(errno.ENOENT, f"ENOENT: no id above {start}")
    call.put_user("next_id", number)
    return 0


def _find(call: Call, ids: Idr[Any], noun: str) -> Any:
    obj = ids.find(call.attr.id)
    if obj is None:
        raise BpfError(errno.ENOENT, f"ENOENT: no {noun} {call.attr.id}")
    return obj


def bpf_prog_get_fd_by_id(call: Call) -> int:
    """BpfError EINVAL, EPERM, ENOENT, EMFILE. Kernel: bpf_prog_get_fd_by_id"""
    call.check_attr()
    call.require_capable("BPF_PROG_GET_FD_BY_ID")
    prog = _find(call, call.kernel.progs, "program")
    fd = call.prog_new_fd(prog)
    prog.get()
    return fd


def bpf_map_get_fd_by_id(call: Call) -> int:
    """BpfError EINVAL, EPERM, ENOENT, EMFILE. Kernel: bpf_map_get_fd_by_id"""
    call.check_attr()
    if call.attr.open_flags & ~_BPF_OBJ_FLAG_MASK:
        raise BpfError(errno.EINVAL, f"EINVAL: open_flags {call.attr.open_flags:#x}, BPF_F_RDONLY or BPF_F_WRONLY are allowed")
    call.require_capable("BPF_MAP_GET_FD_BY_ID")
    f_flags = bpf_get_file_flag(call.attr.open_flags)
    bpf_map = _find(call, call.kernel.maps, "map")
    fd = call.map_new_fd(bpf_map, f_flags)
    bpf_map.get_with_uref()
    return fd


def bpf_link_get_fd_by_id(call: Call) -> int:
    """BpfError EINVAL, EPERM, ENOENT, EMFILE. Kernel: bpf_link_get_fd_by_id"""
    call.check_attr()
    call.require_capable("BPF_LINK_GET_FD_BY_ID")
    link = _find(call, call.kernel.links, "link")
    fd = call.link_new_fd(link)
    link.get()
    return fd


def bpf_btf_get_fd_by_id(call: Call) -> int:
    """BpfError EINVAL, EPERM, ENOENT, EMFILE. Kernel: bpf_btf_get_fd_by_id"""
    call.check_attr()
    if call.attr.open_flags:
        raise BpfError(errno.EINVAL, f"EINVAL: open_flags {call.attr.open_flags:#x}, none are allowed")
    call.require_capable("BPF_BTF_GET_FD_BY_ID")
    btf = _find(call, call.kernel.btfs, "BTF")
    fd = call.btf_new_fd(btf)
    btf.get()
    return fd
