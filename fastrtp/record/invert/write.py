"""What was made of a tree as a file of recipes, and as the report that people read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .make import ClassResult, FieldResult, Made, counts


def content(made: Made) -> dict[str, Any]:
    """The file's content (fastrtp/record/recipes/data.py says how it is read). Equal classes are written once."""
    classes: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    events: list[list[Any]] = []
    for event in made.events:
        result = made.result(event)
        args = [[arg.c_type, arg.name] for arg in event.args]
        if result is None:
            events.append([event.system, event.name, None, args])
            continue
        shared = {
            "args": [[arg.c_type, arg.name] for arg in result.of.args],
            "fields": {item.entry.name: _value(item) for item in result.fields},
        }
        number = numbers.setdefault(repr(shared), len(classes))
        if number == len(classes):
            classes.append(shared)
        events.append([event.system, event.name, number, None if args == shared["args"] else args])
    return {"kernel": made.version, "classes": classes, "events": events}


def _value(item: FieldResult) -> Any:
    parts: dict[str, Any] = {}
    for part, told in item.told.items():
        texts = [one.text() for one in told]
        parts[part] = texts[0] if len(texts) == 1 else texts or ""
    for part in item.why:
        parts[part] = f"?{item.short.get(part, 'not read')}"
    return parts[""] if list(parts) == [""] else parts


def report(made: Made, *, left: bool = True) -> Iterator[str]:
    """Lines: how much was inverted and by which way, and what was not, with its expression."""
    every = made.unique()
    common = [result for result in every if result.of.header.startswith("include/trace/events/")]
    yield f"Linux {made.version}: {len(made.events)} tracepoints, {len(every)} classes with a TP_fast_assign of their own"
    for name, results in (("all headers", every), ("include/trace/events", common)):
        total, inverted, ways = counts(results)
        share = inverted / total if total else 0.0
        yield f"{name}: {inverted} of {total} fields inverted ({share:.1%}): " + ", ".join(
            f"{way} {count}" for way, count in ways.most_common()
        )
    recorded = [result for event in made.events if (result := made.result(event)) is not None]
    total, inverted, _ = counts(recorded)
    yield f"by tracepoint: {inverted} of {total} fields ({inverted / total if total else 0.0:.1%})"
    whole = sum(all(item.inverted for item in result.fields) for result in recorded)
    yield f"tracepoints of which every field was inverted: {whole} of {len(recorded)}"
    yield from (f"not read: {problem}" for problem in made.problems)
    if left:
        yield from _left(every)


def _left(results: list[ClassResult]) -> Iterator[str]:
    for result in results:
        for item in result.fields:
            for part, why in item.why.items():
                yield f"{result.of.header}: {result.of.name}: {item.entry.name}{part} = {why}"
