"""State of the abstract machine as Python sees it: immutable registers and slots, and views of the core's frames and states.

A `BpfRegState` read from a view is a copy; storing one writes it. Every register and slot has `deps`, a number that
stands for a set of registers and slots *of the parent checkpoint* that its value depends on (0: none); such a number may
be copied along with the value.

Kernel: include/linux/bpf_verifier.h:struct bpf_reg_state, bpf_stack_state, bpf_func_state, bpf_verifier_state.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, overload

from fastrtp.native.record import Record
from fastrtp.verifier.domain.bounds import UNKNOWN, ZERO, Bounds, const_bounds
from fastrtp.verifier.domain.records import (
    BITS_PER_FRAME,
    FRAME_HEAD,
    FULL_FRAME,
    MASK_WORDS,
    MAX_BPF_REG,
    REG_SIZE,
    SLOT_SIZE,
    VFrame,
    VRef,
    VRefs,
    VReg,
    VSlot,
    VState,
)
from fastrtp.verifier.domain.regtype import NOT_INIT, PTR_TO_CTX, SCALAR_VALUE
from fastrtp.verifier.domain.stacktype import (
    SLOT_CHARS,
    STACK_DYNPTR,
    STACK_INVALID,
    STACK_ITER,
    STACK_MISC,
    STACK_SPILL,
    STACK_ZERO,
)
from fastrtp.verifier.domain.tnum import Tnum

BPF_REG_SIZE = 8
BPF_REG_FP = 10
BPF_ADD_CONST = 3 << 30
"""Bits set in `id` of a scalar that is the value with the id plus the constant `off` (the lower one: in 32 bits)."""


class BpfRegState:
    """What is known about a register. Immutable.

    `num` depends on the type: mem_size of a PTR_TO_MEM, frame number of a PTR_TO_STACK, type id of a PTR_TO_BTF_ID,
    subprogram number of a PTR_TO_FUNC, map_uid of a pointer to a map or into one.
    """

    __slots__ = ("bounds", "id", "map", "num", "off", "raw", "ref_obj_id", "type")

    def __init__(
        self, type: int, bounds: Bounds, off: int = 0, id: int = 0, ref_obj_id: int = 0, map: Any = None, num: int = 0
    ) -> None:
        self.type = type
        self.bounds = bounds
        self.off = off
        self.id = id
        self.ref_obj_id = ref_obj_id
        self.map = map
        self.num = num
        self.raw: bytes | None = None

    def with_type(self, type: int) -> BpfRegState:
        """A copy of another type."""
        return BpfRegState(type, self.bounds, self.off, self.id, self.ref_obj_id, self.map, self.num)


REG_NOT_INIT = BpfRegState(NOT_INIT, UNKNOWN)
REG_UNKNOWN = BpfRegState(SCALAR_VALUE, UNKNOWN)
REG_CTX = BpfRegState(PTR_TO_CTX, ZERO)


def scalar(bounds: Bounds) -> BpfRegState:
    """A scalar with these bounds and no identity."""
    return REG_UNKNOWN if bounds is UNKNOWN else BpfRegState(SCALAR_VALUE, bounds)


@lru_cache(maxsize=1 << 12)
def const_scalar(value: int) -> BpfRegState:
    """The constant `value` (modulo 2**64)."""
    return BpfRegState(SCALAR_VALUE, const_bounds(value))


def register_is_null(reg: BpfRegState) -> bool:
    """The constant 0."""
    var_off = reg.bounds.var_off
    return reg.type == SCALAR_VALUE and not var_off.mask and not var_off.value


class BpfStackState:
    """Eight bytes of stack. Immutable.

    `slot_type[i]` is the type of the byte at offset `-8 * spi - 1 - i` from the frame pointer: index 7 is the lowest
    address. `spilled_ptr` is the register that was stored, NOT_INIT where none is; then index 7 is STACK_SPILL.
    """

    __slots__ = ("slot_type", "spilled_ptr")

    def __init__(self, slot_type: bytes, spilled_ptr: BpfRegState = REG_NOT_INIT) -> None:
        self.slot_type = slot_type
        self.spilled_ptr = spilled_ptr


ALL_MISC = bytes([STACK_MISC]) * 8
ALL_INVALID = bytes(8)
SLOT_INVALID = BpfStackState(ALL_INVALID)
SLOT_MISC = BpfStackState(ALL_MISC)


def is_spilled_reg(slot: BpfStackState) -> bool:
    """Whether a register was stored here."""
    return slot.slot_type[7] == STACK_SPILL


@dataclass(frozen=True, slots=True)
class BpfReferenceState:
    """A resource that the program has to release: where it was acquired."""

    id: int
    insn_idx: int
    kind: str = "ptr"
    """`ptr` (ringbuf record, kernel object), `iter`, or a section: `lock`, `rcu`, `preempt`"""
    ptr: Any = None
    """The map that a lock is in"""


_REG = VReg.layout.packer("type")
_REG_AT = VSlot.layout.at("reg")
_CONTENT = VReg.layout.at("type")
"""Where a register's content begins, behind its dependencies."""
_MAX_KNOWN = 1 << 14


_NO_DEPS = bytes(_CONTENT)
_CLEARED = (_NO_DEPS + _REG.pack(NOT_INIT, 0, 0, 0, 0, 0, *UNKNOWN.members())) * 6
"""R0 to R5, never written."""


class Space:
    """Python's side of one run's native memory: the objects that registers name, and registers by their bytes."""

    def __init__(self) -> None:
        self.objects: list[Any] = [None]
        self._numbers: dict[object, int] = {}
        self._regs: dict[bytes, BpfRegState] = {}
        self._slots: dict[bytes, BpfStackState] = {}
        self.kinds = ["ptr", "iter"]
        self._refs: dict[int, tuple[BpfReferenceState, ...]] = {}

    def number(self, thing: Any) -> int:
        """Number of an object, the same each time."""
        if thing is None:
            return 0
        key = ("int", thing) if isinstance(thing, int) else id(thing)
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self.objects)
            self.objects.append(thing)
            self.added(found, thing)
        return found

    def added(self, number: int, thing: Any) -> None:
        """An object is named for the first time."""

    def reg(self, raw: bytes) -> BpfRegState:
        """The register of 92 bytes."""
        found = self._regs.get(raw)
        if found is None:
            kind, off, ident, ref, number, num, value, mask, *ranges = _REG.unpack(raw)
            found = BpfRegState(kind, Bounds(Tnum(value, mask), *ranges), off, ident, ref, self.objects[number], num)
            found.raw = raw
            if len(self._regs) >= _MAX_KNOWN:
                self._regs.clear()
            self._regs[raw] = found
        return found

    def raw(self, reg: BpfRegState) -> bytes:
        """The 92 bytes of a register."""
        if reg.raw is not None and reg.map is None:
            return reg.raw
        b = reg.bounds
        raw = _REG.pack(reg.type, reg.off, reg.id, reg.ref_obj_id, self.number(reg.map), reg.num, *b.members())
        if reg.map is None:
            reg.raw = raw
        return raw

    def slot(self, raw: bytes) -> BpfStackState:
        """The slot of its types and its register's bytes."""
        found = self._slots.get(raw)
        if found is None:
            found = BpfStackState(raw[:8], self.reg(raw[8 + _CONTENT :]))
            if len(self._slots) >= _MAX_KNOWN:
                self._slots.clear()
            self._slots[raw] = found
        return found

    def kind(self, name: str) -> int:
        """Number of a kind of reference."""
        if name not in self.kinds:
            self.kinds.append(name)
        return self.kinds.index(name)


def memory(address: int, size: int) -> memoryview:
    """Native memory as bytes."""
    return memoryview((ctypes.c_char * size).from_address(address)).cast("B")


class _Regs:
    """Eleven registers of a frame, as a list."""

    __slots__ = ("_at", "_bytes", "_space")

    def __init__(self, space: Space, data: memoryview, start: int) -> None:
        self._space, self._bytes, self._at = space, data, start

    @overload
    def __getitem__(self, regno: int) -> BpfRegState: ...
    @overload
    def __getitem__(self, regno: slice) -> list[BpfRegState]: ...
    def __getitem__(self, regno: int | slice) -> BpfRegState | list[BpfRegState]:
        if isinstance(regno, slice):
            return [self[i] for i in range(*regno.indices(MAX_BPF_REG))]
        if not 0 <= regno < MAX_BPF_REG:
            raise IndexError(regno)
        start = self._at + regno * REG_SIZE
        return self._space.reg(bytes(self._bytes[start + _CONTENT : start + REG_SIZE]))

    @overload
    def __setitem__(self, regno: int, reg: BpfRegState) -> None: ...
    @overload
    def __setitem__(self, regno: slice, reg: list[BpfRegState]) -> None: ...
    def __setitem__(self, regno: int | slice, reg: BpfRegState | list[BpfRegState]) -> None:
        if isinstance(reg, BpfRegState):
            assert isinstance(regno, int)
            start = self._at + regno * REG_SIZE
            self._bytes[start + _CONTENT : start + REG_SIZE] = self._space.raw(reg)
            return
        assert isinstance(regno, slice)
        for i, one in zip(range(*regno.indices(MAX_BPF_REG)), reg, strict=True):
            self[i] = one

    def __iter__(self) -> Iterator[BpfRegState]:
        return iter([self[i] for i in range(MAX_BPF_REG)])

    def __len__(self) -> int:
        return MAX_BPF_REG


class _Deps:
    """Dependency sets of items of a fixed size."""

    __slots__ = ("_at", "_count", "_size", "_words")

    def __init__(self, words: memoryview, start: int, size: int, count: int) -> None:
        self._words, self._at, self._size, self._count = words, start // 4, size // 4, count

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._count))]
        return int(self._words[self._at + index * self._size])

    @overload
    def __setitem__(self, index: int, deps: int) -> None: ...
    @overload
    def __setitem__(self, index: slice, deps: list[int]) -> None: ...
    def __setitem__(self, index: int | slice, deps: int | list[int]) -> None:
        if isinstance(deps, int):
            assert isinstance(index, int)
            self._words[self._at + index * self._size] = deps
            return
        assert isinstance(index, slice)
        for i, one in zip(range(*index.indices(self._count)), deps, strict=True):
            self[i] = one


class _Stack:
    """Slots of a frame, as a mapping from slot number (0 is fp-8); what was never written holds nothing."""

    __slots__ = ("_bytes", "_frame", "_space")

    def __init__(self, frame: BpfFuncState) -> None:
        self._frame, self._space, self._bytes = frame, frame.space, frame.data

    def __getitem__(self, spi: int) -> BpfStackState:
        if not 0 <= spi < self._frame.nslots:
            return SLOT_INVALID
        start = self._frame.at + FRAME_HEAD + spi * SLOT_SIZE
        raw = bytes(self._bytes[start : start + SLOT_SIZE])
        # dependencies are no part of what a slot holds
        return self._space.slot(raw[:8] + b"\0\0\0\0" + raw[8 + _CONTENT :])

    def get(self, spi: int, default: BpfStackState = SLOT_INVALID) -> BpfStackState:
        """A slot, or `default` where nothing was ever written."""
        return self[spi] if 0 <= spi < self._frame.nslots else default

    def __setitem__(self, spi: int, slot: BpfStackState) -> None:
        if spi >= self._frame.nslots:
            self._frame.room(spi)
        start = self._frame.at + FRAME_HEAD + spi * SLOT_SIZE
        self._bytes[start : start + 8] = slot.slot_type
        self._bytes[start + 8 + _CONTENT : start + SLOT_SIZE] = self._space.raw(slot.spilled_ptr)

    def items(self) -> list[tuple[int, BpfStackState]]:
        """Slots with something in them."""
        frame, data = self._frame, self._bytes
        start = frame.at + FRAME_HEAD
        return [
            (spi, self[spi])
            for spi in range(frame.nslots)
            if data[start + spi * SLOT_SIZE : start + spi * SLOT_SIZE + 8] != ALL_INVALID
        ]

    def values(self) -> list[BpfStackState]:
        """The same, without their numbers."""
        return [slot for _, slot in self.items()]

    def __iter__(self) -> Iterator[int]:
        return iter([spi for spi, _ in self.items()])

    def __contains__(self, spi: object) -> bool:
        return isinstance(spi, int) and 0 <= spi < self._frame.nslots


class _Number:
    """A 64-bit number in a record, as an attribute."""

    def __init__(self, record: type[Record], field: str) -> None:
        self.index = record.layout.at(field) // 8

    def __get__(self, record: Any, _owner: object = None) -> int:
        return int(record.numbers[record.first + self.index])

    def __set__(self, record: Any, value: int) -> None:
        record.numbers[record.first + self.index] = value


class BpfFuncState:
    """One frame: registers, stack and how it was entered.

    `callsite` is the index of the call that made it (-1: the program's own frame). `activation` numbers the frame's
    current run of a helper that calls back.
    """

    def __init__(self, space: Space, data: memoryview, start: int, address: int, room: Any) -> None:
        self.space, self.data, self.at, self.address = space, data, start, address
        self.numbers = data.cast("q")
        self.first = start // 8
        self._room = room
        self._words = data.cast("I")
        self.regs = _Regs(space, data, start + VFrame.layout.at("regs"))
        self.deps = _Deps(self._words, start + VFrame.layout.at("regs"), REG_SIZE, MAX_BPF_REG)
        self.stack = _Stack(self)
        self.stack_deps = _Deps(self._words, start + FRAME_HEAD + _REG_AT, SLOT_SIZE, 64)

    callsite = _Number(VFrame, "callsite")
    frameno = _Number(VFrame, "frameno")
    subprogno = _Number(VFrame, "subprogno")
    in_callback_fn = _Number(VFrame, "in_callback_fn")
    in_async_callback_fn = _Number(VFrame, "in_async_callback_fn")
    callback_depth = _Number(VFrame, "callback_depth")
    activation = _Number(VFrame, "activation")
    nslots = _Number(VFrame, "nslots")
    _has_range = _Number(VFrame, "has_ret_range")
    _low = _Number(VFrame, "ret_low")
    _high = _Number(VFrame, "ret_high")

    @property
    def callback_ret_range(self) -> tuple[int, int] | None:
        """What a callback may return."""
        return (self._low, self._high) if self._has_range else None

    @callback_ret_range.setter
    def callback_ret_range(self, value: tuple[int, int] | None) -> None:
        self._has_range = int(value is not None)
        self._low, self._high = value or (0, 0)

    def room(self, spi: int) -> None:
        """Make the slots up to `spi` exist."""
        self._room(self.address, spi)

    def slot_deps(self, spi: int) -> int:
        """Dependencies of a stack slot."""
        return self.stack_deps[spi] if spi < self.nslots else 0

    def clear_caller_saved_regs(self) -> None:
        """R0 to R5 are gone after a call."""
        start = self.at + VFrame.layout.at("regs")
        self.data[start : start + len(_CLEARED)] = _CLEARED

    def copy(self) -> FrameImage:
        """What it holds now."""
        return FrameImage(self.frameno, list(self.regs), dict(self.stack.items()))


@dataclass(frozen=True)
class FrameImage:
    """A frame as it was."""

    frameno: int
    regs: list[BpfRegState]
    stack: dict[int, BpfStackState]


class BpfVerifierState:
    """A path's state, or a checkpoint: a view of native memory that is valid while the state is.

    `precise` names registers and slots that must match exactly for another state to be pruned here.
    """

    def __init__(self, space: Space, address: int, run: Any) -> None:
        self.space, self.address, self.run = space, address, run
        self.numbers = memory(address, VState.layout.size).cast("q")
        self.first = 0

    nframes = _Number(VState, "nframes")
    _refs = _Number(VState, "refs")
    insn_idx = _Number(VState, "insn_idx")
    branches = _Number(VState, "branches")
    parent_address = _Number(VState, "parent")
    may_goto_depth = _Number(VState, "may_goto_depth")
    callback_unroll_depth = _Number(VState, "callback_unroll_depth")

    def frame(self, number: int) -> BpfFuncState:
        """A frame, 0 the program's own."""
        address = self.numbers[VState.layout.at("frame_at") // 8 + number]
        return BpfFuncState(self.space, memory(address, FULL_FRAME), 0, address, self.run.room)

    @property
    def frames(self) -> list[BpfFuncState]:
        """All frames, the running one last."""
        return [self.frame(number) for number in range(self.nframes)]

    def push_frame(self, callsite: int, subprogno: int) -> BpfFuncState | None:
        """A new frame on top, or None where eight are in use."""
        return self.frame(self.nframes - 1) if self.run.push_frame(self.address, callsite, subprogno) else None

    def pop_frame(self) -> None:
        """Leave the frame that runs."""
        self.nframes -= 1

    @property
    def parent(self) -> BpfVerifierState | None:
        """The checkpoint that it goes on from."""
        address = self.parent_address
        return BpfVerifierState(self.space, address, self.run) if address else None

    @property
    def precise(self) -> int:
        """Bits of registers and slots, BITS_PER_FRAME a frame."""
        first = VState.layout.at("precise") // 8
        return sum((self.numbers[first + word] & (1 << 64) - 1) << (64 * word) for word in range(MASK_WORDS))

    @property
    def refs(self) -> tuple[BpfReferenceState, ...]:
        """What is held, oldest first."""
        address = self._refs
        return self.run.refs_at(address) if address else ()

    @refs.setter
    def refs(self, refs: tuple[BpfReferenceState, ...]) -> None:
        self._refs = self.run.new_refs(refs) if refs else 0


REFS_HEAD, REF_SIZE = VRefs.layout.size, VRef.layout.size
REF = VRef.layout.packer("id")
"""id, kind, ptr, insn_idx"""

__all__ = [
    "BITS_PER_FRAME", "MAX_BPF_REG", "SLOT_CHARS", "STACK_DYNPTR", "STACK_INVALID", "STACK_ITER", "STACK_MISC", "STACK_SPILL",
    "STACK_ZERO",
]  # fmt: skip
