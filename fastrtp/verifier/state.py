"""State of the abstract machine: registers, stack slots, frames, and the state of a whole path.

Registers, stack slots and bounds are immutable and shared between states: a change makes a new object, a copy of a
state copies lists of references, and two states that share an object are equal there without looking.

Instead of walking instructions backwards to find where a value came from (mark_chain_precision), each register and
slot carries `deps`: a bit set naming the registers and slots *of the parent checkpoint* that its value depends on.
When a value must be exact, the bits name what must be exact in the parent; see precision.py.

Kernel: include/linux/bpf_verifier.h:struct bpf_reg_state, bpf_stack_state, bpf_func_state, bpf_verifier_state.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fastrtp.verifier.bounds import UNKNOWN, ZERO, Bounds, const_bounds
from fastrtp.verifier.regtype import NOT_INIT, PTR_TO_CTX, PTR_TO_STACK, SCALAR_VALUE

BPF_REG_SIZE = 8
MAX_BPF_REG = 11
BPF_REG_FP = 10
BPF_ADD_CONST = 1 << 31
"""Set in `id` of a scalar that is the value with the id plus the constant `off`."""

SLOTS_PER_FRAME = 64
BITS_PER_FRAME = MAX_BPF_REG + SLOTS_PER_FRAME
"""A frame's share of a dependency bit set: 11 registers, then 64 stack slots."""


class BpfRegState:
    """What is known about a register. Immutable.

    `num` depends on the type: mem_size of a PTR_TO_MEM, frame number of a PTR_TO_STACK, type id of a PTR_TO_BTF_ID,
    subprogram number of a PTR_TO_FUNC, map_uid of a pointer to a map or into one.
    """

    __slots__ = ("bounds", "id", "map", "num", "off", "ref_obj_id", "type")

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

    def with_bounds(self, bounds: Bounds) -> BpfRegState:
        """A copy with other bounds."""
        return BpfRegState(self.type, bounds, self.off, self.id, self.ref_obj_id, self.map, self.num)

    def with_id(self, id: int, off: int | None = None) -> BpfRegState:
        """A copy with another id (and offset from it)."""
        return BpfRegState(self.type, self.bounds, self.off if off is None else off, id, self.ref_obj_id, self.map, self.num)

    def with_type(self, type: int) -> BpfRegState:
        """A copy of another type."""
        return BpfRegState(type, self.bounds, self.off, self.id, self.ref_obj_id, self.map, self.num)

    def same(self, other: BpfRegState, ids: bool = True) -> bool:
        """Whether every member is equal (`ids`: identifiers too)."""
        return self is other or (
            self.type == other.type
            and self.off == other.off
            and self.num == other.num
            and self.map is other.map
            and self.bounds == other.bounds
            and (not ids or (self.id == other.id and self.ref_obj_id == other.ref_obj_id))
        )


REG_NOT_INIT = BpfRegState(NOT_INIT, UNKNOWN)
REG_UNKNOWN = BpfRegState(SCALAR_VALUE, UNKNOWN)
REG_ZERO = BpfRegState(SCALAR_VALUE, ZERO)
REG_CTX = BpfRegState(PTR_TO_CTX, ZERO)


def scalar(bounds: Bounds) -> BpfRegState:
    """A scalar with these bounds and no identity."""
    return REG_UNKNOWN if bounds is UNKNOWN else BpfRegState(SCALAR_VALUE, bounds)


@lru_cache(maxsize=1 << 14)
def const_scalar(value: int) -> BpfRegState:
    """The constant `value` (modulo 2**64)."""
    return BpfRegState(SCALAR_VALUE, const_bounds(value))


def register_is_null(reg: BpfRegState) -> bool:
    """The constant 0."""
    var_off = reg.bounds.var_off
    return reg.type == SCALAR_VALUE and not var_off.mask and not var_off.value


STACK_INVALID, STACK_SPILL, STACK_MISC, STACK_ZERO, STACK_DYNPTR, STACK_ITER = range(6)
SLOT_CHARS = "?rm0di"


class BpfStackState:
    """Eight bytes of stack. Immutable.

    `slot_type[i]` is the type of the byte at offset `-8 * spi - 1 - i` from the frame pointer: index 7 is the lowest
    address. `spilled_ptr` is the register that was stored, NOT_INIT where none is; then index 7 is STACK_SPILL.
    """

    __slots__ = ("slot_type", "spilled_ptr")

    def __init__(self, slot_type: bytes, spilled_ptr: BpfRegState = REG_NOT_INIT) -> None:
        self.slot_type = slot_type
        self.spilled_ptr = spilled_ptr


ALL_SPILL = bytes([STACK_SPILL]) * 8
ALL_MISC = bytes([STACK_MISC]) * 8
ALL_ZERO = bytes([STACK_ZERO]) * 8
ALL_INVALID = bytes(8)
SLOT_INVALID = BpfStackState(ALL_INVALID)
SLOT_MISC = BpfStackState(ALL_MISC)
SLOT_ZERO = BpfStackState(ALL_ZERO)


def is_spilled_reg(slot: BpfStackState) -> bool:
    """Whether a register was stored here."""
    return slot.slot_type[7] == STACK_SPILL


def is_spilled_scalar_reg(slot: BpfStackState) -> bool:
    """Whether a scalar register was stored here."""
    return slot.slot_type[7] == STACK_SPILL and slot.spilled_ptr.type == SCALAR_VALUE


_IDENTITY = [[1 << (frame * BITS_PER_FRAME + regno) for regno in range(MAX_BPF_REG)] for frame in range(8)]


class BpfFuncState:
    """One frame: registers, stack and how it was entered.

    `callsite` is the index of the call that made it (-1: the program's own frame). `stack` maps a slot number
    (0 is fp-8) to what it holds; absent slots were never written. `stack_deps` lists only slots whose dependencies
    are not themselves. `activation` numbers the frame's current run of a helper that calls back.
    """

    __slots__ = (
        "activation",
        "callback_depth",
        "callback_ret_range",
        "callsite",
        "deps",
        "frameno",
        "in_async_callback_fn",
        "in_callback_fn",
        "regs",
        "stack",
        "stack_deps",
        "subprogno",
    )

    def __init__(self, callsite: int, frameno: int, subprogno: int) -> None:
        self.callsite = callsite
        self.frameno = frameno
        self.subprogno = subprogno
        self.regs: list[BpfRegState] = [REG_NOT_INIT] * MAX_BPF_REG
        self.regs[BPF_REG_FP] = BpfRegState(PTR_TO_STACK, ZERO, num=frameno)
        self.deps: list[int] = [0] * MAX_BPF_REG
        self.stack: dict[int, BpfStackState] = {}
        self.stack_deps: dict[int, int] = {}
        self.in_callback_fn = False
        self.in_async_callback_fn = False
        self.callback_ret_range: tuple[int, int] | None = None
        self.callback_depth = 0
        self.activation = 0

    def copy(self) -> BpfFuncState:
        """An independent copy."""
        new = object.__new__(BpfFuncState)
        new.callsite = self.callsite
        new.frameno = self.frameno
        new.subprogno = self.subprogno
        new.regs = self.regs[:]
        new.deps = self.deps[:]
        new.stack = self.stack.copy()
        new.stack_deps = self.stack_deps.copy()
        new.in_callback_fn = self.in_callback_fn
        new.in_async_callback_fn = self.in_async_callback_fn
        new.callback_ret_range = self.callback_ret_range
        new.callback_depth = self.callback_depth
        new.activation = self.activation
        return new

    def reset_deps(self) -> None:
        """After a checkpoint: everything depends on itself in the checkpoint."""
        self.deps = _IDENTITY[self.frameno][:]
        self.stack_deps = {}

    def slot_deps(self, spi: int) -> int:
        """Dependencies of a stack slot."""
        own = self.stack_deps.get(spi)
        return 1 << (self.frameno * BITS_PER_FRAME + MAX_BPF_REG + spi) if own is None else own


@dataclass(frozen=True, slots=True)
class BpfReferenceState:
    """A resource that the program has to release: where it was acquired."""

    id: int
    insn_idx: int
    kind: str = "ptr"
    """`ptr` (ringbuf record, kernel object), `iter`, or a section: `lock`, `rcu`, `preempt`"""
    ptr: Any = None
    """The map that a lock is in"""


class BpfVerifierState:
    """A path's state, and, once it is a checkpoint, its place in the tree of paths.

    `branches` counts the paths below it that are not yet done; `precise` names registers and slots (bits as in `deps`)
    that must match exactly for another state to be pruned here; `backedges` are paths that were pruned here while
    `precise` could still grow.
    """

    __slots__ = (
        "backedges",
        "branches",
        "callback_unroll_depth",
        "first_insn_idx",
        "frames",
        "insn_idx",
        "may_goto_depth",
        "parent",
        "precise",
        "refs",
        "seq",
    )

    def __init__(self, frames: list[BpfFuncState]) -> None:
        self.frames = frames
        self.refs: tuple[BpfReferenceState, ...] = ()
        self.insn_idx = 0
        self.first_insn_idx = 0
        self.branches = 0
        self.parent: BpfVerifierState | None = None
        self.precise = 0
        self.backedges: list[BpfVerifierState] = []
        self.may_goto_depth = 0
        self.callback_unroll_depth = 0
        self.seq = 0

    def copy(self) -> BpfVerifierState:
        """An independent state at the same point, child of the same checkpoint."""
        new = object.__new__(BpfVerifierState)
        new.frames = [frame.copy() for frame in self.frames]
        new.refs = self.refs
        new.insn_idx = self.insn_idx
        new.first_insn_idx = self.first_insn_idx
        new.branches = 0
        new.parent = self.parent
        new.precise = 0
        new.backedges = []
        new.may_goto_depth = self.may_goto_depth
        new.callback_unroll_depth = self.callback_unroll_depth
        new.seq = self.seq
        return new
