"""`fastrtp events`: the events of a recording as lines, or as a table for other tools."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.recordings import open_recording
from fastrtp.cli.selection import Selection, selection_options

if TYPE_CHECKING:
    from fastrtp.record import Recording

_LINES = 1 << 12


@click.command("events", short_help="Print the events of a recording, or write them as a table.")
@click.argument("recording", type=click.Path(path_type=Path))
@selection_options
@click.option(
    "--format", "form", type=click.Choice(["text", "csv", "jsonl", "parquet", "arrow"]), default="text", show_default=True,
    help="text: lines as trace-cmd report prints them. The others are tables of the fields; jsonl: a JSON object a line.",
)  # fmt: skip
@click.option("--top", type=click.IntRange(min=0), default=0, metavar="N", help="Only the first N events. [default: all]")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file.")
@click.option("--instance", metavar="NAME", help="One of the file's trace instances, '' the top one.")
def events_command(recording: Path, form: str, top: int, output: Path | None, instance: str | None, selection: Selection) -> None:
    """Print the events of a RECORDING.

    Control characters in names and texts are escaped in text, whatever a recording holds.
    """
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise click.UsageError("parquet goes to a file: --output FILE")
    opened = selection.of(open_recording(recording, instance))
    if form == "text":
        _write_lines(opened, top, output)
    else:
        _write_table(opened, form, top, output)


def _write_lines(recording: Recording, top: int, output: Path | None) -> None:
    from fastrtp.record.listing import Listing

    lines = Listing(recording).lines(0, top or None)
    with output.open("w") if output is not None else _Borrowed(sys.stdout) as out:
        while block := list(islice(lines, _LINES)):
            out.write("\n".join(block) + "\n")


def _write_table(recording: Recording, form: str, top: int, output: Path | None) -> None:
    import pyarrow as pa

    frame = recording.events().to_arrow()
    if top:
        frame = frame.slice(0, top)
    with output.open("wb") if output is not None else _Borrowed(sys.stdout.buffer) as out:
        if form == "csv":
            import pyarrow.csv

            pa.csv.write_csv(_flat(frame), out)
        elif form == "parquet":
            import pyarrow.parquet

            pa.parquet.write_table(frame, out)
        elif form == "arrow":
            with pa.ipc.new_stream(out, frame.schema) as writer:
                writer.write_table(frame)
        else:
            for batch in frame.to_batches(max_chunksize=_LINES):
                for row in batch.to_pylist():
                    out.write(
                        json.dumps({key: _plain(value) for key, value in row.items() if value is not None}).encode() + b"\n"
                    )


def _flat(frame: Any) -> Any:
    """Without nested columns and bytes, which CSV has no way to write."""
    import pyarrow as pa

    for place, field in enumerate(frame.schema):
        if pa.types.is_nested(field.type) or pa.types.is_large_binary(field.type) or pa.types.is_binary(field.type):
            texts = [None if value is None else _text(value) for value in frame.column(place).to_pylist()]
            frame = frame.set_column(place, field.name, pa.array(texts, pa.string()))
    return frame


def _text(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else " ".join(map(str, value))


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


class _Borrowed:
    """A stream that is not ours to close."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> Any:
        return self.stream

    def __exit__(self, *_: object) -> None:
        self.stream.flush()
