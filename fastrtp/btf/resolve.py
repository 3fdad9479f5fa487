"""Following the references of a BTF as BPF_BTF_LOAD does: types that contain themselves, members that do not fit, wrong kinds.

A type is followed until its size is known: pointers end the walk from a struct or array, structs and arrays end the one
from a pointer. The stack of what is being followed has 32 places, and what is on it may not be met again.

Differs: sections of size 0, extern variables without a size and extern functions without names of parameters pass, as a
compiler leaves them; libbpf gives them what they lack.
Kernel: kernel/bpf/btf.c:btf_check_all_types, btf_resolve, btf_*_resolve, btf_func_proto_check
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NoReturn

from fastrtp.errors import BtfError

from .types import (
    BTF_FUNC_EXTERN,
    BTF_VAR_GLOBAL_EXTERN,
    COMPOSITES,
    ENUMS,
    MAX_RESOLVE_DEPTH,
    MODIFIERS,
    BtfKind,
    BtfType,
    Member,
)

if TYPE_CHECKING:
    from .parse import Btf

_ALIASES = MODIFIERS | {BtfKind.TYPEDEF}
_RESOLVED = _ALIASES | COMPOSITES | {BtfKind.PTR, BtfKind.ARRAY, BtfKind.VAR, BtfKind.FUNC, BtfKind.DECL_TAG, BtfKind.DATASEC}
_SOURCE_ONLY = frozenset((BtfKind.VAR, BtfKind.DECL_TAG, BtfKind.DATASEC))
_SIZED = COMPOSITES | ENUMS | {BtfKind.INT, BtfKind.FLOAT}
_TAGGED = COMPOSITES | {BtfKind.FUNC, BtfKind.VAR, BtfKind.TYPEDEF}
_WITHOUT_SIZE = frozenset((BtfKind.FWD, BtfKind.FUNC, BtfKind.FUNC_PROTO))
_NAMED = frozenset((BtfKind.TYPEDEF, BtfKind.FWD, BtfKind.FUNC, BtfKind.VAR, BtfKind.DATASEC, BtfKind.FLOAT))
_U32_MAX = 0xFFFFFFFF


def resolve(btf: Btf) -> None:
    """Follow every type of a blob. `BtfError` (EINVAL, EEXIST for a loop, E2BIG for one too deep) in the kernel's words."""
    _Resolver(btf).run()


class _Resolver:
    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.done: set[int] = set()
        self.sizes: dict[int, int | None] = {}
        self.stack: list[int] = []
        self.root = 0
        self.mode = BtfKind.UNKN  # what the walk began with, as soon as it came to a pointer, struct or array

    def run(self) -> None:
        for type_id in range(self.btf.start_id, len(self.btf)):
            self._meta(self.btf.type(type_id))
        for type_id in range(self.btf.start_id, len(self.btf)):
            record = self.btf.type(type_id)
            if record.kind in _RESOLVED and type_id not in self.done:
                self._resolve(type_id)
            if record.kind == BtfKind.FUNC_PROTO:
                self._func_proto(record)

    def _meta(self, record: BtfType) -> None:
        """What a record says by itself. Kernel: btf_kind_operations.check_meta."""
        if record.kind in _NAMED and not record.name:
            self._refuse(record.id, "Invalid name")
        last = 0
        for member in record.members:
            if not member.type_id:
                self._refuse_element(member, record, "Invalid type_id")
            if record.kind == BtfKind.STRUCT and member.bit_offset < last:
                self._refuse_element(member, record, "Invalid member bits_offset")
            if (member.bit_offset + 7) // 8 > record.size:
                self._refuse_element(member, record, "Member bits_offset exceeds its struct size")
            last = member.bit_offset
        last = 0
        for info in record.secinfos if record.size else ():
            place = f"\t type_id={info.type_id} offset={info.offset} size={info.size}"
            if info.offset < last or info.offset >= record.size:
                raise BtfError(f"{place} Invalid offset")
            if not info.size or info.size > record.size:
                raise BtfError(f"{place} Invalid size")
            last = info.offset + info.size
            if last > record.size:
                raise BtfError(f"{place} Invalid offset+size")

    def _resolve(self, type_id: int) -> None:
        self.stack, self.root, self.mode = [], type_id, BtfKind.UNKN
        self._push(type_id)
        while self.stack:
            record = self.btf.type(self.stack[-1])
            following = self._next(record)
            if following is None:
                self.done.add(self.stack.pop())
            else:
                self._push(following)

    def _push(self, type_id: int) -> None:
        if len(self.stack) == MAX_RESOLVE_DEPTH:
            self._refuse(self.root, f"Exceeded max resolving depth:{MAX_RESOLVE_DEPTH}", errno.E2BIG)
        if type_id in self.stack:
            self._refuse(self.root, "Loop detected", errno.EEXIST)
        self.stack.append(type_id)
        kind = self.btf.type(type_id).kind
        if self.mode == BtfKind.UNKN and (kind in (BtfKind.PTR, BtfKind.ARRAY) or kind in COMPOSITES):
            self.mode = BtfKind.PTR if kind == BtfKind.PTR else BtfKind.STRUCT

    def _known(self, type_id: int) -> bool:
        """Whether the walk ends at a type: a resolved one, or one that needs no further look in this walk."""
        kind = self.btf.type(type_id).kind if type_id else BtfKind.UNKN
        if type_id in self.done or kind not in _RESOLVED:
            return True
        if self.mode == BtfKind.PTR:
            return kind not in _ALIASES and kind != BtfKind.PTR
        if self.mode == BtfKind.STRUCT:
            return kind not in _ALIASES and kind not in COMPOSITES and kind != BtfKind.ARRAY
        return False

    def _next(self, record: BtfType) -> int | None:
        """The type to follow before this one, None where it is resolved. Raises BtfError for what is wrong with it."""
        kind = record.kind
        if kind in _ALIASES or kind == BtfKind.PTR:
            return self._reference(record)
        if kind == BtfKind.ARRAY:
            return self._array(record)
        if kind in COMPOSITES:
            return self._struct(record)
        if kind == BtfKind.VAR:
            return self._var(record)
        if kind == BtfKind.FUNC:
            return self._func(record)
        return self._decl_tag(record) if kind == BtfKind.DECL_TAG else self._datasec(record)

    def _kind(self, type_id: int) -> BtfKind | None:
        """Kind of a type, None where there is none of that id."""
        if not type_id:
            return BtfKind.UNKN
        return self.btf.type(type_id).kind if type_id < len(self.btf) else None

    def _end(self, type_id: int) -> int:
        """What an alias stands for."""
        for _ in range(len(self.btf)):
            if self._kind(type_id) not in _ALIASES:
                break
            type_id = self.btf.type(type_id).type
        return type_id

    def _size(self, type_id: int) -> int | None:
        """Bytes of a type behind its aliases; None for one without a size. Kernel: btf_type_id_size."""
        type_id = self._end(type_id)
        if type_id in self.sizes:
            return self.sizes[type_id]
        record = self.btf.type(type_id) if type_id else None
        size = None
        if record is not None and record.kind in _SIZED:
            size = record.size
        elif record is not None and record.kind == BtfKind.PTR:
            size = 8
        elif record is not None and record.kind == BtfKind.ARRAY:
            element = self._size(record.type)
            size = None if element is None else element * record.nelems
        elif record is not None and record.kind == BtfKind.VAR:
            return self._size(record.type)
        self.sizes[type_id] = size
        return size

    def _reference(self, record: BtfType) -> int | None:
        kind = self._kind(record.type)
        if kind is None or kind in _SOURCE_ONLY:
            self._refuse(record.id, "Invalid type_id")
        return None if self._known(record.type) else record.type

    def _array(self, record: BtfType) -> int | None:
        for type_id, what in ((record.index_type, "Invalid index"), (record.type, "Invalid elem")):
            kind = self._kind(type_id)
            if kind is None or kind == BtfKind.UNKN or kind in _WITHOUT_SIZE or kind in _SOURCE_ONLY:
                self._refuse(record.id, what)
            if not self._known(type_id):
                return type_id
            end = self.btf.type(self._end(type_id)) if self._size(type_id) is not None else None
            if end is None or (what == "Invalid index" and not _is_regular(end)):
                self._refuse(record.id, what)
            if end.kind == BtfKind.INT and not _is_regular(end):
                self._refuse(record.id, "Invalid array of int")
        size = self._size(record.type) or 0
        if record.nelems and size > _U32_MAX // record.nelems:
            self._refuse(record.id, "Array size overflows U32_MAX")
        return None

    def _struct(self, record: BtfType) -> int | None:
        for member in record.members:
            kind = self._kind(member.type_id)
            if kind is None or kind in _SOURCE_ONLY:
                self._refuse_element(member, record, "Invalid member")
            if not self._known(member.type_id):
                return member.type_id
            if self.btf.type(self._end(member.type_id) or 0).kind not in (*_SIZED, BtfKind.PTR, BtfKind.ARRAY):
                self._refuse_element(member, record, "Invalid member")
            size = self._size(member.type_id)
            bits = member.bitfield_size or 8 * (size or 0)
            if size is not None and not member.bitfield_size and member.bit_offset % 8 and not self._is_integer(member.type_id):
                self._refuse_element(member, record, "Member is not byte aligned")
            if size is not None and member.bit_offset + bits > 8 * record.size:
                self._refuse_element(member, record, "Member exceeds struct_size")
        return None

    def _is_integer(self, type_id: int) -> bool:
        return self._kind(self._end(type_id)) == BtfKind.INT

    def _var(self, record: BtfType) -> int | None:
        kind = self._kind(record.type)
        if kind is None or kind in _SOURCE_ONLY:
            self._refuse(record.id, "Invalid type_id")
        if not self._known(record.type):
            return record.type
        if self._size(record.type) is None and record.linkage != BTF_VAR_GLOBAL_EXTERN:
            self._refuse(record.id, "Invalid type_id")
        return None

    def _func(self, record: BtfType) -> int | None:
        if self._kind(record.type) != BtfKind.FUNC_PROTO:
            self._refuse(record.id, "Invalid type_id")
        params = self.btf.type(record.type).params if record.linkage != BTF_FUNC_EXTERN else ()
        for number, param in enumerate(params, 1):
            if not param.name and param.type_id:
                self._refuse(record.id, f"Invalid arg#{number}")
        return None

    def _decl_tag(self, record: BtfType) -> int | None:
        kind = self._kind(record.type)
        if kind not in _TAGGED:
            self._refuse(record.id, "Invalid type_id")
        if not self._known(record.type):
            return record.type
        if record.component_idx != -1:
            target = self.btf.type(record.type)
            if kind in (BtfKind.VAR, BtfKind.TYPEDEF):
                self._refuse(record.id, "Invalid component_idx")
            count = len(target.members) if kind in COMPOSITES else len(self.btf.type(target.type).params)
            if record.component_idx >= count:
                self._refuse(record.id, "Invalid component_idx")
        return None

    def _datasec(self, record: BtfType) -> int | None:
        for info in record.secinfos if record.size else ():
            place = f"\t type_id={info.type_id} offset={info.offset} size={info.size}"
            if self._kind(info.type_id) != BtfKind.VAR:
                raise BtfError(f"{place} Not a VAR kind member")
            if not self._known(info.type_id):
                return info.type_id
            size = self._size(info.type_id)
            if size is None or info.size < size:
                raise BtfError(f"{place} Invalid size")
        return None

    def _func_proto(self, record: BtfType) -> None:
        """What a function returns and takes has a size. Kernel: btf_func_proto_check."""
        if record.type:
            end = self._end(record.type)
            if end and self._size(end) is None:
                self._refuse(record.id, "Invalid return type")
        params = record.params
        if params and not params[-1].type_id:
            if params[-1].name:
                self._refuse(record.id, f"Invalid arg#{len(params)}")
            params = params[:-1]
        for number, param in enumerate(params, 1):
            kind = self._kind(param.type_id)
            if not kind:
                self._refuse(record.id, f"Invalid arg#{number}")
            if self._size(param.type_id) is None:
                self._refuse(record.id, f"Invalid arg#{number}")

    def _refuse_element(self, member: Member, record: BtfType, what: str) -> NoReturn:
        bits = f" bitfield_size={member.bitfield_size}" if record.kind_flag else ""
        raise BtfError(f"\t{member.name or '(anon)'} type_id={member.type_id}{bits} bits_offset={member.bit_offset} {what}")

    def _refuse(self, type_id: int, what: str, number: int = errno.EINVAL) -> NoReturn:
        record = self.btf.type(type_id)
        name = record.name or "(anon)"
        raise BtfError(f"[{type_id}] {record.kind.name} {name} {_details(record)} {what}", number)


def _is_regular(record: BtfType) -> bool:
    """An int that fills its bytes. Kernel: btf_type_int_is_regular."""
    whole = not record.int_offset and record.bits == 8 * record.size
    return record.kind == BtfKind.INT and whole and record.size in (1, 2, 4, 8, 16)


def _details(record: BtfType) -> str:
    """Kernel: btf_kind_operations.log_details."""
    kind = record.kind
    if kind in _ALIASES or kind in (BtfKind.PTR, BtfKind.FUNC):
        return f"type_id={record.type}"
    if kind == BtfKind.ARRAY:
        return f"type_id={record.type} index_type_id={record.index_type} nr_elems={record.nelems}"
    if kind == BtfKind.VAR:
        return f"type_id={record.type} linkage={record.linkage}"
    if kind == BtfKind.DECL_TAG:
        return f"type={record.type} component_idx={record.component_idx}"
    if kind == BtfKind.FUNC_PROTO:
        return f"return={record.type} args=({_args(record)})"
    return f"size={record.size} vlen={record.vlen}"


def _args(record: BtfType) -> str:
    if not record.params:
        return "void"
    shown = [f"{param.type_id} {param.name or '(anon)'}" for param in record.params]
    if not record.params[-1].type_id:
        shown[-1] = "vararg"
    return ", ".join(shown)
