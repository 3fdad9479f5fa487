"""`--set`, `--max-entries`, `--program`, `--kconfig`, `--kernel-version`: an object set up from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastrtp.cli import main
from fastrtp.cli.setup import drop_twins, made
from fastrtp.kernel import Kernel
from fastrtp.record.demo import demo_recording

ELF = Path(__file__).parent / "data" / "elf"
OBJECT = str(ELF / "setup.bpf.o")
OPTIONS = str(ELF / "options.bpf.o")
SIZED = ("--max-entries", "start=512")
WRITE = 1
"""The number of write(2)."""


def run(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def replayed(*words: str, obj: str = OBJECT) -> dict[str, Any]:
    """What a replay of the shipped recording says."""
    done = run("replay", obj, str(demo_recording()), "--format", "json", *words)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def counted(found: dict[str, Any]) -> dict[int, int]:
    return {row["key"]: row["value"] for row in found["maps"]["start"]["items"]}


def test_a_replay_counts_what_it_is_set_up_for() -> None:
    everything = counted(replayed(*SIZED))
    one = counted(replayed(*SIZED, "--set", f"targ_pid={WRITE}"))

    assert everything[WRITE] == 5163
    assert len(everything) > 10
    assert one == {WRITE: 5163}


def test_variables_of_every_section_can_be_set() -> None:
    sets = ("bss.hits=1000", "last[1]=7", "data_extra.resized=[4]", "filter.comm=x", f"targ_pid={WRITE}")
    found = replayed(*SIZED, *(word for one in sets for word in ("--set", one)))["maps"]

    assert found["setup.bss"]["items"][0]["value"]["hits"] == 1000 + 5163
    assert found[".data.extra"]["items"][0]["value"] == {"resized": [4]}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 1, r"max_entries is 0"),
        ((*SIZED, "--set", "targ_pidd=1"), 1, "no variable 'targ_pidd', there are: .rodata: targ_pid"),
        ((*SIZED, "--set", "targ_pid=text"), 1, "targ_pid is volatile const u32: it holds a number, not 'text'"),
        ((*SIZED, "--set", "targ_pid"), 2, "--set takes NAME=VALUE"),
        (("--max-entries", "strat=5"), 1, "no map 'strat', there are: optional"),
        (("--max-entries", "start=many"), 2, "'many' is no number"),
        ((*SIZED, "--program", "nosuch*"), 1, "no program 'nosuch*', there are: on_enter"),
        ((*SIZED, "--kernel-version", "six"), 2, "does not begin with three numbers"),
        ((*SIZED, "--kconfig", "/nosuch"), 1, "/nosuch: no such file"),
        ((*SIZED, "--program", "of_unknown", "--strict"), 1, "create map unknown_type"),
    ],
)
def test_mistakes_are_one_line_that_says_what_there_is(words: tuple[str, ...], status: int, says: str) -> None:
    done = run("replay", OBJECT, str(demo_recording()), *words)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("fastrtp: warning: ")]

    assert done.exit_code == status
    assert len(lines) == 1
    assert says in lines[0]


def test_a_program_that_is_refused_is_listed_and_the_others_run() -> None:
    found = replayed(*SIZED, "--program", "of_unknown", "--program", "on_enter")

    assert list(found["attached"]) == ["on_enter"]
    assert "uses map 'unknown_type', which was not created" in found["skipped"]["of_unknown"]


def test_what_is_done_without_is_said_once_on_standard_error() -> None:
    done = run("verify", str(ELF / "forgiven.bpf.o"), str(ELF / "enum_keys.bpf.o"))

    assert done.exit_code == 0
    assert [line for line in done.stderr.splitlines() if "loaded without its BTF" in line] != []


def test_of_twins_those_by_btf_are_taken() -> None:
    """Both write to the same map: attached together they would count each switch twice."""
    with Kernel(cpus=1) as kernel:
        obj = made((), SIZED[1:], (), None, None).open(kernel, Path(OBJECT).read_bytes(), "setup")
        for name in ("twin_raw", "twin_btf"):
            obj.programs[name].autoload = True
        lines = drop_twins(obj)

        assert lines == ["twin_raw is the raw_tp twin of twin_btf (tp_btf) on sched_switch: taken is twin_btf; --program chooses"]
        assert (obj.programs["twin_raw"].autoload, obj.programs["twin_btf"].autoload) == (False, True)
        assert drop_twins(obj) == []


def test_twins_are_chosen_by_name() -> None:
    by_name = replayed(*SIZED, "--program", "twin_*")

    assert by_name["attached"] == {"twin_raw": "sched_switch", "twin_btf": "sched_switch"}
    assert by_name["notes"] == []
    assert by_name["maps"]["setup.bss"]["items"][0]["value"]["hits"] == 2 * 5069


def test_options_of_the_configuration_come_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "config"
    lines = ["CONFIG_HZ=123", "CONFIG_BPF_SYSCALL=y", "CONFIG_MODULES=y", "CONFIG_EXT4_FS=m", "CONFIG_ILLEGAL_POINTER_VALUE=1"]
    config.write_text("\n".join([*lines, 'CONFIG_DEFAULT_HOSTNAME="h"']))
    found = replayed("--kconfig", str(config), obj=OPTIONS)["maps"]["options.bss"]["items"][0]["value"]

    assert (found["seen_hz"], found["seen_ext4"], found["hostname"]) == (123, "TRI_MODULE", "h")


def test_verify_and_dump_set_objects_up_alike() -> None:
    verified = run("verify", OBJECT, *SIZED, "--program", "on_*", "--format", "json")
    guarded = run("verify", OBJECT, *SIZED, "--program", "guarded", "--set", "per_thread=true", "--format", "json")
    dumped = run("dump", OBJECT, *SIZED, "--program", "on_exit", "--what", "llvm")

    assert [row["program"] for row in json.loads(verified.stdout)["programs"]] == ["on_enter", "on_exit"]
    assert json.loads(guarded.stdout)["programs"][0]["processed"] > 5
    assert dumped.stdout.startswith("; on_exit ")
    assert (verified.exit_code, guarded.exit_code, dumped.exit_code) == (0, 0, 0)


def test_maps_are_shown_as_they_were_set_up(tmp_path: Path) -> None:
    session = tmp_path / "session"
    replayed(*SIZED, "--set", f"targ_pid={WRITE}", "--program", "on_enter", "--save", str(session))
    shown = json.loads(run("map", "-o", OBJECT, *SIZED, "-j", "show", "name", "start").stdout)
    saved = json.loads(run("map", "-s", str(session), "-j", "dump", "name", "start").stdout)
    programs = json.loads(run("prog", "-s", str(session), "-j", "show").stdout)

    assert shown["max_entries"] == 512
    assert [row["formatted"]["key"] for row in saved] == [WRITE]
    assert "on_enter" in str(programs)
    assert run("map", "-o", OBJECT, "-o", OBJECT, *SIZED, "show").exit_code == 2
