"""Native code beside BPF instructions and source lines: the listing, and addresses as system calls give them."""

from __future__ import annotations

import ctypes
import platform
import re
from pathlib import Path

import pytest

import fastrtp.programs
from fastrtp.isa import assemble, encode
from fastrtp.jit.options import CodeOptions
from fastrtp.jit.program import compile_program
from fastrtp.jit.unverified import Compiled
from fastrtp.kernel import Kernel

RUNQLAT = Path(fastrtp.programs.__file__).parent / "runqlat.bpf.o"
TEXT = (
    "r0 = *(u64 *)(r1 +0)\nr0 *= 77\n*(u64 *)(r1 +8) = r0\nif r0 > 9 goto big\nexit\nbig: call f\nexit\nf: r0 = r1\nr0 += 3\nexit"
)
ELF = pytest.mark.skipif(platform.system() == "Darwin", reason="objects are ELF elsewhere")


@ELF
def test_each_native_instruction_has_its_bpf_instruction() -> None:
    """In the code's order, with the bytes, and the code is the code that runs."""
    insns = assemble(TEXT)
    native = Compiled(encode(insns)).native
    annotated = native.annotated

    assert annotated.exact
    assert {piece.insn for piece in annotated.pieces} <= {*range(10), None}
    assert {1, 2} <= annotated.first_addresses().keys()
    pieces = [piece for piece in annotated.pieces if piece.offset >= 0]
    assert all(ctypes.string_at(native.entry + piece.offset, len(piece.code)) == piece.code for piece in pieces)
    assert [piece.offset for piece in pieces] == sorted(piece.offset for piece in pieces)


@ELF
@pytest.mark.parametrize("smp", [False, True], ids=["up", "smp"])
def test_code_for_several_cpus_is_annotated_as_it_is(smp: bool) -> None:
    """The program is compiled for the listing with the options that it runs with."""
    with Kernel() as kernel, kernel.load(RUNQLAT) as loaded:
        prog = loaded.programs["on_switch"].prog
        maps = [bpf_map.map for bpf_map in prog.used_maps]
        native = compile_program(prog.verified, maps, "again", kernel.memory, CodeOptions(smp=smp))
        annotated = native.annotated
        native.close()

    assert annotated.exact
    assert len(annotated.first_addresses()) > 20


@ELF
def test_the_listing() -> None:
    """Source line, instruction, native instructions; a line is not repeated."""
    insns = assemble(TEXT)
    listing = Compiled(encode(insns)).native.annotated.text(insns, {0: "u64 found = ctx[0] * 77;", 2: "ctx[1] = found;"})

    assert listing.startswith("bpf_prog:\n")
    assert re.search(r"; u64 found = ctx\[0\] \* 77;\n(     0: .*\n(\t.*\n)+)?     1: \(27\) r0 \*= 77\n\t\w+", listing)


def test_debug_information_is_nowhere_else() -> None:
    """The code that runs is compiled without it."""
    native = Compiled(encode(assemble(TEXT))).native
    assert native.annotated.pieces

    assert "!dbg" not in native.text
    assert b".debug_line" not in native.object()


@ELF
def test_programs_show_their_source_and_the_kernel_its_line_info() -> None:
    """bpf_prog_info.jited_line_info: an address in the program for each row of line_info."""
    with Kernel() as kernel, kernel.load(RUNQLAT) as loaded:
        program = loaded.programs["on_wakeup"]
        info = kernel.obj_get_info_by_fd(program.fd)
        room = (ctypes.c_uint64 * info.nr_jited_line_info)()
        again = kernel.obj_get_info_by_fd(
            program.fd, jited_line_info=ctypes.addressof(room), nr_jited_line_info=len(room), jited_line_info_rec_size=8
        )
        listing = program.annotate()
        start, size = program.prog.native.entry, info.jited_prog_len

    assert again.nr_jited_line_info == info.nr_line_info == len(room) > 5
    assert all(start <= address < start + size for address in room)
    assert len(set(room)) > 5
    assert "; __u64 now = bpf_ktime_get_ns();\n" in listing
    assert "call bpf_ktime_get_ns#5\n\t" in listing


def test_read_only_data_is_part_of_the_code() -> None:
    """A program's .rodata needs no memory at run time."""
    with Kernel() as kernel, kernel.load(RUNQLAT) as loaded:
        program = next(p for p in loaded.programs.values() if "runqlat.rodata" in [m.name for m in p.prog.used_maps])
        number = [bpf_map.name for bpf_map in program.prog.used_maps].index("runqlat.rodata")
        before, after = program.prog.native.ir(optimise=False), program.ir()

    assert f"@map.{number}.values" in before
    assert f"@map.{number}.values" not in after
