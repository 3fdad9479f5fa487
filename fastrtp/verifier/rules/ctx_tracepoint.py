"""The context of a tracepoint program: the event's record, read only, its first 8 bytes out of reach.

Kernel: kernel/trace/bpf_trace.c:tp_prog_is_valid_access.
"""

from __future__ import annotations

PERF_MAX_TRACE_SIZE = 8192
_FIRST = 8
"""sizeof(void *): where Linux keeps the registers' address for the helpers."""


def tp_prog_is_valid_access(off: int, size: int, write: int) -> bool:
    """Whether a program may access `size` bytes at `off`. How far the fields reach is checked at attach."""
    return _FIRST <= off < PERF_MAX_TRACE_SIZE and not write and not off % size
