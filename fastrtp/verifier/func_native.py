"""Calls of the program's own functions, and returns from them; callbacks and global functions are Python's.

Kernel: kernel/bpf/verifier.c:check_func_call, setup_func_entry, prepare_func_exit.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load32, load64, memcpy, native, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import MAX_CALL_FRAMES, REG_SIZE, VENV, VINSN
from fastrtp.verifier.alu_insn_native import insn_imm
from fastrtp.verifier.call_native import clear_caller_saved_regs
from fastrtp.verifier.mem_native import E_INSN_IDX, insn_at
from fastrtp.verifier.reason import DO_CALL, DO_EXIT, OK, R_CALL_DEPTH, R_RETURN_STACK
from fastrtp.verifier.regtype import PTR_TO_STACK
from fastrtp.verifier.stack_native import say
from fastrtp.verifier.state_native import (
    E_CUR,
    F_CALLSITE,
    F_IN_CALLBACK,
    R_TYPE,
    T_NFRAMES,
    copy_reg,
    frame_of,
    reg_of,
    top_frame,
    verifier_push_frame,
)

E_LOGGED, E_FROM_CALLBACK = at(VENV, "logged"), at(VENV, "from_callback")
I_MEMO = at(VINSN, "memo")
MAX_ARGS = 5


@device
def enter_func(env: int, subprogno: int) -> int:
    """A frame for the function that the instruction calls; its first instruction is the next."""
    cur = load64(env + E_CUR)
    idx = load64(env + E_INSN_IDX)
    caller = top_frame(cur)
    callee = verifier_push_frame(cur, idx, subprogno)
    if callee == 0:
        return say(env, R_CALL_DEPTH, MAX_CALL_FRAMES + 1, 0, 0, 0)
    memcpy(reg_of(callee, 1), reg_of(caller, 1), MAX_ARGS * REG_SIZE)
    clear_caller_saved_regs(caller)
    store64(env + E_INSN_IDX, idx + 1 + insn_imm(insn_at(env)))
    return OK


@device
def check_func_call(env: int, insn: int) -> int:
    """A call whose function Python has found to be entered; DO_CALL where it has not, or shows it in the log."""
    number = load32(insn + I_MEMO)
    return DO_CALL if number == 0 or load64(env + E_LOGGED) != 0 else enter_func(env, number - 1)


@device
def leave_func(env: int) -> int:
    """Back behind the call, with R0. DO_EXIT: what ends is a callback, and goes on being the frame that runs."""
    cur = load64(env + E_CUR)
    count = load64(cur + T_NFRAMES)
    callee = frame_of(cur, count - 1)
    r0 = reg_of(callee, 0)
    if load32(r0 + R_TYPE) == PTR_TO_STACK:
        return say(env, R_RETURN_STACK, 0, 0, 0, 0)
    if load64(callee + F_IN_CALLBACK) != 0:
        return DO_EXIT
    copy_reg(reg_of(frame_of(cur, count - 2), 0), r0)
    store64(cur + T_NFRAMES, count - 1)
    store64(env + E_FROM_CALLBACK, 0)
    store64(env + E_INSN_IDX, load64(callee + F_CALLSITE) + 1)
    return OK


@device
def prepare_func_exit(env: int) -> int:
    """`leave_func`, unless the log shows it."""
    return DO_EXIT if load64(env + E_LOGGED) != 0 else leave_func(env)


@native()
def verifier_enter_func(venv: int, subprogno: int) -> int:
    """`enter_func` for Python."""
    return enter_func(venv, subprogno)


@native()
def verifier_leave_func(venv: int) -> int:
    """`leave_func` for Python."""
    return leave_func(venv)
