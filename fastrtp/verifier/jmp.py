"""Conditional jumps on a path: decide, or split the path and refine both halves.

Kernel: kernel/bpf/verifier.c:check_cond_jmp_op, is_branch_taken, sync_linked_regs, mark_ptr_or_null_regs.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.isa import BPF_CLASS, BPF_JCOND, BPF_JEQ, BPF_JMP, BPF_JMP32, BPF_JNE, BPF_MAY_GOTO, BPF_OP, BPF_X, Insn
from fastrtp.uapi import BpfMapType
from fastrtp.verifier.alu import add_bounds
from fastrtp.verifier.bounds import const_bounds
from fastrtp.verifier.branch import is_branch_taken, regs_refine_cond
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import has_field
from fastrtp.verifier.mem import check_reg_read
from fastrtp.verifier.precision import mark_reg_precise
from fastrtp.verifier.regtype import (
    CONST_PTR_TO_MAP,
    MEM_ALLOC,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_SOCKET,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
    SCALAR_VALUE,
    base_type,
)
from fastrtp.verifier.state import (
    BPF_ADD_CONST,
    REG_UNKNOWN,
    REG_ZERO,
    BpfFuncState,
    BpfRegState,
    BpfStackState,
    BpfVerifierState,
    const_scalar,
)
from fastrtp.verifier.widen import find_prev_entry, widen_imprecise_scalars

_SOCKET_MAPS = frozenset({BpfMapType.BPF_MAP_TYPE_SOCKMAP, BpfMapType.BPF_MAP_TYPE_SOCKHASH, BpfMapType.BPF_MAP_TYPE_XSKMAP})
_NOT_NULL = frozenset({PTR_TO_MAP_VALUE, PTR_TO_MAP_KEY, PTR_TO_MEM, CONST_PTR_TO_MAP})


def _reg_not_null(reg: BpfRegState) -> bool:
    if reg.type & PTR_MAYBE_NULL:
        return False
    base = base_type(reg.type)
    return (base in _NOT_NULL and not reg.type & PTR_UNTRUSTED) or (
        base == PTR_TO_BTF_ID and bool(reg.type & (PTR_TRUSTED | MEM_ALLOC) or reg.ref_obj_id)
    )


def _predict(dst: BpfRegState, src: BpfRegState, op: int, is_jmp32: bool) -> int:
    """1 taken, 0 not taken, -1 unknown."""
    if dst.type == SCALAR_VALUE and src.type == SCALAR_VALUE:
        return is_branch_taken(dst.bounds, src.bounds, op, is_jmp32)
    if is_jmp32 or op not in (BPF_JEQ, BPF_JNE):
        return -1
    pointer, number = (dst, src) if src.type == SCALAR_VALUE else (src, dst)
    if number.type != SCALAR_VALUE or number.bounds.var_off.mask or number.bounds.var_off.value or not _reg_not_null(pointer):
        return -1
    return int(op == BPF_JNE)


def check_cond_jmp_op(env: BpfVerifierEnv, insn: Insn) -> int:
    """Index of the instruction to go on with; the other way, where there is one, is pushed."""
    op = BPF_OP(insn.code)
    idx = env.insn_idx
    if op > BPF_JCOND:
        env.reject(EINVAL, f"invalid BPF_JMP/JMP32 opcode {op:x}")
    if op == BPF_JCOND:
        return _check_may_goto(env, insn)
    dst = check_reg_read(env, insn.dst_reg)
    reg_source = bool(insn.code & BPF_X)
    if reg_source:
        if insn.imm:
            env.reject(EINVAL, "BPF_JMP/JMP32 uses reserved fields")
        src = check_reg_read(env, insn.src_reg)
    else:
        if insn.src_reg:
            env.reject(EINVAL, "BPF_JMP/JMP32 uses reserved fields")
        src = const_scalar(insn.imm)
    is_jmp32 = BPF_CLASS(insn.code) == BPF_JMP32
    taken = _predict(dst, src, op, is_jmp32)
    if taken >= 0:
        if dst.type == SCALAR_VALUE:
            mark_reg_precise(env, insn.dst_reg)
        if reg_source and src.type == SCALAR_VALUE:
            mark_reg_precise(env, insn.src_reg)
        return idx + 1 + (insn.off if taken else 0)
    this = env.cur_state
    if dst.type == SCALAR_VALUE and src.type == SCALAR_VALUE:
        _join_deps(env, insn, reg_source)
    other = env.push_stack(idx + 1 + insn.off)
    if dst.type == SCALAR_VALUE and src.type == SCALAR_VALUE:
        for state, way in ((this, False), (other, True)):
            first, second = regs_refine_cond(dst.bounds, src.bounds, op, way, is_jmp32)
            _refine(state, insn.dst_reg, dst, first)
            if reg_source:
                _refine(state, insn.src_reg, src, second)
        return idx + 1
    if is_jmp32 or op not in (BPF_JEQ, BPF_JNE):
        return idx + 1
    if not reg_source and insn.imm == 0 and dst.type & PTR_MAYBE_NULL:
        mark_ptr_or_null_regs(env, this, insn.dst_reg, op == BPF_JNE)
        mark_ptr_or_null_regs(env, other, insn.dst_reg, op == BPF_JEQ)
    elif reg_source and dst.type != SCALAR_VALUE and src.type != SCALAR_VALUE:
        maybe, sure, regno = (src, dst, insn.src_reg) if src.type & PTR_MAYBE_NULL else (dst, src, insn.dst_reg)
        if (
            maybe.type & PTR_MAYBE_NULL
            and _reg_not_null(sure)
            and PTR_TO_BTF_ID not in (base_type(src.type), base_type(dst.type))
        ):
            equal = other if op == BPF_JEQ else this
            equal.frames[-1].regs[regno] = _not_null(env, maybe)
    return idx + 1


def _check_may_goto(env: BpfVerifierEnv, insn: Insn) -> int:
    """A counted loop exit: both ways are possible, the jump bounded by the counter at run time."""
    if BPF_CLASS(insn.code) != BPF_JMP or insn.src_reg != BPF_MAY_GOTO or insn.dst_reg or insn.imm:
        env.reject(EINVAL, f"invalid may_goto imm {insn.imm}")
    idx = env.insn_idx
    queued = env.push_stack(idx + 1)
    queued.may_goto_depth += 1
    own = env.cur_state.parent
    previous = None if own is None else find_prev_entry(env, own, idx)
    if previous is not None:
        widen_imprecise_scalars(previous, queued)
    return idx + 1 + insn.off


def _linked(frame: BpfFuncState, base: int) -> list[tuple[bool, int]]:
    """Registers and slots of a frame whose scalar has the id `base`: (is a slot, number)."""
    found = [
        (False, regno)
        for regno, reg in enumerate(frame.regs)
        if reg.id and reg.type == SCALAR_VALUE and reg.id & ~BPF_ADD_CONST == base
    ]
    found += [
        (True, spi)
        for spi, slot in frame.stack.items()
        if slot.spilled_ptr.id and slot.spilled_ptr.type == SCALAR_VALUE and slot.spilled_ptr.id & ~BPF_ADD_CONST == base
    ]
    return found


def _join_deps(env: BpfVerifierEnv, insn: Insn, reg_source: bool) -> None:
    """After the jump the ranges of both operands, and of all that is linked to them, depend on each other."""
    deps = env.frame.deps
    both = deps[insn.dst_reg] | (deps[insn.src_reg] if reg_source else 0)
    groups = {
        reg.id & ~BPF_ADD_CONST for reg in (env.regs[insn.dst_reg], *((env.regs[insn.src_reg],) if reg_source else ())) if reg.id
    }
    if groups:
        members = [
            (frame, slot, number) for frame in env.cur_state.frames for base in groups for slot, number in _linked(frame, base)
        ]
        for frame, slot, number in members:
            both |= frame.slot_deps(number) if slot else frame.deps[number]
        for frame, slot, number in members:
            if slot:
                frame.stack_deps[number] = both
            else:
                frame.deps[number] = both
    if reg_source:
        deps[insn.dst_reg] = deps[insn.src_reg] = both


def _refine(state: BpfVerifierState, regno: int, reg: BpfRegState, bounds: object) -> None:
    """Give a register refined bounds and carry them over to everything linked to it."""
    if bounds is reg.bounds:
        return
    known = reg.with_bounds(bounds)  # type: ignore[arg-type]
    regs = state.frames[-1].regs
    regs[regno] = known
    if known.id:
        sync_linked_regs(state, known, regno)


def sync_linked_regs(state: BpfVerifierState, known: BpfRegState, regno: int) -> None:
    """Everything that is `known` plus a constant gets its bounds plus that constant."""
    base = known.id & ~BPF_ADD_CONST
    known_off = known.off if known.id & BPF_ADD_CONST else 0
    last = len(state.frames) - 1
    for number, frame in enumerate(state.frames):
        for is_slot, where in _linked(frame, base):
            if not is_slot and number == last and where == regno:
                continue
            reg = frame.stack[where].spilled_ptr if is_slot else frame.regs[where]
            delta = (reg.off if reg.id & BPF_ADD_CONST else 0) - known_off
            bounds = add_bounds(known.bounds, const_bounds(delta)) if delta else known.bounds
            new = reg.with_bounds(bounds)
            if is_slot:
                frame.stack[where] = BpfStackState(frame.stack[where].slot_type, new)
            else:
                frame.regs[where] = new


def _not_null(env: BpfVerifierEnv, reg: BpfRegState) -> BpfRegState:
    """Kernel: mark_ptr_not_null_reg."""
    if base_type(reg.type) == PTR_TO_MAP_VALUE and reg.map.map_type in (
        BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS,
    ):
        inner = getattr(reg.map, "inner_map", None)
        return BpfRegState(CONST_PTR_TO_MAP, reg.bounds, map=inner) if hasattr(inner, "key_size") else REG_UNKNOWN
    if base_type(reg.type) == PTR_TO_MAP_VALUE and reg.map.map_type in _SOCKET_MAPS:
        return BpfRegState(PTR_TO_SOCKET, reg.bounds)
    # the id tells the locks of two values of one map apart
    ident = reg.id if base_type(reg.type) == PTR_TO_MAP_VALUE and has_field(env, reg.map, "bpf_spin_lock") else 0
    return BpfRegState(reg.type & ~PTR_MAYBE_NULL, reg.bounds, reg.off, ident, reg.ref_obj_id, reg.map, reg.num)


def mark_ptr_or_null_regs(env: BpfVerifierEnv, state: BpfVerifierState, regno: int, is_null: bool) -> None:
    """Every copy of a pointer that was compared with NULL is the constant 0, or a valid pointer."""
    tested = state.frames[-1].regs[regno]
    ident, ref_obj_id = tested.id, tested.ref_obj_id
    if is_null and ref_obj_id and ref_obj_id == ident:
        # nothing was acquired
        state.refs = tuple(ref for ref in state.refs if ref.id != ref_obj_id)
    for frame in state.frames:
        for number, reg in enumerate(frame.regs):
            if reg.type & PTR_MAYBE_NULL and reg.id == ident:
                frame.regs[number] = REG_ZERO if is_null else _not_null(env, reg)
                frame.deps[number] = 0
        for spi, slot in frame.stack.items():
            reg = slot.spilled_ptr
            if reg.type & PTR_MAYBE_NULL and reg.id == ident:
                frame.stack[spi] = BpfStackState(slot.slot_type, REG_ZERO if is_null else _not_null(env, reg))
