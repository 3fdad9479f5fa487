"""C source as tokens, which are plain strings, and the brackets among them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')', re.DOTALL)
_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_$]\w*|(?:0[xX][0-9a-fA-F]+|\d+)[uUlL]*|\d*\.\d+'
    r"|->|\+\+|--|<<=|>>=|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|\.\.\.|##|[^\s\w]"
)
_OPEN = {"(": ")", "[": "]", "{": "}"}
_CLOSE = frozenset(_OPEN.values())


def without_comments(text: str) -> str:
    """The source without comments; strings are left as they are."""
    return _COMMENT.sub(lambda found: found[1] or " ", text)


def tokenize(text: str) -> list[str]:
    """The tokens of source without comments."""
    return _TOKEN.findall(text)


def is_name(token: str) -> bool:
    """Whether a token is an identifier or a keyword."""
    return token[0].isalpha() or token[0] in "_$"


def closing(tokens: Sequence[str], at: int) -> int:
    """Index of the bracket that closes the one at `at`; the number of tokens where none does."""
    depth = 0
    for index in range(at, len(tokens)):
        token = tokens[index]
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
            if depth == 0:
                return index
    return len(tokens)


def split(tokens: Sequence[str], separator: str = ",") -> list[list[str]]:
    """Pieces between separators that stand in no bracket; no pieces of no tokens."""
    return [list(piece) for piece in _pieces(tokens, separator)] if tokens else []


def _pieces(tokens: Sequence[str], separator: str) -> Iterator[Sequence[str]]:
    depth = start = 0
    for index, token in enumerate(tokens):
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
        elif token == separator and depth == 0:
            yield tokens[start:index]
            start = index + 1
    yield tokens[start:]


def joined(tokens: Sequence[str]) -> str:
    """Tokens as text again, with spaces only where two words or operators would grow together."""
    text = ""
    for token in tokens:
        if text and (is_name(token) or token[0].isdigit()) and (text[-1].isalnum() or text[-1] in "_*"):
            text += " " if text[-1] != "*" else ""
        elif token == "*" and text and text[-1] != "*":
            text += " "
        text += token
    return text
