"""Storage of tasks, queues, stacks, bloom filters, tries and cgroup arrays, as programs use them (data/maps/types.bpf.c)."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastrtp as rtp
from fastrtp.maps import MAP_OPS, MAP_TYPES
from fastrtp.record import Recording
from fastrtp.uapi import BpfMapType

OBJECT = Path(__file__).resolve().parent / "data" / "maps" / "types.bpf.o"
CHURN = Path(rtp.__file__).parent / "record" / "data" / "churn.trace.dat"
NOT_YET = {
    BpfMapType.BPF_MAP_TYPE_UNSPEC,
    BpfMapType.BPF_MAP_TYPE_CGROUP_STORAGE,
    BpfMapType.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
    BpfMapType.BPF_MAP_TYPE_STRUCT_OPS,
    BpfMapType.BPF_MAP_TYPE_ARENA,
}


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def run(kernel: rtp.Kernel, name: str, *numbers: int) -> tuple[list[list[int]], rtp.BpfObject]:
    """`out` after each event with that number."""
    obj = kernel.load(OBJECT, autoload=[name])
    found = []
    with obj.attach():
        for number in numbers:
            kernel.trace("sys_enter")(0, number)
            found.append(list(next(iter(obj.maps[".bss"].items()))[1]["out"]))
    return found, obj


def test_every_map_type_has_one_class_and_its_row() -> None:
    missing = {kind for kind in BpfMapType if kind not in MAP_TYPES}

    assert MAP_TYPES.keys() == MAP_OPS.keys()
    assert missing <= NOT_YET


def test_tasks_keep_their_counts_through_a_replay(kernel: rtp.Kernel) -> None:
    """As many switches of each task as the recording has. The values outlast the tasks, until the next replay."""
    table = Recording.open(CHURN).table("sched_switch")
    out, into = Counter(table.fields["prev_pid"].tolist()), Counter(table.fields["next_pid"].tolist())
    with kernel.load(OBJECT, autoload=["count_switches"]) as obj, obj.attach():
        for _ in range(2):
            kernel.replay(CHURN)
            counted: dict[int, tuple[int, int]] = {}
            for pid, value in obj.maps["per_task"].items():
                before = counted.get(pid, (0, 0))
                counted[pid] = (before[0] + value["switched_out"], before[1] + value["switched_in"])

            assert counted == {pid: (out[pid], into[pid]) for pid in out.keys() | into.keys()}


def test_storage_comes_and_goes(kernel: rtp.Kernel) -> None:
    """Nothing without BPF_LOCAL_STORAGE_GET_F_CREATE, unknown flags give NULL; what is made anew is zero."""
    found, obj = run(kernel, "come_and_go", 1)

    assert found[0][:6] == [0, 0, 78, 0, -2, 0]
    obj.close()


@pytest.mark.parametrize("helper", ["task", "cgrp", "sk"])
def test_storage_of_each_owner(kernel: rtp.Kernel, helper: str) -> None:
    """The helpers of the three kinds, called as programs call them: an owner is an address."""
    lib, env = kernel.memory.lib, kernel.memory.env_of(0)
    get, delete = getattr(lib, f"bpf_{helper}_storage_get"), getattr(lib, f"bpf_{helper}_storage_delete")
    one, other = kernel.objects.object("cgroup", "one"), kernel.objects.object("cgroup", "other")
    with kernel.load(OBJECT, autoload=[]) as obj:
        contents = obj.maps["per_task"].map
        assert (
            get(contents.address, 0, 0, 1, env)
            == get(contents.address, one, 0, 2, env)
            == get(contents.address, one, 0, 0, env)
            == 0
        )
        made = get(contents.address, one, 0, 1, env)
        assert made
        assert made == get(contents.address, one, 0, 0, env)
        assert get(contents.address, other, made, 1, env) not in (0, made)
        assert len(contents) == 2
        assert delete(contents.address, 0, env) == -22
        assert [delete(contents.address, one, env), delete(contents.address, one, env)] == [0, -2]
        assert len(contents) == 1


def test_a_pidfd_names_a_task(kernel: rtp.Kernel) -> None:
    current = kernel.current
    with kernel.load(OBJECT, autoload=["come_and_go"]) as obj, obj.attach():
        key = struct.pack("<i", current.pidfd_open(current.pid))
        kernel.map_update_elem(obj.maps["per_task"].fd, key, struct.pack("<2Q", 3, 4))

        assert list(obj.maps["per_task"].items()) == [(current.pid, {"switched_out": 3, "switched_in": 4})]
        assert kernel.map_lookup_elem(obj.maps["per_task"].fd, key) == struct.pack("<2Q", 3, 4)
        with pytest.raises(rtp.BpfError):
            current.pidfd_open(1 << 20)


def test_queues_and_stacks(kernel: rtp.Kernel) -> None:
    """First in first out, and last in first out; a full queue refuses (-E2BIG), a full stack lets its oldest go (BPF_EXIST)."""
    found, obj = run(kernel, "push_and_pop", 1, 2, 3, 4, 5, 7)

    assert [row[0] for row in found] == [0, 0, 0, 0, 0, -7]
    assert [row[1] for row in found] == [0] * 6
    assert found[2][2:4] == [1, 3]
    assert [row[5] for row in found] == [1, 1, 2, 2, 2, 2]
    assert [struct.unpack("<Q", value)[0] for _, value in obj.maps["queue"].raw_items()] == [2, 3, 4, 5]
    assert [struct.unpack("<Q", value)[0] for _, value in obj.maps["stack"].raw_items()] == [7, 5, 4, 2]
    obj.close()


def test_a_bloom_filter(kernel: rtp.Kernel) -> None:
    found, obj = run(kernel, "filter", 5, 5, 6)

    assert [row[:4] for row in found] == [[-2, 0, 0, -22], [0, 0, 0, -22], [-2, 0, 0, -22]]
    obj.close()


def test_the_longest_prefix_wins(kernel: rtp.Kernel) -> None:
    found, obj = run(kernel, "longest_prefix", 1, 2)

    assert [row[:4] for row in found] == [[0, 1, 0, -2], [0, 2, 0, -2]]
    assert len(list(obj.maps["trie"].items())) == 2
    obj.close()


def test_an_empty_place_of_a_cgroup_array(kernel: rtp.Kernel) -> None:
    found, obj = run(kernel, "under_cgroup", 1)

    assert found[0][:2] == [-11, -7]
    obj.close()
