"""What a tree says beyond trace headers: inline functions, macros that stand for expressions or members, constants.

Headers of the whole kernel are searched once; those beside a trace header when its events ask. Text is looked at only where a
name is asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from pathlib import Path

from .cexpr import CSyntaxError, Expr, Name, parse, value_of
from .tokens import closing, tokenize, without_comments

_FUNCTION = re.compile(r"^(?:static|extern)\b[^;{}()#=]*\binline\b[^;{}()#=]*?\b(\w+)\s*\(([^;{}]*?)\)\s*\{", re.MULTILINE)
_ALWAYS = re.compile(r"^static\s+__always_inline\b[^;{}()#=]*?\b(\w+)\s*\(([^;{}]*?)\)\s*\{", re.MULTILINE)
_PLAIN = re.compile(r"^(?:static |const |struct |unsigned )*\w+[\w\s*]*?\b(\w+)\s*\(([^;{}()]*)\)\s*\{", re.MULTILINE)
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(\([^)\n]*\))?[ \t]+((?:[^\n\\]|\\\n|\\.)*)", re.MULTILINE)
_ENUM = re.compile(r"\benum\b[^;{}()=]*\{([^}]*)\}")
_MAX_BODY = 4000


class Index:
    """Of one tree. Folders are read when they are first asked about."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: dict[Path, _Definitions] = {}

    @cached_property
    def _common(self) -> _Definitions:
        files = [*(self.root / "include").rglob("*.h"), *(self.root / "arch/x86/include").rglob("*.h")]
        return _Definitions([path for path in files if "/trace/events/" not in path.as_posix()])

    def _beside(self, header: str) -> list[_Definitions]:
        folder = (self.root / header).parent
        found = [self._common]
        if "include/trace" in header:
            system = Path(header).stem
            places = [self.root / name / system for name in ("fs", "net", "drivers", "kernel", "drivers/gpu", "drivers/net")]
            places += [self.root / name for name in _EXTRA.get(system, ())]
            found += [self._folder(place) for place in places if place.is_dir()]
        else:
            found.insert(0, self._folder(folder))
            if (folder.parent / "Makefile").exists() and folder.parent not in (
                self.root,
                self.root / "drivers",
                self.root / "fs",
            ):
                found.append(self._folder(folder.parent))
        return found

    def _folder(self, folder: Path) -> _Definitions:
        if folder not in self._folders:
            files = [*folder.glob("*.h"), *folder.glob("include/*.h"), *folder.glob("libxfs/*.h"), *folder.glob("*.c")]
            self._folders[folder] = _Definitions(files)
        return self._folders[folder]

    def functions(self, name: str, header: str) -> list[tuple[list[str], list[str]]]:
        """(parameters, tokens of the body) of each definition of an inline function."""
        return [found for place in self._beside(header) for found in place.functions(name)]

    def macro(self, name: str, header: str) -> list[tuple[list[str] | None, list[str]]]:
        """(parameters or None, tokens) of each definition of a macro."""
        return [found for place in self._beside(header) for found in place.macros(name)]

    def constant(self, name: str, header: str) -> int | None:
        """What a macro or an enumerator is worth, where it is a number."""
        return self._constant(name, header, 0)

    def _constant(self, name: str, header: str, depth: int) -> int | None:
        if depth > 8 or name == "NULL":
            return 0 if name == "NULL" else None

        def leaf(expr: Expr) -> int | None:
            return self._constant(expr.name, header, depth + 1) if isinstance(expr, Name) else None

        for params, body in self.macro(name, header):
            if params is None and body:
                try:
                    value = value_of(parse(body), leaf)
                except (CSyntaxError, OverflowError):
                    continue
                if value is not None:
                    return value
        return next((value for place in self._beside(header) if (value := place.enumerator(name)) is not None), None)


_EXTRA = {
    "block": ("block",), "writeback": ("fs", "mm"), "kmem": ("mm",), "vmscan": ("mm",), "compaction": ("mm",),
    "sched": ("kernel/sched",), "tcp": ("net/ipv4",), "sock": ("net/core",), "cgroup": ("kernel/cgroup",),
    "irq": ("kernel/irq",), "workqueue": ("kernel",), "mmflags": ("mm",), "filelock": ("fs",), "btrfs": ("fs/btrfs",),
    "rxrpc": ("net/rxrpc",), "scsi": ("drivers/scsi",), "thp": ("mm",), "rpcrdma": ("net/sunrpc/xprtrdma",),
    "sunrpc": ("net/sunrpc",), "rpcgss": ("net/sunrpc/auth_gss",), "cachefiles": ("fs/cachefiles",), "mptcp": ("net/mptcp",),
    "bcache": ("drivers/md/bcache",), "netfs": ("fs/netfs",), "erofs": ("fs/erofs",), "f2fs": ("fs/f2fs",),
    "dma_fence": ("drivers/dma-buf",), "ufs": ("drivers/ufs/core",), "habanalabs": ("drivers/accel/habanalabs/common",),
}  # fmt: skip


class _Definitions:
    """What some files define."""

    def __init__(self, files: list[Path]) -> None:
        self._functions: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
        self._macros: dict[str, list[tuple[str | None, str]]] = defaultdict(list)
        self._enums: list[str] = []
        self._values: dict[str, int] | None = None
        for path in files:
            text = path.read_text(errors="replace")
            if len(text) > 2_000_000:
                continue
            source = without_comments(text)
            for pattern in (_FUNCTION, _ALWAYS, *((_PLAIN,) if path.suffix == ".c" else ())):
                for found in pattern.finditer(source):
                    if (found[1], found.end()) not in ((name[0], name[2]) for name in self._functions.get(found[1], ())):
                        self._functions[found[1]].append((found[2], source, found.end() - 1))
            for found in _MACRO.finditer(source):
                self._macros[found[1]].append((found[2], found[3]))
            self._enums += _ENUM.findall(source)

    def functions(self, name: str) -> list[tuple[list[str], list[str]]]:
        found = []
        for params, source, start in self._functions.get(name, ()):
            tokens = tokenize(source[start : start + _MAX_BODY])
            end = closing(tokens, 0)
            if end < len(tokens):
                names = [(tokenize(piece) or [""])[-1] for piece in params.split(",")]
                found.append(([] if names == ["void"] else names, [token for token in tokens[1:end] if token != "\\"]))
        return found

    def macros(self, name: str) -> list[tuple[list[str] | None, list[str]]]:
        return [
            (None if params is None else [part.strip() for part in params[1:-1].split(",")], tokenize(body.replace("\\\n", " ")))
            for params, body in self._macros.get(name, ())
        ]

    def enumerator(self, name: str) -> int | None:
        if self._values is None:
            self._values = {}
            for body in self._enums:
                self._enumerate(body, self._values)
        return self._values.get(name)

    @staticmethod
    def _enumerate(body: str, values: dict[str, int]) -> None:
        following: int | None = 0
        for item in body.split(","):
            name, _, text = item.strip().partition("=")
            if not name.strip().isidentifier():
                following = None
                continue
            if text:
                try:
                    following = value_of(
                        parse(tokenize(text)), lambda leaf: values.get(leaf.name) if isinstance(leaf, Name) else None
                    )
                except (CSyntaxError, OverflowError):
                    following = None
            if following is not None:
                values.setdefault(name.strip(), following)
                following += 1
