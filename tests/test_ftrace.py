"""The trace buffer: records are what the recorded kernel wrote, whoever else listens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.record import EventTable, Recording
from fastrtp.record.assign import assignment
from fastrtp.record.event_formats import default_formats
from fastrtp.record.recipes import RECIPES
from fastrtp.uapi import BpfProgType

BOTH = Path(__file__).parent / "data" / "ftrace" / "both.bpf.o"

DIFFER = {
    # an object's address is another here than on the recorded machine
    *((event, "hrtimer") for event in RECIPES if event.startswith("hrtimer_")),
    *((event, "timer") for event in RECIPES if event.startswith("timer_")),
    # ticks are counted from the recorded time
    ("timer_start", "now"), ("timer_expire_entry", "now"),
    # the page is not recorded
    ("mm_page_alloc", "pfn"),
}  # fmt: skip


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel


def recorded(table: EventTable, name: str, row: int) -> Any:
    """A field of a recording as `TraceRecord.fields` has it."""
    if name in table.heaps:
        return table.bytes_at(name, row).partition(b"\0")[0]
    return table.fields[name][row].tolist()


def test_every_record_is_as_recorded(kernel: Kernel, recording: Recording) -> None:
    """Arguments made from fields, and fields made from arguments again: 66,152 records of 37 events."""
    kernel.ftrace.set_buffer_size(1 << 24)
    kernel.ftrace.enable(*(table.name for table in recording.tables))
    kernel.replay(recording)
    wrong: dict[tuple[str, str], tuple[Any, Any]] = {}

    records = list(kernel.ftrace.records())

    assert kernel.ftrace.overrun == 0
    assert len(records) == recording.events == 66152
    for index, record in enumerate(records):
        table, row = recording.tables[recording.event[index]], int(recording.row[index])
        seen = (record.name, record.time, record.cpu, record.pid)
        assert seen == (table.name, recording.time[index], recording.cpu[index], recording.pid[index])
        for name, value in record.fields.items():
            if (table.name, name) not in DIFFER and value != recorded(table, name, row):
                wrong[table.name, name] = value, recorded(table, name, row)
    assert wrong == {}


def test_an_objects_address_stands_for_it(kernel: Kernel, recording: Recording) -> None:
    """Where addresses differ from the recorded ones, equal ones are still equal and others differ."""
    kernel.ftrace.set_buffer_size(1 << 24)
    kernel.ftrace.enable("timer:hrtimer_start")
    kernel.replay(recording)

    pairs = {
        (record.fields["hrtimer"], theirs)
        for record, theirs in zip(
            kernel.ftrace.records(), recording.table("hrtimer_start").fields["hrtimer"].tolist(), strict=True
        )
    }

    assert len(pairs) == len({ours for ours, _ in pairs}) == len({other for _, other in pairs}) > 1


@pytest.mark.parametrize("name", [name for name in RECIPES if name in default_formats()])
def test_every_recipe_has_a_way_forward(kernel: Kernel, name: str) -> None:
    """Each field comes from somewhere, or is one that the record cannot have; the layout is the format's."""
    if name not in kernel.tracepoints:
        pytest.skip("not in this kernel")
    fmt = default_formats()[name]
    found = assignment(kernel.btf, kernel.tracepoints.proto(name), fmt)

    assert found is not None
    assert set(found.missing) <= {"newprio", "bytes_req", "bytes_alloc", "accounted", "name", "pfn"} | {
        field for field in found.missing if field.endswith(("nid", "ngid"))
    }
    assert fmt.size <= found.size < fmt.size + 8
    assert found.data_offset == fmt.size


def test_a_full_buffer_loses_the_oldest(kernel: Kernel) -> None:
    """Overwrite mode, each CPU for itself."""
    kernel.trace_event("numbers", "u64 number")
    kernel.ftrace.set_buffer_size(4096)
    kernel.ftrace.enable("numbers")
    fire = kernel.trace("numbers")
    for number in range(1000):
        fire(number)
    kernel.trace("numbers", 1)(7)

    numbers = [(record.cpu, record.fields["number"]) for record in kernel.ftrace.records()]

    room = 4096 // 32
    assert numbers == [*((0, number) for number in range(1000 - room, 1000)), (1, 7)]
    assert kernel.ftrace.overrun == 1000 - room
    assert kernel.ftrace.entries == 1001


def test_reading_and_switching_off(kernel: Kernel) -> None:
    """Records stay until they are consumed; a disabled event and a stopped buffer write none."""
    kernel.trace_event("numbers", "int number, const char *name")
    kernel.ftrace.enable("numbers")
    fire = kernel.trace("numbers")
    fire(-1, "one")
    kernel.ftrace.tracing_on = False
    fire(2, "two")
    kernel.ftrace.tracing_on = True
    fire(3, "")
    kernel.ftrace.disable("numbers")
    fire(4, "four")

    expected = [{"number": -1, "name": b"one"}, {"number": 3, "name": b""}]
    assert [record.fields for record in kernel.ftrace.records()] == expected
    assert [record.fields for record in kernel.ftrace.records(consume=True)] == expected
    assert list(kernel.ftrace.records()) == []
    assert not kernel.tracepoints["numbers"].enabled


def test_bad_pointers_leave_fields_zero(kernel: Kernel) -> None:
    """A live event with addresses that are nothing here: no crash."""
    kernel.ftrace.enable("sched_switch", "task_rename", "sched_process_exec")
    kernel.trace("sched_switch")(1, 0, 0xFFFF_8888_0000_0000, 0)
    kernel.trace("task_rename")(1 << 63, 0)
    kernel.trace("sched_process_exec")((1 << 64) - 1, 5, 8)

    switch, rename, execed = (record.fields for record in kernel.ftrace.records())

    assert switch["prev_state"] == 0x100
    assert (switch["prev_comm"], switch["next_pid"]) == (b"", 0)
    assert (rename["pid"], rename["newcomm"]) == (0, b"(null)")
    assert execed == {"filename": b"(null)", "pid": 0, "old_pid": 5}


@pytest.mark.parametrize(
    ("name", "code"),
    [("no_such_event", "ENOENT"), ("sched:sys_enter", "ENOENT"), ("", "ENOENT")],
)
def test_events_that_cannot_be_had(kernel: Kernel, name: str, code: str) -> None:
    """The reason is in the error, and nothing is on."""
    with pytest.raises(BpfError, match=f"{code}: no (event|recipe)"):
        kernel.ftrace.enable("sched_switch", name)

    assert kernel.ftrace.enabled == []


def test_buffer_sizes(kernel: Kernel) -> None:
    """A power of two, and not while events write to it."""
    with pytest.raises(BpfError, match="power of two"):
        kernel.ftrace.set_buffer_size(5000)
    kernel.ftrace.enable("sched_switch")
    with pytest.raises(BpfError, match="EBUSY: sched_switch"):
        kernel.ftrace.set_buffer_size(8192)


def test_all_four_on_one_tracepoint(kernel: Kernel) -> None:
    """ftrace, perf, raw_tp and classic programs come and go; each counts exactly what fires while it is there.

    The classic program returns 1: with 0 it would keep the event from perf, as in Linux.
    """
    obj = kernel.load(BOTH, autoload=["raw_switch"])
    classic_fd = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_TRACEPOINT, encode(assemble("r0 = 1\nexit")))
    classic = next(prog for prog in kernel.progs if prog.type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT)
    fire = kernel.trace("sched_switch")
    raw = obj.programs["raw_switch"]
    fd = kernel.perf_tracepoint_open("sched_switch", disabled=True)
    event = kernel.perf_tracepoint(fd)
    expected = {"ftrace": 0, "perf": 0, "raw": 0, "classic": 0}
    links: dict[str, Any] = {}

    def on(kind: str) -> None:
        if kind == "ftrace":
            kernel.ftrace.enable("sched_switch")
        elif kind == "perf":
            kernel.ioctl(fd, 0x2400)
        elif kind == "raw":
            links[kind] = [raw.attach().fd]
        else:
            links[kind] = kernel.tracepoint_attach("sched_switch", classic_fd)

    def off(kind: str) -> None:
        if kind == "ftrace":
            kernel.ftrace.disable("sched_switch")
        elif kind == "perf":
            kernel.ioctl(fd, 0x2401)
        else:
            for held in links.pop(kind):
                kernel.close(held)

    state = 0
    for step in range(64):
        wanted = step ^ step >> 1  # Gray code: one comes or goes at a time, and every combination is met
        for bit, kind in enumerate(expected):
            if (wanted ^ state) >> bit & 1:
                (on if wanted >> bit & 1 else off)(kind)
        state = wanted
        for number in range(step + 1):
            fire(0, 0, 0, number)
        for bit, kind in enumerate(expected):
            expected[kind] += (step + 1) * (wanted >> bit & 1)

        counted = {"ftrace": kernel.ftrace.entries, "perf": event.count, "raw": raw.run_cnt, "classic": classic.runs}
        assert counted == expected

    for kind in [kind for bit, kind in enumerate(expected) if state >> bit & 1]:
        off(kind)
    kernel.close(fd)
    kernel.close(classic_fd)
    obj.close()
    assert kernel.tracepoints["sched_switch"].funcs == []
