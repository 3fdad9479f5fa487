"""Decompression of trace.dat sections and chunks with the memory bounded by what the data really holds.

A file states the uncompressed size of each piece. That number is checked before it is believed: against a cap, and for
zstd against the size in the frame's own header. Output that turns out longer or shorter is an error.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECTION_LIMIT = 1 << 30
"""Most bytes that one metadata section may unpack to."""
CHUNK_LIMIT = 1 << 26
"""Most bytes that one chunk of trace data may unpack to; trace-cmd writes 10 pages a chunk."""
_BATCH = 1 << 25
ALGORITHMS = ("none", "zstd", "zlib")


def check_algorithm(name: str) -> str:
    """`name`, or RecordingError when nothing here unpacks it."""
    if name not in ALGORITHMS:
        raise RecordingError(f"compression algorithm {name!r} is not supported: one of {', '.join(ALGORITHMS)} is")
    return name


def decompress(algorithm: str, data: memoryview, size: int, where: str, limit: int = SECTION_LIMIT) -> bytes:
    """`data` unpacked; exactly `size` bytes, or RecordingError."""
    if size > limit:
        raise RecordingError(f"{where}: unpacked size {size} is over the limit of {limit} bytes")
    if algorithm == "zstd":
        plain = _zstd(data, size, where)
    elif algorithm == "zlib":
        plain = _zlib(data, size, where)
    else:
        raise RecordingError(f"{where}: compressed, but the file's algorithm is {algorithm!r}")
    if len(plain) != size:
        raise RecordingError(f"{where}: unpacks to {len(plain)} bytes, {size} were promised")
    return plain


def _zstd(data: memoryview, size: int, where: str) -> bytes:
    import zstandard

    try:
        held = zstandard.frame_content_size(data)
        if held not in (-1, size):
            raise RecordingError(f"{where}: zstd frame of {held} bytes, {size} were promised")
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except (zstandard.ZstdError, MemoryError) as error:
        raise RecordingError(f"{where}: zstd: {error}") from error


def _zlib(data: memoryview, size: int, where: str) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        return unpacker.decompress(data, size + 1)
    except (zlib.error, MemoryError) as error:
        raise RecordingError(f"{where}: zlib: {error}") from error


def decompress_chunks(algorithm: str, chunks: Sequence[tuple[memoryview, int]], out: NDArray[np.uint8], where: str) -> None:
    """Unpack `chunks` of (packed bytes, unpacked size) one after the other into `out`, which they fill exactly."""
    if algorithm == "zstd":
        _zstd_chunks(chunks, out, where)
        return
    at = 0
    for index, (data, size) in enumerate(chunks):
        plain = decompress(algorithm, data, size, f"{where}: chunk {index}", CHUNK_LIMIT)
        out[at : at + size] = np.frombuffer(plain, np.uint8)
        at += size


def _zstd_chunks(chunks: Sequence[tuple[memoryview, int]], out: NDArray[np.uint8], where: str) -> None:
    import zstandard

    unpacker: Any = zstandard.ZstdDecompressor()
    index = 0
    at = 0
    while index < len(chunks):
        batch: list[memoryview] = []
        sizes: list[int] = []
        while index < len(chunks) and sum(sizes) < _BATCH:
            data, size = chunks[index]
            if size > CHUNK_LIMIT:
                raise RecordingError(f"{where}: chunk {index}: unpacked size {size} is over {CHUNK_LIMIT} bytes")
            try:
                held = zstandard.frame_content_size(data)
            except zstandard.ZstdError as error:
                raise RecordingError(f"{where}: chunk {index}: zstd: {error}") from error
            if held not in (-1, size):
                raise RecordingError(f"{where}: chunk {index}: zstd frame of {held} bytes, {size} were promised")
            batch.append(data)
            sizes.append(size)
            index += 1
        try:
            packed_sizes = np.array(sizes, np.uint64).tobytes()
            plain = unpacker.multi_decompress_to_buffer(batch, decompressed_sizes=packed_sizes, threads=-1)
            for piece in plain:
                view = np.frombuffer(piece, np.uint8)
                out[at : at + len(view)] = view
                at += len(view)
        except (zstandard.ZstdError, ValueError, MemoryError) as error:
            raise RecordingError(f"{where}: chunks {index - len(batch)} to {index - 1}: zstd: {error}") from error
