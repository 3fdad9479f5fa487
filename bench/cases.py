"""What a suite is made of: cases, and the rows that come out of them.

A case sets up its subject and baseline when it is measured, not before, so a suite can be listed for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Row:
    """One result. `value` and `reference` (the baseline's value, None where nothing is claimed) are in `unit`."""

    suite: str
    name: str
    unit: str
    value: float
    baseline: str = ""
    reference: float | None = None

    @property
    def ratio(self) -> float | None:
        """value / reference."""
        return None if not self.reference else self.value / self.reference

    @property
    def rate(self) -> bool:
        """More is better: the unit is something per second."""
        return self.unit.endswith("/s")

    @property
    def timed(self) -> bool:
        """The unit is a time or a rate."""
        return self.rate or self.unit in ("ns", "us", "ms", "s")

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON-ready values."""
        return asdict(self) | {"ratio": self.ratio}


@dataclass(frozen=True)
class Case:
    """One line of a suite. `measure()` gives (value, reference or None); NotImplementedError where this machine cannot."""

    name: str
    unit: str
    baseline: str
    measure: Callable[[], tuple[float, float | None]]


Results = dict[str, "tuple[float, float | None] | str | None"]
"""By case: (value, reference); None: this machine cannot; a text: it failed, and that is why."""


class Suite:
    """Base of the asv classes. A subclass has `cases()`, the names of its cases as `params`, and a setup_cache of its own,
    or its module has (asv tells caches apart by where they are defined), so that a suite is measured once, in one process.
    """

    title: ClassVar[str]
    averaged: ClassVar[bool] = False
    """All cases have one kind of baseline, so the geometric mean of the ratios says something."""
    param_names: ClassVar[Sequence[str]] = ("case",)
    timeout = 300

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """The cases, cheap to list."""
        raise NotImplementedError

    @classmethod
    def results(cls) -> Results:
        """Measure every case."""
        found: Results = {}
        for case in cls.cases():
            try:
                found[case.name] = case.measure()
            except NotImplementedError:
                found[case.name] = None
            except Exception as error:
                found[case.name] = f"{type(error).__name__}: {error}"
        return found

    def setup(self, results: Results, name: str) -> None:
        """Take one case's result; NotImplementedError (asv: skip) where there is none, RuntimeError where it failed."""
        result = results[name]
        if result is None:
            raise NotImplementedError
        if isinstance(result, str):
            raise RuntimeError(result)
        self.value, self.reference = result

    def ratio(self) -> float:
        """The case's ratio to its baseline, nan for a case without one."""
        return self.value / self.reference if self.reference else math.nan
