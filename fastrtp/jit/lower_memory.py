"""Atomics, and loads that are checked against the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.isa import Insn, Row
from fastrtp.native.records import Env

if TYPE_CHECKING:
    from fastrtp.jit.lower_function import FunctionLowering

_ENV_FAULTED = Env.layout.at("faulted")


def atomic(out: FunctionLowering, insn: Insn, row: Row) -> None:
    """An atomic instruction: locked with `smp`, otherwise a plain load, operation and store.

    Those that fetch are fully ordered, the others relaxed, as in the kernel's memory model.
    """
    regs, bits = out.regs, row.size
    kind, align = f"i{bits}", bits // 8
    smp = out.module.program.smp
    if row.op == "load_acquire":
        address = regs.pointer(insn.src_reg, insn.off, align)
        order = f"atomic {kind}, ptr {address} acquire, align {align}" if smp else f"{kind}, ptr {address}, align 1"
        _set(out, insn.dst_reg, bits, out.emit(f"load {order}"))
        return
    address = regs.pointer(insn.dst_reg, insn.off, align)
    value = _get(out, insn.src_reg, bits)
    if row.op == "store_release":
        if smp:
            out.line(f"store atomic {kind} {value}, ptr {address} release, align {align}")
        else:
            out.line(f"store {kind} {value}, ptr {address}, align 1")
    elif row.op == "cmpxchg":
        _set(out, 0, bits, _cmpxchg(out, kind, address, _get(out, 0, bits), value))
    else:
        op = row.op.removeprefix("fetch_")
        fetch = op != row.op or op == "xchg"
        if smp:
            old = out.emit(f"atomicrmw {op} ptr {address}, {kind} {value} {'seq_cst' if fetch else 'monotonic'}")
        else:
            old = out.emit(f"load {kind}, ptr {address}, align 1")
            new = value if op == "xchg" else out.emit(f"{op} {kind} {old}, {value}")
            out.line(f"store {kind} {new}, ptr {address}, align 1")
        if fetch:
            _set(out, insn.src_reg, bits, old)


def _cmpxchg(out: FunctionLowering, kind: str, address: str, expected: str, new: str) -> str:
    if out.module.program.smp:
        pair = out.emit(f"cmpxchg ptr {address}, {kind} {expected}, {kind} {new} seq_cst seq_cst")
        return out.emit(f"extractvalue {{ {kind}, i1 }} {pair}, 0")
    old = out.emit(f"load {kind}, ptr {address}, align 1")
    equal = out.emit(f"icmp eq {kind} {old}, {expected}")
    stored = out.emit(f"select i1 {equal}, {kind} {new}, {kind} {old}")
    out.line(f"store {kind} {stored}, ptr {address}, align 1")
    return old


def _get(out: FunctionLowering, register: int, bits: int) -> str:
    if bits == 64:
        return out.regs.full(register)
    low = out.regs.low(register)
    return low if bits == 32 else out.emit(f"trunc i32 {low} to i{bits}")


def _set(out: FunctionLowering, register: int, bits: int, value: str) -> None:
    if bits == 64:
        out.regs.set_full(register, value)
    elif bits == 32:
        out.regs.set_low(register, value)
    else:
        out.regs.set_full(register, out.emit(f"zext i{bits} {value} to i64"))


def checked_load(out: FunctionLowering, insn: Insn, row: Row) -> str:
    """Load of `row.size` bits if all of them are in the arena; otherwise 0, and the CPU's fault count grows.

    Kernel: arch/x86/mm/extable.c:ex_handler_bpf (a faulting BPF load gives 0).
    """
    kind, size = f"i{row.size}", row.size // 8
    start = out.regs.full(insn.src_reg)
    address = out.emit(f"add i64 {start}, {insn.off}") if insn.off else start
    base = out.emit(f"load i64, ptr {_env(out, Env.layout.at('arena_base'))}, !invariant.load !0")
    limit = out.emit(f"load i64, ptr {_env(out, Env.layout.at('arena_size'))}, !invariant.load !0")
    offset = out.emit(f"sub i64 {address}, {base}")
    last = out.emit(f"sub i64 {limit}, {size}")
    inside = out.emit(f"icmp ule i64 {offset}, {last}")
    load, fault, done = out.label(), out.label(), out.label()
    out.line(f"br i1 {inside}, label %{load}, label %{fault}, !prof !1")
    out.begin(load)
    pointer = out.emit(f"inttoptr i64 {address} to ptr")
    value = out.emit(f"load {kind}, ptr {pointer}, align 1")
    out.line(f"br label %{done}")
    out.begin(fault)
    counter = _env(out, _ENV_FAULTED)
    faulted = out.emit(f"load i64, ptr {counter}")
    faulted = out.emit(f"add i64 {faulted}, 1")
    out.line(f"store i64 {faulted}, ptr {counter}")
    out.line(f"br label %{done}")
    out.begin(done)
    return out.emit(f"phi {kind} [ {value}, %{load} ], [ 0, %{fault} ]")


def _env(out: FunctionLowering, offset: int) -> str:
    return out.emit(f"getelementptr i8, ptr %env, i64 {offset}")
