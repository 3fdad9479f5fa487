"""Conditional jumps on a path: decide, or split the path and refine both halves.

Kernel: kernel/bpf/verifier.c:check_cond_jmp_op, is_branch_taken, sync_linked_regs, mark_ptr_or_null_regs, push_stack.
"""

from __future__ import annotations

from fastrtp.isa import BPF_ADD, BPF_JCOND, BPF_JEQ, BPF_JMP, BPF_JMP32, BPF_JNE, BPF_MAY_GOTO, BPF_REG_FP, BPF_X
from fastrtp.native.intrinsics import device, native, stack_bytes
from fastrtp.verifier.core.alu_insn_native import (
    JMP_FIELDS,
    insn_dst,
    insn_src,
)
from fastrtp.verifier.core.mem_native import check_reg_read, current_reg, object_of
from fastrtp.verifier.core.precision_native import find_prev_entry, mark_reg_precise, widen_imprecise_scalars
from fastrtp.verifier.core.reason import OK, R_BAD_OPCODE, R_LOOP_TOO_COMPLEX, R_MAY_GOTO, R_NO_MEMORY, R_RESERVED, R_TOO_COMPLEX
from fastrtp.verifier.core.stack_native import BPF_ADD_CONST, BPF_ADD_CONST32, register_is_null, say
from fastrtp.verifier.core.state_native import (
    copy_reg,
    deps_union,
    forget_ref,
    frame_of,
    mark_const,
    mark_unknown,
    push_jmp_history,
    reg_of,
    slot_of,
    state_save,
    top_frame,
)
from fastrtp.verifier.domain.alu_native import adjust_scalar64
from fastrtp.verifier.domain.bounds_native import bounds_const, bounds_copy, zext_32_to_64
from fastrtp.verifier.domain.branch_native import is_branch_taken, regs_refine_cond
from fastrtp.verifier.domain.records import (
    MAX_BPF_REG,
    OBJECT_INNER,
    OBJECT_LOCK,
    OBJECT_MAPS,
    OBJECT_SOCKETS,
    OBJECT_UID,
    VEnv,
    VInsn,
    VReg,
    VState,
)
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_MAP,
    MEM_ALLOC,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_SOCKET,
    PTR_TO_STACK,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
    SCALAR_VALUE,
)

LINKED_REGS_MAX = 6

INSN_SIZE = VInsn.layout.size


@device
def push_stack(env: VEnv, insn_idx: int, roomy: int) -> VState:
    """A copy of the state under way, to be continued at `insn_idx` later; 0 where it cannot be kept. Kernel: push_stack."""
    count = env.head_cnt
    if count >= env.head_max:
        return VState(0)
    state = state_save(env, env.cur, roomy)
    if not state:
        return VState(0)
    parent = state.parent
    if parent:
        parent.branches += 1
    entry = env.head[count]
    entry.state = state
    entry.insn_idx = insn_idx
    entry.prev_insn_idx = env.insn_idx
    entry.log_pos = env.log_pos
    env.head_cnt = count + 1
    return state


@device
def cannot_push(env: VEnv, reason: int) -> int:
    """Why `push_stack` gave nothing; `reason` where too many paths wait: R_TOO_COMPLEX, or R_LOOP_TOO_COMPLEX."""
    count = env.head_cnt
    return say(env, reason if count >= env.head_max else R_NO_MEMORY, count + 1, 0, 0, 0)


@device
def reg_not_null(reg: VReg) -> int:
    """A pointer that cannot be NULL."""
    type = reg.type
    base = type & 0xFF
    if type & PTR_MAYBE_NULL:
        return 0
    if base == PTR_TO_BTF_ID:
        return 1 if type & (PTR_TRUSTED | MEM_ALLOC) or reg.ref_obj_id != 0 else 0
    known = base == PTR_TO_MAP_VALUE or base == PTR_TO_MAP_KEY or base == PTR_TO_MEM or base == CONST_PTR_TO_MAP
    return 1 if known and (type & PTR_UNTRUSTED) == 0 else 0


@device
def _predict(dst: VReg, src: VReg, op: int, is_jmp32: int) -> int:
    """1 taken, 0 not taken, -1 unknown."""
    dst_number = dst.type == SCALAR_VALUE
    src_number = src.type == SCALAR_VALUE
    if dst_number and src_number:
        return is_branch_taken(dst, src, op, is_jmp32)
    if is_jmp32 or (op != BPF_JEQ and op != BPF_JNE):
        return -1
    pointer = dst if src_number else src
    number = src if src_number else dst
    if not register_is_null(number) or not reg_not_null(pointer):
        return -1
    return 1 if op == BPF_JNE else 0


@device
def _has_base(reg: VReg, base: int) -> int:
    """Whether a scalar has the id `base`, or is linked to what has."""
    ident = reg.id
    return 1 if ident != 0 and (ident & ~BPF_ADD_CONST) == base and reg.type == SCALAR_VALUE else 0


@device
def _live_registers(env: VEnv, state: VState, number: int, idx: int) -> int:
    """Registers of a frame that may still be read, at instruction `idx` of the one that runs."""
    if number != state.nframes - 1:
        idx = frame_of(state, number + 1).callsite
    return env.insns[idx].live


@device
def _limit_linked(env: VEnv, base: int, seen: int) -> int:
    """No more than LINKED_REGS_MAX follow one jump: the others are linked no longer. How many were met, with `seen` before.

    Kernel: collect_linked_regs, LINKED_REGS_MAX; what both operands are linked to counts twice, as there.
    """
    cur = env.cur
    for up in range(cur.nframes):
        number = cur.nframes - 1 - up
        frame = frame_of(cur, number)
        live = _live_registers(env, cur, number, env.insn_idx)
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and _has_base(reg, base):
                seen += 1
                if seen > LINKED_REGS_MAX:
                    reg.id = 0
        for spi in range(frame.nslots):
            reg = slot_of(frame, spi).reg
            if _has_base(reg, base):
                seen += 1
                if seen > LINKED_REGS_MAX:
                    reg.id = 0
    return seen


@device
def _linked_deps(env: VEnv, base: int, both: int, write: int) -> int:
    """The union of `both` with the dependencies of all that has the id; `write`: they all get `both`."""
    cur = env.cur
    for number in range(cur.nframes):
        frame = frame_of(cur, number)
        live = _live_registers(env, cur, number, env.insn_idx)
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and _has_base(reg, base):
                if write:
                    reg.deps = both
                else:
                    both = deps_union(env, both, reg.deps)
        for spi in range(frame.nslots):
            reg = slot_of(frame, spi).reg
            if _has_base(reg, base):
                if write:
                    reg.deps = both
                else:
                    both = deps_union(env, both, reg.deps)
    return both


@device
def _join_deps(env: VEnv, dst: VReg, src: VReg, reg_source: int) -> None:
    """After the jump the ranges of both operands, and of all that is linked to them, depend on each other."""
    both = dst.deps
    first = dst.id & ~BPF_ADD_CONST
    second = 0
    if reg_source:
        both = deps_union(env, both, src.deps)
        second = src.id & ~BPF_ADD_CONST
    if second == first:
        second = 0
    if first:
        both = _linked_deps(env, first, both, 0)
    if second:
        both = _linked_deps(env, second, both, 0)
    if first:
        _linked_deps(env, first, both, 1)
    if second:
        _linked_deps(env, second, both, 1)
    if reg_source:
        dst.deps = both
        src.deps = both


@device
def _sync_linked(reg: VReg, known: VReg) -> None:
    """A register that is `known` plus a constant gets its bounds plus that constant."""
    link = reg.id & BPF_ADD_CONST
    other = known.id & BPF_ADD_CONST
    if (link | other) == BPF_ADD_CONST:
        return  # one in 64 bits, one in 32: the difference is not the same in both
    bounds_copy(reg, known)
    delta = reg.off - known.off
    if (link | other) == 0 or delta == 0:
        # as far from what both are linked to: with a note of that, where either has one
        reg.id = known.id
        reg.off = known.off
    else:
        number = VReg(stack_bytes(96))
        bounds_const(number, delta)
        adjust_scalar64(BPF_ADD, reg, number)
        if (link | other) == BPF_ADD_CONST32:
            zext_32_to_64(reg)


@device
def sync_linked_regs(env: VEnv, state: VState, known: VReg, idx: int) -> None:
    """Everything that is linked to `known`, a register of the state, and still read after instruction `idx`, follows it."""
    base = known.id & ~BPF_ADD_CONST
    for number in range(state.nframes):
        frame = frame_of(state, number)
        live = _live_registers(env, state, number, idx)
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and reg != known and _has_base(reg, base):
                _sync_linked(reg, known)
        for spi in range(frame.nslots):
            reg = slot_of(frame, spi).reg
            if _has_base(reg, base):
                _sync_linked(reg, known)


@device
def _refine_state(env: VEnv, state: VState, dst_regno: int, src_regno: int, op: int, taken: int, is_jmp32: int, idx: int) -> None:
    """What the way of the jump at `idx` says about its operands (src_regno -1: the constant at `scratch`)."""
    frame = top_frame(state)
    a = reg_of(frame, dst_regno)
    b = env.scratch[1]
    if src_regno >= 0:
        b = reg_of(frame, src_regno)
    else:
        copy_reg(int(b), int(env.scratch))
    regs_refine_cond(a, b, op, taken, is_jmp32)
    if src_regno >= 0 and b.id:
        sync_linked_regs(env, state, reg_of(frame, src_regno), idx)
    if a.id:
        sync_linked_regs(env, state, a, idx)


@device
def mark_not_null(env: VEnv, reg: VReg) -> None:
    """A pointer that was found not to be NULL. Kernel: mark_ptr_not_null_reg."""
    type = reg.type
    if (type & 0xFF) == PTR_TO_MAP_VALUE:
        map = object_of(env, reg)
        kind = map.kind
        if kind & OBJECT_MAPS:
            if (kind & OBJECT_INNER) == 0:
                deps = reg.deps
                mark_unknown(reg)
                reg.deps = deps
                return
            reg.map = map.inner
            type = CONST_PTR_TO_MAP
        elif kind & OBJECT_SOCKETS:
            reg.map = 0
            type = PTR_TO_SOCKET
        if kind & (OBJECT_MAPS | OBJECT_SOCKETS):
            reg.type = type
            reg.off = 0
            reg.num = reg.id if kind & OBJECT_UID else 0
            reg.id = 0
            reg.ref_obj_id = 0
            return
        if (kind & OBJECT_LOCK) == 0:
            reg.id = 0
        # else the id tells the locks of two values of one map apart
    else:
        reg.id = 0
    reg.type = type & ~PTR_MAYBE_NULL


@device
def _mark_or_null(env: VEnv, reg: VReg, ident: int, is_null: int) -> int:
    """1 where the register was a copy of the tested pointer."""
    if (reg.type & PTR_MAYBE_NULL) == 0 or reg.id != ident:
        return 0
    if is_null:
        deps = reg.deps
        mark_const(reg, 0)
        reg.deps = deps
    else:
        mark_not_null(env, reg)
    return 1


@device
def mark_ptr_or_null_regs(env: VEnv, state: VState, regno: int, is_null: int) -> None:
    """Every copy of a pointer that was compared with NULL is the constant 0, or a valid pointer."""
    tested = reg_of(top_frame(state), regno)
    ident = tested.id
    ref = tested.ref_obj_id
    if is_null and ref != 0 and ref == ident:
        # nothing was acquired
        forget_ref(env, state, ref)
    for number in range(state.nframes):
        frame = frame_of(state, number)
        for i in range(MAX_BPF_REG):
            reg = reg_of(frame, i)
            if _mark_or_null(env, reg, ident, is_null):
                reg.deps = 0
        for spi in range(frame.nslots):
            _mark_or_null(env, slot_of(frame, spi).reg, ident, is_null)


@device
def _check_may_goto(env: VEnv, insn: VInsn) -> int:
    """A counted loop exit: both ways are possible, the jump bounded by the counter at run time."""
    if (insn.code & 7) != BPF_JMP or insn_src(insn) != BPF_MAY_GOTO or insn_dst(insn) or insn.imm:
        return say(env, R_MAY_GOTO, insn.imm, 0, 0, 0)
    idx = env.insn_idx
    queued = push_stack(env, idx + 1, 0)
    if not queued:
        return cannot_push(env, R_LOOP_TOO_COMPLEX)
    queued.may_goto_depth += 1
    own = env.cur.parent
    previous = find_prev_entry(env, own, idx) if own else VState(0)
    if previous:
        widen_imprecise_scalars(env, previous, queued)
    env.insn_idx = idx + 1 + insn.off
    return OK


@device
def check_cond_jmp_op(env: VEnv, insn: VInsn) -> int:
    """Leave the index of the instruction to go on with; the other way, where there is one, is pushed."""
    code = insn.code
    op = code & 0xF0
    if op > BPF_JCOND:
        return say(env, R_BAD_OPCODE, op, 1, 0, 0)
    if op == BPF_JCOND:
        return _check_may_goto(env, insn)
    idx = env.insn_idx
    dst_regno = insn_dst(insn)
    src_regno = insn_src(insn)
    imm = insn.imm
    reg_source = code & BPF_X
    reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    if (imm if reg_source else src_regno) != 0:
        return say(env, R_RESERVED, JMP_FIELDS, 0, 0, 0)
    dst = current_reg(env, dst_regno)
    src = env.scratch[0]
    if reg_source:
        reason = check_reg_read(env, src_regno)
        if reason != OK:
            return reason
        src = current_reg(env, src_regno)
    else:
        mark_const(src, imm)
        src_regno = -1
    is_jmp32 = 1 if (code & 7) == BPF_JMP32 else 0
    dst_number = dst.type == SCALAR_VALUE
    src_number = src.type == SCALAR_VALUE
    if dst.type == PTR_TO_STACK or src.type == PTR_TO_STACK:
        push_jmp_history(env)
    taken = _predict(dst, src, op, is_jmp32)
    if taken >= 0:
        if dst_number:
            mark_reg_precise(env, dst_regno)
        if reg_source and src_number:
            mark_reg_precise(env, src_regno)
        env.insn_idx = idx + 1 + (insn.off if taken else 0)
        return OK
    linked = 0
    if reg_source and src_number and src.id != 0:
        linked = _limit_linked(env, src.id & ~BPF_ADD_CONST, 0)
    if dst_number and dst.id != 0:
        linked = _limit_linked(env, dst.id & ~BPF_ADD_CONST, linked)
    if linked > 1:
        push_jmp_history(env)
    if dst_number and src_number:
        _join_deps(env, dst, src, reg_source)
    other = push_stack(env, idx + 1 + insn.off, 0)
    if not other:
        return cannot_push(env, R_TOO_COMPLEX)
    this = env.cur
    env.insn_idx = idx + 1
    if dst_number and src_number:
        _refine_state(env, this, dst_regno, src_regno, op, 0, is_jmp32, idx)
        _refine_state(env, other, dst_regno, src_regno, op, 1, is_jmp32, idx)
        return OK
    if is_jmp32 or (op != BPF_JEQ and op != BPF_JNE):
        return OK
    if not reg_source and imm == 0 and (dst.type & PTR_MAYBE_NULL) != 0:
        mark_ptr_or_null_regs(env, this, dst_regno, 1 if op == BPF_JNE else 0)
        mark_ptr_or_null_regs(env, other, dst_regno, 1 if op == BPF_JEQ else 0)
    elif reg_source and not dst_number and not src_number:
        maybe, sure, regno = dst, src, dst_regno
        if src.type & PTR_MAYBE_NULL:
            maybe, sure, regno = src, dst, src_regno
        if (
            (maybe.type & PTR_MAYBE_NULL) != 0
            and reg_not_null(sure) != 0
            and (src.type & 0xFF) != PTR_TO_BTF_ID
            and (dst.type & 0xFF) != PTR_TO_BTF_ID
        ):
            mark_not_null(env, reg_of(top_frame(other if op == BPF_JEQ else this), regno))
    return OK


@native()
def verifier_push_stack(venv: VEnv, insn_idx: int) -> int:
    """`push_stack` for Python, with room for a frame more; 0 where it cannot be kept."""
    return int(push_stack(venv, insn_idx, 1))
