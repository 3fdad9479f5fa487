"""What a native function asks of a run: which members of Env, RunCtx and Timers it and all that it calls can touch.

Found from the functions' own source: the types of names are those of their annotations, and follow from the records' members.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from typing import Any

from fastrtp.native.intrinsics import FIRES, OUTLINED, REGISTRY, NativeFunction
from fastrtp.native.record import Address, Inner, Items, Kind, Offset, Record
from fastrtp.native.records import Env, RunCtx, Timers

_OF_A_RUN: dict[type[Record], str] = {Env: "env", RunCtx: "run_ctx", Timers: "timers"}


def uses(entry: NativeFunction) -> frozenset[str]:
    """Members of the records of a run ("env.time"), and "fires" when it can fire an event: nobody has to keep a list."""
    found: set[str] = set()
    seen: set[int] = set()
    pending: list[Any] = [entry.function]
    while pending:
        body = pending.pop().py_func
        if id(body) in seen:
            continue
        seen.add(id(body))
        for name in body.__code__.co_names:
            value = body.__globals__.get(name)
            if isinstance(value, Offset):
                found |= _named(value.record, value.name)
            elif hasattr(value, "py_func"):
                pending.append(value)
            elif any(value is caller for caller in FIRES):
                found.add("fires")
            else:
                pending += [REGISTRY[called].function for caller, called in OUTLINED if caller is value]
        found |= members(body)
    return frozenset(found)


def _named(record: type[Record], name: str) -> set[str]:
    return {f"{_OF_A_RUN[record]}.{name}"} if record in _OF_A_RUN else set()


@functools.cache
def members(function: Any) -> frozenset[str]:
    """Those that the body itself names: `env.time`, `env.run_ctx.cookie`, `map.machine.timers.seq`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except OSError:  # generated text, which has offsets as numbers
        return frozenset()
    assert isinstance(tree, ast.FunctionDef)
    return frozenset(_Body(function.__globals__, tree).found)


class _Body:
    """The records that names and expressions of a function stand for."""

    def __init__(self, scope: dict[str, Any], tree: ast.FunctionDef) -> None:
        self.scope = scope
        self.known: dict[str, Kind | None] = {}
        self.found: set[str] = set()
        for parameter in tree.args.args:
            self.known[parameter.arg] = self._annotated(parameter.annotation)
        stores = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        while True:
            before = dict(self.known)
            for store in stores:
                self._store(store.targets[0], store.value)
            if self.known == before:
                break
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                kind = self.kind(node.value)
                if isinstance(kind, Inner):
                    self.found |= _named(kind.record, node.attr)

    def _store(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            for one, other in zip(target.elts, value.elts, strict=True):
                self._store(one, other)
        elif isinstance(target, ast.Name) and self.known.get(target.id) is None:
            self.known[target.id] = self.kind(value)

    def _annotated(self, annotation: ast.expr | None) -> Kind | None:
        if isinstance(annotation, ast.Subscript):
            item = self._annotated(annotation.slice)
            return Items(item, 0) if isinstance(item, Inner) else None
        named = self.scope.get(annotation.id) if isinstance(annotation, ast.Name) else None
        return Inner(named) if isinstance(named, type) and issubclass(named, Record) else None

    def kind(self, node: ast.expr) -> Kind | None:
        """What an expression is: a record (that is, its address), items, or nothing that has members."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if isinstance(node, ast.IfExp):
            return self.kind(node.body) or self.kind(node.orelse)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            field = owner.record.layout.fields.get(node.attr) if isinstance(owner, Inner) else None
            return _target(field.kind) if field else None
        if isinstance(node, ast.Subscript):
            array = self.kind(node.value)
            return _target(array.item) if isinstance(array, Items) else None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = self.scope.get(node.func.id)
            if isinstance(called, type) and issubclass(called, Record):
                return Inner(called)
            text = getattr(called, "py_func", None)
            named = text.__globals__.get(text.__annotations__.get("return")) if text is not None else None
            return Inner(named) if isinstance(named, type) and issubclass(named, Record) else None
        return None


def _target(kind: Kind) -> Kind | None:
    """What a member gives when it is named: what it points at, for an address."""
    if not isinstance(kind, Address):
        return kind
    if not isinstance(kind.record, type):
        return None
    return Items(Inner(kind.record), 0) if kind.several else Inner(kind.record)
