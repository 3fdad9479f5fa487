"""Tail calls: in the program, in functions (also of functions), in callbacks, and what is done with what comes back.

Each is a function of the Generator. A function with a tail call has two ways to end: its own, and that of the other program,
which returned what it liked. What Linux and the code generator may know afterwards is what holds on both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .functions import VOID

if TYPE_CHECKING:
    from .generator import Generator

RETURNS, WRITES, ABOVE, PASSES, CALLBACK = range(12_200, 12_205)
"""`imm` of calls whose functions have yet to be written: a number comes back; the caller's memory is written; a function of a
function that returns a number of its own, or what the other returned; a callback."""
BODIES = range(RETURNS, CALLBACK + 1)
_STATIC_CALL = 1
_CONTEXT, _COUNT = -88, -96
_SLOTS = (0, 0, 1, 1, 2, 3, 3, 4, 9, -1)


def jump(g: Generator, variable: int | None = None) -> None:
    """The call, with the context in r1: to a slot, or to where a register says."""
    g.emit(0x18, 2, 1, imm=4)
    g.emit(0)
    if variable is not None and g.rng.random() < 0.3:
        g.emit(0xBF, 3, variable)
        if g.rng.random() < 0.6:
            g.emit(0x57, 3, imm=g.rng.choice((1, 3, 7)))
    else:
        g.emit(0xB7, 3, imm=g.rng.choice(_SLOTS))
    g.emit(0x85, imm=12)


def tail_call(g: Generator) -> None:
    """In the program itself."""
    g.emit(0xBF, 1, 6)
    jump(g, 8)
    g.clobber((0, 1, 2, 3, 4, 5))


def tail_function(g: Generator) -> None:
    """A function that makes one is called, with a record of the ring held at times; its result or what it wrote is used."""
    rng = g.rng
    kind = rng.choice((RETURNS, RETURNS, WRITES, WRITES, ABOVE, PASSES))
    held = rng.random() < 0.12
    leave = _reserve(g) if held else -1
    g.emit(0xBF, 1, 6)
    at = rng.choice((-16, -24, -32))
    if kind == WRITES and rng.random() < 0.3:
        g.emit(0xBF, 2, 7)
        at = 0
    else:
        if rng.random() < 0.6:
            g.emit(0x7A, 10, 0, at, rng.choice((0, 7, 40, 600)))
        g.emit(0xBF, 2, 10)
        g.emit(0x07, 2, imm=at)
    g.emit(0xBF, 3, 8)
    g.emit(0x85, 0, _STATIC_CALL, imm=kind)
    if held:
        _submit(g, leave)
        return
    g.emit(0xBF, 9, 0)
    g.clobber()
    if kind == WRITES and rng.random() < 0.8:
        g.emit(0x79, 9, 10 if at else 7, at)
    _use(g)


def _use(g: Generator) -> None:
    """r9 decides, or is an index."""
    rng = g.rng
    if rng.random() < 0.5:
        g.emit(rng.choice((0x15, 0x55, 0x25, 0x65, 0x16)), 9, 0, 2, rng.choice((0, 1, 4, 7, 40)))
        g.emit(0x7A, 7, 0, rng.choice((0, 8, 40)), rng.choice((3, -3)))
        g.emit(0xB7, 8, imm=rng.choice((3, 44, 600)))
    if rng.random() < 0.6:
        if not g.rarely(0.35):
            g.emit(0x57, 9, imm=rng.choice((7, 31, 47))) if rng.random() < 0.6 else g.bound(9, sure=True)
        g.emit(0xBF, 1, 7)
        g.emit(0x0F, 1, 9)
        g.emit(0x71, 0, 1, 0) if rng.random() < 0.6 else g.emit(0x73, 1, 8, 0)
        g.emit(0xB7, 1, imm=g.number())


def _reserve(g: Generator) -> int:
    """r9 = a record; where the jump for none is."""
    g.emit(0x18, 1, 1, imm=3)
    g.emit(0)
    g.emit(0xB7, 2, imm=16)
    g.emit(0xB7, 3)
    g.emit(0x85, imm=131)
    leave = len(g.out)
    g.emit(0x15, 0)
    g.emit(0xBF, 9, 0)
    g.emit(0x7A, 9, 0, 0, 1)
    g.emit(0x7A, 9, 0, 8, 2)
    return leave


def _submit(g: Generator, leave: int) -> None:
    if not g.rarely(0.05):
        g.emit(0x7B, 9, 0, 8)
        g.emit(0xBF, 1, 9)
        g.emit(0xB7, 2)
        g.emit(0x85, imm=g.rng.choice((132, 133)))
    g.out[leave] = g.out[leave]._replace(off=len(g.out) - leave - 1)
    g.emit(0xB7, 9, imm=g.number())
    g.clobber((0, 1, 2, 3, 4, 5))


def tail_callback(g: Generator) -> None:
    """bpf_loop whose callback makes one, or calls who does. The context and a counter are on the stack."""
    rng = g.rng
    g.emit(0x7B, 10, 6, _CONTEXT)
    g.emit(0x7A, 10, 0, _COUNT, rng.choice((0, 1)))
    g.emit(0xB7, 1, imm=rng.choice((1, 2, 5, 40)))
    g.emit(0x18, 2, 4, imm=CALLBACK)
    g.emit(0)
    g.emit(0xBF, 3, 10)
    g.emit(0x07, 3, imm=_CONTEXT)
    g.emit(0xB7, 4)
    g.emit(0x85, imm=181)
    g.clobber((1, 2, 3, 4, 5))
    g.emit(0x79, 9, 10, _COUNT)
    _use(g)
    g.clobber((0,))


def body(g: Generator, kind: int) -> None:
    """The function behind one of BODIES, without its exit."""
    rng = g.rng
    if g.rarely(0.01):
        g.globals.append((len(g.out), VOID))  # Linux refuses
    if kind == CALLBACK:
        _callback(g)
    elif kind in (ABOVE, PASSES):
        g.emit(0xBF, 6, 1)
        g.emit(0x7A, 10, 0, -8, g.number())
        g.emit(0x85, 0, _STATIC_CALL, imm=rng.choice((RETURNS, WRITES)) if not g.rarely(0.15) else PASSES)
        if kind == ABOVE or g.rarely(0.1):
            g.emit(0xB7, 0, imm=rng.choice((0, 1, 7, 40)))
        elif rng.random() < 0.5:
            g.emit(*rng.choice(((0x57, 0, 0, 0, 7), (0x07, 0, 0, 0, 1), (0xBC, 0, 0), (0x79, 0, 10, -8))))
    else:
        _body(g, writes=kind == WRITES)


def _body(g: Generator, *, writes: bool) -> None:
    """r1 = the context, r2 = the caller's memory, r3 = a number."""
    rng = g.rng
    g.emit(0xBF, 6, 1)
    g.emit(0xBF, 7, 2)
    g.emit(0xBF, 8, 3)
    g.emit(0x7A, 10, 0, -8, rng.choice((0, 1, 7, 40)))
    if writes and rng.random() < 0.5:
        g.emit(0x7A, 7, 0, 0, rng.choice((0, 7, 40, 600)))
    for _ in range(2 if g.rarely(0.25) else 1):
        if rng.random() < 0.25:
            g.emit(rng.choice((0x15, 0x25, 0x55)), 8, 0, 0, rng.choice((1, 7, 40)))
            leave = len(g.out) - 1
        else:
            leave = -1
        g.emit(0xBF, 1, 6)
        jump(g, 8)
        if leave >= 0:
            g.out[leave] = g.out[leave]._replace(off=len(g.out) - leave - 1)
    if writes:
        if rng.random() < 0.6:
            g.emit(0x7A, 7, 0, 0, rng.choice((0, 7, 40, 47)))
        if rng.random() < 0.3:
            g.emit(0x79, 2, 7, 0)
    if rng.random() < 0.75:
        g.emit(0xB7, 0, imm=rng.choice((0, 1, 4, 7, 40)))
    elif not g.rarely(0.05):
        g.emit(*rng.choice(((0x79, 0, 10, -8), (0xBF, 0, 8))))


def _callback(g: Generator) -> None:
    """r2 = where the context is kept, the counter below it."""
    rng = g.rng
    g.emit(0xBF, 6, 2)
    if rng.random() < 0.7:
        g.emit(0xB7, 0)
    g.emit(0x79, 1, 6, 0)
    if g.rarely(0.12):
        jump(g)
    else:
        g.emit(0xBF, 2, 6)
        g.emit(0x07, 2, imm=-8)
        g.emit(0xB7, 3, imm=rng.choice((0, 1, 7)))
        g.emit(0x85, 0, _STATIC_CALL, imm=rng.choice((RETURNS, WRITES, PASSES)))
        if rng.random() < 0.4:
            g.emit(0x79, 3, 6, -8)
            g.emit(rng.choice((0x0F, 0x4F)), 3, 0)
            g.emit(0x7B, 6, 3, -8)
    if rng.random() < 0.7:
        g.emit(0xB7, 0, imm=rng.choice((0, 0, 1)))
    else:
        g.emit(0x57, 0, imm=1)
