"""python -m tests.fuzz --seed S --count N [--kernel] [--jobs J] [--json] [--finds FOLDER]"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import re
import select
import sys
import time
from pathlib import Path
from typing import Any

from .check import BOTH_ERRNO, BOTH_MESSAGE, CRASH, FATAL, KERNEL_BUG, REFUSED, UNSAFE, Outcome
from .generator import generate
from .host import HostKernel
from .minimise import case, minimise, same_find
from .worker import Plan, Worker


class Tally:
    """Counts by what happened, rejections by message, and finds."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.messages: dict[str, dict[str, list[int]]] = {}
        """Kind, text of both messages with numbers as N: the programs."""
        self.finds: list[Outcome] = []
        self.examples: dict[str, list[int]] = {}

    def add(self, outcome: Outcome) -> None:
        """One program more."""
        counts = self.counts
        counts["programs"] += 1
        counts["accepted" if outcome.accepted else "rejected"] += 1
        if outcome.state:
            counts[f"run: {outcome.state}"] += 1
        if outcome.kernel is not None:
            counts["compared with the kernel"] += 1
            counts["verdict agrees"] += (outcome.kernel.errno == 0) == outcome.accepted
            counts["kernel accepts"] += outcome.kernel.errno == 0
        for kind in outcome.kinds:
            counts[kind] += 1
            self.examples.setdefault(kind, []).append(outcome.number)
            if kind in (UNSAFE, REFUSED, BOTH_ERRNO, BOTH_MESSAGE, KERNEL_BUG) and outcome.kernel is not None:
                text = f"ours {outcome.ours.message!r}, kernel {outcome.kernel.message!r}"
                self.messages.setdefault(kind, {}).setdefault(re.sub(r"-?\d+", "N", text), []).append(outcome.number)
        if set(outcome.kinds) & {*FATAL, REFUSED, KERNEL_BUG}:
            self.finds.append(outcome)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "counts": dict(self.counts),
            "messages": self.messages,
            "finds": [find.as_dict() for find in self.finds],
        }

    @property
    def fatal(self) -> int:
        """Finds of which there may be none."""
        return sum(self.counts[kind] for kind in FATAL)


def run(seed: int, first: int, count: int, *, kernel: bool, jobs: int = 1, progress: bool = False) -> Tally:
    """Run programs `first`..`first + count` of a seed."""
    tally = Tally()
    edges = [first + count * job // jobs for job in range(jobs + 1)]
    workers = [Worker(Plan(seed, range(low, high), kernel)) for low, high in itertools.pairwise(edges)]
    began = said = time.monotonic()
    while active := [worker for worker in workers if not worker.done]:
        select.select([worker.fd for worker in active], [], [], 1.0)
        for worker in active:
            for outcome in worker.read():
                tally.add(outcome)
                if progress and set(outcome.kinds) & set(FATAL):
                    print(f"\n{seed}:{outcome.number} {outcome.kinds} {outcome.detail} {outcome.kernel}", file=sys.stderr)
        now = time.monotonic()
        if progress and now - said > 5:
            done = tally.counts["programs"]
            print(f"{done}/{count} programs, {done / (now - began):.0f}/s, {tally.fatal} finds", file=sys.stderr, flush=True)
            said = now
    return tally


def write_finds(tally: Tally, seed: int, folder: Path, kernel: bool, limit: int = 12) -> None:
    """A minimised case file per find."""
    folder.mkdir(parents=True, exist_ok=True)
    host = HostKernel() if kernel else None
    per_kind: collections.Counter[str] = collections.Counter()
    for find in tally.finds:
        kind = find.kinds[0]
        per_kind[kind] += 1
        if kind not in FATAL or per_kind[kind] > limit:
            continue
        small = minimise(generate(seed, find.number), same_find(kind, kernel and kind != CRASH))
        name = re.sub(r"\W+", "_", f"{kind} {seed} {find.number}")
        notes = [f"{kind}: {find.detail.strip()}"] if find.detail else [kind]
        (folder / f"{name}.txt").write_text(case(f"{kind}, {seed} number {find.number}", small, host, notes))
        print(folder / f"{name}.txt", file=sys.stderr)


def main() -> int:
    """The command; 1 when there is a find that may not be."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--kernel", action="store_true", help="compare with the running kernel (bpf(2) as root)")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--finds", type=Path, help="folder for minimised case files")
    options = parser.parse_args()
    if options.kernel and not _kernel_usable():
        parser.error("bpf(2) is not allowed here")
    tally = run(options.seed, options.first, options.count, kernel=options.kernel, jobs=options.jobs, progress=True)
    if options.finds:
        write_finds(tally, options.seed, options.finds, options.kernel)
    if options.json:
        print(json.dumps(tally.as_dict()))
    else:
        _print(tally)
    return 1 if tally.fatal else 0


def _kernel_usable() -> bool:
    host = HostKernel()
    host.close()
    return host.usable


def _print(tally: Tally) -> None:
    for name, number in tally.counts.items():
        print(f"{number:8}  {name}" + (f"   e.g. {tally.examples[name][:6]}" if name in tally.examples else ""))
    for kind, rows in tally.messages.items():
        print(f"\n{kind}:")
        for text, numbers in sorted(rows.items(), key=lambda row: -len(row[1]))[:12]:
            print(f"{len(numbers):8}  {text}   e.g. {numbers[:3]}")


if __name__ == "__main__":
    raise SystemExit(main())
