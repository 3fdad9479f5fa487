"""Callbacks that run later, when the program is long over: those of bpf_timer.

Each (function, map) is verified once, from a state of its own: what it is entered with depends on nothing else.
Kernel: kernel/bpf/verifier.c:push_async_cb, set_timer_callback_state, check_return_code.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import Any

from fastrtp.verifier.domain.bounds import S64_MAX, S64_MIN, ZERO
from fastrtp.verifier.domain.regtype import CONST_PTR_TO_MAP, PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, SCALAR_VALUE, reg_type_str
from fastrtp.verifier.domain.state import BpfRegState
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.mem import check_reg_read
from fastrtp.verifier.rules.precision import mark_reg_precise


def push_async_cb(env: BpfVerifierEnv, subprogno: int, found: Any) -> None:
    """The function will be called with an element of the map. Kernel: push_async_cb."""
    env.subprogs[subprogno].is_async_cb = True
    env.async_callbacks.setdefault((subprogno, id(found)), found)


def do_check_async_callbacks(env: BpfVerifierEnv, do_check: Callable[[BpfVerifierEnv], None]) -> bool:
    """Verify the callbacks that were given so far, and those that they give; whether there were new ones. Raises Refusal."""
    before = len(env.async_verified)
    while todo := [key for key in env.async_callbacks if key not in env.async_verified]:
        for key in todo:
            env.async_verified.add(key)
            subprogno, found = key[0], env.async_callbacks[key]
            env.restart(subprogno)
            frame = env.frame
            frame.in_async_callback_fn = 1
            frame.callback_ret_range = (0, 0)
            frame.regs[1] = BpfRegState(CONST_PTR_TO_MAP, ZERO, map=found)
            frame.regs[2] = BpfRegState(PTR_TO_MAP_KEY, ZERO, map=found)
            frame.regs[3] = BpfRegState(PTR_TO_MAP_VALUE, ZERO, id=env.new_id(), map=found)
            env.insn_log.begin()
            do_check(env)
            env.log.reset(0)
    return len(env.async_verified) > before


def check_async_return(env: BpfVerifierEnv) -> None:
    """R0 where such a callback ends: in its range. Errors: EINVAL."""
    reg = check_reg_read(env, 0)
    if reg.type != SCALAR_VALUE:
        env.reject(EINVAL, f"At async callback return the register R0 is not a known value ({reg_type_str(reg.type)})")
    mark_reg_precise(env, 0)
    check_return_range(env, "async callback", reg, env.frame.callback_ret_range or (0, 0))


def check_return_range(env: BpfVerifierEnv, returns: str, reg: BpfRegState, allowed: tuple[int, int]) -> None:
    """A returned number lies between two bounds. Errors: EINVAL. Kernel: retval_range_within, verbose_invalid_scalar."""
    low, high = allowed
    b = reg.bounds
    if b.smin_value >= low and b.smax_value <= high:
        return
    text = f" smin={b.smin_value}" if b.smin_value > S64_MIN else ""
    text += f" smax={b.smax_value}" if b.smax_value < S64_MAX else ""
    text = text or " unknown scalar value"
    env.reject(EINVAL, f"At {returns} return the register R0 has{text} should have been in [{low}, {high}]")
