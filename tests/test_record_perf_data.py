"""record/perf_data*.py: files of perf record in every form, whole, cut and spoilt."""

from __future__ import annotations

import json
import random
import re
import resource
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import perf_files as made
import pytest
from click.testing import CliRunner
from perf_files import ALPHA, BETA, EVENTS, FEATURES, sample, whole
from ring_pages import alpha, beta, common
from truth import compared_pids, kernel_map

import fastrtp as rtp
from bench.perf_data import Event, from_trace_dat
from fastrtp.cli import main
from fastrtp.errors import RecordingError
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay.stacks import stack_columns

BEFORE, RECORDS = made.two_cpus()
ONE = (replace(ALPHA, ids=(101,)),)
EVERYTHING = (
    made.IDENTIFIER | made.IP | made.TID | made.TIME | made.ADDR | made.ID | made.STREAM_ID | made.CPU | made.PERIOD | made.READ
    | made.CALLCHAIN | made.RAW | made.BRANCH_STACK | made.REGS_USER | made.STACK_USER | made.WEIGHT | made.DATA_SRC
    | made.TRANSACTION | made.REGS_INTR | made.PHYS_ADDR
)  # fmt: skip
LEAST = made.TIME | made.RAW
FORMS = {
    "file": whole(EVENTS, BEFORE + RECORDS),
    "pipe": made.write_pipe(EVENTS, BEFORE + RECORDS, FEATURES),
    "zstd": made.write_file(EVENTS, BEFORE + made.compressed(RECORDS), made.PACKED),
    "zstd, aligned": made.write_file(EVENTS, BEFORE + made.compressed(RECORDS, made.COMPRESSED2), made.PACKED),
    "zstd, pipe": made.write_pipe(EVENTS, BEFORE + made.compressed(RECORDS), made.PACKED),
}


def opened(data: bytes, tmp_path: Path) -> Recording:
    path = tmp_path / "perf.data"
    path.write_bytes(data)
    return Recording.open(path)


def check_two_cpus(recording: Recording) -> None:
    assert recording.time.tolist() == [1000, 1005, 1010, 1010, 1011 + (1 << 30)]
    assert recording.cpu.tolist() == [0, 1, 0, 1, 1]
    assert recording.pid.tolist() == [7, 8, 7, 8, 0]
    assert recording.table("alpha").fields["a"].tolist() == [-1, 5, 6, 7]
    assert recording.table("made:beta").strings("s").tolist() == [b"hello"]
    assert recording.comms == {7: "seven", 8: "eight of them", 9: "nine"}
    assert (recording.clock, recording.uname, recording.cpus) == ("mono", "Linux box 6.1.0-made x86_64", 2)
    assert recording.printk == {0xFFFFFFFF82000000: "hi"}
    assert recording.kallsyms.lookup(0xFFFFFFFFC0001000) == ("init", 0, "mod")
    assert (recording.lost, recording.gaps, recording.unknown, recording.notes) == ({}, {}, {}, [])
    recording.check()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form: str, tmp_path: Path) -> None:
    """Header or leading records, plain or compressed: no difference to what is read."""
    check_two_cpus(opened(FORMS[form], tmp_path))


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_of_several_files(packed: bool, tmp_path: Path) -> None:
    """perf record --threads: a header with what was synthesized, and a file of records for each thread."""
    half = len(RECORDS) - len(made.record(made.FINISHED_ROUND, b""))
    first = len(sample(ALPHA, 1000, alpha(7, -1)) + sample(BETA, 1010, beta(7, 2**63, b"hello")))
    files = [RECORDS[:first], b"", RECORDS[first:half]]
    made.write_folder(tmp_path / "p", EVENTS, BEFORE, *(made.compressed(file) if packed and file else file for file in files))

    check_two_cpus(Recording.open(tmp_path / "p"))

    (tmp_path / "p" / "kcore_dir").mkdir()
    (tmp_path / "p" / "kcore_dir" / "kallsyms").write_bytes(b"ffffffff81000000 T elsewhere\n")
    assert Recording.open(tmp_path / "p").kallsyms.address("elsewhere") == 0xFFFFFFFF81000000


def test_a_saved_folder_keeps_it_all(tmp_path: Path) -> None:
    """The columnar form has what perf told of threads and of itself."""
    recording = opened(whole(EVENTS, BEFORE + sample(ALPHA, 5, alpha(12, 1), tgid=11)), tmp_path)
    recording.save(tmp_path / "columns")

    again = Recording.open(tmp_path / "columns")

    assert (again.groups, again.facts, again.comms) == (recording.groups, recording.facts, recording.comms)
    assert again.groups == {12: 11}
    assert again.facts["processor"] == "Some CPU"


# samples

GROUP = 1 | 2 | 4 | 8 | 16
LAYOUTS = {
    "time and raw data only": (replace(ONE[0], sample_type=LEAST),),
    "of one event without an id": (Event(10, (), sample_type=LEAST | made.CPU | made.TID),),
    "all words": (replace(ALPHA, sample_type=EVERYTHING), replace(BETA, sample_type=EVERYTHING)),
    "id where it was before identifiers": (replace(ALPHA, sample_type=LEAST | made.IP | made.TID | made.ID | made.CPU),
                                           replace(BETA, sample_type=LEAST | made.IP | made.TID | made.ID | made.CPU)),
    "events that differ": (replace(ALPHA, sample_type=EVERYTHING, read_format=GROUP), BETA),
    "counters": (replace(ALPHA, sample_type=EVERYTHING, read_format=4), replace(BETA, sample_type=EVERYTHING, read_format=1 | 4)),
    "counters of a group": (replace(ALPHA, sample_type=EVERYTHING, read_format=GROUP),
                            replace(BETA, sample_type=EVERYTHING, read_format=8 | 2)),
    "attrs of an old perf": (replace(ALPHA, size=64), replace(BETA, size=64)),
    "attrs of a perf to come": (replace(ALPHA, size=160), replace(BETA, size=160)),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_samples(name: str, tmp_path: Path) -> None:
    """Whatever an event asked for beside it, time, CPU, task and raw data are found; what is behind them is not looked at."""
    events = LAYOUTS[name]
    first, last = events[0], events[-1]
    behind = b"\xff" * 64
    chain = [made.KERNEL_CONTEXT, 1, 2] if first.sample_type & made.CALLCHAIN else []
    records = sample(first, 5, alpha(7, 3), 1, chain=chain, members=3, behind=behind)
    if last is not first:
        records += sample(last, 6, beta(8, 9, b"x"), 0, behind=behind, members=1)

    for data in (whole(events, records), made.write_pipe(events, records, FEATURES)):
        recording = opened(data, tmp_path)

        stacks = 1 if chain else 0
        assert recording.table("alpha").fields["a"].tolist() == [3]
        assert (recording.time[0], recording.pid[0]) == (5, 7)
        assert recording.cpu[0] == (1 if first.sample_type & made.CPU else 0)
        assert recording.events == (1 if last is first else 2) + stacks
        if last is not first:
            assert recording.table("beta").strings("s").tolist() == [b"x"]
            assert (recording.time[-1], recording.cpu[-1], recording.pid[-1]) == (6, 0, 8)


def test_order_is_of_time(tmp_path: Path) -> None:
    """Each CPU's events are in time order, across buffers and rounds; equal times keep the file's order."""
    times = [(50, 0, 1), (10, 0, 2), (50, 1, 3), (20, 1, 4), (10, 0, 5), (10, 1, 6)]
    records = b"".join(sample(ALPHA, time, alpha(7, value), cpu) for time, cpu, value in times)

    recording = opened(whole(EVENTS, records), tmp_path)

    assert recording.time.tolist() == [10, 10, 10, 20, 50, 50]
    assert recording.table("alpha").fields["a"].tolist() == [2, 5, 6, 4, 1, 3]


def test_other_records_are_stepped_over(tmp_path: Path) -> None:
    """Maps, exits, rounds and types of the future; what follows an AUXTRACE record is no record, whatever it looks like."""
    inside = sample(ALPHA, 1, alpha(1, 1))
    others = [
        made.record(made.MMAP, bytes(80)), made.record(made.MMAP2, bytes(104)), made.record(made.EXIT, bytes(56)),
        made.record(made.FINISHED_ROUND, b""), made.record(120, inside), made.record(200, inside),
        made.record((1 << 31) + 9, inside), made.auxtrace(inside), made.auxtrace(b""), made.record(made.TIME_CONV, bytes(48)),
    ]  # fmt: skip
    records = b"".join(other + sample(ALPHA, time, alpha(7, time)) for time, other in enumerate(others))

    assert opened(whole(EVENTS, records), tmp_path).table("alpha").fields["a"].tolist() == list(range(len(others)))


def test_samples_that_are_left_out_are_told(tmp_path: Path) -> None:
    """Samples of other events, of unknown ones, with formats that are missing; events that were not all recorded."""
    cycles = Event(0, (200,), "cycles", type=0)
    tenth = replace(BETA, period=10)
    records = b"".join((
        sample(cycles, 1, bytes(8)), sample(cycles, 2, bytes(8)), sample(ALPHA, 3, alpha(7, 1)),
        sample(ALPHA, 4, alpha(7, 1), ident=9), sample(ALPHA, 5, common(77, 7)), sample(tenth, 6, beta(7, 1, b"")),
    ))  # fmt: skip
    features = {**FEATURES, made.EVENT_DESC: made.event_desc((ALPHA, tenth, cycles))}

    recording = opened(made.write_file((ALPHA, tenth, cycles), records, features), tmp_path)

    assert recording.time.tolist() == [3, 6]
    assert recording.unknown == {77: 1}
    assert recording.notes == [
        "not every made:beta was recorded: one of 10",
        "2 samples of cycles are no tracepoint's",
        "1 samples have no event's id",
    ]


def test_an_event_gets_its_name_from_a_pipes_records(tmp_path: Path) -> None:
    """EVENT_UPDATE records name events where there is no header to do it."""
    cycles = Event(0, (200,), type=0)
    update = made.record(made.EVENT_UPDATE, struct.pack("<QQ", 2, 200) + b"cycles:u\0")
    records = update + sample(cycles, 1, bytes(8)) + sample(ALPHA, 3, alpha(7, 1))

    recording = opened(made.write_pipe((ALPHA, cycles), records, {1: FEATURES[1]}), tmp_path)

    assert recording.notes == ["1 samples of cycles:u are no tracepoint's"]


def test_clocks(tmp_path: Path) -> None:
    """The clock's name is ftrace's."""
    for flags, clockid, clock in ((0, 0, "perf"), (1 << 25, 1, "mono"), (1 << 25, 4, "mono_raw"), (1 << 25, 7, "boot")):
        events = (replace(ONE[0], flags=flags, clockid=clockid),)
        assert opened(whole(events, sample(events[0], 1, alpha(7, 1))), tmp_path).clock == clock


# callchains


def test_callchains_become_stacks(tmp_path: Path) -> None:
    """The kernel's and the user's part of a chain follow their event as ftrace's stack events do; other parts are left out."""
    event = replace(ALPHA, sample_type=ALPHA.sample_type | made.CALLCHAIN)
    kernel, user = made.KERNEL_CONTEXT, made.USER_CONTEXT
    chains = [
        [kernel, 0xFFFFFFFF81000001, 0xFFFFFFFF81000002, user, 10, 20], [], [user, 30], [(1 << 64) - 2048, 5, kernel, 6],
        [kernel, user], [7, 8], [kernel, 1, user, 2, kernel, 3],
    ]  # fmt: skip
    records = b"".join(sample(event, time, alpha(7, time), chain=chain) for time, chain in enumerate(chains))

    recording = opened(whole((event, BETA), records), tmp_path)

    names = [recording.tables[number].name for number in recording.event.tolist()]
    a, k, u = "alpha", "kernel_stack", "user_stack"
    assert names == [a, k, u, a, a, u, a, k, a, a, a, k, u]
    assert recording.time.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 6, 6, 6]
    kernels, users = recording.table("kernel_stack"), recording.table("user_stack")
    assert [np.frombuffer(kernels.bytes_at("caller", row), "<u8").tolist() for row in range(len(kernels))] == [
        [0xFFFFFFFF81000001, 0xFFFFFFFF81000002],
        [6],
        [1],
    ]
    assert [np.frombuffer(users.bytes_at("caller", row), "<u8").tolist() for row in range(len(users))] == [[10, 20], [30], [2]]
    recording.check()
    found = stack_columns(recording)
    assert found is not None
    assert (found[0] != 0).tolist()[:4] == [[True, True], [False, False], [False, False], [False, False]]
    recording.save(tmp_path / "columns")
    assert Recording.open(tmp_path / "columns").table("user_stack").bytes_at("caller", 0) == struct.pack("<QQ", 10, 20)


# what is told beside the samples


def test_names_and_groups_of_tasks(tmp_path: Path) -> None:
    """The last name of each task, by time and not by place; children have their parents'; threads know their group."""
    records = b"".join((
        sample(ALPHA, 900, alpha(31, 0), tgid=30), sample(ALPHA, 901, alpha(31, 0), tgid=40, tid=5),
        sample(ALPHA, 902, alpha(32, 0), tgid=-1, tid=-1), made.comm(20, 20, "late", 500), made.comm(20, 20, "early", 100),
        made.comm(1, 1, "init"), made.fork(21, 21, 20, 300), made.fork(20, 22, 20, 600), made.comm(50, 51, "a" * 30, 700),
        made.fork(1, 1, 1, 0),
    ))  # fmt: skip

    recording = opened(whole(EVENTS, records), tmp_path)

    assert recording.comms == {1: "init", 7: "old", 9: "nine", 20: "late", 21: "early", 22: "late", 51: "a" * 15}
    assert recording.groups == {22: 20, 51: 50, 31: 30}
    assert [recording.tgid(pid) for pid in (22, 31, 32, 20)] == [20, 30, 32, 20]


def test_losses(tmp_path: Path) -> None:
    """By CPU: what a full buffer lost, which perf may count twice; filtered samples are no losses; throttling has no number."""
    records = b"".join((
        made.lost(3, 0), made.lost(4, 0), made.lost(5, 1), made.lost_samples(2, 0), made.lost_samples(9, 1),
        made.lost_samples(100, 1, misc=1 << 15), made.lost_samples(6, 2), made.throttle(1), sample(ALPHA, 1, alpha(7, 0)),
    ))  # fmt: skip

    recording = opened(whole(EVENTS, records), tmp_path)

    assert recording.lost == {0: 7, 1: 9, 2: 6}
    assert recording.gaps == {1: 1}


def test_trailers_that_differ(tmp_path: Path) -> None:
    """Events with different samples have different trailers, told apart by the identifier; or none at all."""
    short = replace(BETA, sample_type=made.IDENTIFIER | made.TIME | made.CPU | made.RAW)
    none = (replace(ALPHA, flags=0),)
    records = made.lost(3, 1, ALPHA) + made.lost(4, 1, short) + sample(short, 1, beta(7, 1, b""))

    assert opened(whole((ALPHA, short), records), tmp_path).lost == {1: 7}
    assert opened(whole(none, made.lost(3, 1, none[0]) + made.comm(5, 5, "x", event=none[0])), tmp_path).lost == {0: 3}


def test_info(tmp_path: Path) -> None:
    """The summary has what the header tells of machine and recorder, on the command line, too."""
    path = tmp_path / "perf.data"
    path.write_bytes(FORMS["file"])

    info = Recording.open(path).info()
    shown = CliRunner().invoke(main, ["info", str(path)], catch_exceptions=False)
    written = CliRunner().invoke(main, ["info", "--format", "json", str(path)], catch_exceptions=False)

    assert info["by_name"] == {"made:alpha": 4, "made:beta": 1}
    assert info["facts"] == {
        "recorded by": "perf 6.1.192",
        "command": "perf record",
        "processor": "Some CPU",
        "memory": "1024 kB",
        "began": "2023-11-14 22:13:20.000+00:00",
    }
    assert json.loads(written.stdout)["facts"] == info["facts"]
    for text in ("Linux box 6.1.0-made x86_64", "perf 6.1.192", "Some CPU", "made:alpha"):
        assert text in shown.stdout


# a whole recording


@pytest.fixture(scope="module")
def demo_as_perf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("perf") / "perf.data"
    path.write_bytes(from_trace_dat(demo_recording()))
    return path


def test_the_demo_as_perf_data(demo_as_perf: Path) -> None:
    """What trace-cmd recorded, written as perf would have: the same tables, and programs count what they did in the kernel."""
    ours, theirs = Recording.open(demo_as_perf), Recording.open(demo_recording())

    assert (ours.events, ours.cpus, ours.comms) == (theirs.events, theirs.cpus, theirs.comms)
    for column in ("time", "cpu", "pid"):
        assert np.array_equal(getattr(ours, column), getattr(theirs, column))
    for mine, other in zip(ours.tables, theirs.tables, strict=True):
        assert mine.name == other.name
        for name, values in other.fields.items():
            assert np.array_equal(mine.fields[name], values)
    kernel = rtp.Kernel()
    with kernel.load(str(Path(__file__).parent / "data" / "replay" / "recount.bpf.o")) as obj, obj.attach():
        kernel.replay(demo_as_perf)
        counted = dict(obj.maps["wakeups"].raw_items())
    pids = compared_pids()
    expected = {key: value for key, value in kernel_map("wakeups").items() if int.from_bytes(key, "little") in pids}
    assert expected
    assert {key: value for key, value in counted.items() if int.from_bytes(key[:4], "little") in pids} == expected


def test_import_and_replay_on_the_command_line(demo_as_perf: Path, tmp_path: Path) -> None:
    """fastrtp import and fastrtp replay take it as they take a trace.dat."""
    program = str(Path(rtp.__file__).parent / "programs" / "switches.bpf.o")

    taken = CliRunner().invoke(main, ["import", str(demo_as_perf), str(tmp_path / "out")], catch_exceptions=False)
    results = [
        CliRunner().invoke(main, ["replay", program, str(path), "--format", "json"], catch_exceptions=False)
        for path in (demo_as_perf, tmp_path / "out", demo_recording())
    ]

    assert "66,152 events" in taken.stdout
    maps = [json.loads(result.stdout)["maps"] for result in results]
    assert maps[0] == maps[1] == maps[2]


def test_progress_reaches_the_end(demo_as_perf: Path) -> None:
    """progress(done, total) grows to the total."""
    calls: list[tuple[int, int]] = []

    Recording.open(demo_as_perf, progress=lambda done, total: calls.append((done, total)))

    assert calls[-1][0] == calls[-1][1] == demo_as_perf.stat().st_size
    assert calls == sorted(calls)


# refused

HEADER = bytearray(whole(EVENTS, BEFORE + RECORDS))


def spoilt(at: int, data: bytes) -> bytes:
    return bytes(HEADER[:at] + data + HEADER[at + len(data) :])


def with_features(**changed: bytes) -> bytes:
    return made.write_file(EVENTS, RECORDS, {**FEATURES, **{int(name[1:]): data for name, data in changed.items()}})


def sized(records: bytes, at: int, value: int, size: int = 8) -> bytes:
    """A file of these records with a number in them changed."""
    return whole(ONE, records[:at] + value.to_bytes(size, "little") + records[at + size :])


CHAINED = replace(ONE[0], sample_type=ONE[0].sample_type | made.CALLCHAIN)
GROUPED = replace(ONE[0], sample_type=ONE[0].sample_type | made.READ, read_format=8)
RAW_AT = 8 + 8 * 6
TRACING = FEATURES[1]
REFUSED = [
    (b"2ELIFREP" + bytes(100), "a big-endian perf.data file"),
    (b"PERFFILE" + bytes(100), "a perf.data file of version 1"),
    (b"PERFILE2", "size of the header wants 8 bytes"),
    (b"PERFILE2" + struct.pack("<Q", 17), "size of the header is 17, expected 104 or, of a pipe, 16"),
    (b"PERFILE2" + struct.pack("<Q", 16), "a perf.data file without events"),
    (spoilt(16, struct.pack("<Q", 10)), "bytes of attrs, each of -6 and 16"),
    (spoilt(16, struct.pack("<Q", 1 << 40)), "bytes of attrs, each of"),
    (spoilt(32, struct.pack("<Q", 1 << 40)), "truncated: attrs takes 1099511627776 bytes"),
    (spoilt(40, struct.pack("<Q", 1 << 60)), "truncated: data takes"),
    (spoilt(48, struct.pack("<Q", 0)), "perf record did not end, so that event formats are missing"),
    (whole(EVENTS, BEFORE)[:-5], "truncated: feature 29 takes 24 bytes"),
    (with_features(_1=b"x" * 40), "feature 1: offset .*: begins with"),
    (with_features(_1=TRACING.replace(b"0.6\0\0", b"0.6\0\1")), "a big-endian recording"),
    (with_features(_1=TRACING.replace(b"0.6\0\0\x08", b"0.6\0\0\x04")), "longs of 4 bytes: only 64-bit ones are supported"),
    (with_features(_1=TRACING.replace(b"0.6\0", b"9.6\0")), "version '9.6' is not supported"),
    (with_features(_1=TRACING[:300]), "truncated: "),
    (with_features(_27=struct.pack("<5I", 1, 7, 0, 0, 0)), "compression 7 is not supported: zstd is"),
    (made.write_file(EVENTS, RECORDS, {3: made.text("box")}), "tracepoints, but no event formats"),
    (whole((Event(0, (5,), type=0),), RECORDS), "no tracepoint among its events: type 0 config 0x0"),
    (whole((replace(ALPHA, sample_type=made.RAW | made.ID),), RECORDS), "the samples of made:alpha have no times"),
    (whole((replace(ALPHA, sample_type=made.TIME | made.ID),), RECORDS), "the samples of made:alpha have no raw data"),
    (whole((ALPHA, replace(BETA, sample_type=LEAST | made.ID)), RECORDS), "differ in where a sample has its id: at bytes 8, 16"),
    (whole((Event(10, sample_type=LEAST), Event(11, sample_type=LEAST | made.CPU)), RECORDS), "no ids to tell these apart"),
    (sized(sample(ALPHA, 1, alpha(7, 1)), 6, 7, 2), "offset 0x[0-9a-f]+: a record shorter than its header"),
    (sized(sample(ALPHA, 1, alpha(7, 1)), 6, 9999, 2), "truncated: a record passes the end of the data"),
    (whole(ONE, made.record(9, bytes(8))), "a sample too short for what its event says it has|samples have no"),
    (whole((Event(10, sample_type=LEAST),), made.record(9, bytes(4))), "a sample too short for what its event says it has"),
    (sized(sample(ONE[0], 1, alpha(7, 1)), RAW_AT, 1000, 4), "a sample whose raw data passes its end"),
    (sized(sample(ONE[0], 1, alpha(7, 1)), RAW_AT, 4, 4), "raw data too short for the common fields"),
    (sized(sample(ONE[0], 1, alpha(7, 1)), RAW_AT - 16, 1 << 20, 4), "a sample of a CPU beyond 65535"),
    (sized(sample(ONE[0], 1, alpha(7, 1)), 32, 1 << 63), "a time stamp is beyond 63 bits"),
    (whole((CHAINED,), sample(CHAINED, 1, alpha(7, 1))[:RAW_AT] + b"\xff" * 24), "a sample whose callchain passes its end"),
    (whole((GROUPED,), sample(GROUPED, 1, alpha(7, 1))[:RAW_AT] + b"\1" * 40), "a sample whose counters pass its end"),
    (sized(made.auxtrace(bytes(64)), 8, 1 << 50), "truncated: a record passes the end of the data"),
    (whole(ONE, made.record(made.COMM, bytes(4))), "pid of a task wants 4 bytes|tid of a task wants 4 bytes"),
    (whole(ONE, made.record(made.LOST, bytes(12))), "number of lost records wants 8 bytes"),
    (whole(ONE, made.record(made.COMPRESSED, b"garbage")), "compressed data: zstd: "),
    (whole(ONE, made.record(made.COMPRESSED2, struct.pack("<Q", 1 << 40))), "truncated: compressed data wants"),
    (whole(ONE, made.compressed(RECORDS[:-5])), "unpacked data: offset .*: truncated: a record"),
    (whole(ONE, made.compressed(made.compressed(RECORDS))), "compressed records within compressed records"),
    (made.write_pipe((replace(ALPHA, size=60),), RECORDS, FEATURES), "an attr of 60 bytes, the smallest has 64"),
    (made.write_pipe((ALPHA,), b"", FEATURES)[:-9], "truncated: a record passes the end of the data"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=[case[1] for case in REFUSED])
def test_refused_by_name(data: bytes, message: str, tmp_path: Path) -> None:
    """What is not supported or not there is said."""
    with pytest.raises(RecordingError, match=message):
        opened(data, tmp_path)


ODD = [
    (7, struct.pack("<II", 1 << 20, 1 << 20), "number of CPUs is 1048576"),
    (12, struct.pack("<II", 1 << 31, 128), "2147483648 events with attrs of 128 bytes do not fit"),
    (11, struct.pack("<I", 1 << 30), "number of words is 1073741824"),
    (3, struct.pack("<I", 1 << 30), "length of host name is 1073741824"),
    (8, b"", "length of kind of CPU wants 4 bytes"),
    (29, bytes(7), "id of the clock wants 4 bytes"),
]


@pytest.mark.parametrize(("feature", "data", "message"), ODD, ids=[case[2] for case in ODD])
def test_an_odd_optional_section_costs_itself(feature: int, data: bytes, message: str, tmp_path: Path) -> None:
    """What the recorder says of the machine is no reason to refuse what it recorded."""
    recording = opened(with_features(**{f"_{feature}": data}), tmp_path)

    assert recording.time.tolist() == [1000, 1005, 1010, 1010, 1011 + (1 << 30)]
    assert [message in note for note in recording.notes] == [True]


@pytest.mark.parametrize("form", ["pipe", "zstd, pipe"])
@pytest.mark.parametrize(
    "text", [b"[ perf record: Woken up 1 times to write data ]\n", b"\n", b"[ perf record: Captured ]\n" * 200]
)
def test_what_perf_said_behind_a_pipe_is_no_damage(form: str, text: bytes, tmp_path: Path) -> None:
    """`perf record -o - 2>&1` puts its status text behind the last record."""
    recording = opened(FORMS[form] + text, tmp_path)

    assert recording.events == 5
    assert recording.notes == [f"{len(text)} bytes of text behind the last record were left out"]


def test_refused_places(tmp_path: Path) -> None:
    """No instances; folders that are none; a folder whose records are cut."""
    (tmp_path / "perf.data").write_bytes(FORMS["file"])
    made.write_folder(tmp_path / "p", EVENTS, BEFORE, RECORDS[:-20])

    with pytest.raises(RecordingError, match=r"no instance 'x': a perf\.data file has none"):
        Recording.open(tmp_path / "perf.data", instance="x")
    with pytest.raises(RecordingError, match=r"data\.0: offset 0x[0-9a-f]+: truncated"):
        Recording.open(tmp_path / "p")
    (tmp_path / "p" / "data").write_bytes(b"other")
    with pytest.raises(RecordingError, match=r"recording\.json"):
        Recording.open(tmp_path / "p")


# spoilt


@pytest.mark.parametrize("form", FORMS)
def test_truncated_anywhere(form: str, tmp_path: Path) -> None:
    """A file cut at any byte is read or refused; never another error, never more events than the whole has."""
    for length in range(0, len(FORMS[form]), 23):
        try:
            assert opened(FORMS[form][:length], tmp_path).events <= 5
        except RecordingError:
            continue


@pytest.mark.parametrize("form", FORMS)
def test_mutated(form: str, tmp_path: Path) -> None:
    """A file with bytes changed at random is read or refused with a RecordingError."""
    rng = random.Random(form)
    start, end = (16, len(FORMS[form])) if "pipe" in form else (8, FORMS[form].index(TRACING))
    outcomes: Counter[str] = Counter()
    for _ in range(400):
        data = bytearray(FORMS[form])
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(start, end) if rng.random() < 0.7 else rng.randrange(len(data))
            data[at] = rng.choice((0, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        try:
            recording = opened(bytes(data), tmp_path)
            recording.check()
            stack_columns(recording)
            len(recording.kallsyms)
            outcomes["read"] += 1
        except RecordingError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 20, outcomes
    assert outcomes["refused"] > 20, outcomes


def test_all_words_mutated(tmp_path: Path) -> None:
    """The same for samples with everything in them, and for the records beside these."""
    events = (replace(ALPHA, sample_type=EVERYTHING, read_format=GROUP), replace(BETA, sample_type=EVERYTHING, read_format=7))
    records = BEFORE + made.lost(3, 1, events[0]) + made.lost_samples(2, 0, 0, events[1]) + made.fork(9, 9, 7, 4, events[0])
    records += b"".join(sample(events[0], time, alpha(7, time), 1, chain=[made.KERNEL_CONTEXT, 1, 2]) for time in range(4))
    records += sample(events[1], 9, beta(8, 9, b"x"), chain=[made.USER_CONTEXT, 7])
    data = whole(events, records)
    start, end = data.index(BEFORE), data.index(TRACING)
    rng = random.Random(3)
    outcomes: Counter[str] = Counter()
    for _ in range(500):
        spoiled = bytearray(data)
        for _ in range(rng.choice((1, 2))):
            spoiled[rng.randrange(start, end)] = rng.choice((0, 1, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        try:
            recording = opened(bytes(spoiled), tmp_path)
            recording.check()
            stack_columns(recording)
            outcomes["read"] += 1
        except RecordingError:
            outcomes["refused"] += 1
    assert outcomes["read"] > 100, outcomes
    assert outcomes["refused"] > 100, outcomes


def test_hostile_sizes_allocate_nothing(tmp_path: Path) -> None:
    """Counts and sizes of billions in small files are refused before memory is taken for them."""
    plain = FORMS["zstd"]
    opened(plain, tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for pattern in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x40"):
        for at in range(8, len(plain) - 4, 29):
            try:
                opened(plain[:at] + pattern + plain[at + 4 :], tmp_path)
            except RecordingError:
                continue

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_a_record_that_unpacks_to_gigabytes(tmp_path: Path) -> None:
    """What no recorder packs that well is refused before memory is taken for it; the recorder's own buffer is a limit, too."""
    padding = made.record(made.MMAP2, bytes(65520))
    many = made.compressed(padding * 4000, piece=1 << 30)
    limited = {**FEATURES, 27: struct.pack("<5I", 1, 1, 1, 1, 4096)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(RecordingError, match="unpack to more than a recorder packs into these"):
        opened(whole(ONE, many), tmp_path)
    with pytest.raises(RecordingError, match="unpack to more than a recorder packs into these"):
        opened(made.write_file(ONE, made.compressed(random.Random(1).randbytes(5000), piece=5000), limited), tmp_path)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


def test_the_same_ids_for_every_event(tmp_path: Path) -> None:
    """Events that all claim the ids of the whole file do not make these many times over."""
    data = bytearray(whole(EVENTS * 50, RECORDS))
    attrs = struct.unpack_from("<Q", data, 24)[0]
    for number in range(100):
        struct.pack_into("<QQ", data, attrs + 144 * number + 128, 0, len(data) // 8 * 8)

    with pytest.raises(RecordingError, match="ids of an attr take"):
        opened(bytes(data), tmp_path)


# a real one


@pytest.mark.parametrize("tier", ["linked", "fused"])
def test_a_real_recording_gives_what_the_kernel_counted(tier: str, shared: Path) -> None:
    """Of what BPF programs counted while perf recorded, 99 of 100 figures are the same; perf has one sample twice."""
    folder = shared / "recordings" / "perf"
    kernel = rtp.Kernel()
    obj = kernel.load(str(shared / "recordings" / "truth.bpf.o"))
    with obj.attach():
        report = kernel.replay(folder / "perf.data", tier=tier)

    pids = compared_pids(folder)
    compared = equal = 0
    for name, high in (("switches", False), ("syscalls", True), ("sysargs", True), ("sysrets", True), ("wakeups", False)):
        ours, theirs = dict(obj.maps[name].raw_items()), kernel_map(name, folder)
        for key in ours.keys() | theirs.keys():
            tasks = {int.from_bytes(key[4:8], "little")} if high else set(struct.unpack(f"<{len(key) // 4}I", key))
            if tasks & pids:
                compared += 1
                equal += ours.get(key) == theirs.get(key)

    assert (report.events, compared) == (54425, 388)
    assert equal >= 0.99 * compared


def test_a_real_recording_spoilt(shared: Path, tmp_path: Path) -> None:
    """Read or refused."""
    data = (shared / "recordings" / "perf" / "perf.data").read_bytes()
    rng = random.Random(5)
    for _ in range(25):
        spoiled = bytearray(data)
        for _ in range(3):
            spoiled[rng.randrange(len(data))] = rng.randrange(256)
        try:
            opened(bytes(spoiled), tmp_path).check()
        except RecordingError:
            continue


# against perf

LINE = re.compile(r"^\s*(.*?)\s+(-?\d+) \[(\d+)\]\s+(\d+)\.(\d{9}):\s+(\w+:\w+):")


def script(path: Path) -> list[tuple[int, int, int, str]]:
    """(time, cpu, tid, event) of each line of perf script."""
    command = ["perf", "script", "-i", str(path), "-F", "comm,tid,cpu,time,event", "--ns"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [match.groups() for match in map(LINE.match, out.splitlines()) if match is not None]
    return [(int(s) * 10**9 + int(ns), int(cpu), int(tid), name) for _, tid, cpu, s, ns, name in rows]


def rows_of(recording: Recording) -> list[tuple[int, int, int, str]]:
    names = [f"{table.system}:{table.name}" for table in recording.tables]
    columns = (recording.time, recording.cpu, recording.pid, recording.event)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(time, cpu, pid, names[event]) for time, cpu, pid, event in rows]


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
def test_against_perf_script(shared: Path) -> None:
    """Times, CPUs, tasks and names of all events are those of perf script, which sorts in parts: two lines are too late there."""
    path = shared / "recordings" / "perf" / "perf.data"

    ours, theirs = rows_of(Recording.open(path)), sorted(script(path), key=lambda row: row[0])

    assert len(ours) == len(theirs) == 54425
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    for cpu in (0, 1):
        mine = [row for row in ours if row[1] == cpu]
        other = [row for row in theirs if row[1] == cpu]
        assert all(a == b or b[2] < 0 for a, b in zip(mine, other, strict=True))  # perf has no tid for one that is gone


@pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
@pytest.mark.parametrize("form", ["file", "pipe", "zstd", "zstd, pipe"])
def test_written_files_are_perfs(form: str, tmp_path: Path) -> None:
    """What the tests write, perf reads: same events, times, CPUs."""
    path = tmp_path / "perf.data"
    path.write_bytes(FORMS[form])

    assert sorted(script(path)) == sorted(rows_of(Recording.open(path)))
