"""Tracepoints and the way from them to programs: probes, cast shims, bpf_trace_run1..12.

Knows native addresses, never programs or the verifier: only `kernel/` joins them, as in Linux.
"""

from __future__ import annotations

from fastrtp.trace.live import TraceFunction
from fastrtp.trace.probe import (
    BpfRawEventMap,
    LinkRecord,
    ProgRecord,
    bpf_probe_register,
    bpf_probe_unregister,
    bpf_prog_test_run_raw_tp,
)
from fastrtp.trace.tracepoint import (
    TRACEPOINT_DEFAULT_PRIO,
    Tracepoint,
    TracepointFunc,
    tracepoint_probe_register,
    tracepoint_probe_unregister,
)

__all__ = [
    "TRACEPOINT_DEFAULT_PRIO",
    "BpfRawEventMap",
    "LinkRecord",
    "ProgRecord",
    "TraceFunction",
    "Tracepoint",
    "TracepointFunc",
    "bpf_probe_register",
    "bpf_probe_unregister",
    "bpf_prog_test_run_raw_tp",
    "tracepoint_probe_register",
    "tracepoint_probe_unregister",
]  # fmt: skip
