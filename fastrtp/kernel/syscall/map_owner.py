"""Whose storage a key of TASK_STORAGE, CGRP_STORAGE, INODE_STORAGE or SK_STORAGE names: keys are descriptors of the owner.

Kernel counterpart: kernel/bpf/bpf_task_storage.c:bpf_pid_task_storage_lookup_elem, bpf_inode_storage.c:bpf_fd_inode_storage_*,
bpf_cgrp_storage.c:bpf_cgrp_storage_*_elem, net/core/bpf_sk_storage.c:bpf_fd_sk_storage_*.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import signed

if TYPE_CHECKING:
    from fastrtp.kernel.objects.bpf_map import BpfMap
    from fastrtp.kernel.syscall.call import Call


@dataclass(frozen=True)
class PidFd:
    """What a descriptor of pidfd_open(2) is of. `task`: address of the task_struct."""

    pid: int
    task: int


def owner_of(call: Call, bpf_map: BpfMap, key: bytes) -> tuple[int, int]:
    """(address of the object, pid of a task). BpfError EBADF for another descriptor, ENOTSOCK of what is no socket."""
    fd = int.from_bytes(key, "little")
    held = call.file(fd)
    owner = bpf_map.map.ops.owner
    if owner == "task" and isinstance(held.private_data, PidFd):
        return held.private_data.task, held.private_data.pid
    if owner == "inode":
        # all files of anonymous inodes have one inode in common (fs/anon_inodes.c)
        name = held.name.partition(":")[0] if held.name.startswith("anon_inode:") else held.name
        return call.kernel.objects.object("inode", name), 0
    if owner == "sock":
        raise BpfError(errno.ENOTSOCK, f"ENOTSOCK: file descriptor {signed(fd)} is not a socket")
    raise BpfError(errno.EBADF, f"EBADF: file descriptor {signed(fd)} is not of a {owner}")
