"""Which suites there are: the one table, by title, in the order in which results are shown; and how they are measured."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from bench.cases import Row, Suite
from bench.results import Document, surroundings

Progress = Callable[[int, int, str], object]
"""progress(cases done, cases in all, the one that comes now)"""

_SUITES = {
    "jit": "bench.jit:Jit",
    "transition": "bench.transition:Transition",
    "maps": "bench.maps:Maps",
    "compare": "bench.compare:Compare",
    "ablation": "bench.ablation:Ablation",
    "layers": "bench.layers:LayersOfAnEvent",
    "live": "bench.live:Live",
    "replay": "bench.recording:Replay",
    "scaling": "bench.scaling:Scaling",
    "load": "bench.load:Load",
    "startup": "bench.startup:Startup",
    "memory": "bench.memory:Memory",
    "verifier": "bench.verifier:Verifier",
}
"""Title -> module:class."""


def titles() -> list[str]:
    """All titles; imports nothing."""
    return list(_SUITES)


def suite(title: str) -> type[Suite]:
    """The class of a suite; KeyError for a title that there is not."""
    module, _, name = _SUITES[title].partition(":")
    found: type[Suite] = getattr(importlib.import_module(module), name)
    return found


def suites() -> dict[str, type[Suite]]:
    """All of them."""
    return {title: suite(title) for title in _SUITES}


def measure(wanted: Sequence[str], progress: Progress = lambda done, total, name: None) -> Document:
    """Measure suites, case by case: "title" or "title:pattern" of cases ("jit:alu*"). What fails is a line of the document.

    KeyError for a title that there is not.
    """
    classes = list({title: suite(title) for title in (name.partition(":")[0] for name in wanted)}.values())
    patterns = [name if ":" in name else f"{name}:*" for name in wanted]
    cases = [
        (found.title, case)
        for found in classes
        for case in found.cases()
        if any(fnmatchcase(f"{found.title}:{case.name}", pattern) for pattern in patterns)
    ]
    document = Document([], [found.title for found in classes if found.averaged])
    start = time.perf_counter()
    for done, (title, case) in enumerate(cases):
        progress(done, len(cases), f"{title}: {case.name}")
        try:
            value, reference = case.measure()
        except NotImplementedError as reason:
            document.left_out.append(f"{title} {case.name}: {reason}")
        except Exception as error:
            document.failed.append(f"{title} {case.name}: {type(error).__name__}: {error}")
        else:
            document.rows.append(Row(title, case.name, case.unit, value, case.baseline, reference))
    document.surroundings = surroundings() | {"wall_seconds": round(time.perf_counter() - start, 1)}
    return document
