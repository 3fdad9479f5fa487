"""BTF: parsing, names, references, members, values, C text; and what hostile blobs give."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtp.btf import Btf, BtfKind, BtfWriter, Field, default_btf, load_btf, tracepoints, trim
from fastrtp.btf.dump import dump_types
from fastrtp.btf.types import BTF_INT_BOOL, BTF_INT_SIGNED
from fastrtp.errors import BtfError

DATA = Path(__file__).parent / "data" / "btf"


def small() -> Btf:
    """A BTF with a nested struct, bitfields, arrays, enums."""
    w = BtfWriter()
    i32 = w.add_int("int", 4, BTF_INT_SIGNED)
    u64 = w.add_int("u64", 8)
    char = w.add_int("char", 1, BTF_INT_SIGNED)
    comm = w.add_array(char, 8, i32)
    inner = w.add_struct("", 8, [("a", i32, 0), ("b", i32, 32)])
    numbers = w.add_array(i32, 2, i32)
    colour = w.add_enum("colour", 4, [("RED", 0), ("BLUE", 5)])
    flags = w.add_bitfields("flags", 4, [("low", i32, 0, 3), ("high", i32, 3, 29)])
    w.add_struct(
        "task",
        48,
        [("comm", comm, 0), ("", inner, 64), ("n", numbers, 128), ("c", colour, 192), ("f", flags, 224), ("t", u64, 256)],
    )
    w.add_bitfields("bits", 8, [("x", u64, 0, 7), ("y", i32, 7, 30)])
    return Btf.parse(w.dump())


def test_every_kind_is_listed_as_bpftool_lists_it() -> None:
    """The fields of one record of each kind equal bpftool's dump."""
    btf = load_btf(DATA / "every_kind.btf")
    listing = (DATA / "every_kind.txt").read_text()
    listed = {int(m[1]): (m[2], m[3]) for m in re.finditer(r"^\[(\d+)\] (\w+) '(.*?)'", listing, re.MULTILINE)}

    assert {t.id: (t.kind.name, t.name or "(anon)") for t in btf} == listed
    assert {t.kind for t in btf} == set(BtfKind) - {BtfKind.UNKN}
    for type_id, size in re.findall(r"^\[(\d+)\].* size=(\d+)", listing, re.MULTILINE):
        assert btf.type(int(type_id)).size == int(size)
    for type_id, ref in re.findall(r"^\[(\d+)\].* type_id=(\d+)", listing, re.MULTILINE):
        assert btf.type(int(type_id)).type == int(ref)
    btf.check()


def test_members_are_found_by_path_through_anonymous_members_and_arrays() -> None:
    """Offsets in bytes from the outermost struct."""
    btf = small()
    task = btf.find("task")

    assert btf.member("task", "b") == Field(12, 4, 1, 96, 0)
    assert btf.member("task", "n[1]") == Field(20, 4, 1, 160, 0)
    assert btf.member(task or 0, "f.high") == Field(28, 4, 1, 227, 29)
    assert btf.member("bits", "y") == Field(0, 8, 1, 7, 30)


@pytest.mark.parametrize("path", ["nope", "n[2]", "comm.x", "", "a.", "a b", "n[", "[0]", "f..low", "t.t"])
def test_a_path_that_leads_nowhere_is_an_error(path: str) -> None:
    """Never a KeyError."""
    with pytest.raises(BtfError):
        small().member("task", path)


def test_values_are_decoded_by_type() -> None:
    """Char arrays as text, enumerators by name, bitfields signed, anonymous members merged."""
    btf = small()
    data = b"sh\0junk\0" + struct.pack("<iiiiIIQ", -1, 2, 3, -4, 5, 0xFFFFFFFA, 9) + bytes(8)

    value = btf.decode(btf.find("task") or 0, data)

    assert value == {"comm": "sh", "a": -1, "b": 2, "n": [3, -4], "c": "BLUE", "f": {"low": 2, "high": -1}, "t": 9}


def test_a_value_too_short_for_its_type_is_an_error() -> None:
    """The message has both sizes."""
    btf = small()

    with pytest.raises(BtfError, match="47 bytes, struct task has 48"):
        btf.decode(btf.find("task") or 0, bytes(47))


def test_scalars_decode_to_python_scalars() -> None:
    """bool, float, pointer, enum64, unknown enumerator."""
    w = BtfWriter()
    flag = w.add_int("_Bool", 1, BTF_INT_BOOL)
    number = w.add(BtfKind.FLOAT, "double", 8)
    pointer = w.add_pointer(flag)
    wide = w.add_enum("wide", 8, [("BIG", 1 << 40), ("MINUS", -2)], signed=True)
    btf = Btf.parse(w.dump())

    assert btf.decode(flag, b"\1") is True
    assert btf.decode(number, struct.pack("<d", 1.5)) == 1.5
    assert btf.decode(pointer, b"\xff" * 8) == 2**64 - 1
    assert btf.decode(wide, struct.pack("<q", 1 << 40)) == "BIG"
    assert btf.decode(wide, struct.pack("<q", -2)) == "MINUS"
    assert btf.decode(wide, struct.pack("<q", -3)) == -3


def test_c_declarations() -> None:
    """Pointers, arrays and functions nest as in C."""
    w = BtfWriter()
    integer = w.add_int("int", 4, BTF_INT_SIGNED)
    const_int = w.add(BtfKind.CONST, "", integer)
    to_const = w.add_pointer(const_int)
    const_pointer = w.add(BtfKind.CONST, "", to_const)
    array = w.add_array(integer, 3, integer)
    to_array = w.add_pointer(array)
    proto = w.add_func_proto(integer, [("x", to_const), ("", 0)])
    to_proto = w.add_pointer(proto)
    protos = w.add_array(to_proto, 2, integer)
    returns_proto = w.add_func_proto(to_proto, [])
    func = w.add(BtfKind.FUNC, "f", returns_proto)
    task = w.add_struct("task", 0, [])
    volatile = w.add(BtfKind.VOLATILE, "", w.add_pointer(task))
    btf = Btf.parse(w.dump())

    assert btf.c_decl(to_const, "p") == "const int *p"
    assert btf.c_decl(const_pointer, "p") == "const int *const p"
    assert btf.c_decl(array, "a") == "int a[3]"
    assert btf.c_decl(to_array, "p") == "int (*p)[3]"
    assert btf.c_decl(protos, "t") == "int (*t[2])(const int *x, ...)"
    assert btf.c_proto(func, "f") == "int (*f(void))(const int *x, ...)"
    assert btf.c_type(to_proto) == "int (*)(const int *x, ...)"
    assert btf.c_type(volatile) == "struct task *volatile"
    assert btf.c_type(0) == "void"


def test_a_split_btf_continues_its_base() -> None:
    """Ids, strings and lookups go through to the base."""
    base = small()
    w = BtfWriter(len(base), base.str_end)
    new = w.add(BtfKind.TYPEDEF, "task_t", base.find("task") or 0)
    split = Btf.parse(w.dump(), base)

    assert new == len(base) == len(split) - 1
    assert split.type(new).name == "task_t"
    assert split.member("task_t", "b").offset_bytes == 12
    assert split.find_all("task") == base.find_all("task")
    assert split.sizeof(new) == 48


def test_trim_keeps_what_the_roots_reach() -> None:
    """The trimmed copy decodes the same values."""
    btf = small()
    trimmed = Btf.parse(trim(btf, [btf.find("flags") or 0]))

    assert [t.name for t in trimmed] == ["int", "flags"]
    assert trimmed.decode(2, b"\x0d\0\0\0") == {"low": -3, "high": 1}


def header(**changes: int) -> bytes:
    """A minimal BTF, with fields of its header changed."""
    fields = {"magic": 0xEB9F, "version": 1, "flags": 0, "hdr_len": 24, "type_off": 0, "type_len": 0, "str_off": 0, "str_len": 1}
    return struct.pack("<HBBIIIII", *(fields | changes).values()) + b"\0"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes, needs 24"),
        (header()[:20], "20 bytes, needs 24"),
        (header(magic=0x9FEB), "big-endian BTF is not supported"),
        (header(magic=0x1234), "magic 0x1234"),
        (header(version=2), "version 2"),
        (header(flags=1), "unknown flags 0x1"),
        (header(hdr_len=23), "header length 23"),
        (header(hdr_len=99), "header length 99"),
        (header(type_len=8), "type section .* passes the end"),
        (header(type_off=2), "not a multiple of 4"),
        (header(str_len=2), "string section .* passes the end"),
        (header(str_len=0), "does not begin and end with a NUL"),
        (header(type_len=0xFFFFFFFC), "passes the end"),
    ],
)
def test_bad_headers_are_named(data: bytes, message: str) -> None:
    """Each says what and where."""
    with pytest.raises(BtfError, match=message):
        Btf.parse(data)


@pytest.mark.parametrize(
    ("kind", "vlen", "extra", "message"),
    [
        (0, 0, [], "unknown kind 0"),
        (20, 0, [], "unknown kind 20"),
        (31, 0, [], "unknown kind 31"),
        (BtfKind.STRUCT, 0xFFFF, [], "passes the end of the type section"),
        (BtfKind.ARRAY, 0, [1], "passes the end of the type section"),
        (BtfKind.FUNC_PROTO, 2, [0, 0], "passes the end of the type section"),
    ],
)
def test_bad_records_are_named(kind: int, vlen: int, extra: list[int], message: str) -> None:
    """Unknown kinds and lengths that run out of the section."""
    w = BtfWriter()
    w.add(kind, "x", vlen=vlen, extra=extra)

    with pytest.raises(BtfError, match=rf"type \[1\] at offset 0x18: {message}"):
        Btf.parse(w.dump())


def test_bad_string_offsets_are_named() -> None:
    """Of types when parsing, of members when decoding."""
    w = BtfWriter()
    w.add_int("int", 4)
    blob = bytearray(w.dump())
    struct.pack_into("<I", blob, 24, 1000)
    with pytest.raises(BtfError, match=r"type \[1\] at offset 0x18: name offset 1000 passes the end"):
        Btf.parse(bytes(blob))

    w = BtfWriter()
    w.add(BtfKind.STRUCT, "s", 4, vlen=1, extra=[500, 0, 0])
    with pytest.raises(BtfError, match=r"type \[1\] STRUCT: string offset 500"):
        Btf.parse(w.dump()).type(1)


def cyclic() -> Btf:
    """Types that refer to themselves in every way."""
    w = BtfWriter()
    w.add(BtfKind.TYPEDEF, "t", 2)  # 1 -> 2 -> 1
    w.add(BtfKind.CONST, "", 1)
    w.add_array(3, 2, 3)  # an array of itself
    w.add_pointer(4)  # a pointer to itself
    w.add_func_proto(5, [("a", 5), ("b", 5), ("c", 5), ("d", 5)])  # a function taking itself
    w.add_struct("s", 16, [("", 6, 0), ("", 6, 64)])  # a struct in itself
    w.add_struct("e", 0, [(f"m{i}", 7, 0) for i in range(50)])  # an empty struct with 50 of itself
    w.add(BtfKind.VAR, "v", 8, extra=[1])
    w.add_pointer(99)
    w.add(BtfKind.DATASEC, "d", 8, vlen=2, extra=[8, 0, 4, 10, 4, 4])
    return Btf.parse(w.dump())


@pytest.mark.parametrize("type_id", range(11))
def test_cycles_end_in_an_error(type_id: int) -> None:
    """Every operation on every type either answers or raises BtfError, in bounded time."""
    btf = cyclic()
    operations: list[Callable[[], object]] = [
        lambda: btf.strip(type_id),
        lambda: btf.sizeof(type_id),
        lambda: btf.c_type(type_id),
        lambda: btf.c_proto(type_id, "f"),
        lambda: btf.member(type_id, "nope"),
        lambda: btf.decode(type_id, bytes(64)),
        lambda: dump_types(btf, [type_id]),
    ]
    for operation in operations:
        with suppress(BtfError):
            operation()
    if type_id in (1, 2, 3):
        with pytest.raises(BtfError):
            btf.sizeof(type_id)


def test_check_finds_references_that_are_not_there() -> None:
    """As BPF_BTF_LOAD does."""
    w = BtfWriter()
    w.add_pointer(7)

    with pytest.raises(BtfError, match=r"\[1\] PTR \(anon\) type_id=7 Invalid type_id"):
        Btf.parse(w.dump()).check()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_btf_gives_only_btf_errors(data: st.DataObject) -> None:
    """Whatever bytes are changed or cut off."""
    blob = bytearray((DATA / "every_kind.btf").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(blob)))
    with suppress(BtfError):
        btf = Btf.parse(bytes(blob[: max(cut, 24)]))
        for type_id in range(len(btf)):
            with suppress(BtfError):
                btf.sizeof(type_id)
            with suppress(BtfError):
                btf.c_type(type_id)
            with suppress(BtfError):
                btf.decode(type_id, bytes(256))
        btf.check()


def test_the_shipped_btf_knows_the_kernel() -> None:
    """Facts of Linux 6.1 that BTF users rely on."""
    btf = default_btf()

    assert btf is default_btf()
    assert btf.member("task_struct", "comm").size == 16
    assert btf.c_type(btf.member("task_struct", "mm").type_id) == "struct mm_struct *"
    assert (
        btf.c_proto(btf.find("vprintk", BtfKind.FUNC) or 0, "vprintk")
        == "int vprintk(const char *fmt, struct __va_list_tag *args)"
    )


def test_tracepoint_prototypes() -> None:
    """TP_PROTO arguments without the data pointer, sizes and signs as in C."""
    points = tracepoints(default_btf())

    assert len(points) == 693
    assert [(a.size, a.is_pointer, a.signed) for a in points["sched_switch"].args] == [
        (1, False, False),
        (8, True, False),
        (8, True, False),
        (4, False, False),
    ]
    assert [(a.size, a.is_pointer, a.signed) for a in points["sys_enter"].args] == [(8, True, False), (8, False, True)]
    assert "no_such_tracepoint" not in points
    assert max(len(points[name].args) for name in points) <= 12


def test_files_that_are_no_btf(tmp_path: Path) -> None:
    """Errors begin with the file's name."""
    (tmp_path / "x").write_bytes(b"\x28\xb5\x2f\xfd garbage")

    with pytest.raises(BtfError, match="x: bad zstd data"):
        load_btf(tmp_path / "x")
    with pytest.raises(BtfError, match="gone: no such file"):
        load_btf(tmp_path / "gone")
