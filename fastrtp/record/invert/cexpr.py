"""C expressions: a tree, the parser that makes it, and what constant expressions are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from .tokens import closing, is_name, joined, split


class CSyntaxError(ValueError):
    """Tokens that are no expression or statement that this parser knows."""


@dataclass(frozen=True, slots=True)
class Num:
    """An integer, or a character."""

    value: int


@dataclass(frozen=True, slots=True)
class Str:
    """A string literal."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`base.name`, `base->name`."""

    base: Expr
    name: str
    arrow: bool


@dataclass(frozen=True, slots=True)
class Index:
    """`base[index]`."""

    base: Expr
    index: Expr


@dataclass(frozen=True, slots=True)
class Call:
    """`func(args)`. An argument that is a type is a `Type`."""

    func: Expr
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Unary:
    """`op value`: one of - + ~ ! * &."""

    op: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Cast:
    """`(type)value`."""

    type: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Cond:
    """`test ? then : other`; GNU's `a ?: b` has the test as `then`."""

    test: Expr
    then: Expr
    other: Expr


@dataclass(frozen=True, slots=True)
class Type:
    """A type where an expression could stand: in sizeof, or as a macro's argument."""

    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """`({ ... })`: statements, of which the last says what it is worth."""

    tokens: tuple[str, ...]

    @property
    def text(self) -> str:
        """What people are told."""
        return "a statement expression"


@dataclass(frozen=True, slots=True)
class Opaque:
    """What is not looked into: statement expressions, initialisers, what no branch assigned."""

    text: str


Expr = Union[Num, Str, Name, Member, Index, Call, Unary, Binary, Cast, Cond, Type, Block, Opaque]  # noqa: UP007

_BINARY = {
    "*": 10, "/": 10, "%": 10, "+": 9, "-": 9, "<<": 8, ">>": 8, "<": 7, ">": 7, "<=": 7, ">=": 7, "==": 6, "!=": 6,
    "&": 5, "^": 4, "|": 3, "&&": 2, "||": 1,
}  # fmt: skip
_BASE_TYPES = frozenset(
    [
        "void",
        "char",
        "short",
        "int",
        "long",
        "float",
        "double",
        "signed",
        "unsigned",
        "_Bool",
        "bool",
        "const",
        "volatile",
        "struct",
        "union",
        "enum",
        "size_t",
        "ssize_t",
        "loff_t",
        "sector_t",
        "dev_t",
        "pid_t",
        "gfp_t",
        "blkcnt_t",
        "ktime_t",
        "pgoff_t",
        "umode_t",
        "s8",
        "s16",
        "s32",
        "s64",
        "u8",
        "u16",
        "u32",
        "u64",
        "__s8",
        "__s16",
        "__s32",
        "__s64",
        "__u8",
        "__u16",
        "__u32",
        "__u64",
        "__be16",
        "__be32",
        "__be64",
        "__le16",
        "__le32",
        "__le64",
        "uint8_t",
        "uint16_t",
        "uint32_t",
        "uint64_t",
        "uintptr_t",
        "dma_addr_t",
        "phys_addr_t",
        "resource_size_t",
        "__force",
        "__user",
        "__iomem",
        "__rcu",
        "__percpu",
        "typeof",
        "ulong",
        "uint",
        "ushort",
        "__aligned_u64",
    ]
)


_SIZES = {
    "char": 1, "u8": 1, "__u8": 1, "s8": 1, "bool": 1, "short": 2, "u16": 2, "__u16": 2, "__be16": 2, "__le16": 2, "int": 4,
    "u32": 4, "__u32": 4, "s32": 4, "__be32": 4, "__le32": 4, "unsigned int": 4, "long": 8, "unsigned long": 8, "u64": 8,
    "__u64": 8, "s64": 8, "__be64": 8, "__le64": 8, "size_t": 8, "loff_t": 8, "sector_t": 8, "ext4_fsblk_t": 8,
    "dma_addr_t": 8,
}  # fmt: skip


def is_type(tokens: Sequence[str]) -> bool:
    """Whether tokens between brackets look like a type."""
    if not tokens or not is_name(tokens[0]):
        return False
    if any(not is_name(token) and token != "*" for token in tokens):
        return False
    if tokens[0] in _BASE_TYPES or tokens[-1] == "*":
        return True
    return len(tokens) == 1 and tokens[0].endswith("_t") and not tokens[0].startswith("sizeof")


class _Parser:
    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise CSyntaxError(f"no {token!r} in {joined(self.tokens)[:80]!r}")

    def conditional(self) -> Expr:
        test = self.binary(1)
        if self.peek() != "?":
            return test
        self.next()
        then = test if self.peek() == ":" else self.conditional()
        self.expect(":")
        return Cond(test, then, self.conditional())

    def binary(self, lowest: int) -> Expr:
        left = self.unary()
        while (level := _BINARY.get(self.peek(), 0)) >= lowest:
            op = self.next()
            left = Binary(op, left, self.binary(level + 1))
        return left

    def unary(self) -> Expr:
        token = self.next()
        if token in ("-", "+", "~", "!", "*", "&"):
            return Unary(token, self.unary())
        if token in ("sizeof", "__alignof__"):
            if self.peek() == "(":
                measured = joined(self.bracket())
                size = _SIZES.get(measured, 8 if measured.endswith("*") else 0)
                return Num(size) if size else self.postfix(Opaque(f"sizeof({measured})"))
            self.unary()
            return Opaque("sizeof")
        if token == "(":
            self.at -= 1
            inside = self.bracket()
            if inside and inside[0] == "{":
                return self.postfix(Block(tuple(inside[1 : closing(inside, 0)])))
            if is_type(inside) and (self.peek() in ("(", "*", "&", "-", "~", "!", "{") or (self.peek() and self.operand())):
                if self.peek() == "{":
                    self.at = closing(self.tokens, self.at) + 1
                    return self.postfix(Opaque("a compound literal"))
                return Cast(joined(inside), self.unary())
            return self.postfix(parse(inside))
        return self.postfix(self.atom(token))

    def operand(self) -> bool:
        token = self.peek()
        return is_name(token) or token[0].isdigit() or token[0] in "\"'"

    def atom(self, token: str) -> Expr:
        if not token:
            raise CSyntaxError(f"{joined(self.tokens)[:80]!r} ends too early")
        if token[0].isdigit():
            return Num(
                int(token.rstrip("uUlL"), 0) if not token.startswith("0") or token[1:2] in "xX" else int(token.rstrip("uUlL"), 8)
            )
        if token[0] == '"':
            while self.peek()[:1] == '"':
                token = token[:-1] + self.next()[1:]
            return Str(token[1:-1])
        if token[0] == "'":
            text = token[1:-1].encode().decode("unicode_escape")
            return Num(ord(text[0]) if text else 0)
        if not is_name(token):
            raise CSyntaxError(f"{token!r} in {joined(self.tokens)[:80]!r}")
        if token in ("struct", "union", "enum", "const"):
            words = [token]
            while self.peek() and (is_name(self.peek()) or self.peek() == "*"):
                words.append(self.next())
            return Type(joined(words))
        return Name(token)

    def postfix(self, left: Expr) -> Expr:
        while True:
            token = self.peek()
            if token in ("->", "."):
                self.next()
                name = self.next()
                if not name or not is_name(name):
                    raise CSyntaxError(f"no member behind {token!r} in {joined(self.tokens)[:80]!r}")
                left = Member(left, name, token == "->")
            elif token == "[":
                left = Index(left, parse(self.bracket()))
            elif token == "(":
                left = Call(left, tuple(_argument(piece) for piece in split(self.bracket())))
            elif token in ("++", "--"):
                self.next()
                left = Opaque("an increment")
            else:
                return left

    def bracket(self) -> Sequence[str]:
        end = closing(self.tokens, self.at)
        if end >= len(self.tokens):
            raise CSyntaxError(f"a bracket is not closed in {joined(self.tokens)[:80]!r}")
        inside = self.tokens[self.at + 1 : end]
        self.at = end + 1
        return inside


def _argument(tokens: Sequence[str]) -> Expr:
    if is_type(tokens) and (tokens[0] in ("struct", "union", "enum", "const", "unsigned") or tokens[-1] == "*"):
        return Type(joined(tokens))
    return parse(tokens)


def parse(tokens: Sequence[str]) -> Expr:
    """The expression that these tokens are, to the last one. CSyntaxError."""
    parser = _Parser(tokens)
    found = parser.conditional()
    if parser.at < len(tokens):
        raise CSyntaxError(f"{parser.peek()!r} behind an expression in {joined(tokens)[:80]!r}")
    return found


def rebuild(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The same expression with `change` done to each of its operands."""
    if isinstance(expr, Member):
        return Member(change(expr.base), expr.name, expr.arrow)
    if isinstance(expr, Index):
        return Index(change(expr.base), change(expr.index))
    if isinstance(expr, Call):
        return Call(expr.func, tuple(change(arg) for arg in expr.args))
    if isinstance(expr, Unary):
        return Unary(expr.op, change(expr.value))
    if isinstance(expr, Binary):
        return Binary(expr.op, change(expr.left), change(expr.right))
    if isinstance(expr, Cast):
        return Cast(expr.type, change(expr.value))
    if isinstance(expr, Cond):
        return Cond(change(expr.test), change(expr.then), change(expr.other))
    return expr


def text_of(expr: Expr) -> str:
    """The expression as C, for people."""
    if isinstance(expr, Num):
        return str(expr.value)
    if isinstance(expr, Str):
        return f'"{expr.text}"'
    if isinstance(expr, Name):
        return expr.name
    if isinstance(expr, Member):
        return f"{_inner(expr.base)}{'->' if expr.arrow else '.'}{expr.name}"
    if isinstance(expr, Index):
        return f"{_inner(expr.base)}[{text_of(expr.index)}]"
    if isinstance(expr, Call):
        return f"{_inner(expr.func)}({', '.join(map(text_of, expr.args))})"
    if isinstance(expr, Unary):
        return f"{expr.op}{_inner(expr.value)}"
    if isinstance(expr, Binary):
        return f"{_inner(expr.left)} {expr.op} {_inner(expr.right)}"
    if isinstance(expr, Cast):
        return f"({expr.type}){_inner(expr.value)}"
    if isinstance(expr, Cond):
        return f"{_inner(expr.test)} ? {_inner(expr.then)} : {_inner(expr.other)}"
    return expr.text


def _inner(expr: Expr) -> str:
    text = text_of(expr)
    return f"({text})" if isinstance(expr, (Binary, Cond, Cast)) or (isinstance(expr, Unary) and expr.op == "*") else text


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "*": lambda a, b: a * b, "/": lambda a, b: int(a / b) if b else 0, "%": lambda a, b: a % b if b else 0,
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "<<": lambda a, b: a << min(max(b, 0), 128),
    ">>": lambda a, b: a >> min(max(b, 0), 128), "<": lambda a, b: int(a < b), ">": lambda a, b: int(a > b),
    "<=": lambda a, b: int(a <= b), ">=": lambda a, b: int(a >= b), "==": lambda a, b: int(a == b),
    "!=": lambda a, b: int(a != b), "&": lambda a, b: a & b, "^": lambda a, b: a ^ b, "|": lambda a, b: a | b,
    "&&": lambda a, b: int(bool(a and b)), "||": lambda a, b: int(bool(a or b)),
}  # fmt: skip


def value_of(expr: Expr, known: Callable[[Expr], int | None] = lambda expr: None) -> int | None:
    """What an expression is worth where its leaves are numbers, or `known` says so; None otherwise."""
    found = known(expr)
    if found is not None:
        return found
    if isinstance(expr, Num):
        return expr.value
    if isinstance(expr, Cast):
        return value_of(expr.value, known)
    if isinstance(expr, Unary) and expr.op in "-+~!":
        value = value_of(expr.value, known)
        return None if value is None else {"-": -value, "+": value, "~": ~value, "!": int(not value)}[expr.op]
    if isinstance(expr, Binary):
        left, right = value_of(expr.left, known), value_of(expr.right, known)
        if expr.op in ("&&", "||") and (left is not None or right is not None):
            decisive = [side for side in (left, right) if side is not None and bool(side) == (expr.op == "||")]
            if decisive:
                return int(expr.op == "||")
        return None if left is None or right is None else _ARITHMETIC[expr.op](left, right)
    if isinstance(expr, Cond):
        test = value_of(expr.test, known)
        return None if test is None else value_of(expr.then if test else expr.other, known)
    return None
