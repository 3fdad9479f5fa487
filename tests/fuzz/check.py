"""One program through everything: verdicts, the interpreter's two variants, native run, kernel run; what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import fastrtp.verifier.rules.check as verifier_check
from fastrtp.verifier import VerifiedProgram
from fastrtp.verifier.rules.env import BPF_COMPLEXITY_LIMIT_INSNS

from .generator import Program
from .host import HostKernel, Verdict
from .native import NativeSide, verify
from .shadow import HELPERS, KFUNCS, InterpreterError, Shadow, TooLong
from .shapes import SHAPES, Memory

E2BIG, EFAULT = 7, 14
_TAIL_CALL = 12
GAVE_UP = "after as many instructions as the kernel processes"
UNSAFE = "unsafe accept"
BUDGET = "accepted, kernel gives up (E2BIG)"
KERNEL_BUG = "accepted, kernel reports a bug of its own"
LONG = "longer than the verifier is given here, kernel accepts"
REFUSED = "rejected, kernel accepts"
ENDLESS = "rejected as a loop without an end, kernel accepts"
BOTH_ERRNO, BOTH_MESSAGE = "both reject, errno differs", "both reject, message differs"
ACCESS = "access outside an object"
JIT_R0, JIT_MEMORY = "r0 differs from the interpreter's", "memory differs from the interpreter's"
KERNEL_R0, KERNEL_MEMORY = "r0 differs from the kernel's", "memory differs from the kernel's"
CRASH, HANG, BROKEN = "crash", "no end", "exception"
FATAL = (UNSAFE, ACCESS, JIT_R0, JIT_MEMORY, KERNEL_R0, KERNEL_MEMORY, CRASH, BROKEN)
"""Kinds of which there may be none."""


@dataclass
class Outcome:
    """What happened to one program. `kinds`: differences; `state`: "unstable" results are defined by no one, "long" not run."""

    number: int
    accepted: bool
    kernel: Verdict | None
    ours: Verdict
    state: str
    kinds: list[str]
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the pipe to the parent."""
        return asdict(self)


def differences(a: Memory, b: Memory) -> list[str]:
    """Names of what is not equal."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _verdicts(ours: Verdict, theirs: Verdict) -> list[str]:
    if ours.errno == 0 and theirs.errno:
        if theirs.errno == EFAULT or "bug" in theirs.message:
            return [KERNEL_BUG]
        return [BUDGET if theirs.errno == E2BIG else UNSAFE]
    if ours.errno and theirs.errno == 0:
        if ours.message.startswith("old state: "):
            return [ENDLESS]
        return [LONG if ours.errno == E2BIG and ours.message != GAVE_UP else REFUSED]
    if ours.errno != theirs.errno:
        return [BOTH_ERRNO]
    return [BOTH_MESSAGE] if ours.message != theirs.message and ours.errno != E2BIG else []


def _interpret(verified: VerifiedProgram) -> tuple[str, int, Memory]:
    """(state, r0, memory); InterpreterError for an access that is not allowed."""
    numbers = {id(shape): fd for fd, shape in SHAPES.items()}
    fds = [numbers[id(shape)] for shape in verified.used_maps]
    found = []
    chance = any(insn.code == 0x85 and insn.src_reg == 0 and insn.imm in (5, 7, 14) for insn in verified.insns)
    for variant in range(8 if chance else 2):  # two small random numbers are often equal
        shadow = Shadow(verified.insns, fds, variant, {i: aux.kfunc for i, aux in enumerate(verified.aux) if aux.kfunc})
        try:
            found.append((shadow.run(), shadow.memory()))
        except TooLong:
            return "long", 0, {}
    return "stable" if all(one == found[0] for one in found) else "unstable", *found[0]


def _verify_at_length(program: Program, host: HostKernel) -> VerifiedProgram | None:
    """Ours with the kernel's own limit: a worker gives the verifier less."""
    short = verifier_check.BPF_COMPLEXITY_LIMIT_INSNS  # type: ignore[attr-defined]
    verifier_check.BPF_COMPLEXITY_LIMIT_INSNS = BPF_COMPLEXITY_LIMIT_INSNS  # type: ignore[attr-defined]
    try:
        return verify(program, host.types, host.cpus)[0]
    finally:
        verifier_check.BPF_COMPLEXITY_LIMIT_INSNS = short  # type: ignore[attr-defined]


def _interpretable(verified: VerifiedProgram) -> bool:
    """Whether the interpreter has every helper that is called, and no kernel object is read: those differ on each side."""
    calls = {insn.imm for insn in verified.insns if insn.code == 0x85 and insn.src_reg == 0}
    kfuncs = {aux.kfunc for aux in verified.aux if aux.kfunc}
    return calls <= {*HELPERS, _TAIL_CALL} and kfuncs <= KFUNCS.keys() and all(aux.access != "btf" for aux in verified.aux)


def check(
    number: int, program: Program, host: HostKernel | None, native: NativeSide | None,
    tell: Callable[[str], None] = lambda _: None,
) -> Outcome:  # fmt: skip
    """Run one program. `tell` is called with each stage before it begins."""
    tell("verify")
    insns = program.insns
    # a hash map's elements come in an order that nobody promises
    order = any(insn.code == 0x85 and insn.src_reg == 0 and insn.imm == 164 for insn in insns)
    verified, ours = verify(program, host.types, host.cpus) if host is not None else verify(program)
    outcome = Outcome(number, verified is not None, None, ours, "", [])
    if verified is not None and not program.tracepoint and _interpretable(verified):
        tell("interpret")
        try:
            outcome.state, r0, memory = _interpret(verified)
        except InterpreterError as error:
            outcome.state, outcome.detail, r0, memory = "stopped", str(error), 0, {}
            outcome.kinds.append(ACCESS)
    if host is not None:
        tell("kernel")
        if outcome.state in ("stable", "unstable"):
            theirs, kernel_r0, kernel_memory = host.run(program)
            if outcome.state == "stable" and theirs.errno == 0 and not order:
                ours_here = {name: value for name, value in memory.items() if not name.startswith("ring")}
                if r0 & 0xFFFFFFFF != kernel_r0:
                    outcome.kinds.append(KERNEL_R0)
                    outcome.detail += f" r0 {r0 & 0xFFFFFFFF:#x}, kernel {kernel_r0:#x}"
                elif names := differences(ours_here, kernel_memory):
                    outcome.kinds.append(KERNEL_MEMORY)
                    outcome.detail += f" {names[0]}: {memory.get(names[0])!r}, kernel {kernel_memory.get(names[0])!r}"
        else:
            fd, theirs = host.load(program)
            if fd >= 0:
                host.close_prog(fd)
        outcome.kernel = theirs
        if ours.errno == E2BIG and theirs.errno == 0:
            tell("verify at length")
            if _verify_at_length(program, host) is None:
                outcome.ours = ours = Verdict(E2BIG, GAVE_UP)
        outcome.kinds += _verdicts(ours, theirs)
    if verified is not None and native is not None and outcome.state in ("stable", "unstable"):
        tell("native")
        native_r0, native_memory = native.run(verified)
        if outcome.state == "stable" and native_r0 != r0 and not order:
            outcome.kinds.append(JIT_R0)
            outcome.detail += f" r0 {native_r0:#x}, interpreter {r0:#x}"
        elif outcome.state == "stable" and not order and (names := differences(native_memory, memory)):
            outcome.kinds.append(JIT_MEMORY)
            outcome.detail += f" {names[0]}: {native_memory.get(names[0])!r}, interpreter {memory.get(names[0])!r}"
    return outcome
