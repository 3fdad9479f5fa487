"""Tables of other libraries, and files of tables, as columns by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastrtp.errors import RecordingError


def columns_of(table: Any) -> Mapping[str, Any]:
    """Columns of a mapping, an Arrow, pandas or polars table, or a .parquet, .arrow, .feather or .csv file. RecordingError."""
    if isinstance(table, (str, os.PathLike)):
        return columns_of(read_table(Path(table)))
    if isinstance(table, Mapping):
        return table
    for names in ("column_names", "columns"):
        if hasattr(table, names):
            return {str(name): table[name] for name in getattr(table, names)}
    raise RecordingError(f"a {type(table).__name__} is no table: columns by name, or an Arrow, pandas or polars table")


def read_table(path: Path) -> Any:
    """An Arrow table of a file, by what its name ends in. RecordingError."""
    import pyarrow as pa

    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return pa.parquet.read_table(path)
        if path.suffix in (".arrow", ".feather"):
            with pa.memory_map(str(path)) as source:
                return pa.ipc.open_file(source).read_all()
        if path.suffix == ".csv":
            import pyarrow.csv

            return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))
    except (pa.ArrowException, OSError) as error:
        raise RecordingError(f"{path}: {error}") from error
    raise RecordingError(f"{path}: the name of a table ends in .parquet, .arrow, .feather or .csv")


def listed(column: Any) -> list[Any]:
    """A column of any library as Python values."""
    for name in ("to_pylist", "to_list", "tolist"):
        if hasattr(column, name):
            return list(getattr(column, name)())
    return list(column)
