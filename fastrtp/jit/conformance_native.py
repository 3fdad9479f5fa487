"""The helper that the bpf_conformance suite's vectors call. It is there for unverified programs only."""

from __future__ import annotations

from fastrtp.native.intrinsics import native


@native()
def conformance_unwind(r1: int, env: int) -> int:
    """Helper 5 of the suite, `unwind`, for an argument that does not end the program: gives the argument back."""
    return r1
