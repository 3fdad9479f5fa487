"""The compiler: a clang of the system that has the BPF target, or else the one in the ziglang package (the `cc` extra)."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from fastrtp.entry_cache import EntryCache, cache_folder
from fastrtp.errors import CompilerError
from fastrtp.once import once
from fastrtp.provenance import made_by, package_version

CLANGS = ("clang", *(f"clang-{version}" for version in range(24, 11, -1)))
"""Names to look for, best first."""

INSTALL = "install the `cc` extra (pip install 'fastrtp[cc]'), or clang"


@dataclass(frozen=True)
class Compiler:
    """`command`: compiles for BPF, the target included. `identity`: tells it from others and from its other versions."""

    name: str
    command: tuple[str, ...]
    identity: str


@once
def find_compiler() -> Compiler:
    """What compiles here. CompilerError where there is nothing."""
    without = []
    for name in CLANGS:
        path = shutil.which(name)
        if path is None:
            continue
        identity = _identity(path)
        if _has_bpf(path, identity):
            return Compiler(name, (path, "-target", "bpf"), identity)
        without.append(name)
    zig = zig_compiler()
    if zig is not None:
        return zig
    said = f"{', '.join(without)} has no BPF target" if without else "there is no clang"
    raise CompilerError(f"no compiler for BPF, as {said}: {INSTALL}")


def zig_compiler() -> Compiler | None:
    """The clang of the ziglang package, None where it is not installed."""
    if importlib.util.find_spec("ziglang") is None:
        return None
    # zig's own defaults for a debug build are of no use to BPF, which has neither a stack protector nor a runtime to report to
    command = (sys.executable, "-m", "ziglang", "cc", "-target", "bpfel-freestanding")
    return Compiler("ziglang", (*command, "-fno-stack-protector", "-fno-sanitize=undefined"), f"zig {package_version('ziglang')}")


def _identity(path: str) -> str:
    real = os.path.realpath(path)
    status = os.stat(real)
    return f"{real} {status.st_size} {status.st_mtime_ns}"


def _has_bpf(path: str, identity: str) -> bool:
    """Whether a clang was built with the BPF target; asked once of each version."""
    cache = EntryCache(cache_folder(), "cc-target", ".json", made_by(__name__), 1 << 16)
    key = hashlib.blake2b(identity.encode(), digest_size=16).hexdigest()
    found = cache.get(key)
    if found is not None:
        return bool(found[0]["bpf"])
    try:
        done = subprocess.run([path, "--print-targets"], capture_output=True, text=True, check=False)
    except OSError:
        return False
    has = any(line.split()[:1] == ["bpf"] for line in done.stdout.splitlines())
    cache.put(key, {"bpf": has}, b"")
    return has
