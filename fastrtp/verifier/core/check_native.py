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
from fastrtp.native.intrinsics import device, load64, memcpy, native
from fastrtp.verifier.core.alu_insn_native import (
    CALL_FIELDS,
    EXIT_FIELDS,
    JA_FIELDS,
    LD_FIELDS,
    ST_FIELDS,
    STX_FIELDS,
    check_alu_op,
    insn_dst,
    insn_src,
)
from fastrtp.verifier.core.call_native import check_helper_call
from fastrtp.verifier.core.func_native import check_func_call, prepare_func_exit
from fastrtp.verifier.core.iter_native import check_iter_call
from fastrtp.verifier.core.jmp_native import check_cond_jmp_op
from fastrtp.verifier.core.mem_native import (
    check_atomic,
    check_mem_access,
    check_reg_read,
    check_reg_write,
    current_reg,
    insn_at,
    save_aux_ptr_type,
)
from fastrtp.verifier.core.prune_native import INSN_SIZE, is_state_visited, update_branch_counts
from fastrtp.verifier.core.reason import (
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
from fastrtp.verifier.core.stack_native import IMM_VALUE, READ, WRITE, say
from fastrtp.verifier.core.state_native import (
    frame_of,
    has_refs,
    mark_const,
    push_jmp_history,
    state_restore,
)
from fastrtp.verifier.domain.records import JMP_POINT, PRUNE_POINT, REG_SIZE, VEnv, VInsn, VReg


@device
def _size_of(code: int) -> int:
    """Bytes of a load or store."""
    size = code & 0x18
    return 4 if size == 0 else 2 if size == 8 else 1 if size == 16 else 8


@device
def _known_load(env: VEnv, insn: VInsn, src: VReg, dst: VReg) -> int:
    """1 where the instruction loaded through just such a pointer before: the result is the same."""
    number = insn.memo
    if number == 0:
        return 0
    memo = env.memos[number - 1]
    at = 8
    if memo.source.type != src.type:
        return 0
    while at < REG_SIZE:
        if load64(int(memo) + at) != load64(int(src) + at):
            return 0
        at += 8
    memcpy(int(dst), int(memo.result), REG_SIZE)
    dst.deps = 0
    return 1


@device
def _do_ldx(env: VEnv, insn: VInsn, code: int) -> int:
    src_regno = insn_src(insn)
    dst_regno = insn_dst(insn)
    reason = check_reg_read(env, src_regno)
    if reason == OK:
        reason = check_reg_write(env, dst_regno)
    if reason != OK:
        return reason
    src = current_reg(env, src_regno)
    kind = src.type
    is_ldsx = 1 if (code & 0xE0) == BPF_MEMSX else 0
    reason = check_mem_access(env, src_regno, insn.off, _size_of(code), READ, dst_regno, 0, 0, is_ldsx)
    if reason == DO_ACCESS:
        return OK if _known_load(env, insn, src, current_reg(env, dst_regno)) else DO_LOAD
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_stx(env: VEnv, insn: VInsn, code: int) -> int:
    src_regno = insn_src(insn)
    dst_regno = insn_dst(insn)
    if (code & 0xE0) == BPF_ATOMIC:
        return check_atomic(env, dst_regno, src_regno, insn.off, insn.imm, _size_of(code))
    if (code & 0xE0) != BPF_MEM or insn.imm:
        return say(env, R_RESERVED, STX_FIELDS, 0, 0, 0)
    reason = check_reg_read(env, src_regno)
    if reason == OK:
        reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    kind = current_reg(env, dst_regno).type
    reason = check_mem_access(env, dst_regno, insn.off, _size_of(code), WRITE, src_regno, 0, 0, 0)
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_st(env: VEnv, insn: VInsn, code: int) -> int:
    dst_regno = insn_dst(insn)
    if (code & 0xE0) != BPF_MEM or insn_src(insn):
        return say(env, R_RESERVED, ST_FIELDS, 0, 0, 0)
    reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    kind = current_reg(env, dst_regno).type
    reason = check_mem_access(env, dst_regno, insn.off, _size_of(code), WRITE, IMM_VALUE, insn.imm, 0, 0)
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@device
def _do_ld(env: VEnv, insn: VInsn, code: int) -> int:
    mode = code & 0xE0
    if mode != 0 or (code & 0x18) != 0x18 or insn.off:
        return say(env, R_RESERVED, LD_FIELDS, code, 0, 0)
    regno = insn_dst(insn)
    reason = check_reg_write(env, regno)
    if reason != OK:
        return reason
    dst = current_reg(env, regno)
    if insn_src(insn) == 0:
        high = VInsn(int(insn) + INSN_SIZE).imm
        mark_const(dst, (insn.imm & 0xFFFFFFFF) | (high << 32))
        return OK
    number = insn.memo
    if number == 0:
        return DO_LD_IMM64
    memcpy(int(dst), int(env.memos[number - 1].result), REG_SIZE)
    return OK


@device
def _do_jmp(env: VEnv, insn: VInsn, code: int) -> int:
    op = code & 0xF0
    is_jmp32 = (code & 7) == BPF_JMP32
    env.jmps_processed += 1
    src_regno = insn_src(insn)
    if op == BPF_CALL:
        if (
            code & BPF_X
            or (src_regno != BPF_PSEUDO_KFUNC_CALL and insn.off)
            or insn_dst(insn)
            or is_jmp32
            or (src_regno != 0 and src_regno != BPF_PSEUDO_CALL and src_regno != BPF_PSEUDO_KFUNC_CALL)
        ):
            return say(env, R_RESERVED, CALL_FIELDS, 0, 0, 0)
        if src_regno == 0:
            return check_helper_call(env, insn)
        return check_func_call(env, insn) if src_regno == BPF_PSEUDO_CALL else check_iter_call(env, insn)
    if op == BPF_JA:
        if code & BPF_X or src_regno or insn_dst(insn) or (insn.off if is_jmp32 else insn.imm):
            return say(env, R_RESERVED, JA_FIELDS, 0, 0, 0)
        env.insn_idx = env.insn_idx + 1 + (insn.imm if is_jmp32 else insn.off)
        return OK
    if op == BPF_EXIT:
        if code & BPF_X or insn.imm or src_regno or insn_dst(insn) or is_jmp32:
            return say(env, R_RESERVED, EXIT_FIELDS, 0, 0, 0)
        cur = env.cur
        if cur.nframes > 1:
            return prepare_func_exit(env)
        if has_refs(cur) or frame_of(cur, 0).subprogno != 0:
            return DO_EXIT
        reason = check_reg_read(env, 0)
        return PATH_DONE if reason == OK else reason
    return check_cond_jmp_op(env, insn)


@device
def enter(env: VEnv) -> int:
    """An instruction is reached: OK, SAFE where its state is known to be, or a refusal."""
    idx = env.insn_idx
    if idx < 0 or idx >= env.insn_cnt:
        return say(env, R_INSN_IDX, idx, 0, 0, 0)
    processed = env.insn_processed + 1
    env.insn_processed = processed
    if processed > env.insn_limit:
        return say(env, R_TOO_LARGE, processed, 0, 0, 0)
    env.in_history = 0
    flags = insn_at(env).flags & 0xFF
    reason = is_state_visited(env) if flags & PRUNE_POINT else OK
    if reason == OK and flags & JMP_POINT:
        push_jmp_history(env)
    return reason


@device
def step(env: VEnv) -> int:
    """Check the instruction and go on to the next: OK, PATH_DONE, work for Python, or a refusal."""
    insn = insn_at(env)
    idx = env.insn_idx
    insn.seen = 1
    code = insn.code
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
        following = env.insn_idx
    if reason == OK:
        env.prev_insn_idx = idx
        env.insn_idx = following
    if env.out_of_memory:
        env.insn_idx = idx
        return R_NO_MEMORY
    return reason


@device
def next_path(env: VEnv) -> int:
    """This path is done: OK, with the log's position in `d`, where another one is to be followed, else ALL_DONE."""
    update_branch_counts(env, env.cur)
    count = env.head_cnt
    if count == 0:
        return ALL_DONE
    entry = env.head[count - 1]
    env.head_cnt = count - 1
    env.insn_idx = entry.insn_idx
    env.prev_insn_idx = entry.prev_insn_idx
    env.d = entry.log_pos
    state_restore(env, entry.state)
    return OK


@native()
def verifier_run(venv: VEnv, how: int, insns: int) -> int:
    """Follow paths until Python is needed, or `insns` instructions were processed (YIELD).

    `how`: RUN; RUN_ENTERED, where the first instruction was reached before; or one part alone, for a log: RUN_ENTER,
    RUN_STEP, RUN_NEXT_PATH. ALL_DONE, what a part gives, work for Python, or a refusal.
    """
    end = venv.insn_processed + insns
    while True:
        reason = OK
        if how == RUN or how == RUN_ENTER:
            if venv.insn_processed >= end:
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
