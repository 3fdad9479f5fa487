"""solve: an expression that a field holds, turned around: what the field tells of which place, and how to compute it.

`Told(path, ops)`: start with the recorded value, do the operations in their order, and it is what the place held.

    <<N >>N +N -N *N /N neg ~   arithmetic          and N        only these bits of the value
    +@F -@F                     with another field  mask N       of the place only these bits are known
    swap16 swap32 swap64        byte order          true V       the place is not 0 where the value is V, 0 elsewhere
    errno rwbs sector encdev    inverses of blk_status_to_errno, blk_fill_rwbs, blk_rq_trace_sector, new_encode_dev
    id pfn, id hash             the value names the object that the pointer at the place leads to
    null P V                    where the value is V, the pointer at path P was NULL
    unless V                    where the value is V, it says nothing
    is V C                      where the value is V, the place was C; elsewhere nothing is known
    if F==V, if F!=V            only where another field has, or has not, a value
    assume                      holds where a pointer that the kernel never leaves empty was not empty
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .assigns import NOTHING, Held
from .cexpr import Binary, Call, Cast, Cond, Expr, Index, Member, Name, Num, Opaque, Str, Unary, rebuild, text_of, value_of
from .resolve import bare, path_of

_NUMBERS = {"$swap16": "swap16", "$swap32": "swap32", "$swap64": "swap64", "$errno": "errno", "$trace_sector": "sector",
            "$encode_dev": "encdev", "$id_pfn": "id pfn", "$id_hash": "id hash"}  # fmt: skip
_U64 = (1 << 64) - 1


class NoInverse(Exception):  # noqa: N818 - an answer, not a fault
    """The expression cannot be turned around; why."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a field tells of a place."""

    path: str
    ops: tuple[str, ...] = ()

    def text(self) -> str:
        """As the data files have it."""
        return "|".join((self.path, *self.ops))


class Solver:
    """For one event class. `plain`: path -> field that records it as it is."""

    def __init__(self, args: Collection[str], plain: Mapping[str, str]) -> None:
        self.args = args
        self.plain = plain
        self.ways: set[str] = set()

    def field(self, held: Held) -> list[Told]:
        """All that a field (or a part of one) tells; nothing for a constant. NoInverse."""
        self.ways = set()
        if held.how == "formatted":
            raise NoInverse(f"a text made by a format: {text_of(held.expr)}")
        if held.how == "rwbs":
            return self._invert(held.expr, ("rwbs",))
        if held.how == "v4mapped":
            return self._invert(held.expr, ("v4mapped",))
        if held.how in ("text", "bytes"):
            self.ways.add("text" if held.how == "text" else "bytes")
        return self._invert(held.expr, ())

    # expressions

    def _path(self, expr: Expr) -> str | None:
        return path_of(expr, self.args)

    def _invert(self, expr: Expr, ops: tuple[str, ...]) -> list[Told]:
        if isinstance(expr, (Num, Str)) or expr == NOTHING:
            self.ways.add("constant")
            return []
        path = self._path(expr)
        if path is not None:
            self.ways.add("path" if not ops else "computed path")
            return [Told(path, ops)]
        if isinstance(expr, Cast):
            return self._invert(expr.value, ops)
        if isinstance(expr, Cond):
            return self._cond(expr, ops)
        if isinstance(expr, Call) and isinstance(expr.func, Name):
            return self._call(expr, expr.func.name, ops)
        if isinstance(expr, Unary):
            return self._unary(expr, ops)
        if isinstance(expr, Binary):
            return self._binary(expr, ops)
        if isinstance(expr, Index):
            raise NoInverse(f"an element whose number is not recorded: {text_of(expr)}")
        raise NoInverse(expr.text if isinstance(expr, Opaque) else text_of(expr))

    def _unary(self, expr: Unary, ops: tuple[str, ...]) -> list[Told]:
        if expr.op in "-~+":
            self.ways.add("arithmetic")
            return self._invert(expr.value, (*ops, *{"-": ("neg",), "~": ("~",), "+": ()}[expr.op]))
        if expr.op == "!":
            return self._truth(expr, ops)
        raise NoInverse(text_of(expr))

    def _call(self, expr: Call, name: str, ops: tuple[str, ...]) -> list[Told]:
        if name == "$event":
            self.ways.add("the event itself")
            return []
        if name in _NUMBERS:
            self.ways.add("known function")
            return self._invert(expr.args[0], (*ops, _NUMBERS[name]))
        if name == "$none_if":
            default = value_of(expr.args[1])
            inner = self._invert(expr.args[0], ops)
            self.ways.add("known function")
            pointer = _pointer(inner[0].path) if inner and "id" not in inner[0].ops[-1:][0:1] else ""
            return [
                Told(told.path, (*told.ops, f"null {told.path if _is_id(told) else pointer or _pointer(told.path)} {default}"))
                for told in inner
            ]
        if name == "$unless":
            self.ways.add("known function")
            default = value_of(expr.args[1])
            return [Told(told.path, (*told.ops, f"unless {default}")) for told in self._invert(expr.args[0], ops)]
        if name == "$devt":
            self.ways.add("known function")
            return [*self._invert(expr.args[0], (*ops, ">>20")), *self._invert(expr.args[1], (*ops, "and 0xfffff"))]
        if self._from_fields(expr):
            return []
        raise NoInverse(text_of(expr))

    def _binary(self, expr: Binary, ops: tuple[str, ...]) -> list[Told]:
        op, left, right = expr.op, expr.left, expr.right
        if op in ("==", "!=", "<", ">", "<=", ">=", "&&", "||"):
            return self._truth(expr, ops)
        if _branches(left) or _branches(right):
            try:
                return self._truth(expr, ops)
            except NoInverse:
                pass
        constant = value_of(right)
        if constant is None and op in "+*&|^" and value_of(left) is not None:
            left, right, constant = right, left, value_of(left)
        if constant is not None:
            undone = _undo(op, constant)
            if undone is not None:
                self.ways.add("arithmetic")
                return self._invert(left, (*ops, *undone))
        elif value_of(left) is not None and op == "-":
            self.ways.add("arithmetic")
            return self._invert(right, (*ops, "neg", f"+{value_of(left)}"))
        if op in "|+" and constant is None:
            for high, low in ((left, right), (right, left)):
                shift = value_of(high.right) if isinstance(high, Binary) and high.op == "<<" else None
                if shift is not None and isinstance(high, Binary) and 0 < shift < 64:
                    self.ways.add("arithmetic")
                    rest = self._invert(low, (*ops, f"and {(1 << shift) - 1:#x}"))
                    return [*self._invert(high.left, (*ops, f">>{shift}")), *rest]
        if op in "+-" and constant is None:
            return self._sum(expr, ops)
        if self._from_fields(expr):
            return []
        raise NoInverse(text_of(expr))

    def _sum(self, expr: Binary, ops: tuple[str, ...]) -> list[Told]:
        left, right = self._recorded(expr.left), self._recorded(expr.right)
        if left and right:
            self.ways.add("told by other fields")
            return []
        if right:
            self.ways.add("arithmetic")
            return self._invert(expr.left, (*ops, f"{'-' if expr.op == '+' else '+'}@{right}"))
        if left:
            self.ways.add("arithmetic")
            return self._invert(expr.right, (*ops, *([f"-@{left}"] if expr.op == "+" else ["neg", f"+@{left}"])))
        raise NoInverse(text_of(expr))

    def _recorded(self, expr: Expr) -> str:
        path = self._path(expr)
        return self.plain.get(bare(path), "") if path is not None else ""

    def _from_fields(self, expr: Expr) -> bool:
        """Whether all that an expression reads is recorded elsewhere."""
        leaves = self._leaves(expr)
        if not leaves or any(bare(leaf) not in self.plain for leaf in leaves) or _unknown(expr):
            return False
        self.ways.add("told by other fields")
        return True

    def _leaves(self, expr: Expr) -> set[str]:
        path = self._path(expr)
        if path is not None:
            return {path}
        found: set[str] = set()

        def look(part: Expr) -> Expr:
            found.update(self._leaves(part))
            return part

        rebuild(expr, look)
        return found

    # conditions

    def _truth(self, expr: Expr, ops: tuple[str, ...]) -> list[Told]:
        """An expression that has one of two values, by one thing that is 0 or not."""
        units = _units(expr, self.args)
        if len(units) != 1:
            if self._from_fields(expr):
                return []
            raise NoInverse(text_of(expr))
        unit = units.pop()
        mask = value_of(unit.right) if isinstance(unit, Binary) else None
        path = self._path(unit.left if isinstance(unit, Binary) else unit)
        on, off = _worth(expr, unit, mask or 1), _worth(expr, unit, 0)
        self.ways.add("condition")
        if path is not None and on is not None and off is not None and on != off:
            bit = (f"*{mask}", f"mask {mask:#x}") if mask is not None else ()
            return [Told(path, (*ops, f"true {_shown(on)}", *bit))]
        if path is not None and mask is None:
            for number in sorted(_numbers(expr)):
                here, there = _worth(expr, unit, number), _worth(expr, unit, number + 1)
                if here is not None and there is not None and here != there:
                    return [Told(path, (*ops, f"is {_shown(here)} {number}"))]
        if self._from_fields(expr):
            return []
        raise NoInverse(text_of(expr))

    def _cond(self, expr: Cond, ops: tuple[str, ...]) -> list[Told]:
        test, then, other = expr.test, expr.then, expr.other
        if NOTHING in (then, other) and _constant(then) and _constant(other):
            self.ways.add("constant")
            return []
        guard = self._field_test(test)
        if guard is not None and NOTHING in (then, other):
            name, value, equal = guard
            sign = "==" if equal == (other == NOTHING) else "!="
            self.ways.add("condition")
            return self._guarded(then if other == NOTHING else other, ops, f"if {name}{sign}{value}")
        if _constant(then) and _constant(other):
            return self._truth(expr, ops) if then != other else []
        pointer, positive = self._pointer_test(test)
        if not positive:
            then, other = other, then
        self.ways.add("condition")
        if _constant(other) and pointer:
            default = _default(other)
            told = self._invert(then, ops)
            return [Told(item.path, (*item.ops, f"null {pointer} {default}")) if default else item for item in told]
        if _constant(then) and pointer and not isinstance(then, Opaque):
            return [Told(item.path, (*item.ops, f"unless {_default(then)}")) for item in self._invert(other, ops)]
        for side, rest in ((then, other), (other, then)):
            if _constant(rest):
                default = _default(rest)
                return [
                    Told(item.path, (*item.ops, f"unless {default}")) if default else item for item in self._invert(side, ops)
                ]
        if guard is not None:
            name, value, equal = guard
            yes, no = (
                (f"if {name}=={value}", f"if {name}!={value}")
                if equal == positive
                else (f"if {name}!={value}", f"if {name}=={value}")
            )
            return [*self._guarded(then, ops, yes), *self._guarded(other, ops, no)]
        if pointer:
            told = self._invert(then, ops)
            if any(item.path.startswith(pointer) for item in told):
                return [Told(item.path, (*item.ops, "assume")) for item in told]
        first, second = self._invert(then, ops), self._invert(other, ops)
        if first == second:
            return first
        raise NoInverse(text_of(expr))

    def _guarded(self, expr: Expr, ops: tuple[str, ...], guard: str) -> list[Told]:
        return [Told(item.path, (*item.ops, guard)) for item in self._invert(expr, ops)]

    def _pointer_test(self, test: Expr) -> tuple[str, bool]:
        """(path, whether the test holds where it is not NULL); "" for another test."""
        if isinstance(test, Cast):
            return self._pointer_test(test.value)
        if isinstance(test, Unary) and test.op == "!":
            path, positive = self._pointer_test(test.value)
            return path, not positive
        if isinstance(test, Binary) and test.op in ("==", "!=") and test.right == Num(0):
            path, positive = self._pointer_test(test.left)
            return path, positive if test.op == "!=" else not positive
        if isinstance(test, Binary) and test.op == "&&":
            for side in (test.right, test.left):
                path, positive = self._pointer_test(side)
                if path and positive:
                    return path, True
        if isinstance(test, Binary) and test.op == "||":
            for side in (test.right, test.left):
                path, positive = self._pointer_test(side)
                if path and not positive:
                    return path, False
        return self._path(test) or "", True

    def _field_test(self, test: Expr) -> tuple[str, int, bool] | None:
        """(field, value, whether it must be equal) of a test of something that a field records."""
        if isinstance(test, Binary) and test.op in ("==", "!="):
            value, name = value_of(test.right), self._recorded(test.left)
            if value is not None and name:
                return name, value, test.op == "=="
        name = self._recorded(test)
        return (name, 0, False) if name else None


def _undo(op: str, constant: int) -> tuple[str, ...] | None:
    if op == "+":
        return (f"-{constant}",) if constant else ()
    if op == "-":
        return (f"+{constant}",) if constant else ()
    if op == "*":
        return (f"/{constant}",) if constant else None
    if op == "/":
        return (f"*{constant}",) if constant else None
    if op == "<<":
        return (f">>{constant}",) if 0 <= constant < 64 else None
    if op == ">>":
        return (f"<<{constant}",) if 0 <= constant < 64 else None
    if op == "&":
        return (f"mask {constant & _U64:#x}",) if constant else None
    if op == "|":
        return (f"mask {~constant & _U64:#x}",)
    if op == "^":
        return (f"^{constant & _U64:#x}",)
    return None


def _is_id(told: Told) -> bool:
    return any(op.startswith("id ") for op in told.ops)


def _pointer(path: str) -> str:
    """The pointer that a path goes through last."""
    return path.rpartition("->")[0] or path


def _constant(expr: Expr) -> bool:
    while isinstance(expr, Cast):
        expr = expr.value
    if isinstance(expr, Cond):
        return _constant(expr.then) and _constant(expr.other) and expr.then == expr.other
    return isinstance(expr, (Num, Str)) or expr == NOTHING or value_of(expr) is not None


def _default(expr: Expr) -> str:
    """A constant as an operation names it; "" for nothing."""
    while isinstance(expr, Cast):
        expr = expr.value
    if isinstance(expr, Str):
        return f'"{expr.text}"'
    value = value_of(expr)
    return "" if value is None else str(value)


def _shown(value: int | str) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def _units(expr: Expr, args: Collection[str]) -> set[Expr]:
    """The things that an expression depends on: paths, and bits of paths."""
    if isinstance(expr, Binary) and expr.op == "&" and value_of(expr.right) is not None and path_of(expr.left, args) is not None:
        return {expr}
    if path_of(expr, args) is not None:
        return {expr}
    found: set[Expr] = set()

    def look(part: Expr) -> Expr:
        found.update(_units(part, args))
        return part

    if isinstance(expr, (Call, Opaque)) and expr != NOTHING:
        return {Opaque("?"), Opaque("??")}
    rebuild(expr, look)
    return found


def _worth(expr: Expr, unit: Expr, value: int) -> int | str | None:
    while isinstance(expr, Cast):
        expr = expr.value
    if isinstance(expr, Str):
        return expr.text
    if isinstance(expr, Cond):
        test = value_of(expr.test, lambda part: value if part == unit else None)
        return None if test is None else _worth(expr.then if test else expr.other, unit, value)
    return value_of(expr, lambda part: value if part == unit else None)


def _branches(expr: Expr) -> bool:
    while isinstance(expr, Cast):
        expr = expr.value
    return isinstance(expr, Cond) and _constant(expr.then) and _constant(expr.other)


def _numbers(expr: Expr) -> set[int]:
    found: set[int] = set()

    def look(part: Expr) -> Expr:
        found.update(_numbers(part))
        return part

    if isinstance(expr, Num):
        return {expr.value}
    rebuild(expr, look)
    return found


def _unknown(expr: Expr) -> bool:
    if isinstance(expr, Opaque):
        return True
    found = False

    def look(part: Expr) -> Expr:
        nonlocal found
        found = found or _unknown(part)
        return part

    rebuild(expr, look)
    return found


__all__ = ["Member", "NoInverse", "Solver", "Told"]
