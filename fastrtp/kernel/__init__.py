"""The kernel: registries, processes and their descriptors, programs, maps, links, and bpf(2).

This layer joins what the ones below keep apart: the verifier, the JIT, the maps and the tracepoints.
"""

from __future__ import annotations

from .kernel import Kernel
from .process import Process

__all__ = ["Kernel", "Process"]
