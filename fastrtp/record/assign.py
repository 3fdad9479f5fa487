"""TP_fast_assign from the recipes, read forwards: which argument or member each field of an event's record comes from.

A recipe says where a recorded field lands; here the same row says where the field is taken from. What a recipe derives by
computing has its forward form here; a field that no recipe tells of stays zero and is listed in `missing`.

Must not know: recordings, native code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from fastrtp.btf import Btf, BtfKind, Field, TracepointProto
from fastrtp.errors import BtfError
from fastrtp.trace.ftrace_assign import (
    Address,
    Arg,
    Assignment,
    Copy,
    CurrentTask,
    Deref,
    Integer,
    Jiffies,
    Member,
    String,
    SwitchState,
    Value,
)

from .event_format import EventFormat, FieldKind, FormatField
from .recipes import Bytes, Current, Derived, Key, Obj, Pid, Printk, Raw, Recipe, Scalar, Text, When
from .recipes.find import recipe_of
from .recipes.match import match_arguments, pointer_target
from .recipes.sched import EXIT_STATE, PREEMPT, PREV_STATE, task_report_max

_ELEMENT = re.compile(r"^(\w+)\[(\d+)\]$")
_LOCATED = (FieldKind.DATA_LOC, FieldKind.REL_LOC)
_COPIED = (FieldKind.STRING, FieldKind.ARRAY, FieldKind.BYTES)
_INTEGERS = (1, 2, 4, 8)


def assignment(btf: Btf, proto: TracepointProto, fmt: EventFormat) -> Assignment | None:
    """The assignment of an event; None where no recipe tells of its tracepoint."""
    recipe = recipe_of(fmt, btf, proto)
    return _Assigner(btf, proto, fmt).from_recipe(recipe) if recipe is not None else None


_ARGUMENT_REGISTERS = ("di", "si", "dx", "r10", "r8", "r9")
_SYSCALL_SIZE = {"sys_enter": 16 + 8 * len(_ARGUMENT_REGISTERS), "sys_exit": 24}
"""Bytes of what programs get: the number, and arguments or result, 8 bytes each. Kernel: kernel/trace/trace_syscalls.c"""


def syscall_assignment(btf: Btf, fmt: EventFormat, raw: str, number: int) -> Assignment:
    """The assignment of one system call's event, from the arguments of `raw`: sys_enter(regs, id) or sys_exit(regs, ret).

    Kernel: kernel/trace/trace_syscalls.c:perf_syscall_enter, perf_syscall_exit
    """
    regs = Arg(0)

    def register(name: str) -> Member:
        return Member(regs, btf.member("pt_regs", name).offset_bytes, 8)

    called: Value = Arg(1, signed=True) if raw == "sys_enter" else register("orig_ax")
    items = [Integer(8, 8, called)]
    if raw == "sys_enter":
        items += [Integer(16 + 8 * at, 8, register(name)) for at, name in enumerate(_ARGUMENT_REGISTERS)]
    else:
        items.append(Integer(16, 8, Arg(1, signed=True)))
    size = _SYSCALL_SIZE[raw]
    return Assignment(fmt.name, 2, size, size, tuple(items), only=(called, number))


def plain_assignment(btf: Btf, proto: TracepointProto, fmt: EventFormat) -> Assignment:
    """The assignment of an event of one's own, whose fields are its arguments (see `plain_format`)."""
    return _Assigner(btf, proto, fmt).from_arguments()


def plain_format(btf: Btf, proto: TracepointProto, event_id: int) -> EventFormat:
    """A format for an event that has none: its arguments as fields, texts behind them, other pointers as addresses."""
    fields = list(_COMMON)
    offset = 8
    prints = []
    for index, arg in enumerate(proto.args):
        name = arg.name or f"arg{index}"
        if arg.is_pointer and pointer_target(btf, arg) == "char":
            place = FormatField(name, "char[]", -(-offset // 4) * 4, 4, True, FieldKind.DATA_LOC)
            prints.append(f"__get_str({name})")
        else:
            size = arg.size if arg.size in _INTEGERS else 8
            place = FormatField(name, btf.c_type(arg.type_id), -(-offset // size) * size, size, arg.signed, FieldKind.SCALAR)
            prints.append(f"REC->{name}")
        fields.append(place)
        offset = place.offset + place.size
    text = " ".join(f"{spec.name}={_conversion(spec)}" for spec in fields[len(_COMMON) :])
    return EventFormat(proto.name, event_id, "fastrtp", tuple(fields), ", ".join([f'"{text}"', *prints]))


def _conversion(spec: FormatField) -> str:
    if spec.kind in _LOCATED:
        return "%s"
    return "%llx" if spec.c_type.endswith("*") else "%lld" if spec.signed else "%llu"


_COMMON = (
    FormatField("common_type", "unsigned short", 0, 2, False, FieldKind.SCALAR),
    FormatField("common_flags", "unsigned char", 2, 1, False, FieldKind.SCALAR),
    FormatField("common_preempt_count", "unsigned char", 3, 1, False, FieldKind.SCALAR),
    FormatField("common_pid", "int", 4, 4, True, FieldKind.SCALAR),
)


class _Assigner:
    """Works on one event. `_items`: by field (or element) name."""

    def __init__(self, btf: Btf, proto: TracepointProto, fmt: EventFormat) -> None:
        self.btf = btf
        self.proto = proto
        self.fmt = fmt
        self._items: dict[str, Integer | Copy | String] = {}
        self._computed: dict[int, Value] = {}
        self._pointers: dict[str, Arg] = {}

    def from_recipe(self, recipe: Recipe) -> Assignment:
        plans = match_arguments(self.btf, self.proto, recipe, self.fmt)
        args = [Arg(index, arg.size, arg.signed) for index, arg in enumerate(self.proto.args)]
        for arg, plan in zip(args, plans, strict=True):
            if isinstance(plan, Scalar):
                self._put(plan.source, arg)
            elif isinstance(plan, (Raw, Printk)):
                self._put(plan.field, Arg(arg.index))
            elif isinstance(plan, Text):
                self._text(plan.field, Arg(arg.index))
        for arg, plan in zip(args, plans, strict=True):
            if isinstance(plan, Obj):
                self._object(plan, Arg(arg.index))
        for extra in recipe.also:
            if isinstance(extra.by, Current) and extra.type_name == "task_struct":
                self._object(extra, CurrentTask())
        for name, arg in self._pointers.items():
            self._put(name, arg)
        self._compute()
        return self._result()

    def from_arguments(self) -> Assignment:
        for index, (arg, spec) in enumerate(zip(self.proto.args, self.fmt.fields[len(_COMMON) :], strict=True)):
            if spec.kind is FieldKind.DATA_LOC:
                self._text(spec.name, Arg(index))
            else:
                self._put(spec.name, Arg(index, arg.size, arg.signed))
        return self._result()

    def _result(self) -> Assignment:
        end = self.data_offset
        align = max((_alignment(spec) for spec in self.fmt.fields), default=1)
        missing = {name: "no recipe says where it comes from" for name in self._names() if name not in self._items}
        size = -(-end // align) * align
        return Assignment(self.fmt.name, len(self.proto.args), size, end, tuple(self._items.values()), missing)

    @property
    def data_offset(self) -> int:
        """Where __data starts: behind the last field."""
        return max(spec.offset + spec.size for spec in self.fmt.fields)

    def _names(self) -> Iterator[str]:
        for spec in self.fmt.fields:
            if spec.name.startswith("common_"):
                continue
            if spec.kind is FieldKind.ARRAY:
                yield from (f"{spec.name}[{index}]" for index in range(spec.count))
            else:
                yield spec.name

    # one field

    def _put(self, source: object, value: Value) -> None:
        """A field, or an element of one, is `value`; what has been put first stays. Derived sources are kept for `_compute`."""
        if isinstance(source, Derived):
            self._computed.setdefault(id(source), value)
            return
        if not isinstance(source, str) or source in self._items:
            return
        element = _ELEMENT.match(source)
        spec = self.fmt.field(element[1] if element else source)
        if spec is None:
            return
        if element is None and spec.kind is FieldKind.SCALAR:
            self._items[source] = Integer(spec.offset, spec.size, value)
        elif element is not None and spec.kind is FieldKind.ARRAY and int(element[2]) < spec.count:
            size = spec.size // spec.count
            self._items[source] = Integer(spec.offset + size * int(element[2]), size, value)

    def _text(self, name: str, address: Address) -> None:
        spec = self.fmt.field(name)
        if spec is None or name in self._items:
            return
        if spec.kind is FieldKind.DATA_LOC:
            self._items[name] = String(spec.offset, 0, address)
        elif spec.kind is FieldKind.STRING:
            self._items[name] = String(spec.offset, spec.size, address)

    def _object(self, item: Obj, base: Address) -> None:
        """Every field that a member of the object, or its address, gives."""
        for path, source in item.members.items():
            try:
                spot = self._member(item.type_name, path)
            except BtfError:
                continue  # this kernel has no such member: the field is reported missing
            if isinstance(source, When):
                source = source.value
            if spot.bitfield_size:
                continue
            if isinstance(source, Bytes):
                self._bytes(source.source, base, spot)
            elif isinstance(source, Obj):
                self._object(source, Deref(base, spot.offset_bytes))
            elif isinstance(source, Text):
                self._text(source.field, Deref(base, spot.offset_bytes))
            elif spot.size in _INTEGERS:
                self._put(source, Member(base, spot.offset_bytes, spot.size, self._signed(spot)))
            elif isinstance(source, str):
                self._bytes(source, base, spot)
        if isinstance(item.by, Pid) and item.type_name == "task_struct":
            spot = self._member("task_struct", "pid")
            self._put(item.by.field, Member(base, spot.offset_bytes, spot.size, True))
        elif isinstance(item.by, Key) and isinstance(base, Arg):
            for name in item.by.fields:
                spec = self.fmt.field(name) if isinstance(name, str) else None
                if spec is not None and "*" in spec.c_type:
                    self._pointers.setdefault(spec.name, base)

    def _bytes(self, name: object, base: Address, spot: Field) -> None:
        spec = self.fmt.field(name) if isinstance(name, str) else None
        if isinstance(name, str) and spec is not None and spec.kind in _COPIED and name not in self._items:
            self._items[name] = Copy(spec.offset, min(spec.size, spot.size), base, spot.offset_bytes)

    def _member(self, type_name: str, path: str) -> Field:
        """Where a member is; "" is the whole object, "a|b" the first of the two that there is. BtfError."""
        type_id = next(
            (found for kind in _KINDS if (found := self.btf.find(type_name, kind)) is not None),
            None,
        )
        if type_id is None:
            raise BtfError(f"no type {type_name!r} in the BTF")
        seen, _, path = path.rpartition("::")
        if seen:
            return self._member(seen, path)
        path = path.rstrip("|")
        if not path:
            return Field(0, self.btf.sizeof(type_id), type_id, 0, 0)
        *first, last = path.split("|")
        for candidate in first:
            try:
                return self.btf.member(type_id, candidate)
            except BtfError:
                continue
        return self.btf.member(type_id, last)

    def _signed(self, spot: Field) -> bool:
        return bool(self.btf.type(self.btf.strip(spot.type_id)).signed)

    # what recipes compute

    def _compute(self) -> None:
        inputs: Mapping[int, Value] = self._computed
        if id(PREV_STATE) in inputs and id(PREEMPT) in inputs and id(EXIT_STATE) in inputs:
            report_max = task_report_max(self.fmt.print_fmt)
            preempt, exit_state = inputs[id(PREEMPT)], inputs[id(EXIT_STATE)]
            self._put("prev_state", SwitchState(preempt, inputs[id(PREV_STATE)], exit_state, report_max))
        if self.fmt.name in _NOW_IS_JIFFIES:
            self._put("now", Jiffies())


_KINDS = (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF, BtfKind.INT)
_NOW_IS_JIFFIES = frozenset({"timer_start", "timer_expire_entry"})


def _alignment(spec: FormatField) -> int:
    if spec.kind is FieldKind.STRING:
        return 1
    size = spec.size // max(spec.count, 1)
    return size if size in _INTEGERS else 1
