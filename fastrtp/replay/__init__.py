"""Recorded events, played through the programs that are attached."""

from __future__ import annotations

from fastrtp.replay.report import ProgramReport, ReplayReport
from fastrtp.replay.run import Progress, check, replay

__all__ = ["ProgramReport", "Progress", "ReplayReport", "check", "replay"]
