"""record/trace_dat.py: files of both versions, whole, cut and spoilt."""

from __future__ import annotations

import random
import re
import resource
import shutil
import struct
import subprocess
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from ring_pages import alpha, beta, content, event, page, two_cpus

from fastrtp.errors import RecordingError
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.record.trace_dat import TraceDat
from fastrtp.record.trace_dat_writer import TraceContent, write_v6, write_v7

FORMS = {
    "v6": write_v6,
    "v7 zstd": write_v7,
    "v7 zlib": lambda made: write_v7(made, "zlib"),
    "v7 none": lambda made: write_v7(made, "none"),
}


def opened(data: bytes, tmp_path: Path, instance: str = "") -> Recording:
    path = tmp_path / "t.dat"
    path.write_bytes(data)
    return Recording.open(path, instance=instance)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form: str, tmp_path: Path) -> None:
    """Version and compression make no difference to what is read."""
    recording = opened(FORMS[form](two_cpus()), tmp_path)

    assert recording.time.tolist() == [1000, 1005, 1010, 1010, 1010 + (1 << 30) + 1]
    assert recording.cpu.tolist() == [0, 1, 0, 1, 1]
    assert recording.pid.tolist() == [7, 8, 7, 8, 0]
    assert recording.table("alpha").fields["a"].tolist() == [-1, 5, 6, 7]
    assert recording.table("beta").strings("s").tolist() == [b"hello"]
    assert recording.comms == {7: "seven", 8: "eight of them"}
    assert (recording.clock, recording.uname, recording.cpus) == ("mono", "Linux made 6.1", 2)
    assert recording.printk == {0xFFFFFFFF82000000: "hi"}
    assert recording.kallsyms.lookup(0xFFFFFFFF81000010) == ("_text", 16, "")
    assert recording.kallsyms.lookup(0xFFFFFFFFC0001000) == ("init", 0, "mod")
    assert recording.kallsyms.address("init") == 0xFFFFFFFFC0001000
    assert recording.kallsyms.lookup(5) is None


def test_info(tmp_path: Path) -> None:
    """The summary counts events by name and CPU and gives span, clock and host."""
    info = opened(write_v7(two_cpus()), tmp_path).info()

    assert info["by_name"] == {"made:alpha": 4, "made:beta": 1}
    assert (info["events"], info["cpus"], info["by_cpu"], info["pids"]) == (5, 2, {0: 2, 1: 3}, 3)
    assert info["seconds"] == pytest.approx(1.073741835)
    assert (info["clock"], info["host"], info["lost"], info["unknown"]) == ("mono", "Linux made 6.1", {}, {})


def test_instances(tmp_path: Path) -> None:
    """The top instance is read; others are listed and read by name."""
    one, other = page(0, event(1, alpha(1, 1))), page(0, event(5, alpha(2, 2)))
    made = TraceContent(formats=two_cpus().formats, buffers={"": (one,), "side": (other,)})

    top = opened(write_v7(made), tmp_path)
    side = opened(write_v7(made), tmp_path, "side")

    assert (top.instances, top.time.tolist()) == (["side"], [1])
    assert (side.instances, side.time.tolist()) == ([""], [5])
    with pytest.raises(RecordingError, match="no instance 'none'; there are: '', 'side'"):
        opened(write_v7(made), tmp_path, "none")


def instances(**buffers: bytes) -> TraceContent:
    """A file whose top instance has no events. `buffers`: a page of each instance beside it."""
    return TraceContent(formats=two_cpus().formats, buffers={"": [b""], **{name: [data] for name, data in buffers.items()}})


def read(made: TraceContent, tmp_path: Path) -> Recording:
    path = tmp_path / "t.dat"
    path.write_bytes(write_v7(made))
    return Recording.open(path)


def test_instances_that_differ_are_played_together(tmp_path: Path) -> None:
    """Unless one is asked for, all events are there, by time, whatever instance they are of."""
    net = page(0, event(1, alpha(1, 1)) + event(9, alpha(1, 2)))
    other = page(5, event(0, beta(2, 3, b"x")))

    recording = read(instances(net=net, other=other), tmp_path)

    assert (recording.time.tolist(), recording.pid.tolist()) == ([1, 5, 10], [1, 2, 1])
    assert recording.table("alpha").fields["a"].tolist() == [1, 2]
    assert recording.table("beta").strings("s").tolist() == [b"x"]
    assert recording.notes == ["events of instance 'net', instance 'other'"]
    assert recording.instances == [""]
    recording.check()


def test_the_one_instance_with_events_is_read(tmp_path: Path) -> None:
    """An empty top instance does not hide it."""
    recording = read(instances(net=page(0, event(1, alpha(1, 1))), empty=b""), tmp_path)

    assert (recording.events, recording.instances) == (1, ["", "empty"])
    assert recording.notes == ["events of instance 'net'"]


def test_instances_that_share_an_event_are_asked_for(tmp_path: Path) -> None:
    """What was recorded twice must not count twice: the error says what there is."""
    one, other = page(0, event(1, alpha(1, 1))), page(0, event(5, alpha(2, 2)) + event(5, alpha(2, 2)))

    with pytest.raises(RecordingError, match=r"instance 'net': 1, instance 'other': 2\), one event in several of them: ask for"):
        read(instances(net=one, other=other), tmp_path)


SECTIONS = {"kallsyms": 19, "printk": 20, "command lines": 21}


@pytest.mark.parametrize("name", SECTIONS)
def test_an_odd_optional_section_costs_itself(name: str, tmp_path: Path) -> None:
    """Events are read without symbols, formats of messages and names of processes."""
    data = bytearray(write_v7(two_cpus(), "none"))
    at = 0
    while True:  # the section's header: id, flags, place of its name, size
        at = data.index(struct.pack("<HH", SECTIONS[name], 0), at)
        size = struct.unpack_from("<Q", data, at + 8)[0]
        if 0 < size < 4096:
            break
        at += 1
    data[at + 16 : at + 24] = b"\xff" * min(size, 8)
    path = tmp_path / "t.dat"
    path.write_bytes(bytes(data))

    recording = Recording.open(path)
    symbols = len(recording.kallsyms)

    assert recording.events == 5
    assert symbols == (0 if name == "kallsyms" else 2)
    assert [note.split(": ")[:2] for note in recording.notes] == [["left out", f"{name} section"]]


def test_odd_options_cost_themselves(tmp_path: Path) -> None:
    """Options that say nothing of the events."""
    made = two_cpus()
    made.options = [(8, b"\1"), (11, b""), (5, b"Linux made 6.1\0")]

    recording = read(made, tmp_path)

    assert (recording.events, recording.uname) == (5, "Linux made 6.1")
    assert len(recording.notes) == 2


def test_tsc_and_offset(tmp_path: Path) -> None:
    """TSC cycles become ns by the file's multiplier and shift; a fixed offset is added."""
    cycles = (1 << 40) + 12345
    tsc = (14, struct.pack("<IIQ", 3 << 30, 32, 100))
    offset = (7, b"-7\0")

    made = content(page(cycles, event(0, alpha(1, 1))), clock="x86-tsc", options=[tsc, offset])

    assert opened(write_v7(made), tmp_path).time.tolist() == [(cycles * (3 << 30) >> 32) - 100 - 7]


def test_32_bit_kernel(tmp_path: Path) -> None:
    """The recorded kernel's long comes from header_page, so 4-byte commit words work."""
    made = content(page(9, event(1, alpha(1, 1)), long_size=4), kernel_long=4, long_size=4)

    assert opened(write_v7(made), tmp_path).time.tolist() == [10]


@pytest.mark.parametrize("form", FORMS)
def test_larger_sub_buffers(form: str, tmp_path: Path) -> None:
    """A kernel told to use ring-buffer pages of 16 kB has records behind the first 4 kB of each."""
    body = b"".join(event(1, alpha(1, number)) for number in range(600))
    made = content(page(0, body, page_size=16384) + page(10_000, body, page_size=16384), page_size=16384)

    data = bytearray(FORMS[form](made))
    assert data[14:18] == struct.pack("<I", 16384)
    data[14:18] = struct.pack("<I", 4096)  # the machine's memory page, which the file states first

    recording = opened(bytes(data), tmp_path)

    assert recording.events == 1200
    assert recording.table("alpha").fields["a"].tolist() == [*range(600), *range(600)]


REFUSED = [
    (b"", "empty file"),
    (b"\x7fELF" + bytes(100), r"neither a trace.dat nor a perf.data file: it is a program or object \(ELF\)"),
    (b"something else", "neither a trace.dat nor a perf.data file: begins b'something '"),
    (b"\xc1\x1f\xfc\xc1" + bytes(100), "it is a CTF trace, .*: not read; record the same events with trace-cmd or perf"),
    (b"\x28\xb5\x2f\xfd" + bytes(100), r"it is compressed: unpack it first \(zstd\)"),
    (b"PAR1" + bytes(100), "it is a table \\(Parquet\\): Recording.from_table reads it"),
    (b"\x17\x08\x44tracing" + b"5\0", "version '5' is not supported: 6 and 7 are"),
    (b"\x17\x08\x44tracing" + b"6\0\x01\x08", "a big-endian recording"),
    (b"\x17\x08\x44tracing" + b"6\0\x00\x07", "size of a long is 7"),
    (b"\x17\x08\x44tracing" + b"6\0\x00\x08\x03\x00\x00\x00", "page size 3 is not a power of two"),
    (b"\x17\x08\x44tracing" + b"7\0\x00\x08\x00\x10\x00\x00lz9\x001\0", "compression algorithm 'lz9' is not supported"),
    (b"\x17\x08\x44tracing" + b"7" * 100, "version has no end"),
    (
        b"\x17\x08\x44tracing" + b"6\0\x00\x08\x00\x10\x00\x00header_page\0\xff\xff\xff\xff\xff\xff\xff\x7f",
        "truncated: header_page wants 9223372036854775807 bytes",
    ),
    (b"\x17\x08\x44tracing" + b"7\0\x00\x08\x00\x10\x00\x00none\x001\0" + b"\xff" * 8, "past the end of the file"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=[case[1] for case in REFUSED])
def test_refused_by_name(data: bytes, message: str, tmp_path: Path) -> None:
    """What is not supported or not there is said."""
    with pytest.raises(RecordingError, match=message):
        opened(data, tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        Recording.open(tmp_path / "none.dat")


def test_options_in_a_ring(tmp_path: Path) -> None:
    """Options sections that lead back to themselves end in an error."""
    data = bytearray(write_v7(two_cpus(), "none"))
    first = struct.unpack_from("<Q", data, data.index(b"none\x001\0") + 7)[0]
    at = first + 16
    while (number := struct.unpack_from("<H", data, at)[0]) != 0:
        at += 6 + struct.unpack_from("<I", data, at + 2)[0]
    assert number == 0
    data[at + 6 : at + 14] = struct.pack("<Q", first)

    with pytest.raises(RecordingError, match="leads back to itself"):
        opened(bytes(data), tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_truncated_anywhere(form: str, tmp_path: Path) -> None:
    """A file cut at any byte is read or refused; never another error, never more events than the whole has."""
    whole = FORMS[form](two_cpus())
    events = opened(whole, tmp_path).events

    for length in range(0, len(whole), 7):
        try:
            assert opened(whole[:length], tmp_path).events <= events
        except RecordingError:
            continue


@pytest.mark.parametrize("form", FORMS)
def test_mutated(form: str, tmp_path: Path) -> None:
    """A file with bytes changed at random is read or refused with a RecordingError."""
    whole = FORMS[form](two_cpus())
    rng = random.Random(form)
    outcomes: Counter[str] = Counter()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data) if rng.random() < 0.5 else min(len(data), 1500))
            data[at] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        try:
            recording = opened(bytes(data), tmp_path)
            recording.check()
            len(recording.kallsyms)
            outcomes["read"] += 1
        except RecordingError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 20, outcomes
    assert outcomes["refused"] > 20, outcomes


def test_demo_recording_mutated(tmp_path: Path) -> None:
    """The real recording, spoilt, is read or refused."""
    whole = demo_recording().read_bytes()
    rng = random.Random(5)
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(3):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            opened(bytes(data), tmp_path).check()
        except RecordingError:
            continue


def test_hostile_sizes_allocate_nothing(tmp_path: Path) -> None:
    """Counts and sizes of billions in small files are refused before memory is taken for them."""
    plain = write_v7(two_cpus(), "zstd")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for pattern in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x40"):
        for at in range(30, len(plain) - 4, 11):
            data = plain[:at] + pattern + plain[at + 4 :]
            try:
                opened(data, tmp_path)
            except RecordingError:
                continue

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_demo_recording_counts() -> None:
    """The shipped recording holds what its provenance says."""
    recording = Recording.open(demo_recording())

    by_name = recording.info()["by_name"]
    assert (recording.events, recording.cpus, recording.clock) == (66152, 2, "mono")
    assert (by_name["raw_syscalls:sys_enter"], by_name["sched:sched_switch"], by_name["sched:sched_process_exec"]) == (
        13654,
        5069,
        3,
    )
    assert recording.table("sched_process_exec").strings("filename").tolist()[0] == b"/usr/bin/churn"
    assert np.all(np.diff(recording.time) >= 0)
    assert not recording.info()["lost"]


def test_progress_reaches_the_end() -> None:
    """progress(done, total) grows to the total."""
    calls: list[tuple[int, int]] = []

    Recording.open(demo_recording(), progress=lambda done, total: calls.append((done, total)))

    assert calls[-1][0] == calls[-1][1] > 0
    assert calls == sorted(calls)


# against trace-cmd

LINE = re.compile(rb"^\s*.*-(\d+) +\[(\d+)\] +(\d+)\.(\d{9}): (\w+): +(.*)$")
PAIR = re.compile(r"(\w+)=(ARRAY\[[^\]]*\]|\S*)")


def _same(recording: Recording, text: str, value: object) -> bool:
    """Whether trace-cmd's raw text of a field says `value`: it prints in decimal, in hex or as a symbol, as the event asks."""
    if isinstance(value, np.ndarray):
        return bytes.fromhex(text[6:-1].replace(",", "")) == value.tobytes()
    if isinstance(value, bytes):
        return text == value.partition(b"\0")[0].decode()
    number = int(value)  # type: ignore[call-overload]
    if text == "(nil)":
        return number == 0
    for base in (10, 16):
        try:
            if int(text, base) & (1 << 64) - 1 in (number & (1 << 64) - 1, number & (1 << 32) - 1):
                return True
        except ValueError:
            continue
    symbol = recording.kallsyms.lookup(number & (1 << 64) - 1)
    name, _, offset = text.partition("+")
    return symbol is not None and symbol.name == name and (not offset or symbol.offset == int(offset, 16))


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("file", ["trace.dat", "trace-v6.dat"])
def test_against_trace_cmd(file: str, shared: Path) -> None:
    """Counts by name, and time, CPU, pid and fields of a sample of every event type, are what trace-cmd report says."""
    path = shared / "recordings" / "churn" / file
    report = subprocess.run(["trace-cmd", "report", "-R", "-t", "-i", path], capture_output=True, check=True).stdout
    recording = Recording.open(path)
    seen: dict[str, int] = defaultdict(int)
    checked: Counter[str] = Counter()
    where = {table.name: (table, recording.positions[index]) for index, table in enumerate(recording.tables)}
    for line in report.splitlines()[1:]:
        match = LINE.match(line)
        assert match is not None, line
        pid, cpu, seconds, nanoseconds, name, rest = (part.decode() for part in match.groups())
        row = seen[name]
        seen[name] += 1
        if row % 37 and row > 20:
            continue
        table, positions = where[name]
        at = positions[row]
        assert recording.time[at] == int(seconds) * 10**9 + int(nanoseconds)
        assert (recording.pid[at], recording.cpu[at]) == (int(pid), int(cpu))
        pairs = PAIR.findall(rest)
        assert {field for field, _ in pairs} == {field for field in table.fields if not field.startswith("common_")}
        for field, text in pairs:
            value = table.bytes_at(field, row) if field in table.heaps else table.fields[field][row]
            assert _same(recording, text, value), (name, row, field, text, value)
        checked[name] += 1

    assert dict(seen) == {table.name: len(table) for table in recording.tables}
    assert len(checked) == 37
    assert sum(checked.values()) > 2000


def test_container_attributes(tmp_path: Path) -> None:
    """The container alone: formats by id, page size, buffers."""
    path = tmp_path / "t.dat"
    path.write_bytes(write_v7(two_cpus()))

    trace = TraceDat(path)

    assert sorted(trace.formats) == [10, 11]
    assert trace.formats[10].system == "made"
    assert (trace.version, trace.page_size, trace.compression, trace.compressed) == (7, 4096, "zstd", True)
    assert [(buffer.name, len(buffer.cpus)) for buffer in trace.buffers] == [("", 2)]


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"v7 zlib"}))  # Debian's trace-cmd is built without zlib
def test_written_files_are_trace_cmds(form: str, tmp_path: Path) -> None:
    """What the writer writes, trace-cmd reads: same events, times and CPUs."""
    path = tmp_path / "t.dat"
    path.write_bytes(FORMS[form](two_cpus()))

    report = subprocess.run(["trace-cmd", "report", "-R", "-t", "-i", path], capture_output=True, check=True).stdout

    lines = [match.groups() for match in map(LINE.match, report.splitlines()) if match is not None]
    recording = Recording.open(path)
    assert [(int(pid), int(cpu)) for pid, cpu, *_ in lines] == list(
        zip(recording.pid.tolist(), recording.cpu.tolist(), strict=True)
    )
    assert [int(s) * 10**9 + int(ns) for _, _, s, ns, *_ in lines] == recording.time.tolist()
    assert [name.decode() for *_, name, _ in lines] == [recording.tables[event].name for event in recording.event]


def test_a_folder_of_ctf_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel" / "metadata").write_text("/* CTF 1.8 */")

    with pytest.raises(RecordingError, match="a CTF trace, as LTTng"):
        Recording.open(tmp_path)
