"""Lowering of what the instruction cases cannot show: helpers, maps, callbacks, tail calls, checked loads, dead code."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Sequence

import numpy as np
import pytest
from native_code import Facts, NativeCode

from fastrtp.errors import JitError
from fastrtp.isa import OPCODES, Insn, Kind, assemble
from fastrtp.jit.lower import CallTarget, LowerInput, find_subprogs, lower
from fastrtp.native.records import Env

ENTRY = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
TAIL = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)


def facts(insns: Sequence[Insn]) -> list[Facts]:
    """Plain facts for each instruction."""
    return [Facts() for _ in insns]


def address(function: object) -> int:
    """Native address of a ctypes callback."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0  # type: ignore[arg-type]


def optimised(code: NativeCode) -> str:
    """Optimised IR, the entry function alone."""
    return str(code.module)


def test_a_helper_gets_its_arguments_env_and_constants() -> None:
    """r1..r<args>, env, then the extra operands of the call's target."""
    seen: list[tuple[int, ...]] = []

    def body(*args: int) -> int:
        seen.append(args)
        return 7

    helper = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)(body)
    insns = assemble("r1 = 11\nr2 = 22\nr3 = 33\ncall 6\nr0 += 1\nexit")
    target = CallTarget("helper", ("i64 99",), args=2)
    code = NativeCode(insns, aux=facts(insns), resolve=lambda index, insn: target, symbols={"helper": address(helper)})

    assert code.function(None, 4096) == 8
    assert seen == [(11, 22, 4096, 99)]


@pytest.mark.parametrize("text", ["map[fd:0]", "map[idx:0]", "btf[id:0][fd:0]"])
def test_a_map_is_an_address(text: str) -> None:
    """ld_imm64 of a map gives the address of its symbol."""
    insns = assemble(f"r0 = {text}\nexit")
    code = NativeCode(insns, map_symbols=lambda index: f"map.{index}", symbols={"map.0": 0x1234_5678_9ABC})

    assert code.run(b"")[0] == 0x1234_5678_9ABC


@pytest.mark.parametrize("text", ["map[fd:0][0]+8", "map[idx:0][0]+8"])
def test_map_values_are_memory(text: str) -> None:
    """ld_imm64 of a map's values adds the instruction's offset; constant and varying indices reach the memory."""
    values = np.arange(100, 108, dtype=np.uint64)
    insns = assemble(
        f"""
        r3 = {text}
        r0 = *(u64 *)(r3 +8)
        r2 <<= 3
        r3 += r2
        r4 = *(u64 *)(r3 +0)
        *(u64 *)(r3 +8) = 5
        r0 <<= 8
        r0 += r4
        exit
        """
    )
    code = NativeCode(insns, map_symbols=lambda index: "values", symbols={"values": values.ctypes.data})

    assert code.run(b"abc")[0] == 102 << 8 | 104
    assert values[5] == 5


@pytest.mark.parametrize(
    ("count", "flags", "limit", "result", "calls"),
    [
        (5, 0, 99, 5, 5),
        (5, 0, 2, 3, 3),
        (0, 0, 99, 0, 0),
        (5, 1, 99, -errno.EINVAL, 0),
        ((1 << 23) + 1, 0, 9, -errno.E2BIG, 0),
        (1 << 32, 0, 9, 0, 0),
    ],
)
def test_bpf_loop_is_expanded(count: int, flags: int, limit: int, result: int, calls: int) -> None:
    """bpf_loop calls its callback in place: number of turns, early stop, errors."""
    insns = assemble(
        f"""
        *(u64 *)(r10 -8) = 0
        *(u64 *)(r10 -16) = {limit}
        r6 = r1
        r1 = {count} ll
        r2 = subprog[step]
        r3 = r10
        r3 += -8
        r4 = {flags}
        call bpf_loop
        r1 = *(u64 *)(r10 -8)
        *(u64 *)(r6 +0) = r1
        exit
        step:
        r3 = *(u64 *)(r2 +0)
        r3 += 1
        *(u64 *)(r2 +0) = r3
        r0 = 0
        r2 = *(u64 *)(r2 -8)
        if r1 < r2 goto out
        r0 = 1
        out: exit
        """
    )
    aux = facts(insns)
    call = next(index for index, insn in enumerate(insns) if insn.code == 0x85)
    aux[call].callback = find_subprogs(insns)[1][0]
    code = NativeCode(insns, aux=aux, resolve=lambda index, insn: CallTarget("no_such_symbol", args=4, kind="loop"))

    assert code.run(bytes(8)) == (result & (1 << 64) - 1, calls.to_bytes(8, "little"))


def test_a_callback_is_an_address_that_a_helper_calls() -> None:
    """Where the callback is not known the helper gets its address, and may call it with the subprogram's arguments."""
    callback = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5, ctypes.c_void_p)
    helper = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5, ctypes.c_void_p)(
        lambda r1, r2, r3, r4, r5, env: callback(r2)(r1, 2, 3, 4, 5, env) + 1
    )
    insns = assemble("r1 = 10\nr2 = subprog[cb]\ncall 6\nexit\ncb: r0 = r1\nr0 += r2\nr0 += r5\nexit")
    target = CallTarget("helper", kind="for_each")
    code = NativeCode(insns, aux=facts(insns), resolve=lambda index, insn: target, symbols={"helper": address(helper)})

    assert code.run(b"")[0] == 18


def test_tail_calls() -> None:
    """The next program replaces this one with the same context; without one the call fails and the program goes on."""
    context = ctypes.create_string_buffer(b"\x2a" + bytes(7))
    other = NativeCode(assemble("r0 = *(u8 *)(r1 +0)\nexit"))
    entries = {1: other.entry}
    seen: list[tuple[int, int, int]] = []

    def find(r1: int, r2: int, r3: int, env: int, extra: int) -> int:
        seen.append((r1 - ctypes.addressof(context), r2, extra))
        return entries.get(r3, 0)

    lookup = TAIL(find)
    insns = assemble(
        """
        r6 = r1
        r3 = r2
        r2 = 77
        call bpf_tail_call
        r6 = *(u8 *)(r6 +0)
        if r0 s< 0 goto +1
        r6 = 0
        r0 = r6
        r0 += 1000
        exit
        """
    )
    target = CallTarget("tail", ("i64 5",), args=3, kind="tail_call")
    code = NativeCode(insns, resolve=lambda index, insn: target, symbols={"tail": address(lookup)})

    assert code.function(ctypes.addressof(context), 1) == 42
    assert code.function(ctypes.addressof(context), 2) == 1042
    assert seen == [(0, 77, 5)] * 2


def test_a_tail_call_in_a_subprogram_returns_to_its_caller() -> None:
    """The subprogram is what is replaced."""
    context = ctypes.create_string_buffer(b"\x2a" + bytes(7))
    other = NativeCode(assemble("r0 = *(u8 *)(r1 +0)\nexit"))
    lookup = TAIL(lambda *args: other.entry)
    insns = assemble("call f\nr0 += 1\nexit\nf: r2 = 0\nr3 = 0\ncall bpf_tail_call\nr0 = 0\nexit")
    code = NativeCode(insns, resolve=lambda i, insn: CallTarget("tail", (), 3, "tail_call"), symbols={"tail": address(lookup)})

    assert code.function(ctypes.addressof(context), 0) == 43


@pytest.mark.parametrize(
    ("at", "bits", "result"),
    [
        (0, 64, 0x1716151413121110),
        (8, 64, 0x1F1E1D1C1B1A1918),
        (9, 64, None),
        (15, 8, 0x1F),
        (16, 8, None),
        (-1, 8, None),
        (14, 16, 0x1F1E),
        (15, 16, None),
    ],
)
def test_a_btf_load_is_checked(at: int, bits: int, result: int | None) -> None:
    """Inside the arena it is a load; a byte outside makes it 0 and counts a fault."""
    arena = np.arange(0x10, 0x20, dtype=np.uint8)
    env = np.zeros(1, Env.layout.dtype)
    env["arena_base"], env["arena_size"] = arena.ctypes.data, arena.size
    insns = assemble(f"r3 = *(u64 *)(r1 +0)\nr0 = *(u{bits} *)(r3 -100)\nr4 = 0\nif r0 == 0 goto +1\nr4 = 1\nexit")
    aux = facts(insns)
    aux[1].access = "btf"
    code = NativeCode(insns, aux=aux)
    context = (ctypes.c_uint64 * 1)((arena.ctypes.data + 100 + at) & (1 << 64) - 1)

    assert code.function(ctypes.addressof(context), env.ctypes.data) == (result or 0)
    assert env["faulted"][0] == (result is None)


@pytest.mark.parametrize("value", [0, 1, 4095, (1 << 64) - 1, 1 << 63])
def test_a_btf_load_of_any_address_is_safe(value: int) -> None:
    """NULL, the first page, the last byte: 0."""
    env = np.zeros(1, Env.layout.dtype)
    env["arena_base"], env["arena_size"] = 0x7000_0000_0000, 1 << 36
    insns = assemble("r3 = *(u64 *)(r1 +0)\nr0 = *(u64 *)(r3 +0)\nexit")
    aux = facts(insns)
    aux[1].access = "btf"
    code = NativeCode(insns, aux=aux)

    assert code.function(ctypes.addressof((ctypes.c_uint64 * 1)(value)), env.ctypes.data) == 0


def test_what_the_verifier_did_not_see_is_left_out() -> None:
    """A branch with one dead side goes to the other, and the dead instructions need no lowering."""
    insns = assemble("r0 = 1\nif r0 == 1 goto +2\ncall 65535\nexit\nr0 = 2\nexit")
    aux = facts(insns)
    aux[2].seen = aux[3].seen = False

    assert NativeCode(insns, aux=aux).run(b"")[0] == 2


def test_stack_slots_become_registers() -> None:
    """Constant-offset slots, also through copies of r10 and around a helper that sees a higher slot, leave no memory."""
    insns = assemble(
        """
        *(u64 *)(r10 -8) = 1
        *(u64 *)(r10 -32) = r2
        r3 = r10
        r3 += -24
        *(u32 *)(r3 +0) = r2
        *(u32 *)(r3 +4) = 7
        r1 = r10
        r1 += -8
        call 6
        r0 = *(u64 *)(r10 -32)
        r4 = *(u64 *)(r10 -24)
        r0 += r4
        exit
        """
    )
    helper = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)(lambda r1, env: 0)
    target = CallTarget("helper", args=1)
    code = NativeCode(insns, resolve=lambda index, insn: target, symbols={"helper": address(helper)})
    text = optimised(code)

    assert code.function(None, 5) == 5 + (7 << 32 | 5)
    assert text.count("store ") == 1
    assert text.count("load ") == 0
    assert text.count("alloca ") == 1


def test_a_helper_may_write_what_it_is_given() -> None:
    """Slots at and above the pointer that a helper gets are read again after the call."""

    def fill(r1: int, env: int) -> int:
        ctypes.memset(r1, 0x11, 16)
        return 0

    helper = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p)(fill)
    insns = assemble(
        "*(u64 *)(r10 -8) = 1\n*(u64 *)(r10 -16) = 2\n*(u64 *)(r10 -20) = 3\nr1 = r10\nr1 += -16\ncall 6\n"
        "r0 = *(u64 *)(r10 -8)\nr3 = *(u64 *)(r10 -16)\nr0 += r3\nr3 = *(u32 *)(r10 -20)\nr0 += r3\nexit"
    )
    code = NativeCode(insns, resolve=lambda i, insn: CallTarget("helper", args=1), symbols={"helper": address(helper)})

    assert code.function(None, 0) == 0x2222222222222222 + 3


def test_the_text_is_deterministic_and_names_are_quoted() -> None:
    """Same input, same text (the object cache's key); any program name is a legal symbol."""
    insns = assemble("call f\nexit\nf: r0 = 3\nexit")
    program = LowerInput('1 "odd"\n\u00e9', insns, find_subprogs(insns))

    assert lower(program) == lower(program)
    assert 'define i64 @"1 \\22odd\\22\\0a\\c3\\a9"(' in lower(program)


def test_every_row_is_lowered_or_refused_by_name() -> None:
    """No row falls through: an instruction of each is compiled or raises JitError with its name."""
    for row in OPCODES:
        insns = [Insn(row.code, 0, row.src_reg or 0, row.off or 0, row.imm or 0)]
        if row.kind is Kind.LD_IMM64:
            insns.append(Insn(0))
        if row.op in ("func", "call") and row.kind is not Kind.CALL:
            insns[0] = insns[0]._replace(imm=len(insns))
        insns += assemble("exit\nr0 = 0\nexit" if row.op in ("func", "call") else "exit")
        resolve = lambda index, insn: CallTarget("helper")  # noqa: E731
        program = LowerInput("p", insns, find_subprogs(insns), None, resolve, lambda index: "map")
        if row.kind is Kind.UNSUPPORTED:
            with pytest.raises(JitError, match=f"{row.name} is not supported"):
                lower(program)
        else:
            assert "define i64 @p(" in lower(program)


def test_stack_that_was_never_written_reads_as_zero_everywhere() -> None:
    """Undefined, it could be one value in a bounds check and another as an index."""
    text = lower(LowerInput(name="p", insns=assemble("r0 = *(u64 *)(r10 -8)\nexit"), subprogs=[(0, 2)]))

    assert "store i64 0, ptr %fp.8" in text


def test_a_function_that_no_path_reaches_has_an_address_and_nothing_else() -> None:
    """The verifier never looked at it: a store past its frame is no error (programs of the fuzzer's)."""
    insns = assemble("r2 = subprog[pc+3]\nr0 = 0\nexit\n*(u64 *)(r10 -2) = r1\nr0 = 0\nexit")
    aux = [Facts(seen=index < 4) for index in range(len(insns))]

    text = lower(LowerInput(name="p", insns=insns, subprogs=[(0, 4), (4, 7)], aux=aux))

    assert "define internal i64 @p.sub1(i64, i64, i64, i64, i64, ptr) #0 {\n  ret i64 0\n}" in text
