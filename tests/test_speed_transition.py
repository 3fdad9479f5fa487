"""pytest-benchmark cases of the hot paths: `pytest --benchmark-only`. One round is 100,000 events, or one whole thing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import jit
from bench.machine import machine
from bench.recording import Player, recording
from bench.sources import objects

_EVENTS = 100_000


@pytest.mark.parametrize("name", ["empty", "array_count", "hash_count", "hash_update", "ringbuf_discard"])
def test_events_through_the_linked_tier(benchmark: Any, name: str) -> None:
    here = machine()
    before = here.obj.programs[name].run_cnt
    with here.attached([name]):
        benchmark(here.fire, _EVENTS, 1024)

    assert here.obj.programs[name].run_cnt >= before + _EVENTS


@pytest.mark.parametrize("tier", ["linked", "fused"])
def test_replay_of_the_recording(benchmark: Any, tier: str) -> None:
    player = Player(["syscount"], tier=tier)

    benchmark(player.play)

    assert player.linked.position == player.events


def test_import_of_the_recording(benchmark: Any) -> None:
    from fastrtp.record import Recording

    opened = benchmark.pedantic(Recording.open, (recording()[1],), rounds=3)

    assert opened.events > 0


def test_warm_load(benchmark: Any) -> None:
    from fastrtp.kernel import Kernel

    with Kernel() as kernel:
        obj = benchmark(lambda: kernel.load(objects()["syscount"]))

        assert set(obj.programs) == {"on_enter", "on_exit"}


@pytest.mark.parametrize("name", ["siphash", "dense_switch", "histogram"])
def test_compiled_program(benchmark: Any, name: str) -> None:
    try:
        pair = jit.Pair(name)
    except NotImplementedError as reason:
        pytest.skip(str(reason))

    benchmark(pair.subject, 10)

    assert pair.subject(1) == pair.baseline(1)
