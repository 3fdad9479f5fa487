"""The native library in use: found in the cache or built once, loaded without numba or LLVM.

`library()` gives its functions as Python callables (they run without the GIL), its addresses as symbols for the
programs' objects, and its bitcode to inline from. The cache key covers all that native modules and their build import, its
packages (`fastrtp.provenance`) and the processor, so a stale library is never loaded; a damaged or changed one is built again.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fastrtp.entry_cache import cache_folder
from fastrtp.errors import JitError
from fastrtp.native import host
from fastrtp.native.module import NativeModule
from fastrtp.native.process import PROCESS
from fastrtp.native.progress import BuildLine
from fastrtp.once import once
from fastrtp.provenance import PACKAGE

__all__ = ["NativeLibrary", "cache_folder", "ensure_built", "extension", "is_built", "key", "library", "load", "native_modules"]

Progress = Callable[[int, int, str], None]

_KEPT_LIBRARIES = 4
_BUILD = "fastrtp.native.build"


def native_modules() -> list[str]:
    """Names of the package's modules with native functions, sorted."""
    start = len(str(PACKAGE.parent)) + 1
    return sorted(
        f"{folder[start:].replace(os.sep, '.')}.{name.removesuffix('.py')}"
        for folder, _, names in os.walk(PACKAGE)
        for name in names
        if name.endswith("_native.py")
    )


@once
def key() -> str:
    """Name of the library that fits these sources, versions and this processor."""
    return host.made_by(*native_modules(), _BUILD)[:20]


class NativeLibrary:
    """A loaded library. `symbols`: address by function name; `bitcode_path`: the file of the bodies that programs may inline;
    `uses`: what each function asks of a run (`fastrtp.native.uses.uses`).

    Given `symbols` are what it may use: the flag for several CPUs and, of the main library, what an extension calls. JitError,
    OSError, ValueError, KeyError for damaged files.
    """

    def __init__(self, folder: Path, stem: str, symbols: Mapping[str, int]) -> None:
        manifest = json.loads((folder / f"{stem}.json").read_text())
        functions = manifest["functions"]
        self.key = stem
        self.bitcode_path = (folder / f"{stem}.bc").resolve(strict=True)
        self.parameters: dict[str, tuple[str, ...]] = {name: tuple(row["parameters"]) for name, row in functions.items()}
        self.inline = frozenset(name for name, row in functions.items() if row["inline"])
        self.uses = {name: frozenset(row["uses"]) for name, row in functions.items()}
        given = dict(symbols)
        parts = {suffix: (folder / f"{stem}.{suffix}").read_bytes() for suffix in ("bc", *manifest["objects"])}
        for suffix, data in parts.items():
            if hashlib.sha256(data).hexdigest() != manifest["sha256"][suffix]:
                raise JitError(f"{folder / stem}.{suffix} is damaged")
        self.symbols: dict[str, int] = {}
        self._modules = []
        for suffix, names in manifest["objects"].items():
            module = NativeModule(parts[suffix], names, given, "native-library")
            self._modules.append(module)
            self.symbols |= module.addresses
            given |= module.addresses

    def __getattr__(self, name: str) -> Callable[..., int]:
        """The function `name` over Python ints (int64, wrapping); it releases the GIL while it runs."""
        parameters = self.__dict__.get("parameters", {})
        if name not in parameters:
            raise AttributeError(f"the native library has no function {name}")
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(parameters[name]))
        function = prototype(self.symbols[name])
        self.__dict__[name] = function
        return function


def is_built() -> bool:
    """Whether the cache has a library that fits."""
    return (cache_folder() / f"native-{key()}.json").exists()


def ensure_built(progress: Progress | None = None) -> None:
    """Build the library unless the cache has it. `progress(done, total, name)` is called for each step; None: at a
    terminal, a line on standard error.
    """
    if not is_built():
        _run_build(f"native-{key()}", [], progress)
        _drop_old(cache_folder(), f"native-{key()}")


def _run_build(stem: str, widths: list[str], progress: Progress | None = None) -> None:
    """Run the building process, unless another process has just built the same. JitError with its last words when it fails."""
    import subprocess
    import tempfile

    if progress is None:
        with BuildLine() as shown:
            _run_build(stem, widths, shown)
        return
    folder = cache_folder()
    command = [sys.executable, "-m", _BUILD, str(folder), stem, str(os.getpid()), *widths]
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    with _alone(folder / f"{stem}.lock"), tempfile.TemporaryFile("w+") as errors:
        if (folder / f"{stem}.json").exists():
            return
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
            assert process.stdout is not None
            for done, line in enumerate(process.stdout, 1):
                total, _, name = line.strip().partition(" ")
                if total.isdigit():
                    progress(done, int(total), name)
        if process.returncode:
            errors.seek(0)
            tail = errors.read().strip().splitlines()[-6:]
            raise JitError("the native library could not be built: " + " | ".join(tail))


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time. Where files cannot be locked, all at once: each writes whole files, and the same."""
    try:
        import fcntl

        file = path.open("w")
    except (ImportError, OSError):
        yield
        return
    with file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@once
def library() -> NativeLibrary:
    """The library, built first if need be: one a process."""
    return PROCESS.library(f"native-{key()}")


def extension(name: str, widths: tuple[str, ...]) -> NativeLibrary:
    """A library of cast shims beyond those of the main one, built first if need be."""
    return PROCESS.library(f"native-{key()}-{name}", widths)


def load(stem: str, widths: list[str], symbols: Mapping[str, int]) -> NativeLibrary:
    """Load a library out of the cache, built first if need be. For `PROCESS`, which has one of each. JitError."""
    folder = cache_folder()
    manifest = folder / f"{stem}.json"
    if manifest.exists():
        try:
            found = NativeLibrary(folder, stem, symbols)
        except (OSError, ValueError, KeyError, TypeError, JitError):  # damaged in the cache: once more from the sources
            manifest.unlink(missing_ok=True)
        else:
            with contextlib.suppress(OSError):
                if time.time() - manifest.stat().st_mtime > 86400:
                    os.utime(manifest)  # in use: not one of the old ones
            return found
    _run_build(stem, widths)
    if not widths:
        _drop_old(folder, stem)
    return NativeLibrary(folder, stem, symbols)


def _drop_old(folder: Path, stem: str) -> None:
    """Keep the newest libraries: branches and versions take turns, but the cache stays small."""
    mains = [path for path in folder.glob("native-*.json") if path.stem.count("-") == 1]
    for manifest in sorted(mains, key=lambda path: path.stat().st_mtime)[:-_KEPT_LIBRARIES]:
        if manifest.stem != stem:
            for old in folder.glob(f"{manifest.stem}*"):
                old.unlink(missing_ok=True)
