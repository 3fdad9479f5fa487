"""Ablations: what each idea of the code generator buys. One is left out at a time (fastrtp.jit.options), and the program
runs beside itself with everything, on the same maps or on equal memory.

Values are without the idea, baselines with it: a ratio of 1.5 says that without it the program takes half as long again.
Programs are called directly; `tier` is the exception, where a recording is replayed through the tracepoints' probes and
fused.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from bench import jit, loops, native
from bench.cases import Case, Results, Suite
from bench.direct import Direct
from bench.machine import machine
from bench.measure import best_ns, budget, times
from bench.recording import Player

IDEAS: dict[str, dict[str, bool]] = {
    "inline": {"inline": False},
    "known_maps": {"known_maps": False},
    "no_lock": {"smp": True},
    "bases": {"bases": False},
    "apart": {"apart": False},
    "rodata": {"rodata": False},
    "private_stack": {"private_stack": False},
    "narrow": {"narrow": False},
    "whole_slots": {"whole_slots": False},
    "host_cpu": {"host_cpu": False},
}
"""Idea -> the CodeOptions that leave it out."""

_EVENTS: dict[str, tuple[str, ...]] = {
    "inline": ("array_count", "hash_count", "hash_update", "ringbuf_discard"),
    "known_maps": ("array_count", "hash_count", "hash_update"),
    "no_lock": ("global_count", "array_count", "hash_count"),
    "apart": ("bit_counts", "hash_update"),
    "rodata": ("filtered",),
}
"""Programs of transition.bpf.o to measure an idea by."""

_CODE: dict[str, tuple[str, ...]] = {
    "bases": ("internet_checksum", "to_upper", "copy_words", "classify", "histogram"),
    "private_stack": ("matrix", "siphash", "jenkins"),
    "narrow": ("predictable", "classify", "binary_search", "gcd", "murmur3"),
    "whole_slots": ("predictable", "classify", "binary_search", "sparse_switch"),
    "host_cpu": ("bits", "matrix", "to_upper", "internet_checksum", "alu64"),
}
"""Programs of the jit suite to measure an idea by; those of whole_slots are compiled for bytecode with 32-bit instructions."""

_TIERS = ("runqlat", "syscount")


@functools.cache
def v3_programs() -> dict[str, Any]:
    """ProgramSpec by name of the branches source, compiled to bytecode with 32-bit instructions."""
    from fastrtp.obj import ObjectSpec

    return ObjectSpec.parse((native.SOURCES / "jit_branches.v3.bpf.o").read_bytes(), "v3").programs


def on_events(idea: str, name: str) -> tuple[float, float]:
    """(ns per call without the idea, with it) of a program of transition.bpf.o."""
    from fastrtp.jit.options import DEFAULT

    here = machine()
    without, with_it = (Direct(here, name, options) for options in (replace(DEFAULT, **IDEAS[idea]), DEFAULT))
    best = best_ns({"without": without.run, "with": with_it.run})
    return best["without"], best["with"]


def on_code(idea: str, name: str) -> tuple[float, float]:
    """(ns per call without the idea, with it) of a program of the jit suite. RuntimeError when results differ."""
    from fastrtp.isa import encode
    from fastrtp.jit.options import DEFAULT
    from fastrtp.jit.unverified import Compiled

    spec = (v3_programs() if idea == "whole_slots" else jit.programs())[name]
    data = jit.memory_for(name)
    runs: dict[str, Callable[[int], int]] = {}
    for which, options in (("without", replace(DEFAULT, **IDEAS[idea])), ("with", DEFAULT)):
        compiled, memory = Compiled(encode(spec.insns), options), ctypes.create_string_buffer(data, len(data))
        runs[which] = functools.partial(_repeat, compiled, memory)
    if runs["without"](1) != runs["with"](1):
        raise RuntimeError(f"{name}: another result without {idea}")
    best = best_ns(runs)
    return best["without"], best["with"]


def _repeat(compiled: Any, memory: Any, count: int) -> int:
    return loops.repeat(count, compiled.native.entry, ctypes.addressof(memory), len(memory))


def tiers(name: str) -> tuple[float, float]:
    """(ns per event of a replay in the linked tier, in the fused one) with an object's programs."""
    linked, fused = (Player([name], tier=tier) for tier in ("linked", "fused"))
    best = best_ns({"linked": times(linked.play), "fused": times(fused.play)}, 2 * budget())
    return best["linked"] / linked.events, best["fused"] / fused.events


class Ablation(Suite):
    """ns without an idea, beside ns with it."""

    title = "ablation"
    params: ClassVar[Sequence[str]] = (
        *(f"{idea}:{name}" for idea in IDEAS for name in (*_EVENTS.get(idea, ()), *_CODE.get(idea, ()))),
        *(f"fused:{name}" for name in _TIERS),
    )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Idea by idea, each on the programs that it is for; then the fused tier."""
        for idea in IDEAS:
            for name in _EVENTS.get(idea, ()):
                yield Case(f"{idea}:{name}", "ns", f"with {idea}", functools.partial(on_events, idea, name))
            for name in _CODE.get(idea, ()):
                yield Case(f"{idea}:{name}", "ns", f"with {idea}", functools.partial(on_code, idea, name))
        for name in _TIERS:
            yield Case(f"fused:{name}", "ns", "fused", functools.partial(tiers, name))

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ratio(self, results: Results, name: str) -> float:
        """Time without the idea divided by the time with it."""
        return self.ratio()

    track_ratio.unit = "x"  # type: ignore[attr-defined]
