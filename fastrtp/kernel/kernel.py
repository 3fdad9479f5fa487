"""Kernel: one synthetic kernel: its types, tracepoints, objects, processes, and bpf(2).

Everything belongs to an instance; two kernels share nothing but compiled code. All changes happen under `lock`, and take
their turn with running programs where they touch native memory.

Kernel counterpart: the global tables of kernel/bpf/, kernel/tracepoint.c and kernel/pid.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from fastrtp.btf import DEFAULT_RELEASE, Btf, default_btf, host_btf, load_btf, shipped_config, tracepoints
from fastrtp.btf.types import COMPOSITES
from fastrtp.errors import BpfError, BtfError, ReplayError
from fastrtp.kernel.files.file import FileTable
from fastrtp.kernel.files.idr import Idr
from fastrtp.kernel.loader.config import ConfigSource, config_from, host_config, read_config
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.bpffs import BpfFs
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.kernel.objects.kallsyms import Kallsyms
from fastrtp.kernel.objects.link import BpfLink
from fastrtp.kernel.objects.prog import BpfProg
from fastrtp.kernel.process import Process
from fastrtp.kernel.tracing.tracepoints import TracepointRegistry
from fastrtp.kernel.verbs import Verbs
from fastrtp.kernel.version import HOST_BTF, default_version, file_release, file_version, host_version, version_code
from fastrtp.mem.objects import ObjectSpace
from fastrtp.native.memory import Memory
from fastrtp.native.perf_map import PerfMap, requested
from fastrtp.once import once_property

if TYPE_CHECKING:
    from fastrtp.kernel.tracing.ftrace import Ftrace
    from fastrtp.kernel.tracing.shim_report import ShimReport
    from fastrtp.kernel.tracing.trace_event_call import TraceEvents
    from fastrtp.obj.kconfig import Config
    from fastrtp.record import Recording
    from fastrtp.replay import Progress, ReplayReport
    from fastrtp.replay.bind import Policy
    from fastrtp.replay.consumer import Consumer
    from fastrtp.replay.fused import Tier
    from fastrtp.replay.order import Order
    from fastrtp.replay.windows import Cpus, Window
    from fastrtp.trace.live import TraceFunction
    from fastrtp.trace.tracepoint import Tracepoint

_PRINTK = "bpf_trace_printk"
"""The tracepoint that the helper of its name fires."""

_MIN_POSSIBLE_CPUS = 8

_TASK_OFFSETS = {"pid_at": "pid", "tgid_at": "tgid", "comm_at": "comm"}


class Signal(NamedTuple):
    """bpf_send_signal (`thread`: bpf_send_signal_thread) at `time` ns on `cpu`, from the task `pid` of process `tgid`."""

    time: int
    cpu: int
    pid: int
    tgid: int
    signal: int
    thread: bool


class Kernel(Verbs):
    """A kernel with `cpus` possible CPUs (None: as many as the host has, and at least 8, so that recordings of other machines
    replay without asking).

    `btf`: its types: None (the shipped vmlinux), "host", a path, or a Btf. `version`: which Linux it is, as "6.1.192" or as
    LINUX_VERSION_CODE; None: as its types tell (kernel/version.py), else unknown. `release`: what uname -r says there, "" where
    that is not known. `kconfig`: the configuration that it was built
    with, a mapping, a file or the text of a .config; None: that of the shipped or the running kernel where the types are its own,
    else unknown. `perf_map`: tell `perf` about compiled code, True or "dump" (fastrtp.native.perf_map); None: as
    $FASTRTP_PERF_MAP says. OSError where it cannot be told.

    The verbs (map_create, prog_load, ...) are system calls of `current`, the process that stands for the caller.
    A context manager: on exit it is shut down.

    >>> with rtp.Kernel() as kernel:
    ...     obj = kernel.load("runqlat.bpf.o")
    ...     with obj.attach():
    ...         report = kernel.replay("trace.dat")
    ...     print(len(obj.maps["runqlat"]), "threads")
    33 threads
    """

    def __init__(
        self,
        btf: Btf | str | os.PathLike[str] | None = None,
        cpus: int | None = None,
        perf_map: bool | str | None = None,
        version: str | int | None = None,
        kconfig: ConfigSource | None = None,
        release: str | None = None,
    ) -> None:
        self.btf = _btf(btf)
        self._origin = _origin(btf)
        self.release = _release(btf, self._origin) if release is None else release
        self._kconfig = kconfig
        self.version = _version(btf) if version is None else version_code(version) if isinstance(version, str) else version
        self.cpus = cpus = max(_MIN_POSSIBLE_CPUS, os.cpu_count() or 1) if cpus is None else cpus
        self.lock = threading.RLock()
        self.is_shut_down = self._is_freed = False
        self._compiling = threading.local()
        self.memory = Memory(cpus)
        wanted = requested() if perf_map is None else perf_map
        if wanted:
            self.memory.perf_map = PerfMap(dump=wanted == "dump")
            self.memory.perf_map.add_symbols(self.memory.lib.symbols)
        self.objects = ObjectSpace(self.memory.arena, self.btf)
        self.tracepoints = TracepointRegistry(self.btf, tracepoints(self.btf), self.memory)
        self.progs: Idr[BpfProg] = Idr()
        self.maps: Idr[BpfMap] = Idr()
        self.links: Idr[BpfLink] = Idr()
        self.btfs: Idr[BtfObject] = Idr()
        self.vmlinux = BtfObject(self.btfs, self.btf, bytes(self.btf.data), "vmlinux")
        self.modules: dict[str, BtfObject] = {}
        self.file_table = FileTable()
        self.bpffs = BpfFs()
        self.kallsyms = Kallsyms(self)
        self.processes: dict[int, Process] = {}
        self._next_pid = os.getpid()
        self._stats_holders = 0
        self._tell_task_layout()
        if _PRINTK in self.tracepoints:
            self.memory.env["printk_tp"] = self.tracepoints[_PRINTK].address
        self.current = self.new_process(comm=os.path.basename(sys.executable) or "python3")
        self._set_current(self.current)

    def __repr__(self) -> str:
        if self.is_shut_down:
            return "<Kernel, shut down>"
        counts = (f"{len(self.progs)} programs", f"{len(self.maps)} maps", f"{len(self.links)} links")
        return f"<Kernel {len(self.tracepoints)} tracepoints, {', '.join(counts)}>"

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """End all processes, drop all pins, free all memory. What is asked of it afterwards, or of what belonged to it, is an
        error. Nothing happens the second time.
        """
        with self.lock:
            self.is_shut_down = self.memory.ended = True
            for process in list(self.processes.values()):
                process.exit()
            self.bpffs.unmount()
            if not (self.progs or self.maps or self.links or self._is_freed):
                self._is_freed = True
                self.objects.close()
                self.memory.close()

    def check_running(self) -> None:
        """ReplayError when it was shut down."""
        if self.is_shut_down:
            raise ReplayError("the kernel was shut down (by shutdown(), or at the end of `with Kernel()`): make another one")

    # the system call

    @property
    def _process(self) -> Process:
        self.check_running()
        return self.current

    def bpf(self, cmd: int, attr: Any, size: int | None = None) -> int:
        """bpf(2) as the current process. `attr`: a writable buffer (ctypes structure, bytearray, ...), or an address; results are
        written back into it as Linux does. Pointers in it are addresses of this process: a bad one is EFAULT.

        Returns what the system call returns; where that is -1, raises BpfError with its errno.
        """
        return self._process.bpf(cmd, attr, size)

    # loading

    @property
    def compiles_later(self) -> bool:
        """Whether programs that this thread loads may still be at the compiler when PROG_LOAD returns."""
        return bool(getattr(self._compiling, "later", False))

    @contextlib.contextmanager
    def compile_together(self) -> Iterator[None]:
        """PROG_LOADs of this thread do not wait for the compiler meanwhile, so that it works on several programs at a time.

        Whoever wants to know that all went well then calls `prog.finish()` on each.
        """
        self._compiling.later = True
        try:
            yield
        finally:
            self._compiling.later = False

    # processes

    def new_process(self, *, uid: int = 0, comm: str = "", capable: bool = True) -> Process:
        """Another process, with stdin, stdout and stderr open."""
        with self.lock:
            pid = self._next_pid
            self._next_pid += 1
            process = self.processes[pid] = Process(self, pid, uid=uid, comm=comm, capable=capable)
            return process

    def find_process(self, pid: int) -> Process | None:
        """Kernel: kernel/pid.c:find_vpid"""
        return self.processes.get(pid)

    def forget_process(self, process: Process) -> None:
        """Its pid is free again: the last step of its exit."""
        self.processes.pop(process.pid, None)

    @once_property
    def config(self) -> Config | None:
        """The options that it was built with; None where they are not known. ObjectError."""
        if self._kconfig is not None:
            return config_from(self._kconfig)
        if self._origin == "host":
            return host_config()
        return read_config(shipped_config()) if self._origin == "shipped" else None

    @property
    def has_shipped_types(self) -> bool:
        """Whether its types are those of the kernel that the package describes in full: record formats, configuration."""
        return self._origin == "shipped"

    # running

    def run_prog(self, prog: BpfProg, ctx: bytes, cpu: int = 0) -> int:
        """Run a program once, as PROG_TEST_RUN does; R0 as u64. Kernel: net/bpf/test_run.c:__bpf_prog_test_run_raw_tp"""
        from fastrtp.trace.probe import bpf_prog_test_run_raw_tp

        return bpf_prog_test_run_raw_tp(self.memory, prog.record, ctx, cpu)

    def run_timers(self) -> int:
        """Let the timers of programs fire that are due by the host's clock; how many did. They also do before every event that
        is fired and every test run; a replay has them fire at the time that it has come to.
        """
        self.check_running()
        return self.memory.lib.machine_run_timers(self.memory.machine_address)

    def signals(self) -> list[Signal]:
        """Signals that programs asked for since the last call, oldest first. None is ever sent to anything."""
        self.check_running()
        return [
            Signal(int(row["time"]), int(row["cpu"]), int(row["pid"]), int(row["tgid"]), int(row["signal"]), bool(row["thread"]))
            for row in self.memory.take_signals()
        ]

    def hold_stats(self, count: int) -> None:
        """One holder of BPF_ENABLE_STATS more (1) or less (-1)."""
        self._stats_holders += count
        self.memory.keep_stats(on=self._stats_holders > 0)

    @classmethod
    def of(
        cls,
        recording: str | os.PathLike[str] | Recording,
        *,
        btf: Btf | str | os.PathLike[str] | None = None,
        cpus: int | None = None,
        perf_map: bool | str | None = None,
        version: str | int | None = None,
        kconfig: ConfigSource | None = None,
    ) -> Kernel:
        """A kernel like the one that made a recording (a path, or a Recording that is open), with its CPUs: its types where they
        are at hand, else the nearest version's; its version, as far as the recording or the types tell. What is given goes first.
        """
        from fastrtp.record import Recording
        from fastrtp.replay.recorded_kernel import kernel_of

        given = {"btf": btf, "cpus": cpus, "perf_map": perf_map, "version": version, "kconfig": kconfig}
        options = {name: value for name, value in given.items() if value is not None}
        return kernel_of(recording if isinstance(recording, Recording) else Recording.open(recording), **options)

    def replay(
        self,
        source: str | os.PathLike[str] | Recording,
        *,
        missing: Policy = "zero",
        progress: Progress | None = None,
        interruptible: bool = False,
        chunk: int | None = None,
        tier: Tier = "auto",
        cpus: Cpus | None = None,
        window: Window = 1 << 16,
        order: Order = "exact",
        consumer: Consumer | str | int | None = None,
        keep: int | None = None,
        every: int | str | None = None,
    ) -> ReplayReport:
        """Replay a recording (a path, or a Recording that is open) through what is attached; what it did.

        >>> with kernel.load("runqlat.bpf.o") as obj, obj.attach():
        ...     kernel.replay("trace.dat", missing="strict").fired
        7956

        The options are those of `fastrtp.replay.replay`, which says what each does. RecordingError, OrderError, ReplayError.
        """
        from fastrtp.replay import replay

        self.check_running()
        return replay(
            self, source, missing=missing, progress=progress, interruptible=interruptible, chunk=chunk, tier=tier, cpus=cpus,
            window=window, order=order, consumer=consumer, keep=keep, every=every,
        )  # fmt: skip

    # tracepoints

    def trace_event(
        self, name: str, proto: str, *, writable_size: int = 0,
        regfunc: Callable[[], int | None] | None = None, unregfunc: Callable[[], None] | None = None,
    ) -> Tracepoint:  # fmt: skip
        """Add a tracepoint: TRACE_EVENT(name, TP_PROTO(proto)). `proto` is C text: "int a, u64 b, const char *c".

        >>> kernel.trace_event("request_done", "int status, u64 ns").name
        'request_done'

        BtfError for text that is no prototype, or has types that the kernel's BTF does not know; BpfError EEXIST, EINVAL.
        """
        from fastrtp.kernel.tracing.trace_event import define

        self.check_running()
        with self.lock:
            return define(self, name, proto, writable_size=writable_size, regfunc=regfunc, unregfunc=unregfunc)

    def trace(self, name: str, cpu: int = 0) -> TraceFunction:
        """trace_<name>: call it with TP_PROTO's arguments to fire the event on a CPU; `.njit` is its form for numba code.

        >>> fire = kernel.trace("irq_handler_exit")
        >>> fire(9, 0, 1)

        BpfError ENOENT for a name that is no tracepoint.
        """
        from fastrtp.trace.live import TraceFunction

        self.check_running()
        if name not in self.tracepoints:
            raise BpfError(errno.ENOENT, f"ENOENT: no tracepoint {name!r}")
        return TraceFunction(self.tracepoints[name], self.memory, cpu, self.prototype(name), self._structs(name))

    def shim_report(self) -> ShimReport:
        """How big the compiled cast shims of all tracepoints are, as the patch that introduced them reports it. Compiles those
        that no program needed so far (seconds, once for this version and processor).
        """
        from fastrtp.kernel.tracing.shim_report import shim_report

        return shim_report(self)

    def prototype(self, name: str) -> str:
        """A tracepoint's name and TP_PROTO as C text. KeyError.

        >>> kernel.prototype("task_rename")
        'task_rename(struct task_struct *, const char *)'
        """
        module = self.modules.get(name)
        btf = module.btf if module is not None else self.btf
        return f"{name}({', '.join(btf.c_decl(arg.type_id, arg.name) for arg in self.tracepoints.proto(name).args)})"

    @once_property
    def trace_events(self) -> TraceEvents:
        """Events that have records: what ftrace, perf and tracepoint programs work on."""
        from fastrtp.kernel.tracing.trace_event_call import TraceEvents

        self.check_running()
        return TraceEvents(self)

    @once_property
    def ftrace(self) -> Ftrace:
        """The trace buffer: kernel.ftrace.enable("sched_switch")."""
        from fastrtp.kernel.tracing.ftrace import Ftrace

        self.check_running()
        return Ftrace(self)

    def _structs(self, name: str) -> frozenset[int]:
        """Numbers of a tracepoint's arguments that are structs or unions by value."""
        module = self.modules.get(name)
        btf = module.btf if module is not None else self.btf
        kinds = [btf.kind(btf.strip(arg.type_id)) for arg in self.tracepoints.proto(name).args]
        return frozenset(number for number, kind in enumerate(kinds) if kind in COMPOSITES)

    def _tell_task_layout(self) -> None:
        for field, member in _TASK_OFFSETS.items():
            try:
                self.memory.env[field] = self.btf.member("task_struct", member).offset_bytes
            except BtfError:
                self.memory.env[field] = 0

    def _set_current(self, process: Process) -> None:
        """Let get_current_* and friends answer for this process."""
        try:
            task = self.objects.tasks([process.pid], comms=[process.comm[:15].encode()])[0]
        except BtfError:
            return
        self.memory.env["current"] = int(task)


def _btf(source: Btf | str | os.PathLike[str] | None) -> Btf:
    if isinstance(source, Btf):
        return source
    if source is None:
        return default_btf()
    return host_btf() if source == "host" else load_btf(source)


def _origin(source: Btf | str | os.PathLike[str] | None) -> str:
    """Whose the types are: "shipped", "host" or "" for not known."""
    if source is None or source is default_btf():
        return "shipped"
    if isinstance(source, Btf):
        return ""
    return "host" if source == "host" or os.path.realpath(source) == str(HOST_BTF) else ""


def _release(source: Btf | str | os.PathLike[str] | None, origin: str) -> str:
    """The release of the kernel that the types are of, "" where nothing tells it."""
    if origin:
        return DEFAULT_RELEASE if origin == "shipped" else os.uname().release
    return "" if source is None or isinstance(source, Btf) else file_release(source)


def _version(source: Btf | str | os.PathLike[str] | None) -> int | None:
    """LINUX_VERSION_CODE of the kernel that the types are of, None where nothing tells it."""
    if source is None or source is default_btf():
        return default_version()
    if isinstance(source, Btf):
        return None
    return host_version() if source == "host" else file_version(source)


__all__: Sequence[str] = ["Kernel"]
