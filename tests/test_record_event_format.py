"""record/event_format.py: format files of every shape."""

from __future__ import annotations

import numpy as np
import pytest
from ring_pages import format_text

from fastrtp.errors import RecordingError
from fastrtp.record.event_format import FieldKind, parse_event_format

FIELDS = [
    ("int a;offset:8;size:4;signed:1", 8, "a", FieldKind.SCALAR, "<i4"),
    ("unsigned char b;offset:8;size:1;signed:0", 8, "b", FieldKind.SCALAR, "|u1"),
    ("enum hrtimer_mode mode;offset:8;size:4;signed:0", 8, "mode", FieldKind.SCALAR, "<u4"),
    ("const void * ptr;offset:8;size:8;signed:0", 8, "ptr", FieldKind.SCALAR, "<u8"),
    ("long l;offset:8;size:4;signed:1", 4, "l", FieldKind.SCALAR, "<i4"),
    ("char comm[16];offset:8;size:16;signed:1", 8, "comm", FieldKind.STRING, "|S16"),
    ("char name[TASK_COMM_LEN];offset:8;size:16;signed:1", 8, "name", FieldKind.STRING, "|S16"),
    ("unsigned long args[6];offset:8;size:48;signed:0", 8, "args", FieldKind.ARRAY, "('<u8', (6,))"),
    ("unsigned long args[6];offset:8;size:24;signed:0", 4, "args", FieldKind.ARRAY, "('<u4', (6,))"),
    ("__u8 saddr[4];offset:8;size:4;signed:0", 8, "saddr", FieldKind.ARRAY, "('u1', (4,))"),
    ("struct strange x[2];offset:8;size:16;signed:0", 8, "x", FieldKind.ARRAY, "('<u8', (2,))"),
    ("struct in6_addr addr;offset:8;size:16;signed:0", 8, "addr", FieldKind.BYTES, "('u1', (16,))"),
    ("__data_loc char[] name;offset:8;size:4;signed:1", 8, "name", FieldKind.DATA_LOC, "<u4"),
    ("__rel_loc char[] name;offset:8;size:4;signed:1", 8, "name", FieldKind.REL_LOC, "<u4"),
    ("__data_loc unsigned long[] cpus;offset:8;size:4;signed:0", 8, "cpus", FieldKind.DATA_LOC, "<u4"),
    ("__data_loc cpumask_t cpumask;offset:8;size:4;signed:0", 8, "cpumask", FieldKind.DATA_LOC, "<u4"),
    ("char buf[];offset:8;size:0;signed:1", 8, "buf", FieldKind.TAIL, None),
]


@pytest.mark.parametrize(("line", "long_size", "name", "kind", "dtype"), FIELDS, ids=[case[0] for case in FIELDS])
def test_field(line: str, long_size: int, name: str, kind: FieldKind, dtype: str | None) -> None:
    """Name, kind and NumPy type of one field line."""
    fmt = parse_event_format(format_text("e", 1, line), "made", long_size)

    field = fmt.fields[-1]
    assert (field.name, field.kind) == (name, kind)
    if dtype is not None:
        assert field.dtype == np.dtype(eval(dtype) if dtype[0] == "(" else dtype)


def test_whole_format() -> None:
    """Name, id, system, size and print format of a file."""
    fmt = parse_event_format(format_text("e", 77, "int a;offset:8;size:4;signed:1", "u64 b;offset:16;size:8;signed:0"), "made")

    assert (fmt.name, fmt.id, fmt.system, fmt.size, fmt.print_fmt) == ("e", 77, "made", 24, '"x"')
    assert [field.name for field in fmt.fields[:4]] == ["common_type", "common_flags", "common_preempt_count", "common_pid"]
    assert fmt.field("b") is fmt.fields[-1]
    assert fmt.field("c") is None


def test_ftrace_arrays_end_where_the_record_ends() -> None:
    """A kernel stack holds as many callers as were recorded, whatever its format says."""
    line = "unsigned long caller[8];offset:16;size:64;signed:0"

    assert parse_event_format(format_text("kernel_stack", 4, line), "ftrace").fields[-1].kind is FieldKind.TAIL
    assert parse_event_format(format_text("other", 5, line), "made").fields[-1].kind is FieldKind.ARRAY


BAD = [
    ("ID: 1\n", "no name line"),
    ("name: e\n", "no ID line"),
    ("name: e\nID: 70000\n", "id '70000' is not a 16-bit number"),
    ("name: e\nID: 1\n\tfield:int a\n", "cannot read the line 'field:int a'"),
    ("name: e\nID: 1\n\tfield:int a;\toffset:999999999999;\tsize:4;\tsigned:1;\n", "out of range"),
    ("name: e\nID: 1\n\tfield:__data_loc char[] s;\toffset:8;\tsize:8;\tsigned:1;\n", "location word of s has size 8, not 4"),
    ("name: e\nID: 1\n\tfield:;\toffset:8;\tsize:8;\tsigned:1;\n", "no field name"),
    (
        "name: e\nID: 1\n" + "".join(f"\tfield:char a{i}[64];\toffset:8;\tsize:64;\tsigned:1;\n" for i in range(100)),
        "100 fields overlap",
    ),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad_format(text: str, message: str) -> None:
    """A format that cannot be read names the event and the line."""
    with pytest.raises(RecordingError, match=message):
        parse_event_format(text, "made")


def test_every_event_of_a_kernel(shared) -> None:  # type: ignore[no-untyped-def]
    """All 1,390 formats of a Linux 6.1 parse, and every field lies behind the one before it or shares its place."""
    import zstandard

    packed = (shared / "event-formats-6.1.txt.zst").read_bytes()
    text = zstandard.ZstdDecompressor().decompress(packed, max_output_size=1 << 24).decode()
    parts = text.split("\n== ")

    formats = [parse_event_format(part.partition("\n")[2], part.removeprefix("== ").partition("/")[0]) for part in parts]

    assert len(formats) == 1390
    assert all(fmt.field("common_pid") is not None for fmt in formats)
    assert len({(fmt.system, fmt.name) for fmt in formats}) == 1390
