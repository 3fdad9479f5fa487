"""Compile every `*_native.py` module: to bitcode to inline from, and to objects to call.

Run as `python -m fastrtp.native.build FOLDER STEM PARENT [WIDTHS ...]` in a process of its own, a child of PARENT that ends with
it: its imports cost the user nothing. A second process works on the verifier meanwhile, which has next to nothing in common
with all else: the library has two shares (`share`), and programs inline from the one that is not the verifier's.
Progress goes to standard output, a line `total name` for each step that is done.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from fastrtp.entry_cache import write_whole
from fastrtp.errors import JitError
from fastrtp.native import compiler_rt, lifeline
from fastrtp.native.intrinsics import EXTERNALS, REGISTRY
from fastrtp.native.library import key, native_modules
from fastrtp.native.share import STEPS, Share, compile_share, make_share


def _library_shares(folder: Path) -> dict[str, Share]:
    """Both parts of the library, made at once where there are two processors; by the suffix of their files."""
    modules = native_modules()
    verifier = [name for name in modules if name.startswith("fastrtp.verifier.")]
    rest = [name for name in modules if name not in verifier]
    report = str(2 * len(STEPS))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, lifeline.end_with, (os.getpid(),)) as pool:
        other = pool.submit(make_share, folder, verifier, (), report)
        shares = {"o": make_share(folder, rest, tuple(compiler_rt.ROUTINES), report)}
        shares["verifier.o"] = other.result()
    if shares["verifier.o"].bitcode:
        raise JitError("programs inline nothing of the verifier's")
    return shares


def build(folder: Path, stem: str, shims: list[str]) -> None:
    """Write `stem`.bc, .o, .verifier.o and .json (the functions and their parameters; last, so that it vouches for the others).

    `shims`: argument widths; given, only their cast shims are built, as a library of their own.
    """
    if shims:
        made = importlib.import_module("fastrtp.trace.trampoline_native").define_shims(shims)
        shares = {"o": compile_share(made, (), str(len(STEPS)))}
    else:
        shares = _library_shares(folder)
    names = [name for share in shares.values() for name in share.functions]
    if len(set(names)) != len(names):
        raise JitError(f"native functions of one name: {sorted({name for name in names if names.count(name) > 1})}")
    runtime = [] if shims else list(compiler_rt.ROUTINES)
    known = {*EXTERNALS, *names, *(REGISTRY if shims else ()), *runtime}  # of shims, the main library has the rest
    strange = {name for share in shares.values() for name in share.outside} - known
    if strange:
        raise JitError(f"the native library calls {', '.join(sorted(strange))}")
    parts = {"bc": shares["o"].bitcode, **{suffix: share.code for suffix, share in shares.items()}}
    for suffix, data in parts.items():
        write_whole(folder / f"{stem}.{suffix}", data)
    manifest = {
        "functions": {name: facts for share in shares.values() for name, facts in share.functions.items()},
        "objects": {suffix: [*share.functions, *(runtime if suffix == "o" else ())] for suffix, share in shares.items()},
        "sha256": {suffix: hashlib.sha256(data).hexdigest() for suffix, data in parts.items()},
    }
    write_whole(folder / f"{stem}.json", json.dumps(manifest).encode())


def main(arguments: list[str]) -> int:
    """Command line of the building process."""
    if len(arguments) < 3 or not re.fullmatch(r"[\w.-]+", arguments[1]) or not arguments[2].isdigit():
        print("usage: python -m fastrtp.native.build FOLDER STEM PARENT [WIDTHS ...]", file=sys.stderr)
        return 2
    lifeline.end_with(int(arguments[2]))
    if arguments[1].split("-")[:2] != ["native", key()]:
        raise JitError("its sources have changed since the process began that wants it")
    build(Path(arguments[0]), arguments[1], arguments[3:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
