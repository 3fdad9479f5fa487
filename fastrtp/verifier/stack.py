"""The stack, for calls: areas that helpers fill, keys that are known. The rules are the core's (stack_native.py).

Kernel: kernel/bpf/verifier.c:mark_stack_slots, get_constant_map_key.
"""

from __future__ import annotations

from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.state import BpfFuncState, BpfRegState
from fastrtp.verifier.tnum import U64

READ, WRITE = 0, 1


def func(env: BpfVerifierEnv, reg: BpfRegState) -> BpfFuncState:
    """The frame that a stack pointer points into."""
    return env.cur_state.frame(reg.num)


def mark_stack_written(env: BpfVerifierEnv, regno: int, size: int) -> None:
    """A helper filled `size` bytes at the fixed offset in a register: they are data now."""
    env.lib.verifier_mark_stack_written(env.address, regno, size)


def constant_map_key(env: BpfVerifierEnv, regno: int, key_size: int) -> int | None:
    """The key that a stack pointer points at, when it is one known number."""
    return env.a & U64 if env.lib.verifier_constant_map_key(env.address, regno, key_size) else None
