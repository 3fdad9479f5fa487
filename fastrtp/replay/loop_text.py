"""The replay loop as LLVM IR: one function with a branch for each kind of event, in which everything that is known is inline.

    i64 replay_run(ptr state, i64 limit)      how many events were played; below 0: none, see fused_begin in loop_native.py

What a kind does depends on the tier. Linked: the static key is tested and the tracepoint's probes are walked (trace_call<N>,
inline), so that a probe is one call through a pointer away, and may change between two chunks. Fused: the programs
themselves, for one set of links.

Columns, counters and records are symbols, so that the same recording layout and programs find their code in the cache.
Their numbers follow a colon: LLVM renames what it has twice to "name.N", and would meet ours.
The loop is a function of its own: everything in its frame, the programs' stacks too, lies below the frame of its caller,
where they are told that their stack ends.

Pure: text. Must not know: links, memory, LLVM's API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastrtp.maps.records import RingConsumer
from fastrtp.native.records import Env, Machine, TracepointRecord
from fastrtp.replay.records import Replay

COLUMNS = ("time", "cpu", "event", "row", "current", "stacks")
"""Symbols of the recording's columns; also fields of REPLAY."""
SURROUNDINGS = ("time", "current", "kernel_stack", "user_stack")
"""Fields of ENV that are the event's."""
RUN = "replay_run"
"""Symbol of the loop's entry."""
_STACK_ROW = 16  # uint64[2]: kernel, user


@dataclass(frozen=True)
class Kind:
    """What happens at one kind of event.

    `maker`: symbol of the code that builds arguments; `stores`: whether it also brings objects up to date; `has_after`:
    whether there is code that does so behind the probes. `widths`: sizes of the arguments in bytes. Programs are inlined,
    `programs` (symbols of their entries), or called through the probes of `tracepoint` (a symbol), or there are none.
    `needs`: the SURROUNDINGS that inlined programs ask for, and "run_ctx" where they ask where their stack ends.
    """

    number: int
    maker: str
    stores: bool = False
    has_after: bool = False
    widths: str = ""
    programs: tuple[str, ...] = ()
    tracepoint: str = ""
    needs: frozenset[str] = frozenset()

    def at(self, widths: str, **what: Any) -> Kind:
        """The same with something to run: `tracepoint`, or `programs` and `needs`."""
        return replace(self, widths=widths, **what)


def loop_text(
    kinds: Sequence[Kind], cpus: int, *, fused: bool, stacks: bool = False, timers: bool = False, consumer: str = ""
) -> str:
    """IR of replay_run and of all it calls, but for the makers and the programs.

    `fused`: it runs between fused_begin and fused_end, and counts. `stacks`: the recording has stacks. `timers`: those that are
    due are run before each event. `consumer`: rings are read now and then, by the clock "events" or "ns" (consumer.py).
    """
    names = [*COLUMNS, "envs", "machine", "counts", "last", *dict.fromkeys(kind.tracepoint for kind in kinds if kind.tracepoint)]
    names += ["consumer"] if consumer else []
    lines = [f'@"{name}" = external global [0 x i8]' for name in names]
    calls = {len(kind.widths): "" for kind in kinds if kind.tracepoint}
    lines += [f"declare i64 @trace_call{count}(i64, i64, ptr)" for count in calls]
    programs = {symbol: "" for kind in kinds for symbol in kind.programs}
    lines += [f'declare i64 @"{symbol}"(ptr, ptr)' for symbol in programs]
    for kind in kinds:
        lines.append(f'declare void @"{kind.maker}"(i64, ptr)')
        if kind.has_after:
            lines.append(f'declare void @"{kind.maker}:after"(i64, ptr)')
    for kind in kinds:
        lines += _kind(kind, cpus, fused, stacks)
    return "\n".join([*lines, *_loop(kinds, timers, consumer), _FUSED_RUN if fused else _LINKED_RUN, _TRAILER])


def _kind(kind: Kind, cpus: int, fused: bool, stacks: bool) -> list[str]:
    """The function of one kind: arguments, stores, probes or programs, stores behind them; 1 when there were probes. Events with
    programs are counted already, and the loop is shorter without a second count.
    """
    make = f'  call void @"{kind.maker}"(i64 %row, ptr %args)'
    always = kind.stores or kind.has_after
    lines = [
        f'define internal i64 @"kind:{kind.number}"(i64 %i, i64 %run_ctx) alwaysinline nounwind {{',
        "entry:",
        f"  %args = alloca [{8 * max(len(kind.widths), 1)} x i8], align 16",
        "  %row_at = getelementptr i32, ptr @row, i64 %i",
        "  %row32 = load i32, ptr %row_at, align 4, !invariant.load !0",
        "  %row = zext i32 %row32 to i64",
    ]
    if kind.tracepoint:
        lines += [
            *([make] if always else []),
            f'  %key_at = getelementptr i8, ptr @"{kind.tracepoint}", i64 {TracepointRecord.layout.at("key")}',
            "  %key = load i64, ptr %key_at, align 8",
            "  %live = icmp ne i64 %key, 0",
            "  %fired = zext i1 %live to i64",
            "  br i1 %live, label %fire, label %quiet",
            "fire:",
            *([] if always else [make]),
            *_env(),
            *_surroundings(frozenset(SURROUNDINGS), stacks),
            *(_last() if fused else []),
            "  %args_at = ptrtoint ptr %args to i64",
            f'  %tracepoint = ptrtoint ptr @"{kind.tracepoint}" to i64',
            f"  %probed = call i64 @trace_call{len(kind.widths)}(i64 %tracepoint, i64 %args_at, ptr %env)",
            "  br label %quiet",
            "quiet:",
        ]
    else:
        lines += [make, "  %fired = add i64 0, 0"]
        if kind.programs:
            lines += [*_env(), *_last(), *_count(kind, cpus), *_surroundings(kind.needs, stacks), *_inlined(kind)]
    if kind.has_after:
        lines.append(f'  call void @"{kind.maker}:after"(i64 %row, ptr %args)')
    return [*lines, "  ret i64 %fired", "}"]


def _env() -> list[str]:
    return [
        "  %cpu_at = getelementptr i16, ptr @cpu, i64 %i",
        "  %cpu16 = load i16, ptr %cpu_at, align 2, !invariant.load !0",
        "  %cpu = zext i16 %cpu16 to i64",
        f"  %env_offset = mul i64 %cpu, {Env.layout.size}",
        "  %env = getelementptr i8, ptr @envs, i64 %env_offset",
    ]


def _last() -> list[str]:
    """Which event was the last of its CPU: its surroundings are what the chunk leaves behind."""
    return ["  %last_at = getelementptr i64, ptr @last, i64 %cpu", "  store i64 %i, ptr %last_at, align 8"]


def _count(kind: Kind, cpus: int) -> list[str]:
    return [
        f"  %count_index = add i64 %cpu, {kind.number * cpus}",
        "  %count_at = getelementptr i64, ptr @counts, i64 %count_index",
        "  %count = load i64, ptr %count_at, align 8",
        "  %count_more = add i64 %count, 1",
        "  store i64 %count_more, ptr %count_at, align 8",
    ]


def _surroundings(needs: frozenset[str], stacks: bool) -> list[str]:
    """What programs ask of the event, in Env."""
    lines = []
    for field in ("time", "current"):
        if field in needs:
            lines += [f"  %{field}_at = getelementptr i64, ptr @{field}, i64 %i", *_env_field(field, f"%{field}_at")]
    for offset, field in enumerate(("kernel_stack", "user_stack")):
        if field in needs and stacks:
            lines += [
                f"  %{field}_index = mul i64 %i, {_STACK_ROW}",
                f"  %{field}_row = getelementptr i8, ptr @stacks, i64 %{field}_index",
                f"  %{field}_at = getelementptr i8, ptr %{field}_row, i64 {8 * offset}",
                *_env_field(field, f"%{field}_at"),
            ]
    if "run_ctx" in needs:
        lines += [
            f"  %run_ctx_env = getelementptr i8, ptr %env, i64 {Env.layout.at('run_ctx')}",
            "  store i64 %run_ctx, ptr %run_ctx_env, align 8",
        ]
    return lines


def _env_field(field: str, source: str) -> list[str]:
    return [
        f"  %{field}_now = load i64, ptr {source}, align 8, !invariant.load !0",
        f"  %{field}_env = getelementptr i8, ptr %env, i64 {Env.layout.at(field)}",
        f"  store i64 %{field}_now, ptr %{field}_env, align 8",
    ]


def _inlined(kind: Kind) -> list[str]:
    """CAST_TO_U64 of every argument, then the programs in their order: no program can write to its context."""
    context, lines = "%args", []
    if kind.widths.strip("8"):
        context = "%ctx"
        lines.append(f"  %ctx = alloca [{8 * len(kind.widths)} x i8], align 16")
        for index, width in enumerate(kind.widths):
            bits = 8 * int(width)
            lines += [
                f"  %from{index} = getelementptr i8, ptr %args, i64 {8 * index}",
                f"  %to{index} = getelementptr i8, ptr %ctx, i64 {8 * index}",
                f"  %full{index} = load i64, ptr %from{index}, align 8",
                f"  %cast{index} = and i64 %full{index}, {(1 << bits) - 1 if bits < 64 else -1}",
                f"  store i64 %cast{index}, ptr %to{index}, align 8",
            ]
    for index, symbol in enumerate(kind.programs):
        lines.append(f'  %r{index} = call i64 @"{symbol}"(ptr {context}, ptr %env)')
    return lines


def _loop(kinds: Sequence[Kind], timers: bool, consumer: str) -> list[str]:
    cases = "\n".join(f"    i16 {_signed16(kind.number)}, label %k{kind.number}" for kind in kinds)
    before = [text for text, wanted in ((_CONSUMER.get(consumer, ""), consumer), (_TIMERS, timers)) if wanted]
    lines = [_LOOP_HEAD, *before, _LOOP_KIND, f"  switch i16 %kind, label %next [\n{cases}\n  ]"]
    for kind in kinds:
        call = f'  %f{kind.number} = call i64 @"kind:{kind.number}"(i64 %i, i64 %run_ctx)'
        lines += [f"k{kind.number}:", call, "  br label %next"]
    last = "event" if timers else "read" if consumer else "loop"
    arms = "".join(f", [ %f{kind.number}, %k{kind.number} ]" for kind in kinds)
    return [*lines, f"next:\n  %one = phi i64 [ 0, %{last} ]{arms}", _LOOP_TAIL]


def _signed16(number: int) -> int:
    return number - (1 << 16) if number >> 15 else number


_LOOP_HEAD = """define internal i64 @replay_loop(i64 %first, i64 %end, i64 %run_ctx) noinline nounwind {
entry:
  %some = icmp ult i64 %first, %end
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %first, %entry ], [ %after, %next ]
  %sum = phi i64 [ 0, %entry ], [ %more_fired, %next ]"""

_READ_NOW = {
    "events": "  %read_now = add i64 %i, 0",
    "ns": """  %read_now_at = getelementptr i64, ptr @time, i64 %i
  %read_now = load i64, ptr %read_now_at, align 8, !invariant.load !0""",
}
_CONSUMER = {
    clock: f"""  %read_due_at = getelementptr i8, ptr @consumer, i64 {RingConsumer.layout.at("due")}
  %read_due = load i64, ptr %read_due_at, align 8
{now}
  %reads = icmp sle i64 %read_due, %read_now
  br i1 %reads, label %reader, label %read, !prof !1
reader:
  %consumer_at = ptrtoint ptr @consumer to i64
  %woken = call i64 @consumer_wake(i64 %consumer_at, i64 %read_now)
  br label %read
read:"""
    for clock, now in _READ_NOW.items()
}

_TIMERS = f"""  %due_at = getelementptr i8, ptr @machine, i64 {Machine.layout.at("timer_next")}
  %due = load i64, ptr %due_at, align 8
  %now_at = getelementptr i64, ptr @time, i64 %i
  %now = load i64, ptr %now_at, align 8, !invariant.load !0
  %expired = icmp sle i64 %due, %now
  br i1 %expired, label %timers, label %event, !prof !1
timers:
  %machine_at = ptrtoint ptr @machine to i64
  %ran = call i64 @timers_run(i64 %machine_at, i64 %now)
  br label %event
event:"""

_LOOP_KIND = """  %kind_at = getelementptr i16, ptr @event, i64 %i
  %kind = load i16, ptr %kind_at, align 2, !invariant.load !0"""

_LOOP_TAIL = """  %more_fired = add i64 %sum, %one
  %after = add nuw i64 %i, 1
  %more = icmp ult i64 %after, %end
  br i1 %more, label %loop, label %done
done:
  %fired = phi i64 [ 0, %entry ], [ %more_fired, %next ]
  ret i64 %fired
}"""

_LINKED_RUN = f"""define i64 @{RUN}(i64 %replay, i64 %limit) nounwind {{
entry:
  %end = call i64 @replay_begin(i64 %replay, i64 %limit)
  %replay_at = inttoptr i64 %replay to ptr
  %position_at = getelementptr i8, ptr %replay_at, i64 {Replay.layout.at("position")}
  %first = load i64, ptr %position_at, align 8
  %fired = call i64 @replay_loop(i64 %first, i64 %end, i64 0)
  %played = call i64 @replay_end(i64 %replay, i64 %end, i64 %fired)
  ret i64 %played
}}
declare i64 @replay_begin(i64, i64)
declare i64 @replay_end(i64, i64, i64)"""

_FUSED_RUN = f"""define i64 @{RUN}(ptr %fused, i64 %limit) nounwind {{
entry:
  %stack_end = alloca i64, align 8
  %run_ctx = ptrtoint ptr %stack_end to i64
  %fused_at = ptrtoint ptr %fused to i64
  %end = call i64 @fused_begin(i64 %fused_at, i64 %limit)
  %refused = icmp slt i64 %end, 0
  br i1 %refused, label %refuse, label %play
refuse:
  ret i64 %end
play:
  %replay = load ptr, ptr %fused, align 8
  %position_at = getelementptr i8, ptr %replay, i64 {Replay.layout.at("position")}
  %first = load i64, ptr %position_at, align 8
  %fired = call i64 @replay_loop(i64 %first, i64 %end, i64 %run_ctx)
  %played = call i64 @fused_end(i64 %fused_at, i64 %end, i64 %fired)
  ret i64 %played
}}
declare i64 @fused_begin(i64, i64)
declare i64 @fused_end(i64, i64, i64)"""

_TRAILER = """declare i64 @timers_run(i64, i64)
declare i64 @consumer_wake(i64, i64)
!0 = !{}
!1 = !{!"branch_weights", i32 1, i32 1000}
"""
