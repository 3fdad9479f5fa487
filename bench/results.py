"""The document that a run of the benchmarks leaves: rows, geometric means, surroundings; to JSON and back."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import native
from bench.cases import Row

_FORMAT = 1


class ResultsError(Exception):
    """A file is no document of results."""


def geomean(rows: Iterable[Row]) -> float | None:
    """Geometric mean of the rows' ratios; None when there are none."""
    ratios = [row.ratio for row in rows if row.ratio]
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def surroundings() -> dict[str, Any]:
    """What the figures depend on besides the code."""
    import llvmlite
    import numba

    from fastrtp.native import engine

    return {
        "cpu": engine.cpu()[0],
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "baseline": native.baseline_name(),
        "seconds_per_comparison": os.environ.get("FASTRTP_BENCH_SECONDS", "default"),
    }


@dataclass
class Document:
    """`averaged`: titles of the suites whose ratios have one baseline, so that their geometric mean says something.

    `left_out`: what this machine cannot measure, `failed`: what went wrong, as lines of text.
    """

    rows: list[Row]
    averaged: Sequence[str] = ()
    surroundings: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def suites(self) -> dict[str, list[Row]]:
        """Rows by suite, in order."""
        by_title: dict[str, list[Row]] = {}
        for row in self.rows:
            by_title.setdefault(row.suite, []).append(row)
        return by_title

    def geomeans(self) -> dict[str, float]:
        """Of the suites that have one."""
        means = {title: geomean(rows) for title, rows in self.suites().items() if title in self.averaged}
        return {title: mean for title, mean in means.items() if mean is not None}

    def as_dict(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {
            "format": _FORMAT,
            "surroundings": self.surroundings,
            "geomeans": self.geomeans(),
            "rows": [row.as_dict() for row in self.rows],
            "left_out": self.left_out,
            "failed": self.failed,
        }

    def write(self, path: Path) -> None:
        """To a JSON file."""
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Document:
        """From a JSON file. OSError; ResultsError when it is something else."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise ResultsError(f"{path}: format {found['format']!r}, this version reads {_FORMAT}")
            rows = [Row(**{name: value for name, value in row.items() if name != "ratio"}) for row in found["rows"]]
            return Document(
                rows, list(found["geomeans"]), dict(found["surroundings"]), list(found["left_out"]), list(found["failed"])
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{path}: no results of python -m bench --json ({type(error).__name__}: {error})") from error
