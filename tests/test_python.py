"""The package as Python has it: names, signatures, maps that are mappings, what is shown, what is said, and every example."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fastrtp
import fastrtp as rtp
from fastrtp.cc import compile_source
from fastrtp.errors import BpfError, BtfError, CompilerError, ObjectError, ReplayError, VerifierError
from fastrtp.kernel.loader.object import BpfObject
from fastrtp.notebook import _FORMATTERS
from fastrtp.replay import replay

PACKAGE = Path(fastrtp.__file__).parent
RECORDING = PACKAGE / "record/data/churn.trace.dat"
MAPS = Path(__file__).parent / "data/cc/maps.bpf.c"
SWITCHES = 5069


@pytest.fixture(scope="module")
def kernel() -> Iterator[rtp.Kernel]:
    """A kernel of two CPUs."""
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def obj(kernel: rtp.Kernel) -> Iterator[BpfObject]:
    """The object with a map of each shape."""
    try:
        data = compile_source(MAPS).data
    except CompilerError:
        pytest.skip("neither clang nor ziglang")
    with kernel.load(data, name="maps") as obj:
        yield obj


@pytest.fixture
def played(kernel: rtp.Kernel, obj: BpfObject) -> BpfObject:
    """The same, after a replay: its rings have what that wrote."""
    for ring in ("events", "odd", "places", "samples"):
        list(obj.maps[ring].consume())
    with obj.attach():
        kernel.replay(RECORDING)
    return obj


# names and signatures


def test_dir_and_help_show_what_there_is() -> None:
    """Also what is imported only when it is used; in a process that has used nothing."""
    code = "import fastrtp; print(*dir(fastrtp)); import pydoc; print(pydoc.plain(pydoc.render_doc(fastrtp)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, _, text = done.stdout.partition("\n")

    assert set(fastrtp.__all__) <= set(names.split())
    assert not {name for name in names.split() if name.startswith("_") and not name.startswith("__")}
    for name in (
        "class Kernel(",
        "class Recording(",
        "class ReplayReport(",
        "TRACE_EVENT(",
        "replay(self, source",
        "load(self, source",
    ):
        assert name in text


def test_dir_imports_nothing() -> None:
    """It only names."""
    code = "import sys, fastrtp; dir(fastrtp); print('numpy' in sys.modules, 'fastrtp.kernel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"


def test_kernel_replay_has_the_options_of_replay() -> None:
    """Names, defaults and types are those of the function that it is for."""
    method, function = inspect.signature(rtp.Kernel.replay), inspect.signature(replay)

    assert list(method.parameters.values())[1:] == [
        one if one.name != "window" else one.replace(default=1 << 16) for one in list(function.parameters.values())[1:]
    ]
    assert method.return_annotation == function.return_annotation == "ReplayReport"
    with pytest.raises(TypeError, match="misssing"):
        rtp.default_kernel().replay(RECORDING, misssing="zero")  # type: ignore[call-arg]


def test_type_checkers_see_the_options(tmp_path: Path) -> None:
    """A misspelt option, and a value that is none, are errors before anything runs."""
    source = tmp_path / "user.py"
    source.write_text(
        "import fastrtp as rtp\n"
        "kernel = rtp.Kernel()\n"
        "kernel.replay('trace.dat', misssing='zero')\n"
        "kernel.replay('trace.dat', missing='none')\n"
        "reveal_type(kernel.replay('trace.dat').events)\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--no-incremental",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        str(source),
    ]
    out = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, check=False).stdout

    assert 'Unexpected keyword argument "misssing"' in out
    assert 'Argument "missing"' in out
    assert 'Revealed type is "int"' in out.replace("builtins.", "")


# maps as mappings


def test_a_hash_is_a_mapping(obj: BpfObject) -> None:
    """Set, get, ask, count, remove, walk."""
    counts = obj.maps["counts"]
    counts[5] = 1 << 60
    counts[6] = 2

    assert (counts[5], 5 in counts, 7 in counts, len(counts), sorted(counts)) == (1 << 60, True, False, 2, [5, 6])
    assert (counts.get(6), counts.get(7), counts.get(7, -1)) == (2, None, -1)
    assert sorted(counts.keys()) == [5, 6]
    assert sorted(counts.values()) == [2, 1 << 60]
    del counts[5]
    assert dict(counts.items()) == {6: 2}
    with pytest.raises(KeyError):
        counts[5]
    with pytest.raises(KeyError):
        del counts[5]
    del counts[6]


def test_keys_and_values_are_typed(obj: BpfObject) -> None:
    """Structs from dicts and tuples, text, enumerators, signed numbers; bytes as they are."""
    cell = {"color": "GREEN", "name": "grün", "slots": [1, 2, 3, 65535], "inner": {"pid": 9, "cpu": -1}}
    by_place, by_name, numbers = obj.maps["by_place"], obj.maps["by_name"], obj.maps["signed_counts"]
    by_place[{"pid": 3, "cpu": -1}] = cell
    by_place[4, 1] = {"name": "x"}
    by_name["bash"] = True
    numbers[3] = -5

    assert by_place[3, -1] == cell
    assert by_place[b"\3\0\0\0\xff\xff\xff\xff"] == cell
    assert by_place[4, 1] == {"color": "RED", "name": "x", "slots": [0] * 4, "inner": {"pid": 0, "cpu": 0}}
    assert (by_name["bash"], "bash" in by_name, "sh" in by_name) == (True, True, False)
    assert (numbers[3], numbers[0], len(numbers), 64 in numbers) == (-5, 0, 64, False)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("counts", -1, 0, "counts's key is unsigned int|counts's key is __u32"),
        ("counts", 1, 1 << 64, "counts's value is .*: it holds 0 to 18446744073709551615"),
        ("counts", "x", 0, "counts's key"),
        ("by_place", {"pit": 1}, {}, "no member 'pit', there are: pid, cpu"),
        ("by_place", (1, 2, 3), {}, "has the members pid, cpu, not 3"),
        ("by_place", (1, 2), {"color": "BLUE"}, "RED, GREEN, not 'BLUE'"),
        ("by_name", "much too long", True, "do not fit its 8"),
        ("by_cpu", 1, 7, "its values are lists of 2, one for each CPU, not 7"),
        ("by_cpu", 1, [1, 2, 3], "its values are lists of 2"),
    ],
)
def test_what_does_not_fit_is_said(obj: BpfObject, name: str, key: object, value: object, words: str) -> None:
    """The map, the place, the type and what it holds; nothing is stored."""
    before = list(obj.maps[name].raw_items())
    with pytest.raises(ObjectError, match=words):
        obj.maps[name][key] = value
    assert list(obj.maps[name].raw_items()) == before


def test_per_cpu_values_are_lists(obj: BpfObject) -> None:
    """One value for each CPU, in and out."""
    by_cpu, cells = obj.maps["by_cpu"], obj.maps["cells_by_cpu"]
    by_cpu[1] = [10, 1 << 40]
    cells[2] = [{"pid": 1, "cpu": 0}, (2, 1)]

    assert by_cpu[1] == [10, 1 << 40]
    assert cells[2] == [{"pid": 1, "cpu": 0}, {"pid": 2, "cpu": 1}]


def test_a_map_is_true_and_itself(obj: BpfObject) -> None:
    """An empty one is no false one, and two are two."""
    assert obj.maps["counts"]
    assert len({obj.maps["counts"], obj.maps["by_name"]}) == 2


def test_maps_as_arrays(obj: BpfObject) -> None:
    """Every width and struct: what NumPy sees is what decoding one by one gives."""
    by_place = obj.maps["by_place"]
    by_place[8, 2] = {"color": "GREEN", "name": "eight", "slots": [8, 7, 6, 5], "inner": (0, -3)} | {
        "inner": {"pid": 1, "cpu": -3}
    }
    keys, values = by_place.numpy()

    for key, value in zip(keys, values, strict=True):
        known = by_place[int(key["pid"]), int(key["cpu"])]
        assert value["name"].decode() == known["name"]
        assert value["slots"].tolist() == known["slots"]
        assert value["inner"].tolist() == tuple(known["inner"].values())
    assert len(keys) == len(by_place)
    obj.maps["by_cpu"][1] = [10, 20]
    keys, values = obj.maps["by_cpu"].numpy()
    assert (keys.dtype, values.dtype, values.tolist()) == (np.dtype("<u4"), np.dtype("<u8"), [[10, 20]])
    assert obj.maps["cells_by_cpu"].numpy()[1].shape == (64, 2)
    with pytest.raises(BtfError, match="a is a bitfield"):
        obj.maps["bits"].numpy()


def test_frames(obj: BpfObject) -> None:
    """Members are columns, with their widths."""
    pytest.importorskip("pandas")
    obj.maps["by_place"][9, 9] = {"name": "nine"}
    frame = obj.maps["by_place"].frame()
    row = frame[frame["pid"] == 9].iloc[0]

    assert (row["cpu"], row["name"], row["color"]) == (9, "nine", "RED")
    assert frame["pid"].dtype == np.uint32


# rings


def test_a_ring_gives_decoded_records(played: BpfObject) -> None:
    """By the one struct that fits, or by name; consumed."""
    places = list(played.maps["places"].records())
    events = list(played.maps["events"].records("event"))

    assert len(events) == len(places) == SWITCHES
    assert [place["pid"] for place in places] == [event["pid"] for event in events]
    assert set(events[0]) == {"when", "pid", "comm"}
    assert sorted(event["when"] for event in events) == [event["when"] for event in events]
    assert list(played.maps["events"].records("event")) == []


def test_a_ring_as_a_frame(played: BpfObject) -> None:
    """Records of a ring buffer, and the padded samples of perf buffers, are the same rows."""
    pytest.importorskip("pandas")
    frame, samples = played.maps["events"].frame("event"), played.maps["samples"].frame("event")

    assert len(frame) == SWITCHES
    assert frame.equals(samples)
    assert frame["pid"].dtype == np.uint32


def test_records_that_may_be_several_things_are_not_guessed(played: BpfObject) -> None:
    """The error names the candidates, and nothing is consumed."""
    with pytest.raises(ObjectError, match=r"records of 32 bytes may be of several structs: name one of cell, event"):
        played.maps["events"].records()
    assert len(list(played.maps["events"].records("event"))) == SWITCHES
    with pytest.raises(ObjectError, match=r"none of the object's structs has 5 bytes: .*event"):
        played.maps["odd"].records()
    with pytest.raises(ObjectError, match=r"no struct 'evnt', there are: .*event"):
        played.maps["events"].records("evnt")
    with pytest.raises(TypeError, match="only rings have records"):
        played.maps["counts"].records()


# what is shown


def test_reprs_are_short(kernel: rtp.Kernel, obj: BpfObject) -> None:
    """A line that says what it is."""
    with obj.attach() as links:
        report = kernel.replay(RECORDING)
        link = repr(links[0])
    recording = rtp.Recording.open(RECORDING)
    obj.maps["counts"][1] = 1

    assert repr(recording) == "<Recording 66,152 events of 37 kinds, 2 cpus>"
    assert repr(obj) == f"<BpfObject maps: 1 programs, {len(obj.maps)} maps>"
    assert repr(obj.maps["counts"]) == "<ObjectMap counts hash, 1 of 64 entries>"
    assert repr(report).startswith("<ReplayReport 66,152 events, ")
    assert f"runs: on_switch {SWITCHES:,}" in repr(report)
    assert link == "<Link on_switch on sched_switch>"
    for shown in (recording, obj, report, kernel, obj.maps["events"], obj.programs["on_switch"], obj.bss):
        assert len(repr(shown)) < 300
        assert "\n" not in repr(shown)


def test_notebooks_get_tables_without_an_extension(kernel: rtp.Kernel, obj: BpfObject) -> None:
    """Every kind that has a table brings it along, and what it shows is escaped."""
    recording = rtp.Recording.open(RECORDING)
    with obj.attach():
        report = kernel.replay(recording)
    obj.maps["by_name"]["<b>"] = True
    things = [recording, obj, report, obj.maps["by_name"], obj.maps["by_name"].map, kernel.tracepoints["sched_switch"]]
    things.append(obj.programs["on_switch"].prog.verified)
    things.append(rtp.tools.answer("sigsnoop", recording))
    for thing in things:
        assert thing._repr_html_().startswith("<table>")
    assert "&lt;b&gt;" in obj.maps["by_name"]._repr_html_()
    assert "<b>" not in obj.maps["by_name"]._repr_html_()
    for module, name in _FORMATTERS:
        assert hasattr(getattr(importlib.import_module(module), name), "_repr_html_"), name


# what is said


REFUSED = bytes.fromhex("79 12 00 00 00 00 00 00 61 20 10 00 00 00 00 00 79 11 f0 ff 00 00 00 00 95 00 00 00 00 00 00 00")


def test_a_traceback_of_a_refusal_shows_the_report_once(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """The line of the source, the branches, the hint: not only the last line of the log."""
    source = tmp_path / "bad.bpf.c"
    source.write_text(
        '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\nchar LICENSE[] SEC("license") = "GPL";\n'
        'SEC("raw_tp/sched_switch") int bad(__u64 *ctx)\n{\n\treturn *(int *)ctx[1];\n}\n'
    )
    try:
        with pytest.raises(VerifierError) as caught:
            kernel.load(source)
    except CompilerError:
        pytest.skip("neither clang nor ziglang")
    text = "".join(traceback.format_exception(caught.value))

    assert str(caught.value.report) in text
    assert text.count(str(caught.value.report)) == 1
    assert "return *(int *)ctx[1];" in text
    with pytest.raises(VerifierError) as caught:
        kernel.prog_load(17, REFUSED)
    assert str(caught.value.report) in "".join(traceback.format_exception(caught.value))


def test_what_is_shut_down_says_so() -> None:
    """The kernel, its objects, maps and programs: each error names what is gone; no zeros, no empty maps."""
    kernel = rtp.Kernel()
    obj = kernel.load(PACKAGE / "programs/runqlat.bpf.o")
    with obj.attach():
        kernel.replay(RECORDING)
    fired = kernel.trace("sched_switch")
    runqlat, program, process = obj.maps["runqlat"], obj.programs["on_switch"], kernel.current
    kernel.shutdown()
    kernel.shutdown()

    for use in (
        lambda: kernel.replay(RECORDING),
        lambda: kernel.load(PACKAGE / "programs/runqlat.bpf.o"),
        lambda: kernel.map_create(1, 4, 4, 4),
        lambda: kernel.trace("sched_switch"),
        lambda: kernel.trace_event("x", "int a"),
        kernel.signals,
        kernel.run_timers,
        lambda: kernel.ftrace,
    ):
        with pytest.raises(ReplayError, match="the kernel was shut down"):
            use()
    for use in (lambda: len(runqlat), lambda: list(runqlat.items()), runqlat.numpy, lambda: runqlat[1], lambda: 1 in runqlat):
        with pytest.raises(ObjectError, match="map runqlat is gone: its object was closed, or its kernel shut down"):
            use()
    with pytest.raises(ObjectError, match="program on_switch is gone"):
        _ = program.run_cnt
    with pytest.raises(BpfError, match="its kernel was shut down"):
        process.map_create(1, 4, 4, 4)
    with pytest.raises(ReplayError, match="the kernel was shut down"):
        fired(0, None, None, 0)
    assert repr(kernel) == "<Kernel, shut down>"
    assert repr(runqlat) == "<ObjectMap runqlat hash, gone>"
    obj.close()


def test_maps_of_a_closed_object_say_so() -> None:
    """The kernel goes on, they do not."""
    with rtp.Kernel() as kernel:
        obj = kernel.load(PACKAGE / "programs/runqlat.bpf.o")
        held = obj.maps["runqlat"]
        obj.close()
        with pytest.raises(ObjectError, match="map runqlat is gone"):
            list(held)


# examples


def _modules() -> list[str]:
    return [info.name for info in pkgutil.walk_packages([str(PACKAGE)], "fastrtp.") if "__main__" not in info.name]


def _examples() -> list[doctest.DocTest]:
    """Every example in a docstring of the package."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for name in ["fastrtp", *_modules()]:
        module = importlib.import_module(name)
        found += [one for one in finder.find(module, name, module=module) if one.examples]
    return found


EXAMPLES = _examples()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples run: a recording and an object, under plain names."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copy(RECORDING, folder / "trace.dat")
    for name in ("runqlat", "syscount", "switches"):
        shutil.copy(PACKAGE / f"programs/{name}.bpf.o", folder)
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_every_example_runs(example: doctest.DocTest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives what it says: `rtp` is imported, `kernel` is new, `obj` is loaded and has seen the recording."""
    monkeypatch.chdir(folder)
    with rtp.Kernel(cpus=2) as kernel, kernel.load("runqlat.bpf.o") as obj:
        with obj.attach():
            kernel.replay("trace.dat")
        example.globs |= {"rtp": rtp, "kernel": kernel, "obj": obj, "np": np}
        said: list[str] = []
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)

    assert not failed.failed, "".join(said)


def test_the_public_names_have_examples() -> None:
    """The classes and functions of the facade, and the methods that people begin with."""
    shown = {one.name for one in EXAMPLES}
    wanted = {
        "fastrtp", "fastrtp.TRACE_EVENT", "fastrtp.default.default_kernel", "fastrtp.kernel.kernel.Kernel",
        "fastrtp.kernel.kernel.Kernel.replay", "fastrtp.kernel.kernel.Kernel.trace", "fastrtp.kernel.kernel.Kernel.trace_event",
        "fastrtp.kernel.verbs.Verbs.open", "fastrtp.kernel.verbs.Verbs.load", "fastrtp.record.recording.Recording.open",
        "fastrtp.kernel.loader.map_elements.MapElements", "fastrtp.kernel.loader.map_elements.MapElements.frame",
        "fastrtp.kernel.loader.map_elements.MapElements.numpy", "fastrtp.jit.unverified.run",
    }  # fmt: skip

    assert wanted <= shown
