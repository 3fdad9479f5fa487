"""record/recipes: every recipe against the real format text and the real prototype of its tracepoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from truth import kernel_formats

from fastrtp.btf import default_btf, tracepoints
from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.columns import LOCATION
from fastrtp.record.event_format import EventFormat
from fastrtp.record.recipes import RECIPES, Derived, Key, Missing, Obj, Pid, Raw, Recipe, Scalar, Text, Tgid
from fastrtp.record.recipes.recipe import CurrentKey
from fastrtp.record.recipes.sched import task_report_max
from fastrtp.replay.bind import bind

PROTOS = tracepoints(default_btf())
COVERED_SYSTEMS = {"sched", "irq", "signal", "task", "raw_syscalls", "timer", "exceptions"}
TRUTH_PROGRAMS = {
    "sched_wakeup",
    "sched_wakeup_new",
    "sched_switch",
    "sys_enter",
    "sys_exit",
    "sched_process_exec",
    "sched_process_exit",
    "sched_process_fork",
    "task_rename",
    "signal_generate",
    "irq_handler_entry",
    "softirq_entry",
    "page_fault_user",
}


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectSpace]:
    arena = Arena()
    yield ObjectSpace(arena, default_btf())
    arena.close()


def fields_of(item: Any) -> Iterator[str]:
    """Every recorded field that a part of a recipe reads."""
    if isinstance(item, str):
        yield item.partition("[")[0]
    elif isinstance(item, Derived):
        yield from item.fields
    elif isinstance(item, Scalar):
        yield from fields_of(item.source)
    elif isinstance(item, (Text, Raw, Pid, Tgid, CurrentKey)):
        yield item.field
    elif isinstance(item, Key):
        yield from item.fields
    elif isinstance(item, Obj):
        yield from fields_of(item.by)
        for source in item.members.values():
            yield from fields_of(source)
    elif isinstance(item, Recipe):
        for part in (*item.args, *item.also, *item.after):
            yield from fields_of(part)


def members_of(item: Any) -> Iterator[tuple[str, str]]:
    """Every (type, member path) that a part of a recipe writes."""
    if isinstance(item, Recipe):
        for part in (*item.args, *item.also, *item.after):
            yield from members_of(part)
    elif isinstance(item, Obj):
        for path, source in item.members.items():
            yield item.type_name, path
            yield from members_of(source)


def one_row(fmt: EventFormat) -> Recording:
    """A recording of one event whose fields are all 1, or short texts."""
    fields: dict[str, Any] = {}
    heaps = {}
    for spec in fmt.fields:
        if spec.variable:
            fields[spec.name] = np.array([(0, 2)], LOCATION)
            heaps[spec.name] = np.frombuffer(b"x\0", np.uint8)
        else:
            fields[spec.name] = np.ones(1, spec.dtype) if spec.kind.value != "string" else np.array([b"x"], spec.dtype)
    table = EventTable(fmt.name, fmt.system, fields, fmt, heaps, 1)
    return Recording(
        np.zeros(1, np.int64),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint32),
        np.ones(1, np.int32),
        [table],
        cpus=1,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_fits_format_and_prototype(name: str, objects: ObjectSpace) -> None:
    """Every field and member exists; every argument is covered, or declared missing with a reason."""
    recipe, fmt, proto = RECIPES[name], kernel_formats()[name], PROTOS[name]

    assert set(fields_of(recipe)) <= {spec.name for spec in fmt.fields}
    for type_name, path in members_of(recipe):
        assert objects.has_member(type_name, path), (type_name, path)
    assert len(recipe.args) == len(proto.args)
    missing = bind(one_row(fmt), objects, PROTOS, "zero", {name}).missing
    declared = {position: entry.why for position, entry in enumerate(recipe.args) if isinstance(entry, Missing)}
    assert {lack.arg: lack.why for lack in missing} == declared


@pytest.mark.parametrize("name", RECIPES)
def test_no_recorded_field_is_forgotten(name: str) -> None:
    """What a format records and its recipe does not use is one of the few fields that say nothing about an argument."""
    unused = {spec.name for spec in kernel_formats()[name].fields if not spec.name.startswith("common_")} - set(
        fields_of(RECIPES[name])
    )

    derivable = {
        "kmem_cache_alloc": {"bytes_req", "bytes_alloc", "accounted"},
        "kmem_cache_free": {"name"},
        "mm_page_alloc": {"pfn"},
        "mm_page_alloc_zone_locked": {"pfn"},
        "mm_page_free": {"pfn"},
        "mm_page_free_batched": {"pfn"},
        "mm_page_pcpu_drain": {"pfn"},
        "timer_start": {"now"},
        "timer_expire_entry": {"now"},
        "sched_move_numa": {"ngid", "src_nid", "dst_nid"},
        "sched_stick_numa": {"src_ngid", "src_nid", "dst_ngid", "dst_nid"},
        "sched_swap_numa": {"src_ngid", "src_nid", "dst_ngid", "dst_nid"},
    }
    assert unused == derivable.get(name, set())


def test_what_is_covered() -> None:
    """All events of the seven systems that have a tracepoint, and all that the programs of the truth attach to."""
    wanted = {name for name, fmt in kernel_formats().items() if fmt.system in COVERED_SYSTEMS and name in PROTOS}

    assert wanted <= set(RECIPES)
    assert set(RECIPES) >= TRUTH_PROGRAMS


def test_scalar_types_are_the_prototypes(objects: ObjectSpace) -> None:
    """The C type that a recipe states for an integer argument has the prototype's size and name."""
    for name, recipe in RECIPES.items():
        for entry, arg in zip(recipe.args, PROTOS[name].args, strict=True):
            if isinstance(entry, Scalar):
                stated = re.sub(r"^enum$", "enum ", entry.c_type)
                found = (
                    default_btf()
                    .c_type(arg.type_id)
                    .replace("long unsigned int", "unsigned long")
                    .replace("long long unsigned int", "unsigned long long")
                )
                found = found.replace("long unsigned long", "unsigned long long").replace("long int", "long")
                assert found.startswith(stated), (name, entry.c_type, found)


@pytest.mark.parametrize(
    ("print_fmt", "expected"),
    [
        ("", 0x100),
        ("((((7x00000000 | 0x01) + 1) << 1) - 1)", 0x100),
        ("(REC->prev_state & ((((0x00000000 | 0x00000001 | 0x00000002 | 0x00000040) + 1) << 1) - 1))", 0x88),
        ("((((0x0000 | 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0010 | 0x0020 | 0x0040) + 1) << 1) - 1)", 0x100),
    ],
)
def test_task_report_max(print_fmt: str, expected: int) -> None:
    """TASK_REPORT_MAX is read out of the format that was recorded."""
    assert task_report_max(print_fmt) == expected
