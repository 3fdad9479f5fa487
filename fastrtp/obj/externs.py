"""What an object leaves to others: options and facts of the kernel (.kconfig), its functions and variables (.ksyms).

Here they are found, typed, and those of .kconfig given their places in a map; values and addresses come when a kernel is there
(kernel/loader/externs.py).

Kernel: tools/lib/bpf/libbpf.c:bpf_object__collect_externs
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.core_types import essential_name
from fastrtp.btf.types import BTF_VAR_GLOBAL_EXTERN, BtfType
from fastrtp.errors import BtfError, ObjectError
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType

from .elf import SHN_UNDEF, STB_LOCAL, STB_WEAK, ElfFile
from .globals import internal_map_name
from .kconfig import KcfgType, kcfg_type
from .spec import MapSpec

KCONFIG_SECTION = ".kconfig"
KSYMS_SECTION = ".ksyms"

_MOST_BYTES = 1 << 20


class ExternKind(Enum):
    """Who supplies it."""

    OPTION = "kernel option"
    FUNCTION = "kernel function"
    VARIABLE = "kernel symbol"


@dataclass(frozen=True)
class Extern:
    """A variable or function that the kernel supplies.

    `type_id`: its type in the object's BTF (a function's prototype), 0 without one. `kcfg`, `offset`: how and where the .kconfig
    map holds it; `kcfg` is None for a type that nothing there can have. `weak`: without it, it is 0, address and all.
    """

    name: str
    kind: ExternKind
    weak: bool
    type_id: int = 0
    kcfg: KcfgType | None = None
    offset: int = -1
    size: int = 0

    @property
    def essential_name(self) -> str:
        """The kernel's name of it: `bpf_task_acquire___v1` is a flavour of bpf_task_acquire."""
        return essential_name(self.name)


def externs(elf: ElfFile, btf: Btf | None, obj_name: str) -> tuple[dict[str, Extern], MapSpec | None]:
    """Undefined symbols by name, and the .kconfig map if one of them lives in it. Raises `ObjectError`."""
    undefined = [s for s in elf.symbols if s.shndx == SHN_UNDEF and s.name and s.bind != STB_LOCAL]
    if not undefined:
        return {}, None
    sections = _extern_sections(btf) if btf is not None else {}
    out: dict[str, Extern] = {}
    options: list[tuple[int, int, str, BtfType]] = []
    for symbol in undefined:
        weak = symbol.bind == STB_WEAK
        func_id = btf.find(symbol.name, BtfKind.FUNC) if btf is not None else None
        section, variable = sections.get(symbol.name, ("", None))
        if section == KCONFIG_SECTION and variable is not None and btf is not None:
            try:
                size = btf.sizeof(variable.type)
                options.append((-_align(btf, variable.type), size, symbol.name, variable))
                kcfg = kcfg_type(btf, variable.type)
            except BtfError as error:
                raise ObjectError(f"extern {symbol.name!r}: {error}", section=KCONFIG_SECTION) from error
            out[symbol.name] = Extern(symbol.name, ExternKind.OPTION, weak, variable.type, kcfg, size=size)
        elif func_id is not None and btf is not None:
            out[symbol.name] = Extern(symbol.name, ExternKind.FUNCTION, weak, btf.type(func_id).type)
        else:
            type_id = variable.type if variable is not None else 0
            out[symbol.name] = Extern(symbol.name, ExternKind.VARIABLE, weak, type_id)
    return out, _kconfig_map(options, btf, obj_name, out) if options else None


def _extern_sections(btf: Btf) -> dict[str, tuple[str, BtfType]]:
    out = {}
    for name in (KCONFIG_SECTION, KSYMS_SECTION):
        datasec_id = btf.find(name, BtfKind.DATASEC)
        for info in btf.type(datasec_id).secinfos if datasec_id is not None else ():
            variable = btf.type(info.type_id)
            if variable.kind == BtfKind.VAR and variable.linkage == BTF_VAR_GLOBAL_EXTERN:
                out[variable.name] = (name, variable)
    return out


def _align(btf: Btf, type_id: int) -> int:
    record = btf.type(btf.strip(type_id))
    if record.kind == BtfKind.ARRAY:
        return min(btf.sizeof(record.type), 8) or 1
    return min(btf.sizeof(type_id), 8) or 1


def _kconfig_map(rows: list[tuple[int, int, str, BtfType]], btf: Btf | None, obj_name: str, out: dict[str, Extern]) -> MapSpec:
    """Lay the variables out: by falling alignment, then size, then name. Kernel: libbpf.c:bpf_object__collect_externs"""
    length = 0
    for negative_align, size, name, _variable in sorted(rows, key=lambda row: row[:3]):
        offset = -(-length // -negative_align) * -negative_align
        length = offset + size
        if length > _MOST_BYTES:
            raise ObjectError(f"extern {name!r} of {size} bytes is too large", section=KCONFIG_SECTION)
        known = out[name]
        out[name] = Extern(name, known.kind, known.weak, known.type_id, known.kcfg, offset, size)
    datasec_id = btf.find(KCONFIG_SECTION, BtfKind.DATASEC) if btf is not None else None
    return MapSpec(
        internal_map_name(obj_name, KCONFIG_SECTION),
        int(BpfMapType.BPF_MAP_TYPE_ARRAY),
        4,
        length,
        1,
        BPF_F_RDONLY_PROG,
        btf_value_type_id=datasec_id or 0,
        initial=bytes(length),
        frozen=True,
        section=KCONFIG_SECTION,
    )
