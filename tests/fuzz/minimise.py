"""Make a find small: instructions go one after the other while the difference stays. And write it as a data case."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence

from fastrtp.isa import Insn, disassemble, is_ld_imm64

from .check import CRASH, UNSAFE, Outcome, check
from .host import HostKernel
from .native import NativeSide

Program = list[Insn]


def relative(insn: Insn) -> str:
    """Which field is a distance in instructions: "off", "imm" or none."""
    if insn.code & 7 in (5, 6) and insn.code not in (0x85, 0x95, 0x06):
        return "off"
    return "imm" if insn.code == 0x06 or (insn.code, insn.src_reg) in ((0x85, 1), (0x18, 4)) else ""


def without(insns: Sequence[Insn], start: int, count: int) -> Program:
    """The program without some instructions; jumps across them still reach what they reached."""

    def moved(index: int) -> int:
        return index if index <= start else max(start, index - count)

    out = []
    for index, insn in enumerate(insns):
        if start <= index < start + count:
            continue
        field = relative(insn)
        if field:
            target = index + 1 + int(getattr(insn, field))
            insn = insn._replace(**{field: moved(target) - moved(index) - 1})
        out.append(insn)
    return out


def minimise(insns: Sequence[Insn], still: Callable[[Program], bool], rounds: int = 6) -> Program:
    """The smallest program found for which `still` holds."""
    best = list(insns)
    for _ in range(rounds):
        before = len(best)
        for count in (8, 4, 2, 1):
            start = len(best) - count
            while start >= 0:
                if start + count <= len(best):
                    smaller = without(best, start, count)
                    if smaller and still(smaller):
                        best = smaller
                start -= 1
        if len(best) == before:
            break
    return best


def outcome_in_child(insns: Sequence[Insn], flags: int, kernel: bool) -> Outcome | None:
    """check() in a child; None when the child dies."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            signal.alarm(30)
            outcome = check(0, insns, flags, HostKernel() if kernel else None, NativeSide())
            message = outcome.kernel.message if outcome.kernel else ""
            os.write(write, json.dumps([outcome.kinds, message, outcome.detail]).encode())
        except Exception:  # a program that breaks something else is no smaller form of this find
            os.write(write, json.dumps([[], "", ""]).encode())
        finally:
            os._exit(0)
    os.close(write)
    data = b""
    while block := os.read(read, 1 << 16):
        data += block
    os.close(read)
    os.waitpid(pid, 0)
    if not data:
        return None
    from .host import Verdict

    kinds, message, detail = json.loads(data)
    return Outcome(0, True, Verdict(0, message), Verdict(0), "", kinds, detail)


def same_find(kind: str, kernel: bool, flags: int) -> Callable[[Program], bool]:
    """Whether a program shows this kind of difference."""
    if kind == CRASH:
        return lambda insns: outcome_in_child(insns, flags, kernel) is None
    host = HostKernel() if kernel else None
    if kind == UNSAFE:
        return lambda insns: kind in check(0, insns, flags, host, None).kinds

    def still(insns: Program) -> bool:
        outcome = outcome_in_child(insns, flags, kernel)
        return outcome is not None and kind in outcome.kinds

    return still


def case(title: str, insns: Sequence[Insn], flags: int, host: HostKernel | None, notes: Sequence[str] = ()) -> str:
    """The text of a case for tests/data/verifier, with the kernel's verdict where there is a kernel."""
    place, message = -1, ""
    if host is not None:
        fd, verdict = host.load(insns, flags)
        if fd >= 0:
            host.close_prog(fd)
        else:
            place, message = verdict.place, f"  ; {errno.errorcode.get(verdict.errno, verdict.errno)} {verdict.message}"
    lines = [f";; {title}" + (f" | flags={flags}" if flags else ""), *[f"; {note}" for note in notes]]
    skip = False
    for index, insn in enumerate(insns):
        if skip:
            skip = False
            continue
        following = insns[index + 1] if index + 1 < len(insns) else None
        lines.append(disassemble(insn, following) + (message if index == place else ""))
        skip = is_ld_imm64(insn)
    return "\n".join(lines) + "\n"
