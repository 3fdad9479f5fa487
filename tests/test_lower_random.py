"""Random programs: the JIT and the reference interpreter must agree on r0 and on every byte of memory.

Programs are forward-branching, with bounded loops around some parts, calls to subprograms, and memory accesses that stay
inside: the stack at constant and at varying offsets, and the given memory likewise. No register holds an address that
could be seen in a result, because the two sides have different addresses.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpreter import Interpreter
from native_code import Facts, NativeCode

from fastrtp.errors import JitError
from fastrtp.isa import OPCODES, Insn, Kind, Row, assemble, decode
from fastrtp.jit.lower import CallTarget, LowerInput, find_subprogs, lower
from fastrtp.native import engine

MEM_SIZE = 64
SCALARS = [0, 2, 3, 4, 5, 7, 8]
MEM, STACK = 6, 9
POINTER_SLOT, COUNTER_SLOT = -80, -72
INTERESTING = [0, 1, -1, 2, 7, 8, 31, 32, 33, 63, 64, 127, 128, 255, 256, 32767, 65535, (1 << 31) - 1, -(1 << 31)]
IMM = st.one_of(st.sampled_from(INTERESTING), st.integers(-(1 << 31), (1 << 31) - 1))
REGISTER = st.sampled_from(SCALARS)
SCALAR_ROWS = [row for row in OPCODES if row.kind in (Kind.ALU, Kind.MOV, Kind.MOVSX, Kind.NEG, Kind.END, Kind.BSWAP)]
MEMORY_ROWS = [row for row in OPCODES if row.kind in (Kind.LOAD, Kind.STORE, Kind.STORE_IMM, Kind.ATOMIC)]
BRANCH_ROWS = [row for row in OPCODES if row.kind is Kind.BRANCH]


def _insn(row: Row, dst: int, src: int, off: int, imm: int) -> Insn:
    operands = row.operands
    return Insn(
        row.code,
        dst if "dst_reg" in operands else 0,
        src if "src_reg" in operands else row.src_reg or 0,
        off if "off" in operands else row.off or 0,
        imm if "imm" in operands else row.imm or 0,
    )


@st.composite
def scalar(draw: Any) -> list[Insn]:
    """One ALU instruction on registers that hold no address."""
    return [_insn(draw(st.sampled_from(SCALAR_ROWS)), draw(REGISTER), draw(REGISTER), 0, draw(IMM))]


@st.composite
def constant(draw: Any) -> list[Insn]:
    """An ld_imm64."""
    return [Insn(0x18, draw(REGISTER), 0, 0, draw(IMM)), Insn(0, 0, 0, 0, draw(IMM))]


@st.composite
def memory(draw: Any) -> list[Insn]:
    """An access inside the stack's last 64 bytes or the given memory, at a constant or at a varying offset."""
    row = draw(st.sampled_from(MEMORY_ROWS))
    size = row.size // 8
    stack = draw(st.booleans())
    step = size if row.kind is Kind.ATOMIC else 1
    off = draw(st.integers(0, (MEM_SIZE - size) // step)) * step
    value = draw(REGISTER)
    before: list[Insn] = []
    base, low = (10, -MEM_SIZE) if stack else (MEM, 0)
    if not stack and draw(st.booleans()):  # an address that was loaded
        base = 1
        before = [Insn(0x79, 1, 10, POINTER_SLOT)]
        if draw(st.booleans()):
            before += [Insn(0x07, 1, 0, 0, 3), Insn(0x07, 1, 0, 0, -3)]
    elif draw(st.booleans()):
        # r1 = base; r1 += value & mask: what the compiler makes of an array index
        mask = 7 if off + size + 7 <= MEM_SIZE and step == 1 else 0
        index = draw(REGISTER)
        before = [Insn(0xBF, 1, index), Insn(0x57, 1, 0, 0, mask), Insn(0x0F, 1, base)]
        if draw(st.booleans()):
            before = [Insn(0xBF, 1, base), Insn(0xBF, STACK, index), Insn(0x57, STACK, 0, 0, mask), Insn(0x0F, 1, STACK)]
        base = 1
    loads = row.kind is Kind.LOAD or row.op == "load_acquire"
    return [*before, _insn(row, value if loads else base, base if loads else value, low + off, draw(IMM))]


@st.composite
def straight(draw: Any) -> list[Insn]:
    """A few instructions without a jump."""
    parts = draw(st.lists(st.one_of(scalar(), scalar(), memory(), constant()), min_size=1, max_size=6))
    return [insn for part in parts for insn in part]


@st.composite
def branchy(draw: Any, depth: int = 2) -> list[Insn]:
    """Straight code, two-way branches around code, and counted loops."""
    shape = draw(st.sampled_from(["straight", "if", "if-else", "loop", "sequence"] if depth else ["straight"]))
    if shape == "straight":
        return list(draw(straight()))
    body: list[Insn] = draw(branchy(depth - 1))
    row = draw(st.sampled_from(BRANCH_ROWS))
    dst, src, imm = draw(REGISTER), draw(REGISTER), draw(IMM)
    if shape == "if":
        return [_insn(row, dst, src, len(body), imm), *body]
    if shape == "if-else":
        other = draw(branchy(depth - 1))
        return [_insn(row, dst, src, len(body) + 1, imm), *body, Insn(0x05, 0, 0, len(other)), *other]
    if shape == "loop" and depth == 2:  # the counter lives on the stack, out of the body's reach
        turns = draw(st.integers(1, 4))
        return [
            Insn(0x7A, 10, 0, COUNTER_SLOT, turns),
            *body,
            Insn(0x79, 1, 10, COUNTER_SLOT),
            Insn(0x07, 1, 0, 0, -1),
            Insn(0x7B, 10, 1, COUNTER_SLOT),
            Insn(0x55, 1, 0, -len(body) - 4, 0),
        ]
    rest: list[Insn] = draw(branchy(depth - 1))
    return body + rest


@st.composite
def programs(draw: Any) -> list[Insn]:
    """Initialise, compute, fold all registers into r0; perhaps with a subprogram that does the same to two arguments."""
    prologue = assemble(
        f"r6 = r1\n*(u64 *)(r10 {POINTER_SLOT}) = r1\n"
        + "".join(f"*(u64 *)(r10 -{at}) = 0\n" for at in range(8, MEM_SIZE + 1, 8))
    )
    for register in SCALARS:
        prologue.append(Insn(0xB7, register, 0, 0, draw(IMM)))
    fold = assemble("\n".join(f"r0 *= 31\nr0 += r{register}" for register in SCALARS[1:]) + "\nexit")
    body = [insn for part in draw(st.lists(branchy(), min_size=1, max_size=3)) for insn in part]
    if not draw(st.booleans()):
        return prologue + body + fold
    sub = assemble(
        f"r6 = r1\n*(u64 *)(r10 {POINTER_SLOT}) = r1\n"
        + "".join(f"*(u64 *)(r10 -{at}) = {at}\n" for at in range(8, MEM_SIZE + 1, 8))
    )
    sub += assemble("r0 = 5\nr3 = 3\nr4 = 4\nr5 = r2\nr7 = 7\nr8 = 8") + draw(branchy()) + fold
    rest: list[Insn] = assemble("r2 = 2\nr3 = 3\nr4 = 4\nr5 = 5") + draw(straight()) + fold
    call = [*assemble("r1 = r6\nr2 = r7"), Insn(0x85, 0, 1, 0, len(rest))]
    return [*prologue, *body, *call, *rest, *sub]


FIELD = st.one_of(st.sampled_from([0, 1, 2, 10, -1, -8, 64]), st.integers(-(1 << 15), (1 << 15) - 1))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drawn=st.lists(st.tuples(st.sampled_from(OPCODES), st.integers(0, 11), st.integers(0, 11), FIELD, FIELD), max_size=12),
    noise=st.binary(max_size=32),
    at=st.integers(0, 12),
    verified=st.booleans(),
)
def test_any_instructions_are_lowered_or_refused(
    drawn: list[tuple[Row, int, int, int, int]], noise: bytes, at: int, verified: bool
) -> None:
    """No instructions, however wrong, give another error than JitError, or text that LLVM does not take."""
    insns: list[Insn] = []
    for row, dst, src, off, imm in drawn:
        insns.append(_insn(row, dst, src, off, imm))
        if row.kind is Kind.LD_IMM64:
            insns.append(Insn(0))
    insns[at:at] = decode(noise[: len(noise) // 8 * 8])
    insns += assemble("exit")
    facts = [Facts(seen=index % 7 != 3, access="btf", callback=len(insns) - 1) for index in range(len(insns))]
    kind = ("helper", "tail_call", "loop", "for_each")[at % 4]
    try:
        program = LowerInput(
            "p",
            insns,
            find_subprogs(insns),
            facts if verified else None,
            lambda index, insn: CallTarget("helper", ("i64 1",), args=4, kind=kind),
            lambda index: "map",
            smp=verified,
        )
        text = lower(program)
    except JitError:
        return
    engine.parse(text)


@pytest.mark.parametrize("smp", [False, True], ids=["up", "smp"])
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(insns=programs(), mem=st.binary(min_size=MEM_SIZE, max_size=MEM_SIZE))
def test_jit_and_interpreter_agree(smp: bool, insns: list[Insn], mem: bytes) -> None:
    """Same r0, same memory."""
    interpreter = Interpreter(insns, bytearray(mem))
    expected = interpreter.run()

    assert NativeCode(insns, smp=smp).run(mem) == (expected, bytes(interpreter.mem))
