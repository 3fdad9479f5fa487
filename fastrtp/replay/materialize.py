"""From a bound event kind to LLVM IR: one function that builds an event's arguments and brings its objects up to date.

    void <name>(i64 row, ptr args)      args: u64[num_args]

Widths, offsets and constants are part of the text; columns are symbols, so that the same recording layout finds its code in
the cache, and LLVM knows that they are neither each other nor a map. Interpreting the same tables cost 27 ns an event; this
costs a few.

Pure: text and the columns that its symbols stand for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.replay.bind import BoundArg, BoundEvent, BoundStore

Column = np.ndarray[Any, Any]
_WIDTHS = (1, 2, 4, 8)
_LOWEST_ADDRESS = 1 << 32


class Materializer:
    """IR text of the functions `<name>` (arguments and stores before the probes) and `<name>:after` (stores behind them).

    `rows`: how many rows every column must have. `sources`: symbol -> the column, or the plain address, that it stands for.
    """

    def __init__(self, name: str, event: BoundEvent, rows: int) -> None:
        self.name = name
        self.rows = rows
        self.sources: dict[str, Column | int] = {}
        self._lines: list[str] = []
        self._count = 0
        values = [self._argument(index, arg) for index, arg in enumerate(event.args)]
        self._stores(event.stores, values)
        before = self._function(name)
        self._lines, self._count = [], 0
        if event.after:
            values = [self._value(f"load i64, ptr {self._at('%args', 8 * index)}, align 8") for index in range(len(event.args))]
            self._stores(event.after, values)
        self.has_after = bool(event.after)
        after = self._function(f"{name}:after") if event.after else ""
        self.text = "".join(f'@"{source}" = external global [0 x i8]\n' for source in self.sources) + before + after

    def _function(self, name: str) -> str:
        body = "\n".join(f"  {line}" if not line.endswith(":") else line for line in [*self._lines, "ret void"])
        return f'define void @"{name}"(i64 %row, ptr noalias %args) nounwind {{\nentry:\n{body}\n}}\n'

    def _value(self, text: str) -> str:
        self._count += 1
        self._lines.append(f"%v{self._count} = {text}")
        return f"%v{self._count}"

    def _at(self, base: str, offset: int) -> str:
        return self._value(f"getelementptr i8, ptr {base}, i64 {offset}")

    def _source(self, source: Column | int) -> str:
        """The symbol that stands for the source."""
        if not isinstance(source, int) and len(source) < self.rows:
            raise ReplayError(f"{self.name}: a column has {len(source)} rows where an event names row {self.rows - 1}")
        name = f"{self.name}:{len(self.sources)}"
        self.sources[name] = source
        return f'@"{name}"'

    def _item(self, column: Column, size: int) -> str:
        """Pointer to the row's item of `size` bytes."""
        offset = self._value(f"mul i64 %row, {size}")
        return self._value(f"getelementptr i8, ptr {self._source(column)}, i64 {offset}")

    def _integer(self, column: Column) -> str:
        """Value: the row's item as i64, sign-extended where the column is signed."""
        if column.dtype.kind == "b":
            column = column.view(np.uint8)
        width = column.dtype.itemsize
        if column.dtype.kind not in "iu" or width not in _WIDTHS:
            raise ReplayError(f"{self.name}: a column of {column.dtype} holds no integers")
        item = self._item(np.ascontiguousarray(column), width)
        value = self._value(f"load i{8 * width}, ptr {item}, align 1, !invariant.load !0")
        if width == 8:
            return value
        return self._value(f"{'sext' if column.dtype.kind == 'i' else 'zext'} i{8 * width} {value} to i64")

    def _argument(self, index: int, arg: BoundArg) -> str:
        value = self._constant(arg.const) if arg.column is None else self._integer(arg.column)
        self._lines.append(f"store i64 {value}, ptr {self._at('%args', 8 * index)}, align 8")
        return value

    def _constant(self, value: int) -> str:
        """A number; one that may be an object's address, which differs from run to run, is a symbol."""
        if not _LOWEST_ADDRESS <= value < 1 << 63:
            return str(_signed(value))
        return self._value(f"ptrtoint ptr {self._source(value)} to i64")

    def _base(self, store: BoundStore, values: Sequence[str]) -> str:
        if store.base_arg >= len(values):
            raise ReplayError(f"{self.name}: a store goes to argument {store.base_arg} of {len(values)}")
        if store.base_arg >= 0:
            return values[store.base_arg]
        if isinstance(store.base, np.ndarray):
            return self._integer(np.ascontiguousarray(store.base, np.uint64))
        return self._value(f"ptrtoint ptr {self._source(store.base)} to i64") if store.base else "0"

    def _stores(self, stores: Sequence[BoundStore], values: Sequence[str]) -> None:
        """All stores, those to one object behind one another under one look at whether it is NULL."""
        at = 0
        while at < len(stores):
            end = at + 1
            while end < len(stores) and _same_object(stores[at], stores[end]):
                end += 1
            base = self._base(stores[at], values)
            null = self._value(f"icmp eq i64 {base}, 0")
            self._count += 1
            write, done = f"w{self._count}", f"d{self._count}"
            self._lines += [f"br i1 {null}, label %{done}, label %{write}", f"{write}:"]
            for store in stores[at:end]:
                self._store(store, base)
            self._lines += [f"br label %{done}", f"{done}:"]
            at = end

    def _store(self, store: BoundStore, base: str) -> None:
        address = self._value(f"add i64 {base}, {store.offset}")
        target = self._value(f"inttoptr i64 {address} to ptr")
        if store.column is not None and store.column.dtype.kind == "S":
            self._string(store.column, target, store.size)
            return
        if store.size not in _WIDTHS:
            raise ReplayError(f"{self.name}: a store of {store.size} bytes from an integer")
        value = self._constant(store.const) if store.column is None else self._integer(store.column)
        kind = f"i{8 * store.size}"
        if store.shift:
            value = self._value(f"shl i64 {value}, {store.shift}")
        narrow = value if store.size == 8 else self._value(f"trunc i64 {value} to {kind}")
        if store.mask:
            old = self._value(f"load {kind}, ptr {target}, align 1")
            kept = self._value(f"and {kind} {old}, {~store.mask & (1 << 8 * store.size) - 1}")
            new = self._value(f"and {kind} {narrow}, {store.mask & (1 << 8 * store.size) - 1}")
            narrow = self._value(f"or {kind} {kept}, {new}")
        self._lines.append(f"store {kind} {narrow}, ptr {target}, align 1")

    def _string(self, column: Column, target: str, size: int) -> None:
        width = column.dtype.itemsize
        item = self._item(np.ascontiguousarray(column), width)
        count = min(width, size)
        self._lines.append(f"call void @llvm.memcpy.p0.p0.i64(ptr align 1 {target}, ptr align 1 {item}, i64 {count}, i1 false)")
        if count < size:
            rest = self._at(target, count)
            self._lines.append(f"call void @llvm.memset.p0.i64(ptr align 1 {rest}, i8 0, i64 {size - count}, i1 false)")


DECLARATIONS = """declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
!0 = !{}
"""
"""What every module of these functions ends with."""


def _same_object(one: BoundStore, other: BoundStore) -> bool:
    return one.base_arg == other.base_arg and (one.base_arg >= 0 or one.base is other.base)


def _signed(value: int) -> int:
    value &= 0xFFFFFFFFFFFFFFFF
    return value - (1 << 64) if value >> 63 else value
