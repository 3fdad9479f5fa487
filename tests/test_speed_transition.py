"""pytest-benchmark cases of the hot paths: `pytest --benchmark-only`. One round is 100,000 events, or one whole thing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import jit
from bench.load import TYPICAL, empty_cache, loadable
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
@pytest.mark.parametrize("name", ["empty", "array_count", "hash_count"])
def test_replayed_events(benchmark: Any, name: str, tier: str) -> None:
    here = machine()
    before = here.obj.programs[name].run_cnt
    with here.replaying([name], 1024, tier) as replay:
        benchmark(replay.play, _EVENTS)

    runs = here.obj.programs[name].run_cnt - before
    assert runs > 0
    assert runs % _EVENTS == 0


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


def test_cold_load(benchmark: Any) -> None:
    from fastrtp.kernel import Kernel

    with Kernel() as kernel:
        with empty_cache():
            kernel.load(loadable()[TYPICAL]).close()  # the compiler is started

        def load() -> Any:
            with empty_cache():
                return kernel.load(loadable()[TYPICAL])

        obj = benchmark.pedantic(load, rounds=3)

        assert set(obj.programs) == {"typical"}


@pytest.mark.parametrize("name", ["siphash", "dense_switch", "histogram"])
def test_compiled_program(benchmark: Any, name: str) -> None:
    try:
        pair = jit.Pair(name)
    except NotImplementedError as reason:
        pytest.skip(str(reason))

    benchmark(pair.subject, 10)

    assert pair.subject(1) == pair.baseline(1)
