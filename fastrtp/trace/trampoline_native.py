"""bpf_trace_run1..12, the cast shims __bpf_trace_<class>, and the calls of a tracepoint's probes: numba, from one template each.

A shim casts each argument to an unsigned integer of the argument's size and widens it (CAST_TO_U64: zero-extension even
for signed ints), then goes on to bpf_trace_run<N>, which guards against recursion, builds `u64 args[N]` on the stack and
calls the program. One shim serves all tracepoints whose arguments have the same widths; it is named by them:
`__bpf_trace_884` takes two 8-byte arguments and a 4-byte one. It serves the programs of which was not known at load where
they would be attached; the others have a probe of their own (jit/probe_text.py), made of the same pieces.

What an event pays for is calls through pointers: each costs about 1 ns more than what is in it. So trace_call<N> is inlined
by the loops that fire events, bpf_trace_run<N> is inside the shims, and the shim inside the program's own probe.

Kernel: include/trace/bpf_probe.h, kernel/trace/bpf_trace.c:__bpf_trace_run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastrtp.maps.timer_native import run_due_timers
from fastrtp.native.intrinsics import (
    ALWAYS_INLINE,
    REGISTRY,
    NativeFunction,
    call_probe,
    call_prog,
    clock_gettime,
    device,
    device_inline,
    load64,
    memcpy,
    native,
    outline,
    stack_bytes,
    store64,
)
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import (
    STATS_TIMED,
    Env,
    Link,
    Machine,
    Prog,
    ProgStats,
    RunCtx,
    TracepointFuncRecord,
    TracepointRecord,
)
from fastrtp.trace.widths import MAX_ARGS, SHIM_WIDTHS

_FIRST = TracepointRecord.layout.at("first")
_OTHERS = TracepointRecord.layout.at("others")
_FUNC = TracepointFuncRecord.layout.at("func")
_DATA = TracepointFuncRecord.layout.at("data")
_FUNC_SIZE = TracepointFuncRecord.layout.size
_LINK_COOKIE = Link.layout.at("cookie")
_CLOCK_MONOTONIC = 1


@device
def _now() -> int:
    spec = stack_bytes(16)
    clock_gettime(_CLOCK_MONOTONIC, spec)
    return load64(spec) * 1_000_000_000 + load64(spec + 8)


@native()
def bpf_prog_run_timed(prog: Prog, stats: ProgStats, args: int, env: Env) -> int:
    """The run while BPF_ENABLE_STATS is held."""
    start = _now()
    result = call_prog(prog.entry, args, int(env))
    stats.run_time_ns = stats.run_time_ns + _now() - start
    stats.run_cnt = stats.run_cnt + 1
    return result


_run_timed = outline("bpf_prog_run_timed", 4)


@native(inline=True)
def bpf_run_stats(link: Link, env: Env) -> int:
    """Address of the program's ProgStats on this CPU."""
    return int(link.stats[env.cpu])


@native(inline=True)
def bpf_run_is_plain(stats: ProgStats, nests: int, env: Env) -> int:
    """1 unless the program is running on this CPU already, or something is special about all runs (Env.stats).

    `nests` (a constant): whether an event can fire while it runs, without which it is never found running: nothing interrupts
    a CPU of ours.
    """
    special = env.stats
    if nests != 0:
        special |= stats.active
    return 1 if special == 0 else 0


@native(inline=True)
def bpf_run_begin(stats: ProgStats, nests: int) -> int:
    """Mark the program as running, where that can be seen."""
    if nests != 0:
        stats.active = 1
    return 0


@native(inline=True)
def bpf_run_ctx(link: Link, run_ctx: int, env: Env) -> int:
    """The run's RunCtx: the link's cookie, and no tail calls so far.

    Nobody puts back the one before: a helper that fires an event itself keeps its program's, not every run that of a run
    around it.
    """
    memcpy(run_ctx, int(link) + _LINK_COOKIE, 16)
    env.run_ctx = RunCtx(run_ctx)
    return 0


@native(inline=True)
def bpf_run_end(stats: ProgStats, nests: int) -> int:
    """Count the run, and let the next one begin."""
    stats.runs = stats.runs + 1
    if nests != 0:
        stats.active = 0
    return 0


@native()
def bpf_trace_run_slow(link: Link, args: int, run_ctx: int, env: Env) -> int:
    """A run that is not plain: a miss, or timed, or of the program's form for several CPUs."""
    stats = ProgStats(bpf_run_stats(link, env))
    if stats.active != 0:
        stats.misses = stats.misses + 1
        return 0
    bpf_run_begin(stats, 1)
    bpf_run_ctx(link, run_ctx, env)
    prog = link.prog
    if env.stats & STATS_TIMED:
        bpf_prog_run_timed(prog, stats, args, env)
    else:
        call_prog(prog.entry, args, int(env))
    bpf_run_end(stats, 1)
    return 0


_trace_run_slow = outline("bpf_trace_run_slow", 4)


@device_inline
def bpf_trace_run(link: Link, args: int, run_ctx: int, env: Env) -> None:
    """Guard, count and run. `run_ctx` lies behind args[]: below it is what the program may read of the stack."""
    stats = ProgStats(bpf_run_stats(link, env))
    if bpf_run_is_plain(stats, 1, env) == 0:
        _trace_run_slow(int(link), args, run_ctx, int(env))
        return
    bpf_run_begin(stats, 1)
    bpf_run_ctx(link, run_ctx, env)
    call_prog(link.prog.entry, args, int(env))
    bpf_run_end(stats, 1)


_RUN = """
def bpf_trace_run{n}(link, {params}, env):
    args = stack_bytes({room})
{stores}
    bpf_trace_run(link, args, args + {size}, env)
    return 0
"""

_SHIM = """
def __bpf_trace_{widths}(data, {params}, env):
    return bpf_trace_run{n}(data, {casts}, env)
"""

_TRACE = """
def trace_call{n}(tracepoint, args, env):
    call(load64(tracepoint + {first} + {at_func}), load64(tracepoint + {first} + {at_data}), {values}, env)
    func = load64(tracepoint + {others})
    if func != 0:
        probe = load64(func + {at_func})
        while probe != 0:
            call(probe, load64(func + {at_data}), {values}, env)
            func += {step}
            probe = load64(func + {at_func})
    return 0
"""


def _compile(source: str, name: str, *, inline: bool = False, **names: Any) -> Any:
    scope = {"stack_bytes": stack_bytes, "store64": store64, "load64": load64, "bpf_trace_run": bpf_trace_run, **names}
    scope["__name__"] = __name__
    exec(source, scope)
    scope[name].__doc__ = f"{name}, made from the template of this module."
    return native(inline=inline)(scope[name])


def cast(width: int, value: str) -> str:
    """Source of CAST_TO_U64 of an argument of `width` bytes."""
    return value if width == 8 else f"{value} & {(1 << 8 * width) - 1:#x}"


def _define_runs() -> dict[int, Any]:
    """bpf_trace_run<N> and trace_call<N> for every N."""
    runs: dict[int, Any] = {}
    for n in range(1, MAX_ARGS + 1):
        params = ", ".join(f"a{index}" for index in range(n))
        stores = "\n".join(f"    store64(args + {8 * index}, a{index})" for index in range(n))
        source = _RUN.format(n=n, params=params, size=8 * n, room=8 * n + RunCtx.layout.size, stores=stores)
        ALWAYS_INLINE.add(f"bpf_trace_run{n}")  # into its shims: a call and six saved registers less on the way to a program
        runs[n] = _compile(source, f"bpf_trace_run{n}")
        values = ", ".join(f"load64(args + {8 * index})" for index in range(n))
        source = _TRACE.format(n=n, first=_FIRST, others=_OTHERS, at_func=_FUNC, at_data=_DATA, step=_FUNC_SIZE, values=values)
        _compile(source, f"trace_call{n}", inline=True, call=call_probe(n))
    return runs


_RUNS_BY_ARITY = _define_runs()


def define_shims(all_widths: Iterable[str]) -> dict[str, NativeFunction]:
    """Register the cast shims of these argument widths; the registered functions by name."""
    made = {}
    for widths in all_widths:
        n = len(widths)
        params = [f"a{index}" for index in range(n)]
        casts = ", ".join(cast(int(width), param) for width, param in zip(widths, params, strict=True))
        name = f"__bpf_trace_{widths}"
        source = _SHIM.format(widths=widths, n=n, params=", ".join(params), casts=casts)
        _compile(source, name, **{f"bpf_trace_run{n}": _RUNS_BY_ARITY[n]})
        made[name] = REGISTRY[name]
    return made


define_shims(SHIM_WIDTHS)


@native()
def bpf_prog_test_run_raw_tp(machine: Machine, prog: Prog, ctx: int, cpu: int) -> int:
    """Run once on a copy of the 96 bytes at `ctx`; R0 as 64 bits. Kernel: net/bpf/test_run.c:bpf_prog_test_run_raw_tp."""
    args = stack_bytes(96 + 16)
    run_ctx = RunCtx(args + 96)
    memcpy(args, ctx, 96)
    run_ctx.cookie = 0
    run_ctx.tail_calls = 0
    run_ctx.ctx_size = 96
    enter(machine)
    run_due_timers(machine)
    env = machine.env[cpu]
    env.run_ctx = run_ctx
    stats = prog.stats[cpu]
    entry = prog.entry
    result = (
        call_prog(entry, args, int(env)) if env.stats & STATS_TIMED == 0 else _run_timed(int(prog), int(stats), args, int(env))
    )
    stats.runs = stats.runs + 1
    leave(machine)
    return result
