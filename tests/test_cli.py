"""The command line: every command on shipped files, and how errors end."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import fastrtp
from fastrtp.cli import COMMANDS, main

PACKAGE = Path(fastrtp.__file__).parent
RECORDING = PACKAGE / "record/data/churn.trace.dat"
RUNQLAT = PACKAGE / "programs/runqlat.bpf.o"
SWITCHES = PACKAGE / "programs/switches.bpf.o"
SYSCOUNT = PACKAGE / "programs/syscount.bpf.o"
ELF = Path(__file__).parent / "data/elf"
EVENTS = 66_152
SWITCH_EVENTS = 5_069


def run(*args: object, stdin: str | None = None) -> Result:
    """One command in this process."""
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin, catch_exceptions=False)


def fine(*args: object, stdin: str | None = None) -> str:
    """What a command prints that has to end well."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def error_line(*args: object, status: int = 1, stdin: str | None = None) -> str:
    """The one line of a command that has to fail, without its `fastrtp: `."""
    result = run(*args, stdin=stdin)
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.startswith("fastrtp: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("fastrtp: ").rstrip("\n")


def process(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own."""
    command = [sys.executable, "-m", "fastrtp", *(str(arg) for arg in args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload, no-any-return]


def test_help_names_every_command() -> None:
    """`fastrtp --help` has a line for each command of the table."""
    listed = [line.split()[0] for line in fine("--help").partition("Commands:")[2].splitlines() if line.strip()]

    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    """`fastrtp X --help` says what X does."""
    assert fine(command, "--help").startswith(f"Usage: fastrtp {command}")


def test_help_imports_nothing_large() -> None:
    """What it takes is measured by the startup suite of bench/."""
    heavy = ["numba", "llvmlite", "pyarrow", "IPython", "numpy", "rich", "zstandard"]
    code = (
        "import sys\n"
        "from fastrtp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stderr.strip() == "[]"


def test_demo_shows_three_results_and_a_rate() -> None:
    """Histogram, table and matrix, with the numbers that the recording has."""
    out = fine("demo")

    assert "How long tasks waited for a CPU" in out
    assert "16 -     31 us" in out
    assert "System calls by process" in out
    assert "Who gave the CPU to whom" in out
    assert "pong (138) to ping (136), 539 times" in out
    assert f"{EVENTS:,} events in" in out
    assert "events/s; 6 programs ran 40,333 times" in out
    assert "\x1b" not in out


def test_replay_prints_programs_and_tables() -> None:
    """Run counts, and a map's rows by its largest values."""
    out = fine("replay", SWITCHES, RECORDING, "--top", 2)

    assert out.startswith(f"{EVENTS:,} events, {SWITCH_EVENTS:,} with a program, in ")
    assert "on_switch  sched_switch  5,069       0" in out
    assert "switches  (hash, 229 entries)" in out
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("138", "128"))]
    assert rows == [["138", "136", "pong", "ping", "539"], ["128", "125", "pong", "ping", "529"]]
    assert "227 more: --top 0 shows all" in out
    assert "\x1b" not in out


def test_replay_as_json_is_the_whole_result() -> None:
    """Standard output is one JSON value; keys and values are nested as their types are."""
    whole = json.loads(fine("replay", SWITCHES, RECORDING, "--format", "json"))

    assert whole["report"]["events"] == EVENTS
    assert whole["report"]["programs"] == {"on_switch": {"run_cnt": SWITCH_EVENTS, "recursion_misses": 0}}
    assert whole["attached"] == {"on_switch": "sched_switch"}
    items = whole["maps"]["switches"]["items"]
    assert len(items) == 229
    assert sum(item["value"] for item in items) == SWITCH_EVENTS
    assert set(items[0]["key"]) == {"prev_pid", "next_pid", "prev_comm", "next_comm"}


def test_replay_agrees_over_import(tmp_path: Path) -> None:
    """A recording turned into columns gives the same maps; it is not written over anything."""
    said = fine("import", RECORDING, tmp_path / "columns")
    direct, columns = (
        json.loads(fine("replay", RUNQLAT, source, "--format", "json")) for source in (RECORDING, tmp_path / "columns")
    )

    assert said.startswith(f"{EVENTS:,} events of 37 kinds read in ")
    assert direct["maps"] == columns["maps"]
    assert "is no empty folder" in error_line("import", RECORDING, tmp_path / "columns")


def test_replay_as_arrow_keeps_the_types(tmp_path: Path) -> None:
    """A stream with the widths of the BTF; several maps go to a folder, a stream for each."""
    import pyarrow as pa

    fine("replay", SWITCHES, RECORDING, "--format", "arrow", "-o", tmp_path / "switches.arrows")
    fine("replay", RUNQLAT, RECORDING, "--format", "arrow", "-o", tmp_path / "maps")
    with pa.ipc.open_stream(tmp_path / "switches.arrows") as stream:
        table = stream.read_all()

    assert table.schema.names == ["prev_pid", "next_pid", "prev_comm", "next_comm", "value"]
    assert [str(kind) for kind in table.schema.types] == ["uint32", "uint32", "string", "string", "uint64"]
    assert table.num_rows == 229
    assert sum(table["value"].to_pylist()) == SWITCH_EVENTS
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["enqueued.arrows", "runqlat.arrows"]


def test_replay_writes_an_arrow_stream_to_a_pipe() -> None:
    """Only the stream is on standard output; the summary is on standard error."""
    import pyarrow as pa

    options = ["--format", "arrow", "--map", "runqlat", "--top", "3"]
    command = [sys.executable, "-m", "fastrtp", "replay", RUNQLAT, RECORDING, *options]
    ended = subprocess.run(command, capture_output=True, check=True)
    table = pa.ipc.open_stream(io.BytesIO(ended.stdout)).read_all()

    assert table["key"].to_pylist() == [125, 128, 138]
    assert len(table["slots"][0].as_py()) == 32
    assert ended.stderr.decode().startswith(f"fastrtp: {EVENTS:,} events, ")


def test_replay_shows_only_the_maps_asked_for() -> None:
    """--map, several times."""
    both = json.loads(fine("replay", ELF / "maps.bpf.o", RECORDING, "--format", "json", "--map", "ring", "--map", "slots"))

    assert set(both["maps"]) == {"ring", "slots"}
    assert "no map 'nope', there are: switches" in error_line("replay", SWITCHES, RECORDING, "--map", "nope")


def test_replay_counts_and_decodes_ring_records() -> None:
    """Rings are emptied while the replay runs, so that even one of a page loses nothing."""
    whole = json.loads(fine("replay", ELF / "maps.bpf.o", RECORDING, "--format", "json", "--map", "ring", "--map", "perf"))
    text = fine("replay", ELF / "maps.bpf.o", RECORDING, "--map", "ring", "--top", "1")

    assert len(whole["maps"]["ring"]["records"]) == SWITCH_EVENTS
    assert whole["maps"]["ring"]["lost"] == 0
    assert len(whole["maps"]["perf"]["records"]) == SWITCH_EVENTS
    assert f"ring  (ringbuf, {SWITCH_EVENTS:,} records)" in text


def test_replay_writes_text_to_a_file(tmp_path: Path) -> None:
    """--output with the table format."""
    assert fine("replay", SWITCHES, RECORDING, "-o", tmp_path / "out.txt") == ""

    assert "switches  (hash, 229 entries)" in (tmp_path / "out.txt").read_text()


def test_replay_ends_early_on_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results so far, then what was detached, and the status of an interrupted command."""
    from fastrtp.cli.terminal import Bar

    pressed = []

    def press(bar: Bar, done: int, total: int, name: str = "") -> None:
        if total == EVENTS and not pressed:
            pressed.append(done)
            raise KeyboardInterrupt

    monkeypatch.setattr(Bar, "__call__", press)
    result = run("replay", SWITCHES, RECORDING)

    assert result.exit_code == 130
    assert result.stdout.startswith(f"{pressed[0]:,} events")
    assert result.stderr == (
        f"fastrtp: interrupted after {pressed[0]:,} of {EVENTS:,} events; detached on_switch from sched_switch\n"
    )


def test_ctrl_c_before_the_replay_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the recording is read."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastrtp.record.Recording.open", press)

    assert run("info", RECORDING).stderr.strip() == "fastrtp: interrupted"
    assert run("info", RECORDING).exit_code == 130


def test_info_summarises() -> None:
    """For people and for programs."""
    text, whole = fine("info", RECORDING, "--top", 2), json.loads(fine("info", RECORDING, "--format", "json"))

    assert f"{EVENTS:,} events in 2.39 s" in text
    assert "raw_syscalls:sys_enter  13,654  20.6 %" in text
    assert "35 more: --top 0 shows all" in text
    assert whole["events"] == EVENTS
    assert whole["by_name"]["sched:sched_switch"] == SWITCH_EVENTS
    assert whole["cpus"] == 2


def test_list_prints_prototypes() -> None:
    """C prototypes, without the probe's own argument."""
    assert fine("list", "sched_switch") == ("void sched_switch(bool, struct task_struct *, struct task_struct *, unsigned int)\n")
    assert len(fine("list").splitlines()) == 693
    rows = json.loads(fine("list", "sched_sw*", "--format", "json"))
    assert [row["name"] for row in rows] == ["sched_swap_numa", "sched_switch"]
    assert [arg["size"] for arg in rows[1]["args"]] == [1, 8, 8, 4]


def test_list_says_when_nothing_matches() -> None:
    """One line, status 1; as JSON an empty list besides."""
    assert error_line("list", "zz*") == "no tracepoint matches 'zz*': the kernel has 693"
    assert json.loads(run("list", "zz*", "--format", "json").stdout) == []


def test_verify_prints_a_row_for_each_program() -> None:
    """Verdict, instructions, states, time."""
    rows = {line.split()[0]: line.split() for line in fine("verify", RUNQLAT).splitlines()}

    assert rows["program"] == ["program", "section", "verdict", "insns", "processed", "states", "peak", "time"]
    assert rows["on_wakeup"][1:5] == ["raw_tp/sched_wakeup", "accepted", "22", "22"]
    assert rows["on_switch"][2] == "accepted"


def test_verify_fails_when_a_program_is_rejected() -> None:
    """Status 1, the kernel's message in the reader's words, the log on request; JSON is valid."""
    result = run("verify", ELF / "core.bpf.o")
    logged = run("verify", ELF / "core.bpf.o", "unguarded", "--log-level", 2)
    whole = json.loads(run("verify", ELF / "core.bpf.o", "--format", "json").stdout)

    assert result.exit_code == logged.exit_code == 1
    assert "unguarded: " in result.stdout
    assert "not_there" in result.stdout
    assert "processed 1 insns (limit 1000000)" in logged.stdout
    verdicts = {row["program"]: row["verdict"] for row in whole["programs"]}
    assert verdicts["unguarded"] == "rejected"
    assert verdicts["fields"] == "accepted"


def test_verify_with_a_tail_call_table_and_skipped_programs() -> None:
    """Programs are looked at one by one; those of other kinds are named with the reason."""
    assert fine("verify", ELF / "maps.bpf.o").count("accepted") == 2
    result = run("verify", ELF / "sections.bpf.o")
    assert "on_kprobe: not verified: section 'kprobe/do_nanosleep'" in result.stdout


@pytest.mark.parametrize("form", [(), ("--format", "json"), ("--format", "csv"), ("--filter", "verdict=accepted")])
def test_verify_fails_when_a_program_was_not_verified(form: tuple[str, ...]) -> None:
    """Status 1, however it is written; rows say which and why; a program that is asked for by name is its own affair."""
    result = run("verify", ELF / "sections.bpf.o", *form)
    accepted = next(row for row in json.loads(run("verify", ELF / "sections.bpf.o", "--format", "json").stdout)["programs"]
                    if row["verdict"] == "accepted")  # fmt: skip

    assert result.exit_code == 1
    if "json" in form:
        rows = {row["program"]: row for row in json.loads(result.stdout)["programs"]}
        assert rows["on_kprobe"]["verdict"] == "not verified"
        assert "kprobe/do_nanosleep" in rows["on_kprobe"]["message"]
    elif "csv" in form:
        rows = {row["program"]: row for row in csv.DictReader(io.StringIO(result.stdout))}
        assert rows["on_kprobe"]["verdict"] == "not verified"
        assert "kprobe/do_nanosleep" in rows["on_kprobe"]["message"]
    assert run("verify", ELF / "sections.bpf.o", accepted["program"]).exit_code == 0


def test_programs_that_a_command_leaves_out_are_named() -> None:
    """On standard error, with the reason."""
    for command in (("dump", ELF / "sections.bpf.o"), ("prog", "-o", ELF / "sections.bpf.o", "show")):
        result = run(*command)

        assert "on_kprobe: not " in result.stderr
        assert "kprobe/do_nanosleep" in result.stderr
        assert "on_kprobe" not in result.stdout


def test_verify_several_objects_sorted_and_filtered() -> None:
    """A column names the file; rows in the order asked for, only those asked for; the same as CSV."""
    objects = (RUNQLAT, SWITCHES, SYSCOUNT)
    lines = fine("verify", *objects, "--sort", "-processed").splitlines()
    at = lines[0].split().index("processed")
    processed = [int(line.split()[at].replace(",", "")) for line in lines[1:]]
    rows = list(csv.DictReader(io.StringIO(fine("verify", *objects, "--filter", "processed<30", "--format", "csv"))))

    assert lines[0].split()[:2] == ["file", "program"]
    assert processed == sorted(processed, reverse=True)
    assert 0 < len(rows) < len(processed)
    assert all(int(row["processed"]) < 30 and row["verdict"] == "accepted" for row in rows)
    assert len(fine("verify", *objects, "on_enter").splitlines()) == 2
    assert len(fine("verify", *objects, "--filter", "file=runq*", "--filter", "on_w*").splitlines()) == 3


def test_verify_beside_an_earlier_run(tmp_path: Path) -> None:
    """Changes of verdicts and numbers; programs of one run only."""
    old = tmp_path / "old.json"
    whole = json.loads(fine("verify", RUNQLAT, "--format", "json"))
    whole["programs"][0]["processed"] *= 2
    whole["programs"][1]["verdict"] = "rejected"
    del whole["programs"][2]
    old.write_text(json.dumps(whole))
    rows = {row["program"]: row for row in json.loads(fine("verify", RUNQLAT, "--compare", old, "--format", "json"))["programs"]}
    table = fine("verify", RUNQLAT, "--compare", old)

    names = [row["program"] for row in whole["programs"]]
    assert rows[names[0]]["processed_change"] == -rows[names[0]]["processed"]
    assert (rows[names[1]]["verdict_old"], rows[names[1]]["verdict"]) == ("rejected", "accepted")
    assert [row["verdict_old"] for row in rows.values()].count(None) == 1
    assert "(-50.0 %)" in table
    assert "missing" in table
    assert fine("verify", RUNQLAT, "--compare", old, "--format", "csv").startswith("file,program,verdict_old,verdict,processed_")


def test_verify_bad_options(tmp_path: Path) -> None:
    """What no column, number or earlier run is."""
    wrong = tmp_path / "wrong.json"
    wrong.write_text("[]")
    for options in (("--sort", "colour"), ("--filter", "processed>many"), ("--filter", "program<a"), ("--compare", wrong)):
        assert run("verify", RUNQLAT, *options).exit_code == 2
    assert error_line("verify", RUNQLAT, SWITCHES, "nothing_of_the_kind").startswith("no program 'nothing_of_the_kind'")


def test_dump_shows_instructions_llvm_and_native() -> None:
    """Three views of one program."""
    insns = fine("dump", SYSCOUNT, "on_enter")

    assert insns.startswith("on_enter: ; raw_tp/sys_enter\n0: (85) call bpf_get_current_pid_tgid#14\n")
    assert "; map entered" in insns
    assert "define" in fine("dump", SYSCOUNT, "on_enter", "--what", "llvm")
    assert "bpf_prog:" in fine("dump", SYSCOUNT, "on_enter", "--what", "native")
    assert "callee_program:\n7:" in fine("dump", ELF / "subprogs.bpf.o", "calls_program")
    assert "no program 'nope', there are: on_enter, on_exit" in error_line("dump", SYSCOUNT, "nope")


def test_conformance_is_the_plugin_protocol() -> None:
    """Instructions in hex on standard input, memory in hex as the argument, r0 in hex on standard output."""
    load_and_exit = "7110000000000000" + "9500000000000000"

    assert fine("conformance", "2a", stdin=load_and_exit) == "2a\n"
    assert fine("conformance", stdin="b7 00 00 00 ff ff ff ff 95 00 00 00 00 00 00 00\n") == "ffffffffffffffff\n"
    assert error_line("conformance", "zz", stdin=load_and_exit).startswith("memory: ")
    assert "instructions" in error_line("conformance", stdin="xyz")


def test_warmup_says_what_is_ready_and_where() -> None:
    """The folder has the library afterwards."""
    lines = fine("warmup").splitlines()

    assert lines[0] == "native library was there already" or lines[0].startswith("native library ready after ")
    assert list(Path(lines[-1].removeprefix("kept in ")).glob("native-*.o"))


def test_warmup_for_programs() -> None:
    """Seconds by what was made."""
    found = json.loads(fine("warmup", "--format", "json"))

    assert list(found["seconds"]) == ["native library", "kernel's types", "shipped programs"]


def test_python_m_fastrtp_is_the_command() -> None:
    """And says its version."""
    ended = process("--version")

    assert ended.stdout.strip() == f"fastrtp, version {fastrtp.__version__}"


def test_usage_errors_are_one_line_too() -> None:
    """Status 2, and where help is."""
    assert error_line("nocommand", status=2) == "no such command 'nocommand' (see fastrtp --help)"
    assert error_line("replay", RUNQLAT, status=2) == "missing argument 'RECORDING' (see fastrtp replay --help)"
    assert "--record takes MAP=STRUCT" in error_line("replay", RUNQLAT, RECORDING, "--record", "x", status=2)
    assert "choose with --map one of enqueued, runqlat" in error_line("replay", RUNQLAT, RECORDING, "--format", "arrow", status=2)
    assert run().exit_code == 2


def hostile(folder: Path) -> dict[str, Path]:
    """Files that are not what they should be."""
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("hello\n")
    (folder / "folder").mkdir()
    (folder / "short.trace.dat").write_bytes(RECORDING.read_bytes()[:20_000])
    (folder / "short.bpf.o").write_bytes(RUNQLAT.read_bytes()[:3_000])
    return {path.name: path for path in folder.iterdir()} | {"missing": folder / "missing"}


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "text", "short.bpf.o"])
@pytest.mark.parametrize("command", ["replay", "verify", "dump"])
def test_hostile_objects_end_in_one_line_with_the_path(tmp_path: Path, command: str, name: str) -> None:
    """Not there, a folder, empty, no ELF, cut off."""
    path = hostile(tmp_path)[name]

    line = error_line(command, path, *([RECORDING] if command == "replay" else []))

    assert str(path) in line


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "text", "short.trace.dat"])
@pytest.mark.parametrize("command", ["replay", "info", "import"])
def test_hostile_recordings_end_in_one_line_with_the_path(tmp_path: Path, command: str, name: str) -> None:
    """Not there, an empty folder, empty, no recording, cut off."""
    path = hostile(tmp_path)[name]
    args = {"replay": (RUNQLAT, path), "info": (path,), "import": (path, tmp_path / "out")}[command]

    assert str(path) in error_line(command, *args)
    assert not (tmp_path / "out").exists()


def test_no_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The same through the real entry point."""
    ended = process("replay", RUNQLAT, tmp_path / "nope")

    assert ended.returncode == 1
    assert ended.stderr == f"fastrtp: {tmp_path / 'nope'}: no such file or directory\n"


def test_control_characters_of_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A file name with an escape sequence is printed, not obeyed."""
    assert "\x1b" not in error_line("info", tmp_path / "a\x1b[31mb")


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`fastrtp list | head -1`."""
    command = [sys.executable, "-m", "fastrtp", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()
        said = started.stderr.read()

    assert said == ""


def test_a_bar_appears_for_work_of_more_than_a_second() -> None:
    """On a terminal; with the rate. Not for less, and not into a file."""
    code = (
        "import sys, time\nfrom fastrtp.cli.terminal import Bar\n"
        "with Bar('reading x', 'events', patience=float(sys.argv[1])) as bar:\n"
        "    for done in range(20):\n        bar(done * 1_000_000, 20_000_000); time.sleep(0.02)\n"
    )

    def seen(patience: str) -> str:
        leader, follower = pty.openpty()
        ended = subprocess.run([sys.executable, "-c", code, patience], stderr=follower, stdout=follower, timeout=60, check=True)
        os.close(follower)
        out = b""
        try:
            while chunk := os.read(leader, 1 << 16):
                out += chunk
        except OSError:
            pass
        os.close(leader)
        assert ended.returncode == 0
        return out.decode()

    assert "reading x" in seen("0.1")
    assert "M events/s" in seen("0.1")
    assert seen("60") == ""
    assert subprocess.run([sys.executable, "-c", code, "0"], capture_output=True, check=True).stderr == b""
