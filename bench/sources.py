"""The objects and recordings that suites work on: reference material beside the checkout where it is, else what is shipped."""

from __future__ import annotations

import os
from pathlib import Path


def shared() -> Path | None:
    """$FASTRTP_SHARED, else ../shared beside the checkout; None where it is not."""
    named = os.environ.get("FASTRTP_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "recordings").is_dir() else None


def recording() -> tuple[str, Path]:
    """(name, path) of the recording: 300,000 events or so of a busy machine, else the demo's."""
    from fastrtp.record.demo import demo_recording

    folder = shared()
    if folder is not None and (folder / "recordings" / "big" / "trace.dat").is_file():
        return "big", folder / "recordings" / "big" / "trace.dat"
    return "demo", demo_recording()


def objects() -> dict[str, Path]:
    """Object files by name: truth.bpf.o where it is, and the shipped programs."""
    import fastrtp.programs

    found = {}
    folder = shared()
    if folder is not None and (folder / "recordings" / "truth.bpf.o").is_file():
        found["truth"] = folder / "recordings" / "truth.bpf.o"
    package = Path(fastrtp.programs.__file__).parent
    return found | {path.name.removesuffix(".bpf.o"): path for path in sorted(package.glob("*.bpf.o"))}
