"""The fused tier: loop, arguments, casts and programs in one LLVM module, so that nothing is between event and program.

It holds for one set of links. A chunk runs fused only when no tracepoint's probes have changed since the code was made
(MACHINE.generation), no program is in the middle of a run, and BPF_ENABLE_STATS is not held; otherwise it runs linked, and
after a change of links everything that is left does. Results are the same; runs are counted a chunk at a time.

The recursion guard is left out where nothing can nest: a program that calls a helper which fires an event
(bpf_trace_printk), makes tail calls, reads its cookie or calls kernel functions stays behind its tracepoint's probes, with
all others there.

Must not know: what programs do, file formats.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrtp.errors import JitError
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.jit.key import text_key
from fastrtp.jit.program import ENTRY, NativeText, object_cache
from fastrtp.native.compiler import Part
from fastrtp.native.layout import FUSED, FUSED_ROW
from fastrtp.native.memory import Memory
from fastrtp.replay.bind import BoundRecording
from fastrtp.replay.fused_text import COLUMNS, Kind, fused_text
from fastrtp.replay.linked import LinkedReplay
from fastrtp.replay.materialize import DECLARATIONS, Column
from fastrtp.trace import Tracepoint

if TYPE_CHECKING:
    from fastrtp.kernel.link import BpfRawTpLink
    from fastrtp.kernel.prog import BpfProg

Tier = Literal["auto", "linked", "fused"]

_CALL = 0x85
_KFUNC = 2


def _ids(*names: str) -> frozenset[int]:
    return frozenset(HELPER_IDS[name] for name in names)


NOT_FUSED = _ids("trace_printk", "trace_vprintk", "tail_call", "get_attach_cookie")
"""Helpers that fire events, leave the program, or ask what bpf_trace_run keeps for each run."""
_PLAIN = _ids(
    "map_lookup_elem", "map_update_elem", "map_delete_elem", "map_lookup_percpu_elem", "for_each_map_elem", "loop",
    "probe_read", "probe_read_str", "probe_read_kernel", "probe_read_kernel_str", "probe_read_user", "probe_read_user_str",
    "get_smp_processor_id", "get_numa_node_id", "get_prandom_u32", "strncmp",
    "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard", "ringbuf_output", "ringbuf_query",
)  # fmt: skip
"""Helpers that ask neither for the time nor for the current task."""
_TIME = _PLAIN | _ids("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_tai_ns", "jiffies64")
"""Helpers that do not ask for the current task."""
_CURRENT = _PLAIN | _ids(
    "get_current_pid_tgid", "get_current_uid_gid", "get_current_comm", "get_current_task", "get_current_task_btf"
)
"""Helpers that do not ask for the time."""
TIMERS = _ids("timer_start")
"""Helpers after which callbacks run between events."""
STACKS = _ids("get_stack", "get_stackid", "get_task_stack")
"""Helpers that ask for the event's stack, which the fused loop does not hand out."""

_EXPORTS = ("fused_run",)

COMPILE_NS = 40_000_000
"""About what it costs to compile a program into the loop; to find it in the cache costs CACHED_NS for all."""
CACHED_NS = 5_000_000
GAIN_NS = 10
"""About what an event gains."""


def _lines(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Zeroed integers in cache lines that nothing else is in: threads write to theirs at every event."""
    room = np.zeros(count + 16, np.int64)
    skip = -room.ctypes.data % 64 // 8
    return room[skip : skip + count]


def helpers(prog: BpfProg) -> frozenset[int]:
    """Numbers of the helpers that a program may call; -1 for a kernel function."""
    verified = prog.verified
    calls = [insn for insn, aux in zip(verified.insns, verified.aux, strict=True) if insn.code == _CALL and aux.seen]
    return frozenset(insn.imm for insn in calls if insn.src_reg == 0) | {-1 for insn in calls if insn.src_reg == _KFUNC}


@dataclass
class _Loop:
    """What goes into the module: kinds, the programs' texts, addresses of symbols, rows of (kind, stats)."""

    kinds: list[Kind]
    parts: list[Part]
    symbols: dict[str, int]
    rows: list[tuple[int, int]]


class FusedReplay(LinkedReplay):
    """A LinkedReplay that plays fused what can be. `links`: the kernel's; the caller holds its lock meanwhile.

    `fused_events`: events that were played fused. `worth`: whether code is there already, or pays for its compilation.
    """

    def __init__(
        self, memory: Memory, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], links: Iterable[BpfRawTpLink],
        picked: Column | None = None,
    ) -> None:  # fmt: skip
        super().__init__(memory, bound, tracepoints, picked)
        self._smp = picked is not None
        self.fused_events = self._played = 0
        self._generation = int(memory.machine["generation"][0])
        self._native: NativeText | None = None
        self._run: Any = None
        self._stable = True
        self._loop = loop = self._plan(bound, tracepoints, {link.record.address: link for link in links if link.record})
        self._text = fused_text(loop.kinds, memory.cpus)
        makers = "".join(self._makers[kind.number].text for kind in loop.kinds) + DECLARATIONS
        self._parts = [Part(makers), *loop.parts]

    @property
    def tier(self) -> str:
        """ "fused"; "linked" when nothing could be; "fused, linked" when links changed on the way, or runs were timed."""
        if self.fused_events == 0:
            return "linked" if self.position else "fused"
        return "fused" if self.fused_events == self._played else "fused, linked"

    @property
    def worth(self) -> bool:
        """Whether fusing pays for these events, going by rule of thumb."""
        return self.pays(self.events)

    def pays(self, events: int) -> bool:
        """Whether fusing pays for so many events."""
        if not self._loop.parts:
            return False
        cached = text_key(self._text, self._parts, _EXPORTS, smp=self._smp) in object_cache()
        return events * GAIN_NS > (CACHED_NS if cached else COMPILE_NS * len(self._loop.parts))

    def prepare(self) -> None:
        """Compile the loop, or find it in the cache; the linked one where LLVM refuses."""
        if not self._stable:
            self.prepare_linked()
            return
        if self._native is not None:
            return
        try:
            self._native = NativeText("fused", self._text, _EXPORTS, self._symbols(), self._parts, smp=self._smp)
            self._native.profile(self.memory.perf_map, {"prog": "bpf_prog"})
        except JitError:  # the programs are fine one by one, so the replay is not to fail
            self._stable = False
            self.prepare_linked()
            return
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
        self._run = prototype(self._native.addresses[_EXPORTS[0]])

    def play(self, limit: int) -> int:
        """Play at most `limit` events, fused where that is possible now."""
        if self._stable:
            self.prepare()
        if self._stable:
            played = int(self._run(self._fused.ctypes.data, limit))
            if played >= 0:
                self.fused_events += played
                self._played += played
                return played
            self._stable = played != -1
        self.prepare_linked()
        played = self.memory.lib.replay_run(self._state.ctypes.data, limit)
        self._played += played
        return played

    def loop(self) -> tuple[int, int]:
        """Addresses of the FUSED record and of fused_run, while it may be used; (0, 0) where the linked loop must do."""
        self.prepare()
        return (int(self._fused.ctypes.data), self._native.addresses[_EXPORTS[0]]) if self._native and self._stable else (0, 0)

    def give_up(self) -> None:
        """From now on the linked loop plays: links have changed."""
        self._stable = False

    def close(self) -> None:
        """Free the native code."""
        super().close()
        if self._native is not None:
            self._native.close()
            self._native = self._run = None

    def _plan(self, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], links: Mapping[int, BpfRawTpLink]) -> _Loop:
        loop = _Loop([], [], {}, [])
        numbers: dict[int, str] = {}
        maps: dict[int, str] = {}
        tables: list[Any] = []
        offset = 0
        for number, maker in self._makers.items():
            event = bound.events[number]
            tp = tracepoints.get(event.name)
            calls = [links.get(func.data) for func in tp.funcs] if tp is not None else []
            sources = [source if isinstance(source, int) else int(source.ctypes.data) for source in maker.sources]
            kind = Kind(number, maker.name, offset, maker.has_after, "" if tp is None else tp.widths)
            if tp is not None and calls:
                asked = frozenset[int]().union(*(helpers(link.prog) if link is not None else {-1} for link in calls))
                if asked & (NOT_FUSED | {-1}):
                    kind = replace(kind, tracepoint=f"tp.{number}")
                    loop.symbols[f"tp.{number}"] = tp.address
                else:
                    programs = tuple(self._calls(loop, number, [link for link in calls if link is not None], numbers, maps))
                    time, current = not asked <= _CURRENT, not asked <= _TIME
                    kind = replace(kind, programs=programs, needs_time=time, needs_current=current)
            if kind.live or event.stores or event.after:
                loop.kinds.append(kind)
                tables += sources
                offset += 8 * len(sources)
        self._sources = np.array(tables or [0], np.uint64)
        return loop

    def _calls(
        self, loop: _Loop, number: int, links: list[BpfRawTpLink], numbers: dict[int, str], maps: dict[int, str]
    ) -> Iterator[str]:
        """The programs of one kind; their texts and symbols go into the loop."""
        for link in links:
            prog = link.prog
            loop.rows.append((number, prog.record.stats_address))
            if prog.id not in numbers:
                numbers[prog.id] = f"prog.{len(numbers)}"
                names = [(ENTRY, numbers[prog.id])]
                native = prog.smp_native() if self._smp else prog.native
                for symbol, address in native.symbols.items():
                    shared = maps.setdefault(address, f"at.{len(maps)}")
                    names.append((symbol, shared))
                    loop.symbols[shared] = address
                loop.parts.append(Part(native.text, tuple(names)))
            yield numbers[prog.id]

    def _symbols(self) -> dict[str, int]:
        """Addresses of everything that the module names; the records behind them are made here."""
        memory, loop, state = self.memory, self._loop, self._state[0]
        count = len(self._kinds)
        self._counts = _lines(count * memory.cpus)
        self._last = _lines(memory.cpus)
        self._mine = np.ones(memory.cpus, np.int64)
        if self._smp:
            self._mine[:] = 0
            self._mine[np.unique(self._bound.cpu)] = 1
        self._rows = np.array(loop.rows or [(0, 0)], FUSED_ROW)
        self._fused = np.zeros(1, FUSED)
        addresses = {"counts": self._counts, "last": self._last, "rows": self._rows, "replay": self._state, "mine": self._mine}
        for field, array in addresses.items():
            self._fused[field] = array.ctypes.data
        sizes = {"generation": self._generation, "kinds": count, "cpus": memory.cpus, "row_count": len(loop.rows)}
        for field, value in sizes.items():
            self._fused[field] = value
        places = {name: int(state[name]) for name in COLUMNS}
        places |= {name: int(addresses[name].ctypes.data) for name in ("counts", "last")}
        return loop.symbols | places | {"sources": int(self._sources.ctypes.data), "envs": memory.env_address}
