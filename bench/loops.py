"""The compiled loops that drive what is measured: IR text, so that neither numba nor a C compiler is in between.

A loop over events is one text: it makes an event's arguments or is given them, and gives them to a tracepoint (static key,
probes walked in the loop, as in a replay's) or to nobody. A barrier a round, so that LLVM neither drops nor folds it.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

from fastrtp.jit.program import NativeText
from fastrtp.native.records import TracepointRecord

_REPEAT = """
define i64 @loop(i64 %n, i64 %function, i64 %memory, i64 %length) {
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
}
"""
_EVENTS = """
define i64 @loop(i64 %n, i64 %keys, i64 %given, i64 %tracepoint, i64 %env) {{
entry:
  %made = alloca [3 x i64], align 16
  %made1 = getelementptr i8, ptr %made, i64 8
  %made2 = getelementptr i8, ptr %made, i64 16
  %args = {args}
  %args_at = ptrtoint ptr %args to i64
  %record = inttoptr i64 %tracepoint to ptr
  %key_at = getelementptr i8, ptr %record, i64 {key}
  %env_at = inttoptr i64 %env to ptr
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %next_event ]
{make}
  call void asm sideeffect "", "r,~{{memory}}"(ptr %args)
{fire}
next_event:
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret i64 %n
}}
declare i64 @trace_call{arity}(i64, i64, ptr)
"""
_MAKE = f"""  %mixed = mul i64 %i, {0x9E3779B1}
  %low = and i64 %mixed, {0xFFFFFFFF}
  %scaled = mul i64 %low, %keys
  %key = lshr i64 %scaled, 32
  store i64 %key, ptr %args, align 8
  store i64 %i, ptr %made1, align 8
  store i64 1, ptr %made2, align 8"""
_FIRE = """  %enabled = load atomic i64, ptr %key_at monotonic, align 8
  %off = icmp eq i64 %enabled, 0
  br i1 %off, label %next_event, label %run
run:
  %ignored = call i64 @trace_call{arity}(i64 %tracepoint, i64 %args_at, ptr %env_at)
  br label %next_event"""
_NOBODY = "  br label %next_event"


@functools.cache
def _compiled(text: str, parameters: int) -> tuple[NativeText, Callable[..., int]]:
    """(the code, which lives as long as it can be called; the function)."""
    code = NativeText("bench.loops", text, ["loop"])
    return code, ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * parameters)(code.addresses["loop"])


@functools.cache
def _events(arity: int, *, made: bool, fired: bool) -> Callable[..., int]:
    """loop(events, keys, arguments, tracepoint, env)."""
    args = "getelementptr i8, ptr %made, i64 0" if made else "inttoptr i64 %given to ptr"
    text = _EVENTS.format(
        args=args, key=TracepointRecord.layout.at("key"), make=_MAKE if made else "", arity=arity,
        fire=_FIRE.format(arity=arity) if fired else _NOBODY,
    )  # fmt: skip
    return _compiled(text, 5)[1]


def repeat(count: int, function: int, memory: int, length: int) -> int:
    """Call u64 function(memory, length) `count` times; the last result."""
    return _compiled(_REPEAT, 4)[1](count, function, memory, length)


def fire(events: int, keys: int, tracepoint: int, env: int) -> int:
    """`events` events {key, value, flags} with keys below `keys` through a tracepoint of three arguments."""
    return _events(3, made=True, fired=True)(events, keys, 0, tracepoint, env)


def fire_same(events: int, arity: int, arguments: int, tracepoint: int, env: int) -> int:
    """The same `arity` arguments (the address of u64[]) `events` times."""
    return _events(arity, made=False, fired=True)(events, 0, arguments, tracepoint, env)


def bare(events: int, keys: int) -> int:
    """The loop of fire() making the same arguments for nobody."""
    return _events(3, made=True, fired=False)(events, keys, 0, 0, 0)
