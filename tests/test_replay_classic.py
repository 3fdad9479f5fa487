"""Classic tracepoint programs in a replay read what was recorded: no recipe, and single system calls of raw ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.btf import default_btf
from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel
from fastrtp.record import EventTable, Recording
from fastrtp.record.btf_format import btf_format
from fastrtp.record.columns import LOCATION
from fastrtp.record.event_format import EventFormat, FieldKind, FormatField
from fastrtp.record.event_formats import default_formats
from fastrtp.record.record_bytes import contexts
from fastrtp.record.record_fields import decode_record
from fastrtp.replay.raw_syscalls import as_raw_syscalls
from fastrtp.trace.syscalls import NUMBERS, raw_event

CLASSIC = Path(__file__).parent / "data" / "replay" / "classic.bpf.o"
COUNTS = {"entered": 5163, "left": 5163, "args_sum": 4137036, "written": 4115151, "wrong": 0}


def played(recording: Recording, *programs: str, **options: Any) -> tuple[dict[str, int], Any]:
    """(what the programs counted, the report)."""
    with Kernel(cpus=2) as kernel, kernel.load(CLASSIC, programs=programs or ["on_*"]) as obj, obj.attach():
        report = kernel.replay(recording, **options)
        return obj.bss(), report


def from_raw(recording: Recording, raw: str, name: str, fields: dict[str, Any], number: int) -> Recording:
    """The recording with the rows of one system call moved out of the raw table, into the table of that call alone."""
    at = next(index for index, table in enumerate(recording.tables) if table.name == raw)
    table = recording.tables[at]
    chosen = table.fields["id"] == number
    mine = recording.event == at
    moved = mine & chosen[np.where(mine, recording.row, 0)]
    event, row = recording.event.copy(), recording.row.copy()
    row[mine] = (np.cumsum(~chosen) - 1)[row[mine]]
    event[moved], row[moved] = len(recording.tables), np.arange(int(chosen.sum()))
    columns = {field: make(table.fields)[chosen] for field, make in fields.items()}
    own = EventTable(name, "syscalls", columns, default_formats()[name], {}, int(chosen.sum()))
    kept = {field: column[~chosen] for field, column in table.fields.items()}
    # under a name that nothing attaches to: as if the raw event had not been recorded
    rest = replace(table, name=f"not_{raw}", fields=kept, rows=int((~chosen).sum()))
    return replace(recording, event=event, row=row, tables=[*(rest if one is table else one for one in recording.tables), own])


@pytest.fixture(scope="module")
def single(recording: Recording) -> Recording:
    """The shipped recording, as if write(2) alone had been recorded, by syscalls:sys_enter_write and sys_exit_write."""
    enter = {
        "__syscall_nr": lambda fields: fields["id"].astype(np.int32), "fd": lambda fields: fields["args"][:, 0],
        "buf": lambda fields: fields["args"][:, 1], "count": lambda fields: fields["args"][:, 2],
    }  # fmt: skip
    leave = {"__syscall_nr": lambda fields: fields["id"].astype(np.int32), "ret": lambda fields: fields["ret"]}
    return from_raw(from_raw(recording, "sys_enter", "sys_enter_write", enter, 1), "sys_exit", "sys_exit_write", leave, 1)


@pytest.mark.parametrize("tier", ["linked", "fused"])
def test_single_system_calls_are_made_of_raw_ones(recording: Recording, tier: str) -> None:
    found, report = played(recording, tier=tier)

    assert {name: found[name] for name in COUNTS} == COUNTS
    assert (found["raw_entered"], found["raw_sum"]) == (13654, COUNTS["args_sum"])
    assert report.missing == ()


def test_raw_system_calls_are_made_of_single_ones(single: Recording) -> None:
    found, report = played(single)

    assert {name: found[name] for name in COUNTS} == COUNTS
    assert (found["raw_entered"], found["raw_sum"]) == (5163, COUNTS["args_sum"])
    assert "arguments behind a call's own are not recorded by sys_enter_write: they read as 0" in report.notes


def test_calls_that_were_recorded_twice_are_played_once(recording: Recording, single: Recording) -> None:
    both = replace(single, tables=[*(replace(t, name=t.name.removeprefix("not_")) for t in single.tables)])

    assert played(both)[0]["raw_entered"] == 13654 - 5163
    assert as_raw_syscalls(recording) == (recording, [])


def test_several_threads_read_the_records_of_their_own_events(recording: Recording) -> None:
    found, report = played(recording, cpus="recorded", order="relaxed")

    assert {name: found[name] for name in COUNTS} == COUNTS
    assert report.threads == 2


def test_texts_are_where_the_location_word_says(recording: Recording) -> None:
    with Kernel(cpus=2) as kernel, kernel.load(CLASSIC, programs=["on_exec"]) as obj, obj.attach():
        kernel.replay(recording)

        assert {key["text"]: value for key, value in obj.maps["executed"].items()} == {"/usr/bin/churn": 1, "/bin/busybox": 2}


def test_records_are_the_replays_alone(recording: Recording) -> None:
    """Afterwards events are built from their arguments again."""
    with Kernel(cpus=2) as kernel, kernel.load(CLASSIC, programs=["on_exec"]) as obj, obj.attach():
        kernel.replay(recording)
        kernel.trace("sched_process_exec")(0, 0, 0)

        assert obj.programs["on_exec"].run_cnt == 4
        assert sum(value for _key, value in obj.maps["executed"].items()) == 4


def test_numbers_of_system_calls() -> None:
    assert (NUMBERS["read"], NUMBERS["write"], NUMBERS["openat"], NUMBERS["newfstat"], NUMBERS["io_uring_setup"]) == (
        0,
        1,
        257,
        5,
        425,
    )
    assert raw_event("sys_enter_write") == ("sys_enter", 1)
    assert raw_event("sys_exit_openat") == ("sys_exit", 257)
    assert raw_event("sys_enter") is raw_event("sys_enter_nosuch") is raw_event("sched_switch") is None
    formats = default_formats()
    known = [name for name in formats if name.startswith("sys_enter_")]
    assert [name for name in known if raw_event(name) is None] == []


def test_a_program_that_reads_past_its_system_calls_record_is_refused(kernel: Kernel) -> None:
    with kernel.load(CLASSIC, programs=["on_enter"]) as obj, pytest.raises(BpfError, match="EACCES"):
        obj.programs["on_enter"].attach("syscalls/sys_enter_close")


NUMBER = FormatField("number", "int", 8, 4, True, FieldKind.SCALAR)
LARGE = FormatField("large", "u64", 16, 8, False, FieldKind.SCALAR)
COMM = FormatField("comm", "char[8]", 24, 8, True, FieldKind.STRING)
WORDS = FormatField("words", "u16[2]", 32, 4, False, FieldKind.ARRAY, 2)
TEXT = FormatField("text", "char[]", 36, 4, True, FieldKind.DATA_LOC)
NEAR = FormatField("near", "char[]", 40, 4, True, FieldKind.REL_LOC)
FORMAT = EventFormat("made_up", 1, "test", (NUMBER, LARGE, COMM, WORDS, TEXT, NEAR), "")


def table_of(rows: list[tuple[int, int, bytes, list[int], bytes, bytes]]) -> EventTable:
    """A table of made_up events."""
    columns = list(zip(*rows, strict=True))
    fields: dict[str, Any] = {
        "number": np.array(columns[0], "<i4"), "large": np.array(columns[1], "<u8"), "comm": np.array(columns[2], "S8"),
        "words": np.array(columns[3], "<u2").reshape(len(rows), 2),
    }  # fmt: skip
    heaps = {}
    for name, texts in (("text", columns[4]), ("near", columns[5])):
        lengths = np.array([len(text) for text in texts])
        fields[name] = np.array(list(zip(np.cumsum(lengths) - lengths, lengths, strict=True)), LOCATION)
        heaps[name] = np.frombuffer(b"".join(texts), np.uint8)
    return EventTable("made_up", "test", fields, FORMAT, heaps, len(rows))


TEXTS = st.binary(max_size=20).map(lambda text: text.replace(b"\0", b""))
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=8).map(lambda text: text.rstrip(b"\0")),
        st.lists(st.integers(0, 2**16 - 1), min_size=2, max_size=2), TEXTS, TEXTS,
    ),
    min_size=1, max_size=6,
)  # fmt: skip
MOVED = EventFormat(
    "made_up", 1, "test",
    (
        FormatField("text", "char[]", 8, 4, True, FieldKind.DATA_LOC),
        FormatField("comm", "char[8]", 12, 8, True, FieldKind.STRING),
        FormatField("number", "long", 24, 8, True, FieldKind.SCALAR),
        FormatField("near", "char[]", 32, 4, True, FieldKind.REL_LOC),
        FormatField("words", "u16[2]", 36, 4, False, FieldKind.ARRAY, 2),
        FormatField("extra", "int", 40, 4, True, FieldKind.SCALAR),
    ), "",
)  # fmt: skip


@given(rows=ROWS, moved=st.booleans())
def test_a_context_holds_what_the_record_held(rows: list[tuple[int, int, bytes, list[int], bytes, bytes]], moved: bool) -> None:
    """At the recorded places, or moved by name into another kernel's."""
    fmt = MOVED if moved else FORMAT
    made = contexts(table_of(rows), MOVED if moved else None)
    found = [
        decode_record(fmt, made.flat[start : start + size].tobytes())
        for start, size in zip(made.starts.tolist(), made.sizes.tolist(), strict=True)
    ]

    for shown, (number, large, comm, words, text, near) in zip(found, rows, strict=True):
        assert (shown["number"], shown["words"]) == (number, words)
        assert shown["comm"] == comm.partition(b"\0")[0]
        assert (shown["text"], shown["near"]) == (text, near)
        assert shown.get("large", large) == large
    assert bool(made.notes) == moved


def test_what_is_moved_or_not_there_is_said() -> None:
    notes = contexts(table_of([(1, 2, b"c", [3, 4], b"t", b"n")]), MOVED).notes

    assert notes == [
        "the loaded kernel's record differs from the recorded one: moved by name are text (36 to 8), comm (24 to 12), "
        "number (8 to 24), near (40 to 32), words (32 to 36)",
        "the recorded record has no extra, which the loaded kernel's has: read as 0",
    ]


@pytest.mark.parametrize(
    "name", ["sched_switch", "sched_process_exec", "sys_enter", "signal_deliver", "mm_page_alloc", "sched_wakeup"]
)
def test_types_tell_the_layout_that_formats_tell(name: str) -> None:
    """Of events that have a class of their own name."""
    found, shipped = btf_format(default_btf(), name), default_formats()[name]
    if found is None:
        assert name == "sched_wakeup"
        return
    own = [field for field in shipped.fields if not field.name.startswith("common_")]
    assert [(field.name, field.offset, field.size) for field in found.fields] == [(one.name, one.offset, one.size) for one in own]


def test_the_cases_of_the_shared_recordings(shared: Path) -> None:
    """No recipe tells of net_dev_xmit, cpu_idle or block requests: their records are read all the same."""
    folder = shared / "recordings" / "cases"
    with Kernel(cpus=8) as kernel, kernel.load(folder / "clnet.bpf.o") as obj, obj.attach():
        report = kernel.replay(folder / "no_recipe.dat")
        packets = [key for key, _value in obj.maps["n"].items()]

        assert len({key["skb"] for key in packets}) == len(packets) == 5
        assert {(key["len"], key["rc"]) for key in packets} == {(1500, 0)}
        assert sorted(obj.maps["b"].items()) == [(1000, 8), (1001, 8), (1002, 8)]
        assert len(list(obj.maps["w"].items())) == 3
    assert any("block_rq_issue: the loaded kernel's record differs" in note for note in report.notes)
    with Kernel(cpus=8) as kernel, kernel.load(folder / "onlynet.bpf.o") as obj, obj.attach():
        kernel.replay(folder / "no_recipe.dat")
        assert obj.programs["on"].run_cnt == 2
    with Kernel(cpus=8) as kernel, kernel.load(folder / "sysc.bpf.o") as obj, obj.attach():
        kernel.replay(shared / "recordings" / "churn" / "trace.dat")
        assert sum(value for _key, value in obj.maps["n"].items()) == 5163
