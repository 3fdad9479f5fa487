"""From an assignment to LLVM IR: the two probes of an event that build its record, for ftrace and for perf.

An `Assignment` is TP_fast_assign as data: which argument, or which member of what an argument points to, goes to which
bytes of the record. `probes` turns it into

    i64 trace_event_raw_event_<name>(i64 file, i64 a0.., ptr env)     a TRACE_FILE: into the trace buffer
    i64 perf_trace_<name>(i64 call, i64 a0.., ptr env)                a PERF_CALL: to programs and perf events

Pointers are followed within the arena only; what lies elsewhere leaves its fields zero. Pure: text.

Kernel: include/trace/stages/stage6_event_callback.h, include/trace/perf.h. Must not know: BTF, formats, recipes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Union

from fastrtp.native.records import Env

_CURRENT = Env.layout.at("current")
_MAX_STRING = 4096


@dataclass(frozen=True, slots=True)
class Arg:
    """The tracepoint's argument `index`: an integer of `size` bytes, or an address."""

    index: int
    size: int = 8
    signed: bool = False


@dataclass(frozen=True, slots=True)
class CurrentTask:
    """Address of the running task's task_struct."""


@dataclass(frozen=True, slots=True)
class Deref:
    """The address that is stored at `offset` of what `base` points to."""

    base: Address
    offset: int


Address = Union[Arg, CurrentTask, Deref]  # noqa: UP007 - evaluated at run time, together with a class defined here


@dataclass(frozen=True, slots=True)
class Member:
    """An integer of `size` bytes at `offset` of what `base` points to."""

    base: Address
    offset: int
    size: int
    signed: bool = False


@dataclass(frozen=True, slots=True)
class SwitchState:
    """__trace_sched_switch_state(): how a task's state is reported. `report_max`: TASK_REPORT_MAX, for a preempted one."""

    preempt: Value
    state: Value
    exit_state: Value
    report_max: int


@dataclass(frozen=True, slots=True)
class Jiffies:
    """The tick counter."""


Value = Union[Arg, Member, SwitchState, Jiffies]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class Integer:
    """`size` bytes at `offset` of the record are `value`."""

    offset: int
    size: int
    value: Value


@dataclass(frozen=True, slots=True)
class Copy:
    """`size` bytes at `offset` of the record are those at `at` of what `base` points to."""

    offset: int
    size: int
    base: Address
    at: int


@dataclass(frozen=True, slots=True)
class String:
    """The text at an address: in the `size` bytes at `offset`, NUL-ended; or, with size 0, behind the fixed fields, and its
    location word at `offset`. A NULL pointer reads "(null)".
    """

    offset: int
    size: int
    address: Address


@dataclass(frozen=True)
class Assignment:
    """TP_fast_assign of the event `name`. `size`: bytes of the record's struct; `data_offset`: where variable data starts.

    `missing`: fields that stay zero, with the reason. `only`: the event happens only where this value is that number.
    `recorded_only`: nothing says where its fields come from, so there are records of recorded events alone.
    """

    name: str
    num_args: int
    size: int
    data_offset: int
    items: tuple[Integer | Copy | String, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    only: tuple[Value, int] | None = None
    recorded_only: bool = False


_HEAD = """@null_text = private unnamed_addr constant [7 x i8] c"(null)\\00"
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @trace_strnlen(i64, i64)
declare i64 @bpf_jiffies64(ptr)
declare i64 @trace_event_buffer_reserve(i64, i64, ptr)
declare i64 @perf_trace_buf_alloc(i64, i64, ptr)
declare i64 @perf_trace_run_bpf_submit(i64, i64, i64, ptr)
declare i64 @perf_trace_recorded(i64, ptr)
"""

_PROBES = """
define i64 @"trace_event_raw_event_{name}"(i64 %data{params}, ptr %env) nounwind {{
entry:
{sizes}
  %record = call i64 @trace_event_buffer_reserve(i64 %data, i64 %size, ptr %env)
  %none = icmp eq i64 %record, 0
  br i1 %none, label %out, label %fill
fill:
  call void @"assign.{name}"(i64 %record{args}, ptr %env{extra})
  br label %out
out:
  ret i64 0
}}

define i64 @"perf_trace_{name}"(i64 %data{params}, ptr %env) nounwind {{
entry:
  %recorded = call i64 @perf_trace_recorded(i64 %data, ptr %env)
  %told = icmp ne i64 %recorded, 0
  br i1 %told, label %out, label %live
live:
{guard}
{sizes}
  %with_length = add i64 %size, 11
  %aligned = and i64 %with_length, -8
  %room = sub i64 %aligned, 4
  %record = call i64 @perf_trace_buf_alloc(i64 %data, i64 %room, ptr %env)
  %none = icmp eq i64 %record, 0
  br i1 %none, label %out, label %fill
fill:
  call void @"assign.{name}"(i64 %record{args}, ptr %env{extra})
  %done = call i64 @perf_trace_run_bpf_submit(i64 %data, i64 %record, i64 %room, ptr %env)
  br label %out
out:
  ret i64 0
}}
"""


_RECORDED_ONLY = """
define i64 @"trace_event_raw_event_{name}"(i64 %data{params}, ptr %env) nounwind {{
  ret i64 0
}}

define i64 @"perf_trace_{name}"(i64 %data{params}, ptr %env) nounwind {{
  %recorded = call i64 @perf_trace_recorded(i64 %data, ptr %env)
  ret i64 0
}}
"""


def probe_names(name: str) -> tuple[str, str]:
    """Symbols of an event's probes: (ftrace, perf)."""
    return f"trace_event_raw_event_{name}", f"perf_trace_{name}"


def probes(assignment: Assignment) -> str:
    """IR of a module with both probes of an event."""
    params = "".join(f", i64 %a{index}" for index in range(assignment.num_args))
    if assignment.recorded_only:
        return _HEAD + _RECORDED_ONLY.format(name=assignment.name, params=params)
    strings = [item for item in assignment.items if isinstance(item, String)]
    dynamic = [index for index, item in enumerate(strings) if not item.size]
    sizes = _Body()
    places = [sizes.string(item) for item in strings]
    size = str(assignment.size)
    for index in dynamic:
        size = sizes.value(f"add i64 {size}, {places[index][1]}")
    sizes.line(f"%size = add i64 {size}, 0")
    extra = "".join(f", i64 {address}, i64 {length}" for address, length in places)
    text = _PROBES.format(
        name=assignment.name, params=params, args=params, sizes=sizes.text(), extra=extra, guard=_guard(assignment)
    )
    return _HEAD + _assign(assignment, strings, params) + text


def _guard(assignment: Assignment) -> str:
    """Lines that leave where the event does not happen; their values have names of their own."""
    if assignment.only is None:
        return ""
    value, number = assignment.only
    body = _Body("g")
    wrong = body.value(f"icmp ne i64 {body.integer(value)}, {number}")
    body.line(f"br i1 {wrong}, label %out, label %happens")
    body.line("happens:")
    return body.text()


def _assign(assignment: Assignment, strings: Sequence[String], params: str) -> str:
    extra = "".join(f", i64 %s{index}, i64 %l{index}" for index in range(len(strings)))
    body = _Body()
    body.line(f"%to = getelementptr i8, ptr %to_base, i64 {_COMMON}")
    fixed = assignment.size - _COMMON
    body.line(f"call void @llvm.memset.p0.i64(ptr align 8 %to, i8 0, i64 {fixed}, i1 false)")
    body.stores([item for item in assignment.items if not isinstance(item, String)])
    at_end: str = str(assignment.data_offset)
    for index, item in enumerate(strings):
        at_end = body.put_string(item, f"%s{index}", f"%l{index}", at_end)
    return (
        f'\ndefine internal void @"assign.{assignment.name}"(i64 %record{params}, ptr %env{extra}) alwaysinline nounwind {{\n'
        f"entry:\n  %to_base = inttoptr i64 %record to ptr\n{body.text()}\n  ret void\n}}\n"
    )


_COMMON = 8
"""Bytes of the common fields, which are set elsewhere."""


class _Body:
    """Lines of a function with `%to_base` (the record), `%aN` and `%env`."""

    def __init__(self, prefix: str = "v") -> None:
        self._prefix = prefix
        self._lines: list[str] = []
        self._count = 0
        self._addresses: dict[Address, str] = {}

    def text(self) -> str:
        return "\n".join(line if line.endswith(":") else f"  {line}" for line in self._lines)

    def line(self, text: str) -> None:
        self._lines.append(text)

    def value(self, text: str) -> str:
        self._count += 1
        self.line(f"%{self._prefix}{self._count} = {text}")
        return f"%{self._prefix}{self._count}"

    def label(self) -> str:
        self._count += 1
        return f"{self._prefix}b{self._count}"

    def env(self, offset: int) -> str:
        where = self.value(f"getelementptr i8, ptr %env, i64 {offset}")
        return self.value(f"load i64, ptr {where}, align 8")

    def readable(self, address: str, end: int) -> str:
        """i1: whether the bytes [address, address + end) lie in the arena."""
        offset = self.value(f"sub i64 {address}, {self.env(Env.layout.at('arena_base'))}")
        room = self.value(f"sub i64 {self.env(Env.layout.at('arena_size'))}, {end}")
        return self.value(f"icmp ule i64 {offset}, {room}")

    def load(self, address: str, offset: int, size: int, signed: bool) -> str:
        """i64: an integer at address + offset, which is readable."""
        where = self.value(f"inttoptr i64 {self.value(f'add i64 {address}, {offset}')} to ptr")
        found = self.value(f"load i{8 * size}, ptr {where}, align 1")
        return found if size == 8 else self.value(f"{'sext' if signed else 'zext'} i{8 * size} {found} to i64")

    def load_or_zero(self, address: str, offset: int, size: int, signed: bool) -> str:
        """i64: an integer at address + offset, 0 where that is not readable."""
        before, good, after = self.label(), self.label(), self.label()
        self.line(f"br label %{before}")
        self.line(f"{before}:")
        self.line(f"br i1 {self.readable(address, offset + size)}, label %{good}, label %{after}")
        self.line(f"{good}:")
        found = self.load(address, offset, size, signed)
        self.line(f"br label %{after}")
        self.line(f"{after}:")
        return self.value(f"phi i64 [ 0, %{before} ], [ {found}, %{good} ]")

    def address(self, what: Address) -> str:
        """i64: an address; to be asked for outside of branches."""
        if what not in self._addresses:
            if isinstance(what, Arg):
                found = f"%a{what.index}"
            elif isinstance(what, CurrentTask):
                found = self.env(_CURRENT)
            else:
                found = self.load_or_zero(self.address(what.base), what.offset, 8, False)
            self._addresses[what] = found
        return self._addresses[what]

    def integer(self, value: Value) -> str:
        """i64: a value; to be asked for outside of branches."""
        if isinstance(value, Arg):
            if value.size == 8:
                return f"%a{value.index}"
            narrow = self.value(f"trunc i64 %a{value.index} to i{8 * value.size}")
            return self.value(f"{'sext' if value.signed else 'zext'} i{8 * value.size} {narrow} to i64")
        if isinstance(value, Member):
            return self.load_or_zero(self.address(value.base), value.offset, value.size, value.signed)
        if isinstance(value, Jiffies):
            return self.value("call i64 @bpf_jiffies64(ptr %env)")
        return self._switch_state(value)

    def _switch_state(self, what: SwitchState) -> str:
        """Kernel: include/trace/events/sched.h:__trace_sched_switch_state, include/linux/sched.h:__task_state_index."""
        preempt, state, exit_state = (self.integer(value) for value in (what.preempt, what.state, what.exit_state))
        idle, idle_state, stopped = 0x402, what.report_max >> 1, 0x1000 | 0x8000  # TASK_RTLOCK_WAIT, TASK_FROZEN: reported as D
        both = self.value(f"or i64 {state}, {exit_state}")
        report = self.value(f"and i64 {both}, {idle_state - 1}")
        is_idle = self.value(f"icmp eq i64 {self.value(f'and i64 {state}, {idle}')}, {idle}")
        report = self.value(f"select i1 {is_idle}, i64 {idle_state}, i64 {report}")
        is_running = self.value(f"icmp eq i64 {self.value(f'and i64 {state}, {stopped}')}, 0")
        report = self.value(f"select i1 {is_running}, i64 {report}, i64 2")
        zeros = self.value(f"call i64 @llvm.ctlz.i64(i64 {report}, i1 false)")
        highest = self.value(f"lshr i64 {-(1 << 63)}, {self.value(f'and i64 {zeros}, 63')}")
        none = self.value(f"icmp eq i64 {report}, 0")
        highest = self.value(f"select i1 {none}, i64 0, i64 {highest}")
        is_preempted = self.value(f"icmp ne i64 {preempt}, 0")
        return self.value(f"select i1 {is_preempted}, i64 {what.report_max}, i64 {highest}")

    # into the record

    def put(self, offset: int, size: int, value: str) -> None:
        where = self.value(f"getelementptr i8, ptr %to_base, i64 {offset}")
        narrow = value if size == 8 else self.value(f"trunc i64 {value} to i{8 * size}")
        self.line(f"store i{8 * size} {narrow}, ptr {where}, align 1")

    def stores(self, items: Iterable[Integer | Copy]) -> None:
        """Everything but strings; what one pointer leads to is checked once."""
        by_base: dict[Address, list[Integer | Copy]] = {}
        for item in items:
            if isinstance(item, Copy):
                by_base.setdefault(item.base, []).append(item)
            elif isinstance(item.value, Member):
                by_base.setdefault(item.value.base, []).append(item)
            else:
                self.put(item.offset, item.size, self.integer(item.value))
        for base, group in by_base.items():
            self._group(self.address(base), group)

    def _group(self, base: str, group: Sequence[Integer | Copy]) -> None:
        end = max(item.at + item.size if isinstance(item, Copy) else _end(item.value) for item in group)
        good, after = self.label(), self.label()
        self.line(f"br i1 {self.readable(base, end)}, label %{good}, label %{after}")
        self.line(f"{good}:")
        for item in group:
            if isinstance(item, Copy):
                source = self.value(f"inttoptr i64 {self.value(f'add i64 {base}, {item.at}')} to ptr")
                where = self.value(f"getelementptr i8, ptr %to_base, i64 {item.offset}")
                self.line(
                    f"call void @llvm.memcpy.p0.p0.i64(ptr align 1 {where}, ptr align 1 {source}, i64 {item.size}, i1 false)"
                )
            elif isinstance(item.value, Member):
                member = item.value
                self.put(item.offset, item.size, self.load(base, member.offset, member.size, member.signed))
        self.line(f"br label %{after}")
        self.line(f"{after}:")

    def string(self, item: String) -> tuple[str, str]:
        """(address of a readable text, its bytes with the NUL that the record will have)."""
        address = self.address(item.address)
        good = self.readable(address, 1)
        null = self.value("ptrtoint ptr @null_text to i64")
        arena_end = self.value(f"add i64 {self.env(Env.layout.at('arena_base'))}, {self.env(Env.layout.at('arena_size'))}")
        room = self.value(f"sub i64 {arena_end}, {address}")
        text = self.value(f"select i1 {good}, i64 {address}, i64 {null}")
        room = self.value(f"select i1 {good}, i64 {room}, i64 7")
        limit = self.value(f"call i64 @llvm.umin.i64(i64 {room}, i64 {(item.size or _MAX_STRING) - 1})")
        length = self.value(f"call i64 @trace_strnlen(i64 {text}, i64 {limit})")
        return text, self.value(f"add i64 {length}, 1")

    def put_string(self, item: String, address: str, length: str, at_end: str) -> str:
        """Store one text; where the next variable one goes."""
        if not item.size:
            high = self.value(f"shl i64 {length}, 16")
            self.put(item.offset, 4, self.value(f"or i64 {high}, {at_end}"))
        place = str(item.offset) if item.size else at_end
        where = self.value(f"getelementptr i8, ptr %to_base, i64 {place}")
        source = self.value(f"inttoptr i64 {address} to ptr")
        count = self.value(f"sub i64 {length}, 1")
        self.line(f"call void @llvm.memcpy.p0.p0.i64(ptr align 1 {where}, ptr align 1 {source}, i64 {count}, i1 false)")
        end = self.value(f"getelementptr i8, ptr {where}, i64 {count}")
        self.line(f"store i8 0, ptr {end}, align 1")
        return at_end if item.size else self.value(f"add i64 {at_end}, {length}")


def _end(value: Value) -> int:
    return value.offset + value.size if isinstance(value, Member) else 0
