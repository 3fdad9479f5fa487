"""The stack, for calls: which frame a pointer is into. The rules are the core's (stack_native.py)."""

from __future__ import annotations

from fastrtp.verifier.domain.state import BpfFuncState, BpfRegState
from fastrtp.verifier.rules.env import BpfVerifierEnv

READ, WRITE = 0, 1


def func(env: BpfVerifierEnv, reg: BpfRegState) -> BpfFuncState:
    """The frame that a stack pointer points into."""
    return env.cur_state.frame(reg.num)
