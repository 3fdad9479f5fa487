"""`fastrtp bench`: what it reports, not how fast anything is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import fastrtp
from fastrtp.cli import main
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.replay.measure import FUSED, LINKED, NOTHING, measure

PACKAGE = Path(fastrtp.__file__).parent
RECORDING = PACKAGE / "record/data/churn.trace.dat"
SYSCOUNT = PACKAGE / "programs/syscount.bpf.o"
OUTPUTS = Path(__file__).parent / "data/cli/outputs.bpf.o"
EVENTS, SYSCALLS, SWITCHES = 66_152, 27_308, 5_069


def run(*args: object) -> Any:
    return CliRunner().invoke(main, ["bench", *(str(arg) for arg in args)], catch_exceptions=False)


def test_the_report_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped recording is the default; the user's cache is used again afterwards."""
    before = os.environ.get("FASTRTP_CACHE")

    result = run(SYSCOUNT, "--seconds", "0", "--format", "json")

    found = json.loads(result.stdout)
    ways = found["replay"]["ways"]
    assert result.exit_code == 0
    assert os.environ.get("FASTRTP_CACHE") == before
    assert found["load"]["cold_ms"] > 0 < found["load"]["cached_ms"]
    assert [(row["name"], row["tracepoint"]) for row in found["programs"]] == [("on_enter", "sys_enter"), ("on_exit", "sys_exit")]
    assert all(row["jited_bytes"] > 0 and row["verified_insns"] > 0 for row in found["programs"])
    assert (found["replay"]["events"], found["replay"]["fired"]) == (EVENTS, SYSCALLS)
    assert {NOTHING, LINKED, FUSED} <= set(ways)
    assert ways[NOTHING]["ratio_to_nothing"] == 1.0
    assert all(row["ns_per_event"] == pytest.approx(row["seconds"] * 1e9 / EVENTS) for row in ways.values())


def test_the_report_as_a_table() -> None:
    result = run(SYSCOUNT, RECORDING, "--seconds", "0")

    assert result.exit_code == 0
    assert "66,152 events, 27,308 with a program" in result.stdout
    assert "nothing attached" in result.stdout


def test_programs_run_in_every_round_of_every_way() -> None:
    """Three ways with the programs, three rounds: nine replays, or six where the CPUs cannot be played side by side."""
    recording = Recording.open(RECORDING)
    with Kernel(cpus=2) as kernel, Kernel(cpus=2) as bare:
        loaded = kernel.load(OUTPUTS)
        with loaded.attach():
            times = measure(kernel, recording, bare=bare, seconds=0)
        runs = sum(program.run_cnt for program in loaded.programs.values())

    assert times.rounds == 3
    assert times.fired == SWITCHES
    assert runs >= 3 * SWITCHES * (len(times.seconds) - 1)


def test_what_cannot_be_measured_is_refused() -> None:
    assert "no such file" in run("nothing.bpf.o").stderr
    assert run(SYSCOUNT, "--seconds", "-1").exit_code == 2
    refused = run(Path(__file__).parents[1] / "bench/c/transition.bpf.o", "--seconds", "0")
    assert refused.exit_code == 1
    assert "no program that names its tracepoint" in refused.stderr
