"""Typed records: one declaration for NumPy, numba, mypy and Python."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

from fastrtp.native import engine
from fastrtp.native.intrinsics import device, load32, load64, store32
from fastrtp.native.ir_pipeline import lowered, texts
from fastrtp.native.record import Array, Pointer, Record, array, i16, i32, i64, u8, u32, u64
from fastrtp.native.share import _linked, _plain


class Inner(Record):
    """A record within another."""

    kind: u32
    off: i32


class Sample(Record):
    """One of each kind of member."""

    small: u8
    pad: u8
    near: i16
    word: u32
    inner: Inner
    wide: i64
    bits: u64
    bytes: Array[u8] = array(8)
    many: Array[Inner] = array(3)
    next: Pointer[Sample]
    rows: Pointer[Array[Inner]]


class _Memory:
    """Zeroed bytes for a record."""

    def __init__(self, size: int) -> None:
        self.data = ctypes.create_string_buffer(size)
        self.address = ctypes.addressof(self.data)


def test_the_layout_is_the_declaration() -> None:
    """Fields follow each other in the order of their declaration, without gaps."""
    fields = Sample.layout.dtype.fields
    assert fields is not None

    assert list(Sample.layout.fields) == [
        "small",
        "pad",
        "near",
        "word",
        "inner",
        "wide",
        "bits",
        "bytes",
        "many",
        "next",
        "rows",
    ]
    assert [fields[name][1] for name in Sample.layout.fields] == [0, 1, 2, 4, 8, 16, 24, 32, 40, 64, 72]
    assert Sample.layout.size == 80
    assert Sample.layout.dtype["many"] == np.dtype((Inner.layout.dtype, (3,)))


def test_a_view_reads_and_writes_the_bytes() -> None:
    """Numbers are extended by their sign, cut when they are stored, and pointers followed."""
    memory, other = _Memory(Sample.layout.size), _Memory(Sample.layout.size)
    view = Sample(memory.address)
    view.near, view.word, view.wide, view.bits = -2, 0x1_2345_6789, -3, (1 << 64) - 1
    view.inner.off = -4
    view.many[2].kind = 7
    view.bytes[1] = 0x1FF
    view.next = Sample(other.address)
    view.next.small = 9

    assert (view.near, view.word, view.wide, view.bits) == (-2, 0x23456789, -3, (1 << 64) - 1)
    assert (view.inner.off, view.many[2].kind, view.bytes[1]) == (-4, 7, 0xFF)
    assert Sample(other.address).small == 9
    assert not Sample(other.address).next
    with pytest.raises(IndexError, match="item 3 of 3"):
        view.many[3]


def test_numpy_sees_the_same() -> None:
    """A structured array of the dtype and a view agree."""
    memory = _Memory(Sample.layout.size)
    Sample(memory.address).inner.off = -9

    assert np.frombuffer(memory.data, Sample.layout.dtype)[0]["inner"]["off"] == -9


@device
def _typed(sample: Sample) -> int:
    row = sample.many[1]
    row.off = -5
    sample.inner.kind = 1 << 40 | 3
    total = row.off + sample.inner.kind + sample.near
    walked = sample.next
    while walked:
        total += walked.word
        sample.bytes[2] = walked.small
        walked = walked.next
    if sample.next == sample or not sample.rows:
        total += 1000
    return total + sample.bytes[2] + Sample(int(sample)).wide


@device
def _addresses(sample: int) -> int:
    """Plain addresses pass for pointers, and pointers for addresses."""
    return _typed(sample) + load64(sample + 16)  # type: ignore[arg-type]


def test_native_code_names_fields() -> None:
    """Loads extend by the field's sign, stores cut, pointers are walked, and null is false."""
    memory, other = _Memory(Sample.layout.size), _Memory(Sample.layout.size)
    view = Sample(memory.address)
    view.near, view.wide, view.next = -2, 50, Sample(other.address)
    Sample(other.address).word, Sample(other.address).small = 0xFFFFFFFF, 6

    found = _run(_addresses, memory.address)

    assert found == -5 + 3 - 2 + 0xFFFFFFFF + 1000 + 6 + 50 + 50
    assert (view.many[1].off, view.inner.kind, view.bytes[2]) == (-5, 3, 6)


def _run(function: Any, argument: int) -> int:
    """Link a device function as the library's build does, and call it."""
    made = lowered(function, (numba.int64,))
    export = (
        f'declare i32 @"{made.symbol}"(ptr, ptr, i64)\n'
        "define i64 @run(i64 %a) {\n"
        "  %result = alloca i64\n  %raised = alloca ptr\n"
        f'  %status = call i32 @"{made.symbol}"(ptr %result, ptr %raised, i64 %a)\n'
        "  %r = load i64, ptr %result\n  ret i64 %r\n}"
    )
    module = _linked([*texts([made]), export])
    compiled = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    compiled.finalize_object()
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(compiled.get_function_address("run"))(argument))


@device
def _by_fields(sample: Sample) -> int:
    sample.word = sample.inner.kind + 1
    return 1 if sample.many[2].kind == sample.word else 0


@device
def _by_offsets(sample: int) -> int:
    store32(sample + 4, load32(sample + 8) + 1)
    return 1 if load32(sample + 40 + 16) == load32(sample + 4) else 0


def _machine_code(function: Any) -> list[str]:
    """The instructions of a device function's body, in the assembler's words."""
    made = lowered(function, next(iter(function.overloads)))
    module = _linked([_plain(text) for text in texts([made])])
    for body in module.functions:
        if body.name == made.symbol:
            body.linkage = "external"
    engine.optimise(module)
    lines = llvm.Target.from_default_triple().create_target_machine(opt=2).emit_assembly(module).splitlines()
    return [line.strip() for line in lines if line.startswith("\t") and not line.startswith("\t.")]


def test_fields_compile_to_what_offsets_compile_to() -> None:
    """A typed function costs nothing."""
    code = _machine_code(_by_fields)

    assert len(code) > 5
    assert code == _machine_code(_by_offsets)


WRONG = {
    "slot.reg.ref_obj": '"VReg" has no attribute "ref_obj"',
    "slot.reg + 8": 'Unsupported operand types for + ("VReg" and "int")',
    "take(slot.reg)": 'Argument 1 to "take" has incompatible type "VReg"; expected "VSlot"',
    "take(8)": 'Argument 1 to "take" has incompatible type "int"; expected "VSlot"',
}


def test_mypy_rejects_a_wrong_field(tmp_path: Path) -> None:
    """A member that is not there, an address where a record is wanted, and one record for another."""
    module = """
        from __future__ import annotations
        from fastrtp.native.record import Array, Record, array, u8, u32
        class VReg(Record):
            type: u32
        class VSlot(Record):
            kinds: Array[u8] = array(8)
            reg: VReg
        def take(slot: VSlot) -> int:
            return slot.reg.type + slot.kinds[7]
        def give(slot: VSlot) -> object:
    """
    lines = dedent(module).lstrip() + "".join(f"    {expression}\n" for expression in WRONG) + "    return take(slot)\n"
    path = tmp_path / "wrong.py"
    path.write_text(lines)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--follow-imports=silent", str(path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip

    for message in WRONG.values():
        assert message in done.stdout, done.stdout
    assert done.stdout.count("error:") == len(WRONG), done.stdout


def test_a_member_that_is_no_part_of_a_record_is_an_error() -> None:
    """What has no layout is named."""

    class Odd(Record):
        text: str

    with pytest.raises(TypeError, match=r"Odd\.text: .* is no part of a record"):
        len(Odd.layout.fields)
