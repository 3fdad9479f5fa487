"""ObjectProgram: a program of an object, as it will be loaded while the object is only open, and as it is once it is loaded.

And its attachments. Kernel counterpart: tools/lib/bpf/libbpf.c (struct bpf_program, bpf_program__set_*, bpf_link).
"""

from __future__ import annotations

import errno
from types import TracebackType
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError, ObjectError
from fastrtp.kernel.objects.jited import source_lines
from fastrtp.obj.sections import SECTION_DEFS
from fastrtp.uapi import BpfAttachType, BpfProgType

if TYPE_CHECKING:
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ProgramSpec

_ATTACH_TYPES = {BpfProgType.BPF_PROG_TYPE_TRACING: int(BpfAttachType.BPF_TRACE_RAW_TP)}


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
    """A program of an object. `fd`: its descriptor, -1 while there is none; `prog`: the kernel's object.

    Until the object is loaded, `autoload`, `attach_to` and `type` can be set.
    """

    def __init__(self, process: Process, spec: ProgramSpec) -> None:
        self._process = process
        self.spec = spec
        self.name = spec.name
        self.fd = -1
        self._prog: BpfProg | None = None
        self._autoload = spec.autoload

    def __repr__(self) -> str:
        return f"<ObjectProgram {self.name} {self.spec.section}>"

    # before it is loaded

    def _changeable(self) -> None:
        if self._prog is not None:
            raise BpfError(errno.EBUSY, f"EBUSY: program {self.name} is loaded: it is set up between open and load")

    @property
    def autoload(self) -> bool:
        """Whether loading the object loads it. BpfError EBUSY when set afterwards."""
        return self._autoload

    @autoload.setter
    def autoload(self, value: bool) -> None:
        self._changeable()
        self._autoload = bool(value)

    @property
    def attach_to(self) -> str:
        """The tracepoint that it attaches to: "sched_switch", a classic program's "sched/sched_switch"; "" for none."""
        return self.spec.attach_name

    @attach_to.setter
    def attach_to(self, name: str) -> None:
        self._changeable()
        self.spec.attach_name = name

    @property
    def type(self) -> BpfProgType:
        """Its type; may be set by number, or by the word that begins a section's name: "tp_btf", "raw_tp", "raw_tp.w", "tp"."""
        return BpfProgType(self.spec.prog_type)

    @type.setter
    def type(self, value: int | str) -> None:
        self._changeable()
        if isinstance(value, str):
            if value not in SECTION_DEFS:
                raise ObjectError(f"program {self.name}: no type {value!r}, there are: {', '.join(SECTION_DEFS)}")
            definition = SECTION_DEFS[value]
            self.spec.prog_type, self.spec.attach_type, self.spec.writable = definition
            return
        self.spec.prog_type = int(BpfProgType(value))
        self.spec.attach_type = _ATTACH_TYPES.get(BpfProgType(value), 0)
        self.spec.writable = value == BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE

    # once it is loaded

    def loaded(self, fd: int) -> None:
        """The program behind a descriptor is this one."""
        self.fd = fd
        self._prog = self._process.files.fget(fd).private_data

    @property
    def prog(self) -> BpfProg:
        """The kernel's object. ObjectError before the object is loaded, and when it is gone."""
        if self._prog is None:
            raise ObjectError(f"program {self.name} is not loaded yet: load the object")
        if self._prog.is_released:
            raise ObjectError(f"program {self.name} is gone: its object was closed, or its kernel shut down")
        return self._prog

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
            raise BpfError(error.errno or 0, f"attach program {self.name}: {error.strerror}") from error
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
