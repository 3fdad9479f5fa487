"""find: the recipe of one event kind: an added row, one that a person wrote, or what a kernel's source says."""

from __future__ import annotations

from fastrtp.btf import Btf, TracepointProto
from fastrtp.record.event_format import EventFormat

from .build import build
from .choose import choose
from .data import is_added
from .recipe import Recipe


def recipe_of(fmt: EventFormat, btf: Btf, proto: TracepointProto, kernel: str = "") -> Recipe | None:
    """The recipe for events of this format, where the tracepoint has this prototype. `kernel`: the version that recorded them."""
    from . import RECIPES

    written = RECIPES.get(fmt.name)
    if written is not None and not is_added(fmt.name):
        return written
    row = choose(fmt, kernel)
    return build(row, fmt, btf, proto) if row is not None else written
