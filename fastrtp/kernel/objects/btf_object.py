"""BtfObject: a loaded BTF as the kernel keeps it, with id, bytes and references.

Kernel counterpart: kernel/bpf/btf.c (btf_alloc_id, btf_put, btf_get_info_by_fd's side of the data).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.kernel.files.refs import RefCounted

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.files.idr import Idr


class BtfObject(RefCounted):
    """`struct btf`. `name` is "" for what a user loaded, "vmlinux" or a module's name for the kernel's own."""

    def __init__(self, ids: Idr[BtfObject], btf: Btf, data: bytes, name: str = "") -> None:
        super().__init__()
        self.btf = btf
        self.data = data
        self.name = name
        self._ids = ids
        self.id = ids.alloc_cyclic(self)

    def __repr__(self) -> str:
        return f"<BtfObject {self.id} {self.name or 'user'}>"

    @property
    def kernel_btf(self) -> bool:
        """Whether it describes the kernel or a module."""
        return bool(self.name)

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: btf_release"""
        self.put()

    def release(self) -> None:
        """Kernel: kernel/bpf/btf.c:btf_put"""
        self._ids.remove(self.id)
