"""Entries on disk, named by a digest of what they were made from and by: the mechanism of every cache of the package.

What a thing was made from is its key; what it was made by is the cache's affair (`fastrtp.provenance.made_by`), so that no key
can forget it: to other sources, or other versions of the tools, an entry does not exist.

An entry is a file: a line of JSON (the caller's facts, and a checksum over its name, them and the body), then the body. An
entry that is damaged, changed or under another's name counts as absent. Writing is atomic, so processes may share a folder;
the least recently used entries go when it outgrows its bound. What a body means is the caller's affair, and so is checking it.

The folder is the user's own: compiled code is read from it, so nobody else may write there (`cache_folder`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastrtp.once import once

_TRIM_EVERY = 32
"""One put in so many looks at the whole folder."""
_MAX_HEAD = 1 << 20
_FRESH = 3600.0
"""Seconds after which a use is noted again, and after which what a writer left half done is thrown away."""


def cache_folder() -> Path:
    """Where compiled code is kept: $FASTRTP_CACHE, $XDG_CACHE_HOME/fastrtp or ~/.cache/fastrtp; failing these a temporary one.

    A folder that is not ours alone to write gets one of ours inside.
    """
    named = os.environ.get("FASTRTP_CACHE")
    return _folder(named) if named else _folder(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "fastrtp")


@contextlib.contextmanager
def temporary_folder() -> Iterator[None]:
    """For measurements: within, the folder is one that is new and goes again. What is loaded from another stays loaded."""
    import tempfile

    held = os.environ.get("FASTRTP_CACHE")
    with tempfile.TemporaryDirectory(prefix="fastrtp-") as folder:
        os.environ["FASTRTP_CACHE"] = folder
        try:
            yield
        finally:
            os.environ.pop("FASTRTP_CACHE")
            if held is not None:
                os.environ["FASTRTP_CACHE"] = held


@once
def _folder(base: str, below: str = "") -> Path:
    own = f"fastrtp-{os.getuid()}" if hasattr(os, "getuid") else "fastrtp-user"
    wanted = Path(base, below).absolute()
    if _made(wanted):
        return wanted
    import tempfile

    found = next((folder for folder in (wanted / own, Path(tempfile.gettempdir()) / own) if _made(folder)), None)
    return found if found is not None else Path(tempfile.mkdtemp(prefix=f"{own}-"))


def _made(folder: Path) -> bool:
    """Whether the folder is there, made now if need be, and ours."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _is_ours(folder)
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    """Whether we may write there, and nobody else."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        status = folder.stat()  # a link: what it leads to has to be ours
    owned = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return owned and os.access(folder, os.W_OK | os.X_OK)


class EntryCache:
    """The entries `<prefix>-<maker>-<key><suffix>` in `folder`, at most about `max_bytes` together. Keys are hexadecimal digests.

    `made_by`: the version of whatever makes the entries (`fastrtp.provenance.made_by`).
    """

    def __init__(self, folder: Path, prefix: str, suffix: str, made_by: str, max_bytes: int = 64 << 20) -> None:
        self.folder = folder
        self._maker = hashlib.blake2b(made_by.encode(), digest_size=8).hexdigest()
        self.prefix = prefix
        self.suffix = suffix
        self.max_bytes = max_bytes
        self._stem = f"{folder}{os.sep}{prefix}-{self._maker}-"

    def get(self, key: str) -> tuple[dict[str, Any], bytes] | None:
        """Facts and body of an entry, or None when it is absent or damaged."""
        path = f"{self._stem}{key}{self.suffix}"
        try:
            with open(path, "rb") as file:
                used = os.fstat(file.fileno()).st_mtime
                row = json.loads(file.readline(_MAX_HEAD))
                body = file.read()
            facts = row["facts"]
            if row["checksum"] != self._checksum(key, facts, body):
                return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if time.time() - used > _FRESH:
            with contextlib.suppress(OSError):
                os.utime(path)
        return facts, body

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry, damaged or not."""
        return self.path(key).exists()

    def put(self, key: str, facts: Mapping[str, Any], body: bytes) -> None:
        """Store an entry; a folder that cannot be written, or is full, is no error."""
        head = json.dumps({"facts": facts, "checksum": self._checksum(key, facts, body)}).encode()
        try:
            write_whole(self.path(key), head + b"\n" + body)
            if int(key[:4], 16) % _TRIM_EVERY == 0:
                self.trim()
        except OSError:
            return

    def path(self, key: str) -> Path:
        """The entry's file."""
        return Path(f"{self._stem}{key}{self.suffix}")

    def _checksum(self, key: str, facts: Mapping[str, Any], body: bytes) -> str:
        digest = hashlib.sha256(json.dumps([self._maker, key, facts], sort_keys=True).encode() + b"\n")
        digest.update(body)
        return digest.hexdigest()

    def trim(self) -> None:
        """Remove the entries that were not used for longest until the rest is within the bound."""
        rows = []
        now = time.time()
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.name.endswith(_PART):
                        if now - entry.stat().st_mtime > _FRESH:
                            os.unlink(entry.path)
                    elif entry.name.startswith(f"{self.prefix}-") and entry.name.endswith(self.suffix):
                        status = entry.stat()
                        rows.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in rows)
        for _, size, path in sorted(rows):
            if total <= self.max_bytes:
                return
            with contextlib.suppress(OSError):
                os.unlink(path)
                total -= size


_PART = ".part"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that others see all of it or nothing; only its owner may read it. OSError, and nothing is left behind."""
    import tempfile

    number, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}-", suffix=_PART)
    try:
        with open(number, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
