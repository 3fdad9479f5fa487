"""Programs in forked children: a crash or a program without end costs one child and is a find."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fastrtp.verifier.rules.check as verifier_check

from .check import BROKEN, CRASH, HANG, Outcome, check
from .generator import generate
from .host import HostKernel, Verdict
from .native import NativeSide

SECONDS = 60.0
"""What one program may take."""
LIMIT_INSNS = 20_000
"""What the verifier may process for one program (1,000,000 otherwise): a run is to see many programs, not one long one."""


@dataclass
class Plan:
    """Which programs: `numbers` of `seed`, and through what."""

    seed: int
    numbers: range
    kernel: bool
    native: bool = True


class Worker:
    """The child under way, and its lines: {"start": number, "stage": ...} and outcomes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.at, self.stage, self.since = plan.numbers.start, "start", time.monotonic()
        self.done = len(plan.numbers) == 0
        self._rest = b""
        if not self.done:
            self._fork()

    def _fork(self) -> None:
        self.fd, out = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self.fd)
                _child(self.plan, self.at, out)
                status = 0
            finally:
                os._exit(status)
        os.close(out)
        self.since = time.monotonic()

    def read(self) -> Iterator[Outcome]:
        """Outcomes that have come in; to be called when `fd` is readable or time has passed."""
        if self.done:
            return
        ready, _, _ = select.select([self.fd], [], [], 0)
        if not ready:
            if time.monotonic() - self.since > SECONDS:
                os.kill(self._pid, signal.SIGKILL)
                yield self._lost(HANG, f"{SECONDS:.0f} s in stage {self.stage}")
            return
        data = os.read(self.fd, 1 << 16)
        if not data:
            _, status = os.waitpid(self._pid, 0)
            if self.at >= self.plan.numbers.stop and status == 0:
                os.close(self.fd)
                self.done = True
                return
            why = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
            yield self._lost(CRASH, f"{why} in stage {self.stage}", reaped=True)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            row: dict[str, Any] = json.loads(line)
            self.since = time.monotonic()
            if "stage" in row:
                self.stage = row["stage"]
                continue
            self.at = row["number"] + 1
            kernel = row.pop("kernel")
            yield Outcome(**row | {"ours": Verdict(**row["ours"]), "kernel": Verdict(**kernel) if kernel else None})

    def _lost(self, kind: str, detail: str, *, reaped: bool = False) -> Outcome:
        if not reaped:
            os.waitpid(self._pid, 0)
        os.close(self.fd)
        outcome = Outcome(self.at, False, None, Verdict(0), self.stage, [kind], detail)
        self.at, self._rest = self.at + 1, b""
        self.done = self.at >= self.plan.numbers.stop
        if not self.done:
            self._fork()
        return outcome


def _child(plan: Plan, first: int, out: int) -> None:
    def send(row: dict[str, Any]) -> None:
        os.write(out, json.dumps(row).encode() + b"\n")

    send({"stage": "begin"})
    verifier_check.BPF_COMPLEXITY_LIMIT_INSNS = LIMIT_INSNS  # type: ignore[attr-defined]  # only this child's
    host = HostKernel() if plan.kernel else None
    native = NativeSide() if plan.native else None
    for number in range(first, plan.numbers.stop):
        stage = "generate"

        def tell(name: str) -> None:
            nonlocal stage
            stage = name
            if name == "native":  # the one that can end the process
                send({"stage": name})

        try:
            outcome = check(number, generate(plan.seed, number), host, native, tell)
        except Exception as error:  # a find: nothing but the errors that check() knows may come out
            trace = traceback.extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__}: {error} at {os.path.basename(trace.filename)}:{trace.lineno} in {stage}"
            outcome = Outcome(number, False, None, Verdict(0), stage, [BROKEN], detail)
        send(outcome.as_dict())
