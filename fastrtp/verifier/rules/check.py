"""The verifier's main loop: `bpf_check` runs every step, `do_check` follows every path.

Kernel: kernel/bpf/verifier.c:bpf_check, do_check, do_check_insn.
"""

from __future__ import annotations

import time
from errno import E2BIG, EINVAL, ENOENT

from fastrtp.btf import BtfKind
from fastrtp.errors import VerifierError
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.isa import (
    BPF_CALL,
    BPF_JMP,
    BPF_PSEUDO_BTF_ID,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    Insn,
)
from fastrtp.uapi import BPF_F_SLEEPABLE, BpfProgType
from fastrtp.verifier.api import LoadAttr, VerifiedProgram
from fastrtp.verifier.core import reason as why
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import CONST_PTR_TO_MAP, MEM_PERCPU, PTR_TO_BTF_ID, PTR_TO_FUNC, PTR_TO_MAP_VALUE
from fastrtp.verifier.domain.state import BpfRegState
from fastrtp.verifier.report.log import Refusal, VerifierLog
from fastrtp.verifier.report.report import make_report
from fastrtp.verifier.rules.async_cb import do_check_async_callbacks
from fastrtp.verifier.rules.btf_func import check_btf_func, has_func_info
from fastrtp.verifier.rules.call import check_helper_call, check_reference_leak, helper_rows
from fastrtp.verifier.rules.cfg import add_subprogs, check_cfg, check_subprogs, compute_live_registers, compute_scc
from fastrtp.verifier.rules.dead_code import check_func_refs
from fastrtp.verifier.rules.env import BPF_COMPLEXITY_LIMIT_INSNS, BpfVerifierEnv, Limits
from fastrtp.verifier.rules.func import check_func_call, check_max_stack_depth, prepare_func_exit, push_tail_call
from fastrtp.verifier.rules.global_func import check_return_code, do_check_main, do_check_subprogs
from fastrtp.verifier.rules.insn_log import InsnLog
from fastrtp.verifier.rules.kfunc import add_kfunc_calls, check_kfunc_call
from fastrtp.verifier.rules.mem import do_typed_access, end_special_slots
from fastrtp.verifier.rules.objects import describe
from fastrtp.verifier.rules.resolve import resolve_pseudo_ldimm64
from fastrtp.verifier.rules.section import check_call_in_section
from fastrtp.verifier.rules.termination import every_loop_ends

SLICE = 50_000
"""Instructions between two looks at what Python has to do: an interrupt, for one."""

_TAIL_CALL = HELPER_IDS["tail_call"]
RELOG_LIMIT = 200_000
"""A failure after more instructions than this is logged by its message alone."""


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
    if refusal is not None and level == 1 and env.stats.insn_processed <= RELOG_LIMIT:
        env = BpfVerifierEnv(attr, VerifierLog(1))
        refusal = _run(env) or refusal
    env.stats.time_ns = time.perf_counter_ns() - started
    if refusal is not None:
        log = "\n".join([*env.log.lines, refusal.message, env.stats.line()]) + "\n" if attr.log_level else ""
        error = VerifierError(refusal.errno, refusal.message, log=log)
        error.report = make_report(attr, refusal.message, env.log.lines if level == 1 else (), env.last_idx)
        raise error
    log = "\n".join([*(env.log.lines if level & 2 else env.log.kept), env.stats.line()]) + "\n" if attr.log_level else ""
    processed = env.stats.insn_processed
    return VerifiedProgram(
        env.insns, env.aux, env.subprogs, env.used_maps, env.max_ctx_offset, env.tp_access, processed, log, env.stats
    )


def _run(env: BpfVerifierEnv) -> Refusal | None:
    """Every step in the kernel's order; the reason where one refuses."""
    try:
        if not env.insns or env.insn_cnt > BPF_COMPLEXITY_LIMIT_INSNS:
            env.reject(E2BIG, f"program has {env.insn_cnt} instructions, of 1 to {BPF_COMPLEXITY_LIMIT_INSNS}")
        env.tabulate()
        add_subprogs(env)
        add_kfunc_calls(env)
        check_subprogs(env)
        check_btf_func(env)
        resolve_pseudo_ldimm64(env)
        check_cfg(env)
        _check_attach(env)
        compute_scc(env)
        compute_live_registers(env)
        env.start_core(Limits(insns=BPF_COMPLEXITY_LIMIT_INSNS), describe, helper_rows())
        env.loops_end = every_loop_ends(env)
        env.insn_log = InsnLog(env)
        if env.log.level & 2:
            env.insn_log.live_registers()
        do_check_main(env, do_check)
        do_check_subprogs(env, do_check)
        while do_check_async_callbacks(env, do_check):
            do_check_subprogs(env, do_check)
        env.close()
        check_max_stack_depth(env)
        _fixup(env)
    except Refusal as refusal:
        return refusal
    except RecursionError:
        return Refusal(E2BIG, "program is nested too deeply")
    finally:
        env.close()
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
    """What the kernel finds when it rewrites the program. Kernel: fixup_kfunc_call, jit_subprogs."""
    for i, insn in enumerate(env.insns):
        if insn.code == BPF_JMP | BPF_CALL and insn.src_reg == BPF_PSEUDO_KFUNC_CALL and env.aux[i].seen and not insn.imm:
            env.reject(EINVAL, "invalid kernel function call not eliminated in verifier pass")
    check_func_refs(env)


def do_check(env: BpfVerifierEnv) -> None:
    """Follow every path from the current state, at `env.insn_idx`. Raises Refusal."""
    if env.log.enabled:
        _do_check_logged(env)
        return
    run = env.lib.verifier_run
    address = env.address
    how = why.RUN
    while True:
        reason = run(address, how, SLICE)
        how = why.RUN
        if reason == why.ALL_DONE:
            return
        if reason == why.YIELD:
            continue
        env.refresh()
        done = _do_work(env, reason)
        if done == why.PATH_DONE:
            if run(address, why.RUN_NEXT_PATH, SLICE) == why.ALL_DONE:
                return
        elif done == why.YIELD:
            how = why.RUN_ENTERED


def _do_check_logged(env: BpfVerifierEnv) -> None:
    """The same, an instruction at a time, with a log."""
    run, address = env.lib.verifier_run, env.address
    while True:
        env.refresh()
        idx = env.insn_idx
        reason = run(address, why.RUN_ENTER, 1)
        if reason == why.OK:
            env.insn_log.insn(idx, env.insns[idx])
            env.log_pos = env.log.mark()
            reason = run(address, why.RUN_STEP, 1)
            while reason not in (why.OK, why.PATH_DONE):
                reason = _do_work(env, reason)
                if reason == why.YIELD:
                    reason = run(address, why.RUN_STEP, 1)
        elif reason == why.SAFE:
            env.insn_log.safe(idx)
        else:
            env.check(reason)
        if reason in (why.SAFE, why.PATH_DONE):
            if run(address, why.RUN_NEXT_PATH, 1) == why.ALL_DONE:
                return
            env.log.reset(env.d)
            env.print_state = True


def _do_work(env: BpfVerifierEnv, reason: int) -> int:
    """What the core left for Python: OK and the next instruction is set, PATH_DONE, or YIELD to take the same one again."""
    idx = env.insn_idx
    insn = env.insns[idx]
    following = idx + 1
    if reason == why.DO_CALL:
        following = _do_call(env, insn)
    elif reason == why.DO_LOAD or reason == why.DO_ACCESS:
        do_typed_access(env, insn, idx)
    elif reason == why.DO_SLOTS:
        end_special_slots(env)
        return why.YIELD
    elif reason == why.DO_LD_IMM64:
        env.regs[insn.dst_reg] = _ld_imm64(env, insn)
        env.frame.deps[insn.dst_reg] = 0
        env.remember(idx, None, insn.dst_reg)
        following = idx + 2
    elif reason == why.DO_EXIT:
        check_reference_leak(env, "BPF_EXIT instruction in main prog")
        if env.cur_state.nframes == 1:
            check_return_code(env)
            return why.PATH_DONE
        following = prepare_func_exit(env)
    else:
        env.check(reason)
    env.prev_insn_idx = idx
    env.insn_idx = following
    return why.OK


def _do_call(env: BpfVerifierEnv, insn: Insn) -> int:
    if env.cur_state.refs and insn.src_reg != BPF_PSEUDO_KFUNC_CALL:
        check_call_in_section(env, insn)
    if insn.src_reg == BPF_PSEUDO_CALL:
        return check_func_call(env, insn)
    if insn.src_reg == BPF_PSEUDO_KFUNC_CALL:
        check_kfunc_call(env, insn)
    else:
        check_helper_call(env, insn)
        if insn.imm == _TAIL_CALL and env.cur_state.nframes > 1:
            return push_tail_call(env)
    return env.insn_idx + 1


def _ld_imm64(env: BpfVerifierEnv, insn: Insn) -> BpfRegState:
    """What a constant that names something is."""
    kind = insn.src_reg
    if kind == BPF_PSEUDO_FUNC:
        return BpfRegState(PTR_TO_FUNC, ZERO, num=_callback_subprog(env, env.insn_idx + insn.imm + 1))
    if kind == BPF_PSEUDO_BTF_ID:
        return _pseudo_btf_id(env, insn)
    if kind in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX):
        return BpfRegState(CONST_PTR_TO_MAP, ZERO, map=env.used_map_of(insn))
    return BpfRegState(PTR_TO_MAP_VALUE, ZERO, off=env.insns[env.insn_idx + 1].imm, map=env.used_map_of(insn))


def _callback_subprog(env: BpfVerifierEnv, start: int) -> int:
    """Number of the function that a 64-bit immediate names: one that the program's BTF calls static."""
    if not has_func_info(env):
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
        env.reject(ENOENT, f"ldimm64 insn specifies invalid btf_id {insn.imm}.")
    record = btf.type(insn.imm)
    if record.kind != BtfKind.VAR:
        env.reject(EINVAL, f"pseudo btf_id {insn.imm} in ldimm64 isn't KIND_VAR or KIND_FUNC")
    target = btf.strip(record.type)
    if btf.type(target).kind not in (BtfKind.STRUCT, BtfKind.UNION):
        env.reject(ENOENT, f"ldimm64 failed to find the address for kernel symbol '{record.name}'.")
    return BpfRegState(PTR_TO_BTF_ID | MEM_PERCPU, ZERO, num=target)


SUPPORTED_PROG_TYPES = frozenset(
    {
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT,
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
        BpfProgType.BPF_PROG_TYPE_TRACING,
        BpfProgType.BPF_PROG_TYPE_TRACEPOINT,
    }
)
