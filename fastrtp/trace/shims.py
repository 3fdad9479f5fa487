"""Where the cast shims are: in the native library, or, for rare argument widths, compiled on demand and kept in the cache."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from pathlib import Path

from fastrtp.native import library
from fastrtp.once import once

_PREFIX = "__bpf_trace_"


class Shims:
    """The shims that are loaded into this process: widths -> address. An address, once given, stays."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[str, int] = {}
        self._libraries: dict[str, library.NativeLibrary] = {}
        self._add(library.library())

    def _add(self, loaded: library.NativeLibrary) -> None:
        self._libraries[loaded.key] = loaded
        for symbol, address in loaded.symbols.items():
            if symbol.startswith(_PREFIX):
                self._addresses.setdefault(symbol.removeprefix(_PREFIX), address)

    def address(self, widths: str) -> int:
        """Native address of __bpf_trace_<widths>; compiled and loaded first if need be."""
        with self._lock:
            if widths not in self._addresses:
                self._add(library.extension(f"shim-{widths}", (widths,)))
            return self._addresses[widths]

    def compile(self, all_widths: Iterable[str]) -> None:
        """Compile and load all of these at once, which costs little more than one of them."""
        with self._lock:
            rare = sorted({widths for widths in all_widths if _PREFIX + widths not in library.library().symbols})
            if not all(widths in self._addresses for widths in rare):
                digest = hashlib.sha256(" ".join(rare).encode()).hexdigest()[:12]
                self._add(library.extension(f"shims-{digest}", tuple(rare)))

    def objects(self) -> list[Path]:
        """The object files that the shims were loaded from, the library's first."""
        return [library.cache_folder() / f"{key}.o" for key in self._libraries]


@once
def shims() -> Shims:
    """The process's shims: code is shared by all kernels."""
    return Shims()


def shim_address(widths: str) -> int:
    """Native address of __bpf_trace_<widths>, e.g. "1884"; the first use of new widths compiles for some seconds."""
    return shims().address(widths)
