"""Arena: one reserved range of this process that stands for kernel memory.

Everything that a BPF program can hold a pointer to for longer than one run lives in it: map values, task_structs,
pt_regs, ring buffers. One range means that "may this address be read?" is one unsigned comparison. The range is
reserved without being committed: a page costs memory only when it is first written.

Must not know: maps, BTF, programs.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
import weakref
from bisect import bisect_left
from typing import Any

import numpy as np

PAGE_SIZE = 4096
GUARD = PAGE_SIZE
"""Bytes at either end of the arena that are never handed out, so that a small negative offset stays inside."""

_RESERVE = 1 << 36
# Python 3.11 has no name for it. Without it a kernel would count the whole range as promised, and refuse the next fork.
_MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
_SMALL = 1 << 15
_released: list[mmap.mmap] = []
"""Ranges that were given back while somebody still looked at them."""


class Arena:
    """A reserved address range with an allocator.

    `base`, `size`: the range, in bytes. Allocation is thread-safe; what it returns is zeroed.
    """

    def __init__(self, reserve: int = _RESERVE) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        while True:
            try:
                self._map = mmap.mmap(-1, reserve, flags=flags)
                break
            except OSError:  # an address-space limit: take what there is
                if reserve <= 1 << 26:
                    raise
                reserve >>= 1
        # The buffer export is dropped again at once: the address stays good until close(), which only we call.
        self.base: int = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.size: int = reserve
        self._next = GUARD
        self._sizes: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}
        self._large: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self.allocated = 0
        self._finalizer = weakref.finalize(self, _unmap, self._map)

    def close(self) -> None:
        """Give the whole range back. Addresses handed out are dead from here on."""
        self._finalizer()

    def alloc(self, size: int, align: int = 64) -> int:
        """Zeroed `size` bytes at a multiple of `align` (a power of two <= 4096). MemoryError when the arena is full."""
        need = _rounded(max(size, 1), align)
        with self._lock:
            offset = self._take(need, align)
            self._sizes[offset] = need
            self.allocated += need
        return self.base + offset

    def free(self, address: int) -> None:
        """Return one allocation; its bytes are zeroed. ValueError for an address that alloc() did not return."""
        with self._lock:
            offset = address - self.base
            need = self._sizes.pop(offset, None)
            if need is None:
                raise ValueError(f"free of {address:#x}, which is not an allocation of this arena")
            self.allocated -= need
            if need > _SMALL:
                self._map.madvise(mmap.MADV_DONTNEED, offset, need)
                self._large.insert(bisect_left(self._large, (need, offset)), (need, offset))
            else:
                ctypes.memset(address, 0, need)
                self._free.setdefault(need, []).append(offset)

    def view(self, address: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes [address, address + size) as a writable uint8 array; it keeps the arena's pages mapped."""
        offset = address - self.base
        if not 0 <= offset <= self.size - size:
            raise ValueError(f"{size} bytes at {address:#x} are not inside the arena")
        return np.frombuffer(self._map, np.uint8, size, offset)

    def _take(self, need: int, align: int) -> int:
        if need > _SMALL:
            at = bisect_left(self._large, (need, 0))
            if at < len(self._large) and self._large[at][0] == need:
                return self._large.pop(at)[1]
            align = PAGE_SIZE
        else:
            free = self._free.get(need)
            if free and free[-1] % align == 0:
                return free.pop()
        offset = -(-self._next // align) * align
        if offset + need > self.size - GUARD:
            raise MemoryError(f"arena of {self.size} bytes is full: {need} more are wanted")
        self._next = offset + need
        return offset


def _rounded(size: int, align: int) -> int:
    if size > _SMALL:
        return -(-size // PAGE_SIZE) * PAGE_SIZE
    unit = max(align, 64) if size > 64 else max(align, 8)
    return -(-size // unit) * unit


def _unmap(area: mmap.mmap) -> None:
    try:
        area.close()
    except BufferError:  # a view is still alive: the range goes when it does
        _released.append(area)
        for _ in range(len(_released)):
            try:
                old = _released.pop(0)  # other threads, or the collector in this one, may be here as well: each takes its own
            except IndexError:
                return
            try:
                old.close()
            except BufferError:
                _released.append(old)
