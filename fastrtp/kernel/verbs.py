"""The Pythonic verbs: map_create, prog_load, raw_tracepoint_open and so on, for a Kernel and for a Process.

Each makes the attr and the buffers that a C program would make and goes through `bpf`, so it meets the same checks.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError
from fastrtp.uapi import ATTRS, BpfAttachType, BpfCmd, bpf_btf_info, bpf_link_info_raw_tracepoint, bpf_map_info, bpf_prog_info

if TYPE_CHECKING:
    import os

    from fastrtp.kernel.loader.config import ConfigSource
    from fastrtp.kernel.loader.object import Autoload, BpfObject
    from fastrtp.kernel.process import Process
    from fastrtp.kernel.tracing.perf_tracepoint import TracepointEvent
    from fastrtp.trace.perf_attr import PerfEventAttr

DEFAULT_SAMPLE_TYPE = 1 << 1 | 1 << 2 | 1 << 7 | 1 << 8 | 1 << 10
"""PERF_SAMPLE_TID, TIME, CPU, PERIOD and RAW."""
BPF_PERF_EVENT = BpfAttachType.BPF_PERF_EVENT


class _Buffers:
    """User memory of one call: kept alive until it returns."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def put(self, data: bytes) -> int:
        """Address of a copy of `data`; 0 for none."""
        if not data:
            return 0
        return self.room(len(data), data)

    def room(self, size: int, data: bytes = b"") -> int:
        """Address of `size` writable bytes."""
        buffer = ctypes.create_string_buffer(data, size)
        self._kept.append(buffer)
        return ctypes.addressof(buffer)

    def bytes_at(self, address: int, size: int) -> bytes:
        """What is there now."""
        return ctypes.string_at(address, size)


class Verbs:
    """Mixed into Kernel and Process; both have `bpf` and `_process`."""

    def bpf(self, cmd: int, attr: Any, size: int | None = None) -> int:
        """bpf(2). Overridden."""
        raise NotImplementedError

    @property
    def _process(self) -> Process:
        raise NotImplementedError

    def _call(self, cmd: BpfCmd, **fields: Any) -> tuple[int, Any]:
        """(what the system call returned, the attr as it left it)."""
        attr: Any = ATTRS[cmd].struct(**fields)
        return self.bpf(cmd, attr), attr

    def close(self, fd: int) -> None:
        """close(2). BpfError EBADF."""
        self._process.close(fd)

    def open(
        self, source: str | os.PathLike[str] | bytes, *, name: str = "", kconfig: ConfigSource | None = None
    ) -> BpfObject:  # fmt: skip
        """Open a BPF ELF object (a path, or its bytes) to set it up before it is loaded, as libbpf's skeletons do. C source (a
        path that ends in .c) is compiled, with vmlinux.h and the other headers that the package brings (`fastrtp.cc`).

        >>> obj = kernel.open("runqlat.bpf.o")
        >>> obj.rodata.per_task = False
        >>> obj.maps["enqueued"].max_entries = 10240
        >>> obj.programs["on_wakeup_new"].autoload = False
        >>> obj.load()
        <BpfObject runqlat: 2 programs, 3 maps, 1 left out>

        ObjectError; CompilerError with the compiler's words.
        """
        from fastrtp.kernel.loader.load import open_object

        return open_object(self._process, source, name=name, kconfig=kconfig)

    def load(
        self, source: str | os.PathLike[str] | bytes, *, name: str = "", autoload: Autoload = None,
        programs: Iterable[str] | None = None, rodata: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None,
        bss: Mapping[str, Any] | None = None, max_entries: Mapping[str, int] | None = None,
        kconfig: ConfigSource | None = None, strict: bool = True,
    ) -> BpfObject:  # fmt: skip
        """Open a BPF ELF object (a path, or its bytes; or the path of its C source), set it up, and load it as libbpf does.

        `programs`: names or patterns of those to load; `autoload`: the same, exactly, by names or by a test of their
        ProgramSpecs; None: as their sections say. `rodata`, `data`, `bss`: values of variables. `max_entries`: by map.
        `kconfig`: options of the kernel's configuration: a mapping, a file or its text. `strict` False: refused programs are
        left out, and are in `.skipped`.

        >>> kernel.load("runqlat.bpf.o", rodata={"per_task": False}, max_entries={"enqueued": 512}, programs=["on_*"])
        <BpfObject runqlat: 3 programs, 3 maps>

        ObjectError, BpfError, VerifierError, JitError, each with the stage; ObjectWarning for what is done without.
        """
        from fastrtp.kernel.loader.load import load

        return load(
            self._process, source, name=name, autoload=autoload, programs=programs, rodata=rodata, data=data, bss=bss,
            max_entries=max_entries, kconfig=kconfig, strict=strict,
        )  # fmt: skip

    # maps

    def map_create(
        self, map_type: int, key_size: int, value_size: int, max_entries: int, flags: int = 0, *,
        name: str = "", numa_node: int = 0, map_extra: int = 0,
        btf_fd: int = 0, btf_key_type_id: int = 0, btf_value_type_id: int = 0, inner_map_fd: int = 0,
    ) -> int:  # fmt: skip
        """BPF_MAP_CREATE: a descriptor. Sizes in bytes. BpfError."""
        return self._call(
            BpfCmd.BPF_MAP_CREATE, map_type=map_type, key_size=key_size, value_size=value_size, max_entries=max_entries,
            map_flags=flags, map_name=name.encode(), numa_node=numa_node, map_extra=map_extra,
            btf_fd=btf_fd, btf_key_type_id=btf_key_type_id, btf_value_type_id=btf_value_type_id, inner_map_fd=inner_map_fd,
        )[0]  # fmt: skip

    def _sizes(self, fd: int) -> tuple[int, int]:
        """(bytes of a key, bytes of a value in a system call) of the map behind a descriptor."""
        from fastrtp.kernel.objects.bpf_map import BpfMap

        bpf_map = self._process.files.fget(fd).private_data
        if not isinstance(bpf_map, BpfMap):
            return 0, 0  # the call itself says what is wrong
        return bpf_map.map.key_size, bpf_map.value_size_user

    def _check_length(self, fd: int, noun: str, data: bytes, size: int) -> None:
        if size and len(data) != size:
            raise ValueError(f"{noun} of {len(data)} bytes for file descriptor {fd}, whose map takes {size}")

    def map_update_elem(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """BPF_MAP_UPDATE_ELEM. BpfError; ValueError for a key or value of another length than the map's."""
        buffers = _Buffers()
        key_size, value_size = self._sizes(fd)
        self._check_length(fd, "key", key, key_size)
        self._check_length(fd, "value", value, value_size)
        self._call(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=buffers.put(key), value=buffers.put(value), flags=flags)

    def map_lookup_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes:
        """BPF_MAP_LOOKUP_ELEM: the value (per-CPU: all CPUs', each rounded up to 8). BpfError ENOENT and others."""
        return self._lookup(BpfCmd.BPF_MAP_LOOKUP_ELEM, fd, key, flags)

    def map_lookup_and_delete_elem(self, fd: int, key: bytes, flags: int = 0) -> bytes:
        """BPF_MAP_LOOKUP_AND_DELETE_ELEM. BpfError."""
        return self._lookup(BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_ELEM, fd, key, flags)

    def _lookup(self, cmd: BpfCmd, fd: int, key: bytes, flags: int) -> bytes:
        buffers = _Buffers()
        key_size, value_size = self._sizes(fd)
        self._check_length(fd, "key", key, key_size)
        room = buffers.room(max(value_size, 1))
        self._call(cmd, map_fd=fd, key=buffers.put(key), value=room, flags=flags)
        return buffers.bytes_at(room, value_size)

    def map_delete_elem(self, fd: int, key: bytes) -> None:
        """BPF_MAP_DELETE_ELEM. BpfError ENOENT and others."""
        buffers = _Buffers()
        self._check_length(fd, "key", key, self._sizes(fd)[0])
        self._call(BpfCmd.BPF_MAP_DELETE_ELEM, map_fd=fd, key=buffers.put(key))

    def map_get_next_key(self, fd: int, key: bytes | None) -> bytes:
        """BPF_MAP_GET_NEXT_KEY: the key after `key`, the first for None. BpfError ENOENT at the end."""
        buffers = _Buffers()
        key_size = self._sizes(fd)[0]
        if key is not None:
            self._check_length(fd, "key", key, key_size)
        room = buffers.room(max(key_size, 1))
        self._call(BpfCmd.BPF_MAP_GET_NEXT_KEY, map_fd=fd, key=buffers.put(key or b""), next_key=room)
        return buffers.bytes_at(room, key_size)

    def map_freeze(self, fd: int) -> None:
        """BPF_MAP_FREEZE. BpfError."""
        self._call(BpfCmd.BPF_MAP_FREEZE, map_fd=fd)

    def obj_pin(self, path: str, fd: int) -> None:
        """BPF_OBJ_PIN. BpfError EEXIST, ENOENT, EPERM."""
        buffers = _Buffers()
        self._call(BpfCmd.BPF_OBJ_PIN, pathname=buffers.put(path.encode() + b"\0"), bpf_fd=fd)

    def obj_get(self, path: str, flags: int = 0) -> int:
        """BPF_OBJ_GET: a descriptor. BpfError ENOENT."""
        buffers = _Buffers()
        return self._call(BpfCmd.BPF_OBJ_GET, pathname=buffers.put(path.encode() + b"\0"), file_flags=flags)[0]

    # BTF

    def btf_load(self, data: bytes) -> int:
        """BPF_BTF_LOAD: a descriptor. BpfError, with the reason."""
        buffers = _Buffers()
        return self._call(BpfCmd.BPF_BTF_LOAD, btf=buffers.put(data), btf_size=len(data))[0]

    # programs

    def prog_load(
        self, prog_type: int, insns: bytes, license: str = "GPL", prog_flags: int = 0, *,
        name: str = "", log_level: int = 0, expected_attach_type: int = 0, attach_btf_id: int = 0, attach_btf_obj_fd: int = 0,
        btf_fd: int = 0, func_info: bytes = b"", line_info: bytes = b"",
        func_info_rec_size: int = 8, line_info_rec_size: int = 16,
    ) -> int:  # fmt: skip
        """BPF_PROG_LOAD: a descriptor. VerifierError (a BpfError) when the program is refused: `.errno`, `.log`.

        Like libbpf, a load that fails without a log is tried again with one.
        """
        buffers = _Buffers()
        fields: dict[str, Any] = {
            "prog_type": prog_type, "insn_cnt": len(insns) // 8, "insns": buffers.put(insns),
            "license": buffers.put(license.encode() + b"\0"), "prog_flags": prog_flags,
            "prog_name": name.encode(), "expected_attach_type": expected_attach_type,
            "attach_btf_id": attach_btf_id, "attach_btf_obj_fd": attach_btf_obj_fd, "prog_btf_fd": btf_fd,
            "func_info": buffers.put(func_info), "func_info_cnt": len(func_info) // func_info_rec_size,
            "func_info_rec_size": func_info_rec_size if func_info else 0,
            "line_info": buffers.put(line_info), "line_info_cnt": len(line_info) // line_info_rec_size,
            "line_info_rec_size": line_info_rec_size if line_info else 0,
        }  # fmt: skip
        if len(insns) % 8:
            raise ValueError(f"{len(insns)} bytes of instructions, which are 8 bytes each")
        try:
            return self._call(BpfCmd.BPF_PROG_LOAD, log_level=log_level, **fields)[0]
        except BpfError as error:
            if log_level or error.log:
                raise
        return self._call(BpfCmd.BPF_PROG_LOAD, log_level=1, **fields)[0]

    def prog_test_run(self, fd: int, ctx_in: bytes = b"", flags: int = 0, cpu: int = 0) -> int:
        """BPF_PROG_TEST_RUN: R0 as u32 of one run on `ctx_in`, 8 bytes an argument. BpfError."""
        buffers = _Buffers()
        _ret, attr = self._call(
            BpfCmd.BPF_PROG_TEST_RUN, prog_fd=fd, ctx_in=buffers.put(ctx_in), ctx_size_in=len(ctx_in), flags=flags, cpu=cpu
        )
        return int(attr.retval)

    def prog_bind_map(self, prog_fd: int, map_fd: int) -> None:
        """BPF_PROG_BIND_MAP. BpfError."""
        self._call(BpfCmd.BPF_PROG_BIND_MAP, prog_fd=prog_fd, map_fd=map_fd)

    # links

    def raw_tracepoint_open(self, name: str | None, prog_fd: int, cookie: int = 0) -> int:
        """BPF_RAW_TRACEPOINT_OPEN: descriptor of a link. `name` is None for tp_btf programs. BpfError."""
        buffers = _Buffers()
        address = 0 if name is None else buffers.put(name.encode() + b"\0")
        return self._call(BpfCmd.BPF_RAW_TRACEPOINT_OPEN, name=address, prog_fd=prog_fd, cookie=cookie)[0]

    def link_create(self, prog_fd: int, target_fd: int, attach_type: int, flags: int = 0, *, cookie: int = 0) -> int:
        """BPF_LINK_CREATE: descriptor of a link. BpfError."""
        return self._call(
            BpfCmd.BPF_LINK_CREATE, prog_fd=prog_fd, target_fd=target_fd, attach_type=attach_type, flags=flags, cookie=cookie
        )[0]

    # perf events

    def perf_event_open(self, cpu: int, size: int = 1 << 20) -> int:
        """perf_event_open(2) of a PERF_COUNT_SW_BPF_OUTPUT event on a CPU, with a ring of `size` bytes (a power of two).

        The descriptor goes into a perf event array; `perf_event_consume` reads what programs wrote.
        BpfError EINVAL (no such CPU, a size that is no power of two), EMFILE.
        """
        from fastrtp.kernel.objects.perf_event import perf_event_open

        return perf_event_open(self._process, cpu, size)

    def perf_event_consume(self, fd: int) -> Iterator[bytes]:
        """Samples in an event's ring, as bytes; consumed. BpfError EBADF, EINVAL for a descriptor of something else."""
        from fastrtp.kernel.objects.perf_event import perf_event_of

        return perf_event_of(self._process, fd).consume()

    def sys_perf_event_open(self, attr: PerfEventAttr, pid: int, cpu: int, group_fd: int = -1, flags: int = 0) -> int:
        """perf_event_open(2). See `fastrtp.kernel.tracing.perf_tracepoint`."""
        from fastrtp.kernel.tracing.perf_tracepoint import sys_perf_event_open

        return sys_perf_event_open(self._process, attr, pid, cpu, group_fd, flags)

    def ioctl(self, fd: int, request: int, arg: int = 0) -> int:
        """ioctl(2) on a perf event. BpfError EBADF, ENOTTY, EINVAL, and others by request."""
        from fastrtp.kernel.tracing.perf_tracepoint import perf_ioctl

        return perf_ioctl(self._process, fd, request, arg)

    def perf_tracepoint_open(
        self, name: str, *, cpu: int = 0, pid: int = -1, period: int = 0, sample_type: int = DEFAULT_SAMPLE_TYPE,
        size: int = 1 << 20, disabled: bool = False,
    ) -> int:  # fmt: skip
        """A descriptor of a perf event on a tracepoint ("sched_switch", "sched:sched_switch"), counting on one CPU, or (cpu -1)
        on all CPUs for one task. `period`: every how many events a sample goes into its ring of `size` bytes; 0 only counts.

        BpfError ENOENT, EINVAL, EOPNOTSUPP, EMFILE.
        """
        from fastrtp.kernel.tracing.perf_tracepoint import tracepoint_event_of
        from fastrtp.trace.perf_attr import ATTR_DISABLED, PERF_TYPE_TRACEPOINT, PerfEventAttr

        process = self._process
        attr = PerfEventAttr(
            type=PERF_TYPE_TRACEPOINT, size=ctypes.sizeof(PerfEventAttr), config=process.kernel.trace_events.event(name).id,
            sample_period=period, sample_type=sample_type, flags=ATTR_DISABLED,
        )  # fmt: skip
        fd = self.sys_perf_event_open(attr, pid, cpu)
        event = tracepoint_event_of(process, fd)
        try:
            if period:
                event.mmap(size)
        except BpfError:
            process.close(fd)
            raise
        event.record.enabled = not disabled
        return fd

    def perf_tracepoint(self, fd: int) -> TracepointEvent:
        """The tracepoint event behind a descriptor: `.count`, `.lost`, `.consume()`. BpfError EBADF, EINVAL."""
        from fastrtp.kernel.tracing.perf_tracepoint import tracepoint_event_of

        return tracepoint_event_of(self._process, fd)

    def tracepoint_attach(self, name: str, prog_fd: int, cookie: int = 0) -> tuple[int, int]:
        """Attach a tracepoint program to "system/name" as libbpf does: (descriptor of the link, of its perf event). BpfError."""
        perf_fd = self.perf_tracepoint_open(name)
        attr = bytearray(ATTRS[BpfCmd.BPF_LINK_CREATE].struct(prog_fd=prog_fd, target_fd=perf_fd, attach_type=BPF_PERF_EVENT))
        attr[16:24] = cookie.to_bytes(8, "little")  # link_create.perf_event.bpf_cookie
        try:
            return self.bpf(BpfCmd.BPF_LINK_CREATE, attr), perf_fd
        except BpfError:
            self.close(perf_fd)
            raise

    # introspection

    def enable_stats(self) -> int:
        """BPF_ENABLE_STATS: a descriptor; run_cnt and run_time_ns count while it is open. BpfError."""
        return self._call(BpfCmd.BPF_ENABLE_STATS, type=0)[0]

    def ids(self, noun: str) -> Iterator[int]:
        """Ids of all programs ("prog"), maps ("map"), links ("link") or BTF objects ("btf"), rising."""
        cmd = BpfCmd[f"BPF_{noun.upper()}_GET_NEXT_ID"]
        number = 0
        while True:
            try:
                number = int(self._call(cmd, id=number)[1].next_id)
            except BpfError:
                return
            yield number

    def fd_by_id(self, noun: str, number: int) -> int:
        """*_GET_FD_BY_ID: a descriptor. BpfError ENOENT."""
        return self._call(BpfCmd[f"BPF_{noun.upper()}_GET_FD_BY_ID"], id=number)[0]

    def obj_get_info_by_fd(self, fd: int, **fields: Any) -> Any:
        """BPF_OBJ_GET_INFO_BY_FD: a bpf_prog_info, bpf_map_info, bpf_btf_info or bpf_link_info. `fields` are set in it before,
        for those that the kernel writes through. BpfError.
        """
        from fastrtp.kernel.objects.bpf_map import BpfMap
        from fastrtp.kernel.objects.btf_object import BtfObject
        from fastrtp.kernel.objects.link import BpfLink

        obj = self._process.files.fget(fd).private_data
        structs = ((BpfMap, bpf_map_info), (BtfObject, bpf_btf_info), (BpfLink, bpf_link_info_raw_tracepoint))
        info = next((struct for kind, struct in structs if isinstance(obj, kind)), bpf_prog_info)(**fields)
        self._call(BpfCmd.BPF_OBJ_GET_INFO_BY_FD, bpf_fd=fd, info=ctypes.addressof(info), info_len=ctypes.sizeof(info))
        return info

    def task_fd_query(self, pid: int, fd: int) -> tuple[str, int]:
        """BPF_TASK_FD_QUERY: (tracepoint, program id) behind a process's descriptor. BpfError."""
        buffers = _Buffers()
        room = buffers.room(128)
        attr = self._call(BpfCmd.BPF_TASK_FD_QUERY, pid=pid, fd=fd, buf=room, buf_len=128)[1]
        return buffers.bytes_at(room, attr.buf_len).decode(), int(attr.prog_id)
