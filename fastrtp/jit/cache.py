"""The object-code cache: objects on disk, named by the key of what they were compiled from (`program-<key>.o`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastrtp.entry_cache import EntryCache


@dataclass(frozen=True)
class CachedObject:
    """An object and the external symbols that it names."""

    code: bytes
    symbols: tuple[str, ...]


class ObjectCache:
    """The objects in `folder` that were made by this toolchain (`key.toolchain`)."""

    def __init__(self, folder: Path, toolchain: str) -> None:
        self._entries = EntryCache(folder, "program", ".o", toolchain)

    def get(self, key: str) -> CachedObject | None:
        """The object, or None when it is absent or damaged."""
        found = self._entries.get(key)
        if found is None:
            return None
        symbols = found[0].get("symbols")
        if not isinstance(symbols, list):
            return None
        return CachedObject(found[1], tuple(str(symbol) for symbol in symbols))

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return key in self._entries

    def put(self, key: str, entry: CachedObject) -> None:
        """Store an object; a folder that cannot be written is no error."""
        self._entries.put(key, {"symbols": entry.symbols}, entry.code)
