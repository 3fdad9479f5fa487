"""TracepointRegistry: every tracepoint of a kernel, from its BTF or added with TRACE_EVENT, and the programs' way to them.

Tracepoints are made when first asked for, each once: 1,600 of them cost nothing until used. References count the links, so that a
tracepoint of one's own is not removed under a link (in Linux: the module that holds it).

Kernel counterpart: kernel/trace/bpf_trace.c (bpf_get_raw_tracepoint, bpf_probe_register), kernel/tracepoint.c
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError, BtfError
from fastrtp.trace.probe import BpfRawEventMap, bpf_probe_register, bpf_probe_unregister
from fastrtp.trace.tracepoint import Tracepoint
from fastrtp.uapi import MAX_BPF_FUNC_ARGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastrtp.btf import Btf, TracepointProto
    from fastrtp.kernel.objects.link import BpfRawTpLink
    from fastrtp.native.memory import Memory

WRITABLE: dict[str, str | int] = {
    "nbd_send_request": "nbd_request",
    "bpf_test_finish": 4,
    "bpf_testmod_test_writable_bare_tp": "bpf_testmod_test_writable_ctx",
}
"""DECLARE_TRACE_WRITABLE: tracepoint -> size of the buffer behind its first argument, as bytes or a struct's name.

BTF does not say it. Kernel: include/trace/events/{nbd,bpf_test_run}.h
"""


class TracepointRegistry(Mapping[str, Tracepoint]):
    """Name -> Tracepoint."""

    def __init__(self, btf: Btf, protos: Mapping[str, TracepointProto], memory: Memory) -> None:
        self._btf = btf
        self._protos = protos
        self._memory = memory
        self._made: dict[str, BpfRawEventMap] = {}
        self._added: dict[str, BpfRawEventMap] = {}
        self._references: dict[str, int] = {}
        self._making = threading.Lock()

    def __getitem__(self, name: str) -> Tracepoint:
        return self._event_map(name).tp

    def __contains__(self, name: object) -> bool:
        return name in self._added or name in self._protos

    def __iter__(self) -> Iterator[str]:
        yield from self._protos
        yield from (name for name in self._added if name not in self._protos)

    def __len__(self) -> int:
        return sum(1 for _name in self)

    def proto(self, name: str) -> TracepointProto:
        """Prototype of a tracepoint. KeyError."""
        return self._added[name].tp.proto if name in self._added else self._protos[name]

    def widths(self, name: str) -> str:
        """Argument sizes in bytes, which name the cast shim: "1884". KeyError."""
        return "".join(str(arg.size) for arg in self.proto(name).args)

    def add(
        self, proto: TracepointProto, *, writable_size: int = 0,
        regfunc: Callable[[], int | None] | None = None, unregfunc: Callable[[], None] | None = None,
    ) -> Tracepoint:  # fmt: skip
        """A tracepoint of one's own. BpfError EEXIST for a name that is there, EINVAL for more than 12 arguments."""
        if proto.name in self:
            raise BpfError(errno.EEXIST, f"EEXIST: tracepoint {proto.name!r} is there already")
        if len(proto.args) > MAX_BPF_FUNC_ARGS:
            raise BpfError(errno.EINVAL, f"EINVAL: {len(proto.args)} arguments, at most {MAX_BPF_FUNC_ARGS} are allowed")
        tp = Tracepoint(proto.name, proto, self._memory, regfunc=regfunc, unregfunc=unregfunc)
        self._added[proto.name] = BpfRawEventMap(tp, len(proto.args), writable_size)
        return tp

    def added(self) -> list[str]:
        """Names of the tracepoints of one's own."""
        return list(self._added)

    def remove(self, name: str) -> None:
        """Take back an added tracepoint. BpfError ENOENT, EBUSY while links hold it."""
        if name not in self._added:
            raise BpfError(errno.ENOENT, f"ENOENT: no tracepoint {name!r} was added")
        if self._references.get(name):
            raise BpfError(errno.EBUSY, f"EBUSY: {self._references[name]} links hold tracepoint {name!r}")
        del self._added[name]

    def bpf_get_raw_tracepoint(self, name: str) -> BpfRawEventMap | None:
        """The tracepoint with one more reference, or None. Kernel: kernel/trace/bpf_trace.c:bpf_get_raw_tracepoint"""
        if name not in self:
            return None
        self._references[name] = self._references.get(name, 0) + 1
        return self._event_map(name)

    def bpf_put_raw_tracepoint(self, btp: BpfRawEventMap) -> None:
        """Give the reference back. Kernel: kernel/trace/bpf_trace.c:bpf_put_raw_tracepoint"""
        self._references[btp.tp.name] -= 1

    def references(self, name: str) -> int:
        """Links on a tracepoint, or on their way there."""
        return self._references.get(name, 0)

    def bpf_probe_register(self, link: BpfRawTpLink) -> None:
        """The attach-time half of the static check, then the probe. BpfError EINVAL; else what registering gives.

        Kernel: kernel/trace/bpf_trace.c:bpf_probe_register
        """
        prog, btp = link.prog, link.btp
        if prog.max_ctx_offset > 8 * btp.num_args:
            reads = f"program reads {prog.max_ctx_offset} bytes of context"
            raise BpfError(errno.EINVAL, f"EINVAL: {reads}, {btp.tp.name} has {btp.num_args} arguments")
        if prog.max_tp_access > btp.writable_size:
            accesses = f"program accesses {prog.max_tp_access} bytes of {btp.tp.name}'s buffer"
            raise BpfError(errno.EINVAL, f"EINVAL: {accesses}, which has {btp.writable_size}")
        bpf_probe_register(btp, link.record)

    def bpf_probe_unregister(self, link: BpfRawTpLink) -> None:
        """Detach; no run through the link is under way any more. Kernel: kernel/trace/bpf_trace.c:bpf_probe_unregister"""
        bpf_probe_unregister(link.btp, link.record)
        link.record.close()

    def _event_map(self, name: str) -> BpfRawEventMap:
        added = self._added.get(name)
        if added is not None:
            return added
        made = self._made.get(name)
        if made is not None:
            return made
        with self._making:
            made = self._made.get(name)
            if made is None:
                proto = self._protos[name]
                tp = Tracepoint(name, proto, self._memory)
                made = self._made[name] = BpfRawEventMap(tp, len(proto.args), self._writable_size(name))
            return made

    def _writable_size(self, name: str) -> int:
        size = WRITABLE.get(name, 0)
        if isinstance(size, int):
            return size
        try:
            found = self._btf.find(size)
            return self._btf.sizeof(found) if found is not None else 0
        except BtfError:
            return 0
