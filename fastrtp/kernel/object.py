"""BpfObject: a loaded object file: its programs and maps by name, and their attachment.

Kernel counterpart: tools/lib/bpf/libbpf.c (struct bpf_object, bpf_program, bpf_map, bpf_link).
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError

from .jited import source_lines

if TYPE_CHECKING:
    from fastrtp.obj import MapSpec, ObjectSpec, ProgramSpec

    from .bpf_map import BpfMap
    from .process import Process
    from .prog import BpfProg


class Link:
    """One attachment: closing it detaches. `fd`: its descriptor, -1 when closed; `perf_fd`: a tracepoint program's perf event."""

    def __init__(self, process: Process, fd: int, program: str, tp_name: str, perf_fd: int = -1) -> None:
        self._process = process
        self.fd = fd
        self.perf_fd = perf_fd
        self.program = program
        self.tp_name = tp_name

    def __repr__(self) -> str:
        return f"<Link {self.program} on {self.tp_name}{'' if self.fd >= 0 else ' closed'}>"

    def close(self) -> None:
        """Detach. Nothing happens the second time, or when the process is gone."""
        fds = (self.fd, self.perf_fd)
        self.fd = self.perf_fd = -1
        for fd in fds:
            if fd >= 0 and not self._process.exited:
                self._process.close(fd)


class Links(tuple[Link, ...]):
    """Attachments that come and go together: a context manager."""

    __slots__ = ()

    def __enter__(self) -> Links:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Detach all, the last attached first."""
        for link in reversed(self):
            link.close()


class ObjectProgram:
    """A program of an object, loaded. `fd`: its descriptor; `prog`: the kernel's object."""

    def __init__(self, process: Process, spec: ProgramSpec, fd: int, prog: BpfProg) -> None:
        self._process = process
        self.spec = spec
        self.name = spec.name
        self.fd = fd
        self.prog = prog

    def __repr__(self) -> str:
        return f"<ObjectProgram {self.name} {self.spec.section}>"

    @property
    def run_cnt(self) -> int:
        """How often it ran since it was loaded (always counted; the info structure's counts under BPF_ENABLE_STATS)."""
        return self.prog.runs

    @property
    def recursion_misses(self) -> int:
        """Runs left out because it was running on that CPU already."""
        return self.prog.stats()[2]

    @property
    def auto_attachable(self) -> bool:
        """Whether the section says where it attaches."""
        return bool(self.spec.attach_name)

    def attach(self, name: str | None = None, cookie: int = 0) -> Link:
        """Attach to the section's tracepoint, or to another. BpfError."""
        from fastrtp.uapi import BpfProgType

        by_btf = self.spec.prog_type == BpfProgType.BPF_PROG_TYPE_TRACING
        target = name or self.spec.attach_name
        if not target:
            raise ValueError(f"section {self.spec.section!r} of program {self.name} names no tracepoint: attach(name)")
        if by_btf and target != self.spec.attach_name:
            raise ValueError(f"program {self.name} was loaded for tracepoint {self.spec.attach_name}, not {target}")
        try:
            if self.spec.prog_type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT:
                fd, perf_fd = self._process.tracepoint_attach(target, self.fd, cookie)
                return Link(self._process, fd, self.name, target.rpartition("/")[2], perf_fd)
            fd = self._process.raw_tracepoint_open(None if by_btf else target, self.fd, cookie)
        except BpfError as error:
            raise BpfError(_errno(error), f"attach program {self.name}: {error.strerror}") from error
        return Link(self._process, fd, self.name, target)

    def test_run(self, ctx: bytes = b"", cpu: int = 0) -> int:
        """BPF_PROG_TEST_RUN: R0 as u32. BpfError."""
        return self._process.prog_test_run(self.fd, ctx, flags=1 if cpu else 0, cpu=cpu)

    def ir(self) -> str:
        """Optimised LLVM IR of the program."""
        return self.prog.native.ir()

    def assembly(self) -> str:
        """The host's assembly of the program."""
        return self.prog.native.assembly()

    def annotate(self) -> str:
        """The host's assembly under the instructions and the source lines that it is for. Compiled once more, for this."""
        lines = {index: line[0] for index, line in source_lines(self.prog).items()}
        return self.prog.native.annotated.text(self.prog.verified.insns, lines)


class ObjectMap:
    """A map of an object. `fd`: its descriptor; `map`: its contents (fastrtp.maps.Map)."""

    def __init__(self, process: Process, spec: MapSpec, fd: int, bpf_map: BpfMap) -> None:
        self._process = process
        self.spec = spec
        self.name = spec.name
        self.fd = fd
        self.bpf_map = bpf_map

    def __repr__(self) -> str:
        return f"<ObjectMap {self.name} {self.map!r}>"

    @property
    def map(self) -> Any:
        """The contents."""
        return self.bpf_map.map

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) as bytes; per-CPU: all CPUs' values, each rounded up to 8."""
        return iter(self.map.raw_items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """(key, value) decoded by BTF."""
        return iter(self.map.items())

    def __len__(self) -> int:
        return len(self.map)

    def __bool__(self) -> bool:
        return True

    def lookup(self, key: bytes, flags: int = 0) -> bytes:
        """The value. BpfError ENOENT."""
        return self._process.map_lookup_elem(self.fd, key, flags)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value. BpfError."""
        self._process.map_update_elem(self.fd, key, value, flags)

    def delete(self, key: bytes) -> None:
        """Remove the key. BpfError ENOENT."""
        self._process.map_delete_elem(self.fd, key)

    def consume(self) -> Iterator[bytes]:
        """Records of a ring buffer, or samples of a perf event array, as bytes; consumed."""
        consume = getattr(self.map, "consume", None)
        if consume is None:
            raise TypeError(f"map {self.name} is a {self.map.map_type.name}: only rings have records to consume")
        return iter(consume())


class ObjectMaps(dict[str, ObjectMap]):
    """Maps by name; global data also by its section, as libbpf has it: maps[".rodata"]."""

    def __missing__(self, name: str) -> ObjectMap:
        found = [held for held in self.values() if name.startswith(".") and held.name.endswith(name)]
        if len(found) == 1:
            return found[0]
        raise KeyError(name)


class BpfObject:
    """A loaded object. `programs`, `maps`: by name. `skipped`: program -> why it was not loaded."""

    def __init__(self, process: Process, spec: ObjectSpec) -> None:
        self._process = process
        self.spec = spec
        self.name = spec.name
        self.programs: dict[str, ObjectProgram] = {}
        self.maps = ObjectMaps()
        self.skipped: dict[str, str] = dict(spec.skipped)
        self.btf_fd = -1

    def __repr__(self) -> str:
        return f"<BpfObject {self.name} programs {list(self.programs)} maps {list(self.maps)}>"

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def attach(self, cookie: int = 0) -> Links:
        """Attach every program whose section names a tracepoint: all or none. BpfError "attach program X: ...".

        Perf event arrays get a ring for each CPU, which a tool that reads them would open now.
        """
        for held in self.maps.values():
            if hasattr(held.map, "open_rings") and not held.bpf_map.events:
                held.map.open_rings()
        links: list[Link] = []
        try:
            for program in self.programs.values():
                if program.auto_attachable:
                    links.append(program.attach(cookie=cookie))  # noqa: PERF401 - those before a failure have to be known
        except BaseException:
            Links(links).close()
            raise
        return Links(links)

    def close(self) -> None:
        """Close all descriptors: what nothing else holds is unloaded."""
        fds = [program.fd for program in self.programs.values()] + [held.fd for held in self.maps.values()] + [self.btf_fd]
        for program in self.programs.values():
            program.fd = -1
        for held in self.maps.values():
            held.fd = -1
        self.btf_fd = -1
        for fd in fds:
            if fd >= 0 and not self._process.exited:
                self._process.close(fd)


def _errno(error: BpfError) -> int:
    return error.errno if error.errno is not None else 0
