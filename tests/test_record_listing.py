"""record/listing.py, frames.py, select.py: events as lines, as tables, in parts; several recordings as one."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fastrtp.cli import main
from fastrtp.errors import RecordingError
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.record.listing import Listing

WAKING = {"event": "sched_waking", "field_comm": "bb", "field_pid": 8, "prio": 120, "target_cpu": 1}


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


def made(*times: int, **more: Any) -> Recording:
    return Recording.from_events(
        [{**WAKING, "time": time, "cpu": time % 2, "pid": 7, "comm": "aa"} for time in times], cpus=2, **more
    )


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    return int(ended.value.code or 0)


# lines


def test_a_line_says_who_where_when_and_what() -> None:
    recording = made(1_500_000_000, 2_000_000_600)

    assert list(Listing(recording).lines()) == [
        "              aa-7     [000]     1.500000: sched_waking:         comm=bb pid=8 prio=120 target_cpu=001",
        "              aa-7     [000]     2.000001: sched_waking:         comm=bb pid=8 prio=120 target_cpu=001",
    ]


def test_control_characters_are_escaped() -> None:
    """A process that calls itself a terminal's commands is printed, not obeyed."""
    name = "\x1b[31m\nx"
    recording = Recording.from_events([{**WAKING, "field_comm": name, "pid": 7, "comm": name}])

    (line,) = Listing(recording).lines()

    assert line.isprintable()
    assert line.count("\\x1b[31m\\nx") == 2


def test_what_a_pointer_leads_to_is_printed_where_the_recording_has_it() -> None:
    recording = Recording.from_events(
        [{"event": "rcu_utilization", "s": 0x1000}, {"event": "rcu_utilization", "s": 0x2000}], printk={0x1000: "Start"}
    )

    assert [Listing(recording).text(place) for place in (0, 1)] == ["Start", "0x2000"]


def test_a_variable_that_nobody_knows_is_no_number() -> None:
    """mm_page_free prints vmemmap_base + pfn, and vmemmap_base is the recorded kernel's."""
    recording = Recording.from_events([{"event": "mm_page_free", "pfn": 16, "order": 0}])

    assert Listing(recording).text(0) == "page=? pfn=0x10 order=0"


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
def test_lines_are_those_of_trace_cmd_report(demo: Recording) -> None:
    """All but one kind: libtraceevent takes & and | in timer_start's flags in the wrong order."""
    theirs = subprocess.run(["trace-cmd", "report", "-N", str(demo_recording())], capture_output=True, text=True, check=True)

    for line, wanted in zip(Listing(demo).lines(), theirs.stdout.splitlines()[1:], strict=True):
        if "page=" in wanted:
            line, wanted = (re.sub(r"page=\S+", "", text) for text in (line, wanted))
        assert line == wanted or " timer_start: " in wanted


def test_the_command_prints_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("events", demo_recording(), "--event", "sched_switch", "--top", 2) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(": sched_switch: " in line and " ==> next_comm=" in line for line in lines)


# tables


def test_events_are_a_table_with_time_cpu_pid_and_comm(demo: Recording) -> None:
    frame = demo.events("sched_waking")
    table = frame.to_arrow()

    assert len(frame) == table.num_rows == len(demo.table("sched_waking"))
    assert table.column_names[:4] == ["time", "cpu", "pid", "comm"]
    assert table["field_pid"].to_pylist() == demo.table("sched_waking").fields["pid"].tolist()
    assert table["field_comm"].to_pylist() == [text.decode() for text in demo.table("sched_waking").strings("comm")]
    places = demo.positions[[table.name for table in demo.tables].index("sched_waking")]
    assert table["pid"].to_pylist() == demo.pid[places].tolist()


def test_the_number_of_events_is_a_number(demo: Recording) -> None:
    assert demo.events == 66_152
    assert f"{demo.events:,}" == "66,152"
    assert pickle.loads(pickle.dumps(demo.events)) == 66_152


def test_several_kinds_are_one_table_with_nulls(demo: Recording) -> None:
    table = demo.events("irq:softirq_*", "sched_switch").to_arrow()

    names = table["event"].to_pylist()
    assert set(names) == {"softirq_raise", "softirq_entry", "softirq_exit", "sched_switch"}
    assert [value is None for value in table["vec"].to_pylist()] == [name == "sched_switch" for name in names]
    assert [value is None for value in table["prev_pid"].to_pylist()] == [name != "sched_switch" for name in names]
    assert table["time"].to_pylist() == sorted(table["time"].to_pylist())


def test_a_field_of_two_kinds_has_its_event_before_it() -> None:
    recording = Recording.from_events([{"event": "one", "x": 1}, {"event": "two", "x": "text"}])

    rows = list(recording.events())

    assert [(row["one.x"], row["two.x"]) for row in rows] == [(1, None), (None, "text\0".rstrip("\0"))]


def test_a_table_is_a_recording_again(demo: Recording) -> None:
    part = demo.select(end="20ms")

    again = Recording.from_table(part.events().to_arrow(), cpus=demo.cpus)

    assert again.time.tolist() == part.time.tolist()
    assert list(again.events()) == list(part.events())


def test_no_such_event_is_an_error(demo: Recording) -> None:
    with pytest.raises(RecordingError, match="no event 'sched_swich' in the recording: "):
        demo.events("sched_swich")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "arrow"])
def test_the_command_writes_tables(form: str, tmp_path: Path) -> None:
    out = tmp_path / f"out.{form}"

    assert run("events", demo_recording(), "--event", "sched_switch", "--format", form, "--output", out) == 0

    if form == "jsonl":
        columns = pa.Table.from_pylist([json.loads(line) for line in out.read_text().splitlines()])
    elif form == "csv":
        columns = pa.csv.read_csv(out)
    elif form == "parquet":
        columns = pa.parquet.read_table(out)
    else:
        columns = pa.ipc.open_stream(out.read_bytes()).read_all()
    assert columns.num_rows == 5069
    assert columns["prev_pid"].to_pylist() == Recording.open(demo_recording()).table("sched_switch").fields["prev_pid"].tolist()


def test_data_frames(demo: Recording, tmp_path: Path) -> None:
    frame = demo.events("sched_switch")
    frame.to_parquet(tmp_path / "s.parquet")

    assert pa.parquet.read_table(tmp_path / "s.parquet").equals(frame.to_arrow())
    assert frame["next_pid"].tolist() == demo.table("sched_switch").fields["next_pid"].tolist()
    pandas = pytest.importorskip("pandas")
    assert isinstance(frame.to_pandas(), pandas.DataFrame)


# parts


def test_a_part_of_the_time(demo: Recording) -> None:
    first = int(demo.time[0])

    part = demo.select(start="100ms", end="0.5s")

    inside = (demo.time >= first + 100_000_000) & (demo.time < first + 500_000_000)
    assert part.time.tolist() == demo.time[inside].tolist()
    assert part.select(start=first + 200_000_000).events == int(np.count_nonzero(inside & (demo.time >= first + 200_000_000)))
    assert demo.select(end=f"{(first + 1000) / 1e9:.9f}").events == int(np.count_nonzero(demo.time < first + 1000))


def test_parts_by_cpu_task_and_kind(demo: Recording) -> None:
    assert set(demo.select(cpus=1).cpu.tolist()) == {1}
    assert set(demo.select(pids=[125, 128]).pid.tolist()) == {125, 128}
    assert {demo.comms[pid] for pid in demo.select(comms="p[io]ng").pid.tolist()} == {"ping", "pong"}
    part = demo.select(events=["sched_switch", "timer:*"], cpus=[0])
    assert {table.name for table in part.tables} == {"sched_switch", *(t.name for t in demo.tables if t.system == "timer")}
    part.check()
    switches = demo.table("sched_switch").fields["next_pid"][
        demo.cpu[demo.positions[[t.name for t in demo.tables].index("sched_switch")]] == 0
    ]
    assert part.table("sched_switch").fields["next_pid"].tolist() == switches.tolist()


def test_a_part_knows_the_thread_groups_of_the_whole(demo: Recording) -> None:
    """task_newtask is not among its events."""
    part = demo.select(events="sched_switch")

    assert part.tgids == demo.tgids
    assert part.notes[-1].startswith("5069 of 66152 events were selected")


@pytest.mark.parametrize(("how", "message"), [
    ({"start": "soon"}, "time 'soon' is neither"),
    ({"events": "none_*"}, "no event 'none_\\*'"),
    ({"comms": "nobody"}, "no task of the recording is called 'nobody'"),
])  # fmt: skip
def test_what_there_is_not_is_said(demo: Recording, how: dict[str, Any], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        demo.select(**how)


def test_a_replay_of_a_part(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    obj = Path(__file__).resolve().parents[1] / "fastrtp" / "programs" / "switches.bpf.o"

    assert run("replay", obj, demo_recording(), "--cpu", "0", "--from", "100ms", "--to", "600ms", "--format", "json") == 0

    report = json.loads(capsysbinary.readouterr().out)
    part = Recording.open(demo_recording()).select(cpus=0, start="100ms", end="600ms")
    assert report["report"]["events"] == part.events
    assert report["report"]["fired"] == len(part.table("sched_switch"))


# several


def test_two_recordings_are_one_in_time_order() -> None:
    both = Recording.concat([made(10, 30), made(20, 40)])

    assert both.time.tolist() == [10, 20, 30, 40]
    assert [table.name for table in both.tables] == ["sched_waking"]
    assert len(both.table("sched_waking")) == 4
    both.check()


def test_halves_of_a_recording_are_the_recording(demo: Recording) -> None:
    middle = int(demo.time[demo.events // 2])

    both = Recording.concat([demo.select(start=middle), demo.select(end=middle)])

    assert both.events().to_arrow().equals(demo.events().to_arrow())


def test_clocks_are_aligned_on_request() -> None:
    assert Recording.concat([made(100, 110), made(5000, 5020)], align="start").time.tolist() == [100, 100, 110, 120]
    assert Recording.concat([made(100), made(5000)], align=[0, -4950]).time.tolist() == [50, 100]
    with pytest.raises(RecordingError, match=r"different clocks \(boot, mono\)"):
        Recording.concat([made(1), made(2, clock="boot")])
    with pytest.raises(RecordingError, match="1 shifts for 2 recordings"):
        Recording.concat([made(1), made(2)], align=[3])


def test_pickled_and_back(demo: Recording) -> None:
    again = pickle.loads(pickle.dumps(demo))

    assert again.events().to_arrow().equals(demo.events().to_arrow())
    assert (again.uname, again.comms, again.printk) == (demo.uname, demo.comms, demo.printk)
    assert len(again.kallsyms) == len(demo.kallsyms)
