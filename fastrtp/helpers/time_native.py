"""Clocks, CPU, current task and random numbers. Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c."""

from __future__ import annotations

from errno import EINVAL

from fastrtp.native.intrinsics import clock_gettime, load32, load64, lshr, memcpy, memset, native, stack_bytes, store64, udiv
from fastrtp.native.layout import ENV, RUN_CTX, at

_TIME = at(ENV, "time")
_CLOCK = at(ENV, "clock")
_BOOT = at(ENV, "boot_offset")
_TAI = at(ENV, "tai_offset")
_CPU = at(ENV, "cpu")
_NODE = at(ENV, "numa_node")
_CURRENT = at(ENV, "current")
_PID_AT = at(ENV, "pid_at")
_TGID_AT = at(ENV, "tgid_at")
_COMM_AT = at(ENV, "comm_at")
_UID_GID = at(ENV, "uid_gid")
_RNG = at(ENV, "rng")
_RUN_CTX = at(ENV, "run_ctx")
_COOKIE = at(RUN_CTX, "cookie")
_JIFFY = 4_000_000  # ns: CONFIG_HZ=250, Debian's and most distributions'
_INITIAL_JIFFIES = 0xFFFFFFFF & -(300 * 250)


@native()
def host_time(env: int) -> int:
    """CLOCK_MONOTONIC of the host in ns: the clock of live events."""
    spec = stack_bytes(16)
    clock_gettime(1, spec)
    return load64(spec) * 1_000_000_000 + load64(spec + 8)


@native(inline=True)
def bpf_ktime_get_ns(env: int) -> int:
    """CLOCK_MONOTONIC in ns: the event's recorded time, or the host's clock for live events."""
    return load64(env + _TIME) if load64(env + _CLOCK) == 0 else host_time(env)


@native(inline=True)
def bpf_ktime_get_boot_ns(env: int) -> int:
    """CLOCK_BOOTTIME in ns."""
    return bpf_ktime_get_ns(env) + load64(env + _BOOT)


@native(inline=True)
def bpf_ktime_get_tai_ns(env: int) -> int:
    """CLOCK_TAI in ns."""
    return bpf_ktime_get_ns(env) + load64(env + _TAI)


@native()
def bpf_jiffies64(env: int) -> int:
    """Ticks since boot, offset as the kernel does so that 32-bit wraps show early."""
    return udiv(bpf_ktime_get_ns(env), _JIFFY) + _INITIAL_JIFFIES


@native(inline=True)
def bpf_get_smp_processor_id(env: int) -> int:
    """The event's CPU."""
    return load64(env + _CPU)


@native(inline=True)
def bpf_get_numa_node_id(env: int) -> int:
    """The CPU's node."""
    return load64(env + _NODE)


@native(inline=True)
def bpf_get_current_pid_tgid(env: int) -> int:
    """tgid << 32 | pid of the current task."""
    task = load64(env + _CURRENT)
    if task == 0:
        return -EINVAL
    return (load32(task + load64(env + _TGID_AT)) << 32) | load32(task + load64(env + _PID_AT))


@native(inline=True)
def bpf_get_current_uid_gid(env: int) -> int:
    """gid << 32 | uid."""
    return load64(env + _UID_GID)


@native()
def bpf_get_current_comm(buf: int, size: int, env: int) -> int:
    """Command name of the current task, NUL-padded to `size`; -EINVAL (and zeroes) without one."""
    task = load64(env + _CURRENT)
    memset(buf, 0, size)
    if task == 0:
        return -EINVAL
    count = size if size < 16 else 16
    memcpy(buf, task + load64(env + _COMM_AT), count)
    memset(buf + count - 1, 0, 1)
    return 0


@native(inline=True)
def bpf_get_current_task(env: int) -> int:
    """Address of the current task_struct object."""
    return load64(env + _CURRENT)


@native(inline=True)
def bpf_get_current_task_btf(env: int) -> int:
    """The same, as a BTF pointer."""
    return load64(env + _CURRENT)


@native(inline=True)
def bpf_get_prandom_u32(env: int) -> int:
    """32 random bits (xorshift64*, a seed per CPU: runs can be repeated)."""
    state = load64(env + _RNG)
    state ^= lshr(state, 12)
    state ^= state << 25
    state ^= lshr(state, 27)
    store64(env + _RNG, state)
    return lshr(state * 2685821657736338717, 32)


@native(inline=True)
def bpf_get_attach_cookie(ctx: int, env: int) -> int:
    """The link's cookie."""
    return load64(load64(env + _RUN_CTX) + _COOKIE)
