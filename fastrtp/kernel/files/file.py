"""Open files and the table of file descriptors.

A `File` is what a descriptor refers to: it holds one reference to its object, gives it back when the last descriptor
(dup, fork and passed-on ones included) is closed, and knows how it was opened. `private_data` tells what it is a file
of, as f_op does in Linux. `FdTable` hands out the lowest free number.

Kernel counterpart: fs/file.c, fs/anon_inodes.c. Must not know: bpf(2).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastrtp.errors import BpfError

O_CLOEXEC = getattr(os, "O_CLOEXEC", 0o2000000)
RLIMIT_NOFILE = 1024


class FileTable:
    """All open files of a kernel: counts them against file-max."""

    def __init__(self) -> None:
        self.max_files = 1 << 20
        self.nr_files = 0

    def open(self, name: str, private_data: Any, f_flags: int, release: Callable[[File], None]) -> File:
        """A file of an object whose reference passes to it. BpfError ENFILE; then the reference stays with the caller.

        Kernel: fs/anon_inodes.c:anon_inode_getfile
        """
        if self.nr_files >= self.max_files:
            raise BpfError(errno.ENFILE, f"ENFILE: {self.nr_files} files are open, the limit")
        self.nr_files += 1
        return File(self, name, private_data, f_flags, release)


class File:
    """One open file. `f_flags`: O_RDONLY, O_WRONLY or O_RDWR, with others or-ed in. `f_count`: references to the file."""

    __slots__ = ("_release", "_table", "f_count", "f_flags", "name", "private_data")

    def __init__(self, table: FileTable, name: str, private_data: Any, f_flags: int, release: Callable[[File], None]) -> None:
        self._table = table
        self.name = name
        self.private_data = private_data
        self.f_flags = f_flags
        self._release = release
        self.f_count = 1

    @property
    def readable(self) -> bool:
        """FMODE_CAN_READ of how it was opened."""
        return self.f_flags & os.O_ACCMODE in (os.O_RDONLY, os.O_RDWR)

    @property
    def writable(self) -> bool:
        """FMODE_CAN_WRITE of how it was opened."""
        return self.f_flags & os.O_ACCMODE in (os.O_WRONLY, os.O_RDWR)

    def get_file(self) -> File:
        """One more reference. Kernel: include/linux/fs.h:get_file"""
        self.f_count += 1
        return self

    def fput(self) -> None:
        """One reference less; the last releases the object. Kernel: fs/file_table.c:fput"""
        self.f_count -= 1
        if self.f_count == 0:
            self._table.nr_files -= 1
            self._release(self)

    def discard(self) -> None:
        """Forget a file that no descriptor ever referred to, without releasing its object."""
        self.f_count = 0
        self._table.nr_files -= 1


class FdTable:
    """Descriptor -> file of one process. `rlimit_nofile`: no descriptor is ever that high or higher."""

    def __init__(self, rlimit_nofile: int = RLIMIT_NOFILE) -> None:
        self.rlimit_nofile = rlimit_nofile
        self._files: dict[int, File | None] = {}
        self._cloexec: set[int] = set()
        self._next_fd = 0

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(fd for fd, file in self._files.items() if file is not None))

    def get_unused_fd(self, cloexec: bool, start: int = 0) -> int:
        """Reserve the lowest free number from `start` on. BpfError EMFILE. Kernel: fs/file.c:get_unused_fd_flags"""
        fd = max(self._next_fd, start)
        while fd in self._files:
            fd += 1
        if fd >= self.rlimit_nofile:
            raise BpfError(errno.EMFILE, f"EMFILE: no file descriptor is free below RLIMIT_NOFILE, {self.rlimit_nofile}")
        if start <= self._next_fd:
            self._next_fd = fd + 1
        self._files[fd] = None
        self._set_cloexec(fd, cloexec)
        return fd

    def put_unused_fd(self, fd: int) -> None:
        """Give back a reserved number. Kernel: fs/file.c:put_unused_fd"""
        del self._files[fd]
        self._cloexec.discard(fd)
        self._next_fd = min(self._next_fd, fd)

    @contextmanager
    def reserved(self, cloexec: bool) -> Iterator[int]:
        """A reserved number for what may fail; it is given back when that raises. BpfError EMFILE."""
        fd = self.get_unused_fd(cloexec)
        try:
            yield fd
        except BaseException:
            self.put_unused_fd(fd)
            raise

    def fd_install(self, fd: int, file: File) -> int:
        """Let a reserved number refer to `file`, whose reference passes to the table. Kernel: fs/file.c:fd_install"""
        self._files[fd] = file
        return fd

    def fget(self, fd: int) -> File:
        """The file behind a descriptor. BpfError EBADF. Kernel: fs/file.c:fdget"""
        file = self._files.get(fd)
        if file is None:
            raise BpfError(errno.EBADF, f"EBADF: file descriptor {signed(fd)} is not open")
        return file

    def private_data(self, fd: int) -> Any:
        """What a descriptor is of, None when it is not open."""
        file = self._files.get(fd)
        return file.private_data if file is not None else None

    def close(self, fd: int) -> None:
        """close(2). BpfError EBADF."""
        file = self.fget(fd)
        self.put_unused_fd(fd)
        file.fput()

    def dup(self, fd: int, start: int = 0, cloexec: bool = False) -> int:
        """dup(2), fcntl F_DUPFD and F_DUPFD_CLOEXEC. BpfError EBADF, EMFILE, EINVAL (start at or past the limit)."""
        file = self.fget(fd)
        if start >= self.rlimit_nofile:
            raise BpfError(errno.EINVAL, f"EINVAL: lowest descriptor {start} is not below RLIMIT_NOFILE, {self.rlimit_nofile}")
        return self.fd_install(self.get_unused_fd(cloexec, start), file.get_file())

    def dup3(self, oldfd: int, newfd: int, cloexec: bool = False) -> int:
        """dup3(2): newfd is closed first when open. BpfError EINVAL (same number), EBADF (not open, or past the limit)."""
        if oldfd == newfd:
            raise BpfError(errno.EINVAL, f"EINVAL: dup3 of descriptor {oldfd} onto itself")
        if not 0 <= newfd < self.rlimit_nofile:
            raise BpfError(errno.EBADF, f"EBADF: descriptor {signed(newfd)} is not below RLIMIT_NOFILE, {self.rlimit_nofile}")
        file = self.fget(oldfd).get_file()
        old = self._files.get(newfd)
        self._files[newfd] = file
        self._set_cloexec(newfd, cloexec)
        if old is not None:
            old.fput()
        return newfd

    def dup2(self, oldfd: int, newfd: int) -> int:
        """dup2(2): as dup3 without a flag, and the same number is fine when it is open."""
        if oldfd == newfd:
            self.fget(oldfd)
            return newfd
        return self.dup3(oldfd, newfd)

    def cloexec(self, fd: int) -> bool:
        """Whether exec closes this descriptor (FD_CLOEXEC). BpfError EBADF."""
        self.fget(fd)
        return fd in self._cloexec

    def set_cloexec(self, fd: int, value: bool) -> None:
        """fcntl F_SETFD. BpfError EBADF."""
        self.fget(fd)
        self._set_cloexec(fd, value)

    def copy(self) -> FdTable:
        """The table of a forked child: the same numbers, flags and files. Kernel: fs/file.c:dup_fd"""
        table = FdTable(self.rlimit_nofile)
        for fd in self:
            table._files[fd] = self.fget(fd).get_file()
        table._cloexec = set(self._cloexec)
        return table

    def close_on_exec(self) -> None:
        """Close what exec closes. Kernel: fs/file.c:do_close_on_exec"""
        for fd in [fd for fd in self if fd in self._cloexec]:
            self.close(fd)

    def close_all(self) -> None:
        """Close everything, lowest first. Kernel: fs/file.c:exit_files"""
        for fd in list(self):
            self.close(fd)

    def _set_cloexec(self, fd: int, value: bool) -> None:
        (self._cloexec.add if value else self._cloexec.discard)(fd)


def signed(fd: int) -> int:
    """A descriptor that came as u32, as the int it is."""
    return fd - (1 << 32) if fd >= 1 << 31 else fd
