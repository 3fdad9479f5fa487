"""The native library in use: found in the cache or built once, loaded without numba.

`library()` gives its functions as Python callables (they run without the GIL), its addresses as symbols for the
programs' objects, and its bitcode to inline from. The cache key covers the sources of all native modules, the versions
of numba and llvmlite and the processor, so a stale library is never loaded.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from fastrtp.errors import JitError
from fastrtp.native import engine

Progress = Callable[[int, int, str], None]

_CONSTANTS = ("helpers/argtype.py", "verifier/reason.py", "verifier/regtype.py", "verifier/stacktype.py")
"""Other modules whose constants are compiled in."""


def cache_folder() -> Path:
    """Where compiled code is kept: $FASTRTP_CACHE, $XDG_CACHE_HOME/fastrtp or ~/.cache/fastrtp; failing these a temporary one."""
    named = os.environ.get("FASTRTP_CACHE")
    base = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastrtp"
    try:
        base.mkdir(parents=True, exist_ok=True)
        if os.access(base, os.W_OK):
            return base
    except OSError:
        pass
    fallback = Path(tempfile.gettempdir()) / f"fastrtp-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    fallback.mkdir(mode=0o700, exist_ok=True)
    return fallback


@functools.cache
def key() -> str:
    """Name of the library that fits these sources, versions and this processor."""
    digest = hashlib.sha256()
    package = Path(__file__).resolve().parent.parent
    sources = [*package.rglob("*_native.py"), *(package / "native").glob("*.py"), *(package / name for name in _CONSTANTS)]
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    for name in ("llvmlite", "numba"):
        digest.update(f"{name} {importlib.metadata.version(name)}\n".encode())
    digest.update("\n".join(engine.cpu()).encode())
    return digest.hexdigest()[:20]


class NativeLibrary:
    """A loaded library. `symbols`: address by function name; `bitcode_path`: the file of the bodies that programs may inline.

    Given `symbols` are what an extension may call of the main library.
    """

    def __init__(self, folder: Path, stem: str, symbols: Mapping[str, int] | None = None) -> None:
        manifest = json.loads((folder / f"{stem}.json").read_text())
        self.key = stem
        self.bitcode_path = (folder / f"{stem}.bc").resolve(strict=True)
        self.parameters: dict[str, tuple[str, ...]] = {name: tuple(row["parameters"]) for name, row in manifest.items()}
        self.inline = frozenset(name for name, row in manifest.items() if row["inline"])
        self._module = engine.NativeModule((folder / f"{stem}.o").read_bytes(), list(manifest), symbols or {}, "native-library")
        self.symbols = self._module.addresses

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
    """Build the library unless the cache has it. `progress(done, total, name)` is called for each function."""
    if not is_built():
        _run_build(f"native-{key()}", [], progress)
        _drop_old(cache_folder(), f"native-{key()}")


def _run_build(stem: str, widths: list[str], progress: Progress | None = None) -> None:
    """Run the building process. JitError with its last words when it fails."""
    command = [sys.executable, "-m", "fastrtp.native.build", str(cache_folder()), stem, *widths]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"NUMBA_OPT": "0", "NUMBA_LOOP_VECTORIZE": "0", "PYTHONPATH": path}
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process:
            assert process.stdout is not None
            for line in process.stdout:
                count, _, name = line.strip().partition(" ")
                done, _, total = count.partition("/")
                if progress is not None and total.isdigit():
                    progress(int(done), int(total), name)
        if process.returncode:
            errors.seek(0)
            tail = errors.read().strip().splitlines()[-6:]
            raise JitError("the native library could not be built: " + " | ".join(tail))


@functools.cache
def library() -> NativeLibrary:
    """The library, built first if need be."""
    return _load(f"native-{key()}", [])


@functools.cache
def extension(name: str, widths: tuple[str, ...]) -> NativeLibrary:
    """A library of cast shims beyond those of the main one, built first if need be."""
    return _load(f"native-{key()}-{name}", list(widths))


def _load(stem: str, widths: list[str]) -> NativeLibrary:
    folder = cache_folder()
    manifest = folder / f"{stem}.json"
    symbols = library().symbols if widths else None
    if manifest.exists():
        try:
            return NativeLibrary(folder, stem, symbols)
        except (OSError, ValueError, KeyError, JitError):  # damaged in the cache: once more from the sources
            manifest.unlink(missing_ok=True)
    _run_build(stem, widths)
    if not widths:
        _drop_old(folder, stem)
    return NativeLibrary(folder, stem, symbols)


def _drop_old(folder: Path, stem: str) -> None:
    """Keep the four newest libraries: branches and versions take turns, but the cache stays small."""
    mains = [path for path in folder.glob("native-*.json") if path.stem.count("-") == 1]
    for manifest in sorted(mains, key=lambda path: path.stat().st_mtime)[:-4]:
        if manifest.stem != stem:
            for old in folder.glob(f"{manifest.stem}*"):
                old.unlink(missing_ok=True)
