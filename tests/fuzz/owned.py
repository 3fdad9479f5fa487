"""Statements of tp_btf programs with things that have an owner: timers, kptrs, objects of the program's own, lists and trees.

Their verdict alone is compared. r6 = ctx, r7 = an argument (often a task), r9 = a map's value; r0 to r5 are numbers afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.btf.kfuncs import KFUNCS

from .calls import TIMER_FIRED
from .functions import IDS

if TYPE_CHECKING:
    from .generator import Generator

_BASE = 0x7F000000
_KFUNC = {name: number for number, name in enumerate(KFUNCS, _BASE)}
_TIMED, _OWNER, _ROOTS = 15, 16, 17
_TASKS = ("bpf_task_acquire", "bpf_task_release")
LESS = 12_100
"""`imm` of a reference to a tree's comparing function that has yet to be written."""


def _call(g: Generator, name: str) -> None:
    g.emit(0x85, 0, 2, imm=_KFUNC[name])


def _value(g: Generator, fd: int) -> None:
    """r9 = a value of a map."""
    g.emit(0x62, 10, off=-8, imm=0)
    g.emit(0xBF, 2, 10)
    g.emit(0x07, 2, imm=-8)
    g.emit(0x18, 1, 1, imm=fd)
    g.emit(0)
    g.emit(0x85, imm=1)
    g.emit(0x55, 0, off=2)
    g.emit(0xB7, 0)
    g.emit(0x95)
    g.emit(0xBF, 9, 0)


def _field(g: Generator, register: int, at: int) -> None:
    g.emit(0xBF, register, 9)
    g.emit(0x07, register, imm=at if not g.rarely() else at + g.rng.choice((8, -8, 4)))


def _numbers(g: Generator) -> None:
    for r in range(6):
        if not g.rarely(0.01):
            g.emit(0xB7, r)


def timer(g: Generator) -> None:
    """A timer is set up, started, cancelled: in that order most of the time."""
    _value(g, _TIMED)
    for step in (169, 170, 171, 172):
        if g.rarely(0.15):
            continue
        _field(g, 1, 8)
        if step == 169:
            g.emit(0x18, 2, 1, imm=_TIMED if not g.rarely() else 13)
            g.emit(0)
            g.emit(0xB7, 3, imm=g.rng.choice((1, 7, 0)))
        elif step == 170:
            g.emit(0x18, 2, 4, imm=TIMER_FIRED)
            g.emit(0)
        elif step == 171:
            g.emit(0xB7, 2, imm=1000)
            g.emit(0xB7, 3, imm=g.rng.choice((0, 0, 1, 9)))
        g.emit(0x85, imm=step)
    _numbers(g)


def kptr(g: Generator) -> None:
    """A reference to a task goes into a map, what was there is released."""
    rng = g.rng
    _value(g, _OWNER)
    if rng.random() < 0.3:
        g.emit(0x79, 8, 9, 0)
        if rng.random() < 0.5:
            g.emit(0x15, 8, 0, 1)
        g.emit(0x61, 0, 8, rng.choice((0, 8, 0x600)))
    if rng.random() < 0.7:
        g.emit(0xBF, 1, 7)
        _call(g, "bpf_task_acquire")
        if not g.rarely():
            g.emit(0x55, 0, off=2)
            g.emit(0xB7, 0)
            g.emit(0x95)
        g.emit(0xBF, 2, 0)
    else:
        g.emit(0xB7, 2)
    _field(g, 1, 0)
    g.emit(0x85, imm=194)
    if not g.rarely():
        g.emit(0x15, 0, off=2)
        g.emit(0xBF, 1, 0)
        _call(g, "bpf_task_release")
    _numbers(g)


def task(g: Generator) -> None:
    """A reference that is given back, or not, or twice."""
    rng = g.rng
    if rng.random() < 0.5:
        g.emit(0xB7, 1, imm=1)
        _call(g, "bpf_task_from_pid")
    else:
        g.emit(0xBF, 1, rng.choice((7, 7, 8)))
        _call(g, "bpf_task_acquire")
    if not g.rarely():
        g.emit(0x55, 0, off=2)
        g.emit(0xB7, 0)
        g.emit(0x95)
    g.emit(0xBF, 8, 0)
    g.emit(0x61, 0, 8, rng.choice((0, 0x600)))
    for _ in range(1 if not g.rarely() else rng.choice((0, 2))):
        g.emit(0xBF, 1, 8)
        _call(g, "bpf_task_release")
    if g.rarely(0.2):
        g.emit(0x61, 0, 8, 0)
    g.emit(0xB7, 8)
    _numbers(g)


def _lock(g: Generator, helper: int) -> None:
    _field(g, 1, 0)
    g.emit(0x85, imm=helper)


def node(g: Generator) -> None:
    """An object is made and dropped, or added to a list or a tree under the lock."""
    rng = g.rng
    _value(g, _ROOTS)
    g.emit(0xB7, 1, imm=IDS["node"] if not g.rarely(0.02) else IDS["roots"])
    g.emit(0xB7, 2)
    _call(g, "bpf_obj_new_impl")
    if not g.rarely():
        g.emit(0x55, 0, off=2)
        g.emit(0xB7, 0)
        g.emit(0x95)
    g.emit(0xBF, 8, 0)
    g.emit(0x7A, 8, 0, 0 if not g.rarely() else rng.choice((8, 64, 72)), 5)
    kind = rng.randrange(4)
    if kind:
        if not g.rarely():
            _lock(g, 93)
        if kind == 1:
            _field(g, 1, 8)
            g.emit(0xBF, 2, 8)
            g.emit(0x07, 2, imm=8 if not g.rarely() else 32)
            g.emit(0xB7, 3)
            g.emit(0xB7, 4)
            _call(g, rng.choice(("bpf_list_push_front_impl", "bpf_list_push_back_impl")))
        elif kind == 2:
            _field(g, 1, 24)
            g.emit(0xBF, 2, 8)
            g.emit(0x07, 2, imm=32 if not g.rarely() else 8)
            g.emit(0x18, 3, 4, imm=LESS)
            g.emit(0)
            g.emit(0xB7, 4)
            g.emit(0xB7, 5)
            _call(g, "bpf_rbtree_add_impl")
        else:
            _field(g, 1, 8)
            _call(g, rng.choice(("bpf_list_pop_front", "bpf_list_pop_back", "bpf_list_front")))
        if g.rarely(0.2):
            g.emit(0x79, 0, 8, 0)
        if not g.rarely():
            if kind == 3:
                g.emit(0xBF, 7, 0)
            _lock(g, 94)
        if kind == 3:
            g.emit(0x15, 7, off=4)
            g.emit(0xBF, 1, 7)
            g.emit(0x07, 1, imm=-8)
            g.emit(0xB7, 2)
            _call(g, "bpf_obj_drop_impl")
    if kind in (0, 3) or g.rarely():
        g.emit(0xBF, 1, 8)
        g.emit(0xB7, 2)
        _call(g, "bpf_obj_drop_impl")
    g.emit(0xB7, 8)
    _numbers(g)


def less(g: Generator) -> None:
    """The comparing function of a tree."""
    g.emit(0xB7, 0)
    g.emit(0x79, 3, 1, -32 if not g.rarely() else 0)
    g.emit(0x79, 4, 2, -32)
    g.emit(0x3D, 3, 4, 1)
    g.emit(0xB7, 0, imm=1)
