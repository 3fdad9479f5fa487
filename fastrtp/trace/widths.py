"""The argument widths that cast shims are compiled for ahead of time.

A shim's name is its arguments' sizes in bytes, so tracepoints with alike arguments share one. Listed is what most of the
693 tracepoints of Linux 6.1 and the 1,601 of 6.18 need (their BTF: `btf_trace_*`); another one's shim is compiled when
the first program is attached there, and kept.
"""

from __future__ import annotations

MAX_ARGS = 12
"""bpf_trace_run1..12."""

SHIM_WIDTHS: tuple[str, ...] = (
    *("4", "8", "44", "48", "81", "84", "88", "444", "484", "488", "841", "844", "848", "881", "884", "888"),
    *("1884", "4444", "4488", "8444", "8484", "8844", "8848", "8881", "8884", "8888", "48844", "84888", "88884", "88888"),
)
