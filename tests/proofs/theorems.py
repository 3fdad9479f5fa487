"""The theorems: for each function of the number domain, that its abstract result holds every concrete one.

A theorem builds its formula from the function's source (symbolic.py) and gives goals, each to be shown unsatisfiable when
negated. `reg_bounds_sync` is proved once, part by part, and from then on a lemma: whatever it makes of a register, it loses
none of its values.

Kernel: kernel/bpf/verifier.c:scalar_min_max_*, reg_bounds_sync, regs_refine_cond_op, is_scalar_branch_taken, regsafe;
the method is that of the verification of range analysis by translation to SMT (Vishwanathan et al., CAV 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import z3

from fastrtp import isa
from fastrtp.verifier.core import call_native, mem_native, stack_native
from fastrtp.verifier.domain import alu_native, bounds_native, branch_native, tnum_native
from tests.proofs.domain import NARROW, WIDE, allows, extended, low, members, offset, tnum_has, within
from tests.proofs.symbolic import Executor, Pointer, implied

A, B, R = Pointer("a"), Pointer("b"), Pointer("r")


@dataclass(frozen=True)
class Goal:
    """`assumptions` imply `condition`."""

    name: str
    assumptions: list[Any]
    condition: Any


@dataclass(frozen=True)
class Theorem:
    """`build` gives the goals; `width`: bits of a number, fewer where a solver cannot do 64."""

    name: str
    about: str
    build: Callable[[Executor], Iterator[Goal]]
    width: int = 64

    @property
    def quick(self) -> bool:
        """Whether CI proves it."""
        return self.name not in SLOW


THEOREMS: list[Theorem] = []
SLOW = frozenset(
    [f"{name}64" for name in ("add", "sub", "mul", "neg", "lsh", "rsh", "arsh")]
    + [f"{jump}{bits} decided" for jump in ("jeq", "jne") for bits in ("", "32")]
    + ["_update_bounds"]
)
"""Proved by the command alone: each takes more than five seconds."""


def theorem(name: str, about: str, build: Callable[[Executor], Iterator[Goal]], *, width: int = 64) -> None:
    """Add a row to the table."""
    THEOREMS.append(Theorem(name, about, build, width))


def goals(ex: Executor, assumptions: list[Any], wanted: list[tuple[str, Any]]) -> Iterator[Goal]:
    """The theorem's own goals, then what its models leave to be shown."""
    for name, condition in [*wanted, *ex.obligations]:
        yield Goal(name, [*ex.assumptions, *assumptions], condition)


# known bits


def tnum_values(ex: Executor) -> tuple[Any, ...]:
    """Two tnums, and a value of each."""
    av, am, bv, bm, x, y = (ex.fresh(name) for name in ("av", "am", "bv", "bm", "x", "y"))
    return av, am, bv, bm, x, y, [tnum_has(av, am, x), tnum_has(bv, bm, y)]


def tnum_binary(function: Any, concrete: Callable[[Any, Any], Any]) -> Callable[[Executor], Iterator[Goal]]:
    """`function` on two tnums holds `concrete` of their values."""

    def build(ex: Executor) -> Iterator[Goal]:
        av, am, bv, bm, x, y, given = tnum_values(ex)
        v, m = ex.run(function, av, am, bv, bm)
        yield from goals(ex, given, [("holds", tnum_has(v, m, concrete(x, y))), ("well formed", (v & m) == 0)])

    return build


def tnum_intersect(ex: Executor) -> Iterator[Goal]:
    """A value of both."""
    av, am, bv, bm, x, _, _ = tnum_values(ex)
    v, m = ex.run(tnum_native.tnum_intersect, av, am, bv, bm)
    yield from goals(ex, [tnum_has(av, am, x), tnum_has(bv, bm, x)], [("holds", tnum_has(v, m, x))])


def tnum_inclusion(ex: Executor) -> Iterator[Goal]:
    """A value of `b` is one of `a`, where the function says so."""
    av, am, bv, bm, _, y, _ = tnum_values(ex)
    said = ex.truth(ex.run(tnum_native.tnum_in, av, am, bv, bm))
    yield from goals(ex, [tnum_has(bv, bm, y), said], [("holds", tnum_has(av, am, y))])


def tnum_of_range(ex: Executor) -> Iterator[Goal]:
    """Every number between two."""
    first, last, x = (ex.fresh(name) for name in ("first", "last", "x"))
    v, m = ex.run(tnum_native.tnum_range, first, last)
    given = [z3.ULE(first, x), z3.ULE(x, last)]
    yield from goals(ex, given, [("holds", tnum_has(v, m, x)), ("well formed", (v & m) == 0)])


def tnum_shift(bits: int) -> Callable[[Executor], Iterator[Goal]]:
    """Arithmetic shift right by every amount."""

    def build(ex: Executor) -> Iterator[Goal]:
        v, m, x, shift = (ex.fresh(name) for name in ("v", "m", "x", "shift"))
        whole = bits == 64
        given = [z3.ULT(shift, ex.width if whole else ex.half), tnum_has(v, m, x)]
        if not whole:
            given += [low(ex, v) == v, low(ex, m) == m, low(ex, x) == x]
        rv, rm = ex.run(tnum_native.tnum_arshift, v, m, shift, ex.width if whole else ex.half)
        wanted = x >> shift if whole else low(ex, extended(ex, x) >> shift)
        yield from goals(ex, given, [("holds", tnum_has(rv, rm, wanted))])

    return build


theorem("tnum_add", "sum of known bits", tnum_binary(tnum_native.tnum_add, lambda x, y: x + y))
theorem("tnum_sub", "difference", tnum_binary(tnum_native.tnum_sub, lambda x, y: x - y))
theorem("tnum_and", "and", tnum_binary(tnum_native.tnum_and, lambda x, y: x & y))
theorem("tnum_or", "or", tnum_binary(tnum_native.tnum_or, lambda x, y: x | y))
theorem("tnum_xor", "exclusive or", tnum_binary(tnum_native.tnum_xor, lambda x, y: x ^ y))
theorem("tnum_mul", "product", tnum_binary(tnum_native.tnum_mul, lambda x, y: x * y), width=8)
theorem("tnum_arshift 64", "arithmetic shift right", tnum_shift(64))
theorem("tnum_arshift 32", "the same of the low half", tnum_shift(32))
theorem("tnum_range", "all numbers between two", tnum_of_range)
theorem("tnum_intersect", "what two know of one number", tnum_intersect)
theorem("tnum_in", "inclusion", tnum_inclusion)


# synchronisation of bounds


def stepped(ex: Executor) -> Iterator[Goal]:
    """No member lies between a number and the next member."""
    v, m, x, after = (ex.fresh(name) for name in ("v", "m", "x", "after"))
    found = ex.number(ex.run(tnum_native.tnum_step, v, m, after))
    given = [(v & m) == 0, tnum_has(v, m, x), z3.UGT(x, after)]
    yield from goals(ex, given, [("not beyond", z3.ULE(found, x)), ("further", z3.UGT(found, after))])


theorem("tnum_step", "the next member", stepped)

PARTS = {
    bounds_native._update_bounds: "known bits bound the ranges",
    bounds_native._deduce_bounds32: "64-bit ranges bound the 32-bit ones, and these each other",
    bounds_native._deduce_bounds64: "ranges of both kinds bound each other",
    bounds_native._bound_offset: "ranges give known bits",
}
"""What reg_bounds_sync does, one after the other."""


def well_formed(ex: Executor, register: Pointer) -> Any:
    """No bit is known and unknown."""
    m = members(ex, register)
    return (ex.number(m["value"]) & ex.number(m["mask"])) == 0


def keeps(function: Any) -> Callable[[Executor], Iterator[Goal]]:
    """`function` of a register loses none of its values."""

    def build(ex: Executor) -> Iterator[Goal]:
        x = ex.fresh("x")
        given = [within(ex, R, x), well_formed(ex, R)]

        def step(value: Any, mask: Any, after: Any) -> Any:
            found = ex.fresh("step")
            ex.assumptions.append(z3.Implies(z3.UGT(x, ex.number(after)), z3.ULE(found, x)))
            return found

        ex.hooks[tnum_native.tnum_step] = step
        ex.run(function, R)
        yield from goals(ex, given, [*allows(ex, members(ex, R), x), ("well formed", well_formed(ex, R))])

    return build


for _part, _about in PARTS.items():
    theorem(_part.py_func.__name__, _about, keeps(_part))
theorem(
    "reg_bounds_sanity_check", "ranges that contradict each other are forgotten", keeps(bounds_native.reg_bounds_sanity_check)
)
theorem("ranges_unbounded", "ranges are forgotten", keeps(bounds_native.ranges_unbounded))


def forget(ex: Executor, register: Pointer) -> None:
    """Nothing is known of a register from here on."""
    for name in (*WIDE, *NARROW):
        bits = 32 if name in NARROW else 64
        ex.store(Pointer(register.region, register.offset + offset(name)), ex.cell(f"new.{name}", bits), bits)


def sync_theorem(ex: Executor) -> Iterator[Goal]:
    """None of its parts loses a value: no more do they together."""
    x = ex.fresh("x")
    given = [within(ex, R, x), well_formed(ex, R)]

    def part(register: Pointer) -> None:
        ex.obligations += [(name, condition) for name, condition in allows(ex, members(ex, register), x)]
        forget(ex, register)
        ex.assumptions += [within(ex, register, x), well_formed(ex, register)]

    for function in PARTS:
        ex.hooks[function] = part
    ex.run(bounds_native.reg_bounds_sync, R)
    yield from goals(ex, given, allows(ex, members(ex, R), x))


theorem("reg_bounds_sync", "known bits, 64-bit and 32-bit ranges refine each other", sync_theorem)


def with_lemma(ex: Executor, held: Callable[[Pointer], Any]) -> None:
    """reg_bounds_sync from here on: a register of which nothing is known but that it has not lost `held(register)`.

    That it had it before is a goal, member by member.
    """

    def model(registers: Any) -> None:
        for guard, register in ex.each(registers):
            x = held(register)
            for name, condition in allows(ex, members(ex, register), x):
                ex.obligations.append((f"{name} before synchronisation", implied(guard, condition)))
            forget(ex, register)
            ex.assumptions.append(implied(guard, within(ex, register, x)))

    ex.hooks[bounds_native.reg_bounds_sync] = model
    ex.hooks[bounds_native.reg_bounds_sanity_check] = model


def of_one(function: Any, concrete: Callable[[Executor, Any], Any], *arguments: int) -> Callable[[Executor], Iterator[Goal]]:
    """`function` of a register holds `concrete` of its values."""

    def build(ex: Executor) -> Iterator[Goal]:
        x = ex.fresh("x")
        given = [within(ex, A, x)]
        wanted = concrete(ex, x)
        with_lemma(ex, lambda register: wanted)
        ex.run(function, A, *arguments)
        yield from goals(ex, given, allows(ex, members(ex, A), wanted))

    return build


def cut(size: int) -> Callable[[Executor, Any], Any]:
    """The low `size` bytes, zero-extended."""
    return lambda ex, x: z3.ZeroExt(64 - 8 * size, z3.Extract(8 * size - 1, 0, x)) if size < 8 else x


def cut_signed(size: int) -> Callable[[Executor, Any], Any]:
    """The low `size` bytes, sign-extended."""
    return lambda ex, x: z3.SignExt(64 - 8 * size, z3.Extract(8 * size - 1, 0, x)) if size < 8 else x


def cut_signed_subreg(size: int) -> Callable[[Executor, Any], Any]:
    """The low `size` bytes, sign-extended to the half, which is zero-extended."""
    return lambda ex, x: low(ex, z3.SignExt(64 - 8 * size, z3.Extract(8 * size - 1, 0, x)))


def swapped(size: int) -> Callable[[Executor, Any], Any]:
    """The low `size` bytes, reversed."""

    def value(ex: Executor, x: Any) -> Any:
        parts = [z3.Extract(8 * i + 7, 8 * i, x) for i in range(size)]
        joined = z3.Concat(*parts) if size > 1 else parts[0]
        return z3.ZeroExt(64 - 8 * size, joined) if size < 8 else joined

    return value


theorem("zext_32_to_64", "the low half, zero-extended", of_one(bounds_native.zext_32_to_64, cut(4)))
for _size in (1, 2, 4, 8):
    theorem(f"coerce_to_size {_size}", "a load's width", of_one(bounds_native.coerce_to_size, cut(_size), _size))
    theorem(f"coerce_to_size_sx {_size}", "movsx, ldsx", of_one(bounds_native.coerce_to_size_sx, cut_signed(_size), _size))
for _size in (1, 2):
    _subreg = bounds_native.coerce_subreg_to_size_sx
    theorem(f"coerce_subreg_to_size_sx {_size}", "movsx32", of_one(_subreg, cut_signed_subreg(_size), _size))
for _size in (2, 4, 8):
    theorem(f"byte_order {_size} swap", "bswap, be", of_one(alu_native.byte_order, swapped(_size), _size, 1))
    theorem(f"byte_order {_size}", "le", of_one(alu_native.byte_order, cut(_size), _size, 0))


# arithmetic

Concrete = Callable[[Any, Any], Any]
OPERATIONS: dict[str, tuple[int, Concrete]] = {
    "add": (isa.BPF_ADD, lambda x, y: x + y),
    "sub": (isa.BPF_SUB, lambda x, y: x - y),
    "mul": (isa.BPF_MUL, lambda x, y: x * y),
    "and": (isa.BPF_AND, lambda x, y: x & y),
    "or": (isa.BPF_OR, lambda x, y: x | y),
    "xor": (isa.BPF_XOR, lambda x, y: x ^ y),
    "neg": (isa.BPF_NEG, lambda x, y: -x),
    "lsh": (isa.BPF_LSH, lambda x, y: x << y),
    "rsh": (isa.BPF_RSH, z3.LShR),
    "arsh": (isa.BPF_ARSH, lambda x, y: x >> y),
    "div": (isa.BPF_DIV, lambda x, y: z3.If(y == 0, 0, z3.UDiv(x, y))),
    "mod": (isa.BPF_MOD, lambda x, y: z3.If(y == 0, x, z3.URem(x, y))),
}
"""What an instruction computes. A shift's amount is taken modulo the width before."""
SHIFTS = ("lsh", "rsh", "arsh")


def arithmetic(name: str, bits: int) -> Callable[[Executor], Iterator[Goal]]:
    """`a op b`, in all bits or in the low half."""
    op, concrete = OPERATIONS[name]

    def build(ex: Executor) -> Iterator[Goal]:
        x, y = ex.fresh("x"), ex.fresh("y")
        given = [within(ex, A, x), within(ex, B, y)]
        if bits == 64:
            result = concrete(x, y & (ex.width - 1) if name in SHIFTS else y)
        else:
            first, last = z3.Extract(ex.half - 1, 0, x), z3.Extract(ex.half - 1, 0, y)
            result = z3.ZeroExt(ex.width - ex.half, concrete(first, last & (ex.half - 1) if name in SHIFTS else last))
        with_lemma(ex, lambda register: result)
        ex.run(alu_native.adjust_scalar64 if bits == 64 else alu_native.adjust_scalar32, op, A, B)
        yield from goals(ex, given, allows(ex, members(ex, A), result))

    return build


for _name in OPERATIONS:
    for _bits in (64, 32):
        _width = 8 if _name == "mul" else 64  # products of 64 bits are beyond solvers
        theorem(f"{_name}{_bits}", "transfer function", arithmetic(_name, _bits), width=_width)


# jumps

CONDITIONS: dict[str, tuple[int, Concrete]] = {
    "jeq": (isa.BPF_JEQ, lambda x, y: x == y),
    "jne": (isa.BPF_JNE, lambda x, y: x != y),
    "jset": (isa.BPF_JSET, lambda x, y: (x & y) != 0),
    "jgt": (isa.BPF_JGT, z3.UGT),
    "jge": (isa.BPF_JGE, z3.UGE),
    "jlt": (isa.BPF_JLT, z3.ULT),
    "jle": (isa.BPF_JLE, z3.ULE),
    "jsgt": (isa.BPF_JSGT, lambda x, y: x > y),
    "jsge": (isa.BPF_JSGE, lambda x, y: x >= y),
    "jslt": (isa.BPF_JSLT, lambda x, y: x < y),
    "jsle": (isa.BPF_JSLE, lambda x, y: x <= y),
}


def compared(ex: Executor, name: str, bits: int, x: Any, y: Any) -> Any:
    """Whether the jump is taken."""
    concrete = CONDITIONS[name][1]
    return concrete(x, y) if bits == 64 else concrete(z3.Extract(ex.half - 1, 0, x), z3.Extract(ex.half - 1, 0, y))


def taken(name: str, bits: int) -> Callable[[Executor], Iterator[Goal]]:
    """Where the jump is said to be decided, it goes that way."""

    def build(ex: Executor) -> Iterator[Goal]:
        x, y = ex.fresh("x"), ex.fresh("y")
        given = [within(ex, A, x), within(ex, B, y)]
        said = ex.number(ex.run(branch_native.is_branch_taken, A, B, CONDITIONS[name][0], int(bits == 32)))
        goes = compared(ex, name, bits, x, y)
        yield from goals(ex, given, [("always", z3.Implies(said == 1, goes)), ("never", z3.Implies(said == 0, z3.Not(goes)))])

    return build


def refined(name: str, bits: int) -> Callable[[Executor], Iterator[Goal]]:
    """Each way keeps the values that go it."""

    def build(ex: Executor) -> Iterator[Goal]:
        for way in (1, 0):
            ex = Executor(ex.width)
            x, y = ex.fresh("x"), ex.fresh("y")
            goes = compared(ex, name, bits, x, y)
            given = [within(ex, A, x), within(ex, B, y), goes if way else z3.Not(goes)]
            with_lemma(ex, lambda register, x=x, y=y: x if register.region == A.region else y)
            ex.run(branch_native.regs_refine_cond, A, B, CONDITIONS[name][0], way, int(bits == 32))
            wanted = [(f"a: {member}", holds) for member, holds in allows(ex, members(ex, A), x)]
            wanted += [(f"b: {member}", holds) for member, holds in allows(ex, members(ex, B), y)]
            for goal in goals(ex, given, wanted):
                yield Goal(f"{'taken' if way else 'not taken'}, {goal.name}", goal.assumptions, goal.condition)

    return build


for _name in CONDITIONS:
    for _bits in (64, 32):
        _suffix = "" if _bits == 64 else "32"
        theorem(f"{_name}{_suffix} decided", "is_branch_taken", taken(_name, _bits))
        theorem(f"{_name}{_suffix} refines", "regs_refine_cond", refined(_name, _bits))


# pruning


def inclusion(ex: Executor) -> Iterator[Goal]:
    """A value of the state under way is one of the checkpoint's, where range_within says so."""
    x = ex.fresh("x")
    given = [within(ex, B, x)]
    said = ex.truth(ex.run(bounds_native.range_within, A, B))
    yield from goals(ex, [*given, said], allows(ex, members(ex, A), x))


theorem("range_within", "inclusion, for pruning", inclusion)


# accesses

OK = 0
FAR = 1 << 33
"""An instruction's offset is 16 bits, a register's 32: their sum is nearer than this."""


def access(ex: Executor) -> tuple[Any, Any, Any, list[Any]]:
    """A register with a value of its variable part, a fixed offset and a size."""
    x, off, size = ex.fresh("x"), ex.fresh("off"), ex.fresh("size")
    return x, off, size, [within(ex, A, x), off > -FAR, off < FAR, size >= 0, size < FAR]


def region(ex: Executor) -> Iterator[Goal]:
    """An accepted access of map values, keys and memory of known size lies within it."""
    x, off, size, given = access(ex)
    room = ex.fresh("mem_size")
    said = ex.number(ex.run(mem_native.check_mem_region_access, Pointer("env"), 1, A, off, size, room, 1))
    start = off + x
    given += [room >= 0, room < FAR, said == OK]
    yield from goals(ex, given, [("starts within", start >= 0), ("ends within", start + size <= room)])


def stack(ex: Executor) -> Iterator[Goal]:
    """An accepted access of the stack lies within its 512 bytes."""
    x, off, size, given = access(ex)
    ex.hooks[stack_native.room_for_slot] = lambda *arguments: ex.fresh("slot")  # makes slots, and touches no bounds
    said = ex.number(ex.run(stack_native.check_stack_access_within_bounds, Pointer("env"), 1, A, off, size, 0))
    start = off + x
    yield from goals(ex, [*given, said == OK], [("starts within", start >= -512), ("ends within", start + size <= 0)])


def pieces(ex: Executor) -> Iterator[Goal]:
    """The two parts of a check of an area: an offset and a size that are in range make a range that is."""
    off, size, room = ex.fresh("off"), ex.fresh("size"), ex.fresh("mem_size")
    near = [off > -FAR, off < FAR, size > -FAR, size < FAR, room >= 0, room < FAR]
    said = ex.truth(ex.run(mem_native._in_range, off, size, room, 1))
    yield from goals(ex, [*near, said], [("within", z3.And(off >= 0, size >= 0, off + size <= room))])


def size_in_register(ex: Executor) -> Iterator[Goal]:
    """An area whose size is in a register is checked with a size that none of the register's values exceeds."""
    y = ex.fresh("y")
    checked: list[Any] = []

    def area(env: Any, regno: Any, size: Any, *rest: Any) -> Any:
        checked.append(ex.number(size))
        return ex.fresh("verdict")

    ex.hooks[mem_native.check_helper_mem_access] = area
    for unchanged in (call_native.mark_reg_precise, call_native._note_filled):
        ex.hooks[unchanged] = lambda *arguments: arguments[1]  # both keep the verdict and touch no bounds
    given = [within(ex, A, y)]
    ex.run(call_native._check_mem_size, Pointer("env"), 2, A, 0, 1)
    guard = ex.reached[mem_native.check_helper_mem_access]
    yield from goals(ex, [*given, guard], [("no value exceeds it", z3.And(y >= 0, y <= checked[0]))])


theorem("_check_mem_size", "an area of a helper whose size is in a register", size_in_register)
theorem("check_mem_region_access", "map values, keys, memory of known size", region)
theorem("check_stack_access_within_bounds", "the stack", stack)
theorem("_in_range", "an area in an object", pieces)
