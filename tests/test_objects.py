"""mem/objects.py: typed objects in the arena."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from fastrtp.btf import default_btf
from fastrtp.errors import BtfError
from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace


@pytest.fixture
def objects() -> Iterator[ObjectSpace]:
    arena = Arena()
    yield ObjectSpace(arena, default_btf())
    arena.close()


def test_one_identity_is_one_object(objects: ObjectSpace) -> None:
    """The same type and identity give the same address; others do not."""
    first = objects.object("hrtimer", 0xFF11)

    assert objects.object("hrtimer", 0xFF11) == first
    assert len({first, objects.object("hrtimer", 0xFF12), objects.object("timer_list", 0xFF11)}) == 3
    assert objects.objects("hrtimer", [0xFF12, 0xFF11, 0xFF11]).tolist()[1:] == [first, first]


def test_objects_do_not_overlap(objects: ObjectSpace) -> None:
    """Objects made together lie their size apart, aligned, inside the arena, and zeroed."""
    size = objects.size("task_struct")
    addresses = np.sort(objects.objects("task_struct", list(range(50))))

    assert int(np.diff(addresses).min()) >= size
    assert not np.any(addresses % 64)
    assert objects.arena.base < int(addresses[0])
    assert int(addresses[-1]) + size < objects.arena.base + objects.arena.size
    assert not objects.arena.view(int(addresses[7]), size).any()


def test_task(objects: ObjectSpace) -> None:
    """A task knows pid, tgid, comm and its leader; idle tasks are called after their CPU."""
    task, thread = objects.tasks([41, 42], [41, 41], [b"main", b"a name too long for comm"]).tolist()

    assert (objects.get("task_struct", task, "pid"), objects.get("task_struct", task, "comm")) == (41, "main")
    assert (objects.get("task_struct", thread, "pid"), objects.get("task_struct", thread, "tgid")) == (42, 41)
    assert objects.get("task_struct", thread, "group_leader") == task == objects.task(41)
    assert objects.get("task_struct", thread, "comm") == "a name too long "
    idle = objects.idle_task(2)
    assert idle != objects.idle_task(1)
    assert (objects.get("task_struct", idle, "comm"), objects.get("task_struct", idle, "pid")) == ("swapper/2", 0)


@pytest.mark.parametrize(
    ("type_name", "path", "value"),
    [
        ("pt_regs", "orig_ax", 0xFFFFFFFFFFFFFFFF),
        ("irqaction", "irq", 17),
        ("hrtimer", "node.expires", -5),
        ("timer_list", "expires", 99),
        ("kernel_siginfo", "si_code", -6),
        ("linux_binprm", "argc", 3),
        ("request", "__data_len", 4096),
        ("mm_struct", "total_vm", 12),
        ("task_struct", "se.vruntime", 1 << 60),
        ("task_struct", "__state|state", 2),
        ("ktime_t", "", -1),
    ],
)
def test_members_by_path(type_name: str, path: str, value: int, objects: ObjectSpace) -> None:
    """A member set by its path reads back as the BTF decodes it, and nothing around it changes."""
    objects.set(type_name, 1, path, value)

    address = objects.object(type_name, 1)
    field = objects.member(type_name, path)
    raw = objects.arena.view(address, objects.size(type_name))
    mask = (1 << 8 * field.size) - 1
    assert int.from_bytes(raw[field.offset_bytes : field.offset_bytes + field.size].tobytes(), "little") == value & mask
    raw[field.offset_bytes : field.offset_bytes + field.size] = 0
    assert not raw.any()


def test_pointers_and_strings(objects: ObjectSpace) -> None:
    """A pointer member holds the address of another object; strings are NUL-terminated and shared."""
    name = objects.string(b"eth0")
    objects.set("irqaction", 9, "name", name)

    assert objects.get("irqaction", objects.object("irqaction", 9), "name") == name
    assert objects.arena.view(name, 5).tobytes() == b"eth0\0"
    assert objects.strings([b"lo", b"eth0", b"lo"]).tolist() == [objects.string(b"lo"), name, objects.string(b"lo")]


def test_scatter_cuts_and_extends(objects: ObjectSpace) -> None:
    """Many objects at once: signed values keep their low bytes in narrow members and their sign in wide ones."""
    tasks = objects.tasks([1, 2, 3])

    objects.scatter(tasks, "task_struct", "prio", np.array([-1, 5, 1 << 33], np.int64))
    objects.scatter(tasks, "task_struct", "se.vruntime", np.array([-1, 5, 6], np.int8))

    assert [objects.get("task_struct", int(task), "prio") for task in tasks] == [-1, 5, 0]
    assert [objects.get("task_struct", int(task), "se.vruntime") for task in tasks] == [2**64 - 1, 5, 6]


def test_what_is_not_there(objects: ObjectSpace) -> None:
    """Unknown types and members, and bit-fields, are refused by name."""
    with pytest.raises(BtfError, match="no type 'no_such_struct'"):
        objects.object("no_such_struct", 1)
    with pytest.raises(BtfError, match="no_such_member"):
        objects.set("task_struct", 1, "no_such_member|nor_this", 1)
    assert not objects.has_member("task_struct", "no_such_member")
    with pytest.raises(BtfError, match="bit-field"):
        objects.set("task_struct", 1, "in_execve", 1)


def test_close_gives_the_memory_back(objects: ObjectSpace) -> None:
    """Closing frees every allocation; the next object is a fresh one."""
    for _ in range(3):
        objects.tasks(range(1, 200))
        objects.strings([b"a", b"b"])
        objects.zeroed(100, "x")
        assert objects.arena.allocated > 0

        objects.close()

        assert objects.arena.allocated == 0
        assert len(objects) == 0


def test_thousands_of_tasks(objects: ObjectSpace) -> None:
    """Each has memory of its own; those that are known already take none."""
    addresses = objects.tasks(range(1, 10_001), comms=np.full(10_000, b"name", "S16"))
    allocated = objects.arena.allocated

    assert len(np.unique(addresses)) == 10_000
    assert objects.tasks(range(10_000, 0, -1)).tolist() == addresses[::-1].tolist()
    assert objects.arena.allocated == allocated
    assert [objects.get("task_struct", int(addresses[9_999]), field) for field in ("pid", "comm")] == [10_000, "name"]
