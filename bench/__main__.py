"""`python -m bench [SUITE ...] [--quick] [--json FILE]`: every suite as one table, with baselines and ratios."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import native
from bench.cases import Row, Suite

_QUICK_SECONDS = "0.06"


def suites() -> dict[str, type[Suite]]:
    """All suites by title, in the order of the table."""
    from bench.compare import Compare
    from bench.jit import Jit
    from bench.live import Live
    from bench.load import Load
    from bench.memory import Memory
    from bench.recording import Replay
    from bench.startup import Startup
    from bench.transition import Transition
    from bench.verifier import Verifier

    every: tuple[type[Suite], ...] = (Transition, Compare, Live, Replay, Load, Startup, Memory, Jit, Verifier)
    return {suite.title: suite for suite in every}


def geomean(rows: Sequence[Row]) -> float | None:
    """Geometric mean of the rows' ratios."""
    ratios = [row.ratio for row in rows if row.ratio]
    return math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios)) if ratios else None


def surroundings() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import llvmlite
    import numba

    from fastrtp.native import engine

    return {
        "cpu": engine.cpu()[0],
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "baseline": native.baseline_name(),
        "seconds_per_comparison": os.environ.get("FASTRTP_BENCH_SECONDS", "default"),
    }


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"


def measure(wanted: Sequence[type[Suite]], console: Any) -> tuple[list[Row], list[str]]:
    """(rows, what failed) of the suites, with progress on the console."""
    rows: list[Row] = []
    failed: list[str] = []
    with console.status("") as status:
        for suite in wanted:
            for case in suite.cases():
                status.update(f"{suite.title}: {case.name}")
                try:
                    value, reference = case.measure()
                except NotImplementedError as reason:
                    console.print(f"left out {suite.title} {case.name}: {reason}", style="dim")
                    continue
                except Exception as error:
                    failed.append(f"{suite.title} {case.name}: {type(error).__name__}: {error}")
                    continue
                rows.append(Row(suite.title, case.name, case.unit, value, case.baseline, reference))
    return rows, failed


def show(rows: Sequence[Row], console: Any) -> None:
    """The table."""
    from rich.table import Table

    table = Table(title="fastrtp benchmarks: best of rounds in turns, ratio = value / baseline")
    for heading in ("suite", "case", "value", "unit", "baseline", "is", "ratio"):
        table.add_column(heading, justify="right" if heading in ("value", "baseline", "ratio") else "left")
    for suite in dict.fromkeys(row.suite for row in rows):
        own = [row for row in rows if row.suite == suite]
        for row in own:
            table.add_row(suite, row.name, _text(row.value), row.unit, _text(row.reference), row.baseline, _text(row.ratio))
        if suite == "jit":
            table.add_row(suite, f"geomean of {len(own)}", "", "", "", "", _text(geomean(own)), style="bold")
        table.add_section()
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 when a case failed."""
    every = suites()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"some of: {', '.join(every)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="short rounds: under a minute for all suites, and less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows and the surroundings there too")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.suites if name not in every]
    if unknown:
        parser.error(f"no suite {unknown[0]!r}: there are {', '.join(every)}")
    if options.quick:
        os.environ["FASTRTP_BENCH_SECONDS"] = _QUICK_SECONDS

    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    start = time.perf_counter()
    rows, failed = measure([every[name] for name in options.suites or every], console)
    show(rows, console)
    where = surroundings() | {"wall_seconds": round(time.perf_counter() - start, 1)}
    console.print(", ".join(f"{key} {value}" for key, value in where.items()), style="dim", highlight=False)
    for line in failed:
        console.print(f"failed: {line}", style="red", markup=False)
    if options.json:
        document = {"surroundings": where, "rows": [row.as_dict() for row in rows], "failed": failed}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
