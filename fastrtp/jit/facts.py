"""What a program can ask of its run, from the native functions that it calls: what a probe or a loop may leave out.

The build of the native library notes for every function which fields of Env, RunCtx and Timers it names and whether it can
fire an event (`fastrtp.native.uses.uses`), so a new helper needs no line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrtp.isa import Insn
from fastrtp.jit.lower import CallTarget
from fastrtp.jit.lower_calls import KERNEL_AREA
from fastrtp.uapi import BPF_PSEUDO_CALL

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

_CALL = 0x85


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """`uses`: the union of what the functions that it calls use."""

    uses: frozenset[str]

    @property
    def run_ctx(self) -> bool:
        """Whether it asks for what bpf_trace_run keeps for each run: the cookie, the tail calls so far."""
        return any(use.startswith("run_ctx.") for use in self.uses)

    @property
    def stack(self) -> bool:
        """Whether a helper asks where the program's stack ends: Env.run_ctx, as an address only."""
        return "env.run_ctx" in self.uses

    @property
    def nests(self) -> bool:
        """Whether an event can fire while it runs: by a helper, or in a program that it tail-calls."""
        return "fires" in self.uses or "run_ctx.tail_calls" in self.uses

    @property
    def timers(self) -> bool:
        """Whether callbacks may run between two events because of it."""
        return "timers.seq" in self.uses  # taken by whoever arms one

    def asks(self, field: str) -> bool:
        """Whether it asks for a field of ENV, e.g. "time"."""
        return f"env.{field}" in self.uses


NO_FACTS = ProgramFacts(frozenset())
"""Of a program that calls nothing."""


def program_facts(
    verified: VerifiedProgram, resolve: Callable[[int, Insn], CallTarget], uses: Mapping[str, frozenset[str]]
) -> ProgramFacts:
    """Facts of a verified program. `resolve`: the linker's; `uses`: the native library's."""
    calls = [
        (index, insn)
        for index, (insn, aux) in enumerate(zip(verified.insns, verified.aux, strict=True))
        if insn.code == _CALL and insn.src_reg != BPF_PSEUDO_CALL and aux.seen
    ]
    targets = [resolve(index, insn) for index, insn in calls]
    symbols = {target.symbol for target in targets} | ({KERNEL_AREA} if any(target.areas for target in targets) else set())
    return ProgramFacts(frozenset().union(*(uses[symbol] for symbol in symbols)))
