"""replay/series.py: maps over time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from fastrtp.cli import main
from fastrtp.errors import ReplayError
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay import ReplayReport

SWITCHES = Path(__file__).resolve().parents[1] / "fastrtp" / "programs" / "switches.bpf.o"


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


def played(recording: Recording, **options: object) -> ReplayReport:
    with Kernel(cpus=2) as kernel, kernel.load(SWITCHES) as obj, obj.attach():
        report: ReplayReport = kernel.replay(recording, **options)
    return report


def switches_before(recording: Recording, place: int) -> Counter[tuple[int, int]]:
    """What the map has to hold when `place` events were played."""
    number = [table.name for table in recording.tables].index("sched_switch")
    fields = recording.tables[number].fields
    rows = recording.positions[number] < place
    return Counter(zip(fields["prev_pid"][rows].tolist(), fields["next_pid"][rows].tolist(), strict=True))


@pytest.mark.parametrize("tier", ["linked", "fused"])
@pytest.mark.parametrize("every", ["300ms", 9000])
def test_a_map_at_each_moment_holds_what_was_until_then(demo: Recording, every: int | str, tier: str) -> None:
    table = played(demo, every=every, tier=tier).series["switches"].arrow()

    if isinstance(every, int):
        ends = [*range(every, demo.events, every), demo.events]
        moments = [int(demo.time[end - 1]) for end in ends]
    else:
        moments = list(range(int(demo.time[0]) + 300_000_000, int(demo.time[-1]) + 300_000_001, 300_000_000))
        ends = np.searchsorted(demo.time, moments).tolist()
    assert sorted(set(table["time"].to_pylist())) == moments
    for moment, end in zip(moments, ends, strict=True):
        held: Counter[tuple[int, int]] = Counter()  # names of tasks that change make keys of their own
        for row in table.filter(pc.equal(table["time"], moment)).to_pylist():
            held[row["prev_pid"], row["next_pid"]] += row["value"]
        assert held == switches_before(demo, end)


def test_the_end_is_that_of_a_replay_without(demo: Recording) -> None:
    with_series, without = played(demo, every="1s"), played(demo)

    assert (with_series.events, with_series.fired) == (without.events, without.fired) == (demo.events, 5069)
    assert without.series == {}


@pytest.mark.parametrize(("options", "message"), [
    ({"every": "none"}, "every 'none' is neither a number of events nor a time"),
    ({"every": "1ns"}, "makes .* tables of each map, 100000 are the most"),
    ({"every": 10, "cpus": 2}, "every does not go with cpus"),
])  # fmt: skip
def test_what_cannot_be_is_said(demo: Recording, options: dict[str, object], message: str) -> None:
    with pytest.raises(ReplayError, match=message):
        played(demo, **options)


def test_the_command(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(SWITCHES), str(demo_recording()), "--every", "1s", "--format", "json"])

    series = json.loads(capsysbinary.readouterr().out)["series"]["switches"]
    assert ended.value.code == 0
    assert len({row["time"] for row in series}) == 3
    assert sum(row["value"] for row in series if row["time"] == series[-1]["time"]) == 5069
