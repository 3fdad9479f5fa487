"""The kernel that made a recording: whose types to replay it with, and what it means when they are another kernel's.

A recording says which kernel made it (its release). Types of that very kernel are exact: the shipped ones, the running
kernel's, or a file `<release>.btf` (as BTFHub names them; plain, zstd or .tar.xz) somewhere in the folders of
FASTRTP_BTF_PATH. Without these the nearest version's serve, and every report says so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrtp.btf import DEFAULT_RELEASE
from fastrtp.kernel.version import HOST_BTF, uname_version
from fastrtp.record import Recording

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

ENVIRONMENT = "FASTRTP_BTF_PATH"
_SUFFIXES = (".btf", ".btf.zst", ".btf.tar.xz")
_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")
_RELEASE = re.compile(r"\d+\.\d+[\w.+~-]*")


@dataclass(frozen=True, slots=True)
class Types:
    """Whose types were chosen: `source` is what Kernel(btf=) takes, `release` theirs, `recorded` the recording's or ""."""

    source: str | Path | None
    release: str
    recorded: str

    @property
    def exact(self) -> bool:
        """Whether they are of the very kernel that made the recording."""
        return bool(self.recorded) and self.release == self.recorded


@dataclass(frozen=True, slots=True)
class KernelMatch:
    """A recording and the types that it was replayed with. `recorded`, `types`: releases, "" for unknown; `lacks`: recorded
    tracepoints that the types' kernel does not have, with how many events they are: no program can be attached there.
    """

    recorded: str
    types: str
    lacks: dict[str, int]

    @property
    def differ(self) -> bool:
        """Whether they are known to be of different kernels, or one of the two is not known."""
        return self.recorded != self.types

    def notes(self) -> list[str]:
        """What the reader of a report has to know; nothing where both are of one kernel, or of none that is known."""
        lines = []
        if self.recorded and self.differ:
            theirs = f"Linux {self.types}" if self.types else "a kernel whose release is not known"
            lines.append(
                f"recorded by Linux {self.recorded}, replayed with types of {theirs}: which tracepoints, arguments and members "
                f"there are is the latter's ({ENVIRONMENT} or --btf name better ones)"
            )
        if self.lacks:
            some = ", ".join(f"{name} ({count} events)" for name, count in list(self.lacks.items())[:_SOME])
            more = f" and {len(self.lacks) - _SOME} more" if len(self.lacks) > _SOME else ""
            lines.append(f"tracepoints that the types' kernel does not have: {some}{more}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"recorded": self.recorded, "types": self.types, "differ": self.differ, "lacks": dict(self.lacks)}


_SOME = 6


def recorded_release(recording: Recording) -> str:
    """The release in what uname said on the recorded machine, "" where the recording does not have it."""
    return next((word for word in recording.uname.split()[1:] if _RELEASE.fullmatch(word)), "")


def types_for(recording: Recording) -> Types:
    """The best types at hand for a recording. An unknown kernel's are the shipped ones."""
    wanted = recorded_release(recording)
    found = list(_candidates())
    if not wanted:
        return Types(None, DEFAULT_RELEASE, "")
    if os.uname().release == wanted and os.access(HOST_BTF, os.R_OK) and not any(release == wanted for release, _ in found):
        return Types("host", wanted, wanted)
    release, source = min(found, key=lambda one: (one[0] != wanted, _distance(one[0], wanted)))
    return Types(source, release, wanted)


def kernel_of(recording: Recording, **options: Any) -> Kernel:
    """A kernel like the one that made a recording, with its CPUs: its types where they are at hand, else the nearest version's;
    its version, as far as the recording or the types tell. `options`: those of Kernel, which go before.
    """
    from fastrtp.kernel import Kernel

    types = types_for(recording)
    if "btf" not in options:
        options["btf"] = types.source
        options.setdefault("release", types.release)
        if not types.exact and types.recorded:
            options.setdefault("version", uname_version(types.recorded))
    options.setdefault("cpus", max(recording.cpus, 1))
    return Kernel(**options)


def match(kernel: Kernel, recording: Recording) -> KernelMatch:
    """How a recording and a kernel fit together."""
    lacks = {table.name: len(table) for table in recording.tables if len(table) and _is_tracepoint(table.system, table.name)
             and table.name not in kernel.tracepoints}  # fmt: skip
    return KernelMatch(recorded_release(recording), kernel.release, lacks)


def _is_tracepoint(system: str, name: str) -> bool:
    """ftrace's own events and those of single system calls have records, but no tracepoint of their name."""
    return system not in ("ftrace", "syscalls", "kprobes", "uprobes", "synthetic") and not name.startswith(
        ("sys_enter_", "sys_exit_")
    )


def _candidates() -> Iterator[tuple[str, Path | None]]:
    """(release, file); the shipped ones, which are in none, last."""
    for folder in filter(None, os.environ.get(ENVIRONMENT, "").split(os.pathsep)):
        for path in sorted(Path(folder).rglob("*.btf*")):
            suffix = next((end for end in _SUFFIXES if path.name.endswith(end)), "")
            if suffix and _NUMBERS.match(path.name):
                yield path.name.removesuffix(suffix), path
    yield DEFAULT_RELEASE, None


def _distance(one: str, other: str) -> tuple[int, ...]:
    """How far two releases are apart: by major version first."""
    numbers = [
        tuple(int(part or 0) for part in found.groups()) if (found := _NUMBERS.match(text)) else (0, 0, 0)
        for text in (one, other)
    ]
    return tuple(abs(a - b) for a, b in zip(*numbers, strict=True))
