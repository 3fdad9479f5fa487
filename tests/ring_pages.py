"""Ring-buffer pages and trace.dat files made by hand, for the reader's tests."""

from __future__ import annotations

import struct

from fastrtp.record.trace_dat_sections import FormatText
from fastrtp.record.trace_dat_writer import TraceContent

MISSED_EVENTS, MISSED_STORED = 1 << 31, 1 << 30

COMMON = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
)


def format_text(name: str, number: int, *fields: str) -> str:
    """A format file with the common fields; `fields` as `int a;offset:8;size:4;signed:1`."""
    lines = "".join(f"\tfield:{field};\n".replace(";offset", ";\toffset").replace(";size", ";\tsize") for field in fields)
    return f'name: {name}\nID: {number}\nformat:\n{COMMON}{lines}\nprint fmt: "x"\n'


ALPHA = FormatText("made", format_text("alpha", 10, "int a;offset:8;size:4;signed:1"))
BETA = FormatText(
    "made", format_text("beta", 11, "u64 b;offset:8;size:8;signed:0", "__data_loc char[] s;offset:16;size:4;signed:1")
)
FORMATS = {10: ALPHA, 11: BETA}


def common(number: int, pid: int, flags: int = 0, preempt: int = 0) -> bytes:
    return struct.pack("<HBBi", number, flags, preempt, pid)


def alpha(pid: int, value: int) -> bytes:
    return common(10, pid) + struct.pack("<i", value)


def beta(pid: int, value: int, text: bytes) -> bytes:
    text += b"\0"
    return common(11, pid) + struct.pack("<QI", value, len(text) << 16 | 20) + text


def event(delta: int, record: bytes, long_form: bool = False) -> bytes:
    """A data event: the length in type_len, or in array[0] when it is long."""
    padded = record + bytes(-len(record) % 4)
    if long_form or len(padded) > 28 * 4:
        return struct.pack("<II", delta << 5, len(padded) + 4) + padded
    return struct.pack("<I", delta << 5 | len(padded) // 4) + padded


def time_extend(delta: int) -> bytes:
    return struct.pack("<II", (delta & (1 << 27) - 1) << 5 | 30, delta >> 27)


def time_stamp(absolute: int) -> bytes:
    return struct.pack("<II", (absolute & (1 << 27) - 1) << 5 | 31, absolute >> 27 & 0xFFFFFFFF)


def discarded(delta: int, size: int) -> bytes:
    """A discarded event of `size` bytes in all."""
    return struct.pack("<II", delta << 5 | 29, size - 4) + bytes(size - 8)


def page(time: int, body: bytes, page_size: int = 4096, long_size: int = 8, flags: int = 0, lost: int | None = None) -> bytes:
    """A page with `body` committed; `lost` is stored behind it."""
    word = len(body) | flags
    out = struct.pack("<Q", time) + (struct.pack("<Q", word) if long_size == 8 else struct.pack("<I", word)) + body
    if lost is not None:
        out += lost.to_bytes(long_size, "little")
    assert len(out) <= page_size
    return out + bytes(page_size - len(out))


def content(*cpus: bytes, kernel_long: int = 8, **more: object) -> TraceContent:
    return TraceContent(formats=FORMATS, buffers={"": cpus}, kernel_long=kernel_long, **more)  # type: ignore[arg-type]


def two_cpus() -> TraceContent:
    """Five events on two CPUs, with everything else a file can hold."""
    first = page(1000, event(0, alpha(7, -1)) + event(10, beta(7, 2**63, b"hello")))
    second = page(
        1005, event(0, alpha(8, 5)) + event(5, alpha(8, 6), long_form=True) + time_extend(1 << 30) + event(1, alpha(0, 7))
    )
    return content(
        first,
        second,
        kallsyms=b"ffffffff81000000 T _text\nffffffffc0001000 t init\t[mod]\n",
        printk=b'0xffffffff82000000 : "hi"\n',
        cmdlines=b"7 seven\n8 eight of them\n",
        options=[(5, b"Linux made 6.1\0"), (8, struct.pack("<I", 2))],
    )
