"""The processor that code is compiled for.

Part of every key of compiled code, so it is found out without LLVM, which takes 40 ms to import.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from fastrtp import provenance
from fastrtp.once import once

_FACTS = frozenset({
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features",
    "isa", "uarch", "cpu", "features", "machine", "platform",
})  # fmt: skip
"""Lines of /proc/cpuinfo that say what code a processor runs; the others are about one core, or change with its clock."""

_CPUINFO = Path("/proc/cpuinfo")


@once
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


def made_by(*makers: str) -> str:
    """Name of the version of what makes native code: these modules with all that they import, and this processor."""
    return hashlib.sha256(f"{provenance.made_by(*makers)}\n{processor()}".encode()).hexdigest()[:32]


def cpu_facts(text: str) -> str:
    """The lines about the first processor in a /proc/cpuinfo that code generation may depend on, in one order."""
    first = text.lstrip("\n").partition("\n\n")[0]
    rows = (line.partition(":") for line in first.splitlines())
    return "\n".join(sorted(f"{name.strip()}:{value.strip()}" for name, _, value in rows if name.strip() in _FACTS))
