"""BPF_OBJ_PIN and BPF_OBJ_GET.

Kernel counterpart: kernel/bpf/syscall.c (bpf_obj_pin, bpf_obj_get), kernel/bpf/inode.c
"""

from __future__ import annotations

import errno
import os

from fastrtp.errors import BpfError
from fastrtp.kernel.files.uaccess import strncpy_from_user
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.bpffs import PATH_MAX
from fastrtp.kernel.objects.link import BpfLink
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.kernel.syscall.call import Call, bpf_get_file_flag
from fastrtp.uapi import BPF_F_PATH_FD, BPF_F_RDONLY, BPF_F_WRONLY

_ACCESS = BPF_F_RDONLY | BPF_F_WRONLY


def _path(call: Call) -> str:
    return os.fsdecode(strncpy_from_user(call.attr.pathname, PATH_MAX))


def bpf_obj_pin(call: Call) -> int:
    """BPF_OBJ_PIN. BpfError EINVAL (a descriptor that is not open, too), EFAULT, EEXIST, ENOENT, EPERM. Kernel: bpf_obj_pin"""
    attr = call.attr
    call.check_attr()
    if attr.file_flags & ~BPF_F_PATH_FD:
        raise BpfError(errno.EINVAL, f"EINVAL: file_flags {attr.file_flags:#x}, only BPF_F_PATH_FD is allowed")
    if attr.path_fd and not attr.file_flags & BPF_F_PATH_FD:
        raise BpfError(errno.EINVAL, f"EINVAL: path_fd {attr.path_fd} without BPF_F_PATH_FD")
    obj = call.current.files.private_data(attr.bpf_fd)
    if not isinstance(obj, BpfProg | BpfMap | BpfLink):
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {attr.bpf_fd} is not a program, map or link")
    call.kernel.bpffs.pin(_path(call), obj)
    return 0


def bpf_obj_get(call: Call) -> int:
    """BPF_OBJ_GET: a descriptor. BpfError EINVAL, EFAULT, ENOENT, EACCES, EMFILE. Kernel: bpf_obj_get"""
    attr = call.attr
    call.check_attr()
    if attr.bpf_fd or attr.file_flags & ~(_ACCESS | BPF_F_PATH_FD):
        raise BpfError(errno.EINVAL, f"EINVAL: bpf_fd {attr.bpf_fd}, file_flags {attr.file_flags:#x}")
    if attr.path_fd and not attr.file_flags & BPF_F_PATH_FD:
        raise BpfError(errno.EINVAL, f"EINVAL: path_fd {attr.path_fd} without BPF_F_PATH_FD")
    f_flags = bpf_get_file_flag(attr.file_flags)
    obj = call.kernel.bpffs.get(_path(call))
    if isinstance(obj, BpfMap):
        fd = call.map_new_fd(obj, f_flags)
        obj.get_with_uref()
        return fd
    if isinstance(obj, BpfLink) and f_flags != os.O_RDWR:
        raise BpfError(errno.EINVAL, f"EINVAL: file_flags {attr.file_flags:#x} on a link")
    fd = call.prog_new_fd(obj) if isinstance(obj, BpfProg) else call.link_new_fd(obj)
    obj.get()
    return fd
