"""Kernel functions on objects, kptrs and timers (tests/data/verifier/kfunc): what is said of programs, here and by Linux."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said_by_linux
from source_cases import Expected, expectations
from test_timer import replayed

import fastrtp as rtp
from fastrtp.errors import VerifierError
from fastrtp.obj import ObjectSpec

FOLDER = Path(__file__).parent / "data" / "verifier" / "kfunc"
OBJECT = FOLDER / "objects.bpf.o"
CASES = list(expectations(FOLDER / "objects.bpf.c"))

SAME = {case.program: case.message for case in CASES if not case.differs}


@pytest.fixture(scope="module")
def verifier() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=1) as kernel:
        yield kernel


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=1) as kernel:
        yield kernel


def test_every_program_is_a_case() -> None:
    assert {case.program for case in CASES} == set(ObjectSpec.parse(OBJECT.read_bytes()).programs)


@pytest.mark.parametrize("case", CASES, ids=[case.program for case in CASES])
def test_verdict(case: Expected, verifier: rtp.Kernel) -> None:
    """Accepted, or refused with the errno and the line that the source states."""
    if not case.errno:
        with verifier.load(OBJECT, autoload=[case.program]) as obj:
            assert case.program in obj.programs
        return
    with pytest.raises(VerifierError) as caught:
        verifier.load(OBJECT, autoload=[case.program])

    said = (caught.value.strerror or "").split(": ", 1)[1]
    assert (errno.errorcode[caught.value.errno or 0], said) == (case.errno, case.message)


def test_verdicts_of_linux() -> None:
    """Its last lines, but where it differs."""
    said = said_by_linux(OBJECT)

    assert {name: said[name] for name in SAME} == SAME
    assert said["new_of_either"] == ""


def live(kernel: rtp.Kernel) -> int:
    """Objects and timers that are in use."""
    return int(kernel.memory.heap["live"][0])


def values(obj: rtp.BpfObject, name: str) -> list[tuple[int, int]]:
    """(count, last) of each element."""
    found = [struct.unpack("<4Q", value) for _, value in obj.maps[name].raw_items()]
    return [(count, last) for count, _, _, last in found]


def test_timers_of_inner_maps(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Each callback gets the inner map that its timer is in; they go with that map."""
    with kernel.load(OBJECT, autoload=["timer_in_inner"]) as obj, obj.attach():
        kernel.replay(replayed(tmp_path, (0, 1), (0, 3), (0, 6), (50, 0)))

        assert live(kernel) == 4
        assert values(obj, "timers") == [(0, 0), (10, 0), (0, 0), (12, 0)]
        assert values(obj, "timers2") == [(0, 0), (0, 0), (9, 0), (0, 0)]
    assert live(kernel) == 0


def test_large_objects(kernel: rtp.Kernel) -> None:
    """Up to 4088 bytes; there is no memory for more."""
    with kernel.load(OBJECT, autoload=["new_of_big"]) as obj, obj.attach():
        kernel.trace("sys_enter")(0, 0)

        assert list(dict(obj.maps[".bss"].items())[0]["bigs"]) == [0, 1]
        assert live(kernel) == 0


def test_objects_in_objects(kernel: rtp.Kernel) -> None:
    """A kptr of an object owns another: taken out and put back, it goes with the object, and that with the map."""
    with kernel.load(OBJECT, autoload=["box"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        fire(0, 11)
        assert live(kernel) == 2
        for number in (22, 33, 44):
            fire(0, number)

        assert list(dict(obj.maps[".bss"].items())[0]["boxes"]) == [0, 33, 0, 0]
        assert live(kernel) == 2
    assert live(kernel) == 0


def test_lists_in_objects(kernel: rtp.Kernel) -> None:
    """Each with a lock of its own; what is in a list goes with the object that holds it."""
    with kernel.load(OBJECT, autoload=["bag"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        for number in (10, 20, 30):
            fire(0, number)

        assert list(dict(obj.maps[".bss"].items())[0]["boxes"]) == [0, 0, 0, 22]
        assert live(kernel) == 4
    assert live(kernel) == 0
