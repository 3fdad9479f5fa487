"""What goes into the verifier and what comes out: LoadAttr, MapLike, VerifiedProgram, InsnAux, SubprogInfo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastrtp.isa import Insn
from fastrtp.shown import Shown


class MapLike(Protocol):
    """What the verifier asks of a map. `read_value` reads value 0 of an array (constants of a frozen map)."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    frozen: bool
    name: str

    def read_value(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of value 0."""
        ...


@dataclass
class AttachTarget:
    """What a tp_btf program attaches to: tracepoint name and the kernel type id of its `btf_trace_<name>` typedef."""

    name: str
    btf_id: int


@dataclass
class LoadAttr:
    """A program to verify, as BPF_PROG_LOAD describes it.

    `fd_to_map` gives the map of a file descriptor or raises BpfError (EBADF, EINVAL). `btf`, `func_info` (rows with
    insn_off, type_id) and `line_info` (rows with insn_off, file_name_off, line_off, line_col) are the program's own;
    `kernel_btf` is for BTF pointers. `nr_cpu_ids`: what bpf_get_smp_processor_id() is less than.
    """

    prog_type: int
    insns: Sequence[Insn]
    fd_to_map: Callable[[int], Any]
    license: str = "GPL"
    prog_flags: int = 0
    expected_attach_type: int = 0
    attach: AttachTarget | None = None
    fd_array: Sequence[int] = ()
    btf: Any = None
    func_info: Any = None
    line_info: Any = None
    kernel_btf: Any = None
    log_level: int = 1
    capable: bool = True
    nr_cpu_ids: int = 1 << 13


@dataclass(slots=True)
class InsnAux:
    """What the verifier learnt about an instruction.

    `seen`: reached on some path. `access`: memory behind a load or store: "ctx", "stack", "map_value", "mem",
    "tp_buffer", or "btf" (a load that has to be range-checked and gives 0 on a fault). `map`: index in `used_maps` of
    the one map that a helper call works on, None where there are several or none. `callback`: first instruction of
    the function that a helper calls. `value_held`: an update of a map, over which the program may
    hold an address in one of its values. `const_map_value`: a load with one known result, from a frozen map.
    `kernel_mem`: bits of the registers in which a helper gets memory of kernel objects, on some path, with its size in the next
    one; `kernel_mem_size`: the most bytes that it may be.
    `kfunc`: name of the kernel function that is called; `operands`: numbers, with commas, that the body of what is called gets
    behind env.
    """

    seen: bool = False
    access: str | None = None
    map: int | None = None
    callback: int | None = None
    callback_ambiguous: bool = False
    ptr_type: int = 0
    kfunc: str = ""
    operands: str = ""
    value_held: bool = False
    kernel_mem: int = 0
    kernel_mem_size: int = 0


@dataclass
class SubprogInfo:
    """A function: instructions `start..end`, bytes of stack, and how it is used."""

    start: int
    end: int = 0
    stack_depth: int = 0
    name: str = ""
    is_cb: bool = False
    is_async_cb: bool = False
    is_global: bool = False
    has_tail_call: bool = False
    tail_call_reachable: bool = False
    has_ld_abs: bool = False
    callees: set[int] = field(default_factory=set)


@dataclass
class VerifierStats:
    """Work done: instructions processed, states kept, and the time it took."""

    insn_processed: int = 0
    max_states_per_insn: int = 0
    total_states: int = 0
    peak_states: int = 0
    time_ns: int = 0

    def line(self) -> str:
        """The last line of the kernel's log."""
        return (
            f"processed {self.insn_processed} insns (limit 1000000) max_states_per_insn {self.max_states_per_insn} "
            f"total_states {self.total_states} peak_states {self.peak_states} mark_read 0"
        )


@dataclass
class VerifiedProgram(Shown):
    """An accepted program. `insns` keep their indices; a ld_imm64 of a map has the index in `used_maps` in `imm`."""

    insns: list[Insn]
    aux: list[InsnAux]
    subprogs: list[SubprogInfo]
    used_maps: list[Any]
    max_ctx_offset: int
    max_tp_access: int
    verified_insns: int
    log: str
    stats: VerifierStats
