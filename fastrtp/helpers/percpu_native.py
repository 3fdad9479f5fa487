"""bpf_per_cpu_ptr and bpf_this_cpu_ptr. Kernel: kernel/bpf/helpers.c.

Per-CPU kernel variables (ksyms) are objects of the arena, one block a CPU at a fixed stride, which the pointer's
first block begins with its size: they are made by the loader; other pointers have no CPU part and are returned as they are.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, native, ult
from fastrtp.native.records import Env

_STRIDE_AT = -8


@device
def _stride(pointer: int, env: Env) -> int:
    """Bytes from one CPU's block to the next; 0 for an address that is none of the arena's."""
    at_stride = pointer + _STRIDE_AT
    return load64(at_stride) if ult(at_stride - env.arena_base, env.arena_size - 8) else 0


@native()
def bpf_per_cpu_ptr(pointer: int, cpu: int, env: Env) -> int:
    """The variable's instance on `cpu`, or 0 for a CPU that there is not."""
    cpu &= 0xFFFFFFFF
    if cpu >= env.machine.cpus:
        return 0
    return pointer + cpu * _stride(pointer, env)


@native()
def bpf_this_cpu_ptr(pointer: int, env: Env) -> int:
    """The variable's instance on this CPU."""
    return pointer + env.cpu * _stride(pointer, env)
