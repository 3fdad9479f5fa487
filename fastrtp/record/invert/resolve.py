"""Expressions made plain: functions and macros replaced by what they are worth, until only members of arguments are left.

A path says where something is, from an argument or from `current`: `rq->q->disk`, `skb->cb[2]`, `sk@tcp_sock->snd_cwnd` (the
pointer seen as one to another struct), `w@-delayed_work.work->cpu` (container_of).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from .assigns import NOTHING, Walker
from .cexpr import (
    Binary,
    Call,
    Cast,
    Cond,
    CSyntaxError,
    Expr,
    Index,
    Member,
    Name,
    Num,
    Opaque,
    Str,
    Type,
    Unary,
    parse,
    rebuild,
)
from .index import Index as TreeIndex
from .known import known

_SEEN = re.compile(r"@(?!-)\w+")
_CAST = re.compile(r"@\w+$")
_GLOBALS = {"jiffies": "time", "jiffies_64": "time", "sched_clock_irqtime": "time", "tick_nsec": "time", "nr_running": "time"}
_MAX_DEPTH = 24
_SCALARS = frozenset(
    [
        "void",
        "char",
        "short",
        "int",
        "long",
        "unsigned",
        "signed",
        "const",
        "volatile",
        "__force",
        "__user",
        "__iomem",
        "__rcu",
        "__percpu",
        "struct",
        "union",
        "enum",
    ]
)


class Resolver:
    """For the events of one header. `args`: names that are arguments; `functions`: those that the header itself defines."""

    def __init__(
        self, index: TreeIndex, header: str, args: Collection[str], functions: Mapping[str, tuple[list[str], list[str]]]
    ) -> None:
        self.index = index
        self.header = header
        self.args = frozenset(args)
        self.functions = functions
        self.inlined: set[str] = set()
        """Names of what was replaced by its definition."""

    def __call__(self, expr: Expr, depth: int = 0) -> Expr:
        """The plain form."""
        if depth > _MAX_DEPTH:
            return expr
        if isinstance(expr, Name):
            return self._name(expr, depth)
        if isinstance(expr, Call):
            return self._call(expr, depth)
        if isinstance(expr, Member):
            return self._member(expr, depth)
        if isinstance(expr, Unary) and expr.op == "*":
            inner = self(expr.value, depth + 1)
            return inner.value if isinstance(inner, Unary) and inner.op == "&" else Unary("*", inner)
        return rebuild(expr, lambda part: self(part, depth + 1))

    def _name(self, expr: Name, depth: int) -> Expr:
        name = expr.name
        if name in self.args or name == "current" or name[0] == "$" or name == "__entry":
            return expr
        if name in ("NULL", "false"):
            return Num(0)
        if name == "true":
            return Num(1)
        if name in _GLOBALS:
            return Call(Name("$event"), (Name(_GLOBALS[name]),))
        value = self.index.constant(name, self.header)
        if value is not None:
            return Num(value)
        for params, body in self.index.macro(name, self.header):
            if params is None and body and body != [name]:
                try:
                    return self(parse(body), depth + 1)
                except CSyntaxError:
                    continue
        return expr

    def _member(self, expr: Member, depth: int) -> Expr:
        base = self(expr.base, depth + 1)
        names = self._member_names(expr.name)
        if isinstance(base, Cond):
            return Cond(base.test, *(self._step(side, names, expr.arrow) for side in (base.then, base.other)))
        return self._step(base, names, expr.arrow)

    def _step(self, base: Expr, names: list[str], arrow: bool) -> Expr:
        if isinstance(base, Num) or base == NOTHING:
            return NOTHING
        if arrow and isinstance(base, Unary) and base.op == "&":
            base, arrow = base.value, False
        elif not arrow and isinstance(base, Unary) and base.op == "*":
            base, arrow = base.value, True
        found: Expr = Member(base, names[0], arrow)
        for name in names[1:]:
            found = Member(found, name, False)
        return found

    def _member_names(self, name: str) -> list[str]:
        """A member's name, or the path that a macro makes of it."""
        for params, body in self.index.macro(name, self.header):
            if params is None and len(body) >= 1 and len(body) % 2 and all(token == "." for token in body[1::2]):
                names = body[::2]
                if all(token.isidentifier() for token in names) and names != [name] and (len(names) > 1 or names[0].islower()):
                    first, *rest = names
                    return [*(self._member_names(first) if first != name else [first]), *rest]
        return [name]

    def _call(self, expr: Call, depth: int) -> Expr:
        if not isinstance(expr.func, Name):
            return rebuild(expr, lambda part: self(part, depth + 1))
        name = expr.func.name
        args = tuple(arg if isinstance(arg, Type) else self(arg, depth + 1) for arg in expr.args)
        if name in ("container_of", "container_of_const", "list_entry", "rb_entry") and len(args) == 3:
            kind, member = args[1], expr.args[2]
            if isinstance(kind, (Type, Name)):
                words = [
                    word
                    for word in (kind.text if isinstance(kind, Type) else kind.name).replace("*", " ").split()
                    if word not in _SCALARS
                ]
                if words:
                    return Call(Name("container_of"), (args[0], Name(words[-1]), Name(_dotted(member))))
        if name[0] == "$":
            return Call(expr.func, args)
        row = known(name, len(args))
        if row is not None:
            self.inlined.add(name)
            return self(_bind(row[1], dict(zip(row[0], args, strict=True))), depth + 1)
        found = self._inline(name, args, depth)
        return found if found is not None else Call(expr.func, args)

    def _inline(self, name: str, args: tuple[Expr, ...], depth: int) -> Expr | None:
        local = self.functions.get(name)
        candidates = [local] if local is not None else self.index.functions(name, self.header)
        best: Expr | None = None
        for params, body in candidates:
            if len(params) != len(args) or len(body) > 400:
                continue
            walker = Walker((), lambda expr: expr)
            walker.locals = dict(zip(params, args, strict=True))
            walker.run(body)
            if walker.returned is None or walker.returned == NOTHING:
                continue
            found = self(walker.returned, depth + 1)
            if not _opaque(found):
                self.inlined.add(name)
                return found
            best = best or found
        for given, body in self.index.macro(name, self.header):
            if given is not None and len(given) == len(args) and body:
                try:
                    found = self(_bind(parse(body), dict(zip(given, args, strict=True))), depth + 1)
                except CSyntaxError:
                    continue
                self.inlined.add(name)
                return found
        return best


def _bind(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    if isinstance(expr, Name):
        return values.get(expr.name, expr)
    return rebuild(expr, lambda part: _bind(part, values))


def _opaque(expr: Expr) -> bool:
    if isinstance(expr, Opaque):
        return expr != NOTHING
    if isinstance(expr, Call) and isinstance(expr.func, Name) and expr.func.name[0] != "$" and expr.func.name != "container_of":
        return True
    found = False

    def look(part: Expr) -> Expr:
        nonlocal found
        found = found or _opaque(part)
        return part

    rebuild(expr, look)
    return found


def _dotted(expr: Expr) -> str:
    if isinstance(expr, Member):
        return f"{_dotted(expr.base)}.{expr.name}"
    return expr.name if isinstance(expr, Name) else "?"


def bare(path: str) -> str:
    """A path without what its pointers are seen as."""
    return _SEEN.sub("", path)


def path_of(expr: Expr, args: Collection[str]) -> str | None:
    """The path that an expression is, None where it is none."""
    if isinstance(expr, Name):
        return expr.name if expr.name in args or expr.name == "current" else None
    if isinstance(expr, Member):
        base = path_of(expr.base, args)
        return None if base is None else f"{base}{'->' if expr.arrow else '.'}{expr.name}"
    if isinstance(expr, Index):
        base = path_of(expr.base, args)
        if base is None:
            return None
        if isinstance(expr.index, Num):
            return f"{base}[{expr.index.value}]"
        return f"{base}[]" if expr.index == Name("$i") else None
    if isinstance(expr, Cast):
        base = path_of(expr.value, args)
        words = [word for word in expr.type.replace("*", " ").split() if word not in _SCALARS]
        if base is None or "*" not in expr.type or not words or not ("struct" in expr.type or "union" in expr.type):
            return base
        return f"{_CAST.sub('', base)}@{words[0]}"
    if isinstance(expr, Unary) and expr.op == "*":
        base = path_of(expr.value, args)
        return None if base is None else f"{base}[0]"
    if isinstance(expr, Unary) and expr.op == "&":
        base = path_of(expr.value, args)
        return None if base is None else f"{base}&"
    if isinstance(expr, Call) and expr.func == Name("container_of") and len(expr.args) == 3:
        base = path_of(expr.args[0], args)
        kind, member = expr.args[1], expr.args[2]
        if base is not None and isinstance(kind, Name) and isinstance(member, Name):
            return f"{base}@-{kind.name}.{member.name}"
    return None


__all__ = ["Binary", "Resolver", "Str", "path_of"]
