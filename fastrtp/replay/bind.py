"""bind: a recording's fields become the arguments and objects that a tracepoint's probes are called with.

For every event type the recipes say what each argument is; here that becomes columns: integers as recorded, addresses of
objects in the arena, and stores that keep the objects as the record says. Everything is done on whole columns.
What the recording cannot supply is listed in `missing` and handled by the policy.

Must not know: programs, native code, maps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrtp.btf import TracepointProto
from fastrtp.errors import ReplayError
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.recipes import RECIPES, Recipe
from fastrtp.record.recipes.find import recipe_of

from .bind_args import ArgumentBinder, Told
from .identities import TaskIndex
from .task_changes import TaskChanges

if TYPE_CHECKING:
    from numpy.typing import NDArray

Policy = Literal["zero", "fault", "strict"]
Wanted = Collection[str] | Mapping[str, Collection[int]]


@dataclass(slots=True)
class BoundArg:
    """One argument in every row: `column`, or the same `const` everywhere. `size`: bytes of the C type."""

    column: NDArray[Any] | None
    const: int
    size: int
    signed: bool


@dataclass(slots=True)
class BoundStore:
    """One member written before the probes run: `size` bytes of `column` (or of `const`) at `offset` of the object.

    The object's address is argument `base_arg`; where that is -1, `base` holds it (a column or one address). `mask`: where not 0,
    only these bits of what is there change; `shift`: how far the value is moved up before.
    """

    base_arg: int
    base: NDArray[np.uint64] | int | None
    offset: int
    column: NDArray[Any] | None
    size: int
    const: int = 0
    mask: int = 0
    shift: int = 0


@dataclass(slots=True)
class BoundEvent:
    """One event type. `stores` come before the probes, `after` behind them; both also when no probe is attached."""

    name: str
    args: list[BoundArg]
    stores: list[BoundStore]
    after: list[BoundStore] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class MissingField:
    """Something a tracepoint has and the recording has not: argument `arg` (from 0), or a `member` of what it points to."""

    tracepoint: str
    arg: int
    member: str
    why: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a tracepoint's record tells. `args`: by number, ("exact", field), ("derived", rule), ("address", field), ("text",
    field) or ("object", what makes it the same again); `told`: members of objects; `lacks`: what it does not have.
    """

    args: Mapping[int, tuple[str, str]]
    told: tuple[Told, ...]
    lacks: tuple[MissingField, ...]


@dataclass(slots=True)
class BoundRecording:
    """A recording ready to be replayed; all arrays in time order. `current`: the running task's task_struct."""

    recording: Recording
    time: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    event: NDArray[np.uint16]
    row: NDArray[np.uint32]
    current: NDArray[np.uint64]
    events: list[BoundEvent]
    missing: list[MissingField]
    known: dict[str, Known]
    """By tracepoint: what its record tells."""
    parents: tuple[int, int] = (0, 0)
    """Tasks whose parent the recording tells, of how many."""


def bind(
    recording: Recording,
    objects: ObjectSpace,
    protos: Mapping[str, TracepointProto],
    policy: Policy = "zero",
    wanted: Wanted = (),
    split: NDArray[np.int64] | None = None,
) -> BoundRecording:
    """Bind every event of `recording` whose tracepoint is in `protos`. `objects` should be new: what is in it stays visible.

    `wanted`: tracepoints that programs are attached to, or a mapping to the argument numbers that they read; only these
    are reported in `missing`. `policy`, for pointers that nothing is known of: "zero" gives an object of zeros, "fault" an
    address that cannot be read, "strict" raises `ReplayError` with the whole list. `split`: the thread that plays each CPU's
    events; then what a task has one of (pt_regs) it has one of for each thread, and what an event says of it is not
    disturbed by one that another thread plays.
    """
    if policy not in ("zero", "fault", "strict"):
        raise ReplayError(f"policy {policy!r} is not one of zero, fault, strict")
    recipes = [_recipe(table, objects, protos.get(table.name), recording.uname) for table in recording.tables]
    index = TaskIndex(recording, recipes, objects, split)
    changes = TaskChanges(index)
    events: list[BoundEvent] = []
    missing: list[MissingField] = []
    known: dict[str, Known] = {}
    for number, (table, recipe) in enumerate(zip(recording.tables, recipes, strict=True)):
        proto = protos.get(table.name, None)
        if proto is None:
            events.append(BoundEvent(table.name, [], []))
            if table.name in wanted:
                missing.append(MissingField(table.name, -1, "", "the kernel has no such tracepoint"))
            continue
        event, facts = _bind_event(table, number, proto, recipe, index, objects, policy, changes)
        events.append(event)
        known[table.name] = facts
        missing += [lack for lack in facts.lacks if _is_wanted(lack, wanted)]
    if policy == "strict" and missing:
        lines = [
            f"{lack.tracepoint} argument {lack.arg}{' ' + lack.member if lack.member else ''}: {lack.why}" for lack in missing
        ]
        raise ReplayError("the recording cannot supply: " + "; ".join(lines))
    order = (recording.time, recording.cpu, recording.event, recording.row)
    return BoundRecording(recording, *order, index.current(), events, missing, known, index.parents)


def _recipe(table: EventTable, objects: ObjectSpace, proto: TracepointProto | None, kernel: str) -> Recipe | None:
    """None for an event that nothing is known of, or that this kernel has no tracepoint for."""
    if proto is None or table.fmt is None:
        return RECIPES.get(table.name)
    return recipe_of(table.fmt, objects.btf, proto, kernel)


def _is_wanted(lack: MissingField, wanted: Wanted) -> bool:
    if lack.tracepoint not in wanted:
        return False
    return not isinstance(wanted, Mapping) or lack.arg in wanted[lack.tracepoint]


def _bind_event(
    table: EventTable,
    number: int,
    proto: TracepointProto,
    recipe: Recipe | None,
    index: TaskIndex,
    objects: ObjectSpace,
    policy: Policy,
    changes: TaskChanges,
) -> tuple[BoundEvent, Known]:
    binder = ArgumentBinder(table, number, index, objects, policy != "fault")
    plans = binder.match(proto, recipe)
    args = []
    for position, (arg, plan) in enumerate(zip(proto.args, plans, strict=True)):
        column, const = binder.argument(position, arg, plan)
        args.append(BoundArg(column, const, arg.size, arg.signed))
    if recipe is not None:
        for extra in recipe.also:
            binder.describe(extra)
    stores = [BoundStore(*store) for store in [*binder.stores, *changes.stores(number, table, plans)]]
    binder.stores.clear()
    if recipe is not None:
        for extra in recipe.after:
            binder.describe(extra)
    after = [BoundStore(*store) for store in [*binder.stores, *changes.after(number, table)]]
    told = (*binder.told, *changes.told)
    lacks = tuple(MissingField(table.name, *lack) for lack in [*binder.missing, *(recipe.left if recipe is not None else ())])
    return BoundEvent(table.name, args, stores, after), Known(dict(binder.args), told, lacks)
