"""C definitions out of BTF: order, names, layout."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from fastrtp.btf import Btf, BtfKind, BtfWriter, default_btf
from fastrtp.btf.dump import dump_header, dump_types
from fastrtp.btf.types import BTF_INT_SIGNED, COMPOSITES
from fastrtp.errors import BtfError


def text(build: BtfWriter, *roots: int) -> str:
    """The definitions of the roots, or of everything."""
    btf = Btf.parse(build.dump())
    return "\n".join(dump_types(btf, roots or None))


def test_members_come_before_the_struct_that_contains_them() -> None:
    """By value: defined before; behind a pointer: declared."""
    w = BtfWriter()
    integer = w.add_int("int", 4, BTF_INT_SIGNED)
    w.add_struct("outer", 16, [("in", 3, 0), ("next", 5, 64)])
    w.add_struct("inner", 4, [("x", integer, 0)])
    w.add_struct("far", 4, [("x", integer, 0)])
    w.add_pointer(4)

    assert text(w, 2) == (
        "struct inner {\n\tint x;\n};\nstruct far;\nstruct outer {\n\tstruct inner in;\n\tstruct far *next;\n};"
    )


def test_typedefs_of_structs_that_point_to_each_other() -> None:
    """The typedef is written before the struct that mentions it."""
    w = BtfWriter()
    w.add_struct("node", 8, [("next", 3, 0)])
    w.add(BtfKind.TYPEDEF, "node_t", 1)
    w.add_pointer(2)

    assert text(w) == "struct node;\ntypedef struct node node_t;\nstruct node {\n\tnode_t *next;\n};"


def test_anonymous_members_are_written_in_place() -> None:
    """Structs, unions and enums without a name."""
    w = BtfWriter()
    integer = w.add_int("int", 4, BTF_INT_SIGNED)
    inner = w.add_struct("", 4, [("a", integer, 0)])
    union = w.add_struct("", 4, [("", inner, 0), ("b", integer, 0)], union=True)
    kind = w.add_enum("", 4, [("A", 0), ("B", 3)])
    w.add_struct("s", 8, [("", union, 0), ("kind", kind, 32)])

    assert text(w) == (
        "struct s {\n\tunion {\n\t\tstruct {\n\t\t\tint a;\n\t\t};\n\t\tint b;\n\t};\n\tenum {\n\tA = 0,\n\tB = 3,\n} kind;\n};"
    )


def test_two_types_of_one_name_get_flavours() -> None:
    """So that the header compiles and CO-RE still finds both."""
    w = BtfWriter()
    integer = w.add_int("int", 4, BTF_INT_SIGNED)
    w.add_struct("s", 4, [("a", integer, 0)])
    w.add_struct("s", 4, [("b", integer, 0)])

    assert text(w) == "struct s {\n\tint a;\n};\nstruct s___2 {\n\tint b;\n};"


def test_layout_is_kept() -> None:
    """Gaps, packing, alignment, bitfields, structs without named members."""
    w = BtfWriter()
    integer = w.add_int("int", 4, BTF_INT_SIGNED)
    char = w.add_int("char", 1, BTF_INT_SIGNED)
    gap = w.add_struct("gap", 12, [("a", integer, 0), ("b", integer, 64)])
    packed = w.add_struct("packed", 5, [("a", char, 0), ("b", integer, 8)])
    aligned = w.add_struct("aligned", 64, [("a", integer, 0)])
    bits = w.add_bitfields("bits", 4, [("a", integer, 0, 3), ("b", integer, 5, 2)])
    opaque = w.add_struct("opaque", 16, [])

    assert text(w, gap) == "struct gap {\n\tint a;\n\tchar __pad_4[4];\n\tint b;\n};"
    assert text(w, packed) == "struct packed {\n\tchar a;\n\tint b;\n} __attribute__((packed));"
    assert text(w, aligned) == "struct aligned {\n\tint a;\n} __attribute__((aligned(64)));"
    assert text(w, bits) == "struct bits {\n\tint a: 3;\n\tint: 2;\n\tint b: 2;\n};"
    assert text(w, opaque) == "struct opaque {\n\tlong: 64;\n\tlong: 64;\n};"


def test_a_struct_in_itself_is_an_error() -> None:
    """There is no such C."""
    w = BtfWriter()
    w.add_struct("s", 8, [("s", 1, 0)])

    with pytest.raises(BtfError, match=r"type \[1\] struct s contains itself"):
        text(w)


def test_anonymous_types_that_multiply_are_an_error() -> None:
    """Each of 30 levels holds the next one twice."""
    w = BtfWriter()
    w.add_int("int", 4, BTF_INT_SIGNED)
    for level in range(30):
        below = level + 1
        w.add_struct("", 4, [("", below, 0), ("", below, 0)], union=True)
    top = w.add_struct("top", 4, [("", 31, 0)])

    with pytest.raises(BtfError, match="anonymous members nested"):
        text(w, top)


def test_the_whole_kernel_keeps_its_layout(tmp_path: Path) -> None:
    """Every size and offset of vmlinux.h, asserted by a compiler where there is one."""
    clang = next((path for path in map(shutil.which, ("clang", "clang-19", "clang-18")) if path), None)
    if clang is None:
        pytest.skip("no clang")
    btf = default_btf()
    (tmp_path / "vmlinux.h").write_text(dump_header(btf))
    structs = [record for record in btf if record.kind in COMPOSITES and record.name]
    names = Counter(record.name for record in structs)
    lines = ['#include "vmlinux.h"']
    for record in structs:
        if names[record.name] > 1:
            continue
        c_name = btf.c_type(record.id)
        lines.append(f'_Static_assert(sizeof({c_name}) == {record.size}, "");')
        lines += [
            f'_Static_assert(__builtin_offsetof({c_name}, {member.name}) == {member.bit_offset // 8}, "");'
            for member in record.members
            if member.name and not member.bitfield_size
        ]
    (tmp_path / "check.c").write_text("\n".join(lines))

    command = [clang, "-target", "bpf", "-DBPF_NO_PRESERVE_ACCESS_INDEX", "-w", "-ferror-limit=0", "-fsyntax-only", "check.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert len(lines) > 50_000
    assert done.stderr == ""
