"""BpfMap: a map as the kernel keeps it: id, references, access rights, and the programs in a program array.

What is in a map and how it is found there belongs to fastrtp.maps; this layer knows who may touch it and what a file
descriptor stored in it stands for.

Kernel counterpart: kernel/bpf/syscall.c (bpf_map_*), kernel/bpf/arraymap.c (prog_fd_array_*).
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.kernel.files.file import File
from fastrtp.kernel.files.refs import RefCounted
from fastrtp.uapi import BPF_ANY, BPF_F_PRESERVE_ELEMS, BpfMapType

if TYPE_CHECKING:
    from fastrtp.kernel.files.idr import Idr
    from fastrtp.kernel.objects.btf_object import BtfObject
    from fastrtp.kernel.objects.perf_event import PerfEvent
    from fastrtp.kernel.objects.prog import BpfProg


class BpfMap(RefCounted):
    """`struct bpf_map`. `map`: the contents. `usercnt`: references that user space holds (open files, pins)."""

    def __init__(self, ids: Idr[BpfMap], contents: Any, name: str, btf: BtfObject | None) -> None:
        super().__init__()
        self.usercnt = 1
        self.map = contents
        self.name = name
        self.btf = btf
        self.programs: dict[int, BpfProg] = {}
        self.owner: tuple[Any, ...] | None = None
        self._tp_access: int | None = None
        self.events: dict[int, tuple[PerfEvent, File]] = {}
        self.inners: dict[bytes, BpfMap] = {}
        self._ids = ids
        self.id = contents.id = ids.alloc_cyclic(self)

    def __repr__(self) -> str:
        return f"<BpfMap {self.id} {self.name!r} {BpfMapType(self.map.map_type).name}>"

    @property
    def map_type(self) -> int:
        """BPF_MAP_TYPE_*."""
        return int(self.map.map_type)

    @property
    def is_fd_array(self) -> bool:
        """Whether values are file descriptors."""
        return bool(self.map.ops.fd_array)

    @property
    def is_map_of_maps(self) -> bool:
        """Whether values are maps."""
        return self.map.inner_map is not None

    @property
    def value_size_user(self) -> int:
        """Bytes of a value in a system call. Kernel: kernel/bpf/syscall.c:bpf_map_value_size"""
        if self.is_fd_array:
            return 4
        return int(self.map.value_size_user if self.map.percpu else self.map.value_size)

    def readable(self, file: File) -> bool:
        """Whether this file may look into the map."""
        return file.readable

    def writable(self, file: File) -> bool:
        """Whether this file may change it: frozen maps may not be changed. Kernel: map_get_sys_perms"""
        return file.writable and not self.map.frozen

    def get_with_uref(self) -> None:
        """A reference on behalf of user space. Kernel: bpf_map_inc_with_uref"""
        self.get()
        self.usercnt += 1
        self.map.record["uref"] = 1

    def put_with_uref(self) -> None:
        """Give one back; with the last one gone, a program array lets its programs go. Kernel: bpf_map_put_with_uref"""
        self.usercnt -= 1
        if self.usercnt == 0:
            self.clear_programs()
            self.map.release_uref()
            self.map.memory.sweep()
        self.put()

    def release_file(self, file: File) -> None:
        """The last descriptor of one open file of the map is closed. Kernel: bpf_map_release"""
        if not self.map.map_flags & BPF_F_PRESERVE_ELEMS:
            for index in [index for index, (_event, owner) in self.events.items() if owner is file]:
                self.delete_event(index)
        self.put_with_uref()

    def release(self) -> None:
        """Free the contents. Kernel: bpf_map_free"""
        self._ids.remove(self.id)
        self.clear_programs()
        for index in list(self.events):
            self.delete_event(index)
        for key in list(self.inners):
            self.inners.pop(key).put()
        self.map.close()
        if self.btf is not None:
            self.btf.put()

    # program arrays

    def compatible(self, prog: BpfProg) -> bool:
        """Whether the program may be in this array, or use it: all must be of one kind; the first decides.

        Kernel: kernel/bpf/core.c:bpf_prog_map_compatible
        """
        kind = (prog.type, prog.sleepable, prog.expected_attach_type, prog.attach_func_proto)
        if self.owner is None:
            self.owner = kind
        return self.owner == kind

    def admit_caller(self, prog: BpfProg) -> bool:
        """Whether the program may tail-call what is here, now and later: those programs touch no more of the tracepoint's buffer
        than it does itself, which is all that is looked at when it is attached. Differs: Linux does not ask.
        """
        self._tp_access = min(prog.max_tp_access, prog.max_tp_access if self._tp_access is None else self._tp_access)
        return all(self.admits(target) for target in self.programs.values())

    def admits(self, prog: BpfProg) -> bool:
        """Whether the program touches no more of a tracepoint's buffer than those that may tail-call it. Differs: see above."""
        return self._tp_access is None or prog.max_tp_access <= self._tp_access

    def update_prog(self, index: int, prog: BpfProg) -> None:
        """Put a program into the array; the reference to it passes to the map.

        Kernel: kernel/bpf/arraymap.c:bpf_fd_array_map_update_elem
        """
        old = self.programs.get(index)
        self.programs[index] = prog
        self.map.set_slot(index, prog.record.address)
        if old is not None:
            old.put()

    def check_index(self, index: int, flags: int = BPF_ANY) -> None:
        """Checks that come before the descriptor is looked at. BpfError EINVAL, E2BIG."""
        if flags != BPF_ANY:
            raise BpfError(errno.EINVAL, f"EINVAL: flags {flags:#x} on a map of file descriptors, only BPF_ANY is allowed")
        if index >= self.map.max_entries:
            raise BpfError(errno.E2BIG, f"E2BIG: index {index} of a map with {self.map.max_entries} entries")

    def lookup_prog(self, index: int) -> BpfProg:
        """BpfError ENOENT for an empty place."""
        prog = self.programs.get(index)
        if prog is None:
            raise BpfError(errno.ENOENT, f"ENOENT: no program at index {index}")
        return prog

    def delete_fd(self, index: int) -> None:
        """Empty one place. BpfError E2BIG, ENOENT. Kernel: kernel/bpf/arraymap.c:__fd_array_map_delete_elem"""
        self.check_index(index)
        if index in self.programs:
            self._drop_program(index)
        elif index in self.events:
            self.delete_event(index)
        elif self.is_map_of_maps:
            self.delete_inner(index.to_bytes(4, "little"))
        else:
            raise BpfError(errno.ENOENT, f"ENOENT: nothing at index {index}")

    def clear_programs(self) -> None:
        """Empty a program array. Kernel: kernel/bpf/arraymap.c:prog_array_map_clear"""
        for index in list(self.programs):
            self._drop_program(index)

    def _drop_program(self, index: int) -> None:
        prog = self.programs.pop(index)
        self.map.set_slot(index, 0)
        prog.put()

    # maps of maps

    def update_inner(self, key: bytes, inner: BpfMap, flags: int) -> None:
        """Put a map under a key; the outer map holds it from now on. BpfError EINVAL for one of another shape.

        Kernel: kernel/bpf/map_in_map.c:bpf_map_fd_get_ptr, arraymap.c:bpf_fd_array_map_update_elem
        """
        from fastrtp.maps import map_meta_equal

        if not map_meta_equal(self.map.inner_map, inner.map):
            raise BpfError(errno.EINVAL, f"EINVAL: map {inner.id} is of another shape than the inner maps of map {self.id}")
        inner.get()
        try:
            if self.is_fd_array:
                self.map.set_slot(int.from_bytes(key, "little"), inner.map.address)
            else:
                self.map.set_inner(key, inner.map.address, flags)
        except BpfError:
            inner.put()
            raise
        old = self.inners.get(key)
        self.inners[key] = inner
        self._put_inner(old)

    def lookup_inner(self, key: bytes) -> BpfMap:
        """BpfError ENOENT."""
        inner = self.inners.get(key)
        if inner is None:
            raise BpfError(errno.ENOENT, f"ENOENT: no map under {key.hex()} in map {self.id}")
        return inner

    def delete_inner(self, key: bytes) -> None:
        """BpfError ENOENT."""
        self.lookup_inner(key)
        if self.is_fd_array:
            self.map.set_slot(int.from_bytes(key, "little"), 0)
        else:
            self.map.delete_elem(key)
        self._put_inner(self.inners.pop(key))

    def _put_inner(self, inner: BpfMap | None) -> None:
        """A program that found the inner map may still be running. Kernel: bpf_map_fd_put_ptr"""
        if inner is not None:
            self.map.memory.synchronize_rcu()
            inner.put()

    # perf event arrays

    def update_event(self, index: int, event: PerfEvent, file: File) -> None:
        """Let bpf_perf_event_output at this index write to the event's ring; the reference passes to the map."""
        if index in self.events:
            self.delete_event(index)
        self.events[index] = event, file
        self.map.set_slot(index, event.ring.address)

    def delete_event(self, index: int) -> None:
        """Forget the event at this index."""
        event, _file = self.events.pop(index)
        self.map.set_slot(index, 0)
        event.put()


def not_supported(what: str) -> BpfError:
    """ENOTSUPP, 524."""
    return BpfError(ENOTSUPP, f"ENOTSUPP: {what}")
