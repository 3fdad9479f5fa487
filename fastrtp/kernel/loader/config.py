"""The configuration that a kernel was built with: where it is found, and how a user gives it.

Kernel counterpart: tools/lib/bpf/libbpf.c:bpf_object__read_kconfig_file
"""

from __future__ import annotations

import gzip
import os
import platform
import zlib
from collections.abc import Mapping
from pathlib import Path

from fastrtp.errors import ObjectError
from fastrtp.obj.kconfig import Config, config_of, parse_config

ConfigSource = str | os.PathLike[str] | Mapping[str, object]
"""A configuration: options and values, the text of a .config, or a file of it (plain, gzip or zstd)."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MOST_BYTES = 1 << 24
"""Bytes that a compressed configuration may expand to."""


def host_config() -> dict[str, str] | None:
    """The running kernel's configuration; None where it is not to be had."""
    return first_config(f"/boot/config-{platform.release()}", "/proc/config.gz")


def first_config(*paths: str | os.PathLike[str]) -> dict[str, str] | None:
    """The configuration in the first of these files that is there."""
    found = next((path for path in paths if os.path.isfile(path)), None)
    return read_config(found) if found is not None else None


def read_config(path: str | os.PathLike[str]) -> dict[str, str]:
    """A .config, plain, gzip or zstd. ObjectError naming the file."""
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        elif data[:4] == _ZSTD_MAGIC:
            data = _unpack(data)
        return parse_config(data.decode("utf-8", "backslashreplace"))
    except OSError as error:
        raise ObjectError(f"{name}: {(error.strerror or str(error)).lower()}") from error
    except (EOFError, zlib.error) as error:
        raise ObjectError(f"{name}: damaged: {error}") from error
    except ObjectError as error:
        raise ObjectError(f"{name}: {error}") from error


def _unpack(data: bytes) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MOST_BYTES)
    except zstandard.ZstdError as error:
        raise ObjectError(f"bad zstd data: {error}") from error


def config_from(source: ConfigSource) -> Config:
    """A configuration from what a user gives. ObjectError."""
    if isinstance(source, Mapping):
        return config_of(source)
    if isinstance(source, str) and ("=" in source or "\n" in source):
        return parse_config(source)
    return read_config(source)
