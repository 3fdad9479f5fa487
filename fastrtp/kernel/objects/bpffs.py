"""The BPF file system: names for programs, maps and links that keep them alive without a descriptor.

One mount per kernel, at /sys/fs/bpf; nothing of the host's file system is touched. Kernel counterpart: kernel/bpf/inode.c
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator

from fastrtp.errors import BpfError
from fastrtp.kernel.objects.bpf_map import BpfMap
from fastrtp.kernel.objects.link import BpfLink
from fastrtp.kernel.objects.prog import BpfProg

Pinnable = BpfProg | BpfMap | BpfLink
PATH_MAX = 4096
NAME_MAX = 255


class BpfFs:
    """Path -> object, and the directories that there are. Paths are absolute."""

    def __init__(self, mount_point: str = "/sys/fs/bpf") -> None:
        self.mount_point = mount_point
        self._pins: dict[str, Pinnable] = {}
        self._folders = {mount_point}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._pins))

    def __len__(self) -> int:
        return len(self._pins)

    def _resolve(self, path: str) -> str:
        """The normal form of a path inside the mount.

        BpfError EPERM for one outside, ENOENT for a missing directory, ENAMETOOLONG for a name of more than 255 bytes.
        """
        path = posixpath.normpath(path)
        folder, name = posixpath.split(path)
        if not (path.startswith(self.mount_point + "/") and name):
            raise BpfError(errno.EPERM, f"EPERM: {path!r} is not in the BPF file system at {self.mount_point}")
        if folder not in self._folders:
            raise BpfError(errno.ENOENT, f"ENOENT: no directory {folder!r}")
        self._check_name(name)
        return path

    def _check_name(self, name: str) -> None:
        """Kernel: fs/libfs.c:simple_lookup"""
        size = len(os.fsencode(name))
        if size > NAME_MAX:
            raise BpfError(errno.ENAMETOOLONG, f"ENAMETOOLONG: a name of {size} bytes, {NAME_MAX} at most")

    def mkdir(self, path: str) -> None:
        """mkdir(2). BpfError EEXIST, ENOENT, EPERM."""
        path = self._resolve(path)
        if path in self._folders or path in self._pins:
            raise BpfError(errno.EEXIST, f"EEXIST: {path!r}")
        self._folders.add(path)

    def pin(self, path: str, obj: Pinnable) -> None:
        """Name an object; the file system takes a reference. BpfError EEXIST, EPERM for a dot in the name.

        Kernel: kernel/bpf/inode.c:bpf_obj_do_pin
        """
        path = self._resolve(path)
        if path in self._pins or path in self._folders:
            raise BpfError(errno.EEXIST, f"EEXIST: {path!r} is taken")
        if "." in posixpath.basename(path):
            raise BpfError(errno.EPERM, f"EPERM: names in the BPF file system have no dots: {path!r}")
        if isinstance(obj, BpfMap):
            obj.get_with_uref()
        else:
            obj.get()
        self._pins[path] = obj

    def get(self, path: str) -> Pinnable:
        """The object of that name, without a new reference. BpfError ENOENT, EACCES for a directory."""
        path = posixpath.normpath(path)
        if path in self._folders:
            raise BpfError(errno.EACCES, f"EACCES: {path!r} is a directory")
        obj = self._pins.get(path)
        if obj is None:
            folder, name = posixpath.split(path)
            if folder in self._folders:
                self._check_name(name)
            raise BpfError(errno.ENOENT, f"ENOENT: {path!r}")
        return obj

    def unlink(self, path: str) -> None:
        """unlink(2): the name goes, and with it the reference. BpfError ENOENT."""
        obj = self.get(path)
        del self._pins[posixpath.normpath(path)]
        if isinstance(obj, BpfMap):
            obj.put_with_uref()
        else:
            obj.put()

    def unmount(self) -> None:
        """Every name goes. Kernel: kernel/bpf/inode.c:bpf_kill_super"""
        for path in list(self._pins):
            self.unlink(path)
