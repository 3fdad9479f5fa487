"""Import and replay of a recording: rates, and what each stage takes.

Baselines: one pass over the file's bytes for the import; for the replay the recording with nothing attached, and for that
a pass over as many events with nothing to do for any of them.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import best_ns, budget, times
from bench.sources import objects, recording

_TIERS = ("linked", "fused")


@functools.cache
def opened() -> Any:
    """The recording, read once."""
    from fastrtp.record import Recording

    return Recording.open(recording()[1])


def _pass_over(path: Path) -> int:
    """Read a file and look at every 8 bytes of it: what any import has to do at least."""
    import numpy as np

    data = path.read_bytes()
    return int(np.frombuffer(data, np.uint64, len(data) // 8).sum())


@functools.cache
def _folder() -> Any:
    """A folder that goes when the process ends."""
    return tempfile.TemporaryDirectory()


@functools.cache
def perf_data() -> Path:
    """A file with the recording as perf record would have written it."""
    from bench.perf_data import from_trace_dat

    path = Path(_folder().name) / "perf.data"
    path.write_bytes(from_trace_dat(recording()[1]))
    return path


def importing(perf: bool = False) -> tuple[float, float]:
    """(ns per event of Recording.open, ns per event of one pass over the file)."""
    from fastrtp.record import Recording

    path = perf_data() if perf else recording()[1]
    events = Recording.open(path).events
    best = best_ns(
        {"open": times(lambda: Recording.open(path)), "pass": times(lambda: _pass_over(path))}, max(2 * budget(), 0.3), rounds=3
    )
    return best["open"] / events, best["pass"] / events


class Player:
    """The recording bound to a kernel's tracepoints, with these objects attached, to be played again and again in one tier.

    `empty_at`: tracepoints that get a program which does nothing.
    """

    def __init__(self, attach: Sequence[str] = (), empty_at: Sequence[str] = (), tier: str = "linked") -> None:
        from fastrtp.kernel import Kernel
        from fastrtp.mem.objects import ObjectSpace
        from fastrtp.replay.bind import bind
        from fastrtp.replay.fused import FusedReplay
        from fastrtp.replay.linked import LinkedReplay

        source = opened()
        self.kernel = kernel = Kernel(cpus=max(source.cpus, 2))
        paths = objects()
        self.objects = [kernel.load(paths[name]) for name in attach]
        self.links = [obj.attach() for obj in self.objects]
        if empty_at:
            empty = kernel.load(native.SOURCES / "transition.bpf.o", autoload=["empty"])
            self.empty = [empty.programs["empty"].attach(name) for name in empty_at]
        names = {table.name for table in source.tables} & set(kernel.tracepoints)
        space = ObjectSpace(kernel.memory.arena, kernel.btf)
        protos = {name: kernel.tracepoints.proto(name) for name in names}
        attached = {link.tp_name for links in self.links for link in links}
        bound = bind(source, space, protos, policy="zero", wanted=attached | set(empty_at))
        tracepoints = {name: kernel.tracepoints[name] for name in names}
        if tier == "fused":
            self.linked: LinkedReplay = FusedReplay(kernel, bound, tracepoints)
        else:
            self.linked = LinkedReplay(kernel.memory, bound, tracepoints)
        self._tier = tier
        kernel.memory.set_clock(virtual=True)
        self.linked.prepare()
        self.events = self.linked.events

    def play(self) -> None:
        """The whole recording once. RuntimeError when it went another way."""
        self.linked.rewind()
        self.linked.run()
        if self.linked.tier != self._tier:
            raise RuntimeError(f"the replay was {self.linked.tier}, not {self._tier}")


def preparing(name: str) -> tuple[float, float | None]:
    """(ns per event of bind and of making the loop native, warm; no baseline)."""
    best = best_ns({"bind": times(lambda: Player([name]))}, max(2 * budget(), 0.3), rounds=3)
    return best["bind"] / opened().events, None


def replaying(attach: Sequence[str], tier: str) -> tuple[float, float]:
    """(ns per event with the programs, ns per event with nothing attached)."""
    ours, bare = Player(attach, tier=tier), Player()
    best = best_ns({"ours": times(ours.play), "bare": times(bare.play)}, 2 * budget())
    return best["ours"] / ours.events, best["bare"] / bare.events


def nothing_attached() -> tuple[float, float]:
    """(ns per event with nothing attached, ns per event of a loop that makes three arguments for nobody)."""
    from bench import loops

    bare = Player()
    best = best_ns({"bare": times(bare.play), "loop": lambda n: loops.bare(n * bare.events, 1024)}, 2 * budget())
    return best["bare"] / bare.events, best["loop"] / bare.events


def _replay_names() -> list[str]:
    return list(objects())


class Replay(Suite):
    """ns per event of importing and of replaying a recording; a rate in M events/s is 1,000 divided by it."""

    title = "replay"
    params: ClassVar[Sequence[str]] = (
        "import", "import_perf_data", "nothing_attached",
        *(f"{name}_{tier}" for name in _replay_names() for tier in _TIERS), "prepare",
    )  # fmt: skip

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Import of either form, the bare loop, each object's programs in both tiers, preparation."""
        yield Case("import", "ns", "one pass over the file", importing)
        yield Case("import_perf_data", "ns", "one pass over the file", functools.partial(importing, perf=True))
        yield Case("nothing_attached", "ns", "empty compiled loop", nothing_attached)
        for name in _replay_names():
            for tier in _TIERS:
                play: Callable[[], tuple[float, float | None]] = functools.partial(replaying, [name], tier)
                yield Case(f"{name}_{tier}", "ns", "nothing attached", play)
        yield Case("prepare", "ns", "", functools.partial(preparing, _replay_names()[0]))

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_rate(self, results: Results, name: str) -> float:
        """Million events a second."""
        return 1e3 / self.value

    track_rate.unit = "M events/s"  # type: ignore[attr-defined]

    def track_ratio(self, results: Results, name: str) -> float:
        """Time per event divided by the baseline's."""
        return self.ratio()

    track_ratio.unit = "x"  # type: ignore[attr-defined]
