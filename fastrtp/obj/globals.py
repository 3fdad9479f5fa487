"""Global variables as maps: each data section is one array map with one value, named as libbpf names it.

Kernel: tools/lib/bpf/libbpf.c:bpf_object__init_global_data_maps, internal_map_name
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.kfuncs import KFUNCS
from fastrtp.btf.types import BTF_VAR_GLOBAL_EXTERN, BTF_VAR_STATIC, BtfType
from fastrtp.errors import BtfError, ObjectError
from fastrtp.uapi import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, BpfMapType

from .elf import SHN_UNDEF, SHT_NOBITS, SHT_PROGBITS, STB_LOCAL, STB_WEAK, ElfFile, Section
from .spec import MapSpec

BPF_OBJ_NAME_LEN = 16
KCONFIG_SECTION = ".kconfig"
KSYMS_SECTION = ".ksyms"

_DATA = re.compile(r"\.(rodata|data|bss)(\..+)?")
_KCONFIG_VALUES = {
    "LINUX_HAS_BPF_COOKIE": 1,
    "LINUX_HAS_SYSCALL_WRAPPER": 1,
}
"""What every kernel here has; CONFIG_ options are not known."""
_AT_LOAD = frozenset({"LINUX_KERNEL_VERSION"})
"""What the kernel that the object is loaded into says: kernel/kconfig.py."""


class Extern(NamedTuple):
    """A variable or function that another party would supply.

    `offset`: its place in the .kconfig map, -1 when it is not there, `size` its bytes there. `reason`: why a program that uses
    it cannot run, "" if it can (a weak one reads as 0, address and all).
    """

    name: str
    offset: int
    reason: str
    size: int = 0


def is_data_section(section: Section) -> bool:
    """A section whose contents become a map."""
    return section.type in (SHT_PROGBITS, SHT_NOBITS) and _DATA.fullmatch(section.name) is not None


def internal_map_name(object_name: str, section_name: str) -> str:
    """`obj.rodata`; at most 15 characters, the suffix goes first; custom sections (`.data.x`) keep their own name."""
    suffix_len = min(max(7, len(section_name)), BPF_OBJ_NAME_LEN - 1)
    prefix_len = 0 if "." in section_name[1:] else min(BPF_OBJ_NAME_LEN - suffix_len - 1, len(object_name))
    name = object_name[:prefix_len] + section_name[:suffix_len]
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


def object_name(name: str) -> str:
    """libbpf's name of an object: the file's up to its first dot, 15 characters."""
    return name.replace("\\", "/").rsplit("/", 1)[-1].split(".", 1)[0][: BPF_OBJ_NAME_LEN - 1] or "object"


def global_map(obj_name: str, section: Section, btf: Btf | None) -> MapSpec:
    """The map of a data section."""
    datasec_id = btf.find(section.name, BtfKind.DATASEC) if btf is not None else None
    readonly = section.name.startswith(".rodata")
    flags = BPF_F_RDONLY_PROG if readonly else 0
    if btf is not None and datasec_id is not None:
        linkages = [btf.type(info.type_id).linkage for info in btf.type(datasec_id).secinfos]
        if any(linkage != BTF_VAR_STATIC for linkage in linkages):
            flags |= BPF_F_MMAPABLE
    initial = section.data if section.type != SHT_NOBITS else bytes(section.size)
    return MapSpec(
        internal_map_name(obj_name, section.name),
        int(BpfMapType.BPF_MAP_TYPE_ARRAY),
        4,
        section.size,
        1,
        flags,
        btf_value_type_id=datasec_id or 0,
        initial=initial,
        frozen=readonly,
        section=section.name,
    )


def externs(elf: ElfFile, btf: Btf | None, obj_name: str) -> tuple[dict[str, Extern], MapSpec | None]:
    """Undefined symbols by name, and the .kconfig map if one of them lives in it. Raises `ObjectError`."""
    undefined = [s for s in elf.symbols if s.shndx == SHN_UNDEF and s.name and s.bind != STB_LOCAL]
    if not undefined:
        return {}, None
    sections = _extern_sections(btf) if btf is not None else {}
    out: dict[str, Extern] = {}
    kconfig: list[tuple[int, int, str, BtfType, bool]] = []
    for symbol in undefined:
        weak = symbol.bind == STB_WEAK
        func_id = btf.find(symbol.name, BtfKind.FUNC) if btf is not None else None
        section, variable = sections.get(symbol.name, ("", None))
        if section == KCONFIG_SECTION and variable is not None and btf is not None:
            try:
                size = btf.sizeof(variable.type)
                kconfig.append((-_align(btf, variable.type), size, symbol.name, variable, weak))
            except BtfError as error:
                raise ObjectError(f"extern {symbol.name!r}: {error}", section=KCONFIG_SECTION) from error
        elif func_id is not None:
            reason = "" if weak or symbol.name in KFUNCS else f"kernel function {symbol.name!r} (kfunc) is not supported"
            out[symbol.name] = Extern(symbol.name, -1, reason)
        else:
            reason = "" if weak else f"kernel symbol {symbol.name!r} (extern __ksym) is not supported"
            out[symbol.name] = Extern(symbol.name, -1, reason)
    return out, _kconfig_map(kconfig, btf, obj_name, out) if kconfig else None


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


def _kconfig_map(
    rows: list[tuple[int, int, str, BtfType, bool]], btf: Btf | None, obj_name: str, out: dict[str, Extern]
) -> MapSpec:
    """Lay the variables out: by falling alignment, then size, then name. Kernel: libbpf.c:bpf_object__collect_externs"""
    contents = bytearray()
    for negative_align, size, name, _variable, weak in sorted(rows, key=lambda row: row[:3]):
        offset = -(-len(contents) // -negative_align) * -negative_align
        if offset + size > 1 << 20:
            raise ObjectError(f"extern {name!r} of {size} bytes is too large", section=KCONFIG_SECTION)
        contents += bytes(offset - len(contents) + size)
        value = _KCONFIG_VALUES.get(name)
        reason = ""
        if value is not None:
            contents[offset : offset + size] = value.to_bytes(16, "little")[:size].ljust(size, b"\0")
        elif not weak and name not in _AT_LOAD:
            reason = f"kernel option {name!r} is not known; declared __weak it reads as 0"
        out[name] = Extern(name, offset, reason, size)
    datasec_id = btf.find(KCONFIG_SECTION, BtfKind.DATASEC) if btf is not None else None
    return MapSpec(
        internal_map_name(obj_name, KCONFIG_SECTION),
        int(BpfMapType.BPF_MAP_TYPE_ARRAY),
        4,
        len(contents),
        1,
        BPF_F_RDONLY_PROG,
        btf_value_type_id=datasec_id or 0,
        initial=bytes(contents),
        frozen=True,
        section=KCONFIG_SECTION,
        externs={name: (out[name].offset, size) for _align, size, name, _variable, _weak in rows},
    )
