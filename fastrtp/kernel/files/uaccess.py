"""Reading and writing user memory: addresses of this process that may be wrong.

The one rule: a bad address gives EFAULT and never a signal. Linux copies through process_vm_readv(2) and
process_vm_writev(2) on ourselves; where a sandbox forbids them, through a pipe, whose write(2) and read(2) make the
same check.

Kernel counterpart: copy_from_user, copy_to_user, strncpy_from_user, check_zeroed_user.
Must not know: commands, attrs.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading

from fastrtp.errors import BpfError
from fastrtp.once import once

PAGE_SIZE = 4096
_CHUNK = 4096


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def _fault(address: int, size: int, what: str) -> BpfError:
    return BpfError(errno.EFAULT, f"EFAULT: cannot {what} {size} bytes at address {address:#x}")


@once
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("process_vm_readv", "process_vm_writev"):
        if hasattr(libc, name):
            function = getattr(libc, name)
            function.restype = ctypes.c_ssize_t
            function.argtypes = [
                ctypes.c_int, ctypes.POINTER(_Iovec), ctypes.c_ulong, ctypes.POINTER(_Iovec), ctypes.c_ulong, ctypes.c_ulong,
            ]  # fmt: skip
    for name in ("read", "write"):
        function = getattr(libc, name)
        function.restype = ctypes.c_ssize_t
        function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _vm_copy(name: str, local: int, remote: int, size: int) -> int | None:
    """Bytes copied between our buffer and `remote`, -1 for a fault, None where the call is not to be had."""
    function = getattr(_libc(), name, None)
    if function is None or not sys.platform.startswith("linux"):
        return None
    ours, theirs = _Iovec(local, size), _Iovec(remote, size)
    got = int(function(os.getpid(), ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
    if got < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM):
        return None
    return got


class _Pipe(threading.local):
    """A pipe per thread for the fallback."""

    def __init__(self) -> None:
        self.fds = os.pipe()

    def read_from(self, address: int, size: int) -> bytes | None:
        parts = []
        while size:
            want = min(size, _CHUNK)
            if _libc().write(self.fds[1], address, want) != want:
                return None
            parts.append(os.read(self.fds[0], want))
            address, size = address + want, size - want
        return b"".join(parts)

    def write_to(self, address: int, data: bytes) -> bool:
        for at in range(0, len(data), _CHUNK):
            part = data[at : at + _CHUNK]
            os.write(self.fds[1], part)
            if _libc().read(self.fds[0], address + at, len(part)) != len(part):
                for fd in self.fds:
                    os.close(fd)
                self.fds = os.pipe()  # what was not taken is still in the old one
                return False
        return True


@once
def _pipe(process: int) -> _Pipe:
    return _Pipe()  # a forked child must not share its parent's


def copy_from_user(address: int, size: int) -> bytes:
    """`size` bytes at `address`; BpfError EFAULT when any of them cannot be read."""
    if size == 0:
        return b""
    if not 0 < address < 1 << 63:
        raise _fault(address, size, "read")
    buffer = ctypes.create_string_buffer(size)
    got = _vm_copy("process_vm_readv", ctypes.addressof(buffer), address, size)
    if got is None:
        data = _pipe(os.getpid()).read_from(address, size)
        if data is None:
            raise _fault(address, size, "read")
        return data
    if got != size:
        raise _fault(address, size, "read")
    return buffer.raw


def copy_to_user(address: int, data: bytes) -> None:
    """Write `data` at `address`; BpfError EFAULT when it cannot be written (the part before the fault may be)."""
    if not data:
        return
    if not 0 < address < 1 << 63:
        raise _fault(address, len(data), "write")
    buffer = ctypes.create_string_buffer(data, len(data))
    got = _vm_copy("process_vm_writev", ctypes.addressof(buffer), address, len(data))
    if got is None:
        got = len(data) if _pipe(os.getpid()).write_to(address, data) else -1
    if got != len(data):
        raise _fault(address, len(data), "write")


def strncpy_from_user(address: int, size: int) -> bytes:
    """The bytes before the NUL, at most `size` of them; BpfError EFAULT when the string leaves readable memory.

    Pages are read one by one, so that a string that ends just before an unmapped page is found.
    Kernel: lib/strncpy_from_user.c:strncpy_from_user
    """
    found = b""
    while len(found) < size:
        here = address + len(found)
        part = copy_from_user(here, min(size - len(found), PAGE_SIZE - here % PAGE_SIZE))
        end = part.find(b"\0")
        if end >= 0:
            return found + part[:end]
        found += part
    return found


def copy_string_to_user(address: int, size: int, text: bytes) -> bool:
    """Copy `text` and a NUL into `size` bytes, cut to fit; whether all of it did. BpfError EFAULT.

    Kernel: kernel/bpf/syscall.c:bpf_copy_to_user
    """
    if size >= len(text) + 1:
        copy_to_user(address, text + b"\0")
        return True
    copy_to_user(address, text[: size - 1] + b"\0")
    return False


def check_uarg_tail_zero(address: int, expected_size: int, actual_size: int) -> None:
    """E2BIG for a structure longer than a page or with non-zero bytes past `expected_size`; EFAULT.

    Kernel: kernel/bpf/syscall.c:bpf_check_uarg_tail_zero
    """
    if actual_size > PAGE_SIZE:
        raise BpfError(errno.E2BIG, f"E2BIG: structure of {actual_size} bytes, at most {PAGE_SIZE} are allowed")
    if actual_size > expected_size and any(copy_from_user(address + expected_size, actual_size - expected_size)):
        raise BpfError(errno.E2BIG, f"E2BIG: non-zero bytes past the {expected_size} that are known")


def put_user_u32(address: int, value: int) -> None:
    """Write a u32; BpfError EFAULT."""
    copy_to_user(address, (value & 0xFFFFFFFF).to_bytes(4, "little"))


def put_user_u64(address: int, value: int) -> None:
    """Write a u64; BpfError EFAULT."""
    copy_to_user(address, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"))
