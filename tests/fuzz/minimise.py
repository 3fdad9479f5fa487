"""Make a find small: instructions go one after the other while the difference stays. And write it as a data case."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace

from fastrtp.isa import Insn, disassemble, is_ld_imm64

from .check import CRASH, UNSAFE, Outcome, check
from .generator import Program
from .host import HostKernel
from .native import NativeSide

Insns = list[Insn]


def relative(insn: Insn) -> str:
    """Which field is a distance in instructions: "off", "imm" or none."""
    if insn.code & 7 in (5, 6) and insn.code not in (0x85, 0x95, 0x06):
        return "off"
    return "imm" if insn.code == 0x06 or (insn.code, insn.src_reg) in ((0x85, 1), (0x18, 4)) else ""


def without(insns: Sequence[Insn], start: int, count: int) -> Insns:
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


def _smaller(program: Program, start: int, count: int) -> Program:
    """Without some instructions; global functions that are left stay global."""
    moved = [(at if at <= start else max(start, at - count), kind) for at, kind in program.globals]
    return replace(program, insns=without(program.insns, start, count), globals=tuple(moved))


def minimise(program: Program, still: Callable[[Program], bool], rounds: int = 6) -> Program:
    """The smallest program found for which `still` holds."""
    best = program
    for _ in range(rounds):
        before = len(best.insns)
        for count in (8, 4, 2, 1):
            start = len(best.insns) - count
            while start >= 0:
                if start + count <= len(best.insns):
                    smaller = _smaller(best, start, count)
                    if smaller.insns and still(smaller):
                        best = smaller
                start -= 1
        if len(best.insns) == before:
            break
    return best


def outcome_in_child(program: Program, kernel: bool) -> Outcome | None:
    """check() in a child; None when the child dies."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            signal.alarm(30)
            outcome = check(0, program, HostKernel() if kernel else None, NativeSide())
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


def same_find(kind: str, kernel: bool) -> Callable[[Program], bool]:
    """Whether a program shows this kind of difference."""
    if kind == CRASH:
        return lambda program: outcome_in_child(program, kernel) is None
    host = HostKernel() if kernel else None
    if kind == UNSAFE:
        return lambda program: kind in check(0, program, host, None).kinds

    def still(program: Program) -> bool:
        outcome = outcome_in_child(program, kernel)
        return outcome is not None and kind in outcome.kinds

    return still


def case(title: str, program: Program, host: HostKernel | None, notes: Sequence[str] = ()) -> str:
    """The text of a case for tests/data/verifier, with the kernel's verdict where there is a kernel."""
    place, message = -1, ""
    if host is not None:
        fd, verdict = host.load(program)
        if fd >= 0:
            host.close_prog(fd)
        else:
            place, message = verdict.place, f"  ; {errno.errorcode.get(verdict.errno, verdict.errno)} {verdict.message}"
    settings = f" | flags={program.flags}" if program.flags else ""
    settings += f" | type=tp_btf:{program.tracepoint}" if program.tracepoint else ""
    lines = [f";; {title}{settings}", *[f"; {note}" for note in notes]]
    lines += [f"; the function at {start} is global: FUNC {kind}" for start, kind in program.globals]
    insns = program.insns
    skip = False
    for index, insn in enumerate(insns):
        if skip:
            skip = False
            continue
        following = insns[index + 1] if index + 1 < len(insns) else None
        lines.append(disassemble(insn, following) + (message if index == place else ""))
        skip = is_ld_imm64(insn)
    return "\n".join(lines) + "\n"
