"""The baseline compiler: C sources of c/ compiled by the system's clang or gcc (or the `cc` extra's) -O2
into a shared library, loaded with ctypes.

$FASTRTP_BENCH_CFLAGS adds flags (-march=native, -fno-jump-tables), and the tables say so.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fastrtp.native.library import cache_folder

SOURCES = Path(__file__).parent / "c"
_CLANGS = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))
_FLAGS = ("-O2",)
_LIBRARY = ("-shared", "-fPIC", "-w")


def flags() -> tuple[str, ...]:
    """What the baseline is optimised with."""
    return (*_FLAGS, *os.environ.get("FASTRTP_BENCH_CFLAGS", "").split())


def compilers() -> dict[str, tuple[str, ...]]:
    """Command by name ("clang", "gcc", "zig cc": that of the `cc` extra) of the C compilers here, in order of preference."""
    found: dict[str, tuple[str, ...]] = {}
    clang = next((path for path in map(shutil.which, _CLANGS) if path), None)
    if clang:
        found["clang"] = (clang,)
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc:
        found["gcc"] = (gcc,)
    if importlib.util.find_spec("ziglang") is not None:
        # by itself it compiles for this very processor, and the others do not
        found["zig cc"] = (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline")
    return found


def compiler() -> str:
    """Name of the one that baselines are made with. NotImplementedError (asv: skip) where there is none."""
    found = compilers()
    if not found:
        raise NotImplementedError("no clang, gcc or cc on this machine, nor the cc extra")
    return next(iter(found))


def baseline_name() -> str:
    """How the tables call the baseline."""
    found = compilers()
    return " ".join([next(iter(found)), *flags()]) if found else "none"


@functools.cache
def library(sources: Sequence[str], name: str = "") -> ctypes.CDLL:
    """The sources (a tuple of file names in c/) as one library, each its own translation unit; compiled once and kept."""
    path, *options = compilers()[name or compiler()]
    digest = hashlib.sha256(" ".join([Path(path).resolve().as_posix(), *options, *flags()]).encode())
    for source in [*sources, "bench.h"]:
        digest.update((SOURCES / source).read_bytes())
    target = cache_folder() / "bench" / f"{digest.hexdigest()[:20]}.so"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        files = [str(SOURCES / source) for source in sources]
        command = [path, *options, *flags(), *_LIBRARY, *files, "-o", str(part)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotImplementedError(f"{path}: {done.stderr.strip()}")
        part.replace(target)
    return ctypes.CDLL(str(target))


def address(loaded: ctypes.CDLL, symbol: str) -> int:
    """Address of one of a library's functions or variables."""
    return ctypes.cast(getattr(loaded, symbol), ctypes.c_void_p).value or 0
