"""The verifier's main loop: `bpf_check` runs every step, `do_check` follows every path.

Kernel: kernel/bpf/verifier.c:bpf_check, do_check, do_check_insn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from errno import E2BIG, EINVAL, ENOENT, ENOSPC

from fastrtp.btf import BtfKind
from fastrtp.errors import VerifierError
from fastrtp.isa import (
    BPF_ALU,
    BPF_ALU64,
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CLASS,
    BPF_DW,
    BPF_EXIT,
    BPF_IMM,
    BPF_JA,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_MEM,
    BPF_MEMSX,
    BPF_MODE,
    BPF_OP,
    BPF_PSEUDO_BTF_ID,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_SIZE,
    BPF_SRC,
    BPF_ST,
    BPF_STX,
    Insn,
    disassemble,
)
from fastrtp.uapi import BPF_F_SLEEPABLE, BpfProgType
from fastrtp.verifier.alu_insn import check_alu_op
from fastrtp.verifier.api import LoadAttr, VerifiedProgram
from fastrtp.verifier.bounds import ZERO
from fastrtp.verifier.call import check_helper_call, check_reference_leak
from fastrtp.verifier.cfg import add_subprogs, check_cfg, check_subprogs, compute_live_registers, jmp_offset
from fastrtp.verifier.env import BPF_COMPLEXITY_LIMIT_INSNS, BpfVerifierEnv
from fastrtp.verifier.func import check_func_call, check_max_stack_depth, prepare_func_exit
from fastrtp.verifier.global_func import check_return_code, do_check_main, do_check_subprogs
from fastrtp.verifier.jmp import check_cond_jmp_op
from fastrtp.verifier.kfunc import add_kfunc_calls, check_kfunc_call
from fastrtp.verifier.log import Refusal, VerifierLog, print_frame
from fastrtp.verifier.mem import SIZE_BYTES, check_atomic, check_mem_access, check_reg_read, check_reg_write, save_aux_ptr_type
from fastrtp.verifier.prune import is_state_visited, update_branch_counts
from fastrtp.verifier.regtype import CONST_PTR_TO_MAP, MEM_PERCPU, PTR_TO_BTF_ID, PTR_TO_FUNC, PTR_TO_MAP_VALUE
from fastrtp.verifier.report import make_report
from fastrtp.verifier.resolve import resolve_pseudo_ldimm64
from fastrtp.verifier.section import check_call_in_section
from fastrtp.verifier.stack import READ, WRITE
from fastrtp.verifier.state import BpfFuncState, BpfRegState, const_scalar

PATH_DONE = -1
"""Returned by a handler where the path ends."""

RELOG_LIMIT = 200_000
"""A failure after more instructions than this is logged by its message alone."""

Handler = Callable[[BpfVerifierEnv, Insn], int]


def bpf_check(attr: LoadAttr) -> VerifiedProgram:
    """Verify a program.

    Raises `VerifierError` with the kernel's errno and the last line of the log; `log` has all of it, ending in the
    `processed N insns ...` line.
    """
    started = time.perf_counter_ns()
    level = attr.log_level & 3
    # level 1 shows the failing path only: most programs have none, so it is followed again when there is one
    env = BpfVerifierEnv(attr, VerifierLog(level if level & 2 else 0))
    refusal = _run(env)
    if refusal is not None and level == 1 and env.insn_processed <= RELOG_LIMIT:
        env = BpfVerifierEnv(attr, VerifierLog(1))
        refusal = _run(env) or refusal
    env.stats.insn_processed = env.insn_processed
    env.stats.time_ns = time.perf_counter_ns() - started
    if refusal is not None:
        log = "\n".join([*env.log.lines, refusal.message, env.stats.line()]) + "\n" if attr.log_level else ""
        error = VerifierError(refusal.errno, refusal.message, log=log)
        error.report = make_report(attr, refusal.message, env.log.lines if level == 1 else (), env.insn_idx)
        raise error
    log = "\n".join([*(env.log.lines if level & 2 else env.log.kept), env.stats.line()]) + "\n" if attr.log_level else ""
    return VerifiedProgram(
        env.insns, env.aux, env.subprogs, env.used_maps, env.max_ctx_offset, env.max_tp_access, env.insn_processed, log, env.stats
    )


def _run(env: BpfVerifierEnv) -> Refusal | None:
    """Every step in the kernel's order; the reason where one refuses."""
    try:
        if not env.insns or env.insn_cnt > BPF_COMPLEXITY_LIMIT_INSNS:
            env.reject(E2BIG, f"program has {env.insn_cnt} instructions, of 1 to {BPF_COMPLEXITY_LIMIT_INSNS}")
        add_subprogs(env)
        add_kfunc_calls(env)
        check_subprogs(env)
        resolve_pseudo_ldimm64(env)
        check_cfg(env)
        _check_attach(env)
        compute_live_registers(env)
        do_check_main(env, do_check)
        do_check_subprogs(env, do_check)
        check_max_stack_depth(env)
        _fixup(env)
    except Refusal as refusal:
        return refusal
    except RecursionError:
        return Refusal(E2BIG, "program is nested too deeply")
    return None


def _check_attach(env: BpfVerifierEnv) -> None:
    """tp_btf programs name what they attach to. Kernel: check_attach_btf_id."""
    if env.prog_type not in SUPPORTED_PROG_TYPES:
        env.reject(EINVAL, f"program type {env.prog_type} is not supported")
    if env.attr.prog_flags & BPF_F_SLEEPABLE:
        env.reject(EINVAL, "Only fentry/fexit/fmod_ret, lsm, iter, uprobe, and struct_ops programs can be sleepable")
    if env.is_tracing and (env.attr.attach is None or env.attr.kernel_btf is None):
        env.reject(EINVAL, "Tracing programs must provide btf_id")


def _fixup(env: BpfVerifierEnv) -> None:
    """What the kernel finds when it rewrites the program. Kernel: fixup_kfunc_call."""
    for i, insn in enumerate(env.insns):
        if insn.code == BPF_JMP | BPF_CALL and insn.src_reg == BPF_PSEUDO_KFUNC_CALL and env.aux[i].seen and not insn.imm:
            env.reject(EINVAL, "invalid kernel function call not eliminated in verifier pass")


def do_check(env: BpfVerifierEnv) -> None:
    """Follow every path from the current state, at `env.insn_idx`. Raises Refusal."""
    handlers = [_HANDLERS[BPF_CLASS(insn.code)] for insn in env.insns]
    insns, aux, prune_point = env.insns, env.aux, env.prune_point
    count = env.insn_cnt
    logging = env.log.enabled
    idx = env.insn_idx
    while True:
        if idx >= count:
            env.reject(EINVAL, f"invalid insn idx {idx} insn_cnt {count}")
        env.insn_processed += 1
        if env.insn_processed > BPF_COMPLEXITY_LIMIT_INSNS:
            # a log of a million instructions fits no buffer, and bpf_vlog_finalize makes that the error
            env.reject(ENOSPC if env.attr.log_level else E2BIG, f"BPF program is too large. Processed {env.insn_processed} insn")
        env.insn_idx = idx
        if prune_point[idx] and is_state_visited(env, idx):
            if logging:
                env.log.line(f"from {env.prev_insn_idx} to {idx}: safe" if env.print_state else f"{idx}: safe")
            idx = _next_path(env)
            if idx == PATH_DONE:
                return
            continue
        aux[idx].seen = True
        insn = insns[idx]
        if logging:
            before = _log_insn(env, idx, insn)
        following = handlers[idx](env, insn)
        if logging:
            _log_effect(env, before)
        env.prev_insn_idx = idx
        if following == PATH_DONE:
            following = _next_path(env)
            if following == PATH_DONE:
                return
        idx = following


def _next_path(env: BpfVerifierEnv) -> int:
    """This path is done; the instruction where the next one starts, or PATH_DONE."""
    update_branch_counts(env.cur_state)
    if not env.head:
        return PATH_DONE
    elem = env.head.pop()
    env.log.reset(elem.log_pos)
    env.set_state(elem.state)
    env.prev_insn_idx = elem.prev_insn_idx
    env.print_state = True
    return elem.insn_idx


def _log_insn(env: BpfVerifierEnv, idx: int, insn: Insn) -> BpfFuncState:
    if env.print_state:
        where = f"{idx}: " if env.prev_insn_idx < 0 else f"\nfrom {env.prev_insn_idx} to {idx}: "
        env.log.line(where + print_frame(env.frame, env.cur_state))
        env.print_state = False
    following = env.insns[idx + 1] if idx + 1 < env.insn_cnt else None
    env.log.line(f"{idx}: ({insn.code:02x}) {disassemble(insn, following)}")
    return env.frame.copy()


def _log_effect(env: BpfVerifierEnv, before: BpfFuncState) -> None:
    if env.frame.frameno == before.frameno:
        changed = print_frame(env.frame, env.cur_state, before)
        if changed and changed != f"frame{before.frameno}:":
            env.log.annotate(changed)


def _do_alu(env: BpfVerifierEnv, insn: Insn) -> int:
    check_alu_op(env, insn)
    return env.insn_idx + 1


def _do_ldx(env: BpfVerifierEnv, insn: Insn) -> int:
    source = check_reg_read(env, insn.src_reg)
    check_reg_write(env, insn.dst_reg)
    check_mem_access(
        env, insn.src_reg, insn.off, SIZE_BYTES[BPF_SIZE(insn.code)], READ, insn.dst_reg, is_ldsx=BPF_MODE(insn.code) == BPF_MEMSX
    )
    save_aux_ptr_type(env, source.type)
    return env.insn_idx + 1


def _do_stx(env: BpfVerifierEnv, insn: Insn) -> int:
    if BPF_MODE(insn.code) == BPF_ATOMIC:
        check_atomic(env, insn)
        return env.insn_idx + 1
    if BPF_MODE(insn.code) != BPF_MEM or insn.imm:
        env.reject(EINVAL, "BPF_STX uses reserved fields")
    check_reg_read(env, insn.src_reg)
    target = check_reg_read(env, insn.dst_reg)
    check_mem_access(env, insn.dst_reg, insn.off, SIZE_BYTES[BPF_SIZE(insn.code)], WRITE, insn.src_reg)
    save_aux_ptr_type(env, target.type)
    return env.insn_idx + 1


def _do_st(env: BpfVerifierEnv, insn: Insn) -> int:
    if BPF_MODE(insn.code) != BPF_MEM or insn.src_reg:
        env.reject(EINVAL, "BPF_ST uses reserved fields")
    target = check_reg_read(env, insn.dst_reg)
    check_mem_access(env, insn.dst_reg, insn.off, SIZE_BYTES[BPF_SIZE(insn.code)], WRITE, -1, imm=insn.imm)
    save_aux_ptr_type(env, target.type)
    return env.insn_idx + 1


def _do_jmp(env: BpfVerifierEnv, insn: Insn) -> int:
    op = BPF_OP(insn.code)
    is_jmp32 = BPF_CLASS(insn.code) == BPF_JMP32
    env.jmps_processed += 1
    if op == BPF_CALL:
        if (
            BPF_SRC(insn.code)
            or (insn.src_reg != BPF_PSEUDO_KFUNC_CALL and insn.off)
            or insn.dst_reg
            or is_jmp32
            or insn.src_reg not in (0, BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL)
        ):
            env.reject(EINVAL, "BPF_CALL uses reserved fields")
        if env.cur_state.refs and insn.src_reg != BPF_PSEUDO_KFUNC_CALL:
            check_call_in_section(env, insn)
        if insn.src_reg == BPF_PSEUDO_CALL:
            return check_func_call(env, insn)
        if insn.src_reg == BPF_PSEUDO_KFUNC_CALL:
            check_kfunc_call(env, insn)
        else:
            check_helper_call(env, insn)
        return env.insn_idx + 1
    if op == BPF_JA:
        if BPF_SRC(insn.code) or insn.src_reg or insn.dst_reg or (insn.off if is_jmp32 else insn.imm):
            env.reject(EINVAL, "BPF_JA uses reserved fields")
        return env.insn_idx + 1 + jmp_offset(insn)
    if op == BPF_EXIT:
        if BPF_SRC(insn.code) or insn.imm or insn.src_reg or insn.dst_reg or is_jmp32:
            env.reject(EINVAL, "BPF_EXIT uses reserved fields")
        check_reference_leak(env, "BPF_EXIT instruction in main prog")
        if len(env.cur_state.frames) > 1:
            return prepare_func_exit(env)
        check_return_code(env)
        return PATH_DONE
    return check_cond_jmp_op(env, insn)


def _do_ld(env: BpfVerifierEnv, insn: Insn) -> int:
    mode = BPF_MODE(insn.code)
    if mode in (0x20, 0x40):
        env.reject(EINVAL, "BPF_LD_[ABS|IND] instructions not allowed for this program type")
    if mode != BPF_IMM:
        env.reject(EINVAL, "invalid BPF_LD mode")
    if BPF_SIZE(insn.code) != BPF_DW:
        env.reject(EINVAL, "invalid BPF_LD_IMM insn")
    if insn.off:
        env.reject(EINVAL, "BPF_LD_IMM64 uses reserved fields")
    check_reg_write(env, insn.dst_reg)
    high = env.insns[env.insn_idx + 1].imm
    kind = insn.src_reg
    if kind == 0:
        reg = const_scalar(insn.imm & 0xFFFFFFFF | (high & 0xFFFFFFFF) << 32)
    elif kind == BPF_PSEUDO_FUNC:
        reg = BpfRegState(PTR_TO_FUNC, ZERO, num=_callback_subprog(env, env.insn_idx + insn.imm + 1))
    elif kind == BPF_PSEUDO_BTF_ID:
        reg = _pseudo_btf_id(env, insn)
    elif kind in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX):
        reg = BpfRegState(CONST_PTR_TO_MAP, ZERO, map=env.used_map_of(insn))
    else:
        reg = BpfRegState(PTR_TO_MAP_VALUE, ZERO, off=high, map=env.used_map_of(insn))
    env.regs[insn.dst_reg] = reg
    env.frame.deps[insn.dst_reg] = 0
    return env.insn_idx + 2


def _callback_subprog(env: BpfVerifierEnv, start: int) -> int:
    """Number of the function that a 64-bit immediate names: one that the program's BTF calls static."""
    if env.attr.func_info is None:
        env.reject(EINVAL, "missing btf func_info")
    if env.attr.btf is not None:
        for insn_off, type_id in ((int(row[0]), int(row[1])) for row in env.attr.func_info):
            if insn_off == start and env.attr.btf.type(type_id).linkage:
                env.reject(EINVAL, "callback function not static")
    return env.subprog_at[start]


def _pseudo_btf_id(env: BpfVerifierEnv, insn: Insn) -> BpfRegState:
    """A kernel variable: only per-CPU structs, read through checked loads. Kernel: check_pseudo_btf_id."""
    btf = env.attr.kernel_btf
    if btf is None:
        env.reject(EINVAL, "kernel is missing BTF, make sure CONFIG_DEBUG_INFO_BTF=y is specified in Kconfig.")
    if not 0 < insn.imm < len(btf):
        env.reject(EINVAL, f"ldimm64 insn specifies invalid btf_id {insn.imm}.")
    record = btf.type(insn.imm)
    if record.kind != BtfKind.VAR:
        env.reject(EINVAL, f"pseudo btf_id {insn.imm} in ldimm64 isn't KIND_VAR or KIND_FUNC")
    target = btf.strip(record.type)
    if btf.type(target).kind not in (BtfKind.STRUCT, BtfKind.UNION):
        env.reject(ENOENT, f"ldimm64 failed to find the address for kernel symbol '{record.name}'.")
    return BpfRegState(PTR_TO_BTF_ID | MEM_PERCPU, ZERO, num=target)


_HANDLERS: dict[int, Handler] = {
    BPF_LD: _do_ld,
    BPF_LDX: _do_ldx,
    BPF_ST: _do_st,
    BPF_STX: _do_stx,
    BPF_ALU: _do_alu,
    BPF_ALU64: _do_alu,
    BPF_JMP: _do_jmp,
    BPF_JMP32: _do_jmp,
}
"""One function per instruction class; each returns the index to go on with."""

SUPPORTED_PROG_TYPES = frozenset(
    {
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT,
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
        BpfProgType.BPF_PROG_TYPE_TRACING,
        BpfProgType.BPF_PROG_TYPE_TRACEPOINT,
    }
)
