"""bpf_send_signal: nothing is sent; what would be is written down, for Kernel.signals().

Records of 32 bytes: {u64 time, u32 cpu, u32 pid, u32 tgid, u32 signal, u32 thread, u32 0}.
Kernel: kernel/trace/bpf_trace.c:bpf_send_signal_common.
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.backlog_native import drain_array
from fastrtp.native.intrinsics import device, load32, load64, native, store32, store64
from fastrtp.native.layout import ENV, MACHINE, SIGNALS, at
from fastrtp.native.smp_native import add64, spin_lock, spin_unlock

_CURRENT = at(ENV, "current")
_PID_AT = at(ENV, "pid_at")
_TGID_AT = at(ENV, "tgid_at")
_CPU = at(ENV, "cpu")
_MACHINE = at(ENV, "machine")
_SIGNALS = at(MACHINE, "signals")
_DATA = at(SIGNALS, "data")
_ROOM = at(SIGNALS, "room")
_COUNT = at(SIGNALS, "count")
_LOST = at(SIGNALS, "lost")
_LOCK = at(SIGNALS, "lock")
_BACKLOG = at(SIGNALS, "backlog")
_RECORD = 32
_NSIG = 64


@device
def _send(signal: int, thread: int, env: int) -> int:
    """0; -EPERM for init and the idle tasks, -EINVAL for a number that is no signal. 0 as a signal only asks."""
    signal &= 0xFFFFFFFF
    current = load64(env + _CURRENT)
    if current == 0:
        return -EPERM
    pid = load32(current + load64(env + _PID_AT))
    tgid = load32(current + load64(env + _TGID_AT))
    if tgid <= 1 or pid == 0:
        return -EPERM
    if signal > _NSIG:
        return -EINVAL
    if signal == 0:
        return 0
    machine = load64(env + _MACHINE)
    signals = load64(machine + _SIGNALS)
    spin_lock(signals + _LOCK)
    count = load64(signals + _COUNT)
    if count == load64(signals + _ROOM):
        count = drain_array(machine, load64(signals + _BACKLOG), load64(signals + _DATA), count * _RECORD) // _RECORD
    if count == load64(signals + _ROOM):
        add64(signals + _LOST, 1)
        spin_unlock(signals + _LOCK)
        return 0
    store64(signals + _COUNT, count + 1)
    record = load64(signals + _DATA) + count * _RECORD
    store64(record, bpf_ktime_get_ns(env))
    store32(record + 8, load64(env + _CPU))
    store32(record + 12, pid)
    store32(record + 16, tgid)
    store32(record + 20, signal)
    store32(record + 24, thread)
    spin_unlock(signals + _LOCK)
    return 0


@native()
def bpf_send_signal(signal: int, env: int) -> int:
    """A signal for the current process."""
    return _send(signal, 0, env)


@native()
def bpf_send_signal_thread(signal: int, env: int) -> int:
    """A signal for the current thread."""
    return _send(signal, 1, env)


@native()
def bpf_find_vma(task: int, start: int, callback: int, data: int, flags: int, env: int) -> int:
    """-ENOENT: recordings have no address spaces, and tasks no mm. -EINVAL for flags. Kernel: kernel/bpf/task_iter.c."""
    return -22 if flags != 0 else -2
