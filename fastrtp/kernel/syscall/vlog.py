"""The log buffer of BPF_PROG_LOAD and BPF_BTF_LOAD.

Without BPF_LOG_FIXED the buffer ends up with the last bytes of the log, with it the first; either way a NUL ends them, and
a log that did not fit is ENOSPC. `log_true_size` says what would have been enough, NUL included.

Kernel counterpart: kernel/bpf/log.c (bpf_vlog_init, bpf_verifier_vlog, bpf_vlog_finalize).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from fastrtp.errors import BpfError
from fastrtp.kernel.files.uaccess import copy_to_user
from fastrtp.uapi import BPF_LOG_FIXED

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

BPF_LOG_STATS = 4
_BPF_LOG_MASK = 3 | BPF_LOG_STATS | BPF_LOG_FIXED
_UINT_MAX = 0xFFFFFFFF


class VerifierLog(NamedTuple):
    """Where the log goes: `level`, `ubuf` (address) and `len_total` (bytes)."""

    level: int
    ubuf: int
    len_total: int

    def check(self) -> None:
        """BpfError EINVAL. Kernel: kernel/bpf/log.c:bpf_verifier_log_attr_valid"""
        level, ubuf, len_total = self
        if bool(ubuf) != bool(len_total):
            raise BpfError(errno.EINVAL, f"EINVAL: log buffer of {len_total} bytes at address {ubuf:#x}")
        if ubuf and not level:
            raise BpfError(errno.EINVAL, "EINVAL: a log buffer without log_level")
        if level & ~_BPF_LOG_MASK:
            raise BpfError(errno.EINVAL, f"EINVAL: log_level {level}, bits {_BPF_LOG_MASK:#x} are known")
        if len_total > _UINT_MAX >> 2:
            raise BpfError(errno.EINVAL, f"EINVAL: log_size {len_total}, at most {_UINT_MAX >> 2} is allowed")

    def finalize(self, text: str) -> tuple[int, int]:
        """Write the log to the caller: (log_true_size, errno: 0, EFAULT or ENOSPC).

        Kernel: kernel/bpf/log.c:bpf_vlog_finalize
        """
        if not self.level or not text:
            return 0, 0
        data = text.encode("utf-8", "replace")
        true_size = len(data) + 1
        if not self.ubuf:
            return true_size, 0
        room = self.len_total - 1
        if len(data) > room:
            data = data[:room] if self.level & BPF_LOG_FIXED else data[len(data) - room :]
        try:
            copy_to_user(self.ubuf, data + b"\0")
        except BpfError:
            return true_size, errno.EFAULT
        return true_size, 0 if true_size <= self.len_total else errno.ENOSPC

    def error(self, true_size: int, number: int, text: str) -> BpfError:
        """What `finalize` found, as an exception."""
        why = f"verifier log of {true_size} bytes, the buffer at {self.ubuf:#x} has {self.len_total}"
        return BpfError(number, f"{errno.errorcode[number]}: {why}", log=text)


def with_stats(text: str, usec: int, verified: VerifiedProgram | None) -> str:
    """The log with what BPF_LOG_STATS adds before its last line: the time, and the stack of each function of an accepted program.

    Differs: Linux gives the stack depths found so far of a refused one, too.
    Kernel: kernel/bpf/verifier.c:print_verification_stats
    """
    at = text.rfind("processed ")
    lines = f"verification time {usec} usec\n"
    if verified is not None:
        lines += f"stack depth {'+'.join(str(subprog.stack_depth) for subprog in verified.subprogs)}\n"
    return text[:at] + lines + text[at:] if at >= 0 else text + lines
