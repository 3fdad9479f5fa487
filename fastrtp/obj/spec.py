"""What an object file says, before any kernel is involved: programs, maps, license, types.

Parsing is deterministic and independent of the host; CO-RE (`relocated`) is the one step that needs a kernel's types, and
it is pure.
Kernel: tools/lib/bpf/libbpf.c:bpf_object_open
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrtp.btf import Btf
from fastrtp.btf.core import CoreRelo, apply_core_relos, describe
from fastrtp.btf.ext import FUNC_INFO, LINE_INFO
from fastrtp.errors import BtfError, ObjectError
from fastrtp.isa import Insn

if TYPE_CHECKING:
    import numpy.typing as npt

    from .externs import Extern


class MapRef(NamedTuple):
    """The ld_imm64 at `insn_idx` loads a map, or with `value_offset` the address of a byte of an array's first value."""

    insn_idx: int
    map_name: str
    value_offset: int | None


@dataclass
class MapSpec:
    """What BPF_MAP_CREATE will be asked for, sizes in bytes.

    `btf_key_type_id`, `btf_value_type_id`: ids in the object's BTF, 0 for none. `initial`: the first value's contents (global
    data); None leaves the map empty. `frozen`: BPF_MAP_FREEZE after that. `inner`: template of a map of maps.
    `values`: slot -> name of the map or program to put there at load.
    """

    name: str
    map_type: int
    key_size: int = 0
    value_size: int = 0
    max_entries: int = 0
    map_flags: int = 0
    numa_node: int = 0
    pinning: int = 0
    map_extra: int = 0
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    initial: bytes | None = None
    frozen: bool = False
    inner: MapSpec | None = None
    values: dict[int, str] = field(default_factory=dict)
    section: str = ""
    section_offset: int = 0


@dataclass
class ProgramSpec:
    """A program with every subprogram that it reaches appended behind it.

    `insns` hold the compiler's offsets until `ObjectSpec.relocated`; bpf-to-bpf calls and callback addresses are resolved, map
    loads have src_reg BPF_PSEUDO_MAP_FD or BPF_PSEUDO_MAP_VALUE, an imm of 0 for the map and the value offset in the second slot.
    `kfunc_refs`: (instruction, name) of calls to kernel functions, which are poisoned here until they are resolved;
    `ksym_refs`: of loads of their addresses, which are 0 here. `externs`: what it uses of others, by name.
    `subprogs`: (first instruction, name), the program itself first.
    """

    name: str
    section: str
    prog_type: int
    attach_type: int = 0
    attach_name: str = ""
    autoload: bool = True
    writable: bool = False
    sleepable: bool = False
    insns: list[Insn] = field(default_factory=list)
    map_refs: list[MapRef] = field(default_factory=list)
    kfunc_refs: list[tuple[int, str]] = field(default_factory=list)
    ksym_refs: list[tuple[int, str]] = field(default_factory=list)
    externs: dict[str, Extern] = field(default_factory=dict)
    core_relos: list[CoreRelo] = field(default_factory=list)
    func_info: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, FUNC_INFO))
    line_info: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, LINE_INFO))
    subprogs: list[tuple[int, str]] = field(default_factory=list)


@dataclass
class ObjectSpec:
    """An object file. `skipped`: program name -> why it cannot run here. `btf_bytes`: what BPF_BTF_LOAD is given.

    `externs`: what it leaves to the kernel, by name, in the order that calls of functions are numbered in.
    """

    name: str
    programs: dict[str, ProgramSpec] = field(default_factory=dict)
    maps: dict[str, MapSpec] = field(default_factory=dict)
    license: str = ""
    version: int = 0
    btf: Btf | None = None
    btf_bytes: bytes = b""
    skipped: dict[str, str] = field(default_factory=dict)
    externs: dict[str, Extern] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, name: str = "") -> ObjectSpec:
        """Read an object file as clang makes them. `name` (the file's, or any) names the maps of global data, as in libbpf.

        Raises `ObjectError` with section and offset for what is damaged or not supported.
        """
        from .parse import parse_object

        return parse_object(bytes(data), name)

    def relocated(self, program: str | ProgramSpec, kernel_btf: Btf) -> list[Insn]:
        """The program's instructions with its CO-RE relocations applied for a kernel. Raises `ObjectError`."""
        spec = self.programs.get(program) if isinstance(program, str) else program
        if spec is None:
            reason = self.skipped.get(str(program), f"the object has {', '.join(self.programs) or 'none'}")
            raise ObjectError(f"no program {program!r}: {reason}")
        if not spec.core_relos or self.btf is None:
            return list(spec.insns)
        try:
            return apply_core_relos(spec.insns, spec.core_relos, self.btf, kernel_btf)
        except BtfError as error:
            raise ObjectError(f"program {spec.name!r}: {error}", section=spec.section) from error

    def core_relo_at(self, program: str, insn_idx: int) -> str:
        """The CO-RE relocation of an instruction in words, "" without one: why the verifier met `invalid func unknown#195896080`.

        Kernel: tools/lib/bpf/libbpf.c:fixup_log_failed_core_relo
        """
        spec = self.programs.get(program)
        relos = spec.core_relos if spec is not None else []
        found = next((relo for relo in relos if relo.insn_idx == insn_idx), None)
        return describe(found, self.btf) if found is not None and self.btf is not None else ""
