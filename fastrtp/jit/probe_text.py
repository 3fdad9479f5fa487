"""A program's own probe as LLVM IR: __bpf_trace_<class>, bpf_trace_run<N> and the program in one function.

    i64 bpf_probe(i64 link, i64 a1..aN, ptr env)      for one list of argument widths, as __bpf_trace_<widths>

An event then reaches its program through one pointer. What the program cannot notice is left out: the guard against
recursion where no event can fire while it runs, the RunCtx where nobody asks for it, arguments that it does not read (LLVM
sees that, where it inlines the program). The pieces are those that bpf_trace_run is made of (trace/trampoline_native.py).

Pure: text. Kernel: include/trace/bpf_probe.h, kernel/trace/bpf_trace.c:__bpf_trace_run.
"""

from __future__ import annotations

from fastrtp.jit.facts import ProgramFacts
from fastrtp.native.records import Env, RunCtx

PROBE = "bpf_probe"
"""Symbol of a program's probe."""


def probe_text(entry: str, widths: str, facts: ProgramFacts) -> str:
    """IR of a module with the probe of the program `entry`, for arguments of these sizes in bytes ("884")."""
    params = "".join(f", i64 %a{index}" for index in range(len(widths)))
    nests = int(facts.nests)
    room = 8 * max(len(widths), 1)
    return "\n".join(
        [
            f"define i64 @{PROBE}(i64 %link{params}, ptr %env) nounwind {{",
            "entry:",
            f"  %args = alloca [{room + (RunCtx.layout.size if facts.run_ctx else 0)} x i8], align 16",
            "  %stats = call i64 @bpf_run_stats(i64 %link, ptr %env)",
            f"  %plain = call i64 @bpf_run_is_plain(i64 %stats, i64 {nests}, ptr %env)",
            "  %special = icmp eq i64 %plain, 0",
            "  br i1 %special, label %slow, label %fast, !prof !0",
            "slow:",
            # a function of its own, so that nothing of it is in the way of the others: no frame, no saved registers
            f"  %slow.result = tail call i64 @{PROBE}.slow(i64 %link{params}, ptr %env)",
            "  ret i64 0",
            "fast:",
            *_arguments(widths),
            *(_run_ctx(room) if facts.run_ctx else _stack_end() if facts.stack else []),
            f"  %begun = call i64 @bpf_run_begin(i64 %stats, i64 {nests})",
            # the program's frame must lie below the RunCtx, which is the end of what it may name of the stack
            # inlined even where LLVM finds it long: it is what the probe is for (attributes #0)
            f"  %result = call i64 @{entry}(ptr %args, ptr %env){' noinline' if facts.run_ctx else ' #0'}",
            f"  %ended = call i64 @bpf_run_end(i64 %stats, i64 {nests})",
            "  ret i64 0",
            "}",
            f"define internal i64 @{PROBE}.slow(i64 %link{params}, ptr %env) noinline cold nounwind {{",
            "entry:",
            f"  %args = alloca [{room + RunCtx.layout.size} x i8], align 16",
            *_arguments(widths),
            "  %args.at = ptrtoint ptr %args to i64",
            f"  %run_ctx.at = add i64 %args.at, {room}",
            "  %result = call i64 @bpf_trace_run_slow(i64 %link, i64 %args.at, i64 %run_ctx.at, ptr %env)",
            "  ret i64 0",
            "}",
            _DECLARATIONS,
            f"declare i64 @{entry}(ptr, ptr)",
            "",
        ]
    )


def _arguments(widths: str) -> list[str]:
    """CAST_TO_U64 of every argument, in u64 args[N]."""
    lines = []
    for index, width in enumerate(widths):
        lines += [
            f"  %c{index} = and i64 %a{index}, {(1 << 8 * int(width)) - 1 if width != '8' else -1}",
            f"  %at{index} = getelementptr i8, ptr %args, i64 {8 * index}",
            f"  store i64 %c{index}, ptr %at{index}, align 8",
        ]
    return lines


def _run_ctx(offset: int) -> list[str]:
    """The RunCtx behind the arguments."""
    return [
        f"  %end = getelementptr i8, ptr %args, i64 {offset}",
        "  %run_ctx.at = ptrtoint ptr %end to i64",
        "  %ready = call i64 @bpf_run_ctx(i64 %link, i64 %run_ctx.at, ptr %env)",
    ]


def _stack_end() -> list[str]:
    """Everything in this frame may be named, and nothing above it."""
    return [
        "  %frame = call ptr @llvm.frameaddress.p0(i32 0)",
        "  %frame.at = ptrtoint ptr %frame to i64",
        f"  %run_ctx_at = getelementptr i8, ptr %env, i64 {Env.layout.at('run_ctx')}",
        "  store i64 %frame.at, ptr %run_ctx_at, align 8",
    ]


_DECLARATIONS = """declare i64 @bpf_run_stats(i64, ptr)
declare i64 @bpf_run_is_plain(i64, i64, ptr)
declare i64 @bpf_run_begin(i64, i64)
declare i64 @bpf_run_ctx(i64, i64, ptr)
declare i64 @bpf_run_end(i64, i64)
declare i64 @bpf_trace_run_slow(i64, i64, i64, ptr)
declare ptr @llvm.frameaddress.p0(i32)
attributes #0 = { "call-threshold-bonus"="1000" }
!0 = !{!"branch_weights", i32 1, i32 1000}"""
