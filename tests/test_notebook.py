"""The notebook layer: HTML of objects, data frames, pictures, progress; and the notebook itself, executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fastrtp
from fastrtp import notebook
from fastrtp.errors import VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.object import BpfObject
from fastrtp.record import Recording
from fastrtp.replay import ReplayReport, replay

RECORDING = Path(fastrtp.__file__).parent / "record/data/churn.trace.dat"
OUTPUTS = Path(__file__).parent / "data/cli/outputs.bpf.o"
GLOBAL = Path(__file__).parent / "data/verifier/global/funcs.bpf.o"
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SWITCHES = 5_069


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.open(RECORDING)


@pytest.fixture(scope="module")
def played(recording: Recording) -> Iterator[tuple[Kernel, BpfObject, ReplayReport]]:
    """A kernel, an object, and the report of its replay."""
    with Kernel(cpus=2) as kernel:
        loaded = kernel.load(OUTPUTS)
        with loaded.attach():
            report = replay(kernel, recording)
        yield kernel, loaded, report


def test_a_refusal_folds_by_source_line() -> None:
    """The report, and a fold for each line of C that the path came to; the last is open, and everything is escaped."""
    with Kernel(cpus=2) as kernel, pytest.raises(VerifierError) as caught:
        kernel.load(GLOBAL, autoload={"null_check_in_the_function"})
    shown = notebook.refusal_html(caught.value)
    fold = r"<details( open)?><summary><code>(.*?)</code> \((\d+)\)</summary><pre>(.*?)</pre></details>"
    folds = re.findall(fold, shown, re.DOTALL)

    assert "hint: the pointer may be NULL" in shown
    assert [title.split(":")[0] for _, title, *_ in folds] == ["log", "funcs.bpf.c"]
    assert [bool(unfolded) for unfolded, *_ in folds] == [False, True]
    assert "return pair-&gt;a;" in folds[1][1]
    assert "8: (79) r0 = *(u64 *)(r1 +0)\nR1 invalid mem access &#x27;mem_or_null&#x27;" in folds[1][3]


def test_an_accepted_program_and_a_log_without_source_lines() -> None:
    """Numbers and functions; folds by branch where there is no line info."""
    text = "r0 = *(u64 *)(r1 +0)\nif r0 == 0 goto out\nr0 = 1\nout:\nexit"
    with Kernel(cpus=2) as kernel:
        fd = kernel.prog_load(17, encode(assemble(text)), log_level=2)
        shown = notebook.verified_html(kernel.current.files.fget(fd).private_data.verified)

    assert shown.count("<table>") == 2
    assert len(re.findall("<details>", shown)) == 2
    assert "<summary><code>from 1 to 3: R0=0" in shown


def test_an_uncaught_refusal_in_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    """IPython shows its HTML after the traceback."""
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    shell = interactive.InteractiveShell()
    shown: list[Any] = []
    shell.display_pub.publish = lambda data, **_: shown.append(data)
    notebook.load_ipython_extension(shell)
    shell.run_cell("from fastrtp.errors import VerifierError\nraise VerifierError(22, 'no good', log='R0 !read_ok\\n')")
    notebook.unload_ipython_extension(shell)

    assert "no good" in capsys.readouterr().out
    assert any("R0 !read_ok" in data.get("text/html", "") for data in shown)


def test_the_extension_shows_everything_as_html(played: tuple[Kernel, BpfObject, ReplayReport], recording: Recording) -> None:
    """IPython finds the tables by itself, with the extension or without."""
    interactive = pytest.importorskip("IPython.core.interactiveshell")
    kernel, loaded, report = played
    shell = interactive.InteractiveShell()
    shown: dict[str, Any] = {
        "5,069 with a program": report,
        "raw_tp/sched_switch": loaded,
        "kinds (percpu_hash): 2 entries": loaded.maps["kinds"],
        "few (array): 16 entries": loaded.maps["few"].map,
        "events (ringbuf, 4,096)": loaded.maps["events"],
        "sched:sched_switch": recording,
        "sched_switch: 0 probes": kernel.tracepoints["sched_switch"],
    }

    html = {text: shell.display_formatter.format(thing)[0].get("text/html", "") for text, thing in shown.items()}
    plain = shell.display_formatter.format(recording)[0]["text/plain"]
    notebook.load_ipython_extension(shell)
    again = {text: shell.display_formatter.format(thing)[0].get("text/html", "") for text, thing in shown.items()}
    notebook.unload_ipython_extension(shell)

    assert again == html
    assert {text: text in found for text, found in html.items()} == dict.fromkeys(shown, True)
    assert plain == "<Recording 66,152 events of 37 kinds, 2 cpus>"


def test_a_map_is_a_data_frame(played: tuple[Kernel, BpfObject, ReplayReport]) -> None:
    """The columns of the map's table with the widths of C."""
    pytest.importorskip("pandas")
    _, loaded, _ = played

    frame = notebook.frame(loaded.maps["kinds"])

    assert frame["switches"].sum() == SWITCHES
    assert str(frame["nested.minus"].dtype) == "int32"
    assert set(frame["key"]) == {"VOLUNTARY", "PREEMPTED"}


def test_events_are_a_data_frame(recording: Recording) -> None:
    """One kind, by time; texts are str."""
    pytest.importorskip("pandas")

    frame = notebook.events(recording, "sched_switch")

    assert len(frame) == SWITCHES
    assert frame.index[0] == 7_576_581_993
    assert frame.index.is_monotonic_increasing
    assert list(frame.columns[:4]) == ["cpu", "pid", "prev_comm", "prev_pid"]
    assert (frame["pid"] == frame["prev_pid"]).all()
    assert frame["prev_comm"].iloc[0] == "swapper/0"
    with pytest.raises(KeyError):
        notebook.events(recording, "no_such_event")


def test_a_histogram_is_a_picture() -> None:
    """A bar for each slot between the first and the last that is used."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")

    axes = notebook.plot_log2(notebook.add_slots([[0, 0, 2, 0, 1], [0, 1, 0, 0, 0]]), unit="ms", title="waits")

    assert [bar.get_height() for bar in axes.patches] == [1, 2, 0, 1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8", "16"]
    assert axes.get_title() == "waits"
    assert len(notebook.plot_log2([0, 0]).patches) == 0


def test_html_is_escaped() -> None:
    """Names out of a recording are text."""
    html = notebook.table_html(["<b>"], [["<script>alert(1)</script>"], [b"\x01"], [[0] * 7 + [3]]], "a<b")

    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "a&lt;b" in html
    assert "<svg" in html


def test_progress_appears_after_a_while_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing for short work; then a bar with a rate, removed at the end."""
    display = pytest.importorskip("IPython.display")
    painted: list[str] = []
    now = [100.0]

    class Handle:
        def update(self, shown: Any) -> None:
            painted.append(shown.data)

    def show(shown: Any, display_id: bool) -> Handle:
        painted.append(shown.data)
        return Handle()

    monkeypatch.setattr(display, "display", show)
    monkeypatch.setattr("fastrtp.notebook.time.monotonic", lambda: now[0])
    with notebook.Progress("replaying <x>") as progress:
        progress(1, 10)
        assert painted == []
        now[0] += 2
        progress(4, 10)
        progress(5, 10)

    assert len(painted) == 2
    assert "replaying &lt;x&gt; <progress value='4' max='10'></progress> 4 of 10, 2 events/s" in painted[0]
    assert painted[1] == ""


def test_replay_with_progress_gives_the_report(played: tuple[Kernel, BpfObject, ReplayReport], recording: Recording) -> None:
    """The same numbers as without."""
    kernel, _, report = played

    again = notebook.replay(kernel, recording)

    assert again.events == report.events
    assert not again.interrupted


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_run_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And their kept text output is what they print. Measurements are short, and say nothing."""
    monkeypatch.setenv("FASTRTP_BENCH_SECONDS", "0.01")
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    kept = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)

    nbclient.NotebookClient(fresh, timeout=120, kernel_name="python3").execute()

    assert any("image/png" in output.get("data", {}) for cell in fresh.cells for output in cell.get("outputs", []))
    assert [_stable(cell) for cell in fresh.cells] == [_stable(cell) for cell in kept.cells]


def _stable(cell: Any) -> list[str]:
    """A cell's text output that does not depend on the machine: no times, no addresses, no pictures."""
    texts = [str(output.get("data", {}).get("text/plain", output.get("text", ""))) for output in cell.get("outputs", [])]
    return [text for text in texts if not any(mark in text for mark in ("events/s", "<Figure", "display.HTML object"))]
