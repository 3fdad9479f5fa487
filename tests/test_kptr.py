"""kptrs, objects of programs, lists and trees: what the verifier says (on Linux too), and what becomes of the objects."""

# ruff: noqa: E501 - a case is a row of a table

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said, said_by_linux

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.replay.order import wants_order

OBJECT = Path(__file__).parent / "data" / "elf" / "kptrs.bpf.o"
SAID = {
    "swap": "",
    "peek": "",
    "fill_hash": "",
    "fill_percpu": "",
    "tasks": "",
    "list": "",
    "tree": "",
    "shared": "",
    "twice": "",
    "queue": "",
    "cast": "",
    "leak": "BPF_EXIT instruction in main prog would lead to reference leak",
    "unchecked": "R0 invalid mem access 'ptr_or_null_'",
    "dropped_twice": "R1 must be referenced or trusted",
    "used_after_drop": "R6 invalid mem access 'scalar'",
    "drop_null": "Possibly NULL pointer passed to trusted arg0",
    "past_object": "access beyond struct plain at off 16 size 8",
    "xchg_leak": "BPF_EXIT instruction in main prog would lead to reference leak",
    "xchg_used_after": "R6 invalid mem access 'scalar'",
    "xchg_wrong_type": "invalid kptr access, R2 type=ptr_other expected=ptr_plain",
    "xchg_not_kptr": "off=0 doesn't point to kptr",
    "xchg_unreferenced": "off=24 kptr isn't referenced kptr",
    "xchg_borrowed": "R2 must be referenced when passed to release function",
    "store_owned": "store to referenced kptr disallowed",
    "store_number": "invalid kptr access, R1 type=scalar expected=ptr_task_struct or untrusted_ptr_task_struct",
    "store_other": "invalid kptr access, R0 type=map_value expected=ptr_task_struct or untrusted_ptr_task_struct",
    "load_part": "kptr access size must be BPF_DW",
    "load_misplaced": "kptr access misaligned expected=8 off=12",
    "kptr_unchecked": "R1 invalid mem access 'rcu_ptr_or_null_'",
    "untrusted_release": "R1 must be referenced or trusted",
    "rcu_release": "R1 must be referenced or trusted",
    "task_leak": "BPF_EXIT instruction in main prog would lead to reference leak",
    "task_write": "only read is supported",
    "value_as_data": "kptr cannot be accessed indirectly by helper",
    "push_unlocked": "bpf_spin_lock at off=0 must be held for bpf_list_head",
    "push_other_lock": "bpf_spin_lock at off=0 must be held for bpf_list_head",
    "push_other_type": "operation on bpf_list_head expects arg#1 bpf_list_node at offset=8 in struct item, but arg is at offset=8 in struct other",
    "push_wrong_node": "bpf_list_node not found at offset=32",
    "push_no_node": "bpf_list_node not found at offset=72",
    "push_no_head": "bpf_list_head not found at offset=24",
    "push_twice": "arg#1 expected pointer to allocated object",
    "used_after_unlock": "R6 invalid mem access 'scalar'",
    "drop_in_list": "function calls are not allowed while holding a lock",
    "new_while_locked": "function calls are not allowed while holding a lock",
    "pop_leak": "BPF_EXIT instruction in main prog would lead to reference leak",
    "node_as_data": "direct access to bpf_list_node is disallowed",
    "refs_as_data": "direct access to bpf_refcount is disallowed",
    "head_as_data": "bpf_list_head cannot be accessed directly by load/store",
    "drop_inside": "R1 must have zero offset when passed to release func or trusted arg to kfunc",
    "front_after_unlock": "R6 invalid mem access 'scalar'",
    "remove_owned_none": "bpf_rbtree_remove can only take non-owning or refcounted bpf_rb_node pointer",
    "no_refcount": "arg#0 doesn't point to a type with bpf_refcount field",
    "rcu_after_section": "R1 must be a rcu pointer",
    "from_pid_leak": "BPF_EXIT instruction in main prog would lead to reference leak",
    "from_pid_unchecked": "Possibly NULL pointer passed to trusted arg0",
    "cast_no_struct": "kfunc bpf_rdonly_cast type ID argument must be of a struct or void",
    "acquire_number": "arg#0 pointer type STRUCT task_struct must point to scalar, or struct with scalar",
    "order_unlocks": "can't spin_{lock,unlock} in rbtree cb",
    "order_removes": "bpf_rbtree_remove not allowed in rbtree cb",
    "order_two": "At callback return the register R0 has smin=2 smax=2 should have been in [0, 1]",
    "swap_raw": "calling kernel function bpf_obj_new_impl is not allowed",
    "list_raw": "tracing progs cannot use bpf_{list_head,rb_root} yet",
}


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel
        assert live(kernel) == 0 or kernel.maps


@pytest.fixture(scope="module")
def verifier() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=1) as kernel:
        yield kernel


@pytest.mark.parametrize("name", SAID)
def test_verdicts(verifier: rtp.Kernel, name: str) -> None:
    assert said(verifier, OBJECT, name) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert said_by_linux(OBJECT) == SAID


def live(kernel: rtp.Kernel) -> int:
    """Objects and timers that are in use."""
    return int(kernel.memory.heap["live"][0])


def out(obj: rtp.BpfObject) -> list[int]:
    return list(dict(obj.maps[".bss"].items())[0]["out"])


def run(kernel: rtp.Kernel, name: str, *ids: int) -> tuple[list[int], int]:
    """(out, objects in use) after these events; nothing is left when the object is closed."""
    with kernel.load(OBJECT, autoload=[name]) as obj:
        with obj.attach():
            for number in ids:
                kernel.trace("sys_enter")(0, number)
        result = out(obj), live(kernel)
    assert live(kernel) == 0
    return result


def test_an_object_in_a_map(kernel: rtp.Kernel) -> None:
    """What was put in is what comes out at the next event; the last one goes with the map."""
    found, left = run(kernel, "swap", 11, 22, 33)

    assert (found[:2], left) == ([22, 1], 1)


def test_an_object_seen_through_its_map(kernel: rtp.Kernel) -> None:
    """A load of the kptr gives the object itself, which can be written to."""
    with kernel.load(OBJECT, autoload=["swap", "peek"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        fire(0, 11)  # the programs run in the order of the object: swap, peek
        assert out(obj)[2] == 11
        fire(0, 22)
        assert out(obj)[:3] == [11, 77, 22]
        value = obj.maps["held"].lookup(bytes(4))
        assert value == bytes(32)  # nobody sees addresses
        obj.maps["held"].update(bytes(4), struct.pack("<4Q", 5, 1, 1, 1))
        fire(0, 33)

        # the object of before went with the value (kernel/bpf/arraymap.c:array_map_update_elem), so swap found none
        assert out(obj)[:3] == [11, 77, 33]
        assert obj.maps["held"].lookup(bytes(4)) == struct.pack("<4Q", 5, 0, 0, 0)
        assert dict(obj.maps["held"].map.raw_items())[bytes(4)] == struct.pack("<4Q", 5, 0, 0, 0)


def test_objects_go_with_their_elements(kernel: rtp.Kernel) -> None:
    """Deletion frees, so does an update; a full map's failure to insert leaks nothing. Kernel: hashtab.c:check_and_free_fields"""
    with kernel.load(OBJECT, autoload=["fill_hash"]) as obj, obj.attach():
        fire, held = kernel.trace("sys_enter"), obj.maps["hash"]
        for number in (1, 2, 3, 1):
            fire(0, number)
        assert (out(obj)[0], live(kernel)) == (0, 3)
        held.update(struct.pack("<I", 3), struct.pack("<4Q", 9, 8, 7, 6))
        assert live(kernel) == 2
        fire(0, 3)
        held.delete(struct.pack("<I", 1))
        held.map.lookup_and_delete_elem(struct.pack("<I", 2))
        assert live(kernel) == 1
        for number in range(20):
            fire(0, number)

        assert (len(held.map), live(kernel)) == (8, 8)


def test_objects_of_each_cpu(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["fill_percpu"]) as obj, obj.attach():
        for cpu in (0, 1, 0):
            kernel.trace("sys_enter", cpu=cpu)(0, 1)

        assert (out(obj)[0], live(kernel)) == (1, 2)
        assert obj.maps["percpu"].lookup(bytes(4)) == bytes(64)


def test_tasks(kernel: rtp.Kernel) -> None:
    pid = kernel.current.pid
    found, left = run(kernel, "tasks", 1, 2)

    assert (found[3:9], left) == ([pid, pid, 1, pid, pid, 0], 0)


def test_a_list(kernel: rtp.Kernel) -> None:
    """Odd numbers in front, even ones behind; every third takes the last one."""
    found, left = run(kernel, "list", 1, 2, 4, 5, 7, 6)

    # 7 5 1 2 4 6: the last event pushed 6 behind and took it again
    assert (found[:4], left) == ([7, 6, 6, 12], 5)


def test_a_tree(kernel: rtp.Kernel) -> None:
    """Whatever the order of arrival, the least comes out first; equal ones in the order of arrival."""
    numbers = [37 * number % 101 for number in range(14)]
    found, left = run(kernel, "tree", *numbers, 101)
    assert (found[:14], left) == (sorted(numbers), 0)
    found, left = run(kernel, "tree", *range(99, 0, -1), 101, 101)
    assert (found, left) == (list(range(17, 33)), 99 - 32)
    found, left = run(kernel, "tree", 5, 5, 3, 5, 101)
    assert (found[:4], left) == ([3, 5, 5, 5], 0)


def test_an_object_in_a_tree_and_a_list(kernel: rtp.Kernel) -> None:
    """It goes when both have let go of it."""
    found, left = run(kernel, "shared", 9, 4, 5)

    assert (found[0], left) == (9, 3)


def test_an_object_put_in_twice(kernel: rtp.Kernel) -> None:
    found, left = run(kernel, "twice", 1)

    assert ([value - (1 << 64) if value >> 63 else value for value in found[:2]], left) == ([0, -errno.EINVAL], 1)


def test_queues_in_a_hash(kernel: rtp.Kernel) -> None:
    """A list in each value, each with its lock: all in it goes with the element."""
    with kernel.load(OBJECT, autoload=["queue"]) as obj, obj.attach():
        for number in range(10):
            kernel.trace("sys_enter")(0, number)
        assert live(kernel) == 10
        obj.maps["queues"].delete(struct.pack("<I", 0))
        assert live(kernel) == 7
        lengths = {key[0]: struct.unpack("<4Q", value) for key, value in obj.maps["queues"].map.raw_items()}

        assert lengths == {1: (0, 0, 0, 3), 2: (0, 0, 0, 2), 3: (0, 0, 0, 2)}


def test_a_cast(kernel: rtp.Kernel) -> None:
    pid = kernel.current.pid
    found, _left = run(kernel, "cast", 1)

    assert found[:2] == [pid, pid]


def test_memory_is_used_again(kernel: rtp.Kernel) -> None:
    """A thousand objects take the memory of a few."""
    with kernel.load(OBJECT, autoload=["swap"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        fire(0, 1)
        fire(0, 1)
        before = int(kernel.memory.heap["next"][0])
        for number in range(1000):
            fire(0, number)

        assert (live(kernel), int(kernel.memory.heap["next"][0]) - before <= 64) == (1, True)


def test_inner_maps_own_what_the_template_says(kernel: rtp.Kernel) -> None:
    """A map whose kptrs lead to another struct is no inner map: the same bytes would be taken for another object."""
    with kernel.load(OBJECT, autoload=["swap"]) as obj, kernel.load(OBJECT, autoload=["swap"]) as twin:
        outer = kernel.map_create(12, 4, 4, 1, inner_map_fd=obj.maps["held"].fd)
        kernel.map_update_elem(outer, bytes(4), obj.maps["held"].fd.to_bytes(4, "little"))
        with pytest.raises(BpfError) as caught:
            kernel.map_update_elem(outer, bytes(4), obj.maps["percpu"].fd.to_bytes(4, "little"))
        assert caught.value.errno == errno.EINVAL
        if twin.maps["held"].map.btf is not obj.maps["held"].map.btf:
            with pytest.raises(BpfError):
                kernel.map_update_elem(outer, bytes(4), twin.maps["held"].fd.to_bytes(4, "little"))
        kernel.close(outer)


def test_objects_are_for_one_thread(kernel: rtp.Kernel) -> None:
    """A parallel replay of a program that makes objects plays in order."""
    with kernel.load(OBJECT, autoload=["list", "cast", "swap"]):
        wanted = {prog.name: wants_order(prog) for prog in kernel.progs}

        assert wanted == {"list": True, "cast": False, "swap": True}
