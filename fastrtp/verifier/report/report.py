"""A refusal for people: the source line, the branches that led there, what became of the register, a hint.

Made from the log of the failing path (level 1) after the fact: the verifier itself does not know that there is one, and
the log stays as Linux prints it. `VerifierError.report` carries it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from fastrtp.verifier.api import LoadAttr
from fastrtp.verifier.report.hints import CONTEXT_ACCESS, hint, prototype
from fastrtp.verifier.report.source import Source

MAX_STEPS = 12
"""Branches, and values of the register, that are shown: the last ones."""

_INSN = re.compile(r"^(\d+): \([0-9a-f]{2}\) (.*?)(?:\s+; (.*))?$")
_STATE = re.compile(r"^\d+: ((?:frame\d+: )?R\d+=.*)$")
_REG = re.compile(r"\bR(\d+)\b")


@dataclass(frozen=True)
class Step:
    """An instruction on the way: its index, text, source line ("" where unknown), and what it did."""

    insn_idx: int
    text: str
    effect: str
    source: str = ""
    times: int = 1


@dataclass(frozen=True)
class Report:
    """Why a program was refused. `insn_idx` is -1 for what no single instruction is to blame for; `regno` likewise."""

    message: str
    insn_idx: int = -1
    insn: str = ""
    source: str = ""
    regno: int = -1
    mistake: str = ""
    hint: str = ""
    branches: list[Step] = field(default_factory=list)
    history: list[Step] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [self.message]
        if self.insn_idx >= 0:
            lines.append(f"  at {self.insn_idx}: {self.insn}" if self.insn else f"  at instruction {self.insn_idx}")
        if self.source:
            lines.append(f"  source: {self.source}")
        for title, steps in (("branches that led here", self.branches), (f"history of R{self.regno}", self.history)):
            if steps:
                lines.append(f"  {title}:")
                lines += [_line(step) for step in steps]
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def _line(step: Step) -> str:
    times = f" ({step.times} times)" if step.times > 1 else ""
    source = f"   // {step.source}" if step.source else ""
    return f"    {step.insn_idx}: {step.text} -> {step.effect}{times}{source}"


def make_report(attr: LoadAttr, message: str, lines: Sequence[str], insn_idx: int) -> Report:
    """The report of a refusal whose failing path is `lines` (none: source line and hint alone)."""
    source = Source(attr)
    steps: list[tuple[int, str, str]] = []
    for line in lines:
        if match := _INSN.match(line):
            steps.append((int(match[1]), match[2].strip(), match[3] or ""))
        elif steps and (match := _STATE.match(line)):  # something was said between an instruction and what it did
            steps[-1] = (*steps[-1][:2], match[1])
    at = steps[-1][0] if steps else insn_idx
    text = steps[-1][1] if steps else ""
    regno = _offender(message, text)
    mistake, advice = hint(attr, [line for line in (*lines[-2:], message) if not _INSN.match(line)])
    return Report(
        message,
        at,
        text,
        source.line(at) if at >= 0 else "",
        regno,
        mistake,
        advice,
        _branches(steps, source),
        _history(steps, regno, source) if regno >= 0 else [],
    )


def _offender(message: str, text: str) -> int:
    """The register that the message names, or that the instruction addresses memory with."""
    match = _REG.search(message) or re.search(r"\*\(\w+ \*\)\(r(\d+)", text)
    return int(match[1]) if match else -1


def _branches(steps: list[tuple[int, str, str]], source: Source) -> list[Step]:
    found: list[Step] = []
    for (at, text, _), following in pairwise(steps):
        if not text.startswith(("if ", "may_goto")):
            continue
        effect = "not taken" if following[0] == at + 1 else f"taken, to {following[0]}"
        for number, known in enumerate(found):
            if (known.insn_idx, known.effect) == (at, effect):
                found.pop(number)
                found.append(Step(at, text, effect, known.source, known.times + 1))
                break
        else:
            found.append(Step(at, text, effect, source.line(at)))
    return found[-MAX_STEPS:]


def _history(steps: list[tuple[int, str, str]], regno: int, source: Source) -> list[Step]:
    """Each instruction after which the register was another, in the frame of the last instruction."""
    value = re.compile(rf"\bR{regno}=(\S+)")
    frame = next((match[0] for *_, effect in reversed(steps) if (match := re.match(r"frame\d+:", effect))), "")
    found = []
    last = ""
    for at, text, effect in steps:
        match = value.search(effect)
        if match is not None and match[1] != last and (not frame or effect.startswith(frame)):
            last = match[1]
            found.append(Step(at, text, f"R{regno}={last}", source.line(at)))
    return found[-MAX_STEPS:]


def for_tracepoint(report: Report, kernel_btf: Any, tracepoint: str) -> Report:
    """The same report where the tracepoint of a raw_tp program is known: its prototype answers a bad access to the context."""
    advice = prototype(kernel_btf, tracepoint) if report.mistake == CONTEXT_ACCESS else ""
    return replace(report, hint=advice) if advice else report


def report_of(error: BaseException | None) -> Any:
    """The report that an error, or one that it was raised from, carries."""
    while error is not None:
        found = getattr(error, "report", None)
        if found is not None:
            return found
        error = error.__cause__
    return None
