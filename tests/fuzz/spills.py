"""Statements around what the verifier knows of numbers: ids of spilled ones at joins, signed bounds behind shifts to the left.

Each is a function of the Generator. r7 is a 48-byte map value, r8 an unknown number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .generator import Generator

_SIZES = (0x18, 0x18, 0x18, 0x00, 0x08, 0x10)
_SLOTS = (-8, -16, -24, -32, -40)
_OPEN = 9999


def spilled_ids(g: Generator) -> None:
    """One number in several slots, or two that look alike; paths that join; one copy is checked, another is the index."""
    rng, start = g.rng, len(g.out)
    a, b, c = rng.sample((2, 3, 4, 5), 3)
    slots = rng.sample(_SLOTS, 3)
    g.emit(0xBF, a, 8) if rng.random() < 0.6 else g.emit(rng.choice((0x79, 0x61, 0x71)), a, 7, rng.choice((0, 8, 16)))
    g.emit(0xBF, b, a) if rng.random() < 0.7 else g.emit(0x79, b, 7, 8)
    sizes = [rng.choice(_SIZES)] * 3 if rng.random() < 0.5 else [rng.choice(_SIZES) for _ in slots]
    for slot, size in zip(slots, sizes, strict=True):
        g.emit(0x63 & ~0x18 | size, 10, rng.choice((a, b)), slot)
    skip = rng.randrange(0, 3)
    g.emit(rng.choice((0x55, 0x15, 0x25, 0xA5)), 8, 0, skip, rng.choice((0, 1, 7, 40)))
    for _ in range(skip):
        kind = rng.random()
        if kind < 0.4:
            g.emit(0x7B, 10, rng.choice((a, b, 8)), rng.choice(slots))
        elif kind < 0.6:
            g.emit(0x7A, 10, 0, rng.choice(slots), rng.choice((0, 5, 47)))
        elif kind < 0.8:
            g.emit(0x79, rng.choice((a, b)), 10, rng.choice(slots))
        else:
            g.emit(0xBF, *rng.choice(((a, b), (b, a))))
    for _ in range(rng.randrange(4)):
        g.emit(0x05, off=0)  # a place where states are kept and compared
    known, index = rng.sample(range(3), 2) if not g.rarely(0.3) else (0, 0)
    g.emit(0x61 & ~0x18 | sizes[known], a, 10, slots[known])
    g.emit(0x61 & ~0x18 | sizes[index], c, 10, slots[index])
    checked, used = rng.choice(((a, c), (c, a), (c, c)))
    g.emit(rng.choice((0x25, 0x25, 0x26, 0x65)), checked, 0, _OPEN, rng.choice((8, 39, 47)))
    _access(g, used, start)


def shift_left(g: Generator) -> None:
    """A number with signed bounds is shifted left, and perhaps back; it is an index where the bounds say so."""
    rng, start = g.rng, len(g.out)
    a = rng.choice((2, 3, 4, 5, 9))
    kind = rng.randrange(4)
    if kind == 0:
        g.emit(rng.choice((0x81, 0x89, 0x91)), a, 7, 8)
    elif kind == 1:
        g.emit(0xBF, a, 8, rng.choice((0, 8, 16, 32)))
    else:
        g.emit(0xBF, a, 8)
    if rng.random() < 0.7:
        g.emit(rng.choice((0x65, 0x66)), a, 0, _OPEN, rng.choice((1, 5, 47, 0x7FFF)))
        g.emit(rng.choice((0xC5, 0xC6)), a, 0, _OPEN, rng.choice((0, 0, -1, -8)))
    amount = rng.choice((1, 2, 3, 16, 31, 32, 32, 48, 56, 63))
    wide = rng.random() < 0.8
    if rng.random() < 0.15:
        b = rng.choice([r for r in (2, 3, 4, 5) if r != a])
        g.emit(0x79, b, 6, 8)
        g.emit(0x57, b, imm=rng.choice((1, 3, 31)))
        g.emit(0x6F if wide else 0x6C, a, b)
    else:
        g.emit(0x67 if wide else 0x64, a, imm=amount if wide else amount % 32)
    if rng.random() < 0.7:
        g.emit(rng.choice((0xC7, 0xC7, 0x77)) if wide else rng.choice((0xC4, 0x74)), a, imm=amount if wide else amount % 32)
    if rng.random() < 0.5:
        g.emit(rng.choice((0x25, 0x65, 0x57)), a, 0, 0, 47)
        if g.out[-1].code != 0x57:
            g.out[-1] = g.out[-1]._replace(off=_OPEN)
    if rng.random() < 0.3:
        g.emit(0xC5, a, 0, _OPEN, 0)
    _access(g, a, start)


def _access(g: Generator, index: int, start: int) -> None:
    """In the map value, at an index; jumps since `start` that failed a check go behind it, mostly."""
    if g.rarely(0.3):
        g.emit(0x57, index, imm=g.rng.choice((31, 47)))
    g.emit(0xBF, 1, 7)
    g.emit(0x0F, 1, index)
    g.emit(0x71, 0, 1, 0) if g.rng.random() < 0.6 else g.emit(0x73, 1, 8, 0)
    g.emit(0xB7, 1, imm=g.number())
    for i in range(start, len(g.out)):
        if g.out[i].off == _OPEN and not g.rarely():
            g.out[i] = g.out[i]._replace(off=len(g.out) - i - 1)
