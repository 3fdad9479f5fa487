"""Conditional jumps on a path: decide, or split the path and refine both halves.

Kernel: kernel/bpf/verifier.c:check_cond_jmp_op, is_branch_taken, sync_linked_regs, mark_ptr_or_null_regs, push_stack.
"""

from __future__ import annotations

from fastrtp.isa import BPF_ADD, BPF_JCOND, BPF_JEQ, BPF_JMP, BPF_JMP32, BPF_JNE, BPF_MAY_GOTO, BPF_REG_FP, BPF_X
from fastrtp.native.intrinsics import device, load8, load16, load32, load64, native, stack_bytes, store32, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import (
    MAX_BPF_REG,
    OBJECT_INNER,
    OBJECT_LOCK,
    OBJECT_MAPS,
    OBJECT_SOCKETS,
    OBJECT_UID,
    REG_SIZE,
    VBRANCH,
    VENV,
    VINSN,
    VOBJECT,
)
from fastrtp.verifier.alu_insn_native import (
    I_CODE,
    JMP_FIELDS,
    insn_dst,
    insn_imm,
    insn_off,
    insn_src,
)
from fastrtp.verifier.alu_native import adjust_scalar64
from fastrtp.verifier.bounds_native import bounds_const, bounds_copy, zext_32_to_64
from fastrtp.verifier.branch_native import is_branch_taken, regs_refine_cond
from fastrtp.verifier.mem_native import E_INSN_IDX, E_SCRATCH, O_KIND, check_reg_read, current_reg, object_of
from fastrtp.verifier.precision_native import find_prev_entry, mark_reg_precise, widen_imprecise_scalars
from fastrtp.verifier.reason import OK, R_BAD_OPCODE, R_LOOP_TOO_COMPLEX, R_MAY_GOTO, R_NO_MEMORY, R_RESERVED, R_TOO_COMPLEX
from fastrtp.verifier.regtype import (
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
from fastrtp.verifier.stack_native import BPF_ADD_CONST, BPF_ADD_CONST32, register_is_null, say
from fastrtp.verifier.state_native import (
    E_CUR,
    F_CALLSITE,
    F_NSLOTS,
    R_DEPS,
    R_ID,
    R_MAP,
    R_NUM,
    R_OFF,
    R_REF,
    R_TYPE,
    S_REG,
    T_BRANCHES,
    T_MAY_GOTO,
    T_NFRAMES,
    T_PARENT,
    copy_reg,
    deps_union,
    forget_ref,
    frame_of,
    mark_const,
    mark_unknown,
    push_jmp_history,
    reg_of,
    reg_off,
    slot_of,
    state_save,
    top_frame,
)

LINKED_REGS_MAX = 6

E_INSNS, I_LIVE, INSN_SIZE = at(VENV, "insns"), at(VINSN, "live"), VINSN.itemsize
E_HEAD, E_HEAD_CNT, E_HEAD_MAX, E_LOG_POS = at(VENV, "head"), at(VENV, "head_cnt"), at(VENV, "head_max"), at(VENV, "log_pos")
B_STATE, B_IDX = at(VBRANCH, "state"), at(VBRANCH, "insn_idx")
B_PREV, B_LOG = at(VBRANCH, "prev_insn_idx"), at(VBRANCH, "log_pos")
BRANCH_SIZE = VBRANCH.itemsize
O_INNER = at(VOBJECT, "inner")


@device
def push_stack(env: int, insn_idx: int, roomy: int) -> int:
    """A copy of the state under way, to be continued at `insn_idx` later; 0 where it cannot be kept. Kernel: push_stack."""
    count = load64(env + E_HEAD_CNT)
    if count >= load64(env + E_HEAD_MAX):
        return 0
    state = state_save(env, load64(env + E_CUR), roomy)
    if state == 0:
        return 0
    parent = load64(state + T_PARENT)
    if parent != 0:
        store64(parent + T_BRANCHES, load64(parent + T_BRANCHES) + 1)
    entry = load64(env + E_HEAD) + count * BRANCH_SIZE
    store64(entry + B_STATE, state)
    store64(entry + B_IDX, insn_idx)
    store64(entry + B_PREV, load64(env + E_INSN_IDX))
    store64(entry + B_LOG, load64(env + E_LOG_POS))
    store64(env + E_HEAD_CNT, count + 1)
    return state


@device
def cannot_push(env: int, reason: int) -> int:
    """Why `push_stack` gave nothing; `reason` where too many paths wait: R_TOO_COMPLEX, or R_LOOP_TOO_COMPLEX."""
    count = load64(env + E_HEAD_CNT)
    return say(env, reason if count >= load64(env + E_HEAD_MAX) else R_NO_MEMORY, count + 1, 0, 0, 0)


@device
def reg_not_null(reg: int) -> int:
    """A pointer that cannot be NULL."""
    type = load32(reg + R_TYPE)
    base = type & 0xFF
    if type & PTR_MAYBE_NULL:
        return 0
    if base == PTR_TO_BTF_ID:
        return 1 if type & (PTR_TRUSTED | MEM_ALLOC) or load32(reg + R_REF) != 0 else 0
    known = base == PTR_TO_MAP_VALUE or base == PTR_TO_MAP_KEY or base == PTR_TO_MEM or base == CONST_PTR_TO_MAP
    return 1 if known and (type & PTR_UNTRUSTED) == 0 else 0


@device
def _predict(dst: int, src: int, op: int, is_jmp32: int) -> int:
    """1 taken, 0 not taken, -1 unknown."""
    dst_number = load32(dst + R_TYPE) == SCALAR_VALUE
    src_number = load32(src + R_TYPE) == SCALAR_VALUE
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
def _has_base(reg: int, base: int) -> int:
    """Whether a scalar has the id `base`, or is linked to what has."""
    ident = load32(reg + R_ID)
    return 1 if ident != 0 and (ident & ~BPF_ADD_CONST) == base and load32(reg + R_TYPE) == SCALAR_VALUE else 0


@device
def _live_registers(env: int, state: int, number: int, idx: int) -> int:
    """Registers of a frame that may still be read, at instruction `idx` of the one that runs."""
    if number != load64(state + T_NFRAMES) - 1:
        idx = load64(frame_of(state, number + 1) + F_CALLSITE)
    return load16(load64(env + E_INSNS) + idx * INSN_SIZE + I_LIVE)


@device
def _limit_linked(env: int, base: int, seen: int) -> int:
    """No more than LINKED_REGS_MAX follow one jump: the others are linked no longer. How many were met, with `seen` before.

    Kernel: collect_linked_regs, LINKED_REGS_MAX; what both operands are linked to counts twice, as there.
    """
    cur = load64(env + E_CUR)
    for up in range(load64(cur + T_NFRAMES)):
        number = load64(cur + T_NFRAMES) - 1 - up
        frame = frame_of(cur, number)
        live = _live_registers(env, cur, number, load64(env + E_INSN_IDX))
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and _has_base(reg, base):
                seen += 1
                if seen > LINKED_REGS_MAX:
                    store32(reg + R_ID, 0)
        for spi in range(load64(frame + F_NSLOTS)):
            reg = slot_of(frame, spi) + S_REG
            if _has_base(reg, base):
                seen += 1
                if seen > LINKED_REGS_MAX:
                    store32(reg + R_ID, 0)
    return seen


@device
def _linked_deps(env: int, base: int, both: int, write: int) -> int:
    """The union of `both` with the dependencies of all that has the id; `write`: they all get `both`."""
    cur = load64(env + E_CUR)
    for number in range(load64(cur + T_NFRAMES)):
        frame = frame_of(cur, number)
        live = _live_registers(env, cur, number, load64(env + E_INSN_IDX))
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and _has_base(reg, base):
                if write:
                    store32(reg + R_DEPS, both)
                else:
                    both = deps_union(env, both, load32(reg + R_DEPS))
        for spi in range(load64(frame + F_NSLOTS)):
            reg = slot_of(frame, spi) + S_REG
            if _has_base(reg, base):
                if write:
                    store32(reg + R_DEPS, both)
                else:
                    both = deps_union(env, both, load32(reg + R_DEPS))
    return both


@device
def _join_deps(env: int, dst: int, src: int, reg_source: int) -> None:
    """After the jump the ranges of both operands, and of all that is linked to them, depend on each other."""
    both = load32(dst + R_DEPS)
    first = load32(dst + R_ID) & ~BPF_ADD_CONST
    second = 0
    if reg_source:
        both = deps_union(env, both, load32(src + R_DEPS))
        second = load32(src + R_ID) & ~BPF_ADD_CONST
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
        store32(dst + R_DEPS, both)
        store32(src + R_DEPS, both)


@device
def _sync_linked(reg: int, known: int) -> None:
    """A register that is `known` plus a constant gets its bounds plus that constant."""
    link = load32(reg + R_ID) & BPF_ADD_CONST
    other = load32(known + R_ID) & BPF_ADD_CONST
    if (link | other) == BPF_ADD_CONST:
        return  # one in 64 bits, one in 32: the difference is not the same in both
    bounds_copy(reg, known)
    delta = reg_off(reg) - reg_off(known)
    if (link | other) == 0 or delta == 0:
        # as far from what both are linked to: with a note of that, where either has one
        store32(reg + R_ID, load32(known + R_ID))
        store32(reg + R_OFF, load32(known + R_OFF))
    else:
        number = stack_bytes(96)
        bounds_const(number, delta)
        adjust_scalar64(BPF_ADD, reg, number)
        if (link | other) == BPF_ADD_CONST32:
            zext_32_to_64(reg)


@device
def sync_linked_regs(env: int, state: int, known: int, idx: int) -> None:
    """Everything that is linked to `known`, a register of the state, and still read after instruction `idx`, follows it."""
    base = load32(known + R_ID) & ~BPF_ADD_CONST
    for number in range(load64(state + T_NFRAMES)):
        frame = frame_of(state, number)
        live = _live_registers(env, state, number, idx)
        for regno in range(BPF_REG_FP):
            reg = reg_of(frame, regno)
            if (live >> regno) & 1 and reg != known and _has_base(reg, base):
                _sync_linked(reg, known)
        for spi in range(load64(frame + F_NSLOTS)):
            reg = slot_of(frame, spi) + S_REG
            if _has_base(reg, base):
                _sync_linked(reg, known)


@device
def _refine_state(env: int, state: int, dst_regno: int, src_regno: int, op: int, taken: int, is_jmp32: int, idx: int) -> None:
    """What the way of the jump at `idx` says about its operands (src_regno -1: the constant at `scratch`)."""
    frame = top_frame(state)
    a = reg_of(frame, dst_regno)
    b = env + E_SCRATCH + REG_SIZE
    if src_regno >= 0:
        b = reg_of(frame, src_regno)
    else:
        copy_reg(b, env + E_SCRATCH)
    regs_refine_cond(a, b, op, taken, is_jmp32)
    if src_regno >= 0 and load32(b + R_ID):
        sync_linked_regs(env, state, reg_of(frame, src_regno), idx)
    if load32(a + R_ID):
        sync_linked_regs(env, state, a, idx)


@device
def mark_not_null(env: int, reg: int) -> None:
    """A pointer that was found not to be NULL. Kernel: mark_ptr_not_null_reg."""
    type = load32(reg + R_TYPE)
    if (type & 0xFF) == PTR_TO_MAP_VALUE:
        map = object_of(env, reg)
        kind = load64(map + O_KIND)
        if kind & OBJECT_MAPS:
            if (kind & OBJECT_INNER) == 0:
                deps = load32(reg + R_DEPS)
                mark_unknown(reg)
                store32(reg + R_DEPS, deps)
                return
            store32(reg + R_MAP, load64(map + O_INNER))
            type = CONST_PTR_TO_MAP
        elif kind & OBJECT_SOCKETS:
            store32(reg + R_MAP, 0)
            type = PTR_TO_SOCKET
        if kind & (OBJECT_MAPS | OBJECT_SOCKETS):
            store32(reg + R_TYPE, type)
            store32(reg + R_OFF, 0)
            store64(reg + R_NUM, load32(reg + R_ID) if kind & OBJECT_UID else 0)
            store32(reg + R_ID, 0)
            store32(reg + R_REF, 0)
            return
        if (kind & OBJECT_LOCK) == 0:
            store32(reg + R_ID, 0)
        # else the id tells the locks of two values of one map apart
    else:
        store32(reg + R_ID, 0)
    store32(reg + R_TYPE, type & ~PTR_MAYBE_NULL)


@device
def _mark_or_null(env: int, reg: int, ident: int, is_null: int) -> int:
    """1 where the register was a copy of the tested pointer."""
    if (load32(reg + R_TYPE) & PTR_MAYBE_NULL) == 0 or load32(reg + R_ID) != ident:
        return 0
    if is_null:
        deps = load32(reg + R_DEPS)
        mark_const(reg, 0)
        store32(reg + R_DEPS, deps)
    else:
        mark_not_null(env, reg)
    return 1


@device
def mark_ptr_or_null_regs(env: int, state: int, regno: int, is_null: int) -> None:
    """Every copy of a pointer that was compared with NULL is the constant 0, or a valid pointer."""
    tested = reg_of(top_frame(state), regno)
    ident = load32(tested + R_ID)
    ref = load32(tested + R_REF)
    if is_null and ref != 0 and ref == ident:
        # nothing was acquired
        forget_ref(env, state, ref)
    for number in range(load64(state + T_NFRAMES)):
        frame = frame_of(state, number)
        for i in range(MAX_BPF_REG):
            reg = reg_of(frame, i)
            if _mark_or_null(env, reg, ident, is_null):
                store32(reg + R_DEPS, 0)
        for spi in range(load64(frame + F_NSLOTS)):
            _mark_or_null(env, slot_of(frame, spi) + S_REG, ident, is_null)


@device
def _check_may_goto(env: int, insn: int) -> int:
    """A counted loop exit: both ways are possible, the jump bounded by the counter at run time."""
    if (load8(insn + I_CODE) & 7) != BPF_JMP or insn_src(insn) != BPF_MAY_GOTO or insn_dst(insn) or insn_imm(insn):
        return say(env, R_MAY_GOTO, insn_imm(insn), 0, 0, 0)
    idx = load64(env + E_INSN_IDX)
    queued = push_stack(env, idx + 1, 0)
    if queued == 0:
        return cannot_push(env, R_LOOP_TOO_COMPLEX)
    store64(queued + T_MAY_GOTO, load64(queued + T_MAY_GOTO) + 1)
    own = load64(load64(env + E_CUR) + T_PARENT)
    previous = find_prev_entry(own, idx) if own != 0 else 0
    if previous != 0:
        widen_imprecise_scalars(env, previous, queued)
    store64(env + E_INSN_IDX, idx + 1 + insn_off(insn))
    return OK


@device
def check_cond_jmp_op(env: int, insn: int) -> int:
    """Leave the index of the instruction to go on with; the other way, where there is one, is pushed."""
    code = load8(insn + I_CODE)
    op = code & 0xF0
    if op > BPF_JCOND:
        return say(env, R_BAD_OPCODE, op, 1, 0, 0)
    if op == BPF_JCOND:
        return _check_may_goto(env, insn)
    idx = load64(env + E_INSN_IDX)
    dst_regno = insn_dst(insn)
    src_regno = insn_src(insn)
    imm = insn_imm(insn)
    reg_source = code & BPF_X
    reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    if (imm if reg_source else src_regno) != 0:
        return say(env, R_RESERVED, JMP_FIELDS, 0, 0, 0)
    dst = current_reg(env, dst_regno)
    src = env + E_SCRATCH
    if reg_source:
        reason = check_reg_read(env, src_regno)
        if reason != OK:
            return reason
        src = current_reg(env, src_regno)
    else:
        mark_const(src, imm)
        src_regno = -1
    is_jmp32 = 1 if (code & 7) == BPF_JMP32 else 0
    dst_number = load32(dst + R_TYPE) == SCALAR_VALUE
    src_number = load32(src + R_TYPE) == SCALAR_VALUE
    if load32(dst + R_TYPE) == PTR_TO_STACK or load32(src + R_TYPE) == PTR_TO_STACK:
        push_jmp_history(env)
    taken = _predict(dst, src, op, is_jmp32)
    if taken >= 0:
        if dst_number:
            mark_reg_precise(env, dst_regno)
        if reg_source and src_number:
            mark_reg_precise(env, src_regno)
        store64(env + E_INSN_IDX, idx + 1 + (insn_off(insn) if taken else 0))
        return OK
    linked = 0
    if reg_source and src_number and load32(src + R_ID) != 0:
        linked = _limit_linked(env, load32(src + R_ID) & ~BPF_ADD_CONST, 0)
    if dst_number and load32(dst + R_ID) != 0:
        linked = _limit_linked(env, load32(dst + R_ID) & ~BPF_ADD_CONST, linked)
    if linked > 1:
        push_jmp_history(env)
    if dst_number and src_number:
        _join_deps(env, dst, src, reg_source)
    other = push_stack(env, idx + 1 + insn_off(insn), 0)
    if other == 0:
        return cannot_push(env, R_TOO_COMPLEX)
    this = load64(env + E_CUR)
    store64(env + E_INSN_IDX, idx + 1)
    if dst_number and src_number:
        _refine_state(env, this, dst_regno, src_regno, op, 0, is_jmp32, idx)
        _refine_state(env, other, dst_regno, src_regno, op, 1, is_jmp32, idx)
        return OK
    if is_jmp32 or (op != BPF_JEQ and op != BPF_JNE):
        return OK
    if not reg_source and imm == 0 and (load32(dst + R_TYPE) & PTR_MAYBE_NULL) != 0:
        mark_ptr_or_null_regs(env, this, dst_regno, 1 if op == BPF_JNE else 0)
        mark_ptr_or_null_regs(env, other, dst_regno, 1 if op == BPF_JEQ else 0)
    elif reg_source and not dst_number and not src_number:
        maybe, sure, regno = dst, src, dst_regno
        if load32(src + R_TYPE) & PTR_MAYBE_NULL:
            maybe, sure, regno = src, dst, src_regno
        if (
            (load32(maybe + R_TYPE) & PTR_MAYBE_NULL) != 0
            and reg_not_null(sure) != 0
            and (load32(src + R_TYPE) & 0xFF) != PTR_TO_BTF_ID
            and (load32(dst + R_TYPE) & 0xFF) != PTR_TO_BTF_ID
        ):
            mark_not_null(env, reg_of(top_frame(other if op == BPF_JEQ else this), regno))
    return OK


@native()
def verifier_push_stack(venv: int, insn_idx: int) -> int:
    """`push_stack` for Python, with room for a frame more; 0 where it cannot be kept."""
    return push_stack(venv, insn_idx, 1)
