"""Callbacks of samples from user space and of vm_area_structs, and signals: verdicts (on Linux too) and results."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said, said_by_linux

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.kernel.kernel import Signal

OBJECT = Path(__file__).parent / "data" / "elf" / "callbacks.bpf.o"
SAID = {
    "drain": "",
    "drain_nested": "",
    "signals": "",
    "find": "",
    "returns_two": "At callback return the register R0 has smin=2 smax=2 should have been in [0, 1]",
    "stores": "R1 invalid mem access 'dynptr_ptr'",
    "loads": "R1 invalid mem access 'dynptr_ptr'",
    "submits_it": "cannot release unowned const bpf_dynptr",
    "makes_it": "Dynptr has to be an uninitialized dynptr",
    "other_map": "cannot pass map_type 27 into func bpf_user_ringbuf_drain#209",
    "keeps_slice": "R1 invalid mem access 'scalar'",
    "writes_vma": "only read is supported",
    "vma_of_number": "R1 type=scalar expected=ptr_, trusted_ptr_, rcu_ptr_",
}


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


@pytest.mark.parametrize("name", SAID)
def test_verdicts(kernel: rtp.Kernel, name: str) -> None:
    assert said(kernel, OBJECT, name) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert said_by_linux(OBJECT) == SAID


def data(obj: rtp.BpfObject) -> dict[str, object]:
    return dict(obj.maps[".bss"].items())[0]


def test_samples(kernel: rtp.Kernel) -> None:
    """Each once, in order, until the callback says stop; discarded ones are passed over."""
    with kernel.load(OBJECT, autoload=["drain"]) as obj, obj.attach():
        held, fire = obj.maps["samples"].map, kernel.trace("sys_enter")
        fire(0, 5)
        assert (data(obj)["status"][0], data(obj)["seen"]) == (0, 0)
        held.submit(struct.pack("<2Q", 1, 10))
        held.submit(struct.pack("<Q", 1000), discard=True)
        held.submit(struct.pack("<Q", 2))
        held.submit(b"four")
        held.submit(struct.pack("<Q", 99))
        held.submit(struct.pack("<Q", 3))
        fire(0, 100)
        assert (data(obj)["status"][:2], data(obj)["sum"]) == ([4, 0], 11 + 2 + 0 + 99 + 400)
        fire(0, 0)

        assert (data(obj)["status"][:2], data(obj)["sum"], data(obj)["seen"]) == ([1, 0], 515, 5)


def test_a_full_ring_and_its_end(kernel: rtp.Kernel) -> None:
    """ENOSPC until it is drained; samples run past the end of the ring's memory in one piece."""
    with kernel.load(OBJECT, autoload=["drain"]) as obj, obj.attach():
        held, fire = obj.maps["samples"].map, kernel.trace("sys_enter")
        total = 0
        for turn in range(7):
            written = 0
            while written < 4096 // 48:
                held.submit(struct.pack("<5Q", turn, 1, 2, 3, 4))
                written += 1
            with pytest.raises(BpfError) as caught:
                held.submit(bytes(40))
            assert caught.value.errno == errno.ENOSPC
            fire(0, 0)
            total += written * (turn + 1)
            assert data(obj)["sum"] == total
        with pytest.raises(BpfError) as caught:
            held.submit(bytes(4096))
        assert caught.value.errno == errno.E2BIG


def test_a_drain_within_a_drain(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["drain_nested"]) as obj, obj.attach():
        obj.maps["samples"].map.submit(bytes(8))
        kernel.trace("sys_enter")(0, 0)

        assert data(obj)["status"][:3] == [1, -errno.EINVAL, -errno.EBUSY]


def test_signals_are_noted_not_sent(kernel: rtp.Kernel) -> None:
    """What would be sent, to whom and when; a number that is no signal is refused; 0 only asks."""
    with kernel.load(OBJECT, autoload=["signals"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        pid = kernel.current.pid
        fire(0, 9)
        assert data(obj)["status"][:2] == [0, 0]
        noted = kernel.signals()
        assert [signal[1:] for signal in noted] == [(0, pid, pid, 9, False), (0, pid, pid, 9, True)]
        assert isinstance(noted[0], Signal)
        for number, expected in ((0, 0), (64, 0), (65, -errno.EINVAL)):
            fire(0, number)
            assert data(obj)["status"][:2] == [expected, expected]

        assert [signal.signal for signal in kernel.signals()] == [64, 64]
        assert kernel.signals() == []


def test_no_task_has_an_address_space(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["find"]) as obj, obj.attach():
        kernel.trace("sys_enter")(0, 0)

        assert (data(obj)["status"][:2], data(obj)["sum"]) == ([-errno.ENOENT, -errno.EINVAL], 0)
