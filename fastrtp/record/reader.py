"""ByteReader: bounds-checked little-endian reads over a section of a mapped file.

Every read says what it wants; past the end that becomes a `RecordingError` with the section, the offset and the
number of bytes, so that a truncated file names its first missing piece. A count read from a file is checked against
the bytes that are left before anything is allocated for it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from fastrtp.errors import RecordingError


class ByteReader:
    """A cursor over `data`. `where` names the section in errors; `base` is the offset of `data[0]` in the file."""

    __slots__ = ("base", "data", "end", "offset", "where")

    def __init__(self, data: memoryview, where: str, base: int = 0, offset: int = 0) -> None:
        self.data = data
        self.where = where
        self.base = base
        self.offset = offset
        self.end = len(data)

    def error(self, message: str, offset: int | None = None) -> RecordingError:
        """A RecordingError to raise, at the cursor or at `offset` of the data."""
        at = self.base + (self.offset if offset is None else offset)
        return RecordingError(f"{self.where}: offset {at:#x}: {message}")

    def bytes(self, size: int, what: str) -> memoryview:
        """The next `size` bytes, not copied."""
        if size < 0 or size > self.end - self.offset:
            raise self.error(f"truncated: {what} wants {size} bytes, {max(self.end - self.offset, 0)} are left")
        start = self.offset
        self.offset = start + size
        return self.data[start : start + size]

    def _number(self, size: int, what: str) -> int:
        return int.from_bytes(self.bytes(size, what), "little")

    def u8(self, what: str) -> int:
        """The next one byte as an unsigned number."""
        return self._number(1, what)

    def u16(self, what: str) -> int:
        """The next two bytes as an unsigned number."""
        return self._number(2, what)

    def u32(self, what: str) -> int:
        """The next four bytes as an unsigned number."""
        return self._number(4, what)

    def u64(self, what: str) -> int:
        """The next eight bytes as an unsigned number."""
        return self._number(8, what)

    def count(self, unit: int, what: str) -> int:
        """A u32 count of things of at least `unit` bytes each; refused when they cannot fit in what is left."""
        count = self.u32(what)
        if count * unit > self.end - self.offset:
            raise self.error(f"{what} is {count}, but only {self.end - self.offset} bytes follow", self.offset - 4)
        return count

    def string(self, what: str, limit: int = 4096) -> str:
        """A NUL-terminated string of at most `limit` bytes."""
        window = bytes(self.data[self.offset : min(self.offset + limit, self.end)])
        length = window.find(b"\0")
        if length < 0:
            raise self.error(f"{what} has no end within {len(window)} bytes")
        self.offset += length + 1
        return window[:length].decode("utf-8", "replace")

    def sized_string(self, what: str) -> str:
        """A text behind its length as a u32, padded with NULs."""
        size = self.count(1, f"length of {what}")
        return bytes(self.bytes(size, what)).partition(b"\0")[0].decode("utf-8", "replace")


def map_file(path: Path) -> memoryview:
    """The bytes of a file, mapped. RecordingError for an empty one and for what cannot be read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise RecordingError(f"{path}: empty file")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{path}: {error}") from error
