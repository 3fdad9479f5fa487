"""record/trace_text.py and unprint.py: text traces read back."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrtp.errors import RecordingError
from fastrtp.record import EventTable, Recording
from fastrtp.record.demo import demo_recording
from fastrtp.record.event_formats import default_formats
from fastrtp.record.listing import Listing
from fastrtp.record.trace_text import read_lines
from fastrtp.record.unprint import Unprint

FTRACE = """# tracer: nop
#
#                                _-----=> irqs-off/BH-disabled
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
          <idle>-0       [001] d..2. 12345.678901: sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=R ==> next_comm=a b next_pid=7 next_prio=98
CPU:1 [LOST 12 EVENTS]
           a b-7     (    5) [001] d..2. 12345.678905: sched_switch: prev_comm=a b prev_pid=7 prev_prio=98 prev_state=R+ ==> next_comm=kworker/1:2 next_pid=33 next_prio=120
    kworker/1:2-33    (-----) [001] ..... 12345.678910: app_event: count=3 name=x-y
"""  # noqa: E501 - lines are as long as they are printed
PERF = """swapper     0 [001] 12345.678901:  sched:sched_switch: prev_comm=swapper/1 prev_pid=0 prev_prio=120 prev_state=S ==> next_comm=a next_pid=7 next_prio=98
\tffffffff81000000 __schedule+0x1 ([kernel.kallsyms])

a 5/7 [001] 12345.678905123: irq:softirq_entry: vec=1 [action=TIMER]
"""  # noqa: E501


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


def columns(table: EventTable) -> dict[str, list[Any]]:
    return {
        name: (table.strings(name) if table.has_strings(name) else table.fields[name]).tolist()
        for name in table.fields
        if not name.startswith("common_")
    }


def test_what_ftrace_prints() -> None:
    recording = read_lines(FTRACE.splitlines())

    assert columns(recording.table("sched_switch")) == {
        "prev_comm": [b"swapper/1", b"a b"], "prev_pid": [0, 7], "prev_prio": [120, 98], "prev_state": [0, 0x100],
        "next_comm": [b"a b", b"kworker/1:2"], "next_pid": [7, 33], "next_prio": [98, 120],
    }  # fmt: skip
    assert columns(recording.table("app_event")) == {"count": [3], "name": [b"x-y"]}
    assert recording.time.tolist() == [12345678901000, 12345678905000, 12345678910000]
    assert (recording.pid.tolist(), recording.cpu.tolist()) == ([0, 7, 33], [1, 1, 1])
    assert (recording.tgids, recording.lost, recording.comms[33]) == ({7: 5}, {1: 12}, "kworker/1:2")


def test_what_perf_script_prints() -> None:
    recording = read_lines(PERF.splitlines())

    assert [table.name for table in recording.tables] == ["sched_switch", "softirq_entry"]
    assert recording.time.tolist() == [12345678901000, 12345678905123]
    assert columns(recording.table("softirq_entry")) == {"vec": [1]}
    assert recording.tgid(7) == 5


def test_the_lines_of_a_recording_are_the_recording(demo: Recording) -> None:
    """Every field that is read back is what was recorded, and each event is there; times to the microsecond."""
    again = read_lines(Listing(demo).lines())

    assert again.events == demo.events
    assert np.array_equal(again.cpu, demo.cpu)
    assert np.array_equal(again.pid, demo.pid)
    assert int(np.abs(again.time - demo.time).max()) <= 500
    whole = 0
    for table in demo.tables:
        read, recorded = columns(again.table(table.name)), columns(table)
        assert {name: recorded[name] for name in read} == read, table.name
        whole += len(read) == len(recorded)
    assert whole >= 25  # of 37: symbols are no addresses, and libraries of flags have names for several bits


def test_a_replay_of_lines_is_that_of_the_recording(demo: Recording, tmp_path: Path) -> None:
    from fastrtp.kernel import Kernel

    path = tmp_path / "trace.txt"
    path.write_text("\n".join(Listing(demo).lines()))
    maps = []
    for recording in (demo, Recording.open(path)):
        with (
            Kernel(cpus=2) as kernel,
            kernel.load(Path(__file__).resolve().parents[1] / "fastrtp/programs/switches.bpf.o") as obj,
            obj.attach(),
        ):
            kernel.replay(recording)
            maps.append(dict(obj.maps["switches"].raw_items()))

    assert maps[0] == maps[1]


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("options", [[], ["-N"], ["-l"]])
def test_what_trace_cmd_report_prints(demo: Recording, options: list[str]) -> None:
    """A plugin's letters of a state are those of old kernels: then there is no state, instead of a wrong one."""
    printed = subprocess.run(["trace-cmd", "report", *options, str(demo_recording())], capture_output=True, text=True, check=True)

    again = read_lines(printed.stdout.splitlines())

    assert again.events == demo.events
    for name in ("sched_switch", "sched_waking", "sys_enter", "softirq_entry"):
        read, recorded = columns(again.table(name)), columns(demo.table(name))
        assert {name: recorded[name] for name in read} == read
        assert set(recorded) - set(read) == ({"prev_state"} if name == "sched_switch" and options != ["-N"] else set())


def test_systrace(tmp_path: Path) -> None:
    path = tmp_path / "trace.html"
    path.write_text(f'<html><script>x</script>\n<script class="trace-data" type="application/text">\n{FTRACE}</script></html>')

    assert Recording.open(path).events == 3


def test_a_field_that_some_lines_do_not_give_is_left_out_and_said() -> None:
    lines = [
        "a-1 [000] 1.000000: kfree: call_site=0x10 ptr=0x20",
        "a-1 [000] 1.000001: kfree: call_site=some_function+0x1 ptr=0x20",
    ]

    recording = read_lines(lines)

    assert columns(recording.table("kfree")) == {"ptr": [0x20, 0x20]}
    assert "kfree: left out, because not every line gives it: call_site" in recording.notes


@pytest.mark.parametrize(("name", "text", "fields"), [
    ("block_rq_issue", "254,16 WS 4096 () 2048 + 8 [dd]",
     {"dev": 254 << 20 | 16, "rwbs": "WS", "bytes": 4096, "cmd": "", "sector": 2048, "nr_sector": 8, "comm": "dd"}),
    ("sys_enter", "NR 1 (1, ffffffffffffffff, 0, 0, 0, 10)", {"id": 1, "args": [1, (1 << 64) - 1, 0, 0, 0, 16]}),
    ("softirq_raise", "vec=9 [action=RCU]", {"vec": 9}),
    ("irq_handler_exit", "irq=5 ret=handled", {"irq": 5}),
    ("kfree", "call_site=0xffffffff81000000 ptr=(nil)", {"call_site": 0xFFFFFFFF81000000, "ptr": 0}),
])  # fmt: skip
def test_a_text_backwards(name: str, text: str, fields: dict[str, Any]) -> None:
    found = Unprint(default_formats()[name]).read(text)

    assert found is not None
    assert {key: found[key] for key in fields if key in found} == {key: value for key, value in fields.items() if key in found}
    assert set(fields) == set(found)


def test_a_text_of_another_format_gives_nothing() -> None:
    assert Unprint(default_formats()["softirq_raise"]).read("vec is 9") is None


@pytest.mark.parametrize("text", ["", "hello\n", "# tracer: nop\n#\n", "a-1 [000] x: y: z\n"])
def test_a_file_without_events_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(text)

    with pytest.raises(RecordingError):
        Recording.open(path)


@pytest.mark.parametrize("line", [
    "a-99999999999 [000] 1.0: b: c", "a-1 [99999] 1.0: b: c", "a-1 [000] 99999999999.0: b: c",
    "a-1 [000] 1.0: b: " + "x" * (1 << 15),
])  # fmt: skip
def test_numbers_that_no_kernel_prints_are_no_events(line: str) -> None:
    assert read_lines([line, "a-1 [000] 1.0: b: x=1"]).events == 1


def test_values_without_room_are_left_out() -> None:
    recording = read_lines([f"a-1 [000] 1.0: softirq_entry: vec={1 << 40} [action=x]", f"a-1 [000] 1.1: own: x={1 << 70}"])

    assert recording.table("softirq_entry").fields.keys() <= {"common_flags", "common_preempt_count"}
    assert recording.table("own").strings("x").tolist() == [str(1 << 70).encode()]


def test_two_thousand_damaged_texts_are_read_or_refused(demo: Recording) -> None:
    """Bytes turned, cut out and doubled: a recording that holds together, or RecordingError, nothing else."""
    random = np.random.default_rng(1)
    whole = "\n".join([*FTRACE.splitlines(), *PERF.splitlines(), *Listing(demo).lines(0, 60)]).encode()
    read = 0
    for _ in range(2000):
        data = bytearray(whole[int(random.integers(len(whole))) :][: int(random.integers(50, 1500))])
        for _ in range(int(random.integers(1, 8))):
            at = int(random.integers(len(data))) if data else 0
            how = int(random.integers(3))
            if how == 0 and data:
                data[at] = int(random.integers(256))
            elif how == 1:
                del data[at : at + int(random.integers(1, 9))]
            else:
                data[at:at] = data[at : at + int(random.integers(1, 40))]
        try:
            recording = read_lines(data.decode("utf-8", "replace").splitlines())
        except RecordingError:
            continue
        recording.check()
        read += recording.events
    assert read > 2000
