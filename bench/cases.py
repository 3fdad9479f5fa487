"""What a suite is made of: cases, and the rows that come out of them.

A case sets up its subject and baseline when it is measured, not before, so a suite can be listed for nothing.
"""

from __future__ import annotations

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


class Suite:
    """Base of the asv classes: a subclass has `cases()`; asv runs its track methods once for every case."""

    title: ClassVar[str]
    param_names: ClassVar[Sequence[str]] = ("case",)
    timeout = 180

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """The cases, cheap to list."""
        raise NotImplementedError

    @classmethod
    def rows(cls) -> Iterable[Row]:
        """Measure everything; what this machine cannot do is left out."""
        for case in cls.cases():
            try:
                value, reference = case.measure()
            except NotImplementedError:
                continue
            yield Row(cls.title, case.name, case.unit, value, case.baseline, reference)

    def setup(self, name: str) -> None:
        """Measure once for all track methods of the case: value and ratio come from the same run."""
        case = next(case for case in self.cases() if case.name == name)
        self.value, self.reference = case.measure()

    def ratio(self) -> float:
        """The case's ratio to its baseline."""
        if not self.reference:
            raise NotImplementedError
        return self.value / self.reference
