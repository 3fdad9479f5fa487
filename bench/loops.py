"""The compiled loops that drive what is measured: IR text, so that neither numba nor a C compiler is in between.

Every loop has an empty twin, and a barrier a round, so that LLVM neither drops nor folds it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from fastrtp.jit.program import NativeText
from fastrtp.native.layout import TRACEPOINT, at

_IR = f"""
define i64 @repeat(i64 %n, i64 %function, i64 %memory, i64 %length) {{
entry:
  %target = inttoptr i64 %function to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %result = call i64 %target(i64 %memory, i64 %length)
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %result
}}

define i64 @fire(i64 %n, i64 %keys, i64 %trace, i64 %tracepoint, i64 %env) {{
entry:
  %args = alloca [3 x i64], align 16
  %args1 = getelementptr i8, ptr %args, i64 8
  %args2 = getelementptr i8, ptr %args, i64 16
  %target = inttoptr i64 %trace to ptr
  %record = inttoptr i64 %tracepoint to ptr
  %key_at = getelementptr i8, ptr %record, i64 {at(TRACEPOINT, "key")}
  %args_at = ptrtoint ptr %args to i64
  %env_at = inttoptr i64 %env to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %next_event ]
  %mixed = mul i64 %i, {0x9E3779B1}
  %low = and i64 %mixed, {0xFFFFFFFF}
  %scaled = mul i64 %low, %keys
  %key = lshr i64 %scaled, 32
  store i64 %key, ptr %args, align 8
  store i64 %i, ptr %args1, align 8
  store i64 1, ptr %args2, align 8
  call void asm sideeffect "", "r,~{{memory}}"(ptr %args)
  %enabled = load atomic i64, ptr %key_at monotonic, align 8
  %off = icmp eq i64 %enabled, 0
  br i1 %off, label %next_event, label %run
run:
  %ignored = call i64 %target(i64 %tracepoint, i64 %args_at, ptr %env_at)
  br label %next_event
next_event:
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %n
}}

define i64 @bare(i64 %n, i64 %keys) {{
entry:
  %args = alloca [3 x i64], align 16
  %args1 = getelementptr i8, ptr %args, i64 8
  %args2 = getelementptr i8, ptr %args, i64 16
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
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %n
}}
"""

_ARITY = {"repeat": 4, "fire": 5, "bare": 2}


@functools.cache
def _code() -> NativeText:
    return NativeText("bench.loops", _IR, list(_ARITY))


@functools.cache
def _loop(name: str) -> Callable[..., int]:
    arity = _ARITY[name]
    function: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * arity)(_code().addresses[name])
    return function


def repeat(count: int, function: int, memory: int, length: int) -> int:
    """Call u64 function(memory, length) `count` times; the last result."""
    return _loop("repeat")(count, function, memory, length)


def fire(events: int, keys: int, trace_call: int, tracepoint: int, env: int) -> int:
    """`events` events {key, value, flags} with keys below `keys` through a tracepoint: static key, trace_call3."""
    return _loop("fire")(events, keys, trace_call, tracepoint, env)


def bare(events: int, keys: int) -> int:
    """The same loop making the same arguments for nobody."""
    return _loop("bare")(events, keys)
