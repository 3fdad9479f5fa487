"""Global variables as maps: each data section is one array map with one value, named as libbpf names it.

Kernel: tools/lib/bpf/libbpf.c:bpf_object__init_global_data_maps, internal_map_name
"""

from __future__ import annotations

import re

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.types import BTF_VAR_STATIC
from fastrtp.uapi import BPF_F_MMAPABLE, BPF_F_RDONLY_PROG, BpfMapType

from .elf import SHT_NOBITS, SHT_PROGBITS, Section
from .spec import MapSpec

BPF_OBJ_NAME_LEN = 16
_DATA = re.compile(r"\.(rodata|data|bss)(\..+)?")


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
