"""Clocks, CPU, current task and random numbers. Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c."""

from __future__ import annotations

from errno import EINVAL

from fastrtp.native.intrinsics import clock_gettime, load32, load64, lshr, memcpy, memset, native, stack_bytes, udiv
from fastrtp.native.records import Env

_JIFFY = 4_000_000  # ns: CONFIG_HZ=250, Debian's and most distributions'
_INITIAL_JIFFIES = 0xFFFFFFFF & -(300 * 250)


@native()
def host_time(env: Env) -> int:
    """CLOCK_MONOTONIC of the host in ns: the clock of live events."""
    spec = stack_bytes(16)
    clock_gettime(1, spec)
    return load64(spec) * 1_000_000_000 + load64(spec + 8)


@native(inline=True)
def bpf_ktime_get_ns(env: Env) -> int:
    """CLOCK_MONOTONIC in ns: the event's recorded time, or the host's clock for live events."""
    return env.time if env.clock == 0 else host_time(env)


@native(inline=True)
def bpf_ktime_get_boot_ns(env: Env) -> int:
    """CLOCK_BOOTTIME in ns."""
    return bpf_ktime_get_ns(env) + env.boot_offset


@native(inline=True)
def bpf_ktime_get_tai_ns(env: Env) -> int:
    """CLOCK_TAI in ns."""
    return bpf_ktime_get_ns(env) + env.tai_offset


@native()
def bpf_jiffies64(env: Env) -> int:
    """Ticks since boot, offset as the kernel does so that 32-bit wraps show early."""
    return udiv(bpf_ktime_get_ns(env), _JIFFY) + _INITIAL_JIFFIES


@native(inline=True)
def bpf_get_smp_processor_id(env: Env) -> int:
    """The event's CPU."""
    return env.cpu


@native(inline=True)
def bpf_get_numa_node_id(env: Env) -> int:
    """The CPU's node."""
    return env.numa_node


@native(inline=True)
def bpf_get_current_pid_tgid(env: Env) -> int:
    """tgid << 32 | pid of the current task."""
    task = env.current
    if task == 0:
        return -EINVAL
    return (load32(task + env.tgid_at) << 32) | load32(task + env.pid_at)


@native(inline=True)
def bpf_get_current_uid_gid(env: Env) -> int:
    """gid << 32 | uid."""
    return env.uid_gid


@native()
def bpf_get_current_comm(buf: int, size: int, env: Env) -> int:
    """Command name of the current task, NUL-padded to `size`; -EINVAL (and zeroes) without one."""
    task = env.current
    memset(buf, 0, size)
    if task == 0:
        return -EINVAL
    count = size if size < 16 else 16
    memcpy(buf, task + env.comm_at, count)
    memset(buf + count - 1, 0, 1)
    return 0


@native(inline=True)
def bpf_get_current_task(env: Env) -> int:
    """Address of the current task_struct object."""
    return env.current


@native(inline=True)
def bpf_get_current_task_btf(env: Env) -> int:
    """The same, as a BTF pointer."""
    return env.current


@native(inline=True)
def bpf_get_prandom_u32(env: Env) -> int:
    """32 random bits (xorshift64*, a seed per CPU: runs can be repeated)."""
    state = env.rng
    state ^= lshr(state, 12)
    state ^= state << 25
    state ^= lshr(state, 27)
    env.rng = state
    return lshr(state * 2685821657736338717, 32)


@native(inline=True)
def bpf_get_attach_cookie(ctx: int, env: Env) -> int:
    """The link's cookie."""
    return env.run_ctx.cookie
