"""Map definitions: BTF-defined ones in `.maps`, and the legacy array of struct bpf_map_def in `maps`.

Kernel: tools/lib/bpf/libbpf.c:parse_btf_map_def, bpf_object__init_user_maps (libbpf before 1.0)
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastrtp.btf import Btf, BtfKind, BtfType
from fastrtp.btf.types import BTF_VAR_GLOBAL_ALLOCATED, BTF_VAR_GLOBAL_EXTERN, BTF_VAR_STATIC, COMPOSITES, ENUMS, Member
from fastrtp.errors import BtfError, ObjectError
from fastrtp.uapi import BpfMapType

from .elf import STT_OBJECT, ElfFile, Section, Symbol
from .spec import MapSpec

MAPS_SECTION = ".maps"
LEGACY_MAPS_SECTION = "maps"

_PAGE_SIZE = 4096
_LINKAGES = {BTF_VAR_STATIC: "static", BTF_VAR_GLOBAL_EXTERN: "extern"}
_LEGACY = struct.Struct("<IIIII")
_UINT_FIELDS = {
    "type": "map_type",
    "key_size": "key_size",
    "value_size": "value_size",
    "max_entries": "max_entries",
    "map_flags": "map_flags",
    "numa_node": "numa_node",
    "pinning": "pinning",
    "map_extra": "map_extra",
}
"""Member of a map definition -> field of MapSpec; the member's type holds the number, see `_uint`."""
_MAPS_OF_MAPS = (BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS)
_WITHOUT_BTF = frozenset(
    (
        BpfMapType.BPF_MAP_TYPE_PROG_ARRAY,
        BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
        BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY,
        BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS,
        BpfMapType.BPF_MAP_TYPE_DEVMAP,
        BpfMapType.BPF_MAP_TYPE_DEVMAP_HASH,
        BpfMapType.BPF_MAP_TYPE_CPUMAP,
        BpfMapType.BPF_MAP_TYPE_XSKMAP,
        BpfMapType.BPF_MAP_TYPE_SOCKMAP,
        BpfMapType.BPF_MAP_TYPE_SOCKHASH,
        BpfMapType.BPF_MAP_TYPE_QUEUE,
        BpfMapType.BPF_MAP_TYPE_STACK,
        BpfMapType.BPF_MAP_TYPE_RINGBUF,
    )
)
"""Map types that the kernel gives no key or value types. Kernel: libbpf.c:bpf_object__create_map"""


@dataclass
class MapDefinition:
    """A map and, for its initialisers, where its `values` start in the section (-1: none)."""

    spec: MapSpec
    values_offset: int = -1


def btf_maps(elf: ElfFile, section: Section, btf: Btf) -> list[MapDefinition]:
    """The maps of `.maps`, by their variables in BTF. Raises `ObjectError` with the map's name."""
    datasec_id = btf.find(section.name, BtfKind.DATASEC)
    if datasec_id is None:
        raise ObjectError("has no DATASEC in .BTF", section=section.name, offset=section.file_offset)
    out = []
    for info in btf.type(datasec_id).secinfos:
        variable = btf.type(info.type_id)
        if info.offset + info.size > section.size:
            raise ObjectError(f"map {variable.name!r} passes the end of the section", section=section.name, offset=info.offset)
        try:
            if variable.linkage != BTF_VAR_GLOBAL_ALLOCATED:
                raise _BadMapError(f"{_LINKAGES.get(variable.linkage, 'unknown')}, and maps must be global, as libbpf wants them")
            definition = _definition(btf, variable.name, variable.type, None)
            _check_initialised(definition.spec)
        except (BtfError, _BadMapError) as error:
            raise ObjectError(f"map {variable.name!r}: {error}", section=section.name, offset=info.offset) from error
        definition.spec.section, definition.spec.section_offset = section.name, info.offset
        if definition.values_offset >= 0:
            definition.values_offset += info.offset
        out.append(definition)
    return out


class _BadMapError(Exception):
    """A map definition that says nothing usable."""


def _definition(btf: Btf, name: str, type_id: int, outer: MapSpec | None) -> MapDefinition:
    record = btf.type(btf.strip(type_id))
    if record.kind != BtfKind.STRUCT:
        raise _BadMapError(f"defined as {btf.c_type(type_id)}, expected a struct")
    spec = MapSpec(name, 0)
    values: Member | None = None
    for member in record.members:
        if member.name in _UINT_FIELDS:
            setattr(spec, _UINT_FIELDS[member.name], _same(spec, member.name, _uint(btf, member)))
        elif member.name == "key":
            spec.btf_key_type_id = _pointee(btf, member)
            spec.key_size = _same(spec, "key_size", btf.sizeof(spec.btf_key_type_id))
        elif member.name == "value":
            spec.btf_value_type_id = _pointee(btf, member)
            spec.value_size = _same(spec, "value_size", btf.sizeof(spec.btf_value_type_id))
        elif member.name == "values":
            values = member
        elif member.name:
            raise _BadMapError(f"unknown field {member.name!r}")
    definition = MapDefinition(spec)
    if values is not None:
        if outer is not None:
            raise _BadMapError("an inner map has no values of its own")
        definition.values_offset = values.bit_offset // 8
        _values_member(btf, spec, values)
    return definition


def _same(spec: MapSpec, field: str, value: int) -> int:
    """A size may be said twice, by number and by type, if both agree."""
    known = getattr(spec, _UINT_FIELDS[field])
    if field in ("key_size", "value_size") and known and known != value:
        raise _BadMapError(f"{field} is {known} and {value}")
    return value


def _uint(btf: Btf, member: Member) -> int:
    """`__uint(name, 5)` is `int (*name)[5]`, `__ulong(name, 5)` an enum of one value."""
    record = btf.type(btf.strip(member.type_id))
    if record.kind == BtfKind.PTR:
        array = btf.type(btf.strip(record.type))
        if array.kind == BtfKind.ARRAY:
            return array.nelems
    elif record.kind in ENUMS and record.vlen == 1:
        return record.values[0].value
    raise _BadMapError(f"field {member.name!r} is {btf.c_type(member.type_id)}, expected a pointer to an array")


def _pointee(btf: Btf, member: Member) -> int:
    record = btf.type(btf.strip(member.type_id))
    if record.kind != BtfKind.PTR:
        raise _BadMapError(f"field {member.name!r} is {btf.c_type(member.type_id)}, expected a pointer to the type")
    return record.type


def _values_member(btf: Btf, spec: MapSpec, member: Member) -> None:
    """`__array(values, x)`: x is the inner map's struct, or a function type for a program array."""
    array = btf.type(btf.strip(member.type_id))
    pointer = btf.type(btf.strip(array.type)) if array.kind == BtfKind.ARRAY else None
    if pointer is None or array.nelems or pointer.kind != BtfKind.PTR:
        raise _BadMapError(f"field 'values' is {btf.c_type(member.type_id)}, expected an array of pointers without length")
    element: BtfType = btf.type(btf.strip(pointer.type))
    spec.value_size = _same(spec, "value_size", 4)
    if spec.map_type in _MAPS_OF_MAPS and element.kind in COMPOSITES:
        spec.inner = _definition(btf, f"{spec.name}.inner", element.id, spec).spec
    elif spec.map_type == BpfMapType.BPF_MAP_TYPE_PROG_ARRAY and element.kind == BtfKind.FUNC_PROTO:
        return
    else:
        raise _BadMapError(f"field 'values' of {btf.c_type(element.id)} does not suit map type {spec.map_type}")


def _check_initialised(spec: MapSpec) -> None:
    if not spec.map_type:
        raise _BadMapError("has no type")
    for one in (spec, *([spec.inner] if spec.inner is not None else [])):
        finish(one)


def finish(spec: MapSpec) -> None:
    """What libbpf does to every definition before it creates the map."""
    if spec.map_type in _WITHOUT_BTF:
        spec.btf_key_type_id = spec.btf_value_type_id = 0
    if spec.map_type in (BpfMapType.BPF_MAP_TYPE_RINGBUF, BpfMapType.BPF_MAP_TYPE_USER_RINGBUF) and spec.max_entries:
        # Kernel: libbpf.c:adjust_ringbuf_sz
        pages = -(-spec.max_entries // _PAGE_SIZE)
        spec.max_entries = _PAGE_SIZE * (1 << (pages - 1).bit_length())


def legacy_maps(elf: ElfFile, section: Section) -> list[MapDefinition]:
    """The maps of a `maps` section: one struct bpf_map_def per symbol, longer ones if their tail is zero."""
    symbols = [symbol for symbol in elf.symbols if symbol.shndx == section.number and symbol.type == STT_OBJECT]
    if not symbols:
        return []
    size = section.size // len(symbols)
    if size < _LEGACY.size or size * len(symbols) != section.size:
        raise ObjectError(f"{len(symbols)} maps in {section.size} bytes", section=section.name, offset=section.file_offset)
    return [_legacy_map(section, symbol, size) for symbol in sorted(symbols, key=lambda symbol: symbol.value)]


def _legacy_map(section: Section, symbol: Symbol, size: int) -> MapDefinition:
    if symbol.value + size > len(section.data):
        raise ObjectError(f"map {symbol.name!r} passes the end of the section", section=section.name, offset=symbol.value)
    if any(section.data[symbol.value + _LEGACY.size : symbol.value + size]):
        raise ObjectError(f"map {symbol.name!r} uses unknown fields", section=section.name, offset=symbol.value)
    map_type, key_size, value_size, max_entries, map_flags = _LEGACY.unpack_from(section.data, symbol.value)
    spec = MapSpec(symbol.name, map_type, key_size, value_size, max_entries, map_flags)
    spec.section, spec.section_offset = section.name, symbol.value
    finish(spec)
    return MapDefinition(spec)
