"""Trace headers of a kernel tree, and the events that they define."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .cpp import EVENT_MACROS, Preprocessor
from .tokens import closing, is_name, joined, split

_SKIPPED = ("tools/", "Documentation/", "scripts/")
_ARCHES = re.compile(r"^arch/(?!x86/)")
_SYSTEM = re.compile(r"^\s*#\s*define\s+TRACE_SYSTEM\s+(\w+)", re.MULTILINE)
_FIELDS = re.compile(r"^__(rel_)?(field|field_ext|field_struct|field_struct_ext|field_desc|array|dynamic_array|string|string_len|"
                     r"vstring|bitmask|cpumask|sockaddr|stacktrace)$")  # fmt: skip
_WITH_PROTO = frozenset(("DEFINE_EVENT", "DEFINE_EVENT_FN", "DEFINE_EVENT_PRINT", "DEFINE_EVENT_CONDITION"))
_WHOLE = frozenset(
    ("TRACE_EVENT", "TRACE_EVENT_FN", "TRACE_EVENT_FN_COND", "TRACE_EVENT_CONDITION", "TRACE_EVENT_SYSCALL",
     "DECLARE_EVENT_CLASS", "DECLARE_EVENT_CLASS_SYSCALL")
)  # fmt: skip
_BARE = frozenset(("DECLARE_TRACE", "DECLARE_TRACE_CONDITION"))


@dataclass(frozen=True, slots=True)
class EntryField:
    """A field of TP_STRUCT__entry. `how`: field, array, dynamic_array, string, ...; `source`: what __string() names."""

    name: str
    c_type: str
    how: str
    source: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceArg:
    """An argument of TP_PROTO."""

    name: str
    c_type: str


@dataclass
class EventClass:
    """What events of one class share. `body`: the tokens of TP_fast_assign."""

    name: str
    header: str
    args: list[TraceArg]
    fields: list[EntryField]
    body: list[str]
    functions: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict, repr=False)
    """Inline functions of the header itself: parameters and body."""


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """A tracepoint. `of`: its class, None where it records nothing (DECLARE_TRACE)."""

    name: str
    system: str
    header: str
    args: tuple[TraceArg, ...]
    of: EventClass | None


class Tree:
    """A kernel source tree. Raises `ValueError` where there is none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "include/trace/events").is_dir():
            raise ValueError(f"{root} is not a kernel source tree: it has no include/trace/events")
        self.problems: list[str] = []

    def version(self) -> str:
        """ "6.12.1" from the Makefile."""
        text = (self.root / "Makefile").read_text(errors="replace")[:2000]
        parts = [
            found[1]
            for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")
            if (found := re.search(rf"^{key} = (\w+)", text, re.MULTILINE))
        ]
        return ".".join(parts)

    def headers(self, arches: bool = False) -> list[Path]:
        """Every header that defines events. `arches`: those of other architectures than x86, too."""
        found = []
        for path in self.root.rglob("*.h"):
            name = path.relative_to(self.root).as_posix()
            if name.startswith(_SKIPPED) or (not arches and _ARCHES.match(name)):
                continue
            text = path.read_bytes()
            if b"TRACE_SYSTEM" in text and any(
                macro.encode() in text for macro in ("TRACE_EVENT", "DEFINE_EVENT", "DECLARE_TRACE")
            ):
                found.append(path)
        return sorted(found)

    def events(self, path: Path) -> list[TraceEvent]:
        """The events that a header defines, in its order."""
        name = path.relative_to(self.root).as_posix()
        text = path.read_text(errors="replace")
        system = (_SYSTEM.findall(text) or [path.stem])[-1]
        first = Preprocessor(lambda include: self._included(path, include))
        first.run(text)  # define_trace.h reads a header several times: a macro may be defined behind its use
        second = Preprocessor(lambda include: self._included(path, include))
        second.macros = {name: macro for name, macro in first.macros.items() if macro.body}  # guards have none
        tokens = second.run(text)
        functions = dict(_functions(tokens))
        classes: dict[str, EventClass] = {}
        events: list[TraceEvent] = []
        for macro, pieces in _invocations(tokens):
            try:
                self._take(macro, pieces, name, system, classes, events)
            except (IndexError, KeyError, StopIteration) as error:
                self.problems.append(f"{name}: {macro} {joined(pieces[0]) if pieces else ''}: {type(error).__name__} {error}")
        for item in classes.values():
            item.functions = functions
        return events

    def _take(
        self,
        macro: str,
        pieces: list[list[str]],
        header: str,
        system: str,
        classes: dict[str, EventClass],
        events: list[TraceEvent],
    ) -> None:
        if macro in _WHOLE:
            parts = {piece[0]: piece[2 : closing(piece, 1)] for piece in pieces[1:] if len(piece) > 1 and piece[1] == "("}
            label = _label(pieces[0])
            if "TP_STRUCT__entry" not in parts:
                raise KeyError("TP_STRUCT__entry")
            args = _args(parts["TP_PROTO"])
            made = EventClass(label, header, args, _entry(parts["TP_STRUCT__entry"]), parts.get("TP_fast_assign", []))
            classes[label] = made
            if not macro.startswith("DECLARE"):
                events.append(TraceEvent(label, system, header, tuple(args), made))
        elif macro in _WITH_PROTO:
            of = classes[_label(pieces[0])]
            proto = next(piece for piece in pieces if piece and piece[0] == "TP_PROTO")
            args = _args(proto[2 : closing(proto, 1)])
            events.append(TraceEvent(_label(pieces[1]), system, header, tuple(args), of))
        elif macro in _BARE:
            proto = next(piece for piece in pieces if piece and piece[0] == "TP_PROTO")
            events.append(TraceEvent(_label(pieces[0]), system, header, tuple(_args(proto[2 : closing(proto, 1)])), None))

    def _included(self, header: Path, name: str) -> str | None:
        """Text of an included file that has macros of trace headers."""
        if "define_trace" in name or name.startswith("linux/") or ("tracepoint.h" in name.split("/")[-1] and "/" in name):
            return None
        for folder in (header.parent, self.root / "include", self.root / "include/trace/events", self.root / "arch/x86/include"):
            path = folder / name
            if path.is_file() and ("trace" in name or (path.parent == header.parent and path.stat().st_size < 200_000)):
                return path.read_text(errors="replace")
        return None


def _label(piece: list[str]) -> str:
    """An event's name, whose tokens are several where it begins with digits: 9p_client_req."""
    return "".join(piece)


def _invocations(tokens: list[str]) -> Iterator[tuple[str, list[list[str]]]]:
    at = 0
    while at < len(tokens):
        if tokens[at] in EVENT_MACROS and at + 1 < len(tokens) and tokens[at + 1] == "(":
            end = closing(tokens, at + 1)
            yield tokens[at], split(tokens[at + 2 : end])
            at = end
        at += 1


def _functions(tokens: list[str]) -> Iterator[tuple[str, tuple[list[str], list[str]]]]:
    """Functions among tokens: name, (parameters, body)."""
    for at, token in enumerate(tokens):
        if token != "{" or at < 3 or tokens[at - 1] != ")":
            continue
        depth, start = 0, at - 1
        while start >= 0:
            depth += (tokens[start] == ")") - (tokens[start] == "(")
            if depth == 0:
                break
            start -= 1
        if start < 2 or not is_name(tokens[start - 1]) or tokens[start - 1] in ("if", "while", "for", "switch"):
            continue
        params = [arg.name for arg in _args(tokens[start + 1 : at - 1])]
        yield tokens[start - 1], (params, tokens[at + 1 : closing(tokens, at)])


def _args(tokens: list[str]) -> list[TraceArg]:
    """The parameters of a prototype."""
    found = []
    for piece in split(tokens):
        if piece in ([], ["void"]):
            continue
        if "(" in piece:  # void (*func)(int)
            inner = piece[piece.index("(") + 1 : closing(piece, piece.index("("))]
            found.append(TraceArg(inner[-1] if inner else "", joined(piece)))
            continue
        while piece and piece[-1] == "]":
            opened = len(piece) - 1 - piece[::-1].index("[")
            piece = [*piece[: opened - 1], "*", piece[opened - 1]]
        found.append(TraceArg(piece[-1], joined(piece[:-1])))
    return found


def _entry(tokens: list[str]) -> list[EntryField]:
    found: list[EntryField] = []
    at = 0
    while at < len(tokens):
        match = _FIELDS.match(tokens[at])
        if match is None or at + 1 >= len(tokens) or tokens[at + 1] != "(":
            at += 1
            continue
        end = closing(tokens, at + 1)
        pieces = split(tokens[at + 2 : end])
        at = end + 1
        how = match[2]
        if how in ("string", "string_len", "vstring"):
            found.append(EntryField(joined(pieces[0]), "char[]", how, tuple(pieces[1]) if len(pieces) > 1 else ()))
        elif how in ("bitmask", "cpumask", "sockaddr"):
            found.append(EntryField(joined(pieces[0]), "unsigned long[]" if how != "sockaddr" else "__u8[]", how))
        elif len(pieces) > 1:
            text = joined(pieces[0]) + (f"[{joined(pieces[2])}]" if how == "array" else "[]" if how == "dynamic_array" else "")
            found.append(EntryField(joined(pieces[1]), text, how))
    return found
