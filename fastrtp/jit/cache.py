"""The object-code cache: objects on disk, named by the text that they were compiled from.

An entry is `program-<key>.o`: a line of JSON (the symbols it wants, its length and checksum) and the object. A damaged
entry counts as absent. Writing is atomic, so two processes may share the folder; the oldest entries go when it outgrows
its bound.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 64 << 20
_PATTERN = "program-*.o"


@dataclass(frozen=True)
class CachedObject:
    """An object and the external symbols that it names."""

    code: bytes
    symbols: tuple[str, ...]


class ObjectCache:
    """The entries in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str) -> CachedObject | None:
        """The entry, or None when it is absent or damaged."""
        path = self._path(key)
        try:
            head, _, code = path.read_bytes().partition(b"\n")
            row = json.loads(head)
            if row["size"] != len(code) or row["sha256"] != hashlib.sha256(code).hexdigest():
                return None
            symbols = tuple(str(symbol) for symbol in row["symbols"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return CachedObject(code, symbols)

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return self._path(key).exists()

    def put(self, key: str, entry: CachedObject) -> None:
        """Store an entry; a folder that cannot be written is no error."""
        row = {"size": len(entry.code), "sha256": hashlib.sha256(entry.code).hexdigest(), "symbols": entry.symbols}
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".program-", delete=False) as part:
                part.write(json.dumps(row).encode() + b"\n" + entry.code)
            Path(part.name).replace(self._path(key))
            self._trim()
        except OSError:
            return

    def _path(self, key: str) -> Path:
        return self.folder / f"program-{key}.o"

    def _trim(self) -> None:
        rows = []
        for path in self.folder.glob(_PATTERN):
            with contextlib.suppress(OSError):
                status = path.stat()
                rows.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in rows)
        for _, size, path in sorted(rows):
            if total <= MAX_BYTES:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
