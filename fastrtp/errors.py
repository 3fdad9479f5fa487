"""The exception tree: every error that fastrtp raises on purpose derives from `FastrtpError`.

Messages are lowercase, without a full stop, and carry the offending value and the limit.
`BpfError` is what a system call's -1 and errno are in C; a loader's stages wrap it with `raise ... from`.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from typing import Any

from fastrtp.shown import Shown


class FastrtpError(Exception):
    """Root of the tree."""


class AsmError(FastrtpError, ValueError):
    """Text that is no BPF instruction, or an instruction that has no encoding."""


class BtfError(FastrtpError, ValueError):
    """Malformed or unsupported BTF; the message names the section and the byte offset or the type id.

    `errno`: what BPF_BTF_LOAD gives, EINVAL but for loops.
    """

    def __init__(self, message: str, number: int = _errno.EINVAL) -> None:
        super().__init__(message)
        self.errno = number


class ObjectError(FastrtpError, ValueError):
    """A BPF ELF object that cannot be used; `section` and `offset` say where (empty and -1 where unknown).

    `errno` is the number that libbpf returns where tools tell cases apart by it, else None.
    """

    def __init__(self, message: str, *, section: str = "", offset: int = -1, errno: int | None = None) -> None:
        where = f"section {section!r}" if section else ""
        if offset >= 0:
            where += f"{' ' if where else ''}offset {offset:#x}"
        super().__init__(f"{where}: {message}" if where else message)
        self.section = section
        self.offset = offset
        self.errno = errno


class CompilerError(ObjectError):
    """C source that cannot be compiled: no compiler for BPF here, or its refusal; `diagnostics` are the compiler's own words."""

    def __init__(self, message: str, diagnostics: str = "") -> None:
        super().__init__(f"{message}\n{diagnostics}".rstrip())
        self.summary = message
        self.diagnostics = diagnostics


class UnknownNameError(ObjectError, AttributeError):
    """A variable, member, map or program that the object does not have; the message says which there are."""


class ObjectWarning(UserWarning):
    """Something of an object that was left out, or is known less well than it looks, and did not keep it from being loaded."""


class RecordingError(FastrtpError, ValueError):
    """A recording that is damaged, truncated or of an unsupported form."""


class ReplayError(FastrtpError, RuntimeError):
    """A replay that cannot start or go on (strict policy, no such tracepoint, closed kernel)."""


class OrderError(ReplayError):
    """A replay on several threads that could give other results than one thread's.

    `conflicts` (fastrtp.effects.Conflict): the instructions whose outcome depends on the order of events on different CPUs.
    """

    def __init__(self, message: str, conflicts: Sequence[Any]) -> None:
        super().__init__(message)
        self.conflicts = tuple(conflicts)


class JitError(FastrtpError, RuntimeError):
    """Instructions that have no lowering, or native code that could not be made."""


class BpfError(FastrtpError, OSError):
    """A bpf(2) call that failed: `errno` is the kernel's, `log` the verifier's text where there is one."""

    def __init__(self, errno: int, message: str = "", *, log: str = "") -> None:
        super().__init__(errno, message or strerror(errno))
        self.log = log


class VerifierError(BpfError, Shown):
    """A program that the verifier refused; `str()` shows the tail of the log, `log` all of it, a traceback the report.

    `report` (fastrtp.verifier.report.report.Report) has the source line, the branches, the register's history and a hint; None
    where the program was refused before the verifier looked at it.
    """

    _report: Any = None

    @property
    def report(self) -> Any:
        """Why, for people; setting it lets tracebacks show it."""
        return self._report

    @report.setter
    def report(self, found: Any) -> None:
        self._report = found
        self.__notes__ = [] if found is None else [str(found)]

    def __str__(self) -> str:
        return f"[Errno {self.errno}] {self.strerror}"


ENOTSUPP = 524
"""The kernel-internal errno that TASK_FD_QUERY and PROG_TEST_RUN let out to user space."""


def strerror(errno: int) -> str:
    """Name and text of an errno, ENOTSUPP included."""
    if errno == ENOTSUPP:
        return "ENOTSUPP: operation is not supported"
    return f"{_errno.errorcode.get(errno, errno)}: {os.strerror(errno).lower()}"
