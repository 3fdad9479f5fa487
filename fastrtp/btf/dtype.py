"""NumPy's types of C types: structs become structured types with the same offsets, so that values are a view of their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import BtfError

from .encode import is_char, members_by_name
from .types import BTF_INT_BOOL, COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind

if TYPE_CHECKING:
    from .parse import Btf

_FLOATS = {2: "<f2", 4: "<f4", 8: "<f8"}


def numpy_dtype(btf: Btf, type_id: int, depth: int = MAX_RESOLVE_DEPTH) -> np.dtype[Any]:
    """The dtype with the layout of a type. Arrays of char are bytes ("S16"), enumerators and pointers numbers.

    BtfError for bitfields and what has no size, which NumPy cannot have.
    """
    record = btf.type(btf.strip(type_id))
    if depth == 0:
        raise BtfError(f"type [{type_id}]: nested deeper than {MAX_RESOLVE_DEPTH}")
    if record.kind == BtfKind.PTR:
        return np.dtype("<u8")
    if record.kind == BtfKind.INT or record.kind in ENUMS:
        if record.kind == BtfKind.INT and record.encoding & BTF_INT_BOOL:
            return np.dtype(np.bool_)
        if record.size in (1, 2, 4, 8):
            return np.dtype(f"<{'i' if record.signed else 'u'}{record.size}")
        return np.dtype(f"V{record.size}")
    if record.kind == BtfKind.FLOAT and record.size in _FLOATS:
        return np.dtype(_FLOATS[record.size])
    if record.kind == BtfKind.ARRAY:
        if is_char(btf.type(btf.strip(record.type))):
            return np.dtype(f"S{record.nelems}")
        return np.dtype((numpy_dtype(btf, record.type, depth - 1), (record.nelems,)))
    if record.kind not in COMPOSITES:
        raise BtfError(f"type [{type_id}]: {record.kind.name} {record.name or '(anon)'} has no NumPy type")
    names, formats, offsets = [], [], []
    for member, base in members_by_name(btf, record):
        if member.bitfield_size:
            raise BtfError(f"{btf.c_type(type_id)}: its member {member.name} is a bitfield, which NumPy does not have")
        if member.name:
            names.append(member.name)
            formats.append(numpy_dtype(btf, member.type_id, depth - 1))
            offsets.append(base + member.bit_offset // 8)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": record.size})
