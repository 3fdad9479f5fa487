"""Names of objects and licenses: which characters may be in one, which license text counts as GPL."""

from __future__ import annotations

import errno
import string

from fastrtp.errors import BpfError
from fastrtp.uapi import BPF_OBJ_NAME_LEN

_NAME_CHARACTERS = frozenset((string.ascii_letters + string.digits + "_.").encode())

GPL_COMPATIBLE = frozenset({"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"})
"""Kernel: include/linux/license.h:license_is_gpl_compatible"""


def bpf_obj_name_cpy(raw: bytes) -> str:
    """The name in a 16-byte attr field. BpfError EINVAL for a character that is not allowed, or no NUL at the end.

    Kernel: kernel/bpf/syscall.c:bpf_obj_name_cpy
    """
    name = raw.split(b"\0", 1)[0]
    if len(name) >= BPF_OBJ_NAME_LEN:
        raise BpfError(errno.EINVAL, f"EINVAL: name of {len(name)} bytes, at most {BPF_OBJ_NAME_LEN - 1} are allowed")
    bad = [byte for byte in name if byte not in _NAME_CHARACTERS]
    if bad:
        raise BpfError(errno.EINVAL, f"EINVAL: character {chr(bad[0])!r} in name {name.decode('latin-1')!r}")
    return name.decode("ascii")


def object_name(name: str) -> str:
    """A name of an object file's as the kernel takes it: 15 characters, odd ones replaced. Kernel: tools/lib/bpf/libbpf.c"""
    return "".join(char if ord(char) in _NAME_CHARACTERS else "_" for char in name)[: BPF_OBJ_NAME_LEN - 1]
