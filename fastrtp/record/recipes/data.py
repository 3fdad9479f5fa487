"""Recipes as data files have them: what the source of one kernel says of its events, read by fastrtp/record/invert.

A file is JSON, compressed with zstd: {"kernel", "classes": [{"args": [[type, name]...], "fields": {field: what it tells}}],
"events": [[system, name, class, args or null]...]}. What a field tells is one text `path|operation|...`, several of them, ""
for a constant, "?why" where nothing could be turned around, or these by part of the field. solve.py lists the operations.

Where files come from: those of the package; `FASTRTP_RECIPES` (files, or folders of them, a path list), which come first; rows
that were added in Python (`add`), which come before all.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from fastrtp.errors import RecordingError

SUFFIX = ".recipes.zst"
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Told:
    """What a field (`part` "") or a part of it tells: start with its value, do `ops`, and it is what `path` held."""

    field: str
    part: str
    path: str
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event of one kernel. `args`: (type, name) in TP_PROTO order; `names`: what paths begin with, in the same order.

    `fields`: all that it records; `left`: why a field tells nothing.
    """

    kernel: str
    system: str
    name: str
    args: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    fields: frozenset[str]
    told: tuple[Told, ...]
    left: Mapping[str, str]


class RecipeFile:
    """One file, whose rows are made when they are asked for."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.kernel = str(content["kernel"])
        self._classes = content["classes"]
        self._events: dict[str, list[list[Any]]] = defaultdict(list)
        for event in content["events"]:
            self._events[event[1]].append(event)

    def __len__(self) -> int:
        return len(self._events)

    def names(self) -> Iterable[str]:
        """Every event."""
        return self._events.keys()

    def rows(self, name: str) -> list[EventRow]:
        """The events of a name; several where different systems have one."""
        return [self._row(*event) for event in self._events.get(name, ())]

    def _row(self, system: str, name: str, number: int | None, args: list[list[str]] | None) -> EventRow:
        shared: Mapping[str, Any] = self._classes[number] if number is not None else {"args": args or [], "fields": {}}
        given = args if args is not None else shared["args"]
        names = tuple(arg[1] for arg in shared["args"])
        left: dict[str, str] = {}
        told = tuple(item for field, value in shared["fields"].items() for item in _told(field, value, left))
        types = tuple((arg[0], arg[1]) for arg in given)
        return EventRow(self.kernel, system, name, types, names, frozenset(shared["fields"]), told, left)


def _told(field: str, value: Any, left: dict[str, str]) -> Iterable[Told]:
    parts = value if isinstance(value, dict) else {"": value}
    for part, texts in parts.items():
        for text in [texts] if isinstance(texts, str) else texts:
            if text.startswith("?"):
                left[field] = text[1:]
            elif text:
                path, *ops = text.split("|")
                yield Told(field, part, path, tuple(ops))


def dump(content: Mapping[str, Any]) -> bytes:
    """A file's bytes."""
    import zstandard

    text = json.dumps(content, separators=(",", ":"), sort_keys=False)
    return zstandard.ZstdCompressor(level=19).compress(text.encode())


def load(data: bytes, source: str) -> RecipeFile:
    """Read a file's bytes. RecordingError names the file."""
    import zstandard

    try:
        return RecipeFile(json.loads(zstandard.ZstdDecompressor().decompress(data, max_output_size=1 << 28)))
    except (ValueError, KeyError, TypeError, IndexError, zstandard.ZstdError) as error:
        raise RecordingError(f"{source}: no file of recipes: {error}") from error


_added: dict[str, list[EventRow]] = {}


def add(event: str, proto: str, **fields: str) -> None:
    """A recipe of one's own, before all others: `add("my_event", "struct sk_buff *skb, int rc", skbaddr="skb", len="skb->len")`.

    `fields`: for each recorded field what it tells, in the words of the data files; several with a space between them.
    """
    args = tuple(_arg(text) for text in proto.split(",") if text.strip())
    told = tuple(
        item for field, texts in fields.items() for item in _told(field, texts.split() if "|" not in texts else [texts], {})
    )
    names = tuple(name for _, name in args)
    _added[event] = [EventRow("added", "", event, args, names, frozenset(fields), told, {})]


def is_added(event: str) -> bool:
    """Whether `add` was called for an event."""
    return event in _added


def forget(event: str) -> None:
    """Take an added recipe away. KeyError where there is none."""
    del _added[event]


def _arg(text: str) -> tuple[str, str]:
    found = re.match(r"\s*(.*?)(\w+)\s*$", text)
    if found is None or not found[1].strip():
        raise RecordingError(f"{text.strip()!r} is not a type and a name")
    return found[1].strip(), found[2]


def files() -> list[RecipeFile]:
    """Every file, the user's first."""
    return [*_of_user(os.environ.get("FASTRTP_RECIPES", "")), *_shipped()]


@cache
def _shipped() -> list[RecipeFile]:
    folder = resources.files("fastrtp.record") / "data"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(SUFFIX))
    return [load((folder / name).read_bytes(), name) for name in names]


@cache
def _of_user(text: str) -> list[RecipeFile]:
    found = []
    for part in text.split(os.pathsep):
        path = Path(part)
        paths = sorted(path.glob(f"*{SUFFIX}")) if part and path.is_dir() else [path] if part else []
        found += [load(item.read_bytes(), str(item)) for item in paths]
    return found


def rows(name: str, kernel: str = "") -> list[EventRow]:
    """All that is known of an event, the likeliest first: added rows, the user's, then by distance from the version `kernel`."""
    wanted = _number(kernel)
    user = _of_user(os.environ.get("FASTRTP_RECIPES", ""))
    near = sorted(_shipped(), key=lambda item: abs(_number(item.kernel) - wanted) if wanted else -_number(item.kernel))
    return [*_added.get(name, ()), *(row for item in [*user, *near] for row in item.rows(name))]


def _number(version: str) -> int:
    found = _VERSION.search(version)
    return int(found[1]) * 100 + int(found[2]) if found else 0
