"""The C expressions of print formats, parsed into closures over a record.

Supported: REC->field, its elements, integers, strings, casts between integers, arithmetic, comparison, ?:, and the kernel's
__print_symbolic, __print_flags, __print_hex(_str), __print_array, __get_str, __get_dynamic_array(_len) and their kin.
Arithmetic is that of 64-bit integers. Anything else is a PrintFormatError, and the record is shown by its fields instead.

Kernel: include/trace/stages/stage3_trace_output.h, kernel/trace/trace_output.c
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from fastrtp.errors import RecordingError

from .event_format import EventFormat, FieldKind
from .record_fields import field_bytes, integers

MASK = (1 << 64) - 1
Expr = Callable[[bytes], Any]
"""A value of a record: an int, or bytes for texts and arrays."""
Names = Mapping[str, int] | Callable[[str], int | None]
"""Values of enumerators and variables."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<char>'(?:[^'\\]|\\.)')|(?P<number>0[xX][0-9a-fA-F]+|\d+)(?P<suffix>[uUlL]*)"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<op><<|>>|<=|>=|==|!=|&&|\|\||->|[-+*/%&|^~!<>?:(){}\[\],.]))"""
)
_BINARY: tuple[dict[str, Callable[[int, int], int]], ...] = (
    {"||": lambda a, b: int(bool(a) or bool(b))},
    {"&&": lambda a, b: int(bool(a) and bool(b))},
    {"|": operator.or_},
    {"^": operator.xor},
    {"&": operator.and_},
    {"==": lambda a, b: int(not (a - b) & MASK), "!=": lambda a, b: int(bool((a - b) & MASK))},
    {"<": lambda a, b: int(a < b), ">": lambda a, b: int(a > b), "<=": lambda a, b: int(a <= b), ">=": lambda a, b: int(a >= b)},
    {"<<": lambda a, b: (a << (b & 63)) & MASK, ">>": lambda a, b: a >> (b & 63)},
    {"+": operator.add, "-": operator.sub},
    {"*": operator.mul, "/": lambda a, b: _divide(a, b), "%": lambda a, b: a - b * _divide(a, b)},
)  # loosest first
_TYPES: dict[str, tuple[int, bool]] = {
    "char": (8, True), "bool": (8, False), "short": (16, True), "int": (32, True), "long": (64, True), "unsigned": (32, False),
    "signed": (32, True), "u8": (8, False), "u16": (16, False), "u32": (32, False), "u64": (64, False), "s8": (8, True),
    "s16": (16, True), "s32": (32, True), "s64": (64, True), "size_t": (64, False), "gfp_t": (32, False), "dev_t": (32, False),
    "pid_t": (32, True), "loff_t": (64, True), "ino_t": (64, False), "sector_t": (64, False), "void": (64, False),
    "const": (0, False), "enum": (0, False), "struct": (0, False),
}  # fmt: skip
_UNARY: dict[str, Callable[[int], int]] = {"-": operator.neg, "+": operator.pos, "~": operator.invert}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}
_MAX_DEPTH = 200


class PrintFormatError(RecordingError):
    """A print format that is beyond what is supported here."""


def _divide(a: int, b: int) -> int:
    """C's division; by zero 0."""
    if b == 0:
        return 0
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token. PrintFormatError."""
    found = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise PrintFormatError(f"cannot read {text[at : at + 30]!r}")
        kind = match.lastgroup if match.lastgroup != "suffix" else "number"
        assert kind is not None
        found.append((kind, match[kind]))
        at = match.end()
    return found


def unquote(text: str) -> str:
    """The contents of a C string or character literal."""
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), text[1:-1], flags=re.DOTALL)


class Parser:
    """Recursive descent over the tokens of one print format. `names`: values of enumerators and variables.

    One without a value is 0, and matches nothing in a table of symbols.
    """

    def __init__(self, fmt: EventFormat, names: Names) -> None:
        self.fmt = fmt
        self._names = names if callable(names) else names.get
        self._tokens = tokens(fmt.print_fmt)
        self._at = 0
        self._depth = 0
        self._unknown = False

    def parse(self) -> tuple[str, list[Expr]]:
        """(format text, arguments)."""
        text = ""
        while self._peek()[0] == "string":
            text += unquote(self._next()[1])
        args = []
        while self._peek()[1] == ",":
            self._next()
            self._unknown = False
            argument = self.expression()
            args.append(no_value if self._unknown else argument)
        if self._at != len(self._tokens):
            raise PrintFormatError(f"{self.fmt.name}: {self._peek()[1]!r} is left over")
        return text, args

    def _peek(self, ahead: int = 0) -> tuple[str, str]:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _expect(self, text: str) -> None:
        found = self._next()
        if found[1] != text or found[0] == "string":
            raise PrintFormatError(f"{self.fmt.name}: {text!r} expected, not {found[1][:30]!r}")

    def expression(self) -> Expr:
        """condition ? a : b, and everything below."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise PrintFormatError(f"{self.fmt.name}: nested too deeply")
        condition = self._binary(0)
        if self._peek() == ("op", "?"):
            self._next()
            then = self.expression()
            self._expect(":")
            other = self.expression()
            self._depth -= 1
            return lambda data: then(data) if condition(data) else other(data)
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Expr:
        if level == len(_BINARY):
            return self._unary()
        left = self._binary(level + 1)
        while self._peek()[0] == "op" and self._peek()[1] in _BINARY[level]:
            apply = _BINARY[level][self._next()[1]]
            left = _applied(apply, left, self._binary(level + 1))
        return left

    def _unary(self) -> Expr:
        kind, text = self._peek()
        if kind == "op" and text in ("-", "+", "~", "!"):
            self._next()
            inner = self._unary()
            if text == "!":
                return lambda data: int(not inner(data))
            apply = _UNARY[text]
            return lambda data: apply(_number(inner(data)))
        cast = self._cast()
        if cast is not None:
            bits, signed = cast
            inner = self._unary()
            return lambda data: _cut(inner(data), bits, signed)
        if kind == "op" and text in ("*", "&"):
            raise PrintFormatError(f"{self.fmt.name}: pointers are not followed")
        return self._postfix()

    def _cast(self) -> tuple[int, bool] | None:
        """(bits, signed) of a cast that starts here, skipped; bits 0 for a pointer or an unknown type. None: no cast."""
        if self._peek() != ("op", "("):
            return None
        words = []
        ahead = 1
        while self._peek(ahead)[0] == "name" or self._peek(ahead) == ("op", "*"):
            words.append(self._peek(ahead)[1])
            ahead += 1
        if not words or words[0] == "*" or self._peek(ahead) != ("op", ")"):
            return None
        behind = self._peek(ahead + 1)
        known = any(word in _TYPES or word in ("struct", "enum") for word in words) or words[0].startswith("__")
        starts = behind[0] in ("name", "number", "char", "string") or behind[1] == "(" or (known and behind[1] in ("-", "~", "!"))
        if not starts or not (known or words[0].endswith("_t") or "*" in words):
            return None
        self._at += ahead + 1
        return (0, False) if "*" in words else _type([word.removeprefix("__") for word in words])

    def _postfix(self) -> Expr:
        kind, text = self._next()
        if kind == "number":
            number = int(text, 8) if re.fullmatch("0[0-7]+", text) else int(text, 0)
            return lambda _data: number
        if kind == "char":
            code = ord(unquote(text))
            return lambda _data: code
        if kind == "string":
            value = unquote(text)
            while self._peek()[0] == "string":
                value += unquote(self._next()[1])
            encoded = value.encode()
            return lambda _data: encoded
        if (kind, text) == ("op", "("):
            inner = self.expression()
            self._expect(")")
            return inner
        if kind == "name":
            return self._name(text)
        raise PrintFormatError(f"{self.fmt.name}: {text[:30]!r} is not expected")

    def _name(self, name: str) -> Expr:
        if name == "REC" and self._peek() == ("op", "->"):
            self._next()
            return self._field(self._next()[1])
        if self._peek() == ("op", "("):
            from .print_fmt_calls import CALLS

            call = CALLS.get(name)
            if call is None:
                raise PrintFormatError(f"{self.fmt.name}: {name}() is not known")
            self._next()
            found = call(self)
            self._expect(")")
            return found
        value = self._names(name)
        constant = 0 if value is None else value
        self._unknown |= value is None
        return lambda _data: constant

    def _field(self, name: str) -> Expr:
        spec = self.fmt.field(name)
        if spec is None:
            raise PrintFormatError(f"{self.fmt.name}: no field {name!r}")
        if self._peek() == ("op", "["):
            self._next()
            index = self.expression()
            self._expect("]")
            return lambda data: _element(integers(spec, data), index(data))
        if spec.kind is FieldKind.SCALAR:
            size, offset, signed = spec.size, spec.offset, spec.signed
            return lambda data: int.from_bytes(data[offset : offset + size], "little", signed=signed)
        return lambda data: field_bytes(spec, data)

    # for print_fmt_calls

    def comma(self) -> None:
        """The comma between two arguments."""
        self._expect(",")

    def more(self) -> bool:
        """Skip a comma, if there is one."""
        if self._peek() == ("op", ","):
            self._next()
            return True
        return False

    def field_name(self) -> str:
        """A field's name as an argument."""
        kind, text = self._next()
        if kind != "name" or self.fmt.field(text) is None:
            raise PrintFormatError(f"{self.fmt.name}: no field {text[:30]!r}")
        return text

    def pairs(self) -> list[tuple[int, bytes]]:
        """{ value, "text" }, ... up to the closing parenthesis. The values are constants."""
        found = []
        outside = self._unknown
        while True:
            self._expect("{")
            self._unknown = False
            value = _number(self.expression()(b""))
            self.comma()
            text = self.expression()(b"")
            self.more()
            self._expect("}")
            if isinstance(text, bytes) and not self._unknown:  # a NULL ends the table; a name without a value matches nothing
                found.append((value, text))
            if not self.more() or self._peek() != ("op", "{"):
                self._unknown = outside
                return found


def no_value(_data: bytes) -> bytes:
    """What stands for an argument that takes the value of a name which nobody knows: a variable of the recorded kernel."""
    return b"?"


def _applied(apply: Callable[[int, int], int], left: Expr, right: Expr) -> Expr:
    return lambda data: apply(_number(left(data)), _number(right(data)))


def _number(value: Any) -> int:
    return value if isinstance(value, int) else int.from_bytes(value[:8], "little")


def _element(values: list[int], index: int) -> int:
    return values[index] if 0 <= index < len(values) else 0


def _type(words: list[str]) -> tuple[int, bool]:
    """(bits, signed) of an integer type's words; bits 0 where it is not known."""
    bits, signed = 0, "unsigned" not in words
    for word in words:
        size, is_signed = _TYPES.get(word, (0, True))
        if word not in ("unsigned", "signed") and size:
            bits = size if not (word == "int" and bits) else bits
            signed = signed and is_signed
    if not bits and ("unsigned" in words or "signed" in words):
        bits = 32
    return bits, signed


def _cut(value: Any, bits: int, signed: bool) -> Any:
    """A cast. Texts and arrays stay what they are."""
    if not bits or not isinstance(value, int):
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value
