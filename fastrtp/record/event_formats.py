"""EventFormats: the `format` files of a whole kernel: what the records of its events look like, by name and by id.

The shipped ones are Debian's Linux 6.1. Parsed one at a time, when asked for.
`python -m fastrtp.record.event_formats SRC` makes the shipped file from a text of "== system/name" headings and format files.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastrtp.errors import RecordingError
from fastrtp.once import once

from .event_format import EventFormat, parse_event_format

DEFAULT_FORMATS = Path(__file__).parent / "data" / "event-formats-6.1.txt.zst"
_HEADING = re.compile(r"^== (\w+)/(\w+)\n", re.MULTILINE)
_ID = re.compile(r"^ID: (\d+)$", re.MULTILINE)


class EventFormats(Mapping[str, EventFormat]):
    """Formats by event name (unique in a kernel)."""

    def __init__(self, text: str) -> None:
        parts = _HEADING.split(text)
        self._texts = {name: (system, body) for system, name, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)}
        self._parsed: dict[str, EventFormat] = {}

    def __getitem__(self, name: str) -> EventFormat:
        parsed = self._parsed.get(name)
        if parsed is None:
            system, body = self._texts[name]
            parsed = self._parsed[name] = parse_event_format(body, system)
        return parsed

    def __contains__(self, name: object) -> bool:
        return name in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def text(self, name: str) -> str:
        """The format file itself. KeyError."""
        return self._texts[name][1]

    @functools.cached_property
    def ids(self) -> Mapping[int, str]:
        """Event name by id."""
        found = {name: _ID.search(body) for name, (_system, body) in self._texts.items()}
        return {int(match[1]): name for name, match in found.items() if match is not None}


@once
def default_formats() -> EventFormats:
    """The shipped ones. RecordingError for a damaged installation."""
    return EventFormats(unpack(DEFAULT_FORMATS.read_bytes()).decode())


def unpack(data: bytes) -> bytes:
    """The text of a zstd file. RecordingError."""
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError as error:
        raise RecordingError(f"event formats: {error}") from error


def make(source: Path, target: Path = DEFAULT_FORMATS) -> int:
    """Write the shipped file from a text, plain or zstd; how many formats. RecordingError when one of them cannot be parsed."""
    import zstandard

    data = source.read_bytes()
    text = (unpack(data) if source.suffix == ".zst" else data).decode()
    formats = EventFormats(text)
    for name in formats:
        _ = formats[name]
    target.write_bytes(zstandard.ZstdCompressor(level=22, write_checksum=True).compress(text.encode()))
    return len(formats)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m fastrtp.record.event_formats SRC")
    print(f"{make(Path(sys.argv[1]))} formats in {DEFAULT_FORMATS}")
