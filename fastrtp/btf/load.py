"""Where BTF comes from: the package's own vmlinux, the running kernel, a file.

The package ships the BTF of one Linux 6.1 kernel (data/PROVENANCE.md), so that objects load the same everywhere.
Types are decoded on demand, so opening it costs its decompression and one pass over its record lengths, which are kept in
the user's cache.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fastrtp.entry_cache import EntryCache, cache_folder
from fastrtp.errors import BtfError
from fastrtp.once import once
from fastrtp.provenance import made_by

from .parse import Btf

DEFAULT_BTF = "vmlinux-6.1.btf.zst"
DEFAULT_CONFIG = "config-6.1.zst"
DEFAULT_RELEASE = "6.1.0-56-cloud-amd64"
"""What uname -r says on the kernel that the shipped BTF describes."""
DEFAULT_KERNEL_VERSION = 6 << 16 | 1 << 8 | 192
"""LINUX_VERSION_CODE of the kernel that the shipped BTF describes."""

_XZ_MAGIC = b"\xfd7zXZ\x00"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LARGE = 1 << 19
"""Bytes from which on a BTF is worth an entry in the cache."""
_MAX_CACHED = 64 << 20
_RECENT = 8
_MAX_BTF = 1 << 28
"""Bytes that a compressed BTF may expand to."""


@once
def default_btf() -> Btf:
    """The shipped vmlinux BTF; the same object on every call in a process."""
    return parse_btf(_shipped(), DEFAULT_BTF)


def shipped_config() -> Path:
    """The configuration that the kernel of the shipped BTF was built with, a .config in zstd."""
    return Path(__file__).with_name("data") / DEFAULT_CONFIG


def _shipped() -> bytes:
    try:
        return Path(__file__).with_name("data").joinpath(DEFAULT_BTF).read_bytes()
    except OSError:  # the package is in an archive
        from importlib import resources

        return resources.files(__package__).joinpath("data", DEFAULT_BTF).read_bytes()


@lru_cache(maxsize=_RECENT)
def object_btf(data: bytes) -> Btf:
    """The BTF of an object. The last few are kept: whoever loads an object parses the same bytes again for BPF_BTF_LOAD, and
    loads the same object again. Raises `BtfError`.
    """
    return Btf.parse(data)


def host_btf() -> Btf:
    """The running kernel's BTF. Raises `BtfError` where the kernel does not offer it."""
    return load_btf("/sys/kernel/btf/vmlinux")


def load_btf(path: str | os.PathLike[str], base: Btf | None = None) -> Btf:
    """BTF from a file: raw, zstd-compressed, or the one in a .tar.xz, as BTFHub has them. Raises `BtfError` naming the file."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BtfError(f"{os.fspath(path)}: {(error.strerror or str(error)).lower()}") from error
    if data.startswith(_XZ_MAGIC):
        data = _unpack_tar(data, os.fspath(path))
    return parse_btf(data, os.fspath(path), base)


def _unpack_tar(data: bytes, name: str) -> bytes:
    """The first .btf of a .tar.xz."""
    import io
    import lzma
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() and member.name.endswith(".btf") else None
                if file is not None and member.size <= _MAX_BTF:
                    return file.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise BtfError(f"{name}: bad archive: {error}") from error
    raise BtfError(f"{name}: no .btf in the archive, or one of more than {_MAX_BTF} bytes")


def parse_btf(data: bytes, name: str, base: Btf | None = None) -> Btf:
    """Parse raw or zstd-compressed BTF; errors begin with `name`. A kernel's is found in the cache the next time."""
    packed = data[:4] == _ZSTD_MAGIC
    cached = base is None and len(data) >= _LARGE
    cache = EntryCache(cache_folder(), "btf", ".index", made_by(__name__), _MAX_CACHED) if cached else None
    key = hashlib.sha256(data).hexdigest() if cached else ""
    found = cache.get(key) if cache is not None else None
    known = _indexed(data, packed, *found) if found is not None else None
    if known is not None:
        return known
    raw = _decompress(data, name) if packed else data
    try:
        btf = Btf.parse(raw, base)
    except BtfError as error:
        raise BtfError(f"{name}: {error}") from None
    if cache is not None:
        offsets = btf.records[1]
        cache.put(key, {"types": len(offsets), "digest": btf.digest}, offsets.astype("<u4").tobytes() + (raw if packed else b""))
    return btf


def _indexed(data: bytes, packed: bool, facts: dict[str, Any], body: bytes) -> Btf | None:
    """The BTF of an entry: offsets of its records, then what compressed data expands to. None for an entry that does not fit."""
    try:
        size = 4 * facts["types"]
        offsets = np.frombuffer(body, "<u4", facts["types"])
        return Btf.parse(body[size:] if packed else data, None, (offsets, str(facts["digest"])))
    except (KeyError, ValueError, TypeError, BtfError):
        return None


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
