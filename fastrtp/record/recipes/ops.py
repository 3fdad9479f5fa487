"""The operations of the data files on columns: from what a field recorded to what the place held.

fastrtp/record/invert/solve.py lists them. Every function takes whole columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.btf import Btf, BtfKind
from fastrtp.record.columns import EventTable

from .data import Told
from .recipe import Derived, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ELEMENT = re.compile(r"^\[(\d+)\]$")
_SEEN = re.compile(r"^@(\w+)->([\w.]+)$")
_META = ("mask ", "null ", "unless ", "if ", "assume", "id ")
_U64 = (1 << 64) - 1
_ERRNO_TO_STATUS = {
    0: 0, -95: 1, -110: 2, -28: 3, -67: 4, -121: 5, -52: 6, -61: 7, -84: 8, -12: 9, -5: 10, -78: 11, -11: 12, -16: 13, -109: 14,
    -75: 15, -19: 16, -62: 17, -22: 19,
}  # fmt: skip
"""blk_status_t by errno. Kernel: block/blk-core.c:blk_errors"""
_OPS = {"R": 0, "W": 1, "F": 2, "D": 3, "DE": 5}
"""enum req_op by the letters of blk_fill_rwbs()."""
_FLAGS = {"A": "__REQ_RAHEAD", "S": "__REQ_SYNC", "M": "__REQ_META", "F": "__REQ_FUA"}
_OP_MASK = 0xFF
Column = "NDArray[Any]"


class Reader:
    """Columns of one event kind. `btf`: for members of structs that bytes are seen as, and for flags' numbers."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf

    def source(self, told: Told) -> Source:
        """What a place held: a field's name where nothing has to be done, or a column that is computed."""
        ops = [op for op in told.ops if not op.startswith(_META)]
        if not ops and not told.part:
            return told.field
        if not ops and (element := _ELEMENT.match(told.part)):
            return f"{told.field}[{element[1]}]"
        others = [op[2:] for op in ops if op[1:2] == "@"]
        extra = ["rwbs"] if "sector" in ops else []
        return Derived((told.field, *others, *extra), partial(self._compute, told, ops))

    def when(self, told: Told) -> Derived | None:
        """In which rows it says something; None: in all."""
        tests: list[Callable[[EventTable], NDArray[np.bool_]]] = []
        fields = [told.field]
        for op in told.ops:
            word, _, rest = op.partition(" ")
            if word == "unless":
                tests.append(partial(self._differs, told, rest))
            elif word == "is":
                tests.append(partial(self._equals, told, rest.split(" ")[0]))
            elif word == "if":
                equal = "==" in rest
                name, _, value = rest.partition("==" if equal else "!=")
                fields.append(name)
                tests.append(partial(_compare, name, int(value), equal))
        if not tests:
            return None
        return Derived(tuple(fields), lambda table: np.logical_and.reduce([test(table) for test in tests]).astype(np.uint8))

    def null(self, told: Told, value: str) -> Derived:
        """In which rows a field has the value that stands for no object."""
        return Derived((told.field,), lambda table: self._equals(told, value, table).astype(np.uint8))

    # columns

    def _base(self, told: Told, table: EventTable) -> NDArray[Any]:
        if table.has_strings(told.field):
            return table.strings(told.field)
        column: NDArray[Any] = table.fields[told.field]
        if not told.part:
            return column
        element = _ELEMENT.match(told.part)
        if element and column.ndim == 2 and int(element[1]) < column.shape[1]:
            return column[:, int(element[1])]
        seen = _SEEN.match(told.part)
        if seen and column.ndim == 2 and column.dtype.itemsize == 1:
            spot = self.btf.member(seen[1], seen[2])
            end = spot.offset_bytes + spot.size
            if end <= column.shape[1]:
                piece = np.ascontiguousarray(column[:, spot.offset_bytes : end])
                return piece.view(f"<u{spot.size}")[:, 0] if spot.size in (1, 2, 4, 8) else piece
        raise LookupError(f"field {told.field!r} of {table.name} has no part {told.part!r}")

    def _compute(self, told: Told, ops: Sequence[str], table: EventTable) -> NDArray[Any]:
        column = self._base(told, table)
        for op in ops:
            column = self._apply(op, column, table)
        return column

    def _apply(self, op: str, column: NDArray[Any], table: EventTable) -> NDArray[Any]:
        word, _, rest = op.partition(" ")
        if word == "true":
            return _equal(column, rest).astype(np.uint8)
        if word == "is":
            return np.full(len(column), int(rest.split(" ")[1]), np.int64)
        if word == "rwbs":
            return self._rwbs(column)
        if column.dtype.kind not in "iu":
            raise LookupError(f"{op!r} of a field of {table.name} that is no integer")
        with np.errstate(over="ignore"):
            if op[1:2] == "@":
                if not table.has_integers(op[2:]):
                    raise LookupError(f"field {op[2:]!r} of {table.name} is no integer")
                other = table.fields[op[2:]].astype(np.int64)
                return column.astype(np.int64) + other if op[0] == "+" else column.astype(np.int64) - other
            simple = _SIMPLE.get(word)
            if simple is not None:
                return simple(column, table)
            if word == "and":
                return column.astype(np.int64) & _signed(int(rest, 0))
            for sign, do in _BINARY.items():
                if op.startswith(sign):
                    return do(column.astype(np.int64), _signed(int(op[len(sign) :], 0)))
        raise LookupError(f"an operation {op!r} that this version does not know")

    def _rwbs(self, column: NDArray[Any]) -> NDArray[np.int64]:
        texts, inverse = np.unique(column, return_inverse=True)
        values = np.array([self._flags(text.decode(errors="replace")) for text in texts.tolist()], np.int64)
        return values[inverse.reshape(-1)]

    def _flags(self, text: str) -> int:
        """blk_opf_t of blk_fill_rwbs()'s letters; what has no letter is 0."""
        value = 0
        if text[:1] == "F" and text[1:2] in tuple("WRDFN"):
            value, text = 1 << self._flag("__REQ_PREFLUSH"), text[1:]
        op, rest = ("DE", text[2:]) if text.startswith("DE") else (text[:1], text[1:])
        value |= _OPS.get(op, 0)
        for letter in rest:
            if letter in _FLAGS:
                value |= 1 << self._flag(_FLAGS[letter])
        return value

    def _flag(self, name: str) -> int:
        """Number of a bit of blk_opf_t in this kernel."""
        found = self.btf.find("req_flag_bits", BtfKind.ENUM)
        values = {} if found is None else {item.name: item.value for item in self.btf.type(found).values}
        return int(values.get(name, 63))

    def _equals(self, told: Told, value: str, table: EventTable) -> NDArray[np.bool_]:
        return _equal(self._base(told, table), value)

    def _differs(self, told: Told, value: str, table: EventTable) -> NDArray[np.bool_]:
        return ~self._equals(told, value, table)


def known_bits(ops: Sequence[str]) -> int:
    """Of the place, the bits that a field tells: all but where a mask, on the way back, left some out."""
    known = _U64
    for op in ops:
        word, _, rest = op.partition(" ")
        if word == "mask":
            known &= int(rest, 0)
        elif op.startswith("<<"):
            known = known << int(op[2:]) & _U64
        elif op.startswith(">>"):
            known >>= int(op[2:])
    return known


def _compare(name: str, value: int, equal: bool, table: EventTable) -> NDArray[np.bool_]:
    if not table.has_integers(name):
        raise LookupError(f"field {name!r} of {table.name} is no integer")
    found: NDArray[np.bool_] = (table.fields[name] == value) == equal
    return found


def _equal(column: NDArray[Any], value: str) -> NDArray[np.bool_]:
    if value.startswith('"'):
        found: NDArray[np.bool_] = column == value[1:-1].encode() if column.dtype.kind == "S" else np.zeros(len(column), np.bool_)
        return found
    if column.dtype.kind not in "iu":
        return np.zeros(len(column), np.bool_)
    bits = column.dtype.itemsize * 8
    number = int(value) & ((1 << bits) - 1)
    unsigned: NDArray[np.bool_] = column.astype(f"u{column.dtype.itemsize}") == number
    return unsigned


def _swap(size: int, column: NDArray[Any], _: EventTable) -> NDArray[Any]:
    return np.ascontiguousarray(column).astype(f"<u{size}").byteswap()


def _errno(column: NDArray[Any], _: EventTable) -> NDArray[Any]:
    errors, inverse = np.unique(column, return_inverse=True)
    return np.array([_ERRNO_TO_STATUS.get(error, 10) for error in errors.tolist()], np.int64)[inverse.reshape(-1)]


def _sector(column: NDArray[Any], table: EventTable) -> NDArray[Any]:
    """blk_rq_trace_sector() records 0 for a request that has no sector: a flush has -1. Kernel: include/linux/blktrace_api.h"""
    sectors = column.astype(np.int64)
    if not table.has_strings("rwbs"):
        return sectors
    letters, inverse = np.unique(table.strings("rwbs"), return_inverse=True)
    flush = np.array([_is_flush(text) for text in letters.tolist()], np.bool_)[inverse.reshape(-1)]
    return np.where(flush & (sectors == 0), np.int64(-1), sectors)


def _is_flush(text: bytes) -> bool:
    return text[:1] == b"F" and text[1:2] not in (b"W", b"R", b"D", b"N")


def _decode_dev(column: NDArray[Any], _: EventTable) -> NDArray[Any]:
    value = column.astype(np.int64)
    major, minor = (value & 0xFFF00) >> 8, (value & 0xFF) | ((value >> 12) & 0xFFF00)
    return (major << 20) | minor


_SIMPLE: Mapping[str, Callable[[NDArray[Any], EventTable], NDArray[Any]]] = {
    "swap16": partial(_swap, 2),
    "swap32": partial(_swap, 4),
    "swap64": partial(_swap, 8),
    "errno": _errno,
    "sector": _sector,
    "encdev": _decode_dev,
    "neg": lambda column, _: -column.astype(np.int64),
    "~": lambda column, _: ~column.astype(np.int64),
}
_BINARY: Mapping[str, Callable[[NDArray[np.int64], int], NDArray[np.int64]]] = {
    "<<": lambda column, number: column << number,
    ">>": lambda column, number: column >> number,
    "+": lambda column, number: column + number,
    "-": lambda column, number: column - number,
    "*": lambda column, number: column * number,
    "/": lambda column, number: column // number,
    "^": lambda column, number: column ^ number,
}


def _signed(value: int) -> int:
    value &= _U64
    return value - (1 << 64) if value >> 63 else value
