"""The fused loop as LLVM IR: one function with a branch for each kind of event, its programs called by name.

    i64 fused_run(ptr fused, i64 limit)      how many events were played; below 0: none, see fused_begin in loop_native.py

Columns, counters and records are symbols, so that the same recording layout and programs find their code in the cache.
The loop is a function of its own: everything in its frame, the programs' stacks too, lies below the run_ctx of its caller,
as in bpf_trace_run.

Pure: text. Must not know: links, memory, LLVM's API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastrtp.native.layout import ENV, ENV_STRIDE, REPLAY, RUN_CTX, at

COLUMNS = ("time", "cpu", "event", "row", "current")
"""Symbols of the recording's columns; also fields of REPLAY."""


@dataclass(frozen=True)
class Kind:
    """What happens at one kind of event.

    `maker`: symbol of the code that builds arguments; `sources`: offset of its columns in the table @sources, bytes.
    `widths`: sizes of the arguments in bytes. Programs are inlined, `programs` (symbols of their entries), or called through
    the probes of `tracepoint` (a symbol) by trace_call<N>, or there are none.
    """

    number: int
    maker: str
    sources: int
    has_after: bool
    widths: str = ""
    programs: tuple[str, ...] = ()
    tracepoint: str = ""
    needs_time: bool = False
    needs_current: bool = False

    @property
    def live(self) -> bool:
        """Whether it has programs."""
        return bool(self.programs or self.tracepoint)


def fused_text(kinds: Sequence[Kind], cpus: int) -> str:
    """IR of fused_run and of all it calls, but for the makers and the programs."""
    names = dict.fromkeys((*COLUMNS, "sources", "counts", "last", "envs"), "")
    lines = [f"@{name} = external global [0 x i8]" for name in names]
    lines += ["declare i64 @fused_begin(i64, i64)", "declare i64 @fused_end(i64, i64)"]
    tracepoints = {kind.tracepoint: "" for kind in kinds if kind.tracepoint}
    lines += [f'@"{name}" = external global [0 x i8]' for name in tracepoints]
    calls = {len(kind.widths): "" for kind in kinds if kind.tracepoint}
    lines += [f"declare i64 @trace_call{count}(i64, i64, ptr)" for count in calls]
    programs = {symbol: "" for kind in kinds for symbol in kind.programs}
    lines += [f'declare i64 @"{symbol}"(ptr, ptr)' for symbol in programs]
    for kind in kinds:
        lines.append(f'declare void @"{kind.maker}"(i64, ptr, ptr)')
        if kind.has_after:
            lines.append(f'declare void @"{kind.maker}.after"(i64, ptr, ptr)')
    for kind in kinds:
        lines += _kind(kind, cpus)
    return "\n".join([*lines, *_loop(kinds), _RUN])


def _kind(kind: Kind, cpus: int) -> list[str]:
    """The function of one kind: arguments, stores, programs, stores behind them."""
    size = 8 * max(len(kind.widths), 1)
    lines = [
        f'define internal void @"kind.{kind.number}"(i64 %i) alwaysinline nounwind {{',
        f"  %args = alloca [{size} x i8], align 16",
        "  %row_at = getelementptr i32, ptr @row, i64 %i",
        "  %row32 = load i32, ptr %row_at, align 4, !invariant.load !0",
        "  %row = zext i32 %row32 to i64",
        f"  %sources = getelementptr i8, ptr @sources, i64 {kind.sources}",
        f'  call void @"{kind.maker}"(i64 %row, ptr %args, ptr %sources)',
    ]
    if kind.live:
        lines += _account(kind, cpus)
        lines += _through_probes(kind) if kind.tracepoint else _inlined(kind, size)
    if kind.has_after:
        lines.append(f'  call void @"{kind.maker}.after"(i64 %row, ptr %args, ptr %sources)')
    return [*lines, "  ret void", "}"]


def _account(kind: Kind, cpus: int) -> list[str]:
    """%env, the counters, and what programs ask of the event's surroundings."""
    lines = [
        "  %cpu_at = getelementptr i16, ptr @cpu, i64 %i",
        "  %cpu16 = load i16, ptr %cpu_at, align 2, !invariant.load !0",
        "  %cpu = zext i16 %cpu16 to i64",
        f"  %env_offset = mul i64 %cpu, {ENV_STRIDE}",
        "  %env = getelementptr i8, ptr @envs, i64 %env_offset",
        "  %last_at = getelementptr i64, ptr @last, i64 %cpu",
        "  store i64 %i, ptr %last_at, align 8",
        f"  %count_index = add i64 %cpu, {kind.number * cpus}",
        "  %count_at = getelementptr i64, ptr @counts, i64 %count_index",
        "  %count = load i64, ptr %count_at, align 8",
        "  %count_more = add i64 %count, 1",
        "  store i64 %count_more, ptr %count_at, align 8",
    ]
    for field, wanted in (("time", kind.needs_time), ("current", kind.needs_current)):
        if wanted or kind.tracepoint:
            lines += [
                f"  %{field}_at = getelementptr i64, ptr @{field}, i64 %i",
                f"  %{field}_now = load i64, ptr %{field}_at, align 8, !invariant.load !0",
                f"  %{field}_env = getelementptr i8, ptr %env, i64 {at(ENV, field)}",
                f"  store i64 %{field}_now, ptr %{field}_env, align 8",
            ]
    return lines


def _through_probes(kind: Kind) -> list[str]:
    """trace_call<N>; its runs leave a run_ctx of their own behind, which has to go again."""
    return [
        "  %args_at = ptrtoint ptr %args to i64",
        f"  %run_ctx_at = getelementptr i8, ptr %env, i64 {at(ENV, 'run_ctx')}",
        "  %run_ctx = load i64, ptr %run_ctx_at, align 8",
        f'  %tracepoint = ptrtoint ptr @"{kind.tracepoint}" to i64',
        f"  %probed = call i64 @trace_call{len(kind.widths)}(i64 %tracepoint, i64 %args_at, ptr %env)",
        "  store i64 %run_ctx, ptr %run_ctx_at, align 8",
    ]


def _inlined(kind: Kind, size: int) -> list[str]:
    """CAST_TO_U64 of every argument, then the programs in their order: no program can write to its context."""
    context, lines = "%args", []
    if kind.widths.strip("8"):
        context = "%ctx"
        lines.append(f"  %ctx = alloca [{size} x i8], align 16")
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


def _loop(kinds: Sequence[Kind]) -> list[str]:
    cases = "\n".join(f"    i16 {_signed16(kind.number)}, label %k{kind.number}" for kind in kinds)
    lines = [_LOOP_HEAD, f"  switch i16 %kind, label %next [\n{cases}\n  ]"]
    for kind in kinds:
        lines += [f"k{kind.number}:", f'  call void @"kind.{kind.number}"(i64 %i)', "  br label %next"]
    return [*lines, _LOOP_TAIL]


def _signed16(number: int) -> int:
    return number - (1 << 16) if number >> 15 else number


_LOOP_HEAD = """define internal void @fused_loop(i64 %first, i64 %end) noinline nounwind {
entry:
  %some = icmp ult i64 %first, %end
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [ %first, %entry ], [ %after, %next ]
  %kind_at = getelementptr i16, ptr @event, i64 %i
  %kind = load i16, ptr %kind_at, align 2, !invariant.load !0"""

_LOOP_TAIL = """next:
  %after = add nuw i64 %i, 1
  %more = icmp ult i64 %after, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}"""

_RUN = f"""define i64 @fused_run(ptr %fused, i64 %limit) nounwind {{
entry:
  %run_ctx = alloca [{RUN_CTX.itemsize} x i8], align 16
  call void @llvm.memset.p0.i64(ptr align 16 %run_ctx, i8 0, i64 {RUN_CTX.itemsize}, i1 false)
  %run_ctx_at = ptrtoint ptr %run_ctx to i64
  %fused_at = ptrtoint ptr %fused to i64
  %refused = call i64 @fused_begin(i64 %fused_at, i64 %run_ctx_at)
  %go = icmp eq i64 %refused, 0
  br i1 %go, label %play, label %refuse
refuse:
  ret i64 %refused
play:
  %replay = load ptr, ptr %fused, align 8
  %position_at = getelementptr i8, ptr %replay, i64 {at(REPLAY, "position")}
  %end_at = getelementptr i8, ptr %replay, i64 {at(REPLAY, "end")}
  %first = load i64, ptr %position_at, align 8
  %last_end = load i64, ptr %end_at, align 8
  %chunk_end = add i64 %first, %limit
  %end = call i64 @llvm.smin.i64(i64 %chunk_end, i64 %last_end)
  call void @fused_loop(i64 %first, i64 %end)
  %played = call i64 @fused_end(i64 %fused_at, i64 %end)
  ret i64 %played
}}
declare i64 @llvm.smin.i64(i64, i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
!0 = !{{}}
"""
