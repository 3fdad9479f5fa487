"""Programs called directly: a compiled loop that makes a context of three arguments and calls a program's entry, nothing between.

What `loops.fire` costs more than this is the way from the event to the program; `loops.bare` is this without the call.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

from bench.machine import Machine
from bench.rings import pieces, rings
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.jit.program import NativeProgram, NativeText, compile_program

_IR = f"""
define i64 @direct(i64 %n, i64 %keys, i64 %entry_at, i64 %env) {{
entry:
  %args = alloca [3 x i64], align 16
  %args1 = getelementptr i8, ptr %args, i64 8
  %args2 = getelementptr i8, ptr %args, i64 16
  %target = inttoptr i64 %entry_at to ptr
  %env_at = inttoptr i64 %env to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %mixed = mul i64 %i, {0x9E3779B1}
  %low = and i64 %mixed, {0xFFFFFFFF}
  %scaled = mul i64 %low, %keys
  %key = lshr i64 %scaled, 32
  store i64 %key, ptr %args, align 8
  store i64 %i, ptr %args1, align 8
  store i64 1, ptr %args2, align 8
  call void asm sideeffect "", "r,~{{memory}}"(ptr %args)
  %ignored = call i64 %target(ptr %args, ptr %env_at)
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %n
}}
"""


@functools.cache
def _code() -> tuple[NativeText, Callable[..., int]]:
    code = NativeText("bench.direct", _IR, ["direct"])
    return code, ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 4)(code.addresses["direct"])


class Direct:
    """A program of the transition suite, compiled once more with other options, on the same maps."""

    def __init__(self, here: Machine, name: str, options: CodeOptions = DEFAULT) -> None:
        prog: Any = here.obj.programs[name].prog
        self._memory = here.kernel.memory
        maps = [bpf_map.map for bpf_map in prog.used_maps]
        self._rings = rings(prog.used_maps)
        self.native: NativeProgram = compile_program(prog.verified, maps, name, self._memory, options)

    def run(self, events: int, keys: int = 1024) -> None:
        """Call it `events` times with keys below `keys`."""
        memory = self._memory
        memory.lib.machine_enter(memory.machine_address)
        try:
            for piece in pieces(events, self._rings):
                _code()[1](piece, keys, self.native.entry, memory.env_of(0))
        finally:
            memory.lib.machine_leave(memory.machine_address)
