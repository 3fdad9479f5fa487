"""From the bytes of an object file to its `ObjectSpec`, step by step.

Kernel: tools/lib/bpf/libbpf.c:bpf_object__elf_collect, bpf_object__init_maps, bpf_object__collect_relos
"""

from __future__ import annotations

from fastrtp.btf.ext import BtfExt
from fastrtp.errors import BtfError, ObjectError

from .elf import SHN_UNDEF, STT_FUNC, ElfFile
from .externs import KCONFIG_SECTION, externs
from .globals import global_map, is_data_section, object_name
from .link import Code, Function, Linker, UnsupportedProgramError, read_code
from .maps import LEGACY_MAPS_SECTION, MAPS_SECTION, MapDefinition, btf_maps, legacy_maps
from .sections import parse_section_name
from .spec import MapSpec, ObjectSpec, ProgramSpec
from .types_fixup import load_btf, place_externs

_TEXT = ".text"
_POINTER_SIZE = 8


def parse_object(data: bytes, name: str) -> ObjectSpec:
    """Parse an ELF object. Raises `ObjectError`."""
    elf = ElfFile(data)
    spec = ObjectSpec(object_name(name))
    ext = _read_types(elf, spec)
    _read_license(elf, spec)
    definitions = _read_maps(elf, spec)
    data_maps = {}
    for section in elf.sections:
        if is_data_section(section) and section.size:
            data_maps[section.name] = global_map(spec.name, section, spec.btf)
            _add_map(spec, data_maps[section.name])
    spec.externs, kconfig = externs(elf, spec.btf, spec.name)
    if kconfig is not None:
        _add_map(spec, kconfig)
    if kconfig is not None and spec.btf is not None:
        places = {one.name: (one.offset, one.size) for one in spec.externs.values() if one.offset >= 0}
        spec.btf = place_externs(spec.btf, KCONFIG_SECTION, places, kconfig.value_size)
        spec.btf_bytes = spec.btf.data
    codes = read_code(elf)
    by_place = {(d.spec.section, d.spec.section_offset): d.spec for d in definitions}
    linker = Linker(codes, by_place, data_maps, spec.externs, kconfig, elf, spec.btf, ext)
    for code in codes.values():
        if code.section.name != _TEXT:
            for start in sorted(code.functions):
                if not code.functions[start].is_local:
                    _read_program(spec, code, code.functions[start], linker)
    _read_initialisers(elf, spec, definitions, codes)
    return spec


def _read_types(elf: ElfFile, spec: ObjectSpec) -> BtfExt | None:
    section = elf.section(".BTF")
    if section is None:
        return None
    spec.btf = load_btf(elf, section)
    spec.btf_bytes = spec.btf.data
    ext = elf.section(".BTF.ext")
    if ext is None:
        return None
    try:
        return BtfExt.parse(ext.data, spec.btf)
    except BtfError as error:
        raise ObjectError(str(error), section=ext.name, offset=ext.file_offset) from error


def _read_license(elf: ElfFile, spec: ObjectSpec) -> None:
    section = elf.section("license")
    if section is not None:
        spec.license = section.data.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    section = elf.section("version")
    if section is not None:
        if len(section.data) != 4:
            raise ObjectError(f"{len(section.data)} bytes, expected 4", section=section.name, offset=section.file_offset)
        spec.version = int.from_bytes(section.data, "little")


def _add_map(spec: ObjectSpec, one: MapSpec) -> None:
    if one.name in spec.maps:
        raise ObjectError(f"map {one.name!r} is defined twice", section=one.section, offset=one.section_offset)
    spec.maps[one.name] = one


def _read_maps(elf: ElfFile, spec: ObjectSpec) -> list[MapDefinition]:
    out: list[MapDefinition] = []
    legacy = elf.section(LEGACY_MAPS_SECTION)
    if legacy is not None:
        out += legacy_maps(elf, legacy)
    section = elf.section(MAPS_SECTION)
    if section is not None and section.size:
        if spec.btf is None:
            raise ObjectError(
                "maps are defined by BTF, and the object has none", section=MAPS_SECTION, offset=section.file_offset
            )
        out += btf_maps(elf, section, spec.btf)
    for definition in out:
        _add_map(spec, definition.spec)
    return out


def _read_program(spec: ObjectSpec, code: Code, function: Function, linker: Linker) -> None:
    section = parse_section_name(code.section.name)
    if section.definition is None:
        spec.skipped[function.name] = section.reason
        return
    definition = section.definition
    program = ProgramSpec(
        function.name,
        code.section.name,
        definition.prog_type,
        definition.attach_type,
        section.attach_name,
        section.autoload,
        definition.writable,
    )
    if function.name in spec.programs:
        raise ObjectError(f"program {function.name!r} is defined twice", section=code.section.name, offset=8 * function.start)
    try:
        linker.link(function, program)
    except UnsupportedProgramError as reason:
        spec.skipped[function.name] = f"section {code.section.name!r}: {reason}"
        return
    spec.programs[function.name] = program


def _read_initialisers(elf: ElfFile, spec: ObjectSpec, definitions: list[MapDefinition], codes: dict[int, Code]) -> None:
    """`.values = { [3] = &prog }`: relocations of the .maps section. Kernel: libbpf.c:bpf_object__collect_map_relos"""
    section = elf.section(MAPS_SECTION)
    if section is None:
        return
    ordered = sorted((d for d in definitions if d.spec.section == MAPS_SECTION), key=lambda d: d.spec.section_offset)
    by_place = {(d.spec.section, d.spec.section_offset): d.spec for d in definitions}
    for reloc in elf.relocs(section):
        owner = next((d for d in reversed(ordered) if d.spec.section_offset <= reloc.offset), None)
        if (
            owner is None
            or owner.values_offset < 0
            or reloc.offset < owner.values_offset
            or (reloc.offset - owner.values_offset) % 8
        ):
            raise ObjectError(f"initialiser {reloc.symbol.name!r} of no map's values", section=section.name, offset=reloc.offset)
        slot = (reloc.offset - owner.values_offset) // _POINTER_SIZE
        symbol = reloc.symbol
        if owner.spec.inner is not None:
            place = elf.sections[symbol.shndx].name if SHN_UNDEF < symbol.shndx < len(elf.sections) else ""
            target = by_place.get((place, symbol.value))
            if target is None:
                raise ObjectError(
                    f"slot {slot} of {owner.spec.name!r}: {symbol.name!r} is no map", section=section.name, offset=reloc.offset
                )
            owner.spec.values[slot] = target.name
            continue
        code = codes.get(symbol.shndx)
        function = code.function_at(symbol.value // 8) if code is not None and symbol.type == STT_FUNC else None
        if function is None or 8 * function.start != symbol.value:
            raise ObjectError(
                f"slot {slot} of {owner.spec.name!r}: {symbol.name!r} is no program", section=section.name, offset=reloc.offset
            )
        owner.spec.values[slot] = function.name
