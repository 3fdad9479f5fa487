"""Statements around calls: values that go into functions and come back, nested callbacks, helpers whose result has bounds.

Each is a function of the Generator. r7 is a 48-byte map value, r8 an unknown number, r9 a scratch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.isa import Insn

if TYPE_CHECKING:
    from .generator import Generator

ACCESS, RETURN_INDEX, THROUGH_POINTER, SPILLED, NESTED_LOOP, USER_DRAIN, TIMER_FIRED = range(12_000, 12_007)
"""`imm` of calls whose functions have yet to be written: what the function is for."""
BODIES = range(ACCESS, TIMER_FIRED + 1)
_STATIC_CALL = 1
_USER_RING = 14


def _stack_address(g: Generator, register: int, at: int) -> None:
    g.emit(0xBF, register, 10)
    g.emit(0x07, register, imm=at)


def _map_handle(g: Generator, register: int, fd: int) -> None:
    g.emit(0x18, register, 1, imm=fd)
    g.emit(0)


def _indexed(g: Generator, index: int, through: int = 1) -> None:
    """An access in the map value at an index, then the pointer is gone."""
    g.emit(0xBF, through, 7)
    g.emit(0x0F, through, index)
    g.emit(0x71, 0, through, 0) if g.rng.random() < 0.6 else g.emit(0x73, through, 8, 0)
    g.emit(0xB7, through, imm=g.number())


def precise_args(g: Generator) -> None:
    """A function gets a number (bounded here, there, or nowhere), uses it as an index or gives one back."""
    rng = g.rng
    kind = rng.choice((ACCESS, ACCESS, RETURN_INDEX, RETURN_INDEX, THROUGH_POINTER, SPILLED))
    g.emit(0xBF, 2, rng.choice((8, 8, 9))) if rng.random() < 0.6 else g.emit(0xB7, 2, imm=rng.choice((0, 7, 40, 47, 48)))
    if kind == ACCESS and not g.rarely(0.2):
        g.bound(2, sure=not g.rarely(0.2))
    g.emit(0xBF, 1, 7)
    if kind in (THROUGH_POINTER, SPILLED):
        _stack_address(g, 1, -32)
    g.emit(0xB7, 3, imm=rng.choice((8, 40, 47, 48 if not g.rarely(0.9) else 30)))
    g.emit(0x85, 0, _STATIC_CALL, imm=kind)
    g.emit(0xBF, 9, 0)
    g.clobber()
    if kind in (THROUGH_POINTER, SPILLED):
        g.emit(0x79, 9, 10, -32)
    if kind != ACCESS:
        if g.rarely(0.25):
            g.emit(0x57, 9, imm=31)
        _indexed(g, 9)


def body(g: Generator, kind: int) -> None:
    """The function behind one of BODIES, without its exit."""
    rng = g.rng
    if kind == ACCESS:
        if rng.random() < 0.3:
            g.emit(0x3D if rng.random() < 0.7 else 0x7D, 2, 3, 2)
        g.out += [Insn(0x0F, 1, 2), rng.choice((Insn(0x71, 4, 1), Insn(0x73, 1, 2), Insn(0x72, 1, 0, 0, 7)))]
        g.emit(0xB7, 0, imm=g.number()) if rng.random() < 0.5 else g.emit(0xBF, 0, 2)
    elif kind == RETURN_INDEX:
        g.emit(0xB7, 0, imm=rng.choice((0, 4, 40)))
        g.emit(0xAD if not g.rarely(0.2) else rng.choice((0xAE, 0xCD)), 2, 3, 1)
        g.emit(0x95)
        g.emit(0xBF if not g.rarely(0.2) else 0xBC, 0, 2)
        if g.rarely(0.3):
            g.emit(0x85, 0, _STATIC_CALL, imm=ACCESS)
    elif kind == THROUGH_POINTER:
        if g.rarely(0.8):
            g.emit(0xA5, 2, 0, 1, rng.choice((8, 40, 48)))
            g.emit(0xB7, 2, imm=3)
        g.emit(rng.choice((0x7B, 0x7B, 0x63)), 1, 2, 0)
        g.emit(0xB7, 0, imm=0)
    elif kind == SPILLED:
        g.emit(0x7B, 10, 2, -8)
        g.emit(0x7B, 10, 1, -16)
        g.emit(0xB7, 1, imm=0)
        g.emit(0x85, imm=rng.choice((8, 5, 7)))
        g.emit(0x79, 2, 10, -8)
        g.emit(0xA5, 2, 0, 1, rng.choice((8, 40)))
        g.emit(0xB7, 2, imm=rng.choice((1, 47, 48)))
        g.emit(0x79, 1, 10, -16)
        g.emit(0x7B, 1, 2, 0)
        g.emit(0xB7, 0, imm=0)
    elif kind == NESTED_LOOP:
        _nested_body(g)
    elif kind == USER_DRAIN:
        _drain_body(g)
    else:
        g.emit(0xB7, 0, imm=0 if not g.rarely(0.1) else 1)
        g.emit(0x79, 4, 3, rng.choice((0, 16)))


def nested_loop(g: Generator) -> None:
    """bpf_loop whose callback calls a function or bpf_loop; the context is a spilled index."""
    rng = g.rng
    g.emit(0x7A, 10, off=-56, imm=rng.choice((0, 1)))
    g.emit(0xB7, 1, imm=rng.choice((1, 2, 5)))
    g.emit(0x18, 2, 4, imm=NESTED_LOOP)
    g.emit(0)
    _stack_address(g, 3, -56)
    g.emit(0xB7, 4)
    g.emit(0x85, imm=181)
    g.after_callback()


def _nested_body(g: Generator) -> None:
    rng = g.rng
    g.emit(0xBF, 9, 2)
    g.emit(0x79, 8, 9, 0)
    kind = rng.randrange(3)
    if kind == 0:
        g.emit(0xB7, 1, imm=rng.choice((1, 3)))
        g.emit(0x18, 2, 4, imm=9999)  # FUNC: a counting callback
        g.emit(0)
        g.emit(0xBF, 3, 9)
        g.emit(0xB7, 4)
        g.emit(0x85, imm=181)
    elif kind == 1:
        g.emit(0xBF, 1, 9)
        g.emit(0xBF, 2, 8)
        g.emit(0x85, 0, _STATIC_CALL, imm=THROUGH_POINTER)
    else:
        g.emit(0x7B, 10, 8, -8)
        g.emit(0x07, 8, imm=1)
        g.emit(rng.choice((0x25, 0x2D)), 8, 1, 1, rng.choice((5, 30)))
        g.emit(0x7B, 9, 8, 0)
    g.emit(0xB7, 0, imm=rng.choice((0, 0, 1)))


def linked_spills(g: Generator) -> None:
    """A number is spilled in whole or in part, checked in a register or after it is read back, and used through the other."""
    rng = g.rng
    a, b = rng.sample((2, 3, 4, 5), 2)
    at = rng.choice((-8, -16, -24, -40))
    g.emit(0xBF, a, 8) if rng.random() < 0.7 else g.emit(rng.choice((0x61, 0x71, 0x69)), a, 7, 8)
    if rng.random() < 0.3:
        g.emit(0xBC, a, a)
    size = rng.choice((0x18, 0x18, 0x00, 0x00, 0x08, 0x10))
    g.emit(0x63 & ~0x18 | size, 10, a, at)
    if rng.random() < 0.4:
        g.emit(0x61 & ~0x18 | size, b, 10, at)
        checked, used = rng.choice(((a, b), (b, a)))
    else:
        checked = used = a
    code = 0x25 if size == 0x18 and not g.rarely(0.2) else 0x26 if not g.rarely(0.3) else rng.choice((0x65, 0x35, 0x15))
    g.emit(code, checked, 0, 9999, rng.choice((8, 39, 47)))
    if checked == used:
        used = b
        mode = 0x81 if size != 0x18 and rng.random() < 0.3 else 0x61
        g.emit(mode & ~0x18 | size, b, 10, at)
    if rng.random() < 0.3:
        g.emit(0xBF, used, used, rng.choice((8, 16, 32)))
    if rng.random() < 0.35:
        g.emit(0x57, used, imm=rng.choice((31, 47)))
    _indexed(g, used)


def far_jump(g: Generator) -> None:
    """gotol over some arithmetic that another branch comes to."""
    skipped = g.rng.randrange(1, 4)
    g.emit(0x15, 8, 0, 1, g.number())
    g.emit(0x06, imm=skipped)
    for _ in range(skipped):
        g.alu_low()


def cast(g: Generator) -> None:
    """addr_space_cast, which needs an arena."""
    g.emit(0xBF, g.reg(), g.reg(), 1, g.rng.choice((1, 1 << 16, 0)))


def string_helper(g: Generator) -> None:
    """Helpers that fill memory or return a length: get_current_comm, probe_read_*_str, get_stack, strtol, strncmp, snprintf."""
    rng = g.rng
    kind = rng.randrange(7)
    if kind == 0:
        _stack_address(g, 1, rng.choice((-16, -32, -40)))
        g.emit(0xB7, 2, imm=rng.choice((16, 8, 1, 0, 33)))
        g.emit(0x85, imm=16)
    elif kind == 1:
        g.emit(0xBF, 1, 7) if rng.random() < 0.5 else _stack_address(g, 1, -32)
        g.emit(0xB7, 2, imm=rng.choice((8, 32, 32, 48)))
        g.emit(0xBF, 3, rng.choice((7, 8)))
        g.emit(0x85, imm=rng.choice((115, 114, 45)))
        _result_as_index(g)
    elif kind == 2:
        g.emit(0xBF, 1, 6)
        g.emit(0xBF, 2, 7)
        g.emit(0xB7, 3, imm=rng.choice((48, 16, 40, 49)))
        g.emit(0xB7, 4, imm=rng.choice((0, 256)))
        g.emit(0x85, imm=67)
        _result_as_index(g)
    elif kind == 3:
        _stack_address(g, 1, -16)
        g.emit(0xB7, 2, imm=rng.choice((8, 16, 17)))
        g.emit(0xB7, 3)
        _stack_address(g, 4, rng.choice((-32, -40)) if not g.rarely() else -36)
        g.emit(0x85, imm=rng.choice((105, 106)))
    elif kind == 4:
        _stack_address(g, 1, -16)
        g.emit(0xB7, 2, imm=rng.choice((4, 8, 16)))
        g.emit(0x18, 3, 2, imm=rng.choice((5, 5, 10, 9)))
        g.emit(0)
        g.emit(0x85, imm=182)
    elif kind == 5:
        g.emit(0xBF, 1, 7)
        g.emit(0xB7, 2, imm=rng.choice((16, 48, 0)))
        g.emit(0x18, 3, 2, imm=rng.choice((5, 5, 5, 10)))
        g.emit(0)
        _stack_address(g, 4, -16)
        g.emit(0xB7, 5, imm=rng.choice((16, 16, 8, 0)))
        g.emit(0x85, imm=165)
    else:
        _map_handle(g, 1, rng.choice((7, 7, 2)))
        g.emit(0x62, 10, off=-48, imm=rng.choice((0, 0, 1)))
        _stack_address(g, 2, -48)
        g.emit(0xB7, 3, imm=rng.choice((0, 0, 1, 900)))
        g.emit(0x85, imm=195)
        if not g.rarely(0.05):
            g.emit(0x15, 0, off=1)
        g.emit(0x79, 9, 0, rng.choice((0, 8)))
    g.clobber((0, 1, 2, 3, 4, 5))


def _result_as_index(g: Generator) -> None:
    """r0, which is at most the size asked for, into the value."""
    if not g.rarely():
        g.emit(0xC5 if not g.rarely(0.1) else g.rng.choice((0xC6, 0x65)), 0, 0, 4, 0)
    g.emit(0x25, 0, 0, 3, 47) if not g.rarely(0.2) else g.emit(0xB7, 2)
    g.emit(0xBF, 1, 7)
    g.emit(0x0F, 1, 0)
    g.emit(0x71, 2, 1, 0 if not g.rarely(0.1) else -1)


def cpu_index(g: Generator) -> None:
    """The CPU's number, which is less than the number of CPUs, as an index."""
    g.emit(0x85, imm=8)
    if g.rng.random() < 0.5:
        g.emit(0x67, 0, imm=g.rng.choice((1, 3)))
    g.emit(0xBF, 9, 0)
    g.clobber()
    _indexed(g, 9)


def user_drain(g: Generator) -> None:
    """bpf_user_ringbuf_drain; its callback reads the sample."""
    g.emit(0x7A, 10, off=-56, imm=0)
    _map_handle(g, 1, _USER_RING if not g.rarely() else 3)
    g.emit(0x18, 2, 4, imm=USER_DRAIN)
    g.emit(0)
    _stack_address(g, 3, -56)
    g.emit(0xB7, 4, imm=0)
    g.emit(0x85, imm=209)
    g.after_callback()


def _drain_body(g: Generator) -> None:
    """r1 = a dynptr that may only be read, r2 = the context."""
    rng = g.rng
    g.emit(0xBF, 9, 2)
    kind = rng.randrange(4)
    if kind == 0:
        g.emit(0xBF, 3, 1)
        _stack_address(g, 1, -16)
        g.emit(0x7A, 10, 0, -16, 0)
        g.emit(0xB7, 2, imm=8)
        g.emit(0xB7, 4)
        g.emit(0xB7, 5)
        g.emit(0x85, imm=201)
    elif kind == 1:
        g.emit(0xB7, 2, imm=0)
        g.emit(0xB7, 3, imm=8)
        g.emit(0x85, imm=203)
        g.emit(0x15, 0, off=1)
        g.emit(0x79, 1, 0, 0)
    elif kind == 2:
        g.emit(0x79, 3, 9, 0)
        g.emit(0x07, 3, imm=1)
        g.emit(0x7B, 9, 3, 0)
    else:
        _stack_address(g, 3, -16)
        g.emit(0xB7, 2, imm=0)
        g.emit(0xB7, 4, imm=8)
        g.emit(0xB7, 5)
        g.emit(0x85, imm=202)
    g.emit(0xB7, 0, imm=rng.choice((0, 0, 1, 2)) if g.rarely(0.3) else 0)
