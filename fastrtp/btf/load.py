"""Where BTF comes from: the package's own vmlinux, the running kernel, a file.

The package ships the BTF of one Linux 6.1 kernel (data/PROVENANCE.md), so that objects load the same everywhere.
Types are decoded on demand, so opening it costs its decompression and one pass over its record lengths.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import resources

from fastrtp.errors import BtfError

from .parse import Btf

DEFAULT_BTF = "vmlinux-6.1.btf.zst"
DEFAULT_KERNEL_VERSION = 6 << 16 | 1 << 8 | 192
"""LINUX_VERSION_CODE of the kernel that the shipped BTF describes."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_BTF = 1 << 28
"""Bytes that a compressed BTF may expand to."""


@cache
def default_btf() -> Btf:
    """The shipped vmlinux BTF; the same object on every call in a process."""
    return parse_btf(resources.files(__package__).joinpath("data", DEFAULT_BTF).read_bytes(), DEFAULT_BTF)


def host_btf() -> Btf:
    """The running kernel's BTF. Raises `BtfError` where the kernel does not offer it."""
    return load_btf("/sys/kernel/btf/vmlinux")


def load_btf(path: str | os.PathLike[str], base: Btf | None = None) -> Btf:
    """BTF from a file: raw, or zstd-compressed. Raises `BtfError` naming the file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BtfError(f"{os.fspath(path)}: {(error.strerror or str(error)).lower()}") from error
    return parse_btf(data, os.fspath(path), base)


def parse_btf(data: bytes, name: str, base: Btf | None = None) -> Btf:
    """Parse raw or zstd-compressed BTF; errors begin with `name`."""
    if data[:4] == _ZSTD_MAGIC:
        data = _decompress(data, name)
    try:
        return Btf.parse(data, base)
    except BtfError as error:
        raise BtfError(f"{name}: {error}") from None


def _decompress(data: bytes, name: str) -> bytes:
    import zstandard

    try:
        size = zstandard.frame_content_size(data)
        if 0 <= size <= _MAX_BTF:
            return zstandard.ZstdDecompressor().decompress(data)
        out = bytearray()
        with zstandard.ZstdDecompressor().stream_reader(data) as reader:
            while size < 0 and len(out) <= _MAX_BTF and (chunk := reader.read(1 << 20)):
                out += chunk
    except zstandard.ZstdError as error:
        raise BtfError(f"{name}: bad zstd data: {error}") from error
    if size > _MAX_BTF or len(out) > _MAX_BTF:
        raise BtfError(f"{name}: expands to more than {_MAX_BTF} bytes")
    return bytes(out)
