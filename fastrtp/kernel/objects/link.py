"""BpfLink: an attachment that a file descriptor stands for.

A raw tracepoint link is one probe on one tracepoint. It holds its program; the last reference to the link detaches.
Release order: tracepoint_probe_unregister, the tracepoint's own reference, the program.

Kernel counterpart: kernel/bpf/syscall.c (bpf_link_*, bpf_raw_tp_link_*).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.kernel.files.refs import RefCounted
from fastrtp.uapi import BpfLinkType

if TYPE_CHECKING:
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.files.idr import Idr
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.kernel.tracing.tracepoints import TracepointRegistry
    from fastrtp.trace.probe import BpfRawEventMap, LinkRecord


class BpfLink(RefCounted):
    """`struct bpf_link`. `id` is 0 until the link is primed."""

    type: BpfLinkType

    def __init__(self, ids: Idr[BpfLink], prog: BpfProg, attach_type: int) -> None:
        super().__init__()
        self.prog = prog
        self.attach_type = attach_type
        self.settled = False
        self._ids = ids
        self.id = ids.alloc_cyclic(self)

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: bpf_link_release"""
        self.put()

    def cleanup(self) -> None:
        """Take back a primed link that could not be attached; the program stays the caller's. Kernel: bpf_link_cleanup"""
        self._ids.remove(self.id)
        self.refcnt = 0

    def release(self) -> None:
        """Detach and let the program go. Kernel: bpf_link_free"""
        self._ids.remove(self.id)
        self.detach_probe()
        self.prog.put()

    def detach_probe(self) -> None:
        """The link type's own release."""
        raise NotImplementedError


class BpfRawTpLink(BpfLink):
    """`struct bpf_raw_tp_link`: raw_tp, raw_tp.w and tp_btf programs. `btp`: the tracepoint's BpfRawEventMap.
    `record`: its native side, freed when it is detached.
    """

    type = BpfLinkType.BPF_LINK_TYPE_RAW_TRACEPOINT

    def __init__(
        self,
        ids: Idr[BpfLink],
        prog: BpfProg,
        attach_type: int,
        registry: TracepointRegistry,
        btp: BpfRawEventMap,
        record: LinkRecord,
    ) -> None:
        super().__init__(ids, prog, attach_type)
        self.btp = btp
        self.cookie = record.cookie
        self._registry = registry
        self.record = record
        record.set_id(self.id)

    def __repr__(self) -> str:
        return f"<BpfRawTpLink {self.id} {self.tp_name} prog {self.prog.id}>"

    @property
    def tp_name(self) -> str:
        """Name of the tracepoint."""
        return self.btp.tp.name

    def bpf_probe_register(self) -> None:
        """Attach. BpfError EINVAL when the program reads more than the tracepoint has; the regfunc's own, EEXIST, ENOMEM.

        Kernel: kernel/trace/bpf_trace.c:bpf_probe_register
        """
        self._registry.bpf_probe_register(self)

    def detach_probe(self) -> None:
        """Kernel: bpf_raw_tp_link_release"""
        self._registry.bpf_probe_unregister(self)
        self._registry.bpf_put_raw_tracepoint(self.btp)
