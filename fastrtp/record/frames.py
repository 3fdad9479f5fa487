"""EventFrame: events of some kinds as one table, for Arrow, pandas, polars, Parquet, CSV and JSON lines.

Its first columns are `time` (ns), `cpu`, `pid` and `comm` of the running task (its name as it was saved with the recording);
with events of several kinds, `event` names each, and fields that a row's event does not have are null. A field that is itself
called like one of these has `field_` before its name; one that is an integer in one event and a text in another has the event's
name and a point. `Recording.from_table` reads all of that back.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

from .columnar import column_to_arrow
from .columns import LOCATION, EventTable
from .listing import comms_of
from .made import FIELD, ORDER
from .recording import Recording

if TYPE_CHECKING:
    import pyarrow as pa

_HIDDEN = "common_"
_TEXTS = ("char[]", "const char[]")


class EventFrame:
    """The events of some tables of a recording, in time order."""

    def __init__(self, recording: Recording, tables: Sequence[int]) -> None:
        self.recording = recording
        self.tables = list(tables)

    @cached_property
    def places(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Place in time order of each row."""
        if len(self.tables) == 1:
            return np.asarray(self.recording.positions[self.tables[0]], np.int64)
        return np.flatnonzero(np.isin(self.recording.event, self.tables))

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as mappings."""
        for batch in self.to_arrow().to_batches():
            yield from batch.to_pylist()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.to_arrow().column_names)

    def __getitem__(self, name: str) -> Any:
        """A column as a NumPy array; nulls make it one of objects, or of NaN. KeyError."""
        return self.to_arrow().column(name).to_numpy()

    def to_arrow(self) -> pa.Table:
        """An Arrow table."""
        return self._arrow

    def to_pandas(self) -> Any:
        """A pandas data frame (pandas has to be installed)."""
        return self._arrow.to_pandas()

    def to_polars(self) -> Any:
        """A polars data frame (polars has to be installed)."""
        polars: Any = importlib.import_module("polars")
        return polars.from_arrow(self._arrow)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write a Parquet file. RecordingError for a bad place."""
        import pyarrow.parquet as pq

        try:
            pq.write_table(self._arrow, Path(path))
        except OSError as error:
            raise RecordingError(f"{os.fspath(path)}: {error.strerror or error}") from error

    @cached_property
    def _arrow(self) -> pa.Table:
        import pyarrow as pa

        recording, places = self.recording, self.places
        pids, which = np.unique(recording.pid[places], return_inverse=True)
        names = pa.array(comms_of(recording, pids), pa.string()).take(pa.array(which.reshape(-1)))
        columns: dict[str, Any] = {
            "time": pa.array(recording.time[places]),
            "cpu": pa.array(recording.cpu[places]),
            "pid": pa.array(recording.pid[places]),
            "comm": names,
        }
        if len(self.tables) == 1:
            return pa.table(columns | _fields(recording.tables[self.tables[0]]))
        kinds = [f"{table.system}:{table.name}" for table in recording.tables]
        short = [table.name for table in recording.tables]
        labels = [name if short.count(name) == 1 else kind for name, kind in zip(short, kinds, strict=True)] or [""]
        columns["event"] = pa.array(labels).take(pa.array(recording.event[places].astype(np.int64)))
        return pa.table(columns | self._union(labels))

    def _union(self, labels: list[str]) -> dict[str, Any]:
        """Every field of every kind, null where a row's event does not have it."""
        import pyarrow as pa

        parts = {number: _fields(self.recording.tables[number]) for number in self.tables}
        kinds: dict[str, list[tuple[int, Any]]] = {}
        for number, fields in parts.items():
            for name, column in fields.items():
                kinds.setdefault(name, []).append((number, column))
        at = np.full(self.recording.events, -1, np.int64)
        at[self.places] = np.arange(len(self.places))
        out: dict[str, Any] = {}
        for name, holders in kinds.items():
            common = _common_type([column.type for _, column in holders])
            groups = (
                [(name, holders)]
                if common is not None
                else [(f"{labels[number]}.{name}", [(number, column)]) for number, column in holders]
            )
            for label, members in groups:
                joined = pa.concat_arrays([column.cast(common) if common is not None else column for _, column in members])
                index = np.full(len(self.places), -1, np.int64)
                start = 0
                for number, column in members:
                    index[at[self.recording.positions[number]]] = np.arange(start, start + len(column))
                    start += len(column)
                out[label] = joined.take(pa.array(index, mask=index < 0))
        return out


def _common_type(types: list[Any]) -> Any:
    """What all of these can be, None: nothing."""
    import pyarrow as pa

    if all(kind == types[0] for kind in types):
        return types[0]
    if all(pa.types.is_integer(kind) for kind in types):
        if all(pa.types.is_unsigned_integer(kind) for kind in types):
            return max(types, key=lambda kind: kind.bit_width)
        return None if any(kind == pa.uint64() for kind in types) else pa.int64()
    return None


def _fields(table: EventTable) -> dict[str, Any]:
    """An event's own columns."""
    return {
        (FIELD + name if name in ORDER else name): _column(table, name) for name in table.fields if not name.startswith(_HIDDEN)
    }


def _column(table: EventTable, name: str) -> Any:
    import pyarrow as pa

    column = table.fields[name]
    spec = table.fmt.field(name) if table.fmt is not None else None
    if column.dtype == LOCATION and (spec is None or spec.c_type not in _TEXTS):
        return column_to_arrow(table, name)
    if not table.has_strings(name):
        return column_to_arrow(table, name)
    raw = pa.array(table.strings(name), pa.binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode("utf-8", "backslashreplace") for text in raw.to_pylist()], pa.string())
