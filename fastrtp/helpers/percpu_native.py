"""bpf_per_cpu_ptr and bpf_this_cpu_ptr. Kernel: kernel/bpf/helpers.c.

Per-CPU kernel variables (ksyms) are objects of the arena, one block a CPU at a fixed stride, which the pointer's
first block begins with its size: they are made by the loader; other pointers have no CPU part and are returned as they are.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import load64, native
from fastrtp.native.layout import ENV, MACHINE, at

_CPU = at(ENV, "cpu")
_MACHINE = at(ENV, "machine")
_CPUS = at(MACHINE, "cpus")
_STRIDE_AT = -8


@native()
def bpf_per_cpu_ptr(pointer: int, cpu: int, env: int) -> int:
    """The variable's instance on `cpu`, or 0 for a CPU that there is not."""
    cpu &= 0xFFFFFFFF
    if cpu >= load64(load64(env + _MACHINE) + _CPUS):
        return 0
    return pointer + cpu * load64(pointer + _STRIDE_AT)


@native()
def bpf_this_cpu_ptr(pointer: int, env: int) -> int:
    """The variable's instance on this CPU."""
    return pointer + load64(env + _CPU) * load64(pointer + _STRIDE_AT)
