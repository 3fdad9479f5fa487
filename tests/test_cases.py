"""Small recordings that went wrong once, and programs that showed it: what they must find now.

The recordings and programs are reference material beside the checkout (../shared/recordings/cases); what they show is
tested without them, too, where the code for it is (test_bind.py, test_record_switch_state.py).
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ring_pages import event, page
from test_record_switch_state import FLAGS, MEANS

from fastrtp.btf import load_btf
from fastrtp.errors import RecordingError, ReplayError
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.trace_dat_sections import FormatText
from fastrtp.record.trace_dat_writer import TraceContent, write_v7
from fastrtp.replay import check

SWITCH = {"3.4.0": 512, "3.10.40": 1024, "3.10.49": 1024, "4.4.88": 2048}


@pytest.fixture
def cases(shared: Path) -> Path:
    folder = shared / "recordings" / "cases"
    if not folder.is_dir():
        pytest.skip("no small recordings beside the checkout")
    return folder


def played(recording: Path, program: Path, **options: Any) -> dict[str, dict[bytes, bytes]]:
    """Raw items of each map of a program that saw a recording."""
    kernel = Kernel(cpus=8, **options)
    with kernel.load(program) as obj, obj.attach():
        kernel.replay(recording)
        return {name: dict(held.raw_items()) for name, held in obj.maps.items()}


def counts(items: dict[bytes, bytes], layout: str) -> Counter[tuple[Any, ...]]:
    """Keys unpacked, and how often each was seen."""
    return Counter({struct.unpack(layout, key): int.from_bytes(value, "little") for key, value in items.items()})


@pytest.mark.parametrize("kernel_version", SWITCH)
def test_sched_switch_of_older_kernels(cases: Path, kernel_version: str) -> None:
    """Each flag once, and one preempted task: preempt 1 and running."""
    maps = played(cases / f"switch-{kernel_version}.dat", cases / "sw.bpf.o")

    seen = counts(maps["sw"], "<10I16s16s16s")
    # prev_pid, next_pid, preempt, state, task_state, exit_state, prev_prio, next_prio, current, cpu
    states = sorted((key[2], key[3], key[4], key[5]) for key in seen.elements())
    flags = [MEANS[letter] for letter in FLAGS[SWITCH[kernel_version]]]
    assert states == sorted([(0, 0, 0, 0), (1, 0, 0, 0), *((0, state, state, exits) for state, exits in flags)])
    assert {(key[0], key[1], key[10].rstrip(b"\0"), key[11].rstrip(b"\0")) for key in seen} == {(7, 8, b"aa", b"bb")}


def test_integers_have_their_names(cases: Path) -> None:
    """net_dev_xmit's rc is 0 each time, not the packet's length."""
    maps = played(cases.parent / "vm-6.1" / "net" / "trace.dat", cases / "rc.bpf.o")

    assert set(counts(maps["xmit_rc"], "<I")) == {(0,)}


def test_one_key_for_each_comm(cases: Path) -> None:
    """What stands behind the NUL of a name is not part of it."""
    maps = played(cases.parent / "vm-6.1" / "net" / "trace.dat", cases / "commkey.bpf.o")

    comms = [comm for (comm,) in counts(maps["by_comm"], "<16s")]
    assert comms
    assert [comm for comm in comms if comm != comm.partition(b"\0")[0].ljust(16, b"\0")] == []


def test_comms_of_any_length(cases: Path) -> None:
    """sched_process_fork of 6.18 has both comms as `__data_loc`."""
    maps = played(cases / "fork-6.18.dat", cases / "fork.bpf.o")

    assert [(ppid, cpid, pc.rstrip(b"\0"), cc.rstrip(b"\0")) for ppid, cpid, pc, cc in counts(maps["f"], "<II16s16s")] == [
        (700, 701, b"bash", b"bash")
    ]


def test_timer_start_of_linux_6_12(cases: Path, tmp_path: Path) -> None:
    """Its second argument is `bucket_expiry`, though the record still has `expires`."""
    fields = (
        ("void * timer", 8), ("void * function", 8), ("unsigned long expires", 8), ("unsigned long bucket_expiry", 8),
        ("unsigned long now", 8), ("unsigned int flags", 4),
    )  # fmt: skip
    common = "".join(
        f"\tfield:{decl};\toffset:{at};\tsize:{size};\tsigned:0;\n"
        for decl, at, size in (("unsigned short common_type", 0, 2), ("unsigned char common_flags", 2, 1),
                               ("unsigned char common_preempt_count", 3, 1), ("int common_pid", 4, 4))
    )  # fmt: skip
    lines = "".join(f"\tfield:{decl};\toffset:{8 + 8 * at};\tsize:{size};\tsigned:0;\n" for at, (decl, size) in enumerate(fields))
    text = FormatText("timer", f'name: timer_start\nID: 9\nformat:\n{common}\n{lines}\nprint fmt: "x"\n')
    record = struct.pack("<HBBi5QI", 9, 0, 0, 7, 0x10, 0x20, 100, 164, 90, 7)
    path = tmp_path / "timer.dat"
    path.write_bytes(write_v7(TraceContent(formats={9: text}, buffers={"": [page(1000, event(0, record))]})))
    btf = load_btf(cases.parents[1] / "kernels" / "6.12" / "vmlinux.btf.zst")

    maps = played(path, cases / "ts.bpf.o", btf=btf)

    assert counts(maps["arg1"], "<Q") == {(164,): 1}


def test_events_of_several_instances_are_asked_for(cases: Path) -> None:
    """Two buffers beside an empty top one hold the same events: never silently left out, never counted twice."""
    path = cases / "instances.dat"

    with pytest.raises(RecordingError, match="instance 'net': 20, instance 'other': 1"):
        Recording.open(path)

    assert [Recording.open(path, instance=name).events for name in ("net", "other", "")] == [20, 1, 0]


@pytest.mark.parametrize(("name", "missing"), [
    ("mem", {"prev->cred", "prev->nsproxy", "prev->policy", "prev->start_time", "prev->se.sum_exec_runtime", "prev->real_parent",
             "current uid and gid"}),
    ("silent_zeros", {"next->policy"}),
    ("stk", {"kernel stack"}),
])  # fmt: skip
def test_what_a_recording_cannot_supply_is_named(cases: Path, name: str, missing: set[str]) -> None:
    """Each member by name, with how often it was read; strict refuses before the first event."""
    recording = Recording.open(cases.parent / "churn" / "trace.dat")
    kernel = Kernel(cpus=8)
    with kernel.load(cases / f"{name}.bpf.o") as obj, obj.attach():
        report = kernel.replay(recording)
        with pytest.raises(ReplayError, match="the recording cannot supply"):
            kernel.replay(recording, missing="strict")

    assert missing <= {row.what for row in report.missing}
    (runs,) = {program.run_cnt for program in report.programs.values()}
    assert {row.count for row in report.missing} == {runs}


def test_what_follows_from_the_record_only_by_a_rule_has_the_rule_beside_it(cases: Path) -> None:
    """static_prio: computed from prio, and the report says of which tasks that is not true."""
    kernel = Kernel(cpus=8)
    with kernel.load(cases / "silent_zeros.bpf.o") as obj:
        (program,) = check(kernel, Recording.open(cases.parent / "churn" / "trace.dat"), obj.programs.values())

    (row,) = (row for row in program.rows if row.what == "prev->static_prio")
    assert (row.status, row.why.partition(":")[0]) == ("derived", "prev_prio from 100 on, else 120")
    assert "borrows a priority" in row.why
