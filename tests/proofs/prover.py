"""The solver's side: a theorem's goals, each shown or refuted, or left open where the time is over."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import z3

from tests.proofs.symbolic import Executor
from tests.proofs.theorems import Theorem


@dataclass
class Outcome:
    """What came of a theorem. `details`: a line for each goal that was not proved, with the counterexample."""

    width: int
    goals: int = 0
    seconds: float = 0.0
    refuted: int = 0
    open: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def proved(self) -> bool:
        """Every goal was."""
        return self.goals > 0 and not self.refuted and not self.open

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.refuted:
            return f"REFUTED ({self.refuted})"
        if self.open:
            return f"open ({self.open} of {self.goals})"
        return "proved" if self.width == 64 else f"proved for all numbers of {self.width} bits"


def prove(theorem: Theorem, timeout: float, *, until_refuted: bool = False) -> Outcome:
    """Prove a theorem, `timeout` seconds for each of its goals; `until_refuted`: the first counterexample is enough."""
    begin = time.perf_counter()
    found = Outcome(theorem.width)
    for goal in theorem.build(Executor(theorem.width)):
        found.goals += 1
        solver = z3.SolverFor("QF_BV")
        solver.set("timeout", int(timeout * 1000))
        solver.add(*goal.assumptions, z3.Not(goal.condition))
        answer = solver.check()
        if answer == z3.unsat:
            continue
        if answer == z3.sat:
            found.refuted += 1
            model = solver.model()
            shown = ", ".join(sorted(f"{d.name()}={model[d]}" for d in model.decls()))
            found.details.append(f"{goal.name}: {shown}")
            if until_refuted:
                break
        else:
            found.open += 1
            found.details.append(f"{goal.name}: {solver.reason_unknown()}")
    found.seconds = time.perf_counter() - begin
    return found
