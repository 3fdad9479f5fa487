"""Pointers loaded from kernel objects: trusted, RCU-protected, plain or maybe NULL, as Linux has it; what the loads give."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said, said_by_linux

import fastrtp as rtp

OBJECT = Path(__file__).parent / "data" / "elf" / "walks.bpf.o"
SAID = {
    "parent": "",
    "hold_real_parent": "",
    "hold_leader": "",
    "hold_parent": "R1 must be a rcu pointer",
    "hold_leaders_parent": "",
    "hold_parents_leader": "R1 must be a rcu pointer",
    "hold_wakee": "R1 must be a rcu pointer",
    "hold_after_unlock": "R1 must be a rcu pointer",
    "hold_cast": "R1 must be a rcu pointer",
    "hold_cast_leader": "R1 must be a rcu pointer",
    "cgroup": "",
    "exe_file_unchecked": "",
    "stack_of_parent": "",
    "stack_of_leader": "",
    "stack_of_cast": "R1 type=untrusted_ptr_ expected=ptr_, trusted_ptr_, rcu_ptr_",
    "stack_of_mm": "R1 is of type mm_struct but task_struct is expected",
    "write_leader": "only read is supported",
    "skb": "",
    "skb_sock": "R1 invalid mem access 'rcu_ptr_or_null_'",
    "skb_sock_checked": "",
    "null_arg": "R1 invalid mem access 'trusted_ptr_or_null_'",
    "null_arg_checked": "",
}


@pytest.fixture(scope="module")
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=1) as kernel:
        yield kernel


@pytest.mark.parametrize("name", SAID)
def test_verdicts(kernel: rtp.Kernel, name: str) -> None:
    assert said(kernel, OBJECT, name) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert said_by_linux(OBJECT) == SAID


@pytest.mark.parametrize(("name", "expected"), [("hold_leader", True), ("parent", False)])
def test_loads(kernel: rtp.Kernel, name: str, expected: bool) -> None:
    """The current task is its own leader; of its parent nothing is known, so the load gives 0."""
    with kernel.load(OBJECT, autoload=[name]) as obj, obj.attach():
        kernel.trace("sys_enter")(0, 0)

        assert dict(obj.maps[".bss"].items())[0]["out"][0] == (kernel.current.pid if expected else 0)
