"""Process: a user of the kernel: its file descriptors, rights and identity; and the system calls that it makes.

Kernel counterpart: struct task_struct as bpf(2) sees it, kernel/fork.c, kernel/exit.c.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import FdTable, File
from fastrtp.kernel.objects.fdinfo import fdinfo_text
from fastrtp.kernel.syscall.map_owner import PidFd
from fastrtp.kernel.tracing.perf_tracepoint import TracepointEvent
from fastrtp.kernel.verbs import Verbs

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel


class Process(Verbs):
    """One process. `capable`: whether it has CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN; a new one has 0, 1 and 2 open."""

    def __init__(self, kernel: Kernel, pid: int, *, uid: int = 0, comm: str = "", capable: bool = True) -> None:
        self.kernel = kernel
        self.pid = pid
        self.uid = uid
        self.comm = comm
        self.capable = capable
        self.files = FdTable()
        self.exited = False
        self.expected = ""
        """Tracepoint that the program to be loaded next will be attached to, "" for not known: it is compiled for that one,
        and can be attached anywhere. A loader knows it from the section's name, PROG_LOAD does not tell it.
        """
        for fd in range(3):
            self.files.get_unused_fd(False)
            self.files.fd_install(fd, kernel.file_table.open("/dev/tty", None, os.O_RDWR, lambda _file: None))

    def __repr__(self) -> str:
        return f"<Process {self.pid} {self.comm!r}{' exited' if self.exited else ''}>"

    @property
    def _process(self) -> Process:
        return self

    def bpf(self, cmd: int, attr: Any, size: int | None = None) -> int:
        """bpf(2) as this process: see `Kernel.bpf`."""
        from fastrtp.kernel.syscall.sys_bpf import sys_bpf

        if self.exited:
            why = "its kernel was shut down" if self.kernel.is_shut_down else "it makes no system calls any more"
            raise BpfError(errno.ESRCH, f"ESRCH: process {self.pid} has ended: {why}")
        return sys_bpf(self, cmd, attr, size)

    # descriptors

    def close(self, fd: int) -> None:
        """close(2). BpfError EBADF."""
        with self.kernel.lock:
            self.files.close(fd)

    def dup(self, fd: int) -> int:
        """dup(2). BpfError EBADF, EMFILE."""
        with self.kernel.lock:
            return self.files.dup(fd)

    def dup2(self, oldfd: int, newfd: int) -> int:
        """dup2(2). BpfError EBADF."""
        with self.kernel.lock:
            return self.files.dup2(oldfd, newfd)

    def dup3(self, oldfd: int, newfd: int, cloexec: bool = False) -> int:
        """dup3(2). BpfError EBADF, EINVAL."""
        with self.kernel.lock:
            return self.files.dup3(oldfd, newfd, cloexec)

    def read(self, fd: int, size: int) -> bytes:
        """read(2): perf events only. BpfError EBADF (not open for reading), EINVAL (any BPF object), ENOSPC."""
        file = self.files.fget(fd)
        self._refuse(file, file.readable, fd, "reading")
        if isinstance(file.private_data, TracepointEvent):
            return file.private_data.read_file(size)
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {fd} cannot be read ({size} bytes wanted)")

    def write(self, fd: int, data: bytes) -> int:
        """write(2): no BPF object can be written. BpfError EBADF (not open for writing), EINVAL."""
        self._refuse(self.files.fget(fd), self.files.fget(fd).writable, fd, "writing")
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {fd} cannot be written ({len(data)} bytes given)")

    def send_fd(self, fd: int, receiver: Process, *, cloexec: bool = False) -> int:
        """Pass a descriptor to another process, as SCM_RIGHTS does; the number that it has there. BpfError EBADF, EMFILE."""
        with self.kernel.lock:
            file = self.files.fget(fd)
            new = receiver.files.get_unused_fd(cloexec)
            return receiver.files.fd_install(new, file.get_file())

    def pidfd_open(self, pid: int) -> int:
        """pidfd_open(2): a descriptor of a task, by which system calls name it in task storage. BpfError EINVAL, ESRCH, EMFILE.

        Tasks are the processes of this kernel; those of a recording are there while it is replayed.
        """
        with self.kernel.lock:
            if pid <= 0:
                raise BpfError(errno.EINVAL, f"EINVAL: there is no pid {pid}")
            if pid not in self.kernel.processes:
                raise BpfError(errno.ESRCH, f"ESRCH: no process has pid {pid}")
            held = PidFd(pid, self.kernel.objects.task(pid))
            with self.files.reserved(True) as fd:
                file = self.kernel.file_table.open("anon_inode:[pidfd]", held, os.O_RDWR, lambda _file: None)
            return self.files.fd_install(fd, file)

    def fd_name(self, fd: int) -> str:
        """What /proc/PID/fd/N links to. BpfError EBADF."""
        return self.files.fget(fd).name

    def fdinfo(self, fd: int) -> str:
        """Text of /proc/PID/fdinfo/N. BpfError EBADF."""
        with self.kernel.lock:
            return fdinfo_text(self.files.fget(fd), self.files.cloexec(fd))

    # life

    def fork(self) -> Process:
        """A child with the same descriptors and rights. Kernel: kernel/fork.c:kernel_clone"""
        with self.kernel.lock:
            child = self.kernel.new_process(uid=self.uid, comm=self.comm, capable=self.capable)
            child.files.close_all()
            child.files = self.files.copy()
            return child

    def exec(self, comm: str) -> None:
        """Become another program: descriptors with FD_CLOEXEC are closed. Kernel: fs/exec.c:begin_new_exec"""
        with self.kernel.lock:
            self.comm = comm
            self.files.close_on_exec()

    def exit(self) -> None:
        """End, however it comes about (return, Ctrl-C, SIGKILL): all descriptors are closed. Kernel: kernel/exit.c:do_exit"""
        with self.kernel.lock:
            if not self.exited:
                self.exited = True
                self.files.close_all()
                self.kernel.forget_process(self)

    kill = exit

    def _refuse(self, _file: File, allowed: bool, fd: int, what: str) -> None:
        if not allowed:
            raise BpfError(errno.EBADF, f"EBADF: file descriptor {fd} is not open for {what}")
