"""Which native function a helper call becomes: the table from helper and map type to symbols of the native library.

A call on a map that the verifier knows goes to its family's function with the sizes as constants, so that hashing and
comparison unroll; any other call goes to the form that reads them from the descriptor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from fastrtp.helpers.argtype import PTR_MAYBE_NULL
from fastrtp.helpers.table import HELPERS
from fastrtp.isa import BPF_PSEUDO_KFUNC_CALL, Insn
from fastrtp.jit.lower import Area, CallTarget, InsnFacts
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.maps import ArrayMap, Map
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_PSEUDO_MAP_IDX_VALUE, BPF_PSEUDO_MAP_VALUE

_MOST_CONSTANT = 1 << 16
"""Bytes of a read-only array beyond which it is not worth a copy in the code."""

_KINDS = {"tail_call": "tail_call", "loop": "loop", "for_each_map_elem": "for_each"}


def _constants(*values: int) -> tuple[str, ...]:
    return tuple(f"i64 {value}" for value in values)


def map_call(name: str, map: Map | None, *, value_held: bool = True) -> CallTarget | None:
    """Target of a map helper on a known map, or None where only the general form will do: see Map.native_call."""
    call = map.native_call(name, value_held=value_held) if map is not None else None
    return CallTarget(call.symbol, _constants(*call.constants), call.args) if call is not None else None


_BY_VALUES = {
    "array_map_lookup_elem": "array_map_gen_lookup",
    "percpu_array_map_lookup_elem": "percpu_array_map_gen_lookup",
}
"""Lookups that have a form for maps that the program names, which takes the address of the values instead of the map's."""


class Linker:
    """Answers `lower`'s questions about one program: the target of each helper call, the symbol of each map."""

    def __init__(
        self, maps: Sequence[Map], aux: Sequence[InsnFacts] | None, parameters: dict[str, tuple[str, ...]],
        options: CodeOptions = DEFAULT,
    ) -> None:  # fmt: skip
        self._maps = maps
        self._options = options
        self._aux: Any = aux
        self._parameters = parameters

    def resolve(self, index: int, insn: Insn) -> CallTarget:
        """Target of the helper call at `index`; KeyError for a helper without a body."""
        target = self._function(index, insn)
        kernel_mem = self._aux[index].kernel_mem if self._aux is not None and not insn.src_reg else 0
        if not kernel_mem:
            return target
        size, args = self._aux[index].kernel_mem_size, HELPERS[insn.imm].args
        registers = (register for register in range(1, len(args) + 1) if kernel_mem >> register & 1)
        areas = (Area(register, size, bool(args[register - 1] & PTR_MAYBE_NULL)) for register in registers)
        return replace(target, areas=tuple(areas))

    def _function(self, index: int, insn: Insn) -> CallTarget:
        operands = self._aux[index].operands if self._aux is not None else ""
        extra = _constants(*map(int, operands.split(","))) if operands else ()
        if insn.src_reg == BPF_PSEUDO_KFUNC_CALL:
            symbol = "" if self._aux is None else self._aux[index].kfunc
            return CallTarget(symbol, extra, self._parameters[symbol].index("env"), "helper")
        name = HELPERS[insn.imm].name
        known = None if self._aux is None else self._aux[index].map
        if known is not None and self._options.known_maps:
            target = map_call(name, self._maps[known], value_held=self._aux[index].value_held)
            if target is not None and target.symbol in _BY_VALUES and self._maps[known].value_address:
                # the values are one memory for the map's life: no load of its address, and LLVM knows it from all others
                return replace(target, symbol=_BY_VALUES[target.symbol], first=f"map.{known}.values")
            if target is not None:
                return target
        symbol = f"bpf_{name}"
        parameters = self._parameters[symbol]
        return CallTarget(symbol, extra, parameters.index("env"), _KINDS.get(name, "helper"))

    def map_symbols(self, insns: Sequence[Insn]) -> Callable[[int], str]:
        """The lookup from the index of an ld_imm64 to the global that it names."""

        def symbol(index: int) -> str:
            insn = insns[index]
            value = insn.src_reg in (BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE)
            if not 0 <= insn.imm < len(self._maps):
                raise KeyError(index)
            return f"map.{insn.imm}.values" if value else f"map.{insn.imm}"

        return symbol

    def constants(self, insns: Sequence[Insn]) -> Callable[[int], bytes | None]:
        """The lookup from the index of an ld_imm64 to the values that it refers to, where these can never change.

        Kernel: kernel/bpf/verifier.c:bpf_map_is_rdonly, bpf_map_direct_read
        """

        def content(index: int) -> bytes | None:
            number = insns[index].imm
            map = self._maps[number] if 0 <= number < len(self._maps) and self._options.rodata else None
            if not isinstance(map, ArrayMap) or map.percpu or map.max_entries != 1 or map.elem_size > _MOST_CONSTANT:
                return None
            return map.read_value(0, map.elem_size) if map.frozen and map.map_flags & BPF_F_RDONLY_PROG else None

        return content


def map_addresses(maps: Sequence[Map]) -> dict[str, int]:
    """Address of each symbol that map_symbols() can name."""
    addresses = {f"map.{number}": map.address for number, map in enumerate(maps)}
    return addresses | {f"map.{number}.values": map.value_address for number, map in enumerate(maps) if map.value_address}
