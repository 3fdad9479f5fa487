"""Unprint: the fields of an event out of the text that its print format made: a print format, backwards.

Each conversion whose argument is a field, an element of one, its device numbers, a text, or a symbol or flags that a table names
gives that field back; the others are skipped. What cannot be told is not in the result.

Must not know: files, lines around the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from .event_format import EventFormat, FieldKind
from .print_fmt_parse import PrintFormatError, tokens, unquote

Token = tuple[str, str]
_CONVERSION = re.compile(
    r"%([-+ #0]*)(?:\d+|\*)?(?:\.(?:\d+|\*))?(?:hh|h|ll|l|L|z|t|j)?([a-zA-Z%])(I4|I6c|I6|ISpc|[sSxK](?![a-z=]))?"
)
_DECIMAL, _HEX = r"\s*(-?\d+)", r"\s*((?:0[xX])?[0-9a-fA-F]+)"
_NUMBERS = {"d": _DECIMAL, "i": _DECIMAL, "u": _DECIMAL, "x": _HEX, "X": _HEX, "o": r"\s*([0-7]+)"}
_ADDRESS = r"((?:0x)?[0-9a-fA-F]+|\(nil\)|\(null\)|\(____ptrval____\))"
_STATES = {"R": 0, "S": 1, "D": 2, "T": 4, "t": 8, "X": 16, "Z": 32, "P": 64, "I": 128}
"""prev_state as the shipped format prints it. Kernel: include/trace/events/sched.h"""
_PREEMPTED = 0x100


class _Part(NamedTuple):
    """What a group of the pattern says of which field. `read`: its value, None for one that is not known."""

    field: str
    read: Callable[[str], Any]
    element: int = -1
    shift: int = 0


class Unprint:
    """Of one event. `fields`: those that a text can give."""

    def __init__(self, fmt: EventFormat) -> None:
        self.fmt = fmt
        self._parts: list[_Part | None] = []
        self._pattern: re.Pattern[str] | None = None
        try:
            self._compile()
        except (PrintFormatError, RecursionError, re.error):
            self._pattern, self._parts = None, []

    @property
    def fields(self) -> set[str]:
        """Names of the fields that the whole text gives."""
        return {part.field for part in self._parts if part is not None}

    def read(self, text: str) -> dict[str, Any] | None:
        """Fields by name; None for a text that this format did not make."""
        found = self._pattern.fullmatch(text) if self._pattern is not None else None
        if found is None:
            return None
        values: dict[str, Any] = {}
        lost: set[str] = set()
        for part, group in zip(self._parts, found.groups(), strict=True):
            if part is None:
                continue
            value = part.read(group)
            if value is None:
                lost.add(part.field)
            elif part.element >= 0:
                values.setdefault(part.field, {})[part.element] = value
            elif part.shift or isinstance(values.get(part.field), int):
                values[part.field] = values.get(part.field, 0) | value << part.shift
            else:
                values[part.field] = value
        for name, value in list(values.items()):
            if isinstance(value, dict):
                spec = self.fmt.field(name)
                values[name] = [value[place] for place in sorted(value)]
                if spec is None or sorted(value) != list(range(spec.count)):
                    lost.add(name)
        return {name: value for name, value in values.items() if name not in lost}

    def _compile(self) -> None:
        found = tokens(self.fmt.print_fmt)
        text = ""
        at = 0
        while at < len(found) and found[at][0] == "string":
            text += unquote(found[at][1])
            at += 1
        arguments = iter(_split(found[at + 1 :]))
        pattern = []
        end = 0
        text = text.rstrip("\n")
        for match in _CONVERSION.finditer(text):
            pattern.append(re.escape(text[end : match.start()]))
            end = match.end()
            if match[2] == "%":
                pattern.append("%")
                continue
            if "*" in match[0]:
                raise PrintFormatError(f"{self.fmt.name}: a width that is an argument")
            group, part = self._part(match[2], match[3] if match[2] == "p" else None, next(arguments, []))
            if match[2] != "p" and match[3]:
                end -= len(match[3])
            pattern.append(group)
            self._parts.append(part)
        pattern.append(re.escape(text[end:]))
        self._pattern = re.compile("".join(pattern))

    def _part(self, kind: str, extension: str | None, argument: list[Token]) -> tuple[str, _Part | None]:
        argument = _bare(argument)
        if kind == "p" and extension in (None, "x", "K"):
            name = _field_of(argument)
            return _ADDRESS, _Part(name, _address) if name else None
        if kind == "p":
            name = _field_of(argument) if extension in ("s", "S") else ""
            return r"(\S*)", _Part(name, _unnamed) if name else None
        if kind in _NUMBERS:
            base = {"x": 16, "X": 16, "o": 8}.get(kind, 10)
            return _NUMBERS[kind], self._number(argument, base)
        if kind == "c":
            return "(.)", None
        if kind != "s":
            raise PrintFormatError(f"{self.fmt.name}: conversion %{kind}")
        part = self._text(argument)
        if part is not None and part.read is _state:
            if any(before is not None and before.read is _state for before in self._parts):
                return r"(\+?)", _Part(part.field, lambda text: _PREEMPTED if text else 0)
            return "([A-Za-z|]*)", part
        return "(.*?)", part

    def _number(self, argument: list[Token], base: int) -> _Part | None:
        def read(text: str) -> int | None:
            digits = text.removeprefix("0x").removeprefix("0X") if base == 16 else text
            return int(digits, base)

        name = _field_of(argument)
        if name:
            return _Part(name, read)
        words = [text for _, text in argument]
        if words[:2] == ["REC", "->"] and len(words) == 6 and words[3] == "[" and words[4].isdigit():
            return _Part(words[2], read, element=int(words[4]))
        if words[:2] == ["REC", "->"] and words[3:] == [">>", "20"]:
            return _Part(words[2], read, shift=20)
        if (
            words[:2] == ["REC", "->"]
            and words[3:4] == ["&"]
            and [word for word in words[4:] if word not in "()"] == ["1", "<<", "20", "-", "1"]
        ):
            return _Part(words[2], read)
        return None

    def _text(self, argument: list[Token]) -> _Part | None:
        words = [text for _, text in argument]
        name = _field_of(argument)
        spec = self.fmt.field(name) if name else None
        if spec is not None:
            return _Part(name, str) if spec.kind is FieldKind.STRING else None
        if words[:2] in (["__get_str", "("], ["__get_rel_str", "("]) and len(words) == 4:
            return _Part(words[2], str)
        if words[:2] in (["__print_symbolic", "("], ["__print_flags", "("]):
            inner = _split(argument[2:-1])
            name = _field_of(_bare(inner[0])) if inner else ""
            table = _table(argument)
            if name and table is not None:
                delimiter = unquote(inner[1][0][1]) if words[0] == "__print_flags" and inner[1] else ""
                return _Part(name, _named(table, delimiter))
        if self.fmt.name == "sched_switch" and "prev_state" in words:
            return _Part("prev_state", _state)
        return None


def _state(text: str) -> int | None:
    letters = text.split("|")
    return None if any(letter not in _STATES for letter in letters) else sum(_STATES[letter] for letter in letters)


def _address(text: str) -> int | None:
    if text in ("(nil)", "(null)"):
        return 0
    return None if text.startswith("(") else int(text.removeprefix("0x"), 16)


def _unnamed(text: str) -> int | None:
    """An address where no symbol was printed for it."""
    return _address(text) if re.fullmatch(_ADDRESS, text) and text.startswith(("0x", "(")) else None


def _named(table: dict[str, int], delimiter: str) -> Callable[[str], int | None]:
    """The number of a symbol, or of flags with a delimiter; numbers that no name was printed for are there as such."""

    def one(word: str) -> int | None:
        if word in table:
            return table[word]
        return int(word, 0) if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", word) else None

    def read(text: str) -> int | None:
        if text in table or not delimiter:
            return one(text)
        total = 0
        for word in filter(None, text.split(delimiter)):
            value = one(word)
            if value is None:
                return None
            total |= value
        return total

    return read


def _table(argument: list[Token]) -> dict[str, int] | None:
    """name -> value of `{ value, "name" }, ...`; None where a value is no number, or a name stands for two."""
    found: dict[str, int] = {}
    words = argument
    for at, (kind, text) in enumerate(words):
        if (kind, text) != ("op", "{"):
            continue
        body = words[at + 1 :]
        stop = next((place for place, token in enumerate(body) if token == ("op", "}")), None)
        if stop is None:
            return None
        inner = [token for token in body[:stop] if token[1] not in "()"]
        if len(inner) != 3 or inner[0][0] != "number" or inner[2][0] != "string":
            return None
        value, name = int(inner[0][1], 0), unquote(inner[2][1])
        if found.setdefault(name, value) != value:
            return None
    return found


def _split(found: list[Token]) -> list[list[Token]]:
    """Arguments between the commas of the outermost level."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in found:
        if token[0] == "op" and token[1] in "({[":
            depth += 1
        elif token[0] == "op" and token[1] in ")}]":
            depth -= 1
        if token == ("op", ",") and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _bare(argument: list[Token]) -> list[Token]:
    """Without casts and parentheses around all of it, and around the field at its beginning."""
    while argument and argument[0] == ("op", "("):
        end = _closing(argument)
        inside = argument[1:end]
        if end == len(argument) - 1 or (inside[:1] == [("name", "REC")] and len(inside) == 3):
            argument = inside + argument[end + 1 :]
        elif all(token[0] == "name" or token == ("op", "*") for token in inside):
            argument = argument[end + 1 :]
        else:
            break
    return argument


def _closing(argument: list[Token]) -> int:
    depth = 0
    for place, token in enumerate(argument):
        depth += (token == ("op", "(")) - (token == ("op", ")"))
        if depth == 0:
            return place
    return -1


def _field_of(argument: list[Token]) -> str:
    """The field that an argument is, "" for anything else."""
    return argument[2][1] if len(argument) == 3 and [text for _, text in argument[:2]] == ["REC", "->"] else ""
