"""The loop over instructions: everything but what depends on types or names, and callbacks.

Kernel: kernel/bpf/verifier.c:do_check, do_check_insn, process_bpf_exit, pop_stack.
"""

from __future__ import annotations

from fastrtp.isa import (
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_EXIT,
    BPF_JA,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_MEM,
    BPF_MEMSX,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_ST,
    BPF_STX,
    BPF_X,
)
from fastrtp.native.intrinsics import device, load8, load32, load64, memcpy, native, store8, store32, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import JMP_POINT, PRUNE_POINT, REG_SIZE, VENV, VINSN, VMEMO
from fastrtp.verifier.alu_insn_native import (
    CALL_FIELDS,
    EXIT_FIELDS,
    I_CODE,
    JA_FIELDS,
    LD_FIELDS,
    ST_FIELDS,
    STX_FIELDS,
    check_alu_op,
    insn_dst,
    insn_imm,
    insn_off,
    insn_src,
)
from fastrtp.verifier.call_native import check_helper_call
from fastrtp.verifier.func_native import check_func_call, prepare_func_exit
from fastrtp.verifier.iter_native import check_iter_call
from fastrtp.verifier.jmp_native import B_IDX, B_LOG, B_PREV, B_STATE, BRANCH_SIZE, E_HEAD, E_HEAD_CNT, check_cond_jmp_op
from fastrtp.verifier.mem_native import (
    E_INSN_IDX,
    I_SEEN,
    check_atomic,
    check_mem_access,
    check_reg_read,
    check_reg_write,
    current_reg,
    insn_at,
    save_aux_ptr_type,
)
from fastrtp.verifier.prune_native import E_JMPS, E_PROCESSED, INSN_SIZE, is_state_visited, update_branch_counts
from fastrtp.verifier.reason import (
    ALL_DONE,
    DO_ACCESS,
    DO_EXIT,
    DO_LD_IMM64,
    DO_LOAD,
    OK,
    PATH_DONE,
    R_INSN_IDX,
    R_NO_MEMORY,
    R_RESERVED,
    R_TOO_LARGE,
    RUN,
    RUN_ENTER,
    RUN_NEXT_PATH,
    RUN_STEP,
    SAFE,
    YIELD,
)
from fastrtp.verifier.stack_native import E_D, IMM_VALUE, READ, WRITE, say
from fastrtp.verifier.state_native import (
    E_CUR,
    E_IN_HISTORY,
    E_NO_MEMORY,
    F_SUBPROG,
    R_DEPS,
    R_TYPE,
    T_NFRAMES,
    frame_of,
    has_refs,
    mark_const,
    push_jmp_history,
    state_restore,
)

E_INSNS, E_COUNT, E_PREV_IDX = at(VENV, "insns"), at(VENV, "insn_cnt"), at(VENV, "prev_insn_idx")
E_LIMIT, E_MEMOS = at(VENV, "insn_limit"), at(VENV, "memos")
I_FLAGS, I_MEMO = at(VINSN, "flags"), at(VINSN, "memo")
MEMO_SIZE, MEMO_RESULT = VMEMO.itemsize, at(VMEMO, "result")


@device
def _size_of(code: int) -> int:
    """Bytes of a load or store."""
    size = code & 0x18
    return 4 if size == 0 else 2 if size == 8 else 1 if size == 16 else 8


@device
def _known_load(env: int, insn: int, src: int, dst: int) -> int:
    """1 where the instruction loaded through just such a pointer before: the result is the same."""
    number = load32(insn + I_MEMO)
    if number == 0:
        return 0
    memo = load64(env + E_MEMOS) + (number - 1) * MEMO_SIZE
    at = 8
    if load32(memo + R_TYPE) != load32(src + R_TYPE):
        return 0
    while at < REG_SIZE:
        if load64(memo + at) != load64(src + at):
            return 0
        at += 8
    memcpy(dst, memo + MEMO_RESULT, REG_SIZE)
    store32(dst + R_DEPS, 0)
    return 1


@device
def _do_ldx(env: int, insn: int, code: int) -> int:
    src_regno = insn_src(insn)
    dst_regno = insn_dst(insn)
    reason = check_reg_read(env, src_regno)
    if reason == OK:
        reason = check_reg_write(env, dst_regno)
    if reason != OK:
        return reason
    src = current_reg(env, src_regno)
    kind = load32(src + R_TYPE)
    is_ldsx = 1 if (code & 0xE0) == BPF_MEMSX else 0
    reason = check_mem_access(env, src_regno, insn_off(insn), _size_of(code), READ, dst_regno, 0, 0, is_ldsx)
    if reason == DO_ACCESS:
        return OK if _known_load(env, insn, src, current_reg(env, dst_regno)) else DO_LOAD
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_stx(env: int, insn: int, code: int) -> int:
    src_regno = insn_src(insn)
    dst_regno = insn_dst(insn)
    if (code & 0xE0) == BPF_ATOMIC:
        return check_atomic(env, dst_regno, src_regno, insn_off(insn), insn_imm(insn), _size_of(code))
    if (code & 0xE0) != BPF_MEM or insn_imm(insn):
        return say(env, R_RESERVED, STX_FIELDS, 0, 0, 0)
    reason = check_reg_read(env, src_regno)
    if reason == OK:
        reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    kind = load32(current_reg(env, dst_regno) + R_TYPE)
    reason = check_mem_access(env, dst_regno, insn_off(insn), _size_of(code), WRITE, src_regno, 0, 0, 0)
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_st(env: int, insn: int, code: int) -> int:
    dst_regno = insn_dst(insn)
    if (code & 0xE0) != BPF_MEM or insn_src(insn):
        return say(env, R_RESERVED, ST_FIELDS, 0, 0, 0)
    reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    kind = load32(current_reg(env, dst_regno) + R_TYPE)
    reason = check_mem_access(env, dst_regno, insn_off(insn), _size_of(code), WRITE, IMM_VALUE, insn_imm(insn), 0, 0)
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_ld(env: int, insn: int, code: int) -> int:
    mode = code & 0xE0
    if mode != 0 or (code & 0x18) != 0x18 or insn_off(insn):
        return say(env, R_RESERVED, LD_FIELDS, code, 0, 0)
    regno = insn_dst(insn)
    reason = check_reg_write(env, regno)
    if reason != OK:
        return reason
    dst = current_reg(env, regno)
    if insn_src(insn) == 0:
        high = insn_imm(insn + INSN_SIZE)
        mark_const(dst, (insn_imm(insn) & 0xFFFFFFFF) | (high << 32))
        return OK
    number = load32(insn + I_MEMO)
    if number == 0:
        return DO_LD_IMM64
    memcpy(dst, load64(env + E_MEMOS) + (number - 1) * MEMO_SIZE + MEMO_RESULT, REG_SIZE)
    return OK


@device
def _do_jmp(env: int, insn: int, code: int) -> int:
    op = code & 0xF0
    is_jmp32 = (code & 7) == BPF_JMP32
    store64(env + E_JMPS, load64(env + E_JMPS) + 1)
    src_regno = insn_src(insn)
    if op == BPF_CALL:
        if (
            code & BPF_X
            or (src_regno != BPF_PSEUDO_KFUNC_CALL and insn_off(insn))
            or insn_dst(insn)
            or is_jmp32
            or (src_regno != 0 and src_regno != BPF_PSEUDO_CALL and src_regno != BPF_PSEUDO_KFUNC_CALL)
        ):
            return say(env, R_RESERVED, CALL_FIELDS, 0, 0, 0)
        if src_regno == 0:
            return check_helper_call(env, insn)
        return check_func_call(env, insn) if src_regno == BPF_PSEUDO_CALL else check_iter_call(env, insn)
    if op == BPF_JA:
        if code & BPF_X or src_regno or insn_dst(insn) or (insn_off(insn) if is_jmp32 else insn_imm(insn)):
            return say(env, R_RESERVED, JA_FIELDS, 0, 0, 0)
        store64(env + E_INSN_IDX, load64(env + E_INSN_IDX) + 1 + (insn_imm(insn) if is_jmp32 else insn_off(insn)))
        return OK
    if op == BPF_EXIT:
        if code & BPF_X or insn_imm(insn) or src_regno or insn_dst(insn) or is_jmp32:
            return say(env, R_RESERVED, EXIT_FIELDS, 0, 0, 0)
        cur = load64(env + E_CUR)
        if load64(cur + T_NFRAMES) > 1:
            return prepare_func_exit(env)
        if has_refs(cur) or load64(frame_of(cur, 0) + F_SUBPROG) != 0:
            return DO_EXIT
        reason = check_reg_read(env, 0)
        return PATH_DONE if reason == OK else reason
    return check_cond_jmp_op(env, insn)


@device
def enter(env: int) -> int:
    """An instruction is reached: OK, SAFE where its state is known to be, or a refusal."""
    idx = load64(env + E_INSN_IDX)
    if idx < 0 or idx >= load64(env + E_COUNT):
        return say(env, R_INSN_IDX, idx, 0, 0, 0)
    processed = load64(env + E_PROCESSED) + 1
    store64(env + E_PROCESSED, processed)
    if processed > load64(env + E_LIMIT):
        return say(env, R_TOO_LARGE, processed, 0, 0, 0)
    store64(env + E_IN_HISTORY, 0)
    flags = load8(insn_at(env) + I_FLAGS)
    reason = is_state_visited(env) if flags & PRUNE_POINT else OK
    if reason == OK and flags & JMP_POINT:
        push_jmp_history(env)
    return reason


@device
def step(env: int) -> int:
    """Check the instruction and go on to the next: OK, PATH_DONE, work for Python, or a refusal."""
    insn = insn_at(env)
    idx = load64(env + E_INSN_IDX)
    store8(insn + I_SEEN, 1)
    code = load8(insn + I_CODE)
    kind = code & 7
    following = idx + 1
    if kind == BPF_ALU64 or kind == BPF_ALU:
        reason = check_alu_op(env, insn)
    elif kind == BPF_LDX:
        reason = _do_ldx(env, insn, code)
    elif kind == BPF_STX:
        reason = _do_stx(env, insn, code)
    elif kind == BPF_ST:
        reason = _do_st(env, insn, code)
    elif kind == BPF_LD:
        reason = _do_ld(env, insn, code)
        following = idx + 2
    else:
        reason = _do_jmp(env, insn, code)
        following = load64(env + E_INSN_IDX)
    if reason == OK:
        store64(env + E_PREV_IDX, idx)
        store64(env + E_INSN_IDX, following)
    if load64(env + E_NO_MEMORY):
        store64(env + E_INSN_IDX, idx)
        return R_NO_MEMORY
    return reason


@device
def next_path(env: int) -> int:
    """This path is done: OK, with the log's position in `d`, where another one is to be followed, else ALL_DONE."""
    update_branch_counts(env, load64(env + E_CUR))
    count = load64(env + E_HEAD_CNT)
    if count == 0:
        return ALL_DONE
    entry = load64(env + E_HEAD) + (count - 1) * BRANCH_SIZE
    store64(env + E_HEAD_CNT, count - 1)
    store64(env + E_INSN_IDX, load64(entry + B_IDX))
    store64(env + E_PREV_IDX, load64(entry + B_PREV))
    store64(env + E_D, load64(entry + B_LOG))
    state_restore(env, load64(entry + B_STATE))
    return OK


@native()
def verifier_run(venv: int, how: int, insns: int) -> int:
    """Follow paths until Python is needed, or `insns` instructions were processed (YIELD).

    `how`: RUN; RUN_ENTERED, where the first instruction was reached before; or one part alone, for a log: RUN_ENTER,
    RUN_STEP, RUN_NEXT_PATH. ALL_DONE, what a part gives, work for Python, or a refusal.
    """
    end = load64(venv + E_PROCESSED) + insns
    while True:
        reason = OK
        if how == RUN or how == RUN_ENTER:
            if load64(venv + E_PROCESSED) >= end:
                return YIELD
            reason = enter(venv)
            if how == RUN_ENTER:
                return reason
        if reason == OK and how != RUN_NEXT_PATH:
            reason = step(venv)
            if how == RUN_STEP:
                return reason
        if reason == SAFE or reason == PATH_DONE or how == RUN_NEXT_PATH:
            reason = next_path(venv)
            if how == RUN_NEXT_PATH:
                return reason
        how = RUN
        if reason != OK:
            return reason
