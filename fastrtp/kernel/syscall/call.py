"""Call: one bpf(2) call under way, and what every command does with it: attr checks, descriptors to objects, new descriptors.

Kernel counterpart: kernel/bpf/syscall.c (CHECK_ATTR, __bpf_map_get, bpf_prog_get, bpf_link_get_from_fd, *_new_fd).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import O_CLOEXEC, File, signed
from fastrtp.kernel.files.uaccess import copy_to_user
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.objects.link import BpfLink
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.uapi import ATTRS, BPF_F_RDONLY, BPF_F_WRONLY, BpfCmd, attr_of

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.kernel.process import Process

T = TypeVar("T")
L = TypeVar("L", bound=BpfLink)


class Call:
    """The arguments. `attr`: the command's fields, zero where the caller's attr was shorter; `uattr`: its address."""

    __slots__ = ("attr", "cmd", "current", "data", "kernel", "size", "uattr")

    def __init__(self, kernel: Kernel, current: Process, cmd: BpfCmd, data: bytes, uattr: int, size: int) -> None:
        self.kernel = kernel
        self.current = current
        self.cmd = cmd
        self.data = data
        self.attr: Any = attr_of(cmd, data)
        self.uattr = uattr
        self.size = size

    def check_attr(self) -> None:
        """Everything after the command's last field is zero. BpfError EINVAL. Kernel: kernel/bpf/syscall.c:CHECK_ATTR"""
        end = ATTRS[self.cmd].end
        if any(self.data[end:]):
            raise BpfError(errno.EINVAL, f"EINVAL: non-zero bytes past the {end} of attr that {self.cmd.name} knows")

    def put_user(self, field: str, value: int) -> None:
        """Write one field back to the caller's attr. BpfError EFAULT."""
        at = getattr(ATTRS[self.cmd].struct, field)
        copy_to_user(self.uattr + at.offset, (value & ((1 << 8 * at.size) - 1)).to_bytes(at.size, "little"))

    def require_capable(self, what: str) -> None:
        """BpfError EPERM for a process without rights."""
        if not self.current.capable:
            raise BpfError(errno.EPERM, f"EPERM: {what} takes CAP_BPF or CAP_SYS_ADMIN")

    def file(self, fd: int) -> File:
        """BpfError EBADF."""
        return self.current.files.fget(fd)

    def _object(self, fd: int, kind: type[T], noun: str) -> T:
        obj = self.file(fd).private_data
        if not isinstance(obj, kind):
            raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {signed(fd)} is not a {noun}")
        return obj

    def map_get(self, fd: int) -> BpfMap:
        """BpfError EBADF, EINVAL. Kernel: __bpf_map_get"""
        return self._object(fd, BpfMap, "map")

    def prog_get(self, fd: int) -> BpfProg:
        """BpfError EBADF, EINVAL. Kernel: bpf_prog_get"""
        return self._object(fd, BpfProg, "program")

    def link_get(self, fd: int) -> BpfLink:
        """BpfError EBADF, EINVAL. Kernel: bpf_link_get_from_fd"""
        return self._object(fd, BpfLink, "link")

    def btf_get(self, fd: int) -> BtfObject:
        """BpfError EBADF, EINVAL. Kernel: btf_get_by_fd"""
        return self._object(fd, BtfObject, "BTF")

    def token_get(self, fd: int) -> None:
        """BpfError EBADF, EINVAL: no descriptor here is of a BPF token. Kernel: kernel/bpf/token.c:bpf_token_get_from_fd"""
        self.file(fd & 0xFFFFFFFF)
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {signed(fd)} is not a BPF token")

    def new_fd(self, name: str, obj: Any, f_flags: int, release: Callable[[File], None]) -> int:
        """A descriptor of a new file of `obj`, closed on exec; the reference passes to it, unless it fails.

        BpfError EMFILE, ENFILE. Kernel: fs/anon_inodes.c:anon_inode_getfd
        """
        files = self.current.files
        with files.reserved(True) as fd:
            file = self.kernel.file_table.open(f"anon_inode:{name}", obj, f_flags | O_CLOEXEC, release)
        return files.fd_install(fd, file)

    def link_attach(self, prime: Callable[[], L], attach: Callable[[L], None]) -> int:
        """Make a link and its descriptor, and attach it last: nothing can fail after its program may run.

        The link takes a reference of its program. BpfError EMFILE, ENFILE, and what `prime` and `attach` raise: then
        nothing is left. Kernel: kernel/bpf/syscall.c:bpf_link_prime, bpf_link_settle
        """
        files = self.current.files
        with files.reserved(True) as fd, ExitStack() as undo:
            link = prime()
            undo.callback(link.cleanup)
            file = self.kernel.file_table.open("anon_inode:bpf_link", link, os.O_RDONLY | O_CLOEXEC, link.release_file)
            undo.callback(file.discard)
            attach(link)
            undo.pop_all()
        link.prog.get()
        link.settled = True
        return files.fd_install(fd, file)

    def map_new_fd(self, bpf_map: BpfMap, f_flags: int) -> int:
        """Kernel: bpf_map_new_fd"""
        return self.new_fd("bpf-map", bpf_map, f_flags, bpf_map.release_file)

    def prog_new_fd(self, prog: BpfProg) -> int:
        """Kernel: bpf_prog_new_fd"""
        return self.new_fd("bpf-prog", prog, os.O_RDWR, prog.release_file)

    def link_new_fd(self, link: BpfLink) -> int:
        """Kernel: bpf_link_new_fd"""
        return self.new_fd("bpf_link", link, os.O_RDONLY, link.release_file)

    def btf_new_fd(self, btf: BtfObject) -> int:
        """Kernel: __btf_new_fd"""
        return self.new_fd("btf", btf, os.O_RDONLY, btf.release_file)


def bpf_get_file_flag(flags: int) -> int:
    """How a map's descriptor is opened. BpfError EINVAL for both flags at once. Kernel: bpf_get_file_flag"""
    both = BPF_F_RDONLY | BPF_F_WRONLY
    if flags & both == both:
        raise BpfError(errno.EINVAL, "EINVAL: BPF_F_RDONLY and BPF_F_WRONLY at once")
    if flags & BPF_F_RDONLY:
        return os.O_RDONLY
    if flags & BPF_F_WRONLY:
        return os.O_WRONLY
    return os.O_RDWR
