"""Which suites there are: the one table, by title, in the order in which results are shown."""

from __future__ import annotations

import importlib

from bench.cases import Suite

_SUITES = {
    "jit": "bench.jit:Jit",
    "transition": "bench.transition:Transition",
    "compare": "bench.compare:Compare",
    "live": "bench.live:Live",
    "replay": "bench.recording:Replay",
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
