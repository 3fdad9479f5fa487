"""Recipes that come from data, a format and a BTF: arguments, objects, identities; and generated against written rows."""

from __future__ import annotations

import numpy as np
import pytest

from fastrtp.btf import default_btf, tracepoints
from fastrtp.errors import BtfError
from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.event_format import parse_event_format
from fastrtp.record.event_formats import default_formats
from fastrtp.record.recipes import RECIPES, Derived, Key, Missing, Obj, Part, Pid, Printk, Raw, Recipe, Scalar, Text, When, data
from fastrtp.record.recipes.build import build
from fastrtp.record.recipes.choose import choose
from fastrtp.record.recipes.known_types import IDENTIFIED_BY, IMPLIED, ROOM_OF, SAME_AS
from fastrtp.record.recipes.match import match_arguments
from fastrtp.replay.bind import bind

BTF = default_btf()
PROTOS = tracepoints(BTF)


def built(name: str) -> Recipe:
    fmt = default_formats()[name]
    row = choose(fmt, "6.1")
    assert row is not None
    return build(row, fmt, BTF, PROTOS[name])


def members(item: object, before: str = "") -> dict[str, object]:
    """Every member of an object and of what it points to, by path."""
    found: dict[str, object] = {}
    if isinstance(item, Obj):
        for path, value in item.members.items():
            name = before + path.rpartition("::")[2]
            found[name] = value
            found |= members(value, f"{name}->")
    return found


def test_a_request_is_known_by_its_device_and_sector():
    (request,) = built("block_rq_issue").args

    assert isinstance(request, Obj)
    assert isinstance(request.by, Key)
    assert request.by.fields[0] == "dev"
    assert isinstance(request.by.fields[1], Derived)
    found = members(request)
    assert found["__data_len"] == "bytes"
    assert isinstance(found["q->disk->major"], Derived)
    assert isinstance(found["cmd_flags"], Part)


def test_pages_are_known_by_their_number_and_minus_one_is_none():
    page, order, gfp, migratetype = built("mm_page_alloc").args

    assert isinstance(page, Obj)
    assert (page.type_name, page.by) == ("folio", Key(("pfn",)))
    assert page.null is not None
    assert [item.source for item in (order, gfp, migratetype) if isinstance(item, Scalar)] == [
        "order",
        "gfp_flags",
        "migratetype",
    ]


def test_sockets_have_their_tcp_members():
    sock, skb = built("tcp_probe").args

    found = {path.rpartition("::")[2]: value for path, value in sock.members.items()} if isinstance(sock, Obj) else {}
    assert found["snd_cwnd"] == "snd_cwnd"
    assert isinstance(found["sk.__sk_common.skc_dport"], Derived)
    assert isinstance(found["sk.__sk_common.skc_num"], Derived)
    assert isinstance(skb, Obj)


def test_numbers_and_texts_arrive_as_they_were():
    assert built("kfree_skb").args[1] == Raw("location")
    assert built("workqueue_execute_end").args[1] == Raw("function")
    assert built("rcu_utilization").args == (Printk("s"),)
    assert built("cgroup_mkdir").args[1] == Text("path")


def test_tasks_go_by_their_pid():
    (task,) = built("oom_score_adj_update").args

    assert isinstance(task, Obj)
    assert task.by == Pid("pid")
    assert "pid" not in task.members
    assert members(task)["signal->oom_score_adj"] == "oom_score_adj"


def test_bit_fields_and_flags_tell_some_bits():
    inode, control = built("ext4_writepages").args

    assert isinstance(inode, Obj)
    assert isinstance(control, Obj)
    assert control.members["for_kupdate"] == "for_kupdate"
    assert inode.by == Key(("dev", "ino"))


WITHOUT = {"sched_switch", "sys_enter", "sys_exit"}
"""Rows whose meaning is not in TP_fast_assign alone."""


@pytest.mark.parametrize("name", sorted(set(RECIPES) & set(default_formats()) - WITHOUT))
def test_the_source_says_what_a_person_wrote(name):
    """What a written row takes from a field as it is, the generated row takes from the same field."""
    fmt, generated = default_formats()[name], built(name).args
    written = match_arguments(BTF, PROTOS[name], RECIPES[name], fmt)

    for mine, theirs in zip(generated, written, strict=True):
        ours = members(mine)
        for path, value in members(theirs).items():
            same = ours.get(path.partition("|")[0])
            same = same.value if isinstance(same, When) else same
            if isinstance(value, (str, Text)) and same is not None:
                assert same == value or same == getattr(value, "field", ""), path
        if isinstance(theirs, Scalar) and isinstance(theirs.source, str) and isinstance(mine, Scalar):
            assert mine.source == theirs.source
        if isinstance(theirs, (Raw, Text)):
            assert mine == theirs
        if (
            isinstance(theirs, Obj)
            and isinstance(theirs.by, (Pid, Key))
            and isinstance(mine, Obj)
            and isinstance(mine.by, (Pid, Key))
        ):
            assert mine.by == theirs.by


@pytest.mark.parametrize("name", sorted(set(default_formats()) & set(PROTOS)))
def test_every_event_of_a_kernel_can_be_built(name):
    """Each path that a recipe names exists in the BTF; no argument is left without a word."""
    recipe = built(name)
    objects = ObjectSpace.__new__(ObjectSpace)
    objects.btf, objects._members, objects._types = BTF, {}, {}

    assert len(recipe.args) == len(PROTOS[name].args)
    for arg in recipe.args:
        todo = [arg]
        while todo:
            item = todo.pop()
            if isinstance(item, Obj):
                for path, value in item.members.items():
                    try:
                        objects.member(item.type_name, path)
                    except BtfError as error:
                        pytest.fail(f"{item.type_name}.{path}: {error}")
                    todo.append(value)
            elif isinstance(item, Missing):
                assert item.why


def test_tables_of_types_name_types_of_the_kernel():
    for name in [*SAME_AS, *SAME_AS.values(), *ROOM_OF, *(seen for seen, _ in IMPLIED)]:
        assert BTF.find(name) is not None, name
    assert all(BTF.find(name) is not None for name in IDENTIFIED_BY if name not in ("journal_s", "clk_core"))


FORMAT = """name: {name}
ID: 9000
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
{fields}
print fmt: "x"
"""


def recording(name: str, system: str, columns: dict[str, tuple[str, np.ndarray]]) -> Recording:
    lines, offset = [], 8
    for field, (c_type, column) in columns.items():
        size = column.dtype.itemsize
        offset = -(-offset // size) * size if column.dtype.kind != "S" else offset
        lines.append(f"\tfield:{c_type} {field};\toffset:{offset};\tsize:{size};\tsigned:{int(column.dtype.kind == 'i')};")
        offset += size
    fmt = parse_event_format(FORMAT.format(name=name, fields="\n".join(lines)), system)
    fields = {field.partition("[")[0]: column for field, (_, column) in columns.items()}
    rows = len(next(iter(fields.values())))
    table = EventTable(name, system, fields, fmt, {}, rows)
    order = np.arange(rows)
    return Recording(
        order.astype(np.int64), np.zeros(rows, np.uint16), np.zeros(rows, np.uint16), order.astype(np.uint32),
        np.full(rows, 7, np.int32), [table], cpus=1,
    )  # fmt: skip


@pytest.fixture
def objects():
    arena = Arena()
    yield ObjectSpace(arena, BTF, ROOM_OF)
    arena.close()


def test_objects_are_the_same_where_what_identifies_them_is(objects):
    sectors = np.array([8, 16, 8], np.uint64)
    name, system = "block_rq_issue", "block"
    made = recording(name, system, {
        "dev": ("dev_t", np.array([1, 1, 1], np.uint32)), "sector": ("sector_t", sectors),
        "bytes": ("unsigned int", np.array([512, 1024, 4096], np.uint32)),
        "rwbs[8]": ("char", np.array([b"W", b"R", b"FF"], "S8")),
    })  # fmt: skip

    (event,) = bind(made, objects, PROTOS, "zero", {name}).events

    column = event.args[0].column
    assert column is not None
    assert column[0] == column[2]
    assert column[0] != column[1]
    lengths = next(store for store in event.stores if store.offset == objects.member("request", "__data_len").offset_bytes)
    assert lengths.column is not None
    assert lengths.column.tolist() == [512, 1024, 4096]


def test_a_row_of_ones_own_takes_the_place_of_a_recipe(objects):
    data.add("block_unplug", "struct request_queue *q, unsigned int depth, bool explicit", nr="depth|<<1")
    try:
        made = recording("block_unplug", "block", {"nr": ("int", np.array([3, 4], np.int32))})
        (event,) = bind(made, objects, PROTOS, "zero", {"block_unplug"}).events
    finally:
        data.forget("block_unplug")

    assert event.args[1].column is not None
    assert event.args[1].column.tolist() == [6, 8]


def test_a_part_of_a_member_leaves_the_others():
    fmt = default_formats()["kmem_cache_alloc"]
    data.add("kmem_cache_alloc", "unsigned long call_site, const void *ptr, struct kmem_cache *s, gfp_t gfp_flags, int node",
             bytes_req="s->flags|mask 0xff")  # fmt: skip
    try:
        (row, *_) = data.rows("kmem_cache_alloc")
        recipe = build(row, fmt, BTF, PROTOS["kmem_cache_alloc"])
    finally:
        data.forget("kmem_cache_alloc")

    cache = recipe.args[2]
    assert isinstance(cache, Obj)
    assert cache.members["flags"] == Part("bytes_req", 0xFF)
