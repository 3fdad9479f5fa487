"""The environment of one run: program, maps, functions, tables per instruction, and the core's memory.

The core (check_native.py) follows paths in native memory; `env.regs`, `env.frame` and `env.cur_state` are views of it.
Kernel: include/linux/bpf_verifier.h:struct bpf_verifier_env.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import chain
from typing import Any, NamedTuple, NoReturn

import numpy as np

from fastrtp.isa import Insn
from fastrtp.native.library import library
from fastrtp.uapi import BPF_F_ANY_ALIGNMENT, BPF_F_STRICT_ALIGNMENT, BPF_F_TEST_STATE_FREQ, BpfProgType
from fastrtp.verifier.api import InsnAux, LoadAttr, SubprogInfo, VerifierStats
from fastrtp.verifier.core.call_table import arg_types
from fastrtp.verifier.domain.records import (
    ACCESS_MIXED,
    CALL_MAPS,
    FULL_STATE,
    MAX_CALL_FRAMES,
    REG_SIZE,
    VBranch,
    VEnv,
    VInsn,
    VMemo,
    VObject,
    VRefs,
)
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_MAP,
    PTR_TO_BTF_ID,
    PTR_TO_CTX,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_TO_TP_BUFFER,
)
from fastrtp.verifier.domain.state import (
    REF,
    REF_SIZE,
    REFS_HEAD,
    BpfFuncState,
    BpfReferenceState,
    BpfVerifierState,
    Space,
    memory,
)
from fastrtp.verifier.report.log import Refusal, VerifierLog
from fastrtp.verifier.report.refuse import refuse

BPF_COMPLEXITY_LIMIT_INSNS = 1_000_000
BPF_COMPLEXITY_LIMIT_JMP_SEQ = 8192
BPF_MAX_SUBPROGS = 256
MAX_BYTES = 2 << 30
"""Memory of one run's states; the kernel accounts them to the loader's cgroup."""

_GPL_LICENSES = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})
_ID_PAIRS = 1024
_REFS_COUNT = VRefs.layout.at("count")
_SETS, _UNIONS = 64, 256
_OBJECTS, _MEMOS = 256, 256
_ACCESS_NAME = {
    PTR_TO_CTX: "ctx",
    PTR_TO_STACK: "stack",
    PTR_TO_MAP_VALUE: "map_value",
    PTR_TO_MAP_KEY: "mem",
    PTR_TO_MEM: "mem",
    PTR_TO_TP_BUFFER: "tp_buffer",
    PTR_TO_BTF_ID: "btf",
    CONST_PTR_TO_MAP: "btf",
    ACCESS_MIXED: "mem",
}


class _Count:
    """A number of the VENV record, as an attribute."""

    def __init__(self, name: str) -> None:
        self.index = VEnv.layout.at(name) // 8

    def __get__(self, env: Any, _owner: object = None) -> int:
        return int(env.numbers[self.index])

    def __set__(self, env: Any, value: int) -> None:
        env.numbers[self.index] = value


class _Objects(Space):
    """What registers name; the core is told what it has to know of maps."""

    def __init__(self, env: BpfVerifierEnv) -> None:
        super().__init__()
        self._env = env
        self.table = np.zeros(_OBJECTS, VObject.layout.dtype)

    def added(self, number: int, thing: Any) -> None:
        """Describe a map."""
        if number >= len(self.table):
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
            self._env.objects = self.table.ctypes.data
        if hasattr(thing, "key_size"):
            inner = getattr(thing, "inner_map", None)
            other = self.number(inner) if hasattr(inner, "key_size") else 0
            kind = self._env.describe(self._env, thing)
            self.table[number] = (
                kind, thing.key_size, thing.value_size, thing.map_flags, other, thing.map_type, thing.max_entries
            )  # fmt: skip


class _Current(BpfVerifierState):
    """The state under way: its frames stay where they are."""

    def __init__(self, space: Space, address: int, run: Any) -> None:
        super().__init__(space, address, run)
        self.all_frames = [super(_Current, self).frame(number) for number in range(MAX_CALL_FRAMES)]

    def frame(self, number: int) -> BpfFuncState:
        """A frame, 0 the program's own."""
        return self.all_frames[number]

    @property
    def frames(self) -> list[BpfFuncState]:
        """All frames, the running one last."""
        return self.all_frames[: self.nframes]


class Limits(NamedTuple):
    """What a run may take."""

    insns: int = BPF_COMPLEXITY_LIMIT_INSNS
    jumps: int = BPF_COMPLEXITY_LIMIT_JMP_SEQ
    bytes: int = MAX_BYTES


class BpfVerifierEnv:
    """Everything that one verification knows."""

    def __init__(self, attr: LoadAttr, log: VerifierLog) -> None:
        self.attr = attr
        self.log = log
        self.insns: list[Insn] = list(attr.insns)
        self.insn_cnt = len(self.insns)
        self.prog_type = attr.prog_type
        self.is_tracing = attr.prog_type == BpfProgType.BPF_PROG_TYPE_TRACING
        self.is_tracepoint = attr.prog_type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT
        self.is_writable_tp = attr.prog_type == BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE
        self.gpl_compatible = attr.license in _GPL_LICENSES
        self.strict_alignment = bool(attr.prog_flags & BPF_F_STRICT_ALIGNMENT) and not attr.prog_flags & BPF_F_ANY_ALIGNMENT
        self.test_state_freq = bool(attr.prog_flags & BPF_F_TEST_STATE_FREQ)
        self.aux = [InsnAux() for _ in self.insns]
        self.used_maps: list[Any] = []
        self.subprogs: list[SubprogInfo] = []
        self.subprog_at: dict[int, int] = {}
        self.stats = VerifierStats()
        self.max_ctx_offset = 0
        self.insn_table: Any = None
        self.kfuncs: dict[int, Any] = {}
        self.print_state = True
        # global_func.py
        self.subprog_args: dict[int, Any] = {}
        self.called_globals: set[int] = set()
        self.verified_globals: set[int] = set()
        # insn_log.py
        self.insn_log: Any = None
        self.map_fields: dict[int, list[Any]] = {}
        self.async_callbacks: dict[tuple[int, int], Any] = {}
        self.async_verified: set[tuple[int, int]] = set()
        self._venv = bytearray(VEnv.layout.size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._venv))
        self.numbers = memoryview(self._venv).cast("q")
        self.lib = library()
        self._started = False
        self.last_idx, self.tp_access = 0, 0

    insn_idx = _Count("insn_idx")
    prev_insn_idx = _Count("prev_insn_idx")
    id_gen = _Count("id_gen")
    insn_processed = _Count("insn_processed")
    max_tp_access = _Count("max_tp_access")
    from_callback = _Count("from_callback")
    loops_end = _Count("loops_end")
    log_pos = _Count("log_pos")
    objects = _Count("objects")
    head_cnt = _Count("head_cnt")
    a = _Count("a")
    b = _Count("b")
    c = _Count("c")
    d = _Count("d")

    def start_core(self, limits: Limits, describe: Callable[[BpfVerifierEnv, Any], int], helpers: Any) -> None:
        """Hand the program to the core: what was found of its shape, and room to work in. Raises Refusal (ENOMEM).

        `describe`: the `kind` of a map's VObject.layout.dtype; `helpers`: a VHelper.layout.dtype for each number.
        """
        self.describe = describe
        self.space = _Objects(self)
        self._state = bytearray(FULL_STATE)
        self._head = np.zeros(limits.jumps, VBranch.layout.dtype)
        self._memos = np.zeros(_MEMOS, VMemo.layout.dtype)
        self._memo_cnt = 0
        self._depths = np.zeros(len(self.subprogs), "<i8")
        self._starts = np.array([*(subprog.start for subprog in self.subprogs), self.insn_cnt], "<i8")
        self._idmap = np.zeros(2 * _ID_PAIRS, "<i8")
        state = ctypes.addressof(ctypes.c_char.from_buffer(self._state))
        values = {
            "insns": self.insn_table.ctypes.data,
            "insn_cnt": self.insn_cnt,
            "cur": state,
            "head": self._head.ctypes.data,
            "head_max": limits.jumps,
            "objects": self.space.table.ctypes.data,
            "memos": self._memos.ctypes.data,
            "subprog_depth": self._depths.ctypes.data,
            "subprog_start": self._starts.ctypes.data,
            "idmap": self._idmap.ctypes.data,
            "strict_alignment": int(self.strict_alignment),
            "test_state_freq": int(self.test_state_freq),
            "helpers": helpers.ctypes.data,
            "arg_types": arg_types().ctypes.data,
            "nr_cpu_ids": self.attr.nr_cpu_ids,
            "logged": int(self.log.enabled),
            "insn_limit": limits.insns,
            "max_bytes": limits.bytes,
        }
        for name, value in values.items():
            self.numbers[VEnv.layout.at(name) // 8] = value
        self._started = True
        if self.lib.verifier_init(self.address, _SETS, _UNIONS):
            self.reject(12, "no memory for the verifier's states")
        self.cur_state = _Current(self.space, state, self)
        self.refresh()

    def tabulate(self) -> None:
        """Put the instructions into the table that the core works on."""
        table = np.zeros(self.insn_cnt, VInsn.layout.dtype)
        columns = np.fromiter(chain.from_iterable(self.insns), "<i8", 5 * self.insn_cnt).reshape(-1, 5)
        table["code"] = columns[:, 0]
        table["regs"] = columns[:, 1] | columns[:, 2] << 4
        table["off"] = columns[:, 3]
        table["imm"] = columns[:, 4]
        self.insn_table = table

    def close(self) -> None:
        """Give the core's memory back, keeping what it learnt of the program."""
        if not self._started:
            return
        self._started = False
        self.stats.insn_processed = self.insn_processed
        for name in ("max_states_per_insn", "total_states", "peak_states"):
            setattr(self.stats, name, int(self.numbers[VEnv.layout.at(name) // 8]))
        table = self.insn_table
        for aux, seen, access, kind in zip(
            self.aux, table["seen"].tolist(), table["access"].tolist(), table["ptr_type"].tolist(), strict=True
        ):
            aux.seen = bool(seen)
            if access:
                aux.access = _ACCESS_NAME[access]
                aux.ptr_type = kind
        for index in np.flatnonzero(table["value_held"]).tolist():
            self.aux[index].value_held = True
        for index in np.flatnonzero(table["map"]).tolist():
            self._note_map(self.aux[index], int(table["map"][index]))
        for subprog, depth in zip(self.subprogs, self._depths.tolist(), strict=True):
            subprog.stack_depth = depth
        self.last_idx, self.tp_access = self.insn_idx, self.max_tp_access
        self.lib.verifier_free(self.address)
        for name in ("cur_state", "frame", "regs", "space", "insn_log", "describe"):
            self.__dict__.pop(name, None)  # views of what is gone; they refer to this object, too

    def _note_map(self, aux: InsnAux, number: int) -> None:
        """The one map that a call works on, by its index in `used_maps`."""
        found = self.space.objects[number] if number != CALL_MAPS else None
        aux.map = next((i for i, used in enumerate(self.used_maps) if used is found), None)

    def restart(self, subprogno: int) -> None:
        """A fresh state at the first instruction of a function."""
        self.lib.verifier_restart(self.address, self.insn_cnt, subprogno)
        self.prev_insn_idx = -1
        self.insn_idx = self.subprogs[subprogno].start
        self.print_state = True
        self.refresh()

    def refresh(self) -> None:
        """After another frame, or another path: look at the frame that runs now."""
        self.frame: BpfFuncState = self.cur_state.all_frames[self.cur_state.nframes - 1]
        self.regs = self.frame.regs

    def check(self, reason: int) -> None:
        """Refuse the program where the core says so."""
        if reason > 0:
            refuse(self, reason)

    def remember(self, insn_idx: int, source: bytes | None, regno: int) -> None:
        """The instruction gave what is in a register now, from a pointer with the bytes `source` (None: a constant)."""
        number = int(self.insn_table["memo"][insn_idx])
        if not number:
            if self._memo_cnt == len(self._memos):
                self._memos = np.concatenate([self._memos, np.zeros_like(self._memos)])
                self.numbers[VEnv.layout.at("memos") // 8] = self._memos.ctypes.data
            self._memo_cnt += 1
            number = self._memo_cnt
            self.insn_table["memo"][insn_idx] = number
        place = memory(self._memos.ctypes.data + (number - 1) * VMemo.layout.size, VMemo.layout.size)
        if source is not None:
            place[4:REG_SIZE] = source
        place[REG_SIZE + 4 :] = self.space.raw(self.regs[regno])

    def room(self, frame: int, spi: int) -> None:
        """Make stack slots exist."""
        self.lib.verifier_room(frame, spi)

    def push_frame(self, state: int, callsite: int, subprogno: int) -> int:
        """A frame more; 0 where eight are in use."""
        return self.lib.verifier_push_frame(state, callsite, subprogno)

    def refs_at(self, address: int) -> tuple[BpfReferenceState, ...]:
        """What a VREFS record says."""
        count = int.from_bytes(memory(address + _REFS_COUNT, 8), "little")
        space = self.space
        return tuple(
            BpfReferenceState(ident, insn_idx, space.kinds[kind], space.objects[ptr])
            for ident, kind, ptr, insn_idx in REF.iter_unpack(memory(address + REFS_HEAD, count * REF_SIZE))
        )

    def new_refs(self, refs: tuple[BpfReferenceState, ...]) -> int:
        """Make a VREFS record. Raises Refusal (ENOMEM)."""
        address = self.lib.verifier_new_refs(self.address, len(refs))
        if not address:
            self.reject(12, "no memory for the verifier's states")
        rows = b"".join(REF.pack(ref.id, self.space.kind(ref.kind), self.space.number(ref.ptr), ref.insn_idx) for ref in refs)
        memory(address + REFS_HEAD, len(rows))[:] = rows
        return address

    def new_id(self) -> int:
        """A number not used before in this run."""
        self.id_gen += 1
        return self.id_gen

    def reject(self, errno: int, message: str) -> NoReturn:
        """Refuse the program with an errno and the last line of the log."""
        raise Refusal(errno, message)

    def subprog_of(self, insn_idx: int) -> int:
        """Number of the function that holds an instruction. Kernel: bpf_find_containing_subprog."""
        low, high = 0, len(self.subprogs) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.subprogs[middle].start <= insn_idx:
                low = middle
            else:
                high = middle - 1
        return low

    def push_stack(self, insn_idx: int) -> BpfVerifierState:
        """A copy of the current state, to be continued at `insn_idx` later. Kernel: push_stack."""
        address = self.lib.verifier_push_stack(self.address, insn_idx)
        if not address:
            if self.head_cnt >= len(self._head):
                self.reject(7, f"The sequence of {self.head_cnt + 1} jumps is too complex.")
            self.reject(12, "no memory for the verifier's states")
        return BpfVerifierState(self.space, address, self)

    def acquire_reference(self, insn_idx: int) -> int:
        """A new resource that has to be released. Kernel: acquire_reference."""
        ident = self.lib.verifier_acquire_reference(self.address, insn_idx)
        if not ident:
            self.reject(12, "no memory for the verifier's states")
        return ident

    def release_reference_nomark(self, ref_obj_id: int) -> bool:
        """Forget a resource; whether it was held."""
        kept = tuple(ref for ref in self.cur_state.refs if ref.id != ref_obj_id)
        found = len(kept) != len(self.cur_state.refs)
        self.cur_state.refs = kept
        return found

    def used_map_of(self, insn: Insn) -> Any:
        """The map of a resolved ld_imm64."""
        return self.used_maps[insn.imm]
