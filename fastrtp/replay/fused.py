"""The fused tier: loop, arguments, casts and programs in one LLVM module, so that nothing is between event and program.

It holds for one set of links. A chunk runs fused only when no tracepoint's probes have changed since the code was made
(Machine.generation), no program is in the middle of a run, no timer is armed, and BPF_ENABLE_STATS is not held; otherwise it
runs linked. After a change the links are fused anew, once a chunk has gone by without another one. Results are the same as
the linked tier's; runs are counted a chunk at a time. While a program is loaded that can arm timers, all is linked.

The recursion guard is left out where nothing can nest: kinds of events with a program that can fire an event, makes tail
calls or reads its cookie (jit/facts.py) stay behind their tracepoint's probes, with all others there.

Must not know: what programs do, file formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrtp.errors import JitError
from fastrtp.jit.key import text_key
from fastrtp.jit.program import ENTRY, object_cache
from fastrtp.kernel.objects.link import BpfRawTpLink
from fastrtp.native.compiler import Part
from fastrtp.replay.bind import BoundRecording
from fastrtp.replay.consumer import ConsumerClock
from fastrtp.replay.linked import LinkedReplay, Loop
from fastrtp.replay.loop_text import RUN, SURROUNDINGS, Kind, loop_text
from fastrtp.replay.materialize import Column
from fastrtp.replay.records import Fused, FusedRow
from fastrtp.trace import Tracepoint

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

Tier = Literal["auto", "linked", "fused"]

COMPILE_NS = 40_000_000
"""About what it costs to compile a program into the loop; to find it in the cache costs CACHED_NS for all."""
CACHED_NS = 5_000_000
GAIN_NS = 4
"""About what an event gains."""
_CHANGED = -1


def _lines(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Zeroed integers in cache lines that nothing else is in: threads write to theirs at every event."""
    room = np.zeros(count + 16, np.int64)
    skip = -room.ctypes.data % 64 // 8
    return room[skip : skip + count]


class Plan:
    """What is inlined at which kind of event, for the links of a moment. `timers`: a program may arm some.

    `rows`: (kind, address of ProgStats) of each inlined program; `parts`, `symbols`: their texts and what these name.
    """

    def __init__(self, replay: LinkedReplay, kernel: Kernel) -> None:
        # read first: a probe that comes while this is made makes it out of date
        self.generation = int(replay.memory.machine["generation"][0])
        self.parts: list[Part] = []
        self.symbols: dict[str, int] = {}
        self.rows: list[tuple[int, int]] = []
        self._programs: dict[int, str] = {}
        self._addresses: dict[int, str] = {}
        by_address = {link.record.address: link for link in kernel.links if isinstance(link, BpfRawTpLink) and link.record}
        self.smp = replay.smp
        self.timers = any(prog.native.facts.timers for prog in kernel.progs)
        kinds = [self._kind(replay, number, by_address) for number in replay.makers]
        self.kinds = [kind for kind in kinds if kind.stores or kind.has_after or kind.tracepoint or kind.programs]
        self.text = loop_text(self.kinds, replay.memory.cpus, fused=True, stacks=replay.stacks, consumer=replay.reads)
        self.parts.insert(0, replay.makers_part(self.kinds))

    @property
    def programs(self) -> int:
        """How many programs are inlined."""
        return len(self._programs)

    @property
    def cached(self) -> bool:
        """Whether the code is in the cache."""
        return text_key(self.text, self.parts, [RUN], smp=self.smp) in object_cache()

    def _kind(self, replay: LinkedReplay, number: int, links: Mapping[int, BpfRawTpLink]) -> Kind:
        kind = replay.kind(number)
        tp = replay.tracepoints.get(replay.bound.events[number].name)
        if tp is None or not tp.funcs:
            return kind
        here = [links[func.data] for func in tp.funcs if func.data in links]
        facts = [link.prog.native.facts for link in here]
        if len(here) < len(tp.funcs) or any(fact.nests or fact.run_ctx for fact in facts):
            return replay.through_probes(number)
        needs = {field for field in SURROUNDINGS if any(fact.asks(field) for fact in facts)}
        needs |= {"run_ctx"} if any(fact.stack for fact in facts) else set()
        return kind.at(tp.widths, programs=tuple(self._program(number, link) for link in here), needs=frozenset(needs))

    def _program(self, number: int, link: BpfRawTpLink) -> str:
        """Symbol of the link's program, one of the programs that run at this kind."""
        prog = link.prog
        self.rows.append((number, prog.record.stats_address))
        if prog.id not in self._programs:
            self._programs[prog.id] = f"prog:{len(self._programs)}"
            names = [(ENTRY, self._programs[prog.id])]
            native = prog.smp_native() if self.smp else prog.native
            for symbol, address in native.symbols.items():
                shared = self._addresses.setdefault(address, f"at:{len(self._addresses)}")
                names.append((symbol, shared))
                self.symbols[shared] = address
            self.parts.append(Part(native.text, tuple(names)))
        return self._programs[prog.id]


class _FusedLoop:
    """The code of a plan, and the records that it works on. JitError where LLVM refuses it."""

    def __init__(self, plan: Plan, replay: LinkedReplay, state: np.ndarray) -> None:
        count, cpus = max(len(replay.bound.events), 1), replay.memory.cpus
        self._counts = _lines(count * cpus)
        self._last = _lines(cpus)
        self._mine = np.ones(cpus, np.int64)
        if replay.smp:
            self._mine[:] = 0
            self._mine[np.unique(replay.bound.cpu)] = 1
        self._rows = np.array(plan.rows or [(0, 0)], FusedRow.layout.dtype)
        self._fused = np.zeros(1, Fused.layout.dtype)
        arrays = {"counts": self._counts, "last": self._last, "rows": self._rows, "replay": state, "mine": self._mine}
        sizes = {"generation": plan.generation, "kinds": count, "cpus": cpus, "row_count": len(plan.rows)}
        for field, value in [*((name, array.ctypes.data) for name, array in arrays.items()), *sizes.items()]:
            self._fused[field] = value
        places = {name: int(arrays[name].ctypes.data) for name in ("counts", "last")}
        symbols = replay.symbols(plan.kinds) | plan.symbols | places
        self.loop = Loop(replay.memory, "fused", plan.text, plan.parts, symbols, smp=replay.smp)

    @property
    def address(self) -> int:
        """Address of the FUSED record."""
        return int(self._fused.ctypes.data)


class FusedReplay(LinkedReplay):
    """A LinkedReplay that plays fused what can be. The kernel is asked for its links now and after changes.

    `eager`: fuse again after every change, not only where it pays. `fused_events`: events that were played fused.
    """

    def __init__(
        self, kernel: Kernel, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], picked: Column | None = None,
        *, eager: bool = True, consumer: ConsumerClock | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kernel.memory, bound, tracepoints, picked, consumer)
        self.fused_events = self._played = 0
        self._kernel = kernel
        self._eager = eager
        self._fused: _FusedLoop | None = None
        self._plan = self._new_plan()
        self._seen = self._plan.generation
        self._tried = -1

    @property
    def tier(self) -> str:
        """ "fused"; "linked" when nothing could be; "fused, linked" when links changed on the way, or runs were timed."""
        if self.fused_events == 0:
            return "linked" if self.position else "fused"
        return "fused" if self.fused_events == self._played else "fused, linked"

    @property
    def worth(self) -> bool:
        """Whether fusing pays for the events to come, going by rule of thumb."""
        return self.pays(self.events - self.position)

    def pays(self, events: int) -> bool:
        """Whether fusing pays for so many events."""
        plan = self._plan
        if not plan.programs or plan.timers:
            return False
        return events * GAIN_NS > (CACHED_NS if plan.cached else COMPILE_NS * plan.programs)

    @property
    def is_fused(self) -> bool:
        """Whether the loop that plays next is a fused one."""
        return self._fused is not None

    def prepare(self) -> None:
        """Compile the loop, or find it in the cache; the linked one where LLVM refuses."""
        if self._fused is None and self._plan.generation != self._tried:
            self._tried = self._plan.generation
            if not self._plan.timers:
                with suppress(JitError):  # the programs are fine one by one, so the replay is not to fail
                    self._fused = _FusedLoop(self._plan, self, self._state)
        if self._fused is None:
            super().prepare()

    def play(self, limit: int) -> int:
        """Play at most `limit` events, fused where that is possible now."""
        played = _CHANGED
        self._fuse_again()
        if self._fused is not None:
            played = int(self._fused.loop.run(self._fused.address, limit))
            if played == _CHANGED:
                self.give_up()
        if played >= 0:
            self.fused_events += played
        else:
            played = super().play(limit)
        self._played += played
        return played

    def loop(self) -> tuple[int, int]:
        """(record, address) of the loop that is to play next."""
        self._fuse_again()
        return (self._fused.address, self._fused.loop.address) if self._fused is not None else self.linked_loop()

    def give_up(self) -> None:
        """Links have changed: what was compiled for them goes."""
        if self._fused is not None:
            self._fused.loop.close()
            self._fused = None

    def rewind(self) -> None:
        """Start over: what programs counted stays."""
        super().rewind()
        self.fused_events = self._played = 0

    def close(self) -> None:
        """Free the native code."""
        super().close()
        self.give_up()

    def _new_plan(self) -> Plan:
        with self._kernel.lock:
            return Plan(self, self._kernel)

    def _fuse_again(self) -> None:
        """Make the loop for the links of now, when they have stayed the same for a chunk."""
        generation = int(self.memory.machine["generation"][0])
        stable, self._seen = generation == self._seen, generation
        if self._fused is not None or not stable or generation == self._tried:
            return
        if self._plan.generation != generation:
            self._plan = self._new_plan()
        if self._eager or self.worth:
            self.prepare()
        else:
            self._tried = generation
