"""Entries on disk, named by a digest of what they were made from: the mechanism of every cache of the package.

An entry is a file: a line of JSON (the caller's facts, the length and checksum of the body), then the body. A damaged
entry counts as absent. Writing is atomic, so processes may share a folder; the least recently used entries go when it
outgrows its bound. What a body means is the caller's affair, and so is checking it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TRIM_EVERY = 16
"""One put in so many looks at the whole folder."""


class EntryCache:
    """The entries `<prefix>-<key><suffix>` in `folder`, at most about `max_bytes` together. Keys are hexadecimal digests."""

    def __init__(self, folder: Path, prefix: str, suffix: str, max_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self.prefix = prefix
        self.suffix = suffix
        self.max_bytes = max_bytes

    def get(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """Facts and body of an entry, or None when it is absent or damaged."""
        path = self.path(key)
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            row = json.loads(head)
            if row["size"] != len(body) or row["sha256"] != hashlib.sha256(body).hexdigest():
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return row, body

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return self.path(key).exists()

    def put(self, key: str, facts: Mapping[str, Any], body: bytes) -> None:
        """Store an entry; a folder that cannot be written is no error."""
        row = {**facts, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=f".{self.prefix}-", delete=False) as part:
                part.write(json.dumps(row).encode() + b"\n" + body)
            Path(part.name).replace(self.path(key))
            if int(key[:4], 16) % _TRIM_EVERY == 0:
                self.trim()
        except OSError:
            return

    def path(self, key: str) -> Path:
        """The entry's file."""
        return self.folder / f"{self.prefix}-{key}{self.suffix}"

    def trim(self) -> None:
        """Remove the entries that were not used for longest until the rest is within the bound."""
        rows = []
        for path in self.folder.glob(f"{self.prefix}-*{self.suffix}"):
            with contextlib.suppress(OSError):
                status = path.stat()
                rows.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in rows)
        for _, size, path in sorted(rows):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
