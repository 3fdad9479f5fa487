"""make: the recipes of a whole kernel tree, and what became of every field."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .assigns import Held, Walker
from .cexpr import Binary, Call, Cast, Cond, Expr, Index, Member, Name, Opaque, Unary
from .headers import EntryField, EventClass, TraceEvent, Tree
from .index import Index as TreeIndex
from .resolve import Resolver, bare, path_of
from .solve import NoInverse, Solver, Told

Progress = Callable[[int, int], None]


@dataclass
class FieldResult:
    """A field: what it tells, by part ("" is the whole field), or why nothing: the expression, and in a few words."""

    entry: EntryField
    told: dict[str, list[Told]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    short: dict[str, str] = field(default_factory=dict)
    ways: set[str] = field(default_factory=set)

    @property
    def inverted(self) -> bool:
        """Whether nothing of it was left."""
        return bool(self.told) and not self.why


@dataclass
class ClassResult:
    """An event class with its fields."""

    of: EventClass
    fields: list[FieldResult]


@dataclass
class Made:
    """A tree's events. `classes`: by the identity of their class."""

    version: str
    events: list[TraceEvent]
    classes: dict[int, ClassResult]
    problems: list[str]

    def result(self, event: TraceEvent) -> ClassResult | None:
        """The result of an event's class; None where it records nothing."""
        return self.classes[id(event.of)] if event.of is not None else None

    def unique(self) -> list[ClassResult]:
        """Each class once."""
        return list(self.classes.values())


def make(root: Path, *, arches: bool = False, progress: Progress | None = None) -> Made:
    """Read a kernel source tree. `arches`: other architectures than x86, too. ValueError where there is none."""
    tree = Tree(root)
    index = TreeIndex(root)
    headers = tree.headers(arches)
    events: list[TraceEvent] = []
    classes: dict[int, ClassResult] = {}
    for number, header in enumerate(headers):
        for event in tree.events(header):
            events.append(event)
            if event.of is not None and id(event.of) not in classes:
                classes[id(event.of)] = solve_class(event.of, index)
        if progress is not None:
            progress(number + 1, len(headers))
    return Made(tree.version(), events, classes, tree.problems)


def solve_class(of: EventClass, index: TreeIndex) -> ClassResult:
    """Every field of a class."""
    args = [arg.name for arg in of.args]
    resolver = Resolver(index, of.header, args, of.functions)
    walker = Walker(of.fields)
    walker.run(of.body)
    held: dict[str, dict[str, Held]] = {}
    for (name, part), item in walker.fields.items():
        held.setdefault(name, {})[part] = Held(item.how, resolver(item.expr))
    plain: dict[str, str] = {}
    for entry in of.fields:
        whole = held.get(entry.name, {}).get("")
        path = path_of(whole.expr, args) if whole is not None and whole.how == "value" else None
        if path is not None:
            plain.setdefault(bare(path), entry.name)
    results = []
    for entry in of.fields:
        result = FieldResult(entry)
        parts = held.get(entry.name, {})
        for part, item in parts.items():
            solver = Solver(args, {path: name for path, name in plain.items() if name != entry.name})
            try:
                result.told[part] = solver.field(item)
                result.ways |= solver.ways
            except NoInverse as reason:
                result.why[part] = str(reason)
                result.short[part] = "a text made by a format" if item.how == "formatted" else short_reason(item.expr)
        if not parts:
            result.why[""] = "; ".join(walker.problems) or "nothing assigns it"
            result.short[""] = "not read" if walker.problems else "nothing assigns it"
        results.append(result)
    return ClassResult(of, results)


def counts(results: Iterable[ClassResult]) -> tuple[int, int, Counter[str]]:
    """(fields, inverted, by way)."""
    total = inverted = 0
    ways: Counter[str] = Counter()
    for result in results:
        for item in result.fields:
            total += 1
            if item.inverted:
                inverted += 1
                ways[_way(item)] += 1
    return total, inverted, ways


_ORDER = (
    "the event itself", "told by other fields", "condition", "known function", "arithmetic", "text", "bytes", "computed path",
    "path", "constant",
)  # fmt: skip


def _way(item: FieldResult) -> str:
    return next((way for way in _ORDER if way in item.ways), "constant")


def short_reason(expr: Expr) -> str:
    """Why an expression was left, in a few words that hold none of it."""
    while isinstance(expr, Cast):
        expr = expr.value
    if isinstance(expr, Call) and isinstance(expr.func, Name):
        return f"made by {expr.func.name.lstrip('$')}()"
    if isinstance(expr, Cond):
        return "one of several things, by a condition that is not recorded"
    if isinstance(expr, (Binary, Unary)):
        return "computed from things that are not recorded"
    if isinstance(expr, Member):
        return f"member {expr.name} of something that is computed"
    if isinstance(expr, Index):
        return "an element whose number is not recorded"
    return expr.text if isinstance(expr, Opaque) and "(" not in expr.text else "computed"
