"""Calls of the program's own functions, and returns from them; callbacks and global functions are Python's.

Kernel: kernel/bpf/verifier.c:check_func_call, setup_func_entry, prepare_func_exit.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, memcpy, native
from fastrtp.verifier.core.call_native import clear_caller_saved_regs
from fastrtp.verifier.core.mem_native import insn_at
from fastrtp.verifier.core.reason import DO_CALL, DO_EXIT, OK, R_CALL_DEPTH, R_RETURN_STACK
from fastrtp.verifier.core.stack_native import say
from fastrtp.verifier.core.state_native import (
    copy_reg,
    frame_of,
    reg_of,
    top_frame,
    verifier_push_frame,
)
from fastrtp.verifier.domain.records import MAX_CALL_FRAMES, REG_SIZE, VEnv, VFrame, VInsn
from fastrtp.verifier.domain.regtype import PTR_TO_STACK

MAX_ARGS = 5


@device
def enter_func(env: VEnv, subprogno: int) -> int:
    """A frame for the function that the instruction calls; its first instruction is the next."""
    cur = env.cur
    idx = env.insn_idx
    caller = top_frame(cur)
    callee = VFrame(verifier_push_frame(cur, idx, subprogno))
    if not callee:
        return say(env, R_CALL_DEPTH, MAX_CALL_FRAMES + 1, 0, 0, 0)
    memcpy(int(reg_of(callee, 1)), int(reg_of(caller, 1)), MAX_ARGS * REG_SIZE)
    clear_caller_saved_regs(caller)
    env.insn_idx = idx + 1 + insn_at(env).imm
    return OK


@device
def check_func_call(env: VEnv, insn: VInsn) -> int:
    """A call whose function Python has found to be entered; DO_CALL where it has not, or shows it in the log."""
    number = insn.memo
    return DO_CALL if number == 0 or env.logged != 0 else enter_func(env, number - 1)


@device
def leave_func(env: VEnv) -> int:
    """Back behind the call, with R0. DO_EXIT: what ends is a callback, and goes on being the frame that runs."""
    cur = env.cur
    count = cur.nframes
    callee = frame_of(cur, count - 1)
    r0 = reg_of(callee, 0)
    if r0.type == PTR_TO_STACK:
        return say(env, R_RETURN_STACK, 0, 0, 0, 0)
    if callee.in_callback_fn != 0:
        return DO_EXIT
    copy_reg(int(reg_of(frame_of(cur, count - 2), 0)), int(r0))
    cur.nframes = count - 1
    env.from_callback = 0
    env.insn_idx = callee.callsite + 1
    return OK


@device
def prepare_func_exit(env: VEnv) -> int:
    """`leave_func`, unless the log shows it."""
    return DO_EXIT if env.logged != 0 else leave_func(env)


@native()
def verifier_enter_func(venv: VEnv, subprogno: int) -> int:
    """`enter_func` for Python."""
    return enter_func(venv, subprogno)


@native()
def verifier_leave_func(venv: VEnv) -> int:
    """`leave_func` for Python."""
    return leave_func(venv)
