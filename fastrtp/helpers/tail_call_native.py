"""bpf_tail_call: which program comes next. Kernel: kernel/bpf/core.c:JMP_TAIL_CALL."""

from __future__ import annotations

from fastrtp.native.intrinsics import load64, native, store64
from fastrtp.native.layout import ENV, MAP, PROG, RUN_CTX, at
from fastrtp.uapi import MAX_TAIL_CALL_CNT

_VALUES = at(MAP, "values")
_MAX_ENTRIES = at(MAP, "max_entries")
_RUN_CTX = at(ENV, "run_ctx")
_TAIL_CALLS = at(RUN_CTX, "tail_calls")
_ENTRY = at(PROG, "entry")


@native(inline=True)
def bpf_tail_call(ctx: int, map: int, index: int, env: int) -> int:
    """Native entry of the program in slot `index`, or 0: no such slot, an empty one, or the 34th call of this run.

    A call counts when the slot holds a program, as in code that Linux's JIT makes for x86-64 (its interpreter counts first).
    Kernel: arch/x86/net/bpf_jit_comp.c:emit_bpf_tail_call_indirect
    """
    index &= 0xFFFFFFFF
    if index >= load64(map + _MAX_ENTRIES):
        return 0
    run_ctx = load64(env + _RUN_CTX)
    calls = load64(run_ctx + _TAIL_CALLS)
    if calls >= MAX_TAIL_CALL_CNT:
        return 0
    prog = load64(load64(map + _VALUES) + index * 8)
    if prog == 0:
        return 0
    store64(run_ctx + _TAIL_CALLS, calls + 1)
    return load64(prog + _ENTRY)
