"""rtp.tools and fastrtp tool: each answer is what the same question gives when it is asked of the columns, with pandas."""

from __future__ import annotations

import csv
import inspect
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import fastrtp as rtp
from fastrtp.cc import compile_source
from fastrtp.cli import main
from fastrtp.errors import CompilerError, ReplayError
from fastrtp.obj import ObjectSpec
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.tools import TOOLS

pd = pytest.importorskip("pandas")

SLOTS = 40
RUNNABLE = (0, 0x100)
STATES = {0: "runnable", 0x100: "runnable", 1: "sleeping", 2: "uninterruptible", 0x80: "uninterruptible", 16: "exiting"}


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.open(demo_recording())


def columns(recording: Recording, name: str, **rename: str) -> Any:
    """All events of a kind: `at`, their place in the recording, time, cpu, task (whose event it is), and the fields."""
    table = recording.table(name)
    where = recording.positions[next(number for number, other in enumerate(recording.tables) if other is table)]
    data: dict[str, Any] = {"at": where, "time": recording.time[where], "cpu": recording.cpu[where], "task": recording.pid[where]}
    for field, column in table.fields.items():
        if not field.startswith("common_"):
            data[field] = [text.decode() for text in table.strings(field).tolist()] if table.has_strings(field) else list(column)
    return pd.DataFrame(data).rename(columns=rename)


def steps(frame: Any, who: str, kind: str, *more: str) -> Any:
    """What begins or ends for whom."""
    out = frame[["at", "time", who, *more]].rename(columns={who: "who"})
    return out.assign(kind=kind)


def spans(*parts: Any) -> Any:
    """Ends whose last step before them is a begin: `took`, and the begin's columns as begin_X."""
    rows = pd.concat(parts).sort_values(["who", "at"], kind="stable")
    before = rows.groupby("who").shift()
    rows = rows.assign(took=rows["time"] - before["time"], **{f"begin_{name}": before[name] for name in before})
    return rows[(rows["kind"] == "end") & (before["kind"] == "begin")].astype({"took": "int64"})


def slots(took: Any, unit: int = 1000) -> list[int]:
    """A log2 histogram."""
    counts = [0] * SLOTS
    for value in took:
        counts[min(max((int(value) // unit).bit_length() - 1, 0), SLOTS - 1)] += 1
    return counts


def hists(found: Any, keys: list[str], unit: int = 1000) -> dict[Any, tuple[int, int, int, list[int]]]:
    """(count, total, longest, slots) by key."""
    return {
        key: (len(group), int(group["took"].sum()), int(group["took"].max()), slots(group["took"], unit))
        for key, group in (found.groupby(keys) if keys else [((), found)])
    }


def answered(frame: Any, keys: list[str]) -> dict[Any, tuple[int, int, int, list[int]]]:
    """The same of an answer."""
    return {
        tuple(row[key] for key in keys): (row["count"], row["total_ns"], row["longest_ns"], list(row["slots"]))
        for row in frame.to_dict("records")
    }


def run_queue(recording: Recording) -> Any:
    """Waits for a CPU, with who ran before."""
    switches = columns(recording, "sched_switch")
    wakeups = pd.concat([columns(recording, "sched_wakeup"), columns(recording, "sched_wakeup_new")])
    preempted = switches[switches["prev_state"].isin(RUNNABLE) & (switches["prev_pid"] != 0)]
    return spans(
        steps(wakeups, "pid", "begin"),
        steps(preempted, "prev_pid", "begin"),
        steps(switches, "next_pid", "end", "next_comm", "prev_comm", "prev_pid", "cpu"),
    )


@pytest.mark.parametrize(("option", "unit"), [({}, 1000), ({"milliseconds": True}, 1_000_000)])
def test_runqlat(recording: Recording, option: dict[str, bool], unit: int) -> None:
    frame = rtp.tools.runqlat(recording, **option)
    assert answered(frame, []) == hists(run_queue(recording), [], unit)
    assert list(frame.columns) == ["count", "total_ns", "longest_ns", "slots"]
    assert frame.attrs["notes"] == []


def test_runqlat_by_thread(recording: Recording) -> None:
    frame = rtp.tools.runqlat(recording, threads=True)
    waits = run_queue(recording)
    expected = {(int(pid), comm): value for (pid, comm), value in hists(waits, ["who", "next_comm"]).items()}

    assert answered(frame, ["pid", "comm"]) == expected
    assert list(frame["count"]) == sorted(frame["count"], reverse=True)
    one = rtp.tools.runqlat(recording, pid=125)
    assert answered(one, []) == hists(waits[waits["who"] == 125], [])


def test_runqslower(recording: Recording) -> None:
    frame = rtp.tools.runqslower(recording, min_us=8000)
    waits = run_queue(recording).sort_values("at")
    slow = waits[waits["took"] > 8_000_000]

    assert frame["waited_ns"].tolist() == slow["took"].tolist()
    assert frame["pid"].tolist() == slow["who"].tolist()
    assert frame["prev_comm"].tolist() == slow["prev_comm"].tolist()
    assert frame["time_ns"].tolist() == slow["time"].tolist()
    assert frame["cpu"].tolist() == slow["cpu"].tolist()


def test_cpudist(recording: Recording) -> None:
    """On the CPU and off it, by thread."""
    switches = columns(recording, "sched_switch")
    some = {side: switches[switches[f"{side}_pid"] != 0] for side in ("prev", "next")}
    on = spans(steps(some["next"], "next_pid", "begin"), steps(some["prev"], "prev_pid", "end", "prev_comm"))
    off = spans(steps(some["prev"], "prev_pid", "begin"), steps(some["next"], "next_pid", "end", "next_comm"))

    assert answered(rtp.tools.cpudist(recording), []) == hists(on, [])
    assert answered(rtp.tools.cpudist(recording, off_cpu=True), []) == hists(off, [])
    by_thread = rtp.tools.cpudist(recording, threads=True)
    assert answered(by_thread, ["pid", "comm"]) == hists(on, ["who", "prev_comm"])


def test_offcputime(recording: Recording) -> None:
    switches = columns(recording, "sched_switch")
    switches["state"] = switches["prev_state"].map(STATES)
    out = switches[switches["prev_pid"] != 0]
    off = spans(steps(out, "prev_pid", "begin", "state"), steps(switches, "next_pid", "end", "next_comm"))
    frame = rtp.tools.offcputime(recording)

    assert answered(frame, ["pid", "state", "comm"]) == hists(off, ["who", "begin_state", "next_comm"])
    long = rtp.tools.offcputime(recording, min_us=5000)
    assert answered(long, ["pid", "state", "comm"]) == hists(off[off["took"] >= 5_000_000], ["who", "begin_state", "next_comm"])


def test_wakeuptime(recording: Recording) -> None:
    switches, wakeups = columns(recording, "sched_switch"), columns(recording, "sched_wakeup")
    blocked = switches[~switches["prev_state"].isin(RUNNABLE) & (switches["prev_pid"] != 0)]
    found = spans(steps(blocked, "prev_pid", "begin"), steps(wakeups, "pid", "end", "task", "comm"))
    frame = rtp.tools.wakeuptime(recording)

    together = frame.groupby(["waker_pid", "pid", "comm"]).agg({"count": "sum", "total_ns": "sum", "longest_ns": "max"})
    expected = found.groupby(["task", "who", "comm"])["took"].agg(["size", "sum", "max"])
    assert dict(zip(together.index, together.to_numpy().tolist(), strict=True)) == dict(
        zip(expected.index, expected.to_numpy().tolist(), strict=True)
    )


def calls(recording: Recording) -> Any:
    """System calls that were seen to begin and to end."""
    enters, exits = columns(recording, "sys_enter"), columns(recording, "sys_exit")
    return spans(steps(enters, "task", "begin", "id"), steps(exits, "task", "end", "ret"))


def test_syscount(recording: Recording) -> None:
    """By call, by thread, and only those that failed."""
    found = calls(recording)
    frame = rtp.tools.syscount(recording)
    grouped = found.groupby("begin_id")["took"]
    expected = {int(number): (len(took), int(took.sum()), int(took.max())) for number, took in grouped}

    assert {row["number"]: (row["count"], row["total_ns"], row["longest_ns"]) for row in frame.to_dict("records")} == expected
    assert frame.set_index("number").loc[[0, 1, 62], "syscall"].tolist() == ["read", "write", "kill"]
    by_thread = rtp.tools.syscount(recording, threads=True)
    assert dict(zip(by_thread["pid"], by_thread["count"], strict=True)) == found.groupby("who").size().to_dict()
    failed = found[(found["ret"] < 0) & (found["ret"] >= -4095)]
    assert frame["failed"].sum() == len(failed)
    assert rtp.tools.syscount(recording, failed=True)["count"].sum() == len(failed)
    assert rtp.tools.syscount(recording, errno="EAGAIN").empty == (not (failed["ret"] == -11).any())


def test_execsnoop_and_exitsnoop(recording: Recording) -> None:
    started, ended = columns(recording, "sched_process_exec"), columns(recording, "sched_process_exit")
    execs, exits = rtp.tools.execsnoop(recording), rtp.tools.exitsnoop(recording)

    assert execs["filename"].tolist() == started["filename"].tolist()
    assert execs["pid"].tolist() == started["pid"].tolist()
    assert execs["time_ns"].tolist() == started["time"].tolist()
    assert exits["pid"].tolist() == ended["pid"].tolist()
    assert exits["comm"].tolist() == ended["comm"].tolist()
    born = columns(recording, "sched_process_fork").set_index("child_pid")["time"]
    ages = [when - born[pid] if pid in born.index else None for pid, when in zip(ended["pid"], ended["time"], strict=True)]
    assert [None if np.isnan(age) else int(age) for age in exits["age_ns"].astype("float64")] == ages


def test_sigsnoop(recording: Recording) -> None:
    sent = columns(recording, "signal_generate")
    frame = rtp.tools.sigsnoop(recording)

    assert frame["signal"].tolist() == sent["sig"].tolist()
    assert frame["pid"].tolist() == sent["task"].tolist()
    assert frame["target_pid"].tolist() == sent["pid"].tolist()
    assert frame["target_comm"].tolist() == sent["comm"].tolist()
    assert len(rtp.tools.sigsnoop(recording, signal="CHLD")) == (sent["sig"] == 17).sum() > 0
    with pytest.raises(ValueError, match="no signal is called FOO"):
        rtp.tools.sigsnoop(recording, signal="FOO")


def test_softirqs(recording: Recording) -> None:
    names = ["hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu"]
    enters, exits = columns(recording, "softirq_entry"), columns(recording, "softirq_exit")
    found = spans(steps(enters, "cpu", "begin"), steps(exits, "cpu", "end", "vec"))
    frame = rtp.tools.softirqs(recording, nanoseconds=True)

    expected = {(names[int(key[0])],): value for key, value in hists(found, ["vec"], 1).items()}
    assert answered(frame, ["vector"]) == expected
    assert frame.attrs["unit"] == "ns"


def test_migrations(recording: Recording) -> None:
    moves = columns(recording, "sched_migrate_task").groupby(["pid", "dest_cpu", "comm"]).size().to_dict()
    frame = rtp.tools.migrations(recording)

    assert {(row["pid"], row["to"], row["comm"]): row["count"] for row in frame.to_dict("records")} == moves


def test_pagefaults(recording: Recording) -> None:
    faults = columns(recording, "page_fault_user")
    code = faults["error_code"]
    faults["access"] = np.where(code & 16, "instruction", np.where(code & 2, "write", "read"))
    expected = faults.groupby(["task", "access"]).size().to_dict()
    protection = faults.assign(protection=code & 1).groupby("task")["protection"].sum().to_dict()
    frame = rtp.tools.pagefaults(recording)

    assert frame.groupby(["pid", "access"])["count"].sum().to_dict() == expected
    assert frame.groupby("pid")["protection"].sum().to_dict() == protection


def test_hardirqs_and_biolatency(shared: Path) -> None:
    """On a recording of disks, where it is at hand."""
    path = shared / "recordings/vm-6.1/io/trace.dat"
    if not path.is_file():
        pytest.skip("the recording is not here")
    recording = Recording.open(path)
    enters, exits = columns(recording, "irq_handler_entry"), columns(recording, "irq_handler_exit")
    found = spans(steps(enters, "cpu", "begin", "irq", "name"), steps(exits, "cpu", "end"))
    frame = rtp.tools.hardirqs(recording)

    assert answered(frame, ["irq", "name"]) == hists(found, ["begin_irq", "begin_name"])
    issued, completed = columns(recording, "block_rq_issue"), columns(recording, "block_rq_complete")
    latency = rtp.tools.biolatency(recording)
    taken = spans(_requests(issued, "begin", "rwbs"), _requests(completed, "end"))
    taken["operation"] = taken["begin_rwbs"].str[0].map({"R": "read", "W": "write"})
    expected = hists(taken.dropna(subset="operation"), ["operation"])
    # a flush has no place on the disk by which its two events could be told to belong together
    assert answered(latency[latency["operation"] != "flush"], ["operation"]) == expected
    assert latency.set_index("operation")["count"]["flush"] == issued["rwbs"].str.startswith("FF").sum()


def _requests(frame: Any, kind: str, *more: str) -> Any:
    """Requests are told by where they begin on which disk, as the recording tells them."""
    place = frame["dev"].astype(str) + ":" + frame["sector"].astype(str)
    return steps(frame.assign(place=place), "place", kind, *more)


# all of them


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_is_made_of_its_source(name: str) -> None:
    """The object is what its source is compiled to, is accepted, and attaches to the events that it asks for."""
    tool = TOOLS[name]
    folder = Path(rtp.tools.__file__).parent
    shipped = ObjectSpec.parse(tool.read_object(), name)
    assert {program.attach_name for program in shipped.programs.values()} == {*tool.needs, *tool.uses}
    try:
        made = ObjectSpec.parse(compile_source(folder / f"{name}.bpf.c").data, name)
    except CompilerError:
        pytest.skip("neither clang nor ziglang")
    assert {p.name: p.section for p in made.programs.values()} == {p.name: p.section for p in shipped.programs.values()}
    assert {m.name: m.value_size for m in made.maps.values()} == {m.name: m.value_size for m in shipped.maps.values()}
    with rtp.Kernel() as kernel, kernel.load(tool.read_object(), name=name) as obj:
        assert set(obj.programs) == set(shipped.programs)
    with rtp.Kernel() as kernel:
        variables = set(kernel.open(tool.read_object(), name=name).rodata)
    assert {one for option in tool.options for one in option.set} <= variables


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_has_a_signature_and_help(name: str) -> None:
    """In Python and on the command line, the same options."""
    function = getattr(rtp.tools, name)
    names = list(inspect.signature(function).parameters)
    text = CliRunner().invoke(main, ["tool", name, "--help"]).stdout

    assert names == ["recording", *(option.name for option in TOOLS[name].options)]
    assert TOOLS[name].summary in function.__doc__
    for option in TOOLS[name].options:
        assert option.flags[0] in text
    assert name in dir(rtp.tools)
    assert f"int {name}" not in text


def test_what_a_tool_cannot_do_is_said(recording: Recording) -> None:
    """Events that are not there, options that it has not, tools that there are not."""
    with pytest.raises(
        ReplayError, match="hardirqs needs events that the recording has not: irq_handler_entry, irq_handler_exit"
    ):
        rtp.tools.hardirqs(recording)
    with pytest.raises(TypeError, match="runqlat has no option 'pit', there are: pid, "):
        rtp.tools.runqlat(recording, pit=5)
    with pytest.raises(AttributeError, match="there is no tool 'runqlot', there are: runqlat, "):
        _ = rtp.tools.runqlot
    some = recording.select(events=["sched_switch", "sched_wakeup"])
    notes = rtp.tools.runqlat(some).attrs["notes"]
    assert notes == ["the recording has no sched_wakeup_new: what it would add is not in the answer"]


def tool(*args: object) -> tuple[int, str, str]:
    """(status, standard output, standard error)"""
    result = CliRunner().invoke(main, ["tool", *map(str, args)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_on_the_command_line(recording: Recording, tmp_path: Path) -> None:
    """A histogram, a table, JSON, CSV, Arrow, the source; what is not known goes to standard error."""
    path = demo_recording()
    status, out, err = tool("runqlat", path)
    assert (status, err) == (0, "")
    assert "1,593 ████" in out
    assert "4,067 times, 562 us on average" in out
    assert "Only 3" not in tool("syscount", path, "--top", 3)[1]
    assert tool("syscount", path, "--top", 3)[1].rstrip().endswith("more: --top 0 shows all")
    found = json.loads(tool("runqlat", path, "-L", "--format", "json")[1])
    assert sum(row["count"] for row in found["rows"]) == 4067
    assert found["notes"] == []
    rows = list(csv.DictReader(io.StringIO(tool("pagefaults", path, "--format", "csv")[1])))
    assert sum(int(row["count"]) for row in rows) == len(recording.table("page_fault_user"))
    assert tool("execsnoop", path, "--format", "arrow", "-o", tmp_path / "x.arrow")[0] == 0
    import pyarrow as pa

    with pa.OSFile(str(tmp_path / "x.arrow")) as file:
        assert pa.ipc.open_file(file).read_all().column("comm").to_pylist() == ["churn", "busybox", "busybox"]
    assert tool("runqlat", path, "--source")[1] == TOOLS["runqlat"].read_source()
    assert tool("sigsnoop", path, "-s", "FOO")[0] == 2
    assert tool("nonsense", path)[0] == 2
    assert "runqlat" in tool()[2] + tool("--help")[1]
    part = json.loads(tool("runqlat", path, "--to", "1s", "--format", "json")[1])["rows"][0]["count"]
    assert 0 < part < 4067
