"""Prove the theorems and print the table: `python -m tests.proofs [PATTERN...] [--timeout S] [--quick]`."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time

from tests.proofs import pairs
from tests.proofs.prover import prove
from tests.proofs.theorems import THEOREMS


def draw(count: int, seed: int) -> int:
    """Exit status 0: every result was allowed."""
    worst = 0
    for name in pairs.OPERATIONS:
        for bits in (64, 32):
            wrong = pairs.check(name, bits, count, seed)
            print(f"{name}{bits}: {wrong or f'{count:,} pairs'}", flush=True)
            worst |= 1 if wrong else 0
    return worst


def main() -> int:
    """Exit status 0: none refuted, none left open."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of theorems, with * and ?")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for a goal (60)")
    parser.add_argument("--quick", action="store_true", help="only those that CI proves")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="instead, N random pairs of 64 bits for each operation")
    parser.add_argument("--seed", type=int, default=1, help="of the pairs")
    options = parser.parse_args()
    if options.pairs:
        return draw(options.pairs, options.seed)
    worst = 0
    print(f"{'theorem':34} {'bits':>4} {'goals':>5} {'seconds':>8}  verdict")
    begin = time.perf_counter()
    for row in THEOREMS:
        if not any(fnmatch.fnmatchcase(row.name, pattern) for pattern in options.patterns) or (options.quick and not row.quick):
            continue
        found = prove(row, options.timeout)
        print(f"{row.name:34} {found.width:4} {found.goals:5} {found.seconds:8.2f}  {found.verdict}", flush=True)
        for line in found.details:
            print(f"    {line}")
        worst |= 0 if found.proved else 1
    print(f"{time.perf_counter() - begin:.1f} s")
    return worst


if __name__ == "__main__":
    sys.exit(main())
