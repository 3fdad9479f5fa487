"""Recordings: reading what a kernel's tracers wrote, as columns in time order, and what each event's fields mean.

`Recording.open` reads a file; `recipes` say how recorded fields become a tracepoint's arguments again.
"""

from __future__ import annotations

from .columns import EventTable
from .recording import Recording

__all__ = ["EventTable", "Recording"]
