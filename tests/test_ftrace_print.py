"""Records as text: as trace-cmd prints them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ftrace import DIFFER

from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.event_format import EventFormat, parse_event_format
from fastrtp.record.event_formats import default_formats
from fastrtp.record.print_fmt import PrintFormat

REPORT = Path(__file__).parent / "data" / "ftrace" / "report.txt"


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel


def symbols(recording: Recording, address: int) -> tuple[str, int] | None:
    found = recording.kallsyms.lookup(address)
    return (found.name, found.offset) if found is not None else None


def test_text_is_trace_cmds(kernel: Kernel, recording: Recording) -> None:
    """Every kind of event: layout of the line and print format. What differs in the record is taken from the recording."""
    kernel.ftrace.set_buffer_size(1 << 24)
    kernel.ftrace.enable(*(table.name for table in recording.tables))
    kernel.replay(recording)
    records = list(kernel.ftrace.records())
    lines = list(kernel.ftrace.text(comms=recording.comms, symbols=lambda address: symbols(recording, address)))
    base = recording.kallsyms.address("vmemmap_base")
    assert base is not None
    formats = {
        table.name: PrintFormat(table.fmt, {"vmemmap_base": base}, lambda address: symbols(recording, address))
        for table in recording.tables
        if table.fmt is not None
    }
    expected = dict(line.split("\t") for line in REPORT.read_text().splitlines())
    actual = {}

    for number in expected:
        record, line = records[int(number)], lines[int(number)]
        table, row = recording.tables[recording.event[int(number)]], recording.row[int(number)]
        data = bytearray(record.data)
        for spec in record.fmt.fields:
            if (table.name, spec.name) in DIFFER:
                data[spec.offset : spec.offset + spec.size] = table.fields[spec.name][row].tobytes()
        head = line.index(f"{table.name}:") + max(22, len(table.name) + 2)
        actual[number] = line[:head] + formats[table.name].text(bytes(data))

    assert len({record.name for record in records}) == 37
    assert {number: line.rstrip() for number, line in actual.items()} == {
        number: line.rstrip() for number, line in expected.items()
    }


def test_enumerators_come_from_the_kernels_types(kernel: Kernel) -> None:
    """The names that a format prints by; trace-cmd, which has no BTF, prints 0x9."""
    kernel.ftrace.enable("hrtimer_init")
    kernel.trace("hrtimer_init")(0, 1, 9)

    (line,) = kernel.ftrace.text()

    assert line.endswith("hrtimer_init:         hrtimer=(nil) clockid=CLOCK_MONOTONIC mode=REL|HARD")
    assert line.lstrip().startswith("<...>-") or line.lstrip().startswith("<idle>-0 ")


def test_events_of_ones_own(kernel: Kernel) -> None:
    """Their print format lists their arguments."""
    kernel.trace_event("mine", "int number, unsigned char small, const char *name, void *where")
    kernel.ftrace.enable("mine")
    kernel.trace("mine")(-5, 300, "text", 0xFFFF_8000_0000_0000)

    (line,) = kernel.ftrace.text()

    assert line.endswith("mine:                 number=-5 small=44 name=text where=ffff800000000000")


def test_all_formats_of_the_kernel() -> None:
    """Whatever the bytes are, no format raises; all but a few are within the supported C."""
    failed = []
    for name, fmt in default_formats().items():
        printer = PrintFormat(fmt)
        if printer.error:
            failed.append(name)
        for data in (b"", bytes(256), b"\xff" * 256, bytes(range(256))):
            assert isinstance(printer.text(data), str)

    assert len(failed) <= 27, failed


def format_with(print_fmt: str) -> EventFormat:
    """An event with a s32, u64 and text field."""
    return parse_event_format(
        "name: x\nID: 1\nformat:\n\tfield:int a;\toffset:8;\tsize:4;\tsigned:1;\n\tfield:u64 b;\toffset:16;\tsize:8;\tsigned:0;\n"
        f"\tfield:char c[8];\toffset:24;\tsize:8;\tsigned:1;\n\nprint fmt: {print_fmt}\n",
        "test",
    )


RECORD = bytes(8) + (-3).to_bytes(4, "little", signed=True) + bytes(4) + (0x1234).to_bytes(8, "little") + b"hello\0xx"


@pytest.mark.parametrize(
    ("print_fmt", "text"),
    [
        ('"%d %u %x %lu", REC->a, REC->a, REC->a, REC->a', "-3 4294967293 fffffffd 18446744073709551613"),
        ('"%llx", REC->a', "fffffffffffffffd"),
        ('"%s|%8s|%-8s|%.2s|", REC->c, REC->c, REC->c, REC->c', "hello|   hello|hello   |he|"),
        ('"%08lx %#lx %#x %5llu|%-6llu|%+d", REC->b, REC->b, 0, REC->b, REC->b, 7', "00001234 0x1234 0  4660|4660  |+7"),
        ('"%hd %hhu %c %%", REC->b + 0x10000, REC->b, 65', "4660 52 A %"),
        ('"%*d|%.3d|%03d", 5, 42, 7, -7', "   42|007|-07"),
        ('"%d", 1 + 2 * 3 - 8 / 2 % 3', "6"),
        ('"%d", (1 << 4 | 3) ^ 1 & ~0', "18"),
        ('"%d %d", -7 / 2, -7 % 2', "-3 -1"),
        ('"%d", REC->b / 0', "0"),
        ('"%s", REC->a < 0 && REC->b > 4 ? "yes" : "no"', "yes"),
        ('"%d", REC->b != -1UL', "1"),
        ('"%d", (u64)REC->a == -3UL', "1"),
        ('"%u", (unsigned char) REC->b', "52"),
        ('"%ld", (long)(int)0xffffffff', "-1"),
        ('"%s", __print_flags(REC->b, "|", { 0x4, "four" }, { 0x10 | 0x20, "both" }, { 0x1000, "k" })', "four|both|k|0x200"),
        ('"%s", __print_flags(0, "|", { 1, "one" })', ""),
        ('"%s %s", __print_symbolic(REC->a, { -3, "minus" }), __print_symbolic(5, { 1, "one" })', "minus 0x5"),
        ('"%s", __print_symbolic(0, { NAMED, "named" }, { UNKNOWN, "unknown" }, { 0, "zero" })', "zero"),
        ('"%s", __print_symbolic(9, { NAMED, "named" })', "named"),
        ('"%s", __print_hex(REC->c, 3)', "68 65 6c"),
        ('"%s", __print_array(REC->c, 2, 2)', "{0x6568,0x6c6c}"),
        ('"%ps %pS %p %ps", (void *)(1UL << 63), (void *)((1UL << 63) + 4), (void *)16, (void *)0', "start start+0x4 0x10 (nil)"),
        ('"%pI4 %d", REC->c, REC->c[1]', "104.101.108.108 101"),
        ('"a" "b\\n"', "ab\n"),
        ('"%d %d", 1', "a=-3 b=4660 c=hello"),
        ('"%d", *REC->c', "a=-3 b=4660 c=hello"),
        ('"%d", some_function(REC->a)', "a=-3 b=4660 c=hello"),
        ('"%d", REC->nothing', "a=-3 b=4660 c=hello"),
        ('"%d", ' + "(" * 5000, "a=-3 b=4660 c=hello"),
        ('"%f", 1', "a=-3 b=4660 c=hello"),
        ("", ""),
    ],
)  # fmt: skip
def test_print_formats(print_fmt: str, text: str) -> None:
    """C's operators, printf's conversions, the kernel's functions; the fields where a format is beyond these."""
    printer = PrintFormat(
        format_with(print_fmt), {"NAMED": 9}, lambda address: ("start", address & 0xFFFF) if address >> 63 else None
    )

    assert printer.text(RECORD) == text
