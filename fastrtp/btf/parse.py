"""Btf: one BTF blob, its records found by an index of offsets and decoded when first asked for.

Parsing checks the header, the section bounds, that the records tile the type section exactly, every record's kind and every
name offset; references between types are checked where they are followed, so hostile data costs a `BtfError`, never a loop.
Ids are the kernel's: 0 is void, a split BTF's first id is its base's count.
Kernel: kernel/bpf/btf.c:btf_parse. Differs: a record is validated on its first use; `check()` does all of them.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import BtfError

from . import cformat, values
from .check import check
from .types import (
    BTF_MAGIC,
    COMPOSITES,
    FIXED_WORDS,
    MAX_RESOLVE_DEPTH,
    MODIFIERS,
    SIZED,
    VLEN_WORDS,
    BtfKind,
    BtfType,
    EnumValue,
    Field,
    Member,
    Param,
    SecInfo,
)

if TYPE_CHECKING:
    import numpy.typing as npt

_HEADER = struct.Struct("<HBBIIIII")
_PATH_PART = re.compile(r"(?:^|\.)([A-Za-z_]\w*)|\[(\d{1,10})\]")
_FIXED = np.array([FIXED_WORDS.get(kind, 0) for kind in BtfKind] + [0] * 12, np.uint32)
_PER_ELEMENT = np.array([VLEN_WORDS.get(kind, 0) for kind in BtfKind] + [0] * 12, np.uint32)
_MAX_STRIPPED = 1 << 31


class Btf:
    """Types of one kernel, module or object. Immutable; decoded records are kept.

    `data`: the raw blob. `base`: what a split BTF builds on. `len(btf)`: ids in use, void and the base's included.
    """

    def __init__(
        self,
        data: bytes,
        types_at: int,
        words: npt.NDArray[np.uint32],
        offsets: npt.NDArray[np.uint32],
        strings: bytes,
        base: Btf | None,
        digest: str = "",
    ) -> None:
        self.data = data
        self._digest = digest
        self._checked = False
        self.base: Btf | None = base
        self.start_id = len(base) if base is not None else 1
        self.str_start: int = base.str_end if base is not None else 0
        self.strings = strings
        self.str_end: int = self.str_start + len(strings)
        self._words = words
        self._types_at = types_at
        self._view = memoryview(words.data)
        self._offsets = offsets
        self._types: dict[int, BtfType] = {}
        self._names: dict[str, tuple[int, ...]] = {}
        self._prefixes: dict[str, list[int]] = {}
        self._void = BtfType(0, BtfKind.UNKN, "void")

    @classmethod
    def parse(cls, data: bytes, base: Btf | None = None, index: tuple[npt.NDArray[np.uint32], str] | None = None) -> Btf:
        """Read a BTF blob; with `base`, as a split BTF on top of it. Raises `BtfError` with the offset.

        `index`: the offsets of its records and its digest, found when these bytes were parsed before.

        Kernel: kernel/bpf/btf.c:btf_parse_hdr, btf_parse_str_sec, btf_check_all_metas
        """
        data = bytes(data)
        if len(data) < _HEADER.size:
            raise BtfError(f"BTF header at offset 0: {len(data)} bytes, needs {_HEADER.size}")
        magic, version, flags, hdr_len, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
        if magic == 0x9FEB:
            raise BtfError("BTF header at offset 0: big-endian BTF is not supported")
        if magic != BTF_MAGIC:
            raise BtfError(f"BTF header at offset 0: magic {magic:#x}, expected {BTF_MAGIC:#x}")
        if version != 1:
            raise BtfError(f"BTF header at offset 2: version {version} is not supported, 1 is")
        if flags:
            raise BtfError(f"BTF header at offset 3: unknown flags {flags:#x}")
        if not _HEADER.size <= hdr_len <= len(data):
            raise BtfError(f"BTF header at offset 4: header length {hdr_len} of {len(data)} bytes")
        if any(data[_HEADER.size : hdr_len]):
            raise BtfError(f"BTF header at offset {_HEADER.size}: unknown fields are not zero")
        types_at, strings_at = hdr_len + type_off, hdr_len + str_off
        if types_at % 4 or type_len % 4:
            raise BtfError(f"type section at offset {types_at:#x}: offset or length {type_len} is not a multiple of 4")
        if types_at + type_len > len(data):
            raise BtfError(f"type section at offset {types_at:#x}: length {type_len} passes the end at {len(data):#x}")
        if strings_at + str_len > len(data):
            raise BtfError(f"string section at offset {strings_at:#x}: length {str_len} passes the end at {len(data):#x}")
        strings = data[strings_at : strings_at + str_len]
        if (strings and strings[-1]) or (base is None and (not strings or strings[0])):
            raise BtfError(f"string section at offset {strings_at:#x}: does not begin and end with a NUL byte")
        words = np.frombuffer(data, "<u4", type_len // 4, types_at)
        if index is not None:
            return cls(data, types_at, words, index[0], strings, base, index[1])
        btf = cls(data, types_at, words, _index_records(words, types_at), strings, base)
        btf._check_names()
        return btf

    def _check_names(self) -> None:
        if not len(self._offsets):
            return
        name_off = self._words[self._offsets]
        bad = np.flatnonzero(name_off >= self.str_end)
        if len(bad):
            first = int(bad[0])
            raise BtfError(
                f"type [{self.start_id + first}] at offset {self._types_at + 4 * int(self._offsets[first]):#x}: "
                f"name offset {int(name_off[first])} passes the end of the strings at {self.str_end}"
            )

    def __len__(self) -> int:
        return self.start_id + len(self._offsets)

    def __iter__(self) -> Iterator[BtfType]:
        """Every type by id, void left out, the base's first."""
        return (self.type(type_id) for type_id in range(1, len(self)))

    def __repr__(self) -> str:
        return f"<Btf {len(self)} types, {self.str_end} bytes of strings{', split' if self.base else ''}>"

    # names

    def string(self, offset: int) -> str:
        """The NUL-terminated string at an offset of the string section (a split BTF's follow its base's)."""
        if offset < self.str_start and self.base is not None:
            return self.base.string(offset)
        if not 0 <= offset - self.str_start < len(self.strings):
            raise BtfError(f"string offset {offset} passes the end of the strings at {self.str_end}")
        start = offset - self.str_start
        return self.strings[start : self.strings.index(0, start)].decode("utf-8", "backslashreplace")

    @cached_property
    def _name_offsets(self) -> npt.NDArray[np.uint32]:
        return self._words[self._offsets]

    @cached_property
    def _kinds(self) -> npt.NDArray[np.uint8]:
        kinds: npt.NDArray[np.uint32] = self._words[self._offsets + np.uint32(1)] >> np.uint32(24) & np.uint32(31)
        return kinds.astype(np.uint8)

    def _ids_of_strings(self, offsets: set[int]) -> list[int]:
        """Ids of this blob's own types whose name starts at one of the string offsets, ascending."""
        if not offsets:
            return []
        if len(offsets) < 8:
            hits = [np.flatnonzero(self._name_offsets == np.uint32(offset)) for offset in offsets]
            found = np.sort(np.concatenate(hits))
        else:
            wanted = np.zeros(self.str_end, np.bool_)
            wanted[list(offsets)] = True
            found = np.flatnonzero(wanted[self._name_offsets])
        return [self.start_id + int(index) for index in found]

    def _string_offsets(self, text: bytes) -> set[int]:
        """Offsets at which `text` occurs in all strings, base included, at the start of a string or inside one."""
        out = self.base._string_offsets(text) if self.base is not None else set()
        at = self.strings.find(text)
        while at >= 0:
            out.add(self.str_start + at)
            at = self.strings.find(text, at + 1)
        return out

    def find_all(self, name: str) -> tuple[int, ...]:
        """Ids of all types with this name, ascending."""
        known = self._names.get(name)
        if known is None:
            own = self._ids_of_strings(self._string_offsets(name.encode() + b"\0")) if name else []
            known = self._names[name] = (*(self.base.find_all(name) if self.base is not None else ()), *own)
        return known

    def find(self, name: str, kind: BtfKind | None = None) -> int | None:
        """The first type with this name (and kind), None without one."""
        return next((found for found in self.find_all(name) if kind is None or self.kind(found) == kind), None)

    def find_prefix(self, prefix: str) -> list[int]:
        """Ids of the types whose names begin with `prefix`, ascending. Raises nothing; an empty prefix finds nothing."""
        if not prefix:
            return []
        known = self._prefixes.get(prefix)
        if known is None:
            below = self.base.find_prefix(prefix) if self.base is not None else []
            known = self._prefixes[prefix] = below + self._ids_of_strings(self._string_offsets(prefix.encode()))
        return list(known)

    # records

    def kind(self, type_id: int) -> BtfKind:
        """The kind of a type without decoding it."""
        if not self.start_id <= type_id < len(self):
            return self.type(type_id).kind
        return BtfKind(int(self._kinds[type_id - self.start_id]))

    def name(self, type_id: int) -> str:
        """The name of a type without decoding it."""
        if not self.start_id <= type_id < len(self):
            return self.type(type_id).name
        return self.string(int(self._name_offsets[type_id - self.start_id]))

    def type(self, type_id: int) -> BtfType:
        """The decoded record of an id; 0 is void (kind UNKN). Raises `BtfError` for an id that is not there."""
        known = self._types.get(type_id)
        if known is not None:
            return known
        if type_id == 0:
            return self._void
        if self.base is not None and 0 < type_id < self.start_id:
            return self.base.type(type_id)
        if not self.start_id <= type_id < len(self):
            raise BtfError(f"type id {type_id} does not exist, the last one is {len(self) - 1}")
        decoded = self._types[type_id] = self._decode(type_id)
        return decoded

    def _decode(self, type_id: int) -> BtfType:
        view, string = self._view, self.string
        at = int(self._offsets[type_id - self.start_id])
        info, word = view[at + 1], view[at + 2]
        kind, vlen, flag = BtfKind(info >> 24 & 31), info & 0xFFFF, bool(info >> 31)
        try:
            name = string(view[at])
            size, ref = (word, 0) if kind in SIZED else (0, word)
            at += 3
            if kind in COMPOSITES:
                members = []
                for i in range(at, at + 3 * vlen, 3):
                    off = view[i + 2]
                    bits = (off & 0xFFFFFF, off >> 24) if flag else (off, 0)
                    members.append(Member(string(view[i]), view[i + 1], *bits))
                return BtfType(type_id, kind, name, size, 0, vlen, flag, members=tuple(members))
            if kind == BtfKind.FUNC_PROTO:
                params = tuple(Param(string(view[i]), view[i + 1]) for i in range(at, at + 2 * vlen, 2))
                return BtfType(type_id, kind, name, 0, ref, vlen, flag, params=params)
            if kind == BtfKind.ENUM:
                enums = []
                for i in range(at, at + 2 * vlen, 2):
                    value = view[i + 1]
                    enums.append(EnumValue(string(view[i]), value - (value >> 31 << 32) if flag else value))
                return BtfType(type_id, kind, name, size, 0, vlen, flag, values=tuple(enums))
            if kind == BtfKind.ENUM64:
                enums = []
                for i in range(at, at + 3 * vlen, 3):
                    value = view[i + 1] | view[i + 2] << 32
                    enums.append(EnumValue(string(view[i]), value - (value >> 63 << 64) if flag else value))
                return BtfType(type_id, kind, name, size, 0, vlen, flag, values=tuple(enums))
            if kind == BtfKind.DATASEC:
                infos = tuple(SecInfo(*view[i : i + 3]) for i in range(at, at + 3 * vlen, 3))
                return BtfType(type_id, kind, name, size, 0, vlen, flag, secinfos=infos)
        except BtfError as error:
            raise BtfError(f"type [{type_id}] {kind.name}: {error}") from None
        if kind == BtfKind.INT:
            word = view[at]
            return BtfType(
                type_id, kind, name, size, 0, vlen, flag, encoding=word >> 24 & 15, int_offset=word >> 16 & 255, bits=word & 255
            )
        if kind == BtfKind.ARRAY:
            return BtfType(type_id, kind, name, 0, view[at], vlen, flag, index_type=view[at + 1], nelems=view[at + 2])
        if kind == BtfKind.VAR:
            return BtfType(type_id, kind, name, 0, ref, vlen, flag, linkage=view[at])
        if kind == BtfKind.FUNC:
            return BtfType(type_id, kind, name, 0, ref, vlen, flag, linkage=vlen)
        if kind == BtfKind.DECL_TAG:
            index = view[at]
            return BtfType(type_id, kind, name, 0, ref, vlen, flag, component_idx=index - (index >> 31 << 32))
        return BtfType(type_id, kind, name, size, ref, vlen, flag)

    def check(self) -> None:
        """Decode and follow every type of this blob, as BPF_BTF_LOAD does; raises `BtfError` for the first bad one."""
        if not self._checked:
            check(self)
            self._checked = True

    def ids_of_kind(self, kind: BtfKind) -> list[int]:
        """Ids of this blob's own types of a kind, ascending."""
        return [self.start_id + int(index) for index in np.flatnonzero(self._kinds == int(kind))]

    @cached_property
    def digest(self) -> str:
        """Digest of the blob and of what it builds on: its identity in keys."""
        base = self.base.digest if self.base is not None else ""
        return self._digest or hashlib.blake2b(self.data + base.encode(), digest_size=16).hexdigest()

    @property
    def records(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """(the type section as words, the offset in them of each record of this blob)."""
        return self._words, self._offsets

    def record_offset(self, type_id: int) -> int:
        """The byte offset in `data` of a record of this blob itself (not of its base)."""
        self.type(type_id)
        if type_id < self.start_id:
            raise BtfError(f"type id {type_id} belongs to the base")
        return self._types_at + 4 * int(self._offsets[type_id - self.start_id])

    # following references

    def strip(self, type_id: int) -> int:
        """The id below typedefs, const, volatile, restrict and type tags. Kernel: btf_type_skip_modifiers"""
        return self._skip(type_id, typedefs=True)

    def strip_modifiers(self, type_id: int) -> int:
        """The id below const, volatile, restrict and type tags, a typedef kept."""
        return self._skip(type_id, typedefs=False)

    def _skip(self, type_id: int, *, typedefs: bool) -> int:
        start = type_id
        for _ in range(MAX_RESOLVE_DEPTH + 1):
            record = self.type(type_id)
            if record.kind not in MODIFIERS and not (typedefs and record.kind == BtfKind.TYPEDEF):
                return type_id
            type_id = record.type
        raise BtfError(f"type [{start}]: more than {MAX_RESOLVE_DEPTH} modifiers, or a cycle of them")

    def sizeof(self, type_id: int) -> int:
        """Bytes of a type. Raises `BtfError` for what has no size (void, functions, forward declarations) or is too deep.

        Kernel: kernel/bpf/btf.c:btf_resolve_size
        """
        count, start = 1, type_id
        for _ in range(MAX_RESOLVE_DEPTH):
            record = self.type(self.strip(type_id))
            if record.kind == BtfKind.ARRAY:
                count *= record.nelems
                type_id = record.type
            elif record.kind == BtfKind.VAR:
                type_id = record.type
            else:
                if record.kind in SIZED:
                    size = count * record.size
                elif record.kind == BtfKind.PTR:
                    size = count * 8
                else:
                    raise BtfError(f"type [{start}]: {record.kind.name} {record.name or '(anon)'} has no size")
                if size >= _MAX_STRIPPED:
                    raise BtfError(f"type [{start}]: size {size} is too large")
                return size
        raise BtfError(f"type [{start}]: arrays nested deeper than {MAX_RESOLVE_DEPTH}, or a cycle of them")

    def member(self, struct_name_or_id: str | int, path: str) -> Field:
        """Where `a.b[2].c` lies in a struct or union, through anonymous members. Raises `BtfError` with the missing part."""
        if isinstance(struct_name_or_id, str):
            kinds = (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF)
            ids = (self.find(struct_name_or_id, kind) for kind in kinds)
            root = next((found for found in ids if found is not None), None)
            if root is None:
                raise BtfError(f"no struct or union {struct_name_or_id!r}")
        else:
            root = struct_name_or_id
        type_id, bits, bitfield, end = root, 0, 0, 0
        for part in _PATH_PART.finditer(path):
            if part.start() != end:
                break
            end = part.end()
            name, index = part[1], part[2]
            stripped = self.strip(type_id)
            if name is not None:
                found = self._named_member(stripped, name, set())
                if found is None:
                    raise BtfError(f"{self.c_type(stripped)} has no member {name!r} (in {path!r})")
                type_id, offset, bitfield = found
                bits += offset
            elif index is not None:
                array = self.type(stripped)
                if array.kind != BtfKind.ARRAY or (array.nelems and int(index) >= array.nelems):
                    raise BtfError(f"{self.c_type(stripped)} has no element {index} (in {path!r})")
                type_id, bitfield = array.type, 0
                bits += 8 * int(index) * self.sizeof(type_id)
        if not path or end != len(path):
            raise BtfError(f"no member path: {path!r}")
        size = self.sizeof(type_id)
        offset_bytes = bits // 8
        if bitfield:
            offset_bytes = bits // 8 // size * size
            while bits + bitfield > 8 * (offset_bytes + size) and size < 8:
                size *= 2
                offset_bytes = bits // 8 // size * size
        return Field(offset_bytes, size, type_id, bits, bitfield)

    def _named_member(self, type_id: int, name: str, seen: set[int]) -> tuple[int, int, int] | None:
        """(type id, bit offset, bitfield size) of a member, anonymous members searched; each type is looked at once."""
        record = self.type(type_id)
        if record.kind not in COMPOSITES or type_id in seen:
            return None
        seen.add(type_id)
        if len(seen) > MAX_RESOLVE_DEPTH * 8:
            raise BtfError(f"type [{type_id}]: too many anonymous members in the search of {name!r}")
        for member in record.members:
            if member.name == name:
                return member.type_id, member.bit_offset, member.bitfield_size
        for member in record.members:
            if not member.name:
                found = self._named_member(self.strip(member.type_id), name, seen)
                if found is not None:
                    return found[0], found[1] + member.bit_offset, found[2]
        return None

    # text and values

    def c_type(self, type_id: int) -> str:
        """The type as C names it: `struct task_struct *`, `void (*)(int)`. Never expands a struct that has a name."""
        return cformat.c_decl(self, type_id, "")

    def c_decl(self, type_id: int, name: str) -> str:
        """A C declaration of `name`: `char comm[16]`."""
        return cformat.c_decl(self, type_id, name)

    def c_proto(self, type_id: int, name: str) -> str:
        """A function's C prototype; the id may be of a FUNC, a FUNC_PROTO or a pointer or typedef to one."""
        return cformat.c_proto(self, type_id, name)

    def decode(self, type_id: int, data: bytes) -> Any:
        """Bytes as the Python value of a type: int, float, str (char arrays), list, dict (structs), enumerator's name."""
        return values.decode(self, type_id, data)


def _index_records(words: npt.NDArray[np.uint32], types_at: int) -> npt.NDArray[np.uint32]:
    """The word offset of every record. Lengths are computed for all words at once, then the chain is followed."""
    count = len(words)
    if count == 0:
        return np.zeros(0, np.uint32)
    info = words[1:]
    kinds = (info >> np.uint32(24)) & np.uint32(31)
    steps = _PER_ELEMENT[kinds]
    steps *= info & np.uint32(0xFFFF)
    steps += _FIXED[kinds]
    steps += np.uint32(3)
    steps += np.arange(len(steps), dtype=np.uint32)
    following = memoryview(steps.data)
    chain: list[int] = []
    append = chain.append
    at = 0
    while at < count - 2:
        append(at)
        at = following[at]
    offsets = np.array(chain, np.uint32)
    if at != count:
        last = chain[-1] if chain else 0
        raise BtfError(
            f"type [{max(len(chain), 1)}] at offset {types_at + 4 * last:#x}: "
            f"passes the end of the type section at {types_at + 4 * count:#x}"
        )
    bad = np.flatnonzero((kinds[offsets] == 0) | (kinds[offsets] > max(BtfKind)))
    if len(bad):
        first = int(bad[0])
        raise BtfError(f"type [{first + 1}] at offset {types_at + 4 * chain[first]:#x}: unknown kind {int(kinds[chain[first]])}")
    return offsets
