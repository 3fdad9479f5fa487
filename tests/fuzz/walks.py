"""tp_btf programs: walks through kernel objects, sections of a spin lock, what owned.py has. Their verdict alone is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import owned

if TYPE_CHECKING:
    from .generator import Generator

TRACEPOINTS = ("sched_switch", "sched_wakeup", "task_newtask", "sched_process_exec", "sys_enter", "irq_handler_entry")
_LOCKED = 13


def walk_program(g: Generator) -> None:
    """r6 = ctx, r7 = an argument, r8 = what a load gave, r9 = a locked value or a number."""
    rng = g.rng
    g.emit(0xBF, 6, 1)
    for r in (0, 2, 3, 4, 5, 7, 8, 9):
        g.emit(0xB7, r)
    g.emit(0x79, 7, 6, 8 * rng.choice((0, 1, 1, 1, 2)))
    start = len(g.out)
    for _ in range(rng.randrange(2, 12)):
        rng.choice(STATEMENTS)(g)
    g.close_branches(start, len(g.out), 0.0)
    g.emit(0xB7, 0)
    g.emit(0x95)
    g.functions()


def _argument(g: Generator) -> None:
    size = 0x79 if not g.rarely(0.1) else g.rng.choice((0x61, 0x69, 0x71))
    g.emit(size, 7, 6, 8 * (g.rng.choice((0, 0, 1, 1, 2)) if not g.rarely(0.1) else g.rng.randrange(13)))


def _offset(g: Generator, width: int) -> int:
    kind = g.rng.random()
    if kind < 0.6:
        return 8 * g.rng.randrange(32)
    return g.rng.randrange(-1 if g.rarely(0.05) else 0, 9000) // width * width


def _load(g: Generator) -> None:
    code, width = g.rng.choice(((0x79, 8), (0x79, 8), (0x79, 8), (0x61, 4), (0x69, 2), (0x71, 1), (0x81, 4)))
    off = _offset(g, width) + (g.rng.choice((1, 4)) if g.rarely() else 0)
    g.emit(code, g.rng.choice((8, 8, 9, 0)), g.rng.choice((7, 7, 8)), off)


def _follow(g: Generator) -> None:
    g.emit(0xBF, *g.rng.choice(((7, 8), (8, 7), (9, 8))))


def _null_check(g: Generator) -> None:
    g.emit(g.rng.choice((0x15, 0x55)), g.rng.choice((7, 8, 9)), 0, 9999, 0)


def _number(g: Generator) -> None:
    g.emit(0x07, g.rng.choice((7, 8)), imm=g.rng.choice((8, 16, -8, 4))) if g.rng.random() < 0.5 else g.emit(0x0F, 7, 9)


def _compare(g: Generator) -> None:
    g.emit(g.rng.choice((0x1D, 0x5D, 0x2D)), 7, g.rng.choice((8, 9, 6)), 9999)


def _locked(g: Generator) -> None:
    """A value of map 13 changed between lock and unlock."""
    rng = g.rng
    g.emit(0x62, 10, off=-8, imm=0)
    g.emit(0xBF, 2, 10)
    g.emit(0x07, 2, imm=-8)
    g.emit(0x18, 1, 1, imm=_LOCKED)
    g.emit(0)
    g.emit(0x85, imm=1)
    g.emit(0x55, 0, off=2)
    g.emit(0xB7, 0)
    g.emit(0x95)
    g.emit(0xBF, 9, 0)
    g.emit(0xBF, 1, 9)
    g.emit(0x07, 1, imm=8 if not g.rarely() else rng.choice((0, 12, 16)))
    g.emit(0x85, imm=93)
    g.emit(0x7A, 9, 0, rng.choice((0, 16, 0, 12)) if not g.rarely() else 8, 5)
    if g.rarely():
        g.emit(0x85, imm=rng.choice((5, 93)))
    if g.rarely():
        g.emit(0x15, 7, 0, 9999, 0)
    g.emit(0xBF, 1, 9)
    g.emit(0x07, 1, imm=8)
    if not g.rarely(0.06):
        g.emit(0x85, imm=94)
    for r in (0, 2, 3, 4, 5, 9):
        g.emit(0xB7, r)


def _area(g: Generator) -> None:
    """Memory of a kernel object, mostly, for a helper that reads it."""
    rng = g.rng
    register, off = rng.choice((7, 7, 7, 8)), _offset(g, 4)
    size = rng.choice((1, 4, 8, 8, 16, 16, 64)) if not g.rarely() else rng.choice((0, 4096))
    if rng.random() < 0.6:
        g.emit(0x18, 1, 1, imm=3)
        g.emit(0)
        _pointer(g, 2, register, off)
        _size(g, 3, size)
        g.emit(0xB7, 4)
        g.emit(0x85, imm=130)
    elif rng.random() < 0.7:
        _pointer(g, 1, register, off)
        _size(g, 2, size)
        g.emit(0xB7, 3)
        g.emit(0xBF, 4, 10)
        g.emit(0x07, 4, imm=-16)
        g.emit(0x85, imm=105)
    else:
        g.emit(0xBF, 1, 10)
        g.emit(0x07, 1, imm=-32)
        g.emit(0xB7, 2, imm=16)
        _pointer(g, 3, register, off)
        g.emit(0x85, imm=113)
    for r in (0, 1, 2, 3, 4, 5):
        g.emit(0xB7, r)


def _pointer(g: Generator, to: int, register: int, off: int) -> None:
    g.emit(0xBF, to, register)
    g.emit(0x07, to, imm=off)


def _size(g: Generator, register: int, size: int) -> None:
    """A number, or anything up to it."""
    if g.rng.random() < 0.7:
        g.emit(0xB7, register, imm=size)
    else:
        g.emit(0x79, register, 6, 8 * g.rng.choice((2, 3)) if not g.rarely() else 0)
        g.emit(0x57, register, imm=max(size - 1, 1))
        if g.rng.random() < 0.6:
            g.emit(0x15, register, 0, 9999, 0)


STATEMENTS = (
    *[_argument] * 2, *[_load] * 5, *[_follow] * 2, *[_null_check] * 2, *[_area] * 2, _number, _locked, _compare,
    owned.timer, owned.kptr, owned.task, owned.node,
)  # fmt: skip
