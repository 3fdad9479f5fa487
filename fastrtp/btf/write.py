"""BtfWriter: BTF from Python, and a trimmed copy of a larger one.

Ids are given out in the order of the calls, 1 first; a record may refer to ids that come later. Nothing is checked here:
tests write hostile BTF with it, and `Btf.parse` judges.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from .parse import Btf
from .types import BTF_MAGIC, COMPOSITES, ENUMS, SIZED, BtfKind, BtfType

_U32 = 0xFFFFFFFF


class BtfWriter:
    """Collects records; `dump()` gives the blob. `start_id` and `str_start` are a split BTF's."""

    def __init__(self, start_id: int = 1, str_start: int = 0) -> None:
        self._records: list[bytes] = []
        self._str_start = str_start
        self._start_id = start_id
        self._strings = bytearray(b"" if str_start else b"\0")
        self._offsets: dict[str, int] = {"": 0}

    def string(self, text: str) -> int:
        """The offset of a string in the string section, added once."""
        if text not in self._offsets:
            self._offsets[text] = self._str_start + len(self._strings)
            self._strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return self._offsets[text]

    def add(
        self, kind: int, name: str = "", word: int = 0, *, vlen: int = 0, kind_flag: bool = False, extra: Sequence[int] = ()
    ) -> int:
        """A raw record: `word` is its size or type, `extra` the 32-bit words that follow. Returns its id."""
        info = (kind_flag << 31) | (kind & 31) << 24 | vlen & 0xFFFF
        words = (self.string(name), info, word & _U32, *(value & _U32 for value in extra))
        self._records.append(struct.pack(f"<{len(words)}I", *words))
        return self._start_id + len(self._records) - 1

    def add_int(self, name: str, size: int, encoding: int = 0, bits: int | None = None) -> int:
        """An integer of `size` bytes."""
        return self.add(BtfKind.INT, name, size, extra=[encoding << 24 | (8 * size if bits is None else bits)])

    def add_pointer(self, type_id: int) -> int:
        """A pointer to a type."""
        return self.add(BtfKind.PTR, "", type_id)

    def add_array(self, type_id: int, nelems: int, index_type: int = 0) -> int:
        """An array of `nelems`."""
        return self.add(BtfKind.ARRAY, extra=[type_id, index_type, nelems])

    def add_struct(self, name: str, size: int, members: Iterable[tuple[str, int, int]], *, union: bool = False) -> int:
        """A struct or union of ordinary members (name, type id, bit offset)."""
        rows = [(self.string(m), type_id, offset) for m, type_id, offset in members]
        kind = BtfKind.UNION if union else BtfKind.STRUCT
        return self.add(kind, name, size, vlen=len(rows), extra=[word for row in rows for word in row])

    def add_bitfields(self, name: str, size: int, members: Iterable[tuple[str, int, int, int]], *, union: bool = False) -> int:
        """A struct with bitfields: (name, type id, bit offset, bits or 0)."""
        rows = [(self.string(m), type_id, bits << 24 | offset) for m, type_id, offset, bits in members]
        kind = BtfKind.UNION if union else BtfKind.STRUCT
        return self.add(kind, name, size, vlen=len(rows), kind_flag=True, extra=[word for row in rows for word in row])

    def add_enum(self, name: str, size: int, values: Iterable[tuple[str, int]], *, signed: bool = False) -> int:
        """An ENUM, or an ENUM64 when `size` is 8."""
        wide = size == 8
        extra: list[int] = []
        count = 0
        for label, value in values:
            extra += [self.string(label), value, *([value >> 32] if wide else [])]
            count += 1
        return self.add(BtfKind.ENUM64 if wide else BtfKind.ENUM, name, size, vlen=count, kind_flag=signed, extra=extra)

    def add_func_proto(self, ret: int, params: Iterable[tuple[str, int]]) -> int:
        """A function prototype of (name, type id) parameters."""
        rows = [(self.string(name), type_id) for name, type_id in params]
        return self.add(BtfKind.FUNC_PROTO, "", ret, vlen=len(rows), extra=[word for row in rows for word in row])

    def dump(self) -> bytes:
        """The whole blob."""
        types = b"".join(self._records)
        header = struct.pack("<HBBIIIII", BTF_MAGIC, 1, 0, 24, 0, len(types), len(types), len(self._strings))
        return header + types + bytes(self._strings)


def references(record: BtfType) -> list[int]:
    """Ids that a record refers to, void included."""
    refs = [record.type] if record.kind not in SIZED else []
    refs += [member.type_id for member in record.members]
    refs += [param.type_id for param in record.params]
    refs += [info.type_id for info in record.secinfos]
    if record.kind == BtfKind.ARRAY:
        refs.append(record.index_type)
    return refs


def copy_record(writer: BtfWriter, record: BtfType, ids: dict[int, int]) -> int:
    """Write a decoded record again, its references renamed by `ids`."""
    ref = ids[record.type] if record.kind not in SIZED else record.size
    extra: list[int] = []
    if record.kind in COMPOSITES:
        for m in record.members:
            extra += [writer.string(m.name), ids[m.type_id], m.bitfield_size << 24 | m.bit_offset]
    elif record.kind in ENUMS:
        for label, value in record.values:
            extra += [writer.string(label), value, *([value >> 32] if record.kind == BtfKind.ENUM64 else [])]
    elif record.kind == BtfKind.FUNC_PROTO:
        for p in record.params:
            extra += [writer.string(p.name), ids[p.type_id]]
    elif record.kind == BtfKind.DATASEC:
        for info in record.secinfos:
            extra += [ids[info.type_id], info.offset, info.size]
    elif record.kind == BtfKind.ARRAY:
        ref, extra = 0, [ids[record.type], ids[record.index_type], record.nelems]
    elif record.kind == BtfKind.INT:
        extra = [record.encoding << 24 | record.int_offset << 16 | record.bits]
    elif record.kind == BtfKind.VAR:
        extra = [record.linkage]
    elif record.kind == BtfKind.DECL_TAG:
        extra = [record.component_idx]
    return writer.add(record.kind, record.name, ref, vlen=record.vlen, kind_flag=record.kind_flag, extra=extra)


def trim(btf: Btf, roots: Iterable[int]) -> bytes:
    """A BTF of only the roots and what they reach, in the order of the original ids."""
    wanted: set[int] = set()
    todo = [root for root in roots if root]
    while todo:
        type_id = todo.pop()
        if type_id not in wanted:
            wanted.add(type_id)
            todo += [ref for ref in references(btf.type(type_id)) if ref and ref not in wanted]
    ids = {0: 0} | {old: new for new, old in enumerate(sorted(wanted), 1)}
    writer = BtfWriter()
    for old in sorted(wanted):
        copy_record(writer, btf.type(old), ids)
    return writer.dump()
