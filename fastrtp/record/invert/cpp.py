"""As much of the C preprocessor as trace headers need: macros that they define themselves, conditions, includes.

Every CONFIG_ option counts as set but for those that a usual x86-64 kernel has not: a field that the kernel at hand does
not have is not in its format either. The macros that make events are kept as they are, whatever a header says of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cexpr import Call, CSyntaxError, Expr, Name, parse, value_of
from .tokens import closing, is_name, joined, split, tokenize, without_comments

EVENT_MACROS = frozenset(
    [
        "TRACE_EVENT",
        "TRACE_EVENT_FN",
        "TRACE_EVENT_FN_COND",
        "TRACE_EVENT_CONDITION",
        "TRACE_EVENT_NOP",
        "TRACE_EVENT_FLAGS",
        "TRACE_EVENT_SYSCALL",
        "TRACE_EVENT_PERF_PERM",
        "DECLARE_EVENT_CLASS",
        "DECLARE_EVENT_CLASS_SYSCALL",
        "DECLARE_EVENT_NOP",
        "DEFINE_EVENT",
        "DEFINE_EVENT_FN",
        "DEFINE_EVENT_PRINT",
        "DEFINE_EVENT_CONDITION",
        "DEFINE_EVENT_NOP",
        "DEFINE_EVENT_SYSCALL",
        "DECLARE_TRACE",
        "DECLARE_TRACE_CONDITION",
        "DECLARE_TRACE_EVENT",
        "DECLARE_TRACE_EVENT_CONDITION",
    ]
)
_PROTECTED = EVENT_MACROS | frozenset(
    [
        "TP_PROTO",
        "TP_ARGS",
        "TP_STRUCT__entry",
        "TP_fast_assign",
        "TP_printk",
        "TP_CONDITION",
        "TP_perf_assign",
        "__entry",
        "__assign_str",
        "__assign_rel_str",
        "__get_str",
        "__get_dynamic_array",
        "__get_rel_dynamic_array",
        "TRACE_DEFINE_ENUM",
        "TRACE_DEFINE_SIZEOF",
    ]
)
_UNSET = frozenset(
    [
        "CONFIG_PREEMPT_RT",
        "CONFIG_UML",
        "CONFIG_32BIT",
        "CONFIG_X86_32",
        "CONFIG_CPU_BIG_ENDIAN",
        "CONFIG_KASAN",
        "CONFIG_DEBUG_SPINLOCK",
        "CONFIG_XFS_RT_OFF",
        "CONFIG_64BIT_OFF",
        "CONFIG_RCU_NOCB_OFF",
        "CONFIG_MEMCG_OFF",
        "CONFIG_DEBUG_LOCK_ALLOC",
    ]
)
_DIRECTIVE = re.compile(r"^\s*#\s*(\w+)\s*(.*)$")
_DEFINE = re.compile(r"(\w+)(\(([^)]*)\))?\s*(.*)$", re.DOTALL)
_MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Macro:
    """A #define. `params`: None for one that takes no brackets; the last may be "..." or "name..."."""

    params: tuple[str, ...] | None
    body: tuple[str, ...]


Macros = dict[str, Macro]


def define(text: str) -> tuple[str, Macro] | None:
    """(name, macro) of what stands behind #define."""
    found = _DEFINE.match(text)
    if found is None:
        return None
    params = tuple(name.strip() for name in found[3].split(",") if name.strip()) if found[2] else None
    return found[1], Macro(params, tuple(tokenize(found[4])))


def expand(tokens: Sequence[str], macros: Macros, hidden: frozenset[str] = frozenset(), depth: int = 0) -> list[str]:
    """Tokens with their macros replaced."""
    out: list[str] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        macro = macros.get(token) if is_name(token) and token not in _PROTECTED and token not in hidden else None
        if macro is None or depth > _MAX_DEPTH:
            out.append(token)
            continue
        if macro.params is None:
            out += expand(macro.body, macros, hidden | {token}, depth + 1)
            continue
        if at >= len(tokens) or tokens[at] != "(":
            out.append(token)
            continue
        end = closing(tokens, at)
        given = split(tokens[at + 1 : end])
        at = end + 1
        out += expand(_replace(macro, given, macros, hidden, depth), macros, hidden | {token}, depth + 1)
    return out


def _replace(macro: Macro, given: list[list[str]], macros: Macros, hidden: frozenset[str], depth: int) -> list[str]:
    """A macro's body with its parameters replaced: as they are beside # and ##, expanded elsewhere."""
    params = macro.params or ()
    values: dict[str, list[str]] = {}
    for index, param in enumerate(params):
        if param.endswith("..."):
            rest: list[str] = []
            for piece in given[index:]:
                rest += [",", *piece] if rest else piece
            values[param.removesuffix("...") or "__VA_ARGS__"] = rest
        else:
            values[param] = given[index] if index < len(given) else []
    out: list[str] = []
    body = macro.body
    at = 0
    while at < len(body):
        token = body[at]
        if token == "#" and at + 1 < len(body) and body[at + 1] in values:
            out.append('"' + joined(values[body[at + 1]]).replace('"', '\\"') + '"')
            at += 2
            continue
        if token == "##" and out and at + 1 < len(body):
            right = values.get(body[at + 1], [body[at + 1]])
            if out[-1] == "," and not right:
                out.pop()
            elif right and is_name(out[-1]) and (right[0][0].isalnum() or right[0][0] == "_"):
                out[-1:] = [out[-1] + right[0], *right[1:]]
            else:
                out += right
            at += 2
            continue
        if token in values:
            pasted = at + 1 < len(body) and body[at + 1] == "##"
            out += values[token] if pasted else expand(values[token], macros, hidden, depth + 1)
        else:
            out.append(token)
        at += 1
    return out


class Preprocessor:
    """Runs over a header. `include(name)`: the text of a file whose macros are wanted, None for one that is left out."""

    def __init__(self, include: Callable[[str], str | None]) -> None:
        self.macros: Macros = {"PARAMS": Macro(("args...",), ("args",))}
        self.strings: dict[str, str] = {}
        self._include = include
        self._included: set[str] = set()

    def run(self, text: str) -> list[str]:
        """The tokens of a header, expanded."""
        out: list[str] = []
        pending: list[str] = []

        def flush() -> None:
            out.extend(expand(pending, self.macros))
            pending.clear()

        stack: list[tuple[bool, bool]] = []  # (this branch is taken, some branch was)
        lines = without_comments(text).replace("\\\n", " ").split("\n")
        for line in lines:
            found = _DIRECTIVE.match(line)
            live = all(taken for taken, _ in stack)
            if found is None:
                if live:
                    pending += tokenize(line)
                continue
            word, rest = found[1], found[2]
            if word in ("if", "ifdef", "ifndef"):
                taken = live and self._condition(word, rest)
                stack.append((taken, taken))
            elif word in ("else", "elif") and stack:
                _, before = stack.pop()
                outer = all(taken for taken, _ in stack)
                taken = outer and not before and (word == "else" or self._condition("if", rest))
                stack.append((taken, before or taken))
            elif word == "endif" and stack:
                stack.pop()
            elif live and word == "include":
                flush()
                self._follow(rest)
            elif live and word in ("define", "undef"):
                made = define(rest)
                if made is not None:
                    if self.macros.get(made[0], made[1]) != made[1] or word == "undef":
                        flush()
                    if word == "undef":
                        self.macros.pop(made[0], None)
                    else:
                        self.macros[made[0]] = made[1]
        flush()
        return out

    def _follow(self, rest: str) -> None:
        name = rest.strip().strip('"<>')
        if name in self._included:
            return
        self._included.add(name)
        text = self._include(name)
        if text is not None:
            self.run(text)

    def _condition(self, word: str, rest: str) -> bool:
        if word == "ifdef":
            return self._defined(rest.split()[0]) if rest.split() else False
        if word == "ifndef":
            return not self._defined(rest.split()[0]) if rest.split() else True
        try:
            return bool(value_of(parse(_no_defined(tokenize(rest))), self._value))
        except (CSyntaxError, IndexError, OverflowError):
            return True

    def _defined(self, name: str) -> bool:
        if name.startswith("CONFIG_"):
            return name not in _UNSET
        return name in self.macros or name in ("CREATE_TRACE_POINTS", "TRACE_HEADER_MULTI_READ", "__KERNEL__")

    def _value(self, expr: Expr) -> int | None:
        if isinstance(expr, Call) and isinstance(expr.func, Name) and len(expr.args) == 1 and isinstance(expr.args[0], Name):
            return int(self._defined(expr.args[0].name))
        if isinstance(expr, Name):
            macro = self.macros.get(expr.name)
            if macro is not None and macro.params is None and macro.body:
                try:
                    return value_of(parse(expand(macro.body, self.macros)), lambda leaf: 0 if isinstance(leaf, Name) else None)
                except CSyntaxError:
                    return 0
            return {"BITS_PER_LONG": 64, "PAGE_SHIFT": 12, "CONFIG_PGTABLE_LEVELS": 5}.get(expr.name, 0)
        return None


def _no_defined(tokens: list[str]) -> list[str]:
    """`defined X` as `defined(X)`."""
    out: list[str] = []
    for index, token in enumerate(tokens):
        if index and tokens[index - 1] == "defined" and token != "(":
            out += ["(", token, ")"]
        else:
            out.append(token)
    return out
