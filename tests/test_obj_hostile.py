"""Damaged and hostile object files: an ObjectError that says where, and nothing else."""

from __future__ import annotations

import random
import re
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtp.btf import Btf, BtfKind, BtfWriter
from fastrtp.errors import BtfError, ObjectError
from fastrtp.obj import ObjectSpec
from fastrtp.obj.elf import ElfFile

DATA = Path(__file__).parent / "data" / "elf"
OBJECTS = ("globals", "subprogs", "maps", "inner_maps", "sections", "legacy", "externs", "core")


def read(name: str) -> bytes:
    """A good object."""
    return (DATA / f"{name}.bpf.o").read_bytes()


def survives(data: bytes, kernel: Btf) -> str:
    """Parse and relocate; the error's text, or "" when there is none."""
    try:
        spec = ObjectSpec.parse(data, "x")
        for program in spec.programs:
            spec.relocated(program, kernel)
    except (ObjectError, BtfError) as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def kernel() -> Btf:
    """A kernel of few types, so that thousands of relocations take no time."""
    w = BtfWriter()
    integer = w.add_int("int", 4, 1)
    w.add_struct("task_struct", 64, [("pid", integer, 64), ("comm", w.add_array(w.add_int("char", 1, 1), 16), 128)])
    return Btf.parse(w.dump())


@pytest.mark.parametrize("name", ["legacy", "externs", "maps"])
def test_truncated_anywhere(name: str, kernel: Btf) -> None:
    """Section headers come last, so no shorter file is whole."""
    data = read(name)
    for length in range(0, len(data), 1 if name == "legacy" else 13):
        assert survives(data[:length], kernel)


@pytest.mark.parametrize("name", OBJECTS)
def test_single_bytes_changed(name: str, kernel: Btf) -> None:
    """Seeded, some hundred places per object, all of the ELF header and the section headers among them."""
    data = bytearray(read(name))
    rng = random.Random(name)
    (shoff,) = struct.unpack_from("<Q", data, 40)
    places = [*range(64), *range(shoff, len(data), 3), *(rng.randrange(len(data)) for _ in range(300))]
    for place in rng.sample(places, min(len(places), 200)):
        old = data[place]
        data[place] = rng.choice((0, 0xFF, 0x80, 1, old ^ 1 << rng.randrange(8)))
        survives(bytes(data), kernel)
        data[place] = old


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_words_changed(kernel: Btf, data: st.DataObject) -> None:
    """Several 32-bit words at once, with the values that hurt."""
    blob = bytearray(read(data.draw(st.sampled_from(OBJECTS[:-1]))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = 4 * data.draw(st.integers(0, len(blob) // 4 - 1))
        word = data.draw(
            st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFF8, 64]))
        )
        struct.pack_into("<I", blob, at, word)
    survives(bytes(blob), kernel)


def patched(name: str, offset: int, form: str, *values: int) -> bytes:
    """A good object with a field changed."""
    data = bytearray(read(name))
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


def section_field(name: str, section: str, field: int, value: int, form: str = "<Q") -> bytes:
    """A good object with a field of a section's header changed (offsets of Elf64_Shdr: 24 offset, 32 size, 40 link)."""
    data = read(name)
    (shoff,) = struct.unpack_from("<Q", data, 40)
    number = next(s.number for s in ElfFile(data).sections if s.name == section)
    return patched(name, shoff + 64 * number + field, form, value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "offset 0x0: is no ELF file"),
        (b"\x7fELF", "offset 0x0: ELF header truncated at 4 bytes"),
        (patched("legacy", 4, "B", 1), "offset 0x4: ELF class 1, only 64-bit objects are supported"),
        (patched("legacy", 5, "B", 2), "offset 0x5: big-endian objects are not supported"),
        (patched("legacy", 18, "<H", 62), "offset 0x12: machine 62 is not BPF (247)"),
        (patched("legacy", 16, "<H", 2), "offset 0x10: type 2 is no relocatable object (1)"),
        (patched("legacy", 62, "<H", 999), "offset 0x3e: section name table 999 does not exist"),
        (section_field("legacy", "maps", 24, 1 << 40), "section 'maps' offset 0x10000000000: 40 bytes pass the end of the file"),
        (section_field("legacy", "maps", 32, 39), "section 'maps' .*: 2 maps in 39 bytes"),
        (section_field("legacy", ".text", 32, 12), "section '.text' .*: 12 bytes are no whole number of instructions"),
        (section_field("globals", ".bss", 32, 1 << 60), "section '.bss' .*: 1152921504606846976 bytes, at most"),
        (section_field("legacy", ".symtab", 40, 77, "<I"), "section '.symtab' .*: string table 77 does not exist"),
        (section_field("globals", "version", 32, 3), "section 'version' .*: 3 bytes, expected 4"),
        (
            section_field("maps", ".BTF", 32, 10),
            "section '.rel.BTF' .*: relocation 0 of offset",
        ),
    ],
)
def test_what_is_wrong_is_named(data: bytes, message: str, kernel: Btf) -> None:
    """Section, offset and value."""
    pattern = re.escape(message).replace(r"\.\*", ".*").replace(r"\ ", " ")
    with pytest.raises(ObjectError) as caught:
        ObjectSpec.parse(data)
    assert re.match(pattern, str(caught.value))


def large(
    sections: int, entries: int = 0, entry: bytes = b"", sh_type: int = 1, name: bytes = b"x", overlap: bool = False
) -> bytes:
    """An object of many sections named alike, each of `entries` times an entry, or of all those bytes when they overlap."""
    names, body = b"\0" + name + b"\0", entry * entries
    count = sections + 2
    at = 64 + len(names)
    shoff = at + (len(body) if overlap else len(body) * sections)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 1, 247, 1, 0, 0, shoff, 0, 64, 0, 0, 64, count, 1)
    table = [bytes(64), struct.pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)]
    for number in range(sections):
        place = at if overlap else at + number * len(body)
        table.append(struct.pack("<IIQQQQIIQQ", 1, sh_type, 0, 0, place, len(body), 1, 2, 1, len(entry)))
    return header + names + (body if overlap else body * sections) + b"".join(table)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (large(60000), "60002 sections, at most 4096"),
        (large(1000, 100000, b"abcdefgh", overlap=True), "800000 bytes overlap other sections"),
        (large(1, 400000, bytes(24), sh_type=2), "400000 symbols, at most 16384"),
        (large(1, 16384, b"\1\0\0\0" + bytes(20), sh_type=2, name=b"x" * 1000), ""),
        (large(4000, name=b"x" * 1000000), "name of 1000000 characters, at most 1024"),
        (section_field("globals", ".bss.custom", 32, 1 << 28), "268435456 bytes, at most"),
        (section_field("legacy", ".symtab", 56, 1), "symbols of 1 bytes, expected 24"),
        (section_field("legacy", ".relraw_tracepoint/sched_switch", 56, 1), "relocations of 1 bytes, expected 16"),
        (section_field("legacy", ".symtab", 0, 0xFFFFFFF0, "<I"), "string offset 4294967280 passes the end at 122"),
        (section_field("legacy", ".strtab", 32, 121), "string offset"),
        (patched("legacy", 60, "<H", 0xFFFF), "65535 sections, at most 4096"),
        (patched("legacy", 40, "<Q", (1 << 64) - 1), "section headers pass the end of the file"),
    ],
    ids=range(12),
)
def test_nothing_takes_long(data: bytes, message: str) -> None:
    """Counts and sizes that a small file can claim, or that a large one has."""
    start = time.process_time()
    try:
        ObjectSpec.parse(data)
        text = ""
    except ObjectError as error:
        text = str(error)
    seconds = time.process_time() - start

    assert message in text
    assert bool(message) == bool(text)
    assert seconds < 1.0  # measured: below 0.5 on a slow machine


def test_map_definitions_that_say_nothing_usable() -> None:
    """The message names the map."""
    from fastrtp.obj.elf import Section
    from fastrtp.obj.maps import btf_maps

    def definition(*members: tuple[str, int]) -> None:
        w = BtfWriter()
        integer = w.add_int("int", 4, 1)
        w.add_pointer(w.add_array(integer, 1))  # 3: __uint(x, 1)
        w.add_pointer(integer)  # 4: __type(x, int)
        w.add_array(4, 0)  # 5
        w.add_pointer(w.add_array(integer, 8))  # 7: __uint(x, 8)
        size = 8 * len(members)
        struct_id = w.add_struct("", size, [(name, type_id, 64 * i) for i, (name, type_id) in enumerate(members)])
        variable = w.add(BtfKind.VAR, "m", struct_id, extra=[1])
        w.add(BtfKind.DATASEC, ".maps", size, vlen=1, extra=[variable, 0, size])
        btf_maps(ElfFile(read("legacy")), Section(1, ".maps", 1, 0, 0, size, 0, 0, b""), Btf.parse(w.dump()))

    definition(("type", 3), ("key", 4))
    for members, message in [
        ([("key", 4)], "has no type"),
        ([("type", 1)], "field 'type' is int, expected a pointer to an array"),
        ([("type", 3), ("key", 1)], "field 'key' is int, expected a pointer to the type"),
        ([("type", 3), ("colour", 3)], "unknown field 'colour'"),
        ([("type", 3), ("key_size", 7), ("key", 4)], "key_size is 8 and 4"),
        ([("type", 3), ("values", 5)], "does not suit map type 1"),
        ([("type", 3), ("values", 4)], "expected an array of pointers"),
        ([("type", 99)], "type id 99 does not exist"),
    ]:
        with pytest.raises(ObjectError, match=rf"section '.maps' offset 0x0: map 'm': .*{message}"):
            definition(*members)
