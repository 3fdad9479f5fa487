"""`fastrtp replay --save` and asking the saved session."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastrtp.cli import main
from fastrtp.record.demo import demo_recording

PROGRAMS = Path(__file__).parent.parent / "fastrtp" / "programs"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """(session, what the replay itself said)."""
    path = tmp_path_factory.mktemp("session") / "switches.session"
    result = run(
        "replay", PROGRAMS / "switches.bpf.o", demo_recording(), "--save", path, "--stats", "--format", "json",
        "--then", "prog show", "--then", "map dump name switches",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return path, json.loads(result.stdout)["then"]


def test_counters_and_maps_are_those_of_the_replay(saved: tuple[Path, dict[str, object]]) -> None:
    path, then = saved

    for line in ("prog show", "map dump name switches"):
        noun, *words = line.split()
        rows = json.loads(run(noun, "-s", path, "-j", *words).stdout)
        if noun == "prog":
            for row, old in zip(rows, then[line], strict=True):  # type: ignore[call-overload]
                assert (row["name"], row["run_cnt"], row["run_time_ns"]) == (old["name"], old["run_cnt"], old["run_time_ns"])
        else:
            assert sorted(map(str, rows)) == sorted(map(str, then[line]))  # type: ignore[arg-type]


def test_its_programs_are_attached(saved: tuple[Path, dict[str, object]]) -> None:
    assert "sched_switch" in run("link", "-s", saved[0], "show").stdout


def test_a_session_and_an_object_do_not_go_together(saved: tuple[Path, dict[str, object]]) -> None:
    result = run("prog", "-s", saved[0], "-o", PROGRAMS / "switches.bpf.o", "show")

    assert result.exit_code != 0


def test_what_is_no_session_is_refused_in_one_line(tmp_path: Path, saved: tuple[Path, dict[str, object]]) -> None:
    text = tmp_path / "text"
    text.write_text("no session")
    empty = tmp_path / "empty.zip"
    with zipfile.ZipFile(empty, "w"):
        pass
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(saved[0]) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (b"x" if name.startswith("maps/") else b""))
    cut = tmp_path / "cut"
    cut.write_bytes(saved[0].read_bytes()[:-100])

    for path in (text, empty, other, cut, tmp_path / "absent"):
        result = run("prog", "-s", path, "show")

        assert result.exit_code != 0
        assert "Traceback" not in result.output
        assert str(path) in result.stderr
