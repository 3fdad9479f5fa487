"""The recording that the package ships, for the demo, the tests and a first try (data/PROVENANCE.md)."""

from __future__ import annotations

from pathlib import Path

DEMO_RECORDING = "churn.trace.dat"


def demo_recording() -> Path:
    """Path of the shipped trace.dat: 66,152 events of a small busy Linux 6.1 machine."""
    return Path(__file__).resolve().parent / "data" / DEMO_RECORDING
