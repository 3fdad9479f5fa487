"""bpf_send_signal: nothing is sent; what would be is written down, for Kernel.signals().

Records of 32 bytes: {u64 time, u32 cpu, u32 pid, u32 tgid, u32 signal, u32 thread, u32 0}.
Kernel: kernel/trace/bpf_trace.c:bpf_send_signal_common.
"""

from __future__ import annotations

from errno import EINVAL, EPERM

from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.backlog_native import drain_array
from fastrtp.native.intrinsics import device, load32, native, store32, store64
from fastrtp.native.records import Env, Signals
from fastrtp.native.smp_native import add64, spin_lock, spin_unlock

_LOST = Signals.layout.at("lost")
_LOCK = Signals.layout.at("lock")
_RECORD = 32
_NSIG = 64


@device
def _send(signal: int, thread: int, env: Env) -> int:
    """0; -EPERM for init and the idle tasks, -EINVAL for a number that is no signal. 0 as a signal only asks."""
    signal &= 0xFFFFFFFF
    current = env.current
    if current == 0:
        return -EPERM
    pid = load32(current + env.pid_at)
    tgid = load32(current + env.tgid_at)
    if tgid <= 1 or pid == 0:
        return -EPERM
    if signal > _NSIG:
        return -EINVAL
    if signal == 0:
        return 0
    machine = env.machine
    signals = machine.signals
    spin_lock(int(signals) + _LOCK)
    count = signals.count
    if count == signals.room:
        count = drain_array(machine, signals.backlog, signals.data, count * _RECORD) // _RECORD
    if count == signals.room:
        add64(int(signals) + _LOST, 1)
        spin_unlock(int(signals) + _LOCK)
        return 0
    signals.count = count + 1
    record = signals.data + count * _RECORD
    store64(record, bpf_ktime_get_ns(env))
    store32(record + 8, env.cpu)
    store32(record + 12, pid)
    store32(record + 16, tgid)
    store32(record + 20, signal)
    store32(record + 24, thread)
    spin_unlock(int(signals) + _LOCK)
    return 0


@native()
def bpf_send_signal(signal: int, env: Env) -> int:
    """A signal for the current process."""
    return _send(signal, 0, env)


@native()
def bpf_send_signal_thread(signal: int, env: Env) -> int:
    """A signal for the current thread."""
    return _send(signal, 1, env)


@native()
def bpf_find_vma(task: int, start: int, callback: int, data: int, flags: int, env: Env) -> int:
    """-ENOENT: recordings have no address spaces, and tasks no mm. -EINVAL for flags. Kernel: kernel/bpf/task_iter.c."""
    return -22 if flags != 0 else -2
