"""Who made it: the version of whatever makes things that are kept, found from its sources. A part of every key of a cache.

A thing that is kept (a verdict, a compiled program, the native library, an index) is as good as the code that made it.
`made_by` names that code: the modules of the package that a maker takes names from, however indirectly and wherever in its
text, and the versions of Python and of the other packages that they import. Changed sources are another maker, others that it
does not import are not; nobody keeps a list.

What a module imports is read from its text, and kept in the user's cache beside the time and number of its file: a process
looks at some two hundred files' dates, and reads none.

Must not know: what is made, and the processor that it is made for (native/host.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from fastrtp.entry_cache import EntryCache, cache_folder
from fastrtp.once import once

PACKAGE = Path(__file__).resolve().parent

_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#;]+)|import[ \t]+([^\n#;]+))", re.MULTILINE)
_FOR_TYPES = re.compile(r"^if TYPE_CHECKING:[^\n]*\n(?:[ \t]+[^\n]*\n|[ \t]*\n)+", re.MULTILINE)
_NAME = re.compile(r"([\w.]+|\*)(?:\s+as\s+(\w+))?$")
_COMMENT = re.compile(r"#[^\n]*")
_SETTLED_NS = 2_000_000_000
"""Age from which on a file's date tells it from what is written into it next."""


class Import(NamedTuple):
    """`from module import name as here`; without a name `import module`. "*": all names."""

    module: str
    name: str
    here: str


class Source(NamedTuple):
    """A module's text: its digest, and what it imports when it runs (not what type checkers alone import).

    `imports`: module -> [its name there, the name here] of each name that is taken.
    """

    digest: str
    imports: dict[str, list[list[str]]]


def imports(text: str, package: str) -> list[Import]:
    """What the text of a module of `package` ("fastrtp.isa") imports anywhere, relative names made whole."""
    found: list[Import] = []
    for base, names, modules in _IMPORT.findall(_FOR_TYPES.sub("\n", text)):
        for part in _COMMENT.sub("", names or modules).strip("() \t\n").split(","):
            name = _NAME.match(part.strip())
            if name is None:  # the end of a list, or prose that begins like an import
                continue
            if modules:
                found.append(Import(name[1], "", name[2] or name[1].partition(".")[0]))
            else:
                found.append(Import(_absolute(base, package), name[1], name[2] or name[1]))
    return found


def _absolute(module: str, package: str) -> str:
    level = len(module) - len(module.lstrip("."))
    if not level:
        return module
    base = package.split(".")
    return ".".join([*base[: len(base) - level + 1], *filter(None, [module[level:]])])


class Sources:
    """The modules of a package at `root`. What was read of a file is remembered in `cache` as long as the file is the same."""

    def __init__(self, root: Path, cache: EntryCache | None = None) -> None:
        self.root = root
        self.name = root.name
        self._cache = cache
        self._key = hashlib.blake2b(str(root).encode(), digest_size=16).hexdigest()
        self._kept: dict[str, Any] | None = None
        self._read: dict[str, Source] = {}
        self._paths: dict[str, str] = {}
        self._folders: dict[str, frozenset[str]] = {}
        self._changed_ns: dict[str, int] = {}
        self._new = False

    def path(self, module: str) -> str:
        """A module's file below the root, "" for what is no module of the package."""
        known = self._paths.get(module)
        if known is None:
            head, _, rest = module.partition(".")
            folder, _, last = rest.rpartition(".")
            folder = folder.replace(".", "/")
            known = ""
            if head == self.name and not rest:
                known = "__init__.py"
            elif head == self.name and f"{last}.py" in self._names(folder):
                known = f"{folder}/{last}.py".lstrip("/")
            elif head == self.name and last in self._names(folder) and "__init__.py" in self._names(f"{folder}/{last}"):
                known = f"{folder}/{last}/__init__.py".lstrip("/")
            self._paths[module] = known
        return known

    def _names(self, folder: str) -> frozenset[str]:
        """What is in a folder."""
        known = self._folders.get(folder)
        if known is None:
            try:
                known = frozenset(os.listdir(f"{self.root}/{folder}"))
            except OSError:
                known = frozenset()
            self._folders[folder] = known
        return known

    def read(self, path: str) -> Source:
        """What a file says. OSError."""
        found = self._read.get(path)
        if found is None:
            status = os.stat(f"{self.root}/{path}")
            stamp = [status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino]
            self._changed_ns[path] = status.st_ctime_ns
            row = self._memory().get(path)
            if row is not None and row[0] == stamp:
                found = Source(row[1], row[2])
            else:
                data = (self.root / path).read_bytes()
                names: dict[str, list[list[str]]] = {}
                for one in dict.fromkeys(imports(data.decode(), ".".join([self.name, *path.split("/")[:-1]]))):
                    names.setdefault(one.module, []).append([one.name, one.here])
                found = Source(hashlib.blake2b(data, digest_size=16).hexdigest(), names)
                self._memory()[path] = [stamp, found.digest, names]
                self._new = True
            self._read[path] = found
        return found

    def changed(self, paths: Iterable[str]) -> float:
        """When the last of these files, which were read, was changed or put there: seconds of time.time()."""
        return max(self._changed_ns[path] for path in paths) / 1e9

    def _memory(self) -> dict[str, Any]:
        if self._kept is None:
            self._kept = {}
            entry = self._cache.get(self._key) if self._cache is not None else None
            if entry is not None:
                self._kept = json.loads(entry[1])
        return self._kept

    def keep(self) -> None:
        """Store what was read for the next process, but for files so young that another change might bear the same date."""
        if self._new and self._cache is not None:
            limit = time.time_ns() - _SETTLED_NS
            rows = {path: row for path, row in self._memory().items() if max(row[0][:2]) < limit}
            self._cache.put(self._key, {}, json.dumps(rows, separators=(",", ":")).encode())
            self._new = False

    def resolve(self, module: str, name: str) -> list[tuple[str, str]]:
        """(file, its name there) of what `from module import name` takes, looking through packages that only pass it on."""
        path = self.path(module)
        if not name or not path.endswith("__init__.py"):
            return [(path, name)] if path else []
        rows = self.read(path).imports
        passed = [
            (source, original)
            for source, names in rows.items()
            for original, here in names
            if here == name and (source, original) != (module, name)
        ]
        inner = self.path(f"{module}.{name}")
        if inner and not passed:
            return [(inner, "")]
        stars = [(source, "*") for source, names in rows.items() if ["*", "*"] in names]
        found = [place for source, original in (passed or stars) for place in self.resolve(source, original)]
        return found if passed else [(path, name), *found]


class Closure(NamedTuple):
    """What modules import: files of the package, other packages, and where each name that a package passes on is from."""

    files: frozenset[str]
    others: frozenset[str]
    passed: frozenset[tuple[str, str, str, str]]


def closure(sources: Sources, roots: Iterable[str]) -> Closure:
    """All that these modules take names from, themselves included. ModuleNotFoundError for a root that there is not.

    The `__init__` of a package on the way, which Python runs too, is part of it only where a name is defined there: packages
    pass names on, and change nothing (which a test shows).
    """
    files: set[str] = set()
    others: set[str] = set()
    passed: set[tuple[str, str, str, str]] = set()
    pending = []
    for root in roots:
        path = sources.path(root)
        if not path:
            raise ModuleNotFoundError(f"no module {root} in {sources.root}")
        pending.append(path)
    while pending:
        path = pending.pop()
        if path in files:
            continue
        files.add(path)
        for module, names in sources.read(path).imports.items():
            inner = sources.path(module)
            if not inner:
                others.add(module.partition(".")[0])
            elif not inner.endswith("__init__.py"):
                pending.append(inner)
            else:
                for name, _ in names:
                    found = sources.resolve(module, name)
                    pending += [file for file, _ in found]
                    passed |= {(module, name, *place) for place in found}
    return Closure(frozenset(files), frozenset(others - sys.stdlib_module_names - {sources.name}), frozenset(passed))


def digest(sources: Sources, found: Closure) -> str:
    """Digest of a closure: contents of its files, versions of Python and of the other packages."""
    facts: list[str] = [sys.version]
    facts += [f"{path} {sources.read(path).digest}" for path in sorted(found.files)]
    facts += [" ".join(row) for row in sorted(found.passed)]
    facts += [f"{name} {package_version(name)}" for name in sorted(found.others)]
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=16).hexdigest()


@once
def package_version(name: str) -> str:
    """The version of an installed package, found without importing it; "" for one that is not there."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return ""
    if spec is None or spec.origin is None:
        return ""
    place = Path(spec.origin).parent
    for file in ("_version.py", "version.py"):
        try:
            return (place / file).read_text()
        except OSError:
            continue
    installed = [entry for entry in os.listdir(place.parent) if entry.startswith(f"{name}-") and entry.endswith(".dist-info")]
    if installed:
        return " ".join(sorted(installed))
    return Path(spec.origin).read_text(errors="replace")  # its distribution has another name: the module says it itself


def _process_start() -> float:
    """When this process began, in seconds of time.time(). Where /proc does not say, now: this module is among the first."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return time.time()


_START = _process_start()


@once
def _sources() -> Sources:
    own = hashlib.blake2b(Path(__file__).read_bytes() + sys.version.encode(), digest_size=16).hexdigest()
    return Sources(PACKAGE, EntryCache(cache_folder(), "sources", ".json", own, 4 << 20))


@once
def made_by(*roots: str) -> str:
    """Name of the present version of the modules `roots` and of all that makes them what they are (`closure`).

    Where a source is younger than this process, which may have read the one before it, the name is this process's own: what it
    makes is nobody else's.
    """
    sources = _sources()
    found = closure(sources, roots)
    name = digest(sources, found)
    sources.keep()
    if _START < sources.changed(found.files) <= time.time():
        name = hashlib.blake2b(f"{name} {os.getpid()} {_START}".encode(), digest_size=16).hexdigest()
    return name
