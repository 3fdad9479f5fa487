"""The switches of the code generator change the code and not what it computes; layers, listings and pictures are right."""

from __future__ import annotations

import ctypes
import functools
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from interpreter import run as interpret

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import jit, layers, pictures
from bench.ablation import IDEAS, Ablation, v3_programs
from bench.cases import Row
from bench.direct import Direct
from bench.listing import listing_html, rows
from bench.machine import Machine, machine
from fastrtp.isa import encode
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.jit.unverified import Compiled

_LENGTH = 192
_CODE = ("bases", "private_stack", "narrow", "whole_slots", "host_cpu")


def test_every_option_is_an_idea_that_is_measured() -> None:
    """And each idea leaves out one."""
    switched = [replace(DEFAULT, **changes) for changes in IDEAS.values()]

    assert {name for changes in IDEAS.values() for name in changes} == {field.name for field in fields(CodeOptions)}
    assert all(options != DEFAULT for options in switched)
    assert {name.partition(":")[0] for name in Ablation.params} == {*IDEAS, "fused"}


@pytest.mark.parametrize("idea", _CODE)
@pytest.mark.parametrize("name", ["classify", "binary_search", "matrix", "siphash", "calls_with_memory", "records", "v3"])
def test_without_an_idea_programs_compute_the_same(idea: str, name: str) -> None:
    """As the reference interpreter."""
    spec = v3_programs()["binary_search"] if name == "v3" else jit.programs()[name]
    data = jit.memory_for(spec.name)[:_LENGTH]
    memory = ctypes.create_string_buffer(data, len(data))
    compiled = Compiled(encode(spec.insns), replace(DEFAULT, **IDEAS[idea]))

    assert compiled(ctypes.addressof(memory), len(data)) == interpret(spec.insns, data)


@pytest.mark.parametrize("idea", IDEAS)
def test_without_an_idea_maps_hold_the_same(idea: str) -> None:
    """Counts by key, through inlined and called map operations, known maps and the general form."""
    expected, found = (_counts(options) for options in (DEFAULT, replace(DEFAULT, **IDEAS[idea])))

    assert found == expected
    assert sum(count for _, count in found["hash_1k"]) == 300


@functools.cache
def _counts(options: CodeOptions) -> dict[str, list[Any]]:
    here = Machine()
    for name in ("array_count", "hash_count", "hash_update", "lru_count", "percpu_hash_count"):
        Direct(here, name, options).run(300, 50)
    maps = ("array", "hash_1k", "updated", "lru_1k", "percpu_hash")
    found = {name: sorted(here.obj.maps[name].items(), key=repr) for name in maps}
    here.kernel.shutdown()
    return found


@pytest.mark.parametrize(
    ("idea", "mark"), [("inline", " noinline"), ("no_lock", "atomicrmw"), ("host_cpu", '"target-cpu"="generic"')]
)
def test_an_idea_can_be_seen_in_the_code(idea: str, mark: str) -> None:
    """Only without it."""
    ordinary, without = (Direct(machine(), "hash_count", options) for options in (DEFAULT, replace(DEFAULT, **IDEAS[idea])))

    assert mark not in ordinary.native.text
    assert mark in without.native.text


def test_known_maps_have_functions_of_their_own() -> None:
    """The general form takes the map alone."""
    ordinary, general = (
        Direct(machine(), "hash_count", options).native.text for options in (DEFAULT, CodeOptions(known_maps=False))
    )

    assert "@htab_map_lookup_elem" in ordinary
    assert "@bpf_map_lookup_elem" in general


def test_layers_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left over the whole is called overlap; nothing is below zero."""
    monkeypatch.setenv("FASTRTP_BENCH_SECONDS", "0.005")
    layers.of_events.cache_clear()
    found = layers.of_events()
    layers.of_events.cache_clear()

    assert list(found) == list(layers.PROGRAMS)
    for each in found.values():
        parts = sum(each[name] for name in layers.EVENT_LAYERS)
        assert min(each.values()) >= 0
        assert each["overlap"] == pytest.approx(max(parts - each["whole"], 0))


def test_listings_have_every_native_instruction_once() -> None:
    """Beside the BPF instruction that it comes from, and the C line of that."""
    prog = machine().obj.programs["ringbuf_discard"].prog
    native = [line for piece in prog.native.annotated.pieces for line in piece.lines]

    found = rows(prog)
    html = listing_html(prog)

    assert [line.strip() for _, _, lines in found for line in lines if not line.endswith(":")] == [
        line.expandtabs().strip() for line in native
    ]
    assert any("bpf_ringbuf_reserve" in line for line, _, _ in found)
    assert any("call bpf_ringbuf_reserve" in bpf for _, bpf, _ in found)
    assert html.count("<tr>") == len(found) + 1


def test_pictures_have_a_bar_for_each_row() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    found = [Row("s", "a", "ns", 2.0, "b", 1.0), Row("s", "none", "ns", 2.0), Row("s", "c", "ns", 1.0, "b", 2.0)]
    layer = {"loop": 1.0, "key": 0.5, "transition": 2.0, "program": 1.5, "whole": 4.5, "overlap": 0.5}
    figure, (ratios, stacked, flame, scaling) = pyplot.subplots(4)

    pictures.ratios(ratios, found)
    pictures.layers(stacked, {"a": layer, "b": layer}, layers.EVENT_LAYERS)
    pictures.flame(flame, layer, layer | {"program": 0.5}, name="a")
    pictures.scaling(scaling, found)

    assert [round(bar.get_x() + bar.get_width(), 6) for bar in ratios.patches] == [2.0, 0.5]
    assert len(stacked.patches) == 8
    assert [round(bar.get_width(), 6) for bar in flame.patches] == [5.0, 4.0, 3.5, 1.5, 1.0]
    assert len(scaling.patches) == 2
    pyplot.close(figure)
