"""The analysis of one program: values followed through registers and frames until nothing new is learnt, then one walk that
notes what each instruction does.

A function is analysed once, for all its callers together. Branches teach nothing; instructions that the verifier never reached
are not followed. Where a pointer was lost sight of, the verifier's word on the memory behind it decides (InsnAux.access), and
an access to map values is one to any map.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastrtp.effects.calls import Calls
from fastrtp.effects.effects import Access, Effects, KernelRead, Outside, What
from fastrtp.effects.liveness import read_later
from fastrtp.effects.values import (
    ANY_MAP,
    CPU,
    CTX,
    FROM_KERNEL,
    KERNEL_OBJECT,
    TOP,
    U64,
    Kind,
    State,
    Value,
    const,
    join,
    signed,
)
from fastrtp.isa import BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE, BPF_PSEUDO_MAP_VALUE, Insn
from fastrtp.isa.opcodes import Kind as Op
from fastrtp.isa.opcodes import Row, lookup
from fastrtp.uapi import BpfMapType, BpfProgType

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

PERCPU = frozenset(
    {BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY, BpfMapType.BPF_MAP_TYPE_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH}
)
_MAPS = frozenset({BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX})
_MAP_VALUES = frozenset({BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE})
_ATOMIC = {"add": What.ADD, "or": What.OR, "and": What.AND, "xor": What.XOR}
_ENDS = frozenset({Op.JUMP, Op.BRANCH, Op.MAY_GOTO, Op.EXIT})
_FP = 10


def effects_of(verified: VerifiedProgram, prog_type: int) -> Effects:
    """Effects of an accepted program of a BPF_PROG_TYPE_*.

    >>> effects_of(obj.programs["on_switch"].prog.verified, 17).accesses[0].what
    <What.READ: 'reads it'>
    """
    return Flow(verified, prog_type).effects()


class Flow:
    """The state of an analysis. `calls` and this share one vocabulary: note() says what an instruction does."""

    def __init__(self, verified: VerifiedProgram, prog_type: int) -> None:
        self.verified = verified
        self.insns: Sequence[Insn] = verified.insns
        self.rows = [lookup(insn) for insn in verified.insns]
        self.maps: Sequence[Any] = verified.used_maps
        self.classic = prog_type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT
        self.function = {subprog.start: number for number, subprog in enumerate(verified.subprogs)}
        self.results: dict[int, Value] = {}
        self.callers: dict[int, set[int]] = {}
        self._owner = [0] * len(self.insns)
        for number, subprog in enumerate(verified.subprogs):
            self._owner[subprog.start : subprog.end] = [number] * (subprog.end - subprog.start)
        self._states: dict[int, State] = {}
        self._work: dict[int, None] = {}
        self._leaders = self._find_leaders()
        self._noting = False
        self._notes: dict[Access | KernelRead | Outside, None] = {}
        self._tail_calls: dict[int, None] = {}
        self._calls = Calls(self)

    def effects(self) -> Effects:
        """Run it."""
        start = State([TOP] * 11, {})
        start.regs[1], start.regs[_FP] = CTX, Value(Kind.STACK)
        self.enter(0, start)
        while self._work:
            self._run(self._work.popitem()[0])
        self._noting = True
        for leader in sorted(self._states):
            self._run(leader)
        notes = list(self._notes)
        return Effects(
            tuple(note for note in notes if isinstance(note, Access)),
            tuple(note for note in notes if isinstance(note, KernelRead)),
            tuple(note for note in notes if isinstance(note, Outside)),
            tuple(self._tail_calls),
        )

    # what calls.py asks for

    def note(self, what: Access | KernelRead | Outside) -> None:
        """An instruction does this."""
        if self._noting:
            self._notes[what] = None

    def note_tail_call(self, index: int, map_index: int) -> None:
        """An instruction goes on in another program."""
        if map_index == ANY_MAP:
            self.note(Outside(index, "goes on in a program that is not known"))
        elif self._noting:
            self._tail_calls[map_index] = None
        self.result(index, TOP)

    def own(self, map_index: int) -> bool:
        """Whether values of a map found by a plain look are this CPU's alone."""
        return map_index != ANY_MAP and self.maps[map_index].map_type in PERCPU

    def enter(self, start: int, state: State) -> None:
        """A path leads to the instruction `start`."""
        if not self.verified.aux[start].seen and start:
            return
        known = self._states.get(start)
        if known is None:
            self._states[start] = state.copy()
        elif not known.merge(state):
            return
        if not self._noting:
            self._work[start] = None

    def call(self, index: int, target: int, regs: Sequence[Value]) -> None:
        """A function is called, or called back, with these arguments (R1 on)."""
        state = State([TOP] * 11, {})
        for number, value in enumerate(regs[:5]):
            state.regs[number + 1] = Value(Kind.OUTER) if value.kind is Kind.STACK else value
        state.regs[_FP] = Value(Kind.STACK)
        self.callers.setdefault(target, set()).add(index)
        self.enter(target, state)

    def result(self, index: int, value: Value) -> None:
        """The function that an instruction is in may return this; callers hear of it."""
        start = self.verified.subprogs[self._owner[index]].start
        value = TOP if value.kind in (Kind.STACK, Kind.OUTER) else value
        known = self.results.get(start)
        joined = value if known is None else join(known, value)
        if joined == known or self._noting:
            return
        self.results[start] = joined
        for caller in self.callers.get(start, ()):
            if caller in self._states:  # of a call, not of a helper that calls back
                self._work[caller] = None

    def access(self, index: int, base: Value, start: int, size: int | None, what: What, atomic: int = 0) -> None:
        """An instruction does something to memory `start` bytes behind `base`, which may be a map's."""
        if base.kind is Kind.VALUE:
            begin = None if base.off is None else base.off + start
            end = None if begin is None or size is None else begin + size
            own = self.own(base.map)
            place = None if base.map == ANY_MAP else base.map
            self.note(Access(index, what, place, own, base.key, begin or 0, end, atomic))
        elif base.kind is Kind.KERNEL:
            if what is not What.READ:
                self.note(Outside(index, "writes to memory that events of other CPUs read"))
            begin = None if base.off is None else base.off + start
            self.note(KernelRead(index, begin, None if begin is None or size is None else begin + size))
        elif base.kind in (Kind.TOP, Kind.MAP, Kind.CONST, Kind.CPU):
            self.note(Access(index, what, None))

    # the walk

    def _find_leaders(self) -> set[int]:
        leaders = {subprog.start for subprog in self.verified.subprogs}
        for index, row in enumerate(self.rows):
            if row is not None and row.kind in _ENDS:
                leaders.update(self._successors(index, row))
            elif row is not None and row.kind is Op.PSEUDO_CALL:
                leaders.add(index)  # what a function returns may have to be looked at again
        return leaders

    def _successors(self, index: int, row: Row) -> list[int]:
        insn = self.insns[index]
        if row.kind is Op.EXIT:
            return []
        if row.kind is Op.JUMP:
            return [index + 1 + (insn.imm if row.name == "ja32" else insn.off)]
        return [index + 1, index + 1 + insn.off]

    def _run(self, at: int) -> None:
        """Follow a block from its leader to where it ends."""
        state = self._states[at].copy()
        index = at
        while True:
            row, insn = self.rows[index], self.insns[index]
            assert row is not None
            if row.kind is Op.EXIT:
                self.result(index, state.regs[0])
                return
            if row.kind in _ENDS:
                for following in self._successors(index, row):
                    self.enter(following, state)
                return
            if not self._step(index, row, insn, state):
                return
            index += 2 if row.kind is Op.LD_IMM64 else 1
            if index in self._leaders:
                self.enter(index, state)
                return

    def _step(self, index: int, row: Row, insn: Insn, state: State) -> bool:
        """One instruction; False where nobody comes back from what it calls."""
        regs = state.regs
        if row.kind is Op.LD_IMM64:
            regs[insn.dst_reg] = self._constant(index, insn)
        elif row.kind in (Op.MOV, Op.MOVSX):
            regs[insn.dst_reg] = _moved(row, insn, regs)
        elif row.kind in (Op.ALU, Op.NEG, Op.END, Op.BSWAP):
            regs[insn.dst_reg] = _computed(row, insn, regs)
        elif row.kind is Op.LOAD:
            regs[insn.dst_reg] = self._load(index, regs[insn.src_reg], insn.off, row.size // 8, state)
        elif row.kind in (Op.STORE, Op.STORE_IMM):
            value = regs[insn.src_reg] if row.x else const(insn.imm)
            self._store(index, regs[insn.dst_reg], insn.off, row.size // 8, _narrow(value, row.size), state)
        elif row.kind is Op.ATOMIC:
            self._atomic(index, row, insn, state)
        elif row.kind is Op.PSEUDO_CALL:
            return self._calls.function(index, index + 1 + insn.imm, state)
        elif row.kind is Op.CALL:
            self._calls.outside(index, insn, self.verified.aux[index], state)
        else:
            regs[0] = TOP
        return True

    def _constant(self, index: int, insn: Insn) -> Value:
        high = self.insns[index + 1].imm
        if insn.src_reg == 0:
            return const((insn.imm & 0xFFFFFFFF) | (high & 0xFFFFFFFF) << 32)
        if insn.src_reg in _MAPS:
            return Value(Kind.MAP, map=insn.imm)
        if insn.src_reg in _MAP_VALUES:
            return Value(Kind.VALUE, map=insn.imm, key=0, off=high & 0xFFFFFFFF)
        return FROM_KERNEL

    def _load(self, index: int, base: Value, off: int, size: int, state: State) -> Value:
        behind = self.verified.aux[index].access
        if base.kind is Kind.STACK:
            return state.load(None if base.off is None else base.off + off, size)
        if base.kind is Kind.CTX:
            return KERNEL_OBJECT if size == 8 and not self.classic else FROM_KERNEL
        if base.kind is Kind.TOP and behind in ("stack", "ctx"):
            return TOP
        if base.kind is Kind.TOP and behind in ("btf", "tp_buffer"):
            base = FROM_KERNEL
        self.access(index, base, off, size, What.READ)
        return FROM_KERNEL if base.kind is Kind.KERNEL else TOP

    def _store(self, index: int, base: Value, off: int, size: int, value: Value, state: State) -> None:
        behind = self.verified.aux[index].access
        if base.kind is Kind.STACK:
            state.store(None if base.off is None else base.off + off, size, value)
        elif base.kind is Kind.TOP and behind == "stack":
            state.store(None, None)
        else:
            if base.kind is Kind.TOP:
                state.store(None, None)
            self.access(index, FROM_KERNEL if behind in ("btf", "tp_buffer") else base, off, size, What.WRITE)

    def _atomic(self, index: int, row: Row, insn: Insn, state: State) -> None:
        regs, size = state.regs, row.size // 8
        if row.op == "load_acquire":
            regs[insn.dst_reg] = self._load(index, regs[insn.src_reg], insn.off, size, state)
            return
        base = regs[insn.dst_reg]
        name = row.op.removeprefix("fetch_")
        fetches = row.op.startswith("fetch_") and (index, insn.src_reg) in self._used
        if base.kind is Kind.STACK or (base.kind is Kind.TOP and self.verified.aux[index].access == "stack"):
            state.store(None if base.kind is Kind.TOP or base.off is None else base.off + insn.off, size)
        elif name in _ATOMIC and not fetches:
            self.access(index, base, insn.off, size, _ATOMIC[name], size)
        else:
            if row.op != "store_release":
                self.access(index, base, insn.off, size, What.READ)
            self.access(index, base, insn.off, size, What.WRITE)
        if base.kind is Kind.TOP:
            state.store(None, None)
        if row.op == "cmpxchg":
            regs[0] = TOP
        elif row.op.startswith("fetch_") or row.op == "xchg":
            regs[insn.src_reg] = TOP

    @cached_property
    def _used(self) -> set[tuple[int, int]]:
        """(instruction, register): fetched values that are looked at."""
        return read_later(self.insns, self.rows)


def _narrow(value: Value, bits: int) -> Value:
    """What a store of so many bits leaves of a value."""
    if value.kind is Kind.CONST:
        return const(value.number & ((1 << bits) - 1))
    return value if bits == 64 or (value == CPU and bits == 32) else TOP


def _moved(row: Row, insn: Insn, regs: Sequence[Value]) -> Value:
    if not row.x:
        return const(insn.imm if row.wide else insn.imm & 0xFFFFFFFF)
    value = regs[insn.src_reg]
    if row.kind is Op.MOVSX:
        return TOP
    return value if row.wide else _narrow(value, 32)


def _computed(row: Row, insn: Insn, regs: Sequence[Value]) -> Value:
    """The result of arithmetic: constants folded, pointers moved, all else unknown."""
    a = regs[insn.dst_reg]
    b = (regs[insn.src_reg] if row.x else const(insn.imm)) if row.kind is Op.ALU else TOP
    if a.kind is Kind.CONST and b.kind is Kind.CONST and row.op in _FOLD:
        mask = U64 if row.wide else 0xFFFFFFFF
        return const(_FOLD[row.op](a.number & mask, b.number & mask, 64 if row.wide else 32) & mask)
    if row.op not in ("add", "sub") or not row.wide:
        return TOP
    if row.op == "add" and (not a.is_pointer or (a.kind is Kind.KERNEL and b.is_pointer)):
        a, b = b, a
    if not a.is_pointer or (b.is_pointer and b.kind is not Kind.KERNEL):
        return TOP
    distance = signed(b.number) if b.kind is Kind.CONST else None
    return a.moved(distance if distance is None or row.op == "add" else -distance)


_FOLD: dict[str, Any] = {
    "add": lambda a, b, _bits: a + b,
    "sub": lambda a, b, _bits: a - b,
    "mul": lambda a, b, _bits: a * b,
    "and": lambda a, b, _bits: a & b,
    "or": lambda a, b, _bits: a | b,
    "xor": lambda a, b, _bits: a ^ b,
    "lsh": lambda a, b, bits: a << (b % bits),
    "rsh": lambda a, b, bits: a >> (b % bits),
}
