"""CPU masks in maps, dynptrs and strings, as C programs use them: verdicts (on Linux, too), and what they find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_object import said, said_by_linux

import fastrtp as rtp
from fastrtp.btf import BtfKind, host_btf
from fastrtp.replay.order import wants_order

OBJECT = Path(__file__).parent / "data" / "elf" / "masks.bpf.o"
SAID = {
    "swap": "",
    "look": "",
    "of_task": "",
    "texts": "",
    "pieces": "",
    "kept_mask": "BPF_EXIT instruction in main prog would lead to reference leak",
    "of_raw_task": "kernel function bpf_cpumask_weight args#0 expected pointer to STRUCT cpumask "
    "but R1 has a pointer to STRUCT task_struct",
    "wrong_kptr": "invalid kptr access, R2 type=trusted_ptr_task_struct expected=ptr_bpf_cpumask",
}
GOOD = [name for name, message in SAID.items() if not message]


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    if not Path("/sys/kernel/btf/vmlinux").exists() or host_btf().find("bpf_cpumask", BtfKind.STRUCT) is None:
        pytest.skip("needs the types of a kernel with bpf_cpumask")
    with rtp.Kernel(btf="host", cpus=2) as kernel:
        yield kernel


@pytest.mark.parametrize("name", SAID)
def test_verdicts(kernel: rtp.Kernel, name: str) -> None:
    assert said(kernel, OBJECT, name) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert said_by_linux(OBJECT) == SAID


def variables(obj: rtp.BpfObject) -> dict[str, Any]:
    return {name: getattr(obj.bss, name) for name in ("weight", "swaps", "shared_weight", "size", "found", "same")}


def test_what_they_find(kernel: rtp.Kernel) -> None:
    """A mask in a map is replaced and looked at; it goes with the map."""
    before = int(kernel.memory.heap["live"][0])
    with kernel.load(OBJECT, autoload=GOOD) as obj, obj.attach():
        fire = kernel.trace("task_rename")
        for _ in range(3):
            fire(0, 0)
        found = variables(obj)
        cpus = obj.data.cpus
        assert int(kernel.memory.heap["live"][0]) == before + 1

    assert found == {"weight": 2, "swaps": 2, "shared_weight": 2, "size": 16 + (3 << 8), "found": 3, "same": 0}
    assert cpus == 0  # nobody has told on which CPUs the task may run
    assert int(kernel.memory.heap["live"][0]) == before


def test_masks_want_one_thread_at_a_time(kernel: rtp.Kernel) -> None:
    """Their bits are not set atomically here."""
    with kernel.load(OBJECT, autoload=["of_task", "texts"]) as obj:
        wants = {name: wants_order(obj.programs[name].prog) for name in ("of_task", "texts")}

    assert wants == {"of_task": True, "texts": False}
