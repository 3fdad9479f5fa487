"""Symbolic execution of native functions: their Python source is interpreted over bit vectors.

Numbers are z3 bit vectors of `width` bits (64 as they run; fewer to make multiplication tractable, with the "low 32 bits"
half as wide), or Python ints where known. Branches are not forked: both ways run under their condition and merge, so a
function is one formula. Memory is cells, a region and an offset each, as the functions address records by `pointer + offset`;
what is behind an address that is not known is unknown, and a store there changes no region.

Nothing is trusted but this file: intrinsics have their model here, device functions are interpreted. What is not understood
raises Unsupported, so a proof cannot pass over it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import z3

from fastrtp.native import intrinsics
from fastrtp.native.record import Inner, Items, Kind, Number, Record


class Unsupported(Exception):
    """The source uses something that has no model here."""


@dataclass(frozen=True)
class Pointer:
    """An address within a region; `record`: of what, where a function was told."""

    region: str
    offset: int = 0
    record: type[Record] | None = None


@dataclass(frozen=True)
class Choice:
    """One of several addresses, each under its condition (the last one otherwise)."""

    options: tuple[tuple[Any, Pointer], ...]


@dataclass
class Frame:
    """A function under way. `live`: the condition under which it has not returned; `loops`: the same of each loop's turn."""

    variables: dict[str, Any]
    scope: dict[str, Any]
    function: Any
    live: Any = True
    result: Any = None
    loops: list[list[Any]] = field(default_factory=list)


def both(*conditions: Any) -> Any:
    """Conjunction, with Python's truth values folded."""
    rest = [c for c in conditions if c is not True]
    if any(c is False for c in rest):
        return False
    return True if not rest else rest[0] if len(rest) == 1 else z3.And(rest)


def negated(condition: Any) -> Any:
    """Negation, likewise."""
    return not condition if isinstance(condition, bool) else z3.Not(condition)


class Executor:
    """Interprets native functions.

    `width`: bits of a number, `half`: bits of its low part. `hooks`: functions that are not interpreted but modelled.
    `assumptions`: what the models may be relied on for; `obligations`: (name, condition) that have to be proved beside the
    theorem.
    """

    replaced: ClassVar[dict[Any, ast.FunctionDef]] = {}
    """Sources to take instead of a function's own: a test shows that a wrong one is refuted."""

    def __init__(self, width: int = 64) -> None:
        self.width = width
        self.half = width // 2
        self.memory: dict[tuple[str, int, int], Any] = {}
        self.hooks: dict[Any, Callable[..., Any]] = {}
        self.assumptions: list[Any] = []
        self.obligations: list[tuple[str, Any]] = []
        self.reached: dict[Any, Any] = {}  # the condition under which a hooked function was called last
        self._names = itertools.count()
        self._paths: list[Any] = []
        self._sources: dict[Any, ast.FunctionDef] = dict(self.replaced)
        low = (1 << self.half) - 1
        # constants that say how wide numbers are: at another width they have that one's value
        self._scaled = {
            "U32": low,
            "S64_MIN": -(1 << (width - 1)),
            "S64_MAX": (1 << (width - 1)) - 1,
            "S32_MIN": -(1 << (self.half - 1)),
            "S32_MAX": (1 << (self.half - 1)) - 1,
            "BIT31": 1 << (self.half - 1),
            "HIGH32": -1 << self.half,
            "TWO32": 1 << self.half,
        }
        self._literals = {} if width == 64 else {64: width, 63: width - 1, 32: self.half, 31: self.half - 1}
        self._intrinsics = self._models()

    # numbers

    def fresh(self, name: str) -> Any:
        """A number of which nothing is known."""
        return z3.BitVec(f"{name}!{next(self._names)}", self.width)

    def number(self, value: Any) -> Any:
        """As a bit vector."""
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, int):
            return z3.BitVecVal(value, self.width)
        if isinstance(value, z3.BoolRef):
            return z3.If(value, z3.BitVecVal(1, self.width), z3.BitVecVal(0, self.width))
        if isinstance(value, z3.BitVecRef):
            return value
        raise Unsupported(f"{value!r} as a number")

    def truth(self, value: Any) -> Any:
        """As a condition."""
        if isinstance(value, (bool, z3.BoolRef)):
            return value
        if isinstance(value, int):
            return value != 0
        if isinstance(value, z3.BitVecRef):
            return folded(value != 0)
        if isinstance(value, (Pointer, Choice)):
            return True  # records are not at 0
        raise Unsupported(f"{value!r} as a condition")

    def plain(self, value: Any) -> Any:
        """`int(value)`: an address stays one, but nobody knows of what."""
        if isinstance(value, Pointer):
            return Pointer(value.region, value.offset)
        return self.number(value) if isinstance(value, z3.BoolRef) else value

    def wrapped(self, value: int) -> int:
        """Modulo 2**width, as a signed number."""
        value &= (1 << self.width) - 1
        return value - (1 << self.width) if value >> (self.width - 1) else value

    def merge(self, condition: Any, then: Any, other: Any) -> Any:
        """`then` where the condition holds, else `other`."""
        if condition is True or then is other:
            return then
        if condition is False:
            return other
        if other is None or then is None:
            return then if other is None else other
        if isinstance(then, tuple) and isinstance(other, tuple):
            return tuple(self.merge(condition, a, b) for a, b in zip(then, other, strict=True))
        if isinstance(then, (Pointer, Choice)) and isinstance(other, (Pointer, Choice)):
            if then == other:
                return then
            first = then.options if isinstance(then, Choice) else ((True, then),)
            last = other.options if isinstance(other, Choice) else ((True, other),)
            return Choice(tuple((both(condition, c), p) for c, p in first) + last)
        if isinstance(then, (bool, z3.BoolRef)) and isinstance(other, (bool, z3.BoolRef)):
            if isinstance(then, bool) and isinstance(other, bool) and then == other:
                return then
            return z3.If(condition, then, other)
        if isinstance(then, int) and isinstance(other, int) and then == other:
            return then
        return z3.If(condition, self.number(then), self.number(other))

    # memory

    def load(self, address: Any, bits: int) -> Any:
        """The number at an address, zero-extended."""
        if isinstance(address, Pointer):
            key = (address.region, address.offset, bits)
            if key not in self.memory:
                for region, offset, other in self.memory:
                    if region == address.region and offset < address.offset + bits // 8 and address.offset < offset + other // 8:
                        raise Unsupported(f"{key} overlaps {(region, offset, other)}")
                self.memory[key] = self.cell(f"{address.region}+{address.offset}", bits)
            return self.memory[key]
        if isinstance(address, Choice):
            value = self.load(address.options[-1][1], bits)
            for condition, pointer in reversed(address.options[:-1]):
                value = self.merge(condition, self.load(pointer, bits), value)
            return value
        return self.cell("unknown", bits)

    def cell(self, name: str, bits: int) -> Any:
        """An unknown number of so many bits (64 and 32 stand for the width and its half)."""
        bits = {64: self.width, 32: self.half}.get(bits, bits)
        if bits == self.width:
            return self.fresh(name)
        return z3.ZeroExt(self.width - bits, z3.BitVec(f"{name}!{next(self._names)}", bits))

    def store(self, address: Any, value: Any, bits: int) -> None:
        """Store the low bits of a number under the path's condition."""
        if isinstance(value, (Pointer, Choice)):
            raise Unsupported("an address is stored")
        narrow = {64: self.width, 32: self.half}.get(bits, bits)
        for guard, pointer in self.each(address):
            number = self.number(value)
            if narrow < self.width:
                number = z3.ZeroExt(self.width - narrow, z3.Extract(narrow - 1, 0, number))
            old = self.load(pointer, bits) if guard is not True else None
            self.memory[(pointer.region, pointer.offset, bits)] = self.merge(guard, z3.simplify(number), old)

    def each(self, address: Any) -> Iterator[tuple[Any, Pointer]]:
        """The records that an address may be, each while the path's condition says that it is; none where it is not known."""
        options = address.options if isinstance(address, Choice) else ((True, address),)
        unless: Any = True
        for condition, pointer in options:
            if isinstance(pointer, Pointer):
                self._paths.append(both(unless, condition))
                yield self.guard(), pointer
                self._paths.pop()
                unless = both(unless, negated(condition))

    def copy(self, to: Any, source: Any, size: Any) -> None:
        """memcpy between records: cell by cell."""
        if not isinstance(to, Pointer) or not isinstance(source, Pointer) or not isinstance(size, int):
            raise Unsupported("a copy between addresses that are not known")
        for region, offset, bits in list(self.memory):
            if region == source.region and source.offset <= offset < source.offset + size:
                self.store(Pointer(to.region, to.offset + offset - source.offset), self.memory[(region, offset, bits)], bits)

    # control

    def guard(self) -> Any:
        """The condition under which the current statement runs."""
        return both(*self._paths)

    def run(self, function: Any, *arguments: Any) -> Any:
        """What a native function returns."""
        hook = self.hooks.get(function)
        if hook is not None:
            self.reached[function] = self.guard()
            return hook(*arguments)
        python = function.py_func
        if python not in self._sources:
            tree = ast.parse(textwrap.dedent(inspect.getsource(python))).body[0]
            assert isinstance(tree, ast.FunctionDef)
            self._sources[python] = tree
        tree = self._sources[python]
        frame = Frame({}, python.__globals__, python)
        for parameter, argument in zip(tree.args.args, arguments, strict=True):
            frame.variables[parameter.arg] = self.typed(argument, self.annotated(frame, parameter.annotation))
        depth = len(self._paths)
        self.block(frame, tree.body)
        del self._paths[depth:]
        return frame.result

    def annotated(self, frame: Frame, annotation: ast.expr | None) -> type[Record] | None:
        """The record that a parameter's annotation names."""
        named = frame.scope.get(annotation.id) if isinstance(annotation, ast.Name) else None
        return named if isinstance(named, type) and issubclass(named, Record) else None

    def typed(self, value: Any, record: type[Record] | None) -> Any:
        """An address as one of a record."""
        if record is None:
            return value
        if isinstance(value, Pointer):
            return Pointer(value.region, value.offset, record)
        if isinstance(value, Choice):
            return Choice(tuple((c, self.typed(p, record)) for c, p in value.options))
        return value

    def member(self, address: Any, name: str) -> tuple[Any, Kind | None]:
        """Address and kind of a record's member; of an address that is not known, nothing is."""
        options = address.options if isinstance(address, Choice) else ((True, address),)
        if any(not isinstance(p, Pointer) for _, p in options):
            return self.fresh("address"), None
        record = options[0][1].record
        if record is None or any(p.record is not record for _, p in options):
            raise Unsupported(f"{name} of a record that is not known")
        field = record.layout.fields[name]
        moved = tuple((c, Pointer(p.region, p.offset + field.offset)) for c, p in options)
        return moved[0][1] if len(moved) == 1 else Choice(moved), field.kind

    def load_member(self, address: Any, name: str) -> Any:
        """What a member holds; of a record within, its address."""
        place, kind = self.member(address, name)
        if isinstance(kind, Inner):
            return self.typed(place, kind.record)
        if isinstance(kind, Items):
            return place
        if isinstance(kind, Number):
            value = self.load(place, 8 * kind.size)
            bits = {64: self.width, 32: self.half}.get(8 * kind.size, 8 * kind.size)
            if kind.signed and bits < self.width:
                return z3.SignExt(self.width - bits, z3.Extract(bits - 1, 0, self.number(value)))
            return value
        return self.fresh(name)

    def block(self, frame: Frame, statements: Sequence[ast.stmt]) -> None:
        """Statements in a row, each under what is left of the path."""
        for statement in statements:
            alive = both(frame.live, *(turn[0] for turn in frame.loops), *(turn[1] for turn in frame.loops))
            if alive is False or self.guard() is False:
                return
            self._paths.append(alive)
            self.statement(frame, statement)
            self._paths.pop()

    def statement(self, frame: Frame, node: ast.stmt) -> None:
        """One statement."""
        if isinstance(node, ast.Expr):
            if not isinstance(node.value, ast.Constant):
                self.value(frame, node.value)
        elif isinstance(node, ast.Assign):
            value = self.value(frame, node.value)
            for target in node.targets:
                self.assign(frame, target, value)
        elif isinstance(node, ast.AugAssign):
            old = self.value(frame, node.target)
            self.assign(frame, node.target, self.binary(node.op, old, self.value(frame, node.value)))
        elif isinstance(node, ast.Return):
            value = self.value(frame, node.value) if node.value is not None else None
            guard = self.guard()
            frame.result = value if frame.result is None else self.merge(guard, value, frame.result)
            frame.live = both(frame.live, negated(guard))
        elif isinstance(node, ast.If):
            self.branch(frame, node)
        elif isinstance(node, ast.While):
            self.loop(frame, node)
        elif isinstance(node, ast.For):
            self.count(frame, node)
        elif isinstance(node, ast.Break):
            frame.loops[-1][0] = both(frame.loops[-1][0], negated(self.guard()))
        elif isinstance(node, ast.Continue):
            frame.loops[-1][1] = both(frame.loops[-1][1], negated(self.guard()))
        else:
            raise Unsupported(ast.dump(node)[:80])

    def assign(self, frame: Frame, target: ast.expr, value: Any) -> None:
        """A variable, or several."""
        if isinstance(target, ast.Tuple):
            for part, item in zip(target.elts, value, strict=True):
                self.assign(frame, part, item)
        elif isinstance(target, ast.Attribute):
            place, kind = self.member(self.value(frame, target.value), target.attr)
            if isinstance(kind, Number):
                self.store(place, value, 8 * kind.size)
            elif kind is not None:
                raise Unsupported(f"a store to {target.attr}")
        elif isinstance(target, ast.Subscript):
            if not isinstance(self.value(frame, target.value), z3.BitVecRef):
                raise Unsupported("a store to an item")
        elif isinstance(target, ast.Name):
            old = frame.variables.get(target.id)
            frame.variables[target.id] = value if old is None else self.merge(self.guard(), value, old)
        else:
            raise Unsupported(ast.dump(target)[:80])

    def branch(self, frame: Frame, node: ast.If) -> None:
        """Both ways, where the condition is not known."""
        condition = self.truth(self.value(frame, node.test))
        for way, statements in ((condition, node.body), (negated(condition), node.orelse)):
            if way is not False and statements:
                self._paths.append(way)
                self.block(frame, statements)
                self._paths.pop()

    def count(self, frame: Frame, node: ast.For) -> None:
        """`for x in range(n)` of a known n: every turn."""
        call = node.iter
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "range":
            raise Unsupported("a loop over something else than a range")
        bounds = [self.value(frame, argument) for argument in call.args]
        if not all(isinstance(bound, int) for bound in bounds):
            raise Unsupported("a range that is not known")
        frame.loops.append([True, True])
        for turn in range(*bounds):
            frame.loops[-1][1] = True
            self.assign(frame, node.target, turn)
            self.block(frame, node.body)
        frame.loops.pop()

    def loop(self, frame: Frame, node: ast.While) -> None:
        """A while loop, turn by turn."""
        frame.loops.append([True, True])
        for turn in range(2 * self.width):
            self._paths.append(frame.loops[-1][0])
            condition = self.truth(self.value(frame, node.test))
            self._paths.pop()
            frame.loops[-1][0] = folded(both(frame.loops[-1][0], condition))
            if frame.loops[-1][0] is False or (turn >= self.width and not self.possible(frame.loops[-1][0])):
                break
            frame.loops[-1][1] = True
            self.block(frame, node.body)
        else:
            raise Unsupported(f"a loop of {frame.function.__name__} that does not end")
        frame.loops.pop()

    def possible(self, condition: Any) -> bool:
        """Whether a condition can hold: asked where a loop should have ended."""
        solver = z3.SolverFor("QF_BV")
        solver.add(self.guard(), condition)
        return bool(solver.check() != z3.unsat)

    # expressions

    def value(self, frame: Frame, node: ast.expr) -> Any:
        """An expression."""
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            if isinstance(node.value, bool):
                return node.value
            return self._literals.get(node.value, node.value)
        if isinstance(node, ast.Name):
            return self.name(frame, node.id)
        if isinstance(node, ast.BinOp):
            return self.binary(node.op, self.value(frame, node.left), self.value(frame, node.right))
        if isinstance(node, ast.UnaryOp):
            return self.unary(node.op, self.value(frame, node.operand))
        if isinstance(node, ast.BoolOp):
            return self.connective(frame, node)
        if isinstance(node, ast.Compare):
            return self.comparisons(frame, node)
        if isinstance(node, ast.IfExp):
            return self.conditional(frame, node)
        if isinstance(node, ast.Tuple):
            return tuple(self.value(frame, part) for part in node.elts)
        if isinstance(node, ast.Call):
            return self.call(frame, node)
        if isinstance(node, ast.Attribute):
            return self.load_member(self.value(frame, node.value), node.attr)
        if isinstance(node, ast.Subscript):
            self.value(frame, node.slice)
            return self.fresh("item")
        raise Unsupported(ast.dump(node)[:80])

    def name(self, frame: Frame, name: str) -> Any:
        """A variable, or a constant of the module."""
        if name in frame.variables:
            return frame.variables[name]
        if name in self._scaled and self.width != 64:
            return self._scaled[name]
        if name not in frame.scope and not self.possible(True):
            return 0  # set on other ways only, and this one is not gone
        value = frame.scope[name]
        if not isinstance(value, int):
            raise Unsupported(f"{name} is no number")
        return int(value)

    def conditional(self, frame: Frame, node: ast.IfExp) -> Any:
        """`a if c else b`."""
        condition = self.truth(self.value(frame, node.test))
        if isinstance(condition, bool):
            return self.value(frame, node.body if condition else node.orelse)
        self._paths.append(condition)
        then = self.value(frame, node.body)
        self._paths[-1] = negated(condition)
        other = self.value(frame, node.orelse)
        self._paths.pop()
        return self.merge(condition, then, other)

    def connective(self, frame: Frame, node: ast.BoolOp) -> Any:
        """`and`, `or`: what stands right runs under what stands left."""
        conjunction = isinstance(node.op, ast.And)
        parts: list[Any] = []
        depth = len(self._paths)
        for operand in node.values:
            part = self.truth(self.value(frame, operand))
            parts.append(part)
            if part is (not conjunction):
                break
            self._paths.append(part if conjunction else negated(part))
        del self._paths[depth:]
        if conjunction:
            return both(*parts)
        if any(part is True for part in parts):
            return True
        return negated(both(*(negated(part) for part in parts)))

    def comparisons(self, frame: Frame, node: ast.Compare) -> Any:
        """Signed comparisons."""
        left = self.value(frame, node.left)
        found: list[Any] = []
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self.value(frame, right_node)
            found.append(self.compare(op, left, right))
            left = right
        return both(*found)

    def compare(self, op: ast.cmpop, left: Any, right: Any) -> Any:
        """One comparison."""
        if isinstance(left, (Pointer, Choice)) or isinstance(right, (Pointer, Choice)):
            if isinstance(op, (ast.Eq, ast.NotEq)) and (left == 0 or right == 0):
                return isinstance(op, ast.NotEq)  # records are not at 0
            raise Unsupported("addresses are compared")
        table: dict[type, Callable[[Any, Any], Any]] = {
            ast.Eq: lambda a, b: a == b,
            ast.NotEq: lambda a, b: a != b,
            ast.Lt: lambda a, b: a < b,
            ast.LtE: lambda a, b: a <= b,
            ast.Gt: lambda a, b: a > b,
            ast.GtE: lambda a, b: a >= b,
        }
        if isinstance(left, int) and isinstance(right, int):
            return table[type(op)](left, right)
        return folded(table[type(op)](self.number(left), self.number(right)))

    def unary(self, op: ast.unaryop, value: Any) -> Any:
        """Negation and complement."""
        if isinstance(op, ast.Not):
            return negated(self.truth(value))
        if isinstance(op, ast.USub):
            return self.wrapped(-value) if isinstance(value, int) else -self.number(value)
        if isinstance(op, ast.Invert):
            return ~value if isinstance(value, int) else ~self.number(value)
        raise Unsupported(ast.dump(op))

    def binary(self, op: ast.operator, left: Any, right: Any) -> Any:
        """Arithmetic of the width, which wraps; `>>` is arithmetic."""
        if isinstance(left, (Pointer, Choice)) or isinstance(right, (Pointer, Choice)):
            return self.moved(op, left, right)
        concrete: dict[type, Callable[[Any, Any], Any]] = {
            ast.Add: lambda a, b: a + b,
            ast.Sub: lambda a, b: a - b,
            ast.Mult: lambda a, b: a * b,
            ast.BitAnd: lambda a, b: a & b,
            ast.BitOr: lambda a, b: a | b,
            ast.BitXor: lambda a, b: a ^ b,
            ast.LShift: lambda a, b: a << b,
            ast.RShift: lambda a, b: a >> b,
        }
        if type(op) not in concrete:
            raise Unsupported(ast.dump(op))
        if isinstance(left, int) and isinstance(right, int):
            return self.wrapped(concrete[type(op)](left, right))
        if isinstance(op, (ast.LShift, ast.RShift)):
            self.defined(right)
        return concrete[type(op)](self.number(left), self.number(right))

    def defined(self, amount: Any) -> None:
        """A shift's amount must be below the width: beyond it, native code does not say what comes of it."""
        if self.width == 64:
            within = folded(z3.ULT(self.number(amount), self.width))
            if within is not True:
                self.obligations.append(("a shift is by less than 64", implied(self.guard(), within)))

    def moved(self, op: ast.operator, left: Any, right: Any) -> Any:
        """An address and a distance; an unknown distance leaves an unknown address."""
        if isinstance(right, (Pointer, Choice)):
            left, right = right, left
        if not isinstance(op, ast.Add):
            raise Unsupported("addresses are only added to")
        if not isinstance(right, int):
            return self.fresh("address")
        if isinstance(left, Choice):
            return Choice(tuple((c, Pointer(p.region, p.offset + right)) for c, p in left.options))
        return Pointer(left.region, left.offset + right)

    def call(self, frame: Frame, node: ast.Call) -> Any:
        """A device function, an intrinsic, or one of Python's functions over numbers."""
        if not isinstance(node.func, ast.Name) or node.keywords:
            raise Unsupported(ast.dump(node.func)[:80])
        arguments = [self.value(frame, argument) for argument in node.args]
        name = node.func.id
        if name in ("min", "max") and name not in frame.scope:
            best = arguments[0]
            for other in arguments[1:]:
                better = self.compare(ast.Lt() if name == "min" else ast.Gt(), other, best)
                best = self.merge(better, other, best) if not isinstance(better, bool) else other if better else best
            return best
        if name in ("int", "bool") and name not in frame.scope:
            return self.truth(arguments[0]) if name == "bool" else self.plain(arguments[0])
        function = frame.scope[name]
        if isinstance(function, type) and issubclass(function, Record):
            return self.typed(arguments[0], function)
        for model, intrinsic in self._intrinsics:
            if intrinsic is function:
                return model(*arguments)
        if not hasattr(function, "py_func"):
            raise Unsupported(f"{name} has no model")
        return self.run(function, *arguments)

    def _models(self) -> list[tuple[Callable[..., Any], Any]]:
        """Intrinsics of native/intrinsics.py."""

        def unsigned(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
            return lambda a, b: folded(compare(self.number(a), self.number(b)))

        def shifted(a: Any, b: Any) -> Any:
            self.defined(b)
            return z3.LShR(self.number(a), self.number(b))

        def divided(a: Any, b: Any) -> Any:
            return z3.UDiv(self.number(a), self.number(b))

        names = itertools.count()
        found: list[tuple[Callable[..., Any], Any]] = [
            (unsigned(z3.ULT), intrinsics.ult),
            (unsigned(z3.ULE), intrinsics.ule),
            (shifted, intrinsics.lshr),
            (divided, intrinsics.udiv),
            (self.copy, intrinsics.memcpy),
            (lambda size: Pointer(f"stack{next(names)}"), intrinsics.stack_bytes),
        ]
        for bits in (8, 32, 64):
            found.append((lambda address, bits=bits: self.load(address, bits), getattr(intrinsics, f"load{bits}")))
            store = getattr(intrinsics, f"store{bits}")
            found.append((lambda address, value, bits=bits: self.store(address, value, bits), store))
        return found


def folded(condition: Any) -> Any:
    """A condition that is true or false whatever its variables are, as that."""
    if isinstance(condition, bool):
        return condition
    simple = z3.simplify(condition)
    return True if z3.is_true(simple) else False if z3.is_false(simple) else simple


def implied(guard: Any, condition: Any) -> Any:
    """`guard` implies `condition`."""
    return condition if guard is True else z3.Implies(guard, condition)
