"""Helpers about where the current task belongs: cgroups and pid namespace.

A recording says neither the cgroup nor the namespace of a task: all tasks are in the root cgroup and in the initial pid
namespace, whose numbers are the same on every Linux. Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c.
"""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EINVAL

from fastrtp.maps.records import MapRecord
from fastrtp.mem.objects import TASK_PT_REGS
from fastrtp.native.intrinsics import device, load32, load64, memset, native, store32, ult
from fastrtp.native.records import Env

_ROOT_CGROUP_ID = 1
_INIT_PID_NS = 0xEFFFFFFC
_PIDNS_INFO_SIZE = 8


@native(inline=True)
def bpf_get_cgroup_classid(env: Env) -> int:
    """0: there is no net_cls hierarchy."""
    return 0


@native(inline=True)
def bpf_get_current_cgroup_id(env: Env) -> int:
    """1: the root of the default hierarchy."""
    return _ROOT_CGROUP_ID


@native(inline=True)
def bpf_get_current_ancestor_cgroup_id(level: int, env: Env) -> int:
    """1 for level 0, the root; 0 for others: there is none above a task's cgroup, or below it."""
    return _ROOT_CGROUP_ID if level & 0xFFFFFFFF == 0 else 0


@native(inline=True)
def bpf_task_pt_regs(task: int, env: Env, stack: int) -> int:
    """A task's registers of user space, at the end of its kernel stack (mem/objects.py puts them there); 0 without a stack."""
    address = task + stack
    base = env.arena_base
    if stack < 0 or not ult(address - base, env.arena_size - 8):
        return 0
    found = load64(address)
    return found + TASK_PT_REGS if found != 0 else 0


@native()
def bpf_get_ns_current_pid_tgid(dev: int, ino: int, out: int, size: int, env: Env) -> int:
    """{u32 pid, u32 tgid} of the current task in the initial pid namespace; -EINVAL for another one.

    Differs: any device number is taken for that of nsfs, which has none here.
    """
    current = env.current
    if size & 0xFFFFFFFF != _PIDNS_INFO_SIZE or dev & ~0xFFFFFFFF or current == 0 or ino != _INIT_PID_NS:
        memset(out, 0, size & 0xFFFFFFFF)
        return -EINVAL
    store32(out, load32(current + env.pid_at))
    store32(out + 4, load32(current + env.tgid_at))
    return 0


@native()
def bpf_current_task_under_cgroup(map: MapRecord, index: int, env: Env) -> int:
    """1: the cgroup at this place of the array is the root, and all tasks are under it. -E2BIG, -EAGAIN for an empty place.

    Kernel: kernel/trace/bpf_trace.c:bpf_current_task_under_cgroup
    """
    index &= 0xFFFFFFFF
    if index >= map.max_entries:
        return -E2BIG
    return 1 if load64(map.values + 8 * index) != 0 else -EAGAIN


@native(inline=True)
def bpf_task_acquire(task: int, env: Env) -> int:
    """Tasks live as long as the kernel or the replay that made them: nothing to count."""
    return task


@native(inline=True)
def bpf_task_release(task: int, env: Env) -> int:
    """The end of it."""
    return 0


@native(inline=True)
def bpf_cgroup_acquire(cgroup: int, env: Env) -> int:
    """As tasks."""
    return cgroup


@native(inline=True)
def bpf_cgroup_release(cgroup: int, env: Env) -> int:
    """The end of it."""
    return 0


@device
def _level(cgroup: int, level: int, env: Env) -> int:
    """How far below the root a cgroup is, as an event told it; 0 where none did."""
    if level < 0 or not ult(cgroup + level - env.arena_base, env.arena_size - 4):
        return 0
    return (load32(cgroup + level) ^ 0x80000000) - 0x80000000


@native()
def bpf_cgroup_ancestor(cgroup: int, wanted: int, env: Env, level: int, ancestors: int) -> int:
    """The cgroup on a level above it, or itself; 0 for one below it, and where no event told."""
    wanted = ((wanted & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    own = _level(cgroup, level, env)
    if wanted < 0 or wanted > own:
        return 0
    if wanted == own:
        return cgroup
    place = cgroup + ancestors + 8 * wanted
    known = ancestors >= 0 and ult(place - env.arena_base, env.arena_size - 8)
    return load64(place) if known else 0


@native()
def bpf_task_under_cgroup(task: int, cgroup: int, env: Env, level: int) -> int:
    """Whether a task is in a cgroup, or below it: all are in the root, whose level is 0, and in no other."""
    return 1 if _level(cgroup, level, env) == 0 else 0


@native()
def bpf_task_get_cgroup1(task: int, hierarchy: int, env: Env) -> int:
    """0: there are no hierarchies of version 1."""
    return 0


@native()
def bpf_task_from_vpid(pid: int, env: Env) -> int:
    """As bpf_task_from_pid: there is one pid namespace."""
    current = env.current
    pid &= 0xFFFFFFFF
    return current if current != 0 and pid != 0 and load32(current + env.pid_at) == pid else 0


@native()
def bpf_task_from_pid(pid: int, env: Env) -> int:
    """The current task, if it has this pid; 0 for others, which have no table here."""
    current = env.current
    pid &= 0xFFFFFFFF
    return current if current != 0 and pid != 0 and load32(current + env.pid_at) == pid else 0


@native(inline=True)
def bpf_rdonly_cast(pointer: int, type_id: int, env: Env) -> int:
    """The pointer itself: its loads are checked."""
    return pointer
