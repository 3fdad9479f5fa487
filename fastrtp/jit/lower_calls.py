"""Calls: helpers, subprograms, tail calls, and bpf_loop expanded in place."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fastrtp.uapi import BPF_MAX_LOOPS

if TYPE_CHECKING:
    from fastrtp.jit.lower import Area
    from fastrtp.jit.lower_function import FunctionLowering

_TAIL_CALL_FAILED = -errno.EINVAL
KERNEL_AREA = "kernel_area"
"""Native function that looks whether memory of a kernel object is there."""


def call(out: FunctionLowering, index: int) -> None:
    """The helper call at `index`: r0 is its result, r1 to r5 are gone."""
    target = out.module.target(index)
    callback = None if out.aux is None else out.aux[index].callback
    if target.kind == "tail_call":
        _tail_call(out, index)
        return
    if target.kind == "loop" and callback is not None:
        result = _loop(out, out.module.function_name(out.module.subprog_at(index, callback)))
    else:
        first = f"ptrtoint (ptr {out.module.declare_global(target.first)} to i64)" if target.first else out.regs.full(1)
        values = [first, *(out.regs.full(register) for register in range(2, target.args + 1))][: target.args]
        for area in target.areas:
            values[area.register - 1] = _area(out, area)
        arguments = [f"i64 {value}" for value in values]
        types = ", ".join(["i64"] * target.args + ["ptr"] + [_type(extra) for extra in target.extra])
        name = out.module.declare(target.symbol, types)
        result = out.emit(f"call i64 {name}({', '.join([*arguments, 'ptr %env', *target.extra])}){out.module.call_suffix}")
    _returned(out, index, result)


def _area(out: FunctionLowering, area: Area) -> str:
    """Address of an argument that may be memory of a kernel object, or of zeros where that is not all there."""
    zeros = out.module.zeros(area.size)
    null = "0" if area.nullable else zeros
    name = out.module.declare(KERNEL_AREA, "i64, i64, i64, i64, ptr")
    operands = f"i64 {out.regs.full(area.register)}, i64 {out.regs.full(area.register + 1)}, i64 {zeros}, i64 {null}"
    return out.emit(f"call i64 {name}({operands}, ptr %env)")


def call_subprog(out: FunctionLowering, index: int) -> None:
    """A bpf-to-bpf call. Registers that the callee does not read are passed as 0."""
    name = out.module.function_name(out.module.subprog_at(index, index + 1 + out.insns[index].imm))
    used = out.module.arguments(index)
    _returned(out, index, out.emit(_subprog(name, [out.regs.full(r) if used >> r & 1 else "0" for r in range(1, 6)])))


def _subprog(name: str, arguments: list[str]) -> str:
    return f"call i64 {name}({', '.join(f'i64 {argument}' for argument in arguments)}, ptr %env)"


def _returned(out: FunctionLowering, index: int, result: str) -> None:
    for register in range(1, 6):
        out.regs.set_full(register, "0")
    out.define(0, result, f"p{index}")


def _type(operand: str) -> str:
    return operand.rsplit(maxsplit=1)[0]


def _tail_call(out: FunctionLowering, index: int) -> None:
    # The next program replaces this one. From a subprogram it replaces that: its result goes to the caller.
    target = out.module.target(index)
    regs = out.regs
    arguments = [f"i64 {regs.full(register)}" for register in (1, 2, 3)]
    types = ", ".join(["i64"] * 3 + ["ptr"] + [_type(extra) for extra in target.extra])
    name = out.module.declare(target.symbol, types)
    context = regs.pointer(1)
    entry = out.emit(f"call i64 {name}({', '.join([*arguments, 'ptr %env', *target.extra])})")
    missing = out.emit(f"icmp eq i64 {entry}, 0")
    go, stay = out.label(), out.label()
    out.line(f"br i1 {missing}, label %{stay}, label %{go}")
    out.begin(go)
    function = out.emit(f"inttoptr i64 {entry} to ptr")
    must = "musttail" if out.number == 0 else "tail"
    result = out.emit(f"{must} call i64 {function}(ptr {context}, ptr %env)")
    out.line(f"ret i64 {result}")
    out.begin(stay)
    _returned(out, index, str(_TAIL_CALL_FAILED))


def _loop(out: FunctionLowering, callback: str) -> str:
    """bpf_loop(nr_loops, callback, ctx, flags). Kernel: kernel/bpf/bpf_iter.c:bpf_loop, verifier.c:inline_bpf_loop."""
    regs = out.regs
    count32, context, flags = regs.low(1), regs.full(3), regs.full(4)
    count = out.emit(f"zext i32 {count32} to i64")
    flagged = out.emit(f"icmp ne i64 {flags}, 0")
    many = out.emit(f"icmp ugt i64 {count}, {BPF_MAX_LOOPS}")
    error = out.emit(f"select i1 {flagged}, i64 {-errno.EINVAL}, i64 {-errno.E2BIG}")
    bad = out.emit(f"or i1 {flagged}, {many}")
    before, head, body, done = (out.label() for _ in range(4))
    out.line(f"br label %{before}")
    out.begin(before)
    out.line(f"br i1 {bad}, label %{done}, label %{head}")
    out.begin(head)
    step = out.label()
    at = out.emit(f"phi i64 [ 0, %{before} ], [ %{step}.next, %{body} ]")
    more = out.emit(f"icmp ult i64 {at}, {count}")
    out.line(f"br i1 {more}, label %{body}, label %{done}")
    out.begin(body)
    stop = out.emit(_subprog(callback, [at, context, "0", "0", "0"]))
    out.line(f"%{step}.next = add i64 {at}, 1")
    stopped = out.emit(f"icmp ne i64 {stop}, 0")
    out.line(f"br i1 {stopped}, label %{done}, label %{head}")
    out.begin(done)
    return out.emit(f"phi i64 [ {error}, %{before} ], [ {at}, %{head} ], [ %{step}.next, %{body} ]")
