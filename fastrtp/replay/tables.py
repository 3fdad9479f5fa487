"""MapTable: a map's contents as named columns, the one form that the command line, Arrow and data frames share.

A struct's members are columns of their own (nested ones "outer.inner"); a key or value that is no struct is the column
"key" or "value". Per-CPU numbers become "total" and one column for each CPU; per-CPU structs become a row for each CPU that
has anything. Integers stay Python ints and arrays lists, so nothing is lost.

Must not know: terminals, notebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastrtp.btf import Btf, BtfKind
from fastrtp.errors import BtfError
from fastrtp.maps.base import Map, round_up
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    import pyarrow as pa

RINGS = frozenset({BpfMapType.BPF_MAP_TYPE_RINGBUF, BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY})
ARRAYS = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY})
_STRUCTS = frozenset({BtfKind.STRUCT, BtfKind.UNION, BtfKind.DATASEC})
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Leaf:
    """A column to be: the way to it through decoded structs, and its type (None: no BTF)."""

    path: tuple[str, ...]
    type_id: int | None

    def of(self, value: Any) -> Any:
        """The leaf of a decoded value."""
        for name in self.path:
            value = value[name]
        return value


def leaves(btf: Btf | None, type_id: int, path: tuple[str, ...] = ()) -> list[Leaf]:
    """The leaves of a type as `Btf.decode` shows it: members of structs, anonymous ones merged into the outer."""
    if btf is None or type_id == 0:
        return [Leaf(path, None)]
    record = btf.type(btf.strip(type_id))
    if record.kind == BtfKind.VAR:
        return leaves(btf, record.type, path)
    if record.kind not in _STRUCTS or len(path) > _MAX_DEPTH:
        return [Leaf(path, type_id)]
    if record.kind == BtfKind.DATASEC:
        members = [(btf.type(info.type_id).name, info.type_id) for info in record.secinfos]
    else:
        members = [(member.name, member.type_id) for member in record.members]
    found: list[Leaf] = []
    for name, member_type in members:
        if name:
            found += leaves(btf, member_type, (*path, name))
        elif btf.type(btf.strip(member_type)).kind in _STRUCTS:
            found += leaves(btf, member_type, path)
    return found


def column_names(keys: list[Leaf], values: list[Leaf], reserved: set[str]) -> tuple[list[str], list[str]]:
    """Column names: members by their own name, with "key." or "value." before it where both sides have it, or it is reserved."""
    key_names = [".".join(leaf.path) or "key" for leaf in keys]
    value_names = [".".join(leaf.path) or "value" for leaf in values]
    both = set(key_names) & set(value_names) | reserved
    return (
        [f"key.{name}" if name in both else name for name in key_names],
        [f"value.{name}" if name in both else name for name in value_names],
    )


@dataclass(frozen=True)
class MapTable:
    """A map's rows. `columns`: values by column name, keys first; `types`: BTF type by column (None: none);
    `sort_by`: the column that says which rows matter most, "" for none; `entries`: elements of the map.
    """

    name: str
    map_type: BpfMapType
    columns: dict[str, list[Any]]
    types: dict[str, int | None]
    btf: Btf | None
    key_columns: tuple[str, ...]
    sort_by: str
    entries: int

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Rows in column order."""
        return zip(*self.columns.values(), strict=True)

    def top(self, count: int) -> MapTable:
        """The `count` rows with the largest `sort_by`, largest first; without such a column the first ones. 0: all rows."""
        order = list(range(len(self)))
        if self.sort_by:
            column = self.columns[self.sort_by]
            order.sort(key=lambda row: column[row], reverse=True)
        return self._take(order[: count or None])

    def without_zeros(self) -> MapTable:
        """Only rows that have a value other than zero: what programs touched of an array."""
        values = [column for name, column in self.columns.items() if name not in self.key_columns and name != "cpu"]
        return self._take([row for row in range(len(self)) if any(_is_set(column[row]) for column in values)])

    def arrow(self) -> pa.Table:
        """An Arrow table with the integer widths of the BTF."""
        import pyarrow as pa

        arrays = {name: pa.array(*self._arrow_column(name)) for name in self.columns}
        return pa.table(arrays, metadata={"map": self.name, "map_type": self.map_type.name})

    def _arrow_column(self, name: str) -> tuple[list[Any], Any]:
        column, type_id = self.columns[name], self.types[name]
        if type_id is None:
            return column, None if not column or not isinstance(column[0], int) else _plain(column)
        kind = arrow_type(self.btf, type_id)
        import pyarrow as pa

        return ([str(value) for value in column] if kind == pa.string() else column), kind

    def _take(self, order: list[int]) -> MapTable:
        columns = {name: [column[row] for row in order] for name, column in self.columns.items()}
        return MapTable(self.name, self.map_type, columns, self.types, self.btf, self.key_columns, self.sort_by, self.entries)


def map_table(contents: Map, name: str = "") -> MapTable:
    """The table of a map that has elements. BpfError ENOTSUPP for those that have none to list, BtfError for bad types."""
    keys = leaves(contents.btf, contents.btf_key_type_id)
    values = leaves(contents.btf, contents.btf_value_type_id)
    if contents.btf is not None and contents.btf_key_type_id == 0 and len(values) > 1 and contents.max_entries == 1:
        keys = []  # global data: one element, its key says nothing
    key_names, value_names = column_names(keys, values, {"cpu", "total"} if contents.percpu else set())
    items = list(contents.items())
    key_columns: dict[str, list[Any]] = {n: [leaf.of(key) for key, _ in items] for n, leaf in zip(key_names, keys, strict=True)}
    types: dict[str, int | None] = {n: leaf.type_id for n, leaf in zip(key_names + value_names, keys + values, strict=True)}
    columns = dict(key_columns)
    if not contents.percpu:
        columns |= {n: [leaf.of(value) for _, value in items] for n, leaf in zip(value_names, values, strict=True)}
    elif len(values) == 1 and not values[0].path and all(isinstance(cell, int) for _, row in items for cell in row):
        cells = [row for _, row in items]
        columns["total"] = [sum(row) for row in cells]
        columns |= {f"cpu{cpu}": [row[cpu] for row in cells] for cpu in range(contents.memory.cpus)}
        types |= {"total": None} | {f"cpu{cpu}": values[0].type_id for cpu in range(contents.memory.cpus)}
    else:
        columns = _by_cpu(contents, items, list(zip(key_names, keys, strict=True)), list(zip(value_names, values, strict=True)))
        types["cpu"] = None
    types = {column: types[column] for column in columns}
    sort_by = "" if contents.map_type in ARRAYS else _sort_column(columns, tuple(key_names))
    return MapTable(name or contents.name, contents.map_type, columns, types, contents.btf, tuple(key_names), sort_by, len(items))


def _by_cpu(
    contents: Map, items: list[tuple[Any, Any]], keys: list[tuple[str, Leaf]], values: list[tuple[str, Leaf]]
) -> dict[str, list[Any]]:
    """A row for each element and CPU that is not all zeros."""
    step = round_up(contents.value_size, 8)
    columns: dict[str, list[Any]] = {name: [] for name in [*(n for n, _ in keys), "cpu", *(n for n, _ in values)]}
    for (key, cells), (_, raw) in zip(items, contents.raw_items(), strict=True):
        for cpu, cell in enumerate(cells):
            if any(raw[cpu * step : cpu * step + contents.value_size]):
                columns["cpu"].append(cpu)
                for name, leaf in keys:
                    columns[name].append(leaf.of(key))
                for name, leaf in values:
                    columns[name].append(leaf.of(cell))
    return columns


def _sort_column(columns: dict[str, list[Any]], keys: tuple[str, ...]) -> str:
    """The first column of numbers among the values."""
    for name, column in columns.items():
        if name not in keys and name != "cpu" and column and all(isinstance(value, int | float) for value in column):
            return name
    return ""


def record_table(name: str, map_type: BpfMapType, records: list[bytes], btf: Btf | None, type_id: int) -> MapTable:
    """Records of a ring as a table: by a struct of the object's BTF, or as bytes (type_id 0)."""
    fields = leaves(btf, type_id) if type_id else [Leaf((), None)]
    names = [".".join(leaf.path) or "record" for leaf in fields]
    decoded: list[Any] = [btf.decode(type_id, record) if btf is not None and type_id else record for record in records]
    columns: dict[str, list[Any]] = {n: [leaf.of(value) for value in decoded] for n, leaf in zip(names, fields, strict=True)}
    types = {n: leaf.type_id for n, leaf in zip(names, fields, strict=True)}
    return MapTable(name, map_type, columns, types, btf, (), "", len(records))


def _is_set(value: Any) -> bool:
    return any(_is_set(item) for item in value) if isinstance(value, list) else bool(value)


def _plain(column: list[int]) -> Any:
    import pyarrow as pa

    return pa.uint64() if min(column) >= 0 else pa.int64()


def arrow_type(btf: Btf | None, type_id: int, depth: int = 0) -> Any:
    """The Arrow type of what `Btf.decode` gives for a type: enumerators and char arrays are strings."""
    import pyarrow as pa

    if btf is None or depth > _MAX_DEPTH:
        raise BtfError(f"type [{type_id}]: no Arrow type")
    record = btf.type(btf.strip(type_id))
    if record.kind == BtfKind.VAR:
        return arrow_type(btf, record.type, depth + 1)
    if record.kind == BtfKind.PTR:
        return pa.uint64()
    if record.kind in (BtfKind.ENUM, BtfKind.ENUM64):
        return pa.string()
    if record.kind == BtfKind.INT:
        return _arrow_int(record.size, record.signed, isinstance(btf.decode(type_id, bytes(record.size)), bool))
    if record.kind == BtfKind.FLOAT:
        return pa.float32() if record.size == 4 else pa.float64()
    if record.kind == BtfKind.ARRAY:
        is_text = isinstance(btf.decode(type_id, bytes(btf.sizeof(type_id))), str)
        return pa.string() if is_text else pa.list_(arrow_type(btf, record.type, depth + 1))
    if record.kind in _STRUCTS:
        fields = leaves(btf, type_id)
        return pa.struct([(".".join(leaf.path), arrow_type(btf, leaf.type_id or 0, depth + 1)) for leaf in fields])
    raise BtfError(f"type [{type_id}]: no Arrow type for {record.kind.name}")


def _arrow_int(size: int, signed: bool, is_bool: bool) -> Any:
    import pyarrow as pa

    makers: dict[tuple[int, bool], Callable[[], Any]] = {
        (1, True): pa.int8, (2, True): pa.int16, (4, True): pa.int32, (8, True): pa.int64,
        (1, False): pa.uint8, (2, False): pa.uint16, (4, False): pa.uint32, (8, False): pa.uint64,
    }  # fmt: skip
    return pa.bool_() if is_bool else makers.get((size, signed), pa.string)()
