"""The object's `.BTF` as the kernel wants it: clang leaves the places of variables to whoever links the object.

Section sizes and variable offsets come from the ELF; functions that are global but hidden become static, so that the verifier
checks them with their callers. Kernel: tools/lib/bpf/libbpf.c:btf_fixup_datasec, bpf_object_fixup_btf
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from fastrtp.btf import Btf, BtfKind, object_btf
from fastrtp.btf.types import BTF_FUNC_GLOBAL, BTF_FUNC_STATIC, BTF_VAR_GLOBAL_ALLOCATED
from fastrtp.errors import BtfError, ObjectError

from .elf import STB_LOCAL, STT_FUNC, STV_HIDDEN, STV_INTERNAL, ElfFile, Section

_INFO_OFF = 4
_SIZE_OFF = 8
_SECINFO_OFF = 12
_SECINFO_SIZE = 12


def load_btf(elf: ElfFile, section: Section) -> Btf:
    """Parse `.BTF` with the ELF's offsets and sizes filled in. Raises `ObjectError`."""
    try:
        raw = bytearray(_apply_relocs(elf, section))
        btf = object_btf(bytes(raw))
        for record in [btf.type(type_id) for type_id in btf.ids_of_kind(BtfKind.DATASEC)]:
            placed = elf.section(record.name)
            if placed is not None:
                _place_datasec(raw, btf.record_offset(record.id), record.vlen, placed.size)
        hidden = {
            symbol.name
            for symbol in elf.symbols
            if symbol.type == STT_FUNC and symbol.bind != STB_LOCAL and symbol.visibility in (STV_HIDDEN, STV_INTERNAL)
        }
        for name in hidden:
            type_id = btf.find(name, BtfKind.FUNC)
            if type_id is not None and btf.type(type_id).linkage == BTF_FUNC_GLOBAL:
                at = btf.record_offset(type_id) + _INFO_OFF
                struct.pack_into("<I", raw, at, BtfKind.FUNC << 24 | BTF_FUNC_STATIC)
        return btf if raw == btf.data else object_btf(bytes(raw))
    except BtfError as error:
        raise ObjectError(str(error), section=section.name, offset=section.file_offset) from error


def place_externs(btf: Btf, datasec: str, places: Mapping[str, tuple[int, int]], size: int) -> Btf:
    """The BTF with extern variables of a data section given places (offset, size), as if the object had defined them.

    Kernel: libbpf.c:bpf_object__collect_externs
    """
    datasec_id = btf.find(datasec, BtfKind.DATASEC)
    if datasec_id is None:
        return btf
    raw = bytearray(btf.data)
    at = btf.record_offset(datasec_id)
    for number, info in enumerate(btf.type(datasec_id).secinfos):
        variable = btf.type(info.type_id)
        place = places.get(variable.name)
        if place is not None and variable.kind == BtfKind.VAR:
            struct.pack_into("<II", raw, at + _SECINFO_OFF + number * _SECINFO_SIZE + 4, *place)
            struct.pack_into("<I", raw, btf.record_offset(variable.id) + _SECINFO_OFF, BTF_VAR_GLOBAL_ALLOCATED)
    _place_datasec(raw, at, btf.type(datasec_id).vlen, size)
    return object_btf(bytes(raw))


def _apply_relocs(elf: ElfFile, section: Section) -> bytes:
    out = bytearray(section.data)
    for reloc in elf.relocs(section):
        if reloc.offset + 4 > len(out):
            raise ObjectError("relocation passes the end of the section", section=section.name, offset=reloc.offset)
        (addend,) = struct.unpack_from("<I", out, reloc.offset)
        struct.pack_into("<I", out, reloc.offset, addend + reloc.symbol.value & 0xFFFFFFFF)
    return bytes(out)


def _place_datasec(raw: bytearray, at: int, vlen: int, size: int) -> None:
    """Write a DATASEC's size and sort its variables by offset, as BPF_BTF_LOAD demands."""
    struct.pack_into("<I", raw, at + _SIZE_OFF, size)
    start, end = at + _SECINFO_OFF, at + _SECINFO_OFF + vlen * _SECINFO_SIZE
    infos = sorted(struct.iter_unpack("<III", raw[start:end]), key=lambda info: info[1])
    raw[start:end] = b"".join(struct.pack("<III", *info) for info in infos)


def resize_datasec(btf: Btf, datasec_id: int, size: int) -> Btf | None:
    """The BTF with a data section of another size: its last variable, an array, has as many elements as then fit.

    None where the section does not end with an array, or the size does not come out even.
    Kernel: tools/lib/bpf/libbpf.c:map_btf_datasec_resize
    """
    infos = btf.type(datasec_id).secinfos if datasec_id else ()
    if not infos:
        return None
    last = infos[-1]
    variable = btf.type(last.type_id)
    array = btf.type(btf.strip(variable.type)) if variable.kind == BtfKind.VAR else variable
    if array.kind != BtfKind.ARRAY:
        return None
    element = btf.sizeof(array.type)
    if size <= last.offset or not element or (size - last.offset) % element:
        return None
    record = struct.pack("<6I", 0, BtfKind.ARRAY << 24, 0, array.type, array.index_type, (size - last.offset) // element)
    raw = bytearray(btf.data)
    struct.pack_into("<I", raw, btf.record_offset(variable.id) + _SIZE_OFF, len(btf))
    at = btf.record_offset(datasec_id)
    struct.pack_into("<I", raw, at + _SECINFO_OFF + (len(infos) - 1) * _SECINFO_SIZE + 8, size - last.offset)
    struct.pack_into("<I", raw, at + _SIZE_OFF, size)
    hdr_len, type_off, type_len, str_off, str_len = struct.unpack_from("<5I", raw, 4)
    strings = bytes(raw[hdr_len + str_off : hdr_len + str_off + str_len])
    types = bytes(raw[hdr_len + type_off : hdr_len + type_off + type_len]) + record
    struct.pack_into("<4I", raw, 8, 0, len(types), len(types), len(strings))
    return object_btf(bytes(raw[:hdr_len]) + types + strings)
