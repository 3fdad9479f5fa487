"""The benchmarks are right before they are fast: same results as the reference interpreter, and suites that asv can list."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from interpreter import run as interpret

import fastrtp

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench import jit, native  # noqa: E402
from bench.__main__ import main  # noqa: E402
from bench.cases import Case, Row, Suite  # noqa: E402
from bench.children import importing_bench, python  # noqa: E402
from bench.load import STAGES, StageClock, empty_cache, load_once  # noqa: E402
from bench.machine import Machine, machine  # noqa: E402
from bench.measure import best_ns  # noqa: E402
from bench.report import changes, left_out, markdown  # noqa: E402
from bench.results import Document, ResultsError, geomean  # noqa: E402
from bench.sources import objects  # noqa: E402
from bench.suites import measure, suites, titles  # noqa: E402

_LENGTH = 192


@pytest.mark.parametrize("name", jit.programs())
def test_program_gives_what_the_reference_interpreter_gives(name: str) -> None:
    """On a short memory, through the JIT without the verifier."""
    import fastrtp.jit
    from fastrtp.isa import encode

    insns = jit.programs()[name].insns
    memory = jit.memory_for(name)[:_LENGTH]

    expected = interpret(insns, memory)

    assert fastrtp.jit.run(encode(insns), memory) == expected


@pytest.mark.parametrize("name", ["alu64", "dense_switch", "histogram", "siphash", "calls_with_stack"])
def test_program_gives_what_native_code_gives(name: str) -> None:
    """The pair checks the two results against each other; skipped without a C compiler."""
    try:
        pair = jit.Pair(name)
    except NotImplementedError as reason:
        pytest.skip(str(reason))

    assert pair.subject(1) == pair.baseline(1)


def test_a_suite_class_is_listed_once_and_under_its_title() -> None:
    """No module of a suite is forgotten in the table."""
    modules = {path.stem for path in (ROOT / "bench").glob("*.py") if "(Suite)" in path.read_text()}

    assert list(suites()) == titles()
    assert {suite.__module__.removeprefix("bench.") for suite in suites().values()} == modules


def test_every_suite_lists_to_asv_what_it_measures() -> None:
    for title, suite in suites().items():
        cases = list(suite.cases())

        assert suite.title == title
        assert list(suite.params) == [case.name for case in cases]  # type: ignore[attr-defined]
        assert all(case.unit for case in cases)


def test_every_track_method_has_docstring_and_unit() -> None:
    methods = [getattr(suite, name) for suite in suites().values() for name in dir(suite) if name.startswith(("track_", "time_"))]

    assert len(methods) >= len(suites())
    assert all(method.__doc__ and method.unit for method in methods)


def test_asv_finds_the_suites_where_the_configuration_says() -> None:
    config = json.loads((ROOT / "asv.conf.json").read_text())

    assert (ROOT / config["benchmark_dir"] / "transition.py").is_file()


def test_measured_processes_have_the_package_that_runs_here_and_not_the_folder_beside_bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asv installs each version that it measures; the checkout has the newest."""
    other = tmp_path / "fastrtp"
    other.mkdir()
    (other / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    found = python(["-c", importing_bench("import fastrtp, bench; print(fastrtp.__file__, bench.__file__)")]).stdout.split()

    assert found == [str(Path(fastrtp.__file__).resolve()), str(ROOT / "bench/__init__.py")]
    with pytest.raises(RuntimeError, match="ValueError: no"):
        python(["-c", "raise ValueError('no')"])


def test_best_round_of_a_longer_sleep_is_longer() -> None:
    def sleeps(seconds: float) -> Any:
        return lambda count: [time.sleep(seconds) for _ in range(count)]

    best = best_ns({"short": sleeps(1e-4), "long": sleeps(1e-3)}, 0.05, rounds=3)

    assert best["long"] > 2 * best["short"] > 0


def test_a_suite_keeps_what_failed_and_what_cannot_be() -> None:
    def absent() -> tuple[float, float | None]:
        raise NotImplementedError

    def broken() -> tuple[float, float | None]:
        raise ValueError("no")

    class Three(Suite):
        title = "three"

        @classmethod
        def cases(cls) -> list[Case]:
            return [
                Case("good", "ns", "", lambda: (6.0, 3.0)),
                Case("absent", "ns", "", absent),
                Case("broken", "ns", "", broken),
            ]

    results = Three.results()
    suite = Three()
    suite.setup(results, "good")

    assert suite.ratio() == 2.0
    with pytest.raises(NotImplementedError):
        suite.setup(results, "absent")
    with pytest.raises(RuntimeError, match="ValueError: no"):
        suite.setup(results, "broken")


def test_geomean_of_ratios() -> None:
    rows = [Row("s", "a", "ns", 8.0, "b", 2.0), Row("s", "b", "ns", 1.0, "b", 1.0), Row("s", "c", "ns", 1.0)]

    assert geomean(rows) == pytest.approx(2.0)
    assert rows[2].ratio is None


def test_every_program_of_the_transition_suite_runs_once_per_event() -> None:
    here = machine()
    for name, program in here.obj.programs.items():
        before = program.run_cnt
        with here.attached([name]):
            here.fire(100, 64)
        assert program.run_cnt == before + 100, name


def test_counting_programs_count_every_event() -> None:
    here = Machine()
    for name, held in (("hash_count", "hash_1k"), ("array_count", "array"), ("lru_count", "lru_1k")):
        with here.attached([name]):
            here.fire(1000, 50)
        assert sum(value for _, value in here.obj.maps[held].items()) == 1000, name


def test_recursion_guard_turns_away_what_is_running() -> None:
    here = machine()
    program = here.obj.programs["guarded"]
    runs, misses = program.run_cnt, program.recursion_misses
    with here.attached(["guarded"]), here.running(["guarded"]):
        here.fire(10, 64)

    assert (program.run_cnt, program.recursion_misses) == (runs, misses + 10)


def test_the_stages_of_a_load_add_up() -> None:
    from fastrtp.kernel import Kernel

    with Kernel() as kernel, empty_cache():
        seconds = load_once(kernel, objects()["switches"])

    assert [stage for stage in STAGES if seconds[stage] <= 0] == []
    assert sum(seconds[stage] for stage in (*STAGES, "rest")) == pytest.approx(seconds["total"])


def test_the_stage_clock_leaves_nothing_behind() -> None:
    from fastrtp.verifier.cache import VerifiedCache

    before = VerifiedCache.bpf_check
    with StageClock():
        assert VerifiedCache.bpf_check is not before

    assert VerifiedCache.bpf_check is before


def test_the_table_is_printed_and_written_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTRTP_BENCH_SECONDS", "0.01")
    target = tmp_path / "rows.json"

    status = main(["live", "--json", str(target)])

    document = json.loads(target.read_text())
    assert status == 0
    assert document["failed"] == []
    assert {row["name"] for row in document["rows"]} == {"njit_disabled", "njit_enabled", "python_disabled", "python_enabled"}
    assert all(row["ratio"] > 0 for row in document["rows"])
    assert "njit_disabled" in capsys.readouterr().out

    assert main(["report", str(target)]) == 0
    assert "njit_disabled" in capsys.readouterr().out
    assert main(["report", str(target), "--compare", str(target), "--strict"]) == 0
    assert "4 cases in both: 0 worse, 0 better" in capsys.readouterr().out


def _document(*rows: Row) -> Document:
    return Document(list(rows), ["s"], {"cpu": "c"}, ["s x: no"], ["s y: ValueError: no"])


def test_results_are_the_same_after_a_file(tmp_path: Path) -> None:
    written = _document(Row("s", "a", "ns", 8.0, "b", 2.0), Row("s", "c", "ns", 1.0))

    written.write(tmp_path / "r.json")

    assert Document.read(tmp_path / "r.json") == written
    assert written.geomeans() == {"s": pytest.approx(4.0)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "rows": [{"suite": 1}]}', "\x00"])
def test_what_is_no_document_of_results_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)

    with pytest.raises(ResultsError, match=r"r\.json"):
        Document.read(tmp_path / "r.json")
    with pytest.raises(SystemExit):
        main(["report", str(tmp_path / "r.json")])


def test_ratios_are_compared_and_rates_are_better_when_they_grow() -> None:
    before = _document(
        Row("s", "ratio", "ns", 10.0, "b", 10.0),
        Row("s", "value", "bytes", 100.0),
        Row("s", "rate", "k insns/s", 10.0),
        Row("s", "gone", "ns", 1.0),
        Row("s", "other unit", "ns", 1.0),
    )
    after = _document(
        Row("s", "ratio", "ns", 90.0, "b", 30.0),
        Row("s", "value", "bytes", 50.0),
        Row("s", "rate", "k insns/s", 20.0),
        Row("s", "new", "ns", 1.0),
        Row("s", "other unit", "us", 1.0),
    )

    found = {change.row.name: (change.factor, change.verdict(1.2)) for change in changes(before, after)}

    assert found == {"ratio": (3.0, "slower"), "value": (0.5, "better"), "rate": (0.5, "faster")}


def test_strict_comparison_fails_when_something_is_slower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _document(Row("s", "a", "ns", 8.0, "b", 2.0)).write(tmp_path / "new.json")
    _document(Row("s", "a", "ns", 2.0, "b", 2.0)).write(tmp_path / "old.json")
    arguments = ["report", str(tmp_path / "new.json"), "--compare", str(tmp_path / "old.json")]

    assert main(arguments) == 0
    assert main([*arguments, "--strict", "--markdown"]) == 1
    assert "| s | a | 1.00 | 4.00 | ratio to b | 4.00x | slower |" in capsys.readouterr().out


def test_reasons_for_what_is_left_out_are_given_once() -> None:
    document = Document([], left_out=["jit a: no compiler", "jit b: no compiler", "memory c: no /proc"])

    assert left_out(document) == ["jit a and 1 more: no compiler", "memory c: no /proc"]


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert markdown(("suite", "value"), iter([("a|b", "1")])).splitlines() == [
        "| suite | value |", "| --- | ---: |", "| a\\|b | 1 |"
    ]  # fmt: skip


def test_cases_are_chosen_by_pattern(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FASTRTP_BENCH_SECONDS", "0.01")

    found = measure(["live:njit_*", "live:python_disabled"])

    assert [row.name for row in found.rows] == ["njit_disabled", "njit_enabled", "python_disabled"]
    with pytest.raises(SystemExit):
        main(["live:nothing"])
    assert "no case matches live:nothing" in capsys.readouterr().err


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["nonsense"])

    assert "no suite 'nonsense'" in capsys.readouterr().err


def test_without_a_compiler_the_baseline_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compilers", dict)

    assert native.baseline_name() == "none"
    with pytest.raises(NotImplementedError):
        native.compiler()
