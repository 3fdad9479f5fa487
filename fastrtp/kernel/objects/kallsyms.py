"""kallsyms: symbols of a kernel and their native addresses.

Names: bpf_trace_run<N>; __bpf_trace_<class> (of the BTF's functions, and of every tracepoint added here);
__tracepoint_<name>; bpf_prog_<tag>_<name> of the loaded programs. Addresses are found when asked for: a shim of rare
argument widths is compiled then.

Kernel counterpart: kernel/kallsyms.c, kernel/bpf/core.c:bpf_prog_ksym_set_name
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastrtp.trace.shims import shim_address
from fastrtp.uapi import MAX_BPF_FUNC_ARGS

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg

_RUN, _SHIM, _TRACEPOINT = "bpf_trace_run", "__bpf_trace_", "__tracepoint_"


class Kallsyms:
    """Name -> address of one kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    def __iter__(self) -> Iterator[str]:
        yield from (f"{_RUN}{number}" for number in range(1, MAX_BPF_FUNC_ARGS + 1))
        btf = self._kernel.btf
        yield from sorted({btf.type(found).name for found in btf.find_prefix(_SHIM)})
        yield from (f"{_SHIM}{name}" for name in self._kernel.tracepoints.added())
        yield from (f"{_TRACEPOINT}{name}" for name in self._kernel.tracepoints)
        yield from (prog_symbol(prog) for prog in self._kernel.progs)

    def lookup_name(self, name: str) -> int:
        """Address of a symbol, 0 where there is none. Kernel: kernel/kallsyms.c:kallsyms_lookup_name"""
        kernel = self._kernel
        if name.startswith(_RUN):
            return kernel.memory.lib.symbols.get(name, 0)
        if name.startswith(_SHIM):
            widths = self._shim_widths(name)
            return shim_address(widths) if widths else 0
        if name.startswith(_TRACEPOINT):
            found = name.removeprefix(_TRACEPOINT)
            return kernel.tracepoints[found].address if found in kernel.tracepoints else 0
        return next((prog.native.entry for prog in kernel.progs if prog_symbol(prog) == name), 0)

    def _shim_widths(self, name: str) -> str:
        """Argument widths of the class that a shim serves."""
        from fastrtp.btf.cformat import proto_of
        from fastrtp.btf.tracepoints import proto_arg
        from fastrtp.btf.types import BtfKind

        kernel = self._kernel
        found = kernel.btf.find(name, BtfKind.FUNC)
        if found is not None:
            params = proto_of(kernel.btf, found).params[1:]
            return "".join(str(proto_arg(kernel.btf, param.name, param.type_id).size) for param in params)
        tracepoint = name.removeprefix(_SHIM)
        return kernel.tracepoints[tracepoint].widths if tracepoint in kernel.tracepoints else ""


def prog_symbol(prog: BpfProg) -> str:
    """Name of a program in kallsyms and in profiles. Kernel: kernel/bpf/core.c:bpf_prog_ksym_set_name"""
    return f"bpf_prog_{prog.tag.hex()}" + (f"_{prog.name}" if prog.name else "")
