"""What compiled code depends on besides its source: the processor, and the versions of numba and llvmlite.

Part of every key of compiled code, so it is found out without importing either (llvmlite alone takes 40 ms).
"""

from __future__ import annotations

import functools
import importlib.util
import platform
from pathlib import Path

_FACTS = frozenset({
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
    "isa", "uarch", "cpu", "features", "machine", "platform",
})  # fmt: skip
"""Lines of /proc/cpuinfo that say what code a processor runs; the others are about one core, or change with its clock."""

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def processor() -> str:
    """The host's processor and its features. Where the kernel does not say, LLVM is asked."""
    try:
        with _CPUINFO.open(encoding="ascii", errors="replace") as file:
            facts = cpu_facts(file.read(1 << 14))
    except OSError:
        facts = ""
    if not facts:
        from fastrtp.native import engine

        facts = "\n".join(engine.cpu())
    return f"{platform.machine()}\n{facts}"


def cpu_facts(text: str) -> str:
    """The lines about the first processor in a /proc/cpuinfo that code generation may depend on, in one order."""
    first = text.lstrip("\n").partition("\n\n")[0]
    rows = (line.partition(":") for line in first.splitlines())
    return "\n".join(sorted(f"{name.strip()}:{value.strip()}" for name, _, value in rows if name.strip() in _FACTS))


@functools.cache
def versions() -> str:
    """Versions of the packages that make code."""
    return "".join(f"{name} {_version(name)}\n" for name in ("llvmlite", "numba"))


def _version(name: str) -> str:
    """The contents of the package's version file, or what its metadata says (which takes much longer to read)."""
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        try:
            return Path(spec.origin).with_name("_version.py").read_text()
        except OSError:
            pass
    from importlib.metadata import version

    return version(name)
