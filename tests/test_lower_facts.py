"""What the optimiser is given to work with, by what it made of it: facts about the optimised IR, not speed."""

from __future__ import annotations

import re
from dataclasses import replace

from native_code import Facts, NativeCode

from fastrtp.isa import assemble
from fastrtp.jit.lower import CallTarget, LowerInput, find_subprogs, lower
from fastrtp.native import engine


def program(text: str, **more: object) -> LowerInput:
    """A program without a verifier."""
    insns = assemble(text)
    return replace(LowerInput("prog", insns, find_subprogs(insns)), **more)  # type: ignore[arg-type]


def optimised(source: LowerInput) -> str:
    """The IR after LLVM's pipeline."""
    module = engine.parse(lower(source))
    engine.optimise(module)
    return str(module)


ROTATE = """
    r0 = *(u32 *)(r1 +0)
    r3 = r0
    r3 <<= 7
    r0 &= 4261412864 ll
    r0 >>= 25
    r3 |= r0
    r0 = r3
    r0 <<= 32
    r0 >>= 32
    exit
"""


def test_a_rotation_in_64_bit_registers_is_one_of_32_bits() -> None:
    """Bytecode without 32-bit instructions shifts, masks and cleans up."""
    text = optimised(program(ROTATE.replace("r0 &= 4261412864 ll", "r4 = 4261412864 ll\nr0 &= r4")))

    assert "@llvm.fshl.i32(" in text
    assert "shl i64" not in text


def test_a_value_of_which_32_bits_matter_is_carried_as_such() -> None:
    """Round a loop: garbage above the 31st bit neither multiplies nor is kept."""
    text = optimised(
        program(
            """
            r0 = 1
            again: r0 *= 1664525
            r0 += 77
            r3 = r0
            r3 <<= 32
            r3 >>= 45
            r0 ^= r3
            r2 += -1
            if r2 != 0 goto again
            r0 <<= 32
            r0 >>= 32
            exit
            """
        )
    )

    assert "mul i32" in text
    assert "mul i64" not in text
    assert re.search(r"phi i32 ", text)


def test_the_upper_half_is_computed_where_it_matters() -> None:
    """The same loop with all of r0 returned."""
    text = optimised(program("r0 = 1\nagain: r0 *= 1664525\nr2 += -1\nif r2 != 0 goto again\nexit"))

    assert "mul i64" in text
    assert "mul i32" not in text


def test_spills_of_32_bits_are_registers_of_32_bits() -> None:
    """A private stack slot is as narrow as what is made of it."""
    text = optimised(program("r2 *= 3\n*(u64 *)(r10 -8) = r2\nr0 = *(u64 *)(r10 -8)\nr0 *= 5\nr0 <<= 32\nr0 >>= 32\nexit"))

    assert "alloca" not in text
    assert "mul i64" not in text


def test_no_memory_is_left_of_the_stack() -> None:
    """Slots of several sizes, overlapping ones among them, and zeroes for what was never written."""
    text = optimised(
        program(
            """
            *(u64 *)(r10 -8) = r2
            r3 = *(u32 *)(r10 -8)
            r4 = *(u32 *)(r10 -4)
            *(u16 *)(r10 -10) = r3
            r0 = *(u16 *)(r10 -10)
            r5 = *(u64 *)(r10 -24)
            r0 += r4
            r0 += r5
            exit
            """
        )
    )

    assert not re.search(r"alloca|load |store |memset", text)


def test_bytes_put_together_are_one_load() -> None:
    """Packed structures are read byte by byte where the target has no unaligned loads."""
    bytewise = """
        r0 = *(u8 *)(r1 +5)
        r3 = *(u8 *)(r1 +6)
        r3 <<= 8
        r3 |= r0
        r0 = *(u8 *)(r1 +8)
        r0 <<= 8
        r4 = *(u8 *)(r1 +7)
        r0 |= r4
        {}
        r0 <<= 16
        r0 |= r3
        exit
    """

    assert re.findall(r"load (\w+)", optimised(program(bytewise.format("")))) == ["i32"]
    assert NativeCode(assemble(bytewise.format(""))).run(bytes(range(12)))[0] == 0x08070605
    written = bytewise.format("*(u8 *)(r1 +5) = 99")
    assert NativeCode(assemble(written)).run(bytes(range(12)))[0] == 0x08070605


FROZEN = bytes(range(1, 17))


def frozen(text: str, content: bytes | None = FROZEN) -> str:
    """Optimised IR of a program over a map of this content that never changes."""
    return optimised(program(text, map_symbols=lambda index: "values", constants=lambda index: content))


def test_a_load_from_a_frozen_array_is_a_number() -> None:
    """Where it is at a known offset; of a map that may change it is a load."""
    text = "r1 = map[fd:0][0]+4\nr0 = *(u32 *)(r1 +0)\nexit"

    assert f"ret i64 {int.from_bytes(FROZEN[4:8], 'little')}" in frozen(text)
    assert "@values" not in frozen(text)
    assert "load i32, ptr" in frozen(text, None)


def test_a_frozen_array_is_a_table_that_llvm_sees() -> None:
    """At an unknown index: a load from a constant of its own; two of them need not be told apart from stores."""
    indexed = "r3 = map[fd:0][0]+0\nr2 &= 15\nr3 += r2\n"
    text = frozen(indexed + "r0 = *(u8 *)(r3 +0)\n*(u64 *)(r1 +0) = 7\nr4 = *(u8 *)(r3 +0)\nr0 += r4\nexit")

    assert text.count("load i8") == 1
    assert re.search(r"private unnamed_addr constant \[16 x i8\]", text)


def test_the_address_of_a_frozen_array_is_that_of_the_map() -> None:
    """A helper, or whoever keeps it, gets the map's memory."""
    source = program(
        "r1 = map[fd:0][0]+0\nr0 = *(u8 *)(r1 +3)\n*(u64 *)(r10 -8) = r0\ncall 6\nr3 = *(u64 *)(r10 -8)\nr0 += r3\nexit",
        map_symbols=lambda index: "values", constants=lambda index: FROZEN,
        resolve=lambda index, insn: CallTarget("helper", args=1),
    )  # fmt: skip

    assert "call i64 @helper(i64 ptrtoint (ptr @values to i64)" in optimised(source)


ALIASED = """
    *(u64 *)(r10 -8) = r2
    r1 = r10
    r1 += -8
    call 6
    r3 = *(u64 *)(r10 -8)
    *(u64 *)(r0 +0) = 5
    r4 = *(u64 *)(r10 -8)
    r3 += r4
    r0 = r3
    exit
"""


def loads(store: str | None, load: str | None) -> int:
    """Loads left of two of the same stack slot, with a store of kind `store` between them."""
    insns = assemble(ALIASED)
    aux = [Facts() for _ in insns]
    aux[5].access, aux[4].access, aux[6].access = store, load, load
    target = CallTarget("helper", args=1)
    source = LowerInput("prog", insns, find_subprogs(insns), aux, lambda index, insn: target)
    return optimised(source).count("load i64")


def test_memory_of_different_kinds_does_not_alias() -> None:
    """The stack is not read again after a store to a map's value, though a helper has seen it."""
    assert loads("map_value", "stack") == 1


def test_memory_of_one_kind_or_of_any_may_alias() -> None:
    """The same slot after a store to the stack, to memory of any kind, and where nothing is known."""
    assert loads("stack", "stack") == loads("mem", "stack") == loads("map_value", "mem") == loads(None, None) == 2


def test_subprograms_are_inlined() -> None:
    """Nothing is left of a small function that is called twice."""
    text = optimised(program("r6 = r2\nr1 = r6\ncall f\nr1 = r0\ncall f\nexit\nf: r0 = r1\nr0 *= 3\nexit"))

    assert "call" not in text
    assert "define internal" not in text
    assert "mul i64" in text


def test_a_chain_of_comparisons_is_a_switch() -> None:
    """Which code generation turns into a table."""
    cases = "".join(f"if r2 == {value} goto c{value}\n" for value in range(8))
    bodies = "".join(f"c{value}: r0 = *(u64 *)(r1 +{value * 8})\nr0 *= {value * 7 + 3}\nexit\n" for value in range(8))

    assert "switch i64" in optimised(program(f"{cases}r0 = 0\nexit\n{bodies}"))


def test_a_loop_that_copies_is_memcpy() -> None:
    """Context to map, which cannot overlap."""
    insns = assemble(
        """
        r3 = map[fd:0][0]+0
        r4 = 0
        again: r5 = r1
        r5 += r4
        r0 = *(u8 *)(r5 +0)
        r2 = r3
        r2 += r4
        *(u8 *)(r2 +0) = r0
        r4 += 1
        if r4 != 200 goto again
        r0 = 0
        exit
        """
    )
    source = LowerInput("prog", insns, find_subprogs(insns), [Facts() for _ in insns], map_symbols=lambda index: "values")

    assert "@llvm.memcpy" in optimised(source)


def test_code_is_for_this_very_processor() -> None:
    """Counting bits by hand is one instruction where the host has it."""
    text = """
        r3 = r2
        r3 >>= 1
        r4 = 6148914691236517205 ll
        r3 &= r4
        r2 -= r3
        r4 = 3689348814741910323 ll
        r3 = r2
        r3 &= r4
        r2 >>= 2
        r2 &= r4
        r3 += r2
        r2 = r3
        r2 >>= 4
        r2 += r3
        r4 = 1085102592571150095 ll
        r2 &= r4
        r4 = 72340172838076673 ll
        r2 *= r4
        r2 >>= 56
        r0 = r2
        exit
    """
    module = engine.parse(lower(program(text)))
    engine.optimise(module)

    assert "@llvm.ctpop.i64" in str(module)
    assert ("popcnt" in engine.assembly(module)) == ("+popcnt" in engine.cpu()[1].split(","))
