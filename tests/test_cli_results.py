"""What a replay shows: records, per-CPU values, globals, the trace pipe, and the pieces that tables are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastrtp
from fastrtp.btf import Btf, BtfWriter
from fastrtp.cli import main
from fastrtp.cli.render import bar, cell, log2_lines, spark
from fastrtp.cli.terminal import plain, scaled, seconds
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.object import BpfObject
from fastrtp.maps.base import Map
from fastrtp.replay import replay
from fastrtp.replay.tables import map_table, record_table
from fastrtp.uapi import BpfMapType

RECORDING = Path(fastrtp.__file__).parent / "record/data/churn.trace.dat"
OUTPUTS = Path(__file__).parent / "data/cli/outputs.bpf.o"
SWITCHES = 5_069


def fine(*args: object) -> str:
    result = CliRunner().invoke(main, ["replay", str(OUTPUTS), str(RECORDING), *(str(arg) for arg in args)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def played() -> Iterator[BpfObject]:
    """The object after the replay."""
    with Kernel(cpus=2) as kernel:
        loaded = kernel.load(OUTPUTS)
        with loaded.attach():
            replay(kernel, RECORDING)
        yield loaded


def test_records_are_decoded_by_a_struct_of_the_object() -> None:
    """--record MAP=STRUCT: a column for each member."""
    lines = fine("--map", "events", "--record", "events=event", "--top", 1).splitlines()

    at = lines.index("events  (ringbuf, 5,069 records)")
    assert lines[at + 1].split() == ["time", "kind", "pid", "comm"]
    assert lines[at + 2].split() == ["7576581993", "VOLUNTARY", "0", "swapper/0"]


def test_an_unknown_struct_is_an_error_before_the_replay() -> None:
    """The line names the map and the type."""
    result = CliRunner().invoke(main, ["replay", str(OUTPUTS), str(RECORDING), "--record", "events=nope"])

    assert result.exit_code == 1
    assert result.stderr.endswith("its BTF has no type 'nope' for the records of events\n")


def test_the_trace_pipe_looks_as_the_kernels() -> None:
    """pid, CPU, time, text; in JSON as fields."""
    text = fine("--trace-pipe", "--map", "few")
    lines = json.loads(fine("--trace-pipe", "--map", "few", "--format", "json"))["trace_pipe"]

    assert "     15 [000] 7.576704: bpf_trace_printk: switch 2" in text
    assert [line["text"] for line in lines] == ["switch 1\n", "switch 2\n", "switch 3\n"]
    assert lines[1]["pid"] == 15
    assert "trace_pipe" not in json.loads(fine("--map", "few", "--format", "json"))


def test_global_data_is_a_row_of_variables(played: BpfObject) -> None:
    """No key; nested members by their path."""
    rows = map_table(played.maps[".bss"].map)

    assert list(rows.columns) == ["total", "last.time", "last.kind", "last.pid", "last.comm"]
    assert rows.columns["total"] == [SWITCHES]
    assert rows.columns["last.kind"][0] in ("VOLUNTARY", "PREEMPTED")


def test_per_cpu_structs_have_a_row_for_each_cpu(played: BpfObject) -> None:
    """With the CPU's number; every switch is in one of them."""
    rows = map_table(played.maps["kinds"].map)

    assert list(rows.columns) == ["key", "cpu", "switches", "nested.low", "nested.minus"]
    assert sum(rows.columns["switches"]) == SWITCHES
    assert sorted(set(rows.columns["cpu"])) == [0, 1]
    assert rows.sort_by == "switches"
    assert rows.top(1).columns["switches"] == [max(rows.columns["switches"])]


def test_untouched_entries_of_arrays_are_left_out_of_text(played: BpfObject) -> None:
    """And counted; JSON and tables have them."""
    rows = map_table(played.maps["few"].map)

    assert len(rows) == 16
    assert list(rows.without_zeros().rows()) == [(3, 7)]
    assert "15 all zero" in fine("--map", "few")


def test_arrow_types_are_those_of_the_btf(played: BpfObject) -> None:
    """Widths and signs of C; enumerators as text."""
    schema = map_table(played.maps["kinds"].map).arrow().schema

    assert [str(kind) for kind in schema.types] == ["string", "uint64", "uint64", "uint32", "int32"]
    records = record_table("events", BpfMapType.BPF_MAP_TYPE_RINGBUF, [bytes(32)], played.spec.btf, _event(played))
    assert [str(kind) for kind in records.arrow().schema.types] == ["uint64", "string", "uint32", "string"]
    assert list(records.rows()) == [(0, "VOLUNTARY", 0, "")]


def _event(played: BpfObject) -> int:
    assert played.spec.btf is not None
    found = played.spec.btf.find("event")
    assert found is not None
    return found


def test_maps_without_btf_show_numbers_or_bytes() -> None:
    """Keys and values of 1, 2, 4, 8 bytes as unsigned integers, the others as bytes, also in Arrow."""
    with Kernel() as kernel:
        small = kernel.map_create(BpfMapType.BPF_MAP_TYPE_HASH, 4, 8, 4)
        large = kernel.map_create(BpfMapType.BPF_MAP_TYPE_HASH, 3, 12, 4)
        kernel.map_update_elem(small, b"\1\0\0\0", b"\xff" * 8)
        kernel.map_update_elem(large, b"abc", b"\0" * 12)
        tables = [map_table(_map(kernel, fd)) for fd in (small, large)]

        assert [list(rows.rows()) for rows in tables] == [[(1, 2**64 - 1)], [(b"abc", b"\0" * 12)]]
        assert tables[0].arrow().to_pylist() == [{"key": 1, "value": 2**64 - 1}]
        assert tables[1].arrow().to_pylist() == [{"key": b"abc", "value": b"\0" * 12}]


def test_per_cpu_numbers_have_a_total() -> None:
    """total, and a column for each CPU."""
    with Kernel(cpus=3) as kernel:
        fd = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2)
        kernel.map_update_elem(fd, bytes(4), b"".join(number.to_bytes(8, "little") for number in (5, 0, 7)))
        rows = map_table(_map(kernel, fd))

        assert list(rows.columns) == ["key", "total", "cpu0", "cpu1", "cpu2"]
        assert list(rows.rows()) == [(0, 12, 5, 0, 7), (1, 0, 0, 0, 0)]


def _map(kernel: Kernel, fd: int) -> Map:
    contents = kernel.current.files.fget(fd).private_data.map
    assert isinstance(contents, Map)
    return contents


def test_equal_names_of_key_and_value_are_told_apart() -> None:
    """ "key." and "value." come in front."""
    from fastrtp.replay.tables import column_names, leaves

    writer = BtfWriter()
    number = writer.add_int("int", 4, 1)
    struct = writer.add_struct("pair", 8, [("a", number, 0), ("b", number, 32)])
    btf = Btf.parse(writer.dump())
    found = leaves(btf, struct)

    assert column_names(found, found, set()) == (["key.a", "key.b"], ["value.a", "value.b"])
    assert column_names(found, leaves(btf, number), set()) == (["a", "b"], ["value"])


def test_histograms_and_bars_are_to_scale() -> None:
    """The largest fills the width; slots are powers of two; nothing is drawn for nothing."""
    assert spark([0, 8, 4, 1, 0]) == "·█▅▂"
    assert spark([0] * 8) == ""
    assert bar(5, 10, 10) == "█████"
    assert bar(0, 0, 10) == ""
    assert log2_lines([0, 0, 2, 1], "us", 4) == [" 4 -  7 us  2 ████", " 8 - 15 us  1 ██"]
    assert log2_lines([3], "us", 4) == ["0 - 1 us  3 ████"]
    assert log2_lines([0], "us") == ["(empty)"]


def test_cells_are_harmless() -> None:
    """Escape sequences in names are shown, bytes are hex, long things are cut."""
    assert plain("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert cell(b"\x01\xff") == "01 ff"
    assert cell(bytes(40)).endswith("... 40 bytes")
    assert cell([1, 2]) == "[1, 2]"
    assert cell([-1] * 20) == "[-1, -1, -1, -1, -1, -1, -1, -1, ...]"


def test_numbers_have_units() -> None:
    """Rates and durations in the size that fits."""
    assert scaled(1_234_000, "events/s") == "1.23 M events/s"
    assert scaled(2_000, "B/s") == "2 kB/s"
    assert scaled(3.0) == "3"
    assert [seconds(value) for value in (2.5, 0.0123, 4.2e-6)] == ["2.50 s", "12.3 ms", "4.2 us"]
