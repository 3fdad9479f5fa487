"""record/made.py: recordings of one's own events and columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fastrtp.errors import RecordingError
from fastrtp.kernel import Kernel
from fastrtp.record import Recording

PROGRAMS = Path(__file__).resolve().parents[1] / "fastrtp" / "programs"
SWITCH = {"prev_comm": "a", "prev_pid": 7, "prev_prio": 120, "prev_state": 1, "next_comm": "b", "next_pid": 8, "next_prio": 120}


def test_events_come_in_the_order_of_their_times() -> None:
    recording = Recording.from_events([
        {"event": "softirq_entry", "time": 30, "cpu": 1, "pid": 5, "vec": 3},
        {"event": "softirq_exit", "time": 20, "cpu": 0, "pid": 6, "comm": "six", "vec": 2},
        {"event": "irq:softirq_entry", "time": 10, "cpu": 1, "pid": 7, "vec": 1},
    ])  # fmt: skip

    assert (recording.time.tolist(), recording.cpu.tolist(), recording.pid.tolist()) == ([10, 20, 30], [1, 0, 1], [7, 6, 5])
    assert (recording.cpus, recording.comms) == (2, {6: "six"})
    vecs = [table.fields["vec"][row] for table, row in zip(
        (recording.tables[number] for number in recording.event), recording.row, strict=True)]  # fmt: skip
    assert vecs == [1, 2, 3]


def test_a_program_sees_them_as_recorded_ones() -> None:
    """The switches of the shipped program, counted by who gave the CPU to whom."""
    recording = Recording.from_events([{"event": "sched_switch", "time": at, "pid": 7, **SWITCH} for at in range(3)])

    with Kernel() as kernel, kernel.load(PROGRAMS / "switches.bpf.o") as obj, obj.attach():
        kernel.replay(recording)
        ((key, value),) = obj.maps["switches"].items()

    assert (key["prev_pid"], key["next_pid"], value) == (7, 8, 3)


def test_a_field_that_is_not_given_is_missing_not_zero() -> None:
    """Without priorities a program that reads prev->prio is told so."""
    fields = {name: value for name, value in SWITCH.items() if not name.endswith("_prio")}
    recording = Recording.from_events([{"event": "sched_switch", "pid": 7, **fields}])

    assert "prev_prio" not in recording.table("sched_switch").fields
    with Kernel() as kernel:
        prog = kernel.prog_load(17, _reader(kernel, "prio"), name="reader")
        kernel.raw_tracepoint_open("sched_switch", prog)
        report = kernel.replay(recording)
    assert [row.what for row in report.missing] == ["prev->prio"]


def _reader(kernel: Kernel, member: str) -> bytes:
    from fastrtp.isa import assemble, encode

    offset = kernel.btf.member("task_struct", member).offset_bytes
    return encode(assemble(
        f"r3 = *(u64 *)(r1 +8)\nr3 += {offset}\nr1 = r10\nr1 += -8\nr2 = 4\ncall bpf_probe_read_kernel\nr0 = 0\nexit"
    ))  # fmt: skip


def test_events_of_one_s_own_have_a_format_of_their_columns() -> None:
    recording = Recording.from_events([
        {"event": "app:request", "time": 1, "nr": 1, "size": 1 << 63, "path": "/a", "hist": [1, 2]},
        {"event": "app:request", "time": 2, "nr": -1, "size": 0, "path": "/long/path", "hist": [3, 4]},
    ])  # fmt: skip

    table = recording.table("app:request")
    assert table.fields["nr"].tolist() == [1, -1]
    assert table.fields["size"].tolist() == [1 << 63, 0]
    assert table.strings("path").tolist() == [b"/a", b"/long/path"]
    assert table.fields["hist"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("made", ["mapping", "arrow", "pandas", "polars", "parquet", "csv", "numpy"])
def test_a_table_of_any_library_is_a_recording(made: str, tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "event": ["softirq_entry", "sched_process_exit"], "time": [5, 6], "cpu": [0, 1], "pid": [3, 4],
        "vec": [2, None], "field_comm": [None, "x"], "field_pid": [None, 4], "prio": [None, 120],
    }  # fmt: skip
    table: Any = columns
    if made == "numpy":
        table = {name: np.array(column, object) for name, column in columns.items()}
    elif made == "pandas":
        table = pytest.importorskip("pandas").DataFrame(columns)
    elif made == "polars":
        table = pytest.importorskip("polars").DataFrame(columns)
    elif made != "mapping":
        table = pa.table(columns)
        path = tmp_path / f"t.{made}"
        if made == "parquet":
            pa.parquet.write_table(table, path)
            table = path
        elif made == "csv":
            pa.csv.write_csv(table, path)
            table = path

    recording = Recording.from_table(table)

    assert recording.table("softirq_entry").fields["vec"].tolist() == [2]
    assert recording.table("sched_process_exit").fields["pid"].tolist() == [4]
    assert recording.table("sched_process_exit").strings("comm").tolist() == [b"x"]


@pytest.mark.parametrize(("events", "message"), [
    ([{"time": 1}], "event 0 has no name"),
    ([{"event": "a b"}], "'a b' is not a name"),
    ([{"event": "softirq_entry", "vecs": 1}], "softirq_entry has no field 'vecs': vec"),
    ([{"event": "softirq_entry", "vec": 1}, {"event": "softirq_entry"}], "event 1: softirq_entry with fields none, the first"),
    ([{"event": "softirq_entry", "vec": 1 << 32}], "softirq_entry: vec: 4294967296 is no integer of 32 bits"),
    ([{"event": "softirq_entry", "vec": 1.5}], "1.5 is no integer"),
    ([{"event": "softirq_entry", "vec": "x"}], "'x' is no integer"),
    ([{"event": "sched_process_exit", "field_comm": "x" * 16}], "longer than the 15 bytes"),
    ([{"event": "sys_enter", "args": [1, 2]}], "2 elements, there are 6"),
    ([{"event": "softirq_entry", "vec": 1, "cpu": 1 << 16}], "cpu: 65536 is no integer of 16 bits"),
    ([{"event": "softirq_entry", "vec": 1, "cpu": -1}], "CPU 65535"),
])  # fmt: skip
def test_what_is_wrong_is_said(events: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        Recording.from_events(events, cpus=2)


@pytest.mark.parametrize(("table", "message"), [
    ({"time": [1]}, "no column 'event'"),
    ({"event": ["softirq_entry"], "time": [1, 2]}, "different lengths: event 1, time 2"),
    ({"event": ["softirq_entry"] * 2, "vec": [1, None]}, "column vec: 1 of 2 rows of softirq_entry have no value"),
    (7, "a int is no table"),
    ("x.txt", "ends in .parquet"),
    ("none.csv", "none.csv"),
])  # fmt: skip
def test_what_is_wrong_with_a_table_is_said(table: Any, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        Recording.from_table(table)
