"""bpf_tail_call: which program comes next. Kernel: kernel/bpf/core.c:JMP_TAIL_CALL."""

from __future__ import annotations

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import load64, native
from fastrtp.native.records import Env, Prog
from fastrtp.uapi import MAX_TAIL_CALL_CNT


@native(inline=True)
def bpf_tail_call(ctx: int, map: MapRecord, index: int, env: Env) -> int:
    """Native entry of the program in slot `index`, or 0: no such slot, an empty one, or the 34th call of this run; or a program
    that reads more of its context than there is (a read that faults). Linux lets it read what its stack holds behind.

    A call counts when the slot holds a program, as in code that Linux's JIT makes for x86-64 (its interpreter counts first).
    Kernel: arch/x86/net/bpf_jit_comp.c:emit_bpf_tail_call_indirect
    """
    index &= 0xFFFFFFFF
    if index >= map.max_entries:
        return 0
    run_ctx = env.run_ctx
    calls = run_ctx.tail_calls
    if calls >= MAX_TAIL_CALL_CNT:
        return 0
    prog = Prog(load64(map.values + index * 8))
    if not prog:
        return 0
    if prog.ctx_size > run_ctx.ctx_size:
        env.faulted += 1
        return 0
    run_ctx.tail_calls = calls + 1
    return prog.entry
