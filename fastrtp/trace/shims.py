"""Where the cast shims are: in the native library, or, for rare argument widths, compiled on demand and kept in the cache."""

from __future__ import annotations

import functools

from fastrtp.native import library


@functools.cache
def shim_address(widths: str) -> int:
    """Native address of __bpf_trace_<widths>, e.g. "1884"; the first use of new widths compiles for about a second."""
    symbol = f"__bpf_trace_{widths}"
    lib = library.library()
    if symbol in lib.symbols:
        return lib.symbols[symbol]
    return library.extension(f"shim-{widths}", (widths,)).symbols[symbol]
