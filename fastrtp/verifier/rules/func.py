"""Functions: calls to subprograms, callbacks that helpers run, and returns.

A global function is not entered: global_func.py verifies it on its own.
Kernel: kernel/bpf/verifier.c:check_func_call, setup_func_entry, push_callback_call, prepare_func_exit,
check_max_stack_depth.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EACCES, EFAULT

from fastrtp.isa import BPF_CALL, BPF_JMP, BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, Insn
from fastrtp.uapi import MAX_BPF_STACK, MAX_CALL_FRAMES
from fastrtp.verifier.api import SubprogInfo
from fastrtp.verifier.core import reason as why
from fastrtp.verifier.domain.regtype import SCALAR_VALUE
from fastrtp.verifier.domain.state import REG_UNKNOWN, BpfFuncState, BpfVerifierState
from fastrtp.verifier.report.refuse import refuse
from fastrtp.verifier.rules.async_cb import check_return_range
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.global_func import check_global_call
from fastrtp.verifier.rules.precision import find_prev_entry, mark_reg_precise, widen_imprecise_scalars
from fastrtp.verifier.rules.resolve import LD_IMM64
from fastrtp.verifier.rules.subprog_args import subprog_is_global

SetCalleeState = Callable[[BpfFuncState, BpfFuncState], None]
"""Fills the callee's registers from the caller's: (caller, callee)."""


def clear_caller_saved_regs(frame: BpfFuncState) -> None:
    """R0 to R5 are gone after a call."""
    frame.clear_caller_saved_regs()


def setup_func_entry(
    env: BpfVerifierEnv, state: BpfVerifierState, subprogno: int, callsite: int, fill: SetCalleeState
) -> BpfFuncState:
    """Push a frame for a function. Errors: E2BIG beyond eight frames."""
    caller = state.frames[-1]
    callee = state.push_frame(callsite, subprogno)
    if callee is None:
        env.a = MAX_CALL_FRAMES + 1
        refuse(env, why.R_CALL_DEPTH)
    fill(caller, callee)
    env.subprogs[caller.subprogno].callees.add(subprogno)
    return callee


def check_func_call(env: BpfVerifierEnv, insn: Insn) -> int:
    """A bpf-to-bpf call: go on with the first instruction of the callee, behind the call where that is global."""
    subprogno = env.subprog_at[env.insn_idx + insn.imm + 1]
    caller = env.frame
    if subprog_is_global(env, subprogno):
        check_global_call(env, subprogno)
        env.subprogs[caller.subprogno].callees.add(subprogno)
        clear_caller_saved_regs(caller)
        env.regs[0] = REG_UNKNOWN
        return env.insn_idx + 1
    env.insn_table["memo"][env.insn_idx] = subprogno + 1  # the core enters it by itself from now on
    env.subprogs[caller.subprogno].callees.add(subprogno)
    env.check(env.lib.verifier_enter_func(env.address, subprogno))
    env.refresh()
    if env.log.enabled:
        env.insn_log.call(caller, env.frame)
    return env.subprogs[subprogno].start


def push_callback_call(env: BpfVerifierEnv, subprogno: int, fill: SetCalleeState) -> None:
    """The helper may call the function: verify that as a path of its own, entered from this call."""
    subprog = env.subprogs[subprogno]
    subprog.is_cb = True
    state = env.push_stack(subprog.start)
    callee = setup_func_entry(env, state, subprogno, env.insn_idx, fill)
    callee.in_callback_fn = 1
    callee.callback_ret_range = (0, 1)
    state.callback_unroll_depth += 1
    state.frames[-2].callback_depth += 1
    env.frame.callback_depth = 0
    if env.log.enabled:
        env.insn_log.scratch_state()


def prepare_func_exit(env: BpfVerifierEnv) -> int:
    """Return from a frame: the instruction to go on with, the call itself again where it was a callback."""
    state = env.cur_state
    callee, caller = state.frames[-1], state.frames[-2]
    reason = env.lib.verifier_leave_func(env.address)
    if reason == why.DO_EXIT:
        r0 = callee.regs[0]
        if r0.type != SCALAR_VALUE:
            env.reject(EACCES, "R0 not a scalar value")
        mark_reg_precise(env, 0)
        check_return_range(env, "callback", r0, callee.callback_ret_range or (0, 1))
        target = callee.callsite
    else:
        env.check(reason)
        target = env.insn_idx
    if env.log.enabled:
        env.insn_log.back(callee, caller, target)
    if reason == why.DO_EXIT:
        state.pop_frame()
        env.from_callback = callee.in_callback_fn
    env.refresh()
    if reason == why.DO_EXIT:
        previous = find_prev_entry(env, state, target)
        if previous is not None:
            widen_imprecise_scalars(env, previous, state)
    env.print_state = True
    return target


def push_tail_call(env: BpfVerifierEnv) -> int:
    """Below bpf_tail_call in a function: it failed, on a path for later, or it succeeded, and the function is over.

    Another program has then run in the function's place: what it returned is R0, any number; of the memory of programs it
    can have written what every program may write to at any time (values of maps), so nothing has to be forgotten. The
    instruction to go on with, as `prepare_func_exit`. Kernel: check_helper_call (bpf_tail_call in a frame below the first)
    """
    env.push_stack(env.insn_idx + 1)
    env.regs[0] = REG_UNKNOWN
    env.frame.deps[0] = 0
    target = prepare_func_exit(env)
    if env.log.enabled:
        env.insn_log.scratch_r0()
    return target


def check_max_stack_depth(env: BpfVerifierEnv) -> None:
    """Frames over every call chain: 512 bytes where tail calls are made, 256 below one; eight frames; no recursion.

    Without tail calls each function has a stack of its own, as on the kernel's private stacks.
    """
    any_tail_call = any(subprog.has_tail_call for subprog in env.subprogs)
    calls = [_called(env, number) for number in range(len(env.subprogs))]
    seen = set()
    todo = [(0, 0, 0), *((number, 0, 0) for number, subprog in enumerate(env.subprogs) if subprog.is_async_cb)]
    while todo:
        entry = todo.pop()
        if entry in seen:
            continue
        seen.add(entry)
        number, depth, frame = entry
        subprog = env.subprogs[number]
        if number and subprog.has_tail_call and depth >= 256:
            env.reject(EACCES, f"tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large")
        depth += (subprog.stack_depth + 15) // 16 * 16
        if depth > MAX_BPF_STACK and any_tail_call:
            env.reject(EACCES, f"combined stack size of {frame + 1} calls is {depth}. Too large")
        if calls[number] and frame + 1 >= MAX_CALL_FRAMES:
            env.reject(E2BIG, f"the call stack of {frame + 1} frames is too deep !")
        todo += [(callee, depth, frame + 1) for callee in reversed(calls[number])]
    changed = True
    while changed:
        changed = False
        for subprog, callees in zip(env.subprogs, calls, strict=True):
            if not subprog.tail_call_reachable and any(env.subprogs[callee].tail_call_reachable for callee in callees):
                subprog.tail_call_reachable = changed = True


def _called(env: BpfVerifierEnv, number: int) -> list[int]:
    subprog = env.subprogs[number]
    return sorted(
        {
            env.subprog_at[i + insn.imm + 1]
            for i, insn in enumerate(env.insns[subprog.start : subprog.end], subprog.start)
            if (insn.code == BPF_JMP | BPF_CALL and insn.src_reg == BPF_PSEUDO_CALL)
            or (
                insn.code == LD_IMM64
                and insn.src_reg == BPF_PSEUDO_FUNC
                and not _begins_on_its_own(env, env.subprogs[env.subprog_at[i + insn.imm + 1]])
            )
        }
    )


def _begins_on_its_own(env: BpfVerifierEnv, subprog: SubprogInfo) -> bool:
    """A callback that runs later, on a stack of its own. Errors: EFAULT for one with a tail call, of which Linux never heard."""
    if subprog.is_async_cb and subprog.has_tail_call:
        env.reject(EFAULT, "verifier bug: subprog has tail_call and async cb")
    return subprog.is_async_cb
