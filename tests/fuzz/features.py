"""Statements beyond arithmetic and memory: dynptrs, iterators, maps of maps, may_goto, acquire and release, global functions.

Each is a function of the Generator. Its slots of the stack: dynptrs at fp-120 and fp-136, an iterator at fp-144.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.btf.kfuncs import KFUNCS, kfunc_id
from fastrtp.isa import Insn

from . import tails
from .functions import BY_CTX, BY_MEMORY, BY_NONNULL, BY_SCALAR

if TYPE_CHECKING:
    from .generator import Generator

KFUNC = 0x7F000000
_NUMBERS = {name: number for number, name in enumerate(KFUNCS, KFUNC)}
ITER_NEW, ITER_NEXT, ITER_DESTROY, RCU_LOCK, RCU_UNLOCK, PREEMPT_OFF, PREEMPT_ON = (
    _NUMBERS[f"bpf_{name}"]
    for name in (
        "iter_num_new", "iter_num_next", "iter_num_destroy", "rcu_read_lock", "rcu_read_unlock", "preempt_disable",
        "preempt_enable",
    )
)  # fmt: skip
"""Kernel functions by fastrtp.btf.kfuncs' own ids; the host's are put in when a program is loaded there."""
GLOBAL = 20_000
"""`imm` of a call of a global function that has yet to be written, plus the id of its FUNC."""
_FROM_MEM, _RESERVE, _SUBMIT, _DISCARD, _READ, _WRITE, _DATA = range(197, 204)
_LOCAL, _RING, _ITER = -120, -136, -144


def with_kfuncs(insns: Sequence[Insn], kernel_btf: Any) -> list[Insn]:
    """The instructions with the ids that a kernel has for its functions."""
    names = dict(enumerate(KFUNCS, KFUNC))
    return [
        insn._replace(imm=kfunc_id(kernel_btf, names[insn.imm]) or 0)
        if (insn.code, insn.src_reg) == (0x85, 2) and insn.imm in names
        else insn
        for insn in insns
    ]


def _stack_address(g: Generator, register: int, at: int) -> None:
    g.emit(0xBF, register, 10)
    g.emit(0x07, register, imm=at)


def _kfunc(g: Generator, number: int) -> None:
    g.emit(0x85, 0, 2, imm=number)


def dynptr(g: Generator) -> None:
    """A dynptr of a map value or of a ring record, used a few times."""
    rng = g.rng
    ring = rng.random() < 0.4
    at = _RING if ring else _LOCAL
    if ring:
        g.emit(0x18, 1, 1, imm=3)
        g.emit(0)
        g.emit(0xB7, 2, imm=rng.choice((8, 16, 24, 40)))
        g.emit(0xB7, 3)
    else:
        g.emit(0xBF, 1, 7 if not g.rarely(0.03) else 10)
        g.emit(0xB7, 2, imm=rng.choice((8, 16, 24, 48, 48)) if not g.rarely(0.03) else 49)
        g.emit(0xB7, 3, imm=rng.choice((0, 0, 0, 1)))
    _stack_address(g, 4, at)
    g.emit(0x85, imm=_RESERVE if ring else _FROM_MEM)
    g.clobber((0, 1, 2, 3, 4, 5))
    for _ in range(rng.randrange(1, 4)):
        _use_dynptr(g, at if not g.rarely(0.02) else rng.choice((_LOCAL, _RING, _ITER)))
    if ring and not g.rarely(0.03):
        _stack_address(g, 1, at)
        g.emit(0xB7, 2, imm=0)
        g.emit(0x85, imm=rng.choice((_SUBMIT, _SUBMIT, _DISCARD)))
        g.clobber((0, 1, 2, 3, 4, 5))
        if g.rarely(0.03):
            _use_dynptr(g, at)
    if g.rarely(0.05):
        g.emit(rng.choice((0x7A, 0x72)), 10, 0, at + rng.choice((0, 8)), 1)
    if g.rarely(0.03):
        g.emit(0x79, 9, 10, at)


def _use_dynptr(g: Generator, at: int) -> None:
    rng = g.rng
    kind = rng.randrange(3)
    if kind == 0:
        _stack_address(g, 1, rng.choice((-16, -32, -40)))
        g.emit(0xB7, 2, imm=rng.choice((8, 8, 4, 16, 1)))
        _stack_address(g, 3, at)
        g.emit(0xB7, 4, imm=rng.choice((0, 8, 4, 40, 48))) if rng.random() < 0.7 else g.emit(0xBF, 4, 8)
        g.emit(0xB7, 5)
        g.emit(0x85, imm=_READ)
    elif kind == 1:
        _stack_address(g, 1, at)
        g.emit(0xB7, 2, imm=rng.choice((0, 8, 4, 40, 47))) if rng.random() < 0.7 else g.emit(0xBF, 2, 8)
        _stack_address(g, 3, rng.choice((-8, -16, -32)))
        g.emit(0xB7, 4, imm=rng.choice((8, 4, 1, 8)))
        g.emit(0xB7, 5)
        g.emit(0x85, imm=_WRITE)
    else:
        length = rng.choice((8, 8, 4, 16))
        _stack_address(g, 1, at)
        g.emit(0xB7, 2, imm=rng.choice((0, 8, 32, 44)))
        g.emit(0xB7, 3, imm=length)
        g.emit(0x85, imm=_DATA)
        if not g.rarely(0.03):
            g.emit(0x15, 0, off=2)
        off = rng.choice((0, 0, length - 4)) if not g.rarely() else length
        g.emit(0x63, 0, 8, off)
        g.emit(0x61, 9, 0, off)
        g.emit(0xB7, 9, imm=g.number())
    g.clobber((0, 1, 2, 3, 4, 5))


def iterator(g: Generator) -> None:
    """bpf_for over a few numbers, each an index into the map value."""
    rng = g.rng
    low, high = rng.choice(((0, 4), (0, 30), (-2, 3), (5, 5), (3, 40), (0, 48)))
    _stack_address(g, 1, _ITER)
    g.emit(0xB7, 2, imm=low)
    g.emit(0xB7, 3, imm=high) if rng.random() < 0.8 else g.emit(0xBF, 3, 9)
    _kfunc(g, ITER_NEW)
    top = len(g.out)
    _stack_address(g, 1, _ITER)
    _kfunc(g, ITER_NEXT)
    leave = len(g.out)
    g.emit(0x15, 0, off=0)
    g.emit(0x61, 9, 0, 0)
    for r in (3, 4, 5):
        if not g.rarely(0.02):
            g.emit(0xB7, r, imm=g.number())
    if g.rarely(0.03):
        g.emit(0x62, 0, 0, 0, 1)
    for _ in range(rng.randrange(0, 3)):
        rng.choice((type(g).alu_low, type(g).stack_low))(g) if rng.random() < 0.5 else g.emit(0xB7, rng.choice((3, 4, 5)), imm=1)
    if not g.rarely(0.1):
        g.emit(0x25, 9, 0, 3, rng.choice((47, 40, 8)))
        g.emit(0xBF, 1, 7)
        g.emit(0x0F, 1, 9)
        g.emit(0x71, 2, 1, 0) if rng.random() < 0.5 else g.emit(0x73, 1, 9, 0)
    if g.rarely(0.15):
        g.emit(0x25, 9, 0, 1, 3)
    g.emit(0x05, off=top - len(g.out) - 1)
    g.out[leave] = g.out[leave]._replace(off=len(g.out) - leave - 1)
    if not g.rarely(0.03):
        _stack_address(g, 1, _ITER)
        _kfunc(g, ITER_DESTROY)
    g.clobber((0, 1, 2, 3, 4, 5))
    g.emit(0xB7, 9, imm=g.number())


def map_in_map(g: Generator) -> None:
    """A value of the map in a slot of map 12."""
    rng = g.rng
    g.emit(0x62, 10, off=-48, imm=rng.choice((0, 0, 0, 1, 5)))
    _stack_address(g, 2, -48)
    g.emit(0x18, 1, 1, imm=12)
    g.emit(0)
    g.emit(0x85, imm=1)
    check = not g.rarely(0.03)
    first = len(g.out)
    if check:
        g.emit(0x15, 0)
    if g.rarely(0.03):
        g.emit(0x79, 9, 0, 0)
    g.emit(0xBF, 1, 0)
    g.emit(0x62, 10, off=-48, imm=rng.choice((0, 0, 0, 1)))
    _stack_address(g, 2, -48)
    update = rng.random() < 0.25
    if update:
        _stack_address(g, 3, -40)
        g.emit(0xB7, 4)
    g.emit(0x85, imm=2 if update else 1)
    second = -1
    if not update:
        if not g.rarely(0.03):
            second = len(g.out)
            g.emit(0x15, 0)
        off = rng.choice((0, 8)) if not g.rarely() else 16
        g.emit(0x79, 9, 0, off) if rng.random() < 0.5 else g.emit(0x7B, 0, 8, off)
    end = len(g.out)
    for place in (first if check else -1, second):
        if place >= 0:
            g.out[place] = g.out[place]._replace(off=end - place - 1)
    g.emit(0xB7, 9, imm=g.number())
    g.clobber((0, 1, 2, 3, 4, 5))


def may_goto(g: Generator) -> None:
    """A loop that the verifier may leave at any round, and that ends by itself when it runs."""
    g.emit(0xB7, 9, imm=0)
    top = len(g.out)
    g.emit(0xE5, off=0)
    for _ in range(g.rng.randrange(1, 3)):
        g.rng.choice((type(g).alu_low, type(g).stack_low))(g)
    if g.rng.random() < 0.5:
        g.emit(0x25, 9, 0, 3, g.rng.choice((47, 30)))
        g.emit(0xBF, 1, 7)
        g.emit(0x0F, 1, 9)
        g.emit(0x73, 1, 9, 0)
    g.emit(0x07, 9, imm=1)
    g.emit(0xA5, 9, 0, top - len(g.out) - 1, g.rng.choice((5, 20)))
    g.out[top] = g.out[top]._replace(off=len(g.out) - top - 1)
    g.emit(0xB7, 1, imm=0)


def ordered(g: Generator) -> None:
    """Load-acquire or store-release, of any size."""
    size, width = g.rng.choice(((0xC3, 4), (0xCB, 2), (0xD3, 1), (0xDB, 8)))
    base, off = g.rng.choice(((7, 0), (7, 40), (10, -8), (10, -32)))
    if g.rarely():
        off += 1
    if g.rng.random() < 0.5:
        g.emit(size, g.rng.choice((0, 9, 3)), base, off, 0x100)
    else:
        g.emit(size, base, g.reg(), off, 0x110)
    if width > 8:
        raise AssertionError(width)


def section(g: Generator) -> None:
    """An RCU or preemption section around a load."""
    opens, closes = g.rng.choice(((RCU_LOCK, RCU_UNLOCK), (PREEMPT_OFF, PREEMPT_ON)))
    _kfunc(g, opens)
    g.clobber((0, 1, 2, 3, 4, 5))
    g.emit(0x79, 9, 7, 8)
    if not g.rarely(0.05):
        _kfunc(g, closes)
        g.clobber((0, 1, 2, 3, 4, 5))


def global_call(g: Generator) -> None:
    """A call of a global function, with arguments that fit its prototype most of the time."""
    rng = g.rng
    kind = rng.choice((BY_SCALAR, BY_SCALAR, BY_MEMORY, BY_NONNULL, BY_CTX))
    if kind == BY_SCALAR:
        g.emit(0xBF, 1, rng.choice((8, 9)) if not g.rarely() else 7)
        g.emit(0xBF, 2, 8)
    elif kind == BY_CTX:
        g.emit(0xBF, 1, 6 if not g.rarely() else 7)
    else:
        where = rng.randrange(4)
        if where == 0:
            g.emit(0xBF, 1, 7)
            g.emit(0x07, 1, imm=rng.choice((0, 8, 32)) if not g.rarely() else 40)
        elif where == 1 and kind == BY_MEMORY:  # Linux lets NULL pass for the other too, and its function faults
            g.emit(0xB7, 1)
        else:
            _stack_address(g, 1, rng.choice((-16, -24, -32)))
    g.emit(0x85, 0, 1, imm=GLOBAL + kind)
    g.clobber()
    if rng.random() < 0.6:
        g.emit(0xBF, 9, 0)
    if rng.random() < 0.3:
        g.emit(0x79, 9, 10, -16)


def global_body(g: Generator, kind: int) -> None:
    """The function, without its exit."""
    rng = g.rng
    g.emit(0xB7, 0, imm=g.number())
    for at in (-8, -16):
        g.emit(0x7A, 10, 0, at, g.number())
    if kind in (BY_MEMORY, BY_NONNULL):
        check = kind == BY_MEMORY and not g.rarely(0.05)
        body = [Insn(0x79, 2, 1, rng.choice((0, 8)) if not g.rarely() else 16)]
        body.append(rng.choice((Insn(0x7B, 1, 2, 8), Insn(0x7A, 1, 0, 0, 7), Insn(0x0F, 0, 2), Insn(0xDB, 1, 2, 8))))
        if check:
            g.emit(0x15, 1, off=len(body))
        g.out += body
    elif kind == BY_CTX:
        context = 1
        if rng.random() < 0.4:
            context = 6
            g.emit(0xBF, 6, 1)
            tails.jump(g)
        g.emit(0x79, 0, context, rng.choice((0, 8, 88)) if not g.rarely() else 96)
    else:
        for _ in range(rng.randrange(1, 4)):
            code = rng.choice((0x0F, 0xAF, 0x1F, 0x2F, 0x5C, 0x4C))
            g.emit(code, 0, rng.choice((1, 2)))
    if rng.random() < 0.3:
        g.emit(0xBF, 2, 10)
        g.emit(0x07, 2, imm=-16)
        g.emit(0x71, 3, 2, rng.choice((0, 7)))
    if g.rarely(0.03):
        g.emit(0xBF, 0, 10)
    else:
        g.emit(0x57, 0, imm=rng.choice((1, 7, 31, -1)))
