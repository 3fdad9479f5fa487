"""TP_fast_assign, statement by statement: what each field of the entry holds behind the last one.

Local variables are replaced by what they were made from, branches become `test ? then : other`. A loop over an array is run
once, for the element `$i`. What a field holds is said by a `Held`: how it was written (assigned, a text, bytes) and the
expression; a part of a field ("[2]", "[$i]", "@sockaddr_in->sin_port") is kept by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cexpr import (
    Binary,
    Block,
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
    is_type,
    parse,
    rebuild,
    text_of,
)
from .headers import EntryField
from .tokens import closing, is_name, joined, split

NOTHING = Opaque("nothing")
_WRITERS = {
    "memcpy": (0, 1, "bytes"), "memcpy_and_pad": (0, 2, "bytes"), "strscpy": (0, 1, "text"), "strscpy_pad": (0, 1, "text"),
    "strncpy": (0, 1, "text"), "strlcpy": (0, 1, "text"), "strcpy": (0, 1, "text"), "ether_addr_copy": (0, 1, "bytes"),
    "memcpy_fromio": (0, 1, "bytes"), "__assign_vstr": (0, 1, "formatted"), "__assign_bitmask": (0, 1, "bytes"),
    "__assign_rel_bitmask": (0, 1, "bytes"), "__assign_cpumask": (0, 1, "bytes"), "__assign_rel_cpumask": (0, 1, "bytes"),
    "__assign_sockaddr": (0, 1, "bytes"), "__assign_rel_sockaddr": (0, 1, "bytes"), "uuid_copy": (0, 1, "bytes"),
    "guid_copy": (0, 1, "bytes"), "export_guid": (0, 1, "bytes"), "export_uuid": (0, 1, "bytes"),
    "ethtool_sprintf": (0, 1, "formatted"), "blk_fill_rwbs": (0, 1, "rwbs"), "snprintf": (0, 2, "formatted"),
    "sprintf": (0, 1, "formatted"), "scnprintf": (0, 2, "formatted"), "vsnprintf": (0, 2, "formatted"),
    "bitmap_copy": (0, 1, "bytes"), "cpumask_copy": (0, 1, "bytes"), "bin2hex": (0, 1, "formatted"),
    "memcpy_from_bvec": (0, 1, "bytes"), "ipv6_addr_set_v4mapped": (1, 0, "v4mapped"), "ib_copy_path_rec": (0, 1, "bytes"),
    "sockaddr_copy": (0, 1, "bytes"),
}  # fmt: skip
"""Functions that write to their argument: (where to, from where, how)."""
_ENTRY = (Name("__entry"), Name("entry"))
_STRINGS = frozenset(("__assign_str", "__assign_rel_str", "__assign_str_len"))
_GETTERS = frozenset(
    (
        "__get_str",
        "__get_rel_str",
        "__get_dynamic_array",
        "__get_rel_dynamic_array",
        "__get_bitmask",
        "__get_cpumask",
        "__get_sockaddr",
    )
)
_MAX_STATEMENTS = 400


@dataclass(frozen=True, slots=True)
class Held:
    """What (a part of) a field holds. `how`: "value", "text", "bytes", "rwbs", "formatted", "v4mapped"."""

    how: str
    expr: Expr


State = dict[str, Expr]
Fields = dict[tuple[str, str], Held]


class Walker:
    """Walks statements. `fields`: by (field, part); part "" is the whole field."""

    def __init__(self, entry: Sequence[EntryField], resolve: Callable[[Expr], Expr] = lambda expr: expr) -> None:
        self.locals: State = {}
        self.types: dict[str, str] = {}
        """What variables that point to structs were declared as."""
        self.fields: Fields = {}
        self.returned: Expr | None = None
        self.last: Expr = NOTHING
        """What the last statement that is an expression was worth."""
        self.problems: list[str] = []
        self._sources = {item.name: item.source for item in entry}
        self._resolve = resolve
        self._budget = _MAX_STATEMENTS

    def run(self, tokens: Sequence[str]) -> None:
        """Walk a list of statements."""
        at = 0
        while at < len(tokens) and self._budget > 0:
            self._budget -= 1
            try:
                at = self._statement(tokens, at)
            except CSyntaxError as error:
                self.problems.append(str(error))
                at = _behind(tokens, at)

    # statements

    def _statement(self, tokens: Sequence[str], at: int) -> int:
        token = tokens[at]
        if token == ";":
            return at + 1
        if token == "{":
            end = closing(tokens, at)
            self.run(tokens[at + 1 : end])
            return end + 1
        if token == "if":
            return self._if(tokens, at)
        if token == "do":
            end = self._statement(tokens, at + 1)
            return _behind(tokens, end)
        if token in ("for", "while"):
            return self._loop(tokens, at)
        if token == "switch":
            end = closing(tokens, at + 1)
            before = dict(self.fields)
            after = self._statement(tokens, end + 1)
            for key, held in self.fields.items():
                if before.get(key) != held:
                    self.fields[key] = Held(held.how, Opaque("one of the branches of a switch"))
            return after
        if token in ("case", "default"):
            colon = next((index for index in range(at, len(tokens)) if tokens[index] == ":"), len(tokens))
            return colon + 1
        if token in ("break", "continue", "goto"):
            return _behind(tokens, at)
        if token == "(" and tokens[at + 1 : at + 2] == ["{"]:
            self.run(tokens[at + 2 : closing(tokens, at + 1)])
            return _behind(tokens, at)
        if is_name(token) and tokens[at + 1 : at + 2] == ["("] and token != "return":
            end = closing(tokens, at + 1)
            if tokens[end + 1 : end + 2] == ["{"]:
                return self._repeated(tokens, end + 1)
        if is_name(token) and tokens[at + 1 : at + 2] == [":"]:
            return at + 2
        end = _behind(tokens, at)
        body = tokens[at : end - 1] if tokens[end - 1 : end] == [";"] else tokens[at:end]
        if token == "return":
            if self.returned is None:
                self.returned = self._value(body[1:]) if len(body) > 1 else NOTHING
            return end
        self._simple(body)
        return end

    def _if(self, tokens: Sequence[str], at: int) -> int:
        end = closing(tokens, at + 1)
        test = self._value(tokens[at + 2 : end])
        locals_, fields, returned = dict(self.locals), dict(self.fields), self.returned
        after = self._statement(tokens, end + 1)
        then_locals, then_fields, then_returned = self.locals, self.fields, self.returned
        self.locals, self.fields, self.returned = dict(locals_), dict(fields), returned
        if after < len(tokens) and tokens[after] == "else":
            after = self._statement(tokens, after + 1)
        self.locals = {
            name: _either(test, then_locals.get(name), self.locals.get(name)) for name in {**then_locals, **self.locals}
        }
        merged: Fields = {}
        for key in {**then_fields, **self.fields}:
            then, other = then_fields.get(key), self.fields.get(key)
            how = (
                then.how
                if then is not None and (other is None or isinstance(other.expr, (Num, Str)))
                else other.how
                if other
                else "value"
            )
            merged[key] = Held(how, _either(test, then.expr if then else None, other.expr if other else None))
        self.fields = merged
        if then_returned is not None and self.returned is None and returned is None:
            rest = tokens[after:]
            self.run(rest)
            self.returned = Cond(test, then_returned, self.returned) if self.returned is not None else None
            return len(tokens)
        return after

    def _loop(self, tokens: Sequence[str], at: int) -> int:
        end = closing(tokens, at + 1)
        parts = split(tokens[at + 2 : end], ";")
        if tokens[at] == "for" and len(parts) == 3 and parts[0]:
            first = split(parts[0])[0]
            names = [token for token in first if is_name(token)]
            name = first[first.index("=") - 1] if "=" in first else names[-1] if names else ""
            if name:
                self.locals[name] = Name("$i")
        return self._repeated(tokens, end + 1)

    def _repeated(self, tokens: Sequence[str], at: int) -> int:
        """The body of a loop."""
        before = dict(self.fields)
        after = self._statement(tokens, at)
        for key, held in self.fields.items():
            if before.get(key) != held and key[1] != "[$i]":
                self.fields[key] = Held(held.how, Opaque("made in a loop"))
        return after

    def _simple(self, tokens: Sequence[str]) -> None:
        if not tokens:
            return
        equals = _assignment(tokens)
        declared = _declaration(tokens, equals)
        if declared:
            self._declare(tokens, declared)
        elif len(pieces := split(tokens)) > 1:
            for piece in pieces:
                self._simple(piece)
        elif equals is not None:
            op = tokens[equals]
            value = self._value(tokens[equals + 1 :]) if op == "=" else self._value(
                [*tokens[:equals], op[:-1], "(", *tokens[equals + 1 :], ")"]
            )  # fmt: skip
            self._store(parse(tokens[:equals]), Held("value", value))
        else:
            expr = parse(tokens)
            self.last = self._substitute(expr)
            self._call(expr)

    def _declare(self, tokens: Sequence[str], first: int) -> None:
        for piece in split(tokens[first:]):
            if not piece:
                continue
            while piece and piece[0] == "*":
                piece = piece[1:]
            if piece and is_name(piece[0]):
                name = piece[0]
                value = self._value(piece[piece.index("=") + 1 :]) if "=" in piece else NOTHING
                pointer = "*" in tokens[:first] or tokens[first] == "*"
                if pointer and ("struct" in tokens[:first] or "union" in tokens[:first]):
                    self.types[name] = joined([*(token for token in tokens[:first] if token != "*"), "*"])
                seen = name in self.types and value != NOTHING
                self.locals[name] = Cast(self.types[name], value) if seen else value

    def _value(self, tokens: Sequence[str]) -> Expr:
        if tokens and tokens[0] == "{":
            return Opaque("an initialiser")
        return self._substitute(parse(list(tokens)))

    def _substitute(self, expr: Expr) -> Expr:
        if isinstance(expr, Block):
            inner = Walker((), self._resolve)
            inner.locals, inner.fields = dict(self.locals), dict(self.fields)
            inner.run(list(expr.tokens))
            return inner.last
        if isinstance(expr, Name):
            return self.locals.get(expr.name, expr)
        if isinstance(expr, Member) and expr.base in _ENTRY:
            held = self.fields.get((expr.name, ""))
            return held.expr if held is not None and held.how == "value" else expr
        return rebuild(expr, self._substitute)

    def _call(self, expr: Expr) -> None:
        while isinstance(expr, Cast):
            expr = expr.value
        if not isinstance(expr, Call) or not isinstance(expr.func, Name):
            return
        name, args = expr.func.name, expr.args
        if name in _STRINGS and args and isinstance(args[0], Name):
            target = args[0].name
            source = self._sources.get(target, ())
            if len(args) > 1 and args[1] != Name("NULL"):
                value = self._substitute(args[1])
            else:
                value = self._value(list(source)) if source else Opaque("nothing that __string names")
            self.fields[target, ""] = Held("text", value)
        elif name in ("__assign_vstr", "__assign_rel_vstr") and args and isinstance(args[0], Name):
            self.fields[args[0].name, ""] = Held("formatted", Opaque("a text made by a format"))
        elif name in ("memset", "memset_after", "bzero") and args:
            self._store(args[0], Held("bytes", Num(0)), weak=True)
        elif name in _WRITERS:
            to, source_at, how = _WRITERS[name]
            if max(to, source_at) < len(args):
                target_expr = (
                    Name(f"$field {args[0].name}") if name.startswith("__assign") and isinstance(args[0], Name) else args[to]
                )
                self._store(target_expr, Held(how, self._substitute(args[source_at])), through=True)
        else:
            for arg in args:
                field = self._target(self._substitute(_address_of(arg)), through=True, known=True)
                if field is not None and not field[0].startswith("local "):
                    self.fields[field] = Held("value", Opaque(text_of(expr)))

    # places

    def _store(self, target: Expr, held: Held, *, weak: bool = False, through: bool = False) -> None:
        place = self._target(target, through=through)
        if place is None:
            return
        if place[0].startswith("local "):
            name, value = place[0][6:], held.expr
            seen = name in self.types and value != NOTHING and not (isinstance(value, Cast) and "struct" in value.type)
            self.locals[name] = Cast(self.types[name], value) if seen else value
        elif not (weak and place in self.fields):
            self.fields[place] = held

    def _target(self, target: Expr, *, through: bool = False, known: bool = False) -> tuple[str, str] | None:
        """(field, part) that an expression on the left names; ("local x", "") for a variable. `known`: it is a variable's value,
        in which names are what the variable was made from.
        """
        if isinstance(target, Name):
            if target.name.startswith("$field "):
                return target.name[7:], ""
            value = None if known else self.locals.get(target.name)
            inner = self._target(value, through=True, known=True) if through and value is not None else None
            return inner or (None if known else (f"local {target.name}", ""))
        if isinstance(target, Cast):
            return self._target(target.value, through=through, known=known)
        if isinstance(target, Call) and isinstance(target.func, Name) and target.func.name in _GETTERS and target.args:
            return (target.args[0].name, "") if isinstance(target.args[0], Name) else None
        if isinstance(target, Unary) and target.op in "*&":
            return self._target(target.value if known else self._substitute(target.value), through=True, known=True)
        if isinstance(target, Member):
            if target.base in _ENTRY:
                return target.name, ""
            return self._member(target, known)
        if isinstance(target, Index):
            base = self._target(target.base, through=True, known=known)
            index = target.index if known else self._substitute(target.index)
            if base is None or base[0].startswith("local "):
                return None
            if isinstance(index, Num):
                return base[0], f"{base[1]}[{index.value}]"
            return base[0], f"{base[1]}[$i]" if index == Name("$i") else f"{base[1]}[{text_of(index)}]"
        return None

    def _member(self, target: Member, known: bool) -> tuple[str, str] | None:
        """A member of a struct that a field's bytes are seen as."""
        base = target.base if known else self._substitute(target.base)
        c_type = base.type if isinstance(base, Cast) else ""
        inner = self._target(base, through=True, known=True)
        if inner is None or inner[0].startswith("local "):
            return None
        words = [word for word in c_type.replace("*", " ").split() if word not in ("struct", "union", "const", "void")]
        if words and target.arrow:
            return inner[0], f"{inner[1]}@{words[0]}->{target.name}"
        return inner[0], f"{inner[1]}{'->' if target.arrow else '.'}{target.name}"


def _address_of(arg: Expr) -> Expr:
    return arg.value if isinstance(arg, Unary) and arg.op == "&" else arg


def _either(test: Expr, then: Expr | None, other: Expr | None) -> Expr:
    if then == other:
        return then if then is not None else NOTHING
    return Cond(test, then if then is not None else NOTHING, other if other is not None else NOTHING)


def _behind(tokens: Sequence[str], at: int) -> int:
    """Index behind the semicolon that ends what begins at `at`."""
    depth = 0
    for index in range(at, len(tokens)):
        if tokens[index] in "([{":
            depth += 1
        elif tokens[index] in ")]}":
            depth -= 1
        elif tokens[index] == ";" and depth == 0:
            return index + 1
    return len(tokens)


_ASSIGNING = frozenset(("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>="))


def _assignment(tokens: Sequence[str]) -> int | None:
    depth = 0
    for index, token in enumerate(tokens):
        if token in "([{":
            depth += 1
        elif token in ")]}":
            depth -= 1
        elif token in _ASSIGNING and depth == 0:
            return index
    return None


def _declaration(tokens: Sequence[str], equals: int | None) -> int:
    """How many tokens at the front are a type; 0 where this is no declaration."""
    end = equals if equals is not None else len(tokens)
    head = tokens[:end]
    count = 0
    while count < len(head) and is_name(head[count]):
        count += 1
    if count == 0 or (count < len(head) and head[count] in ("(", ".", "->") and count == 1):
        return 0
    if head[0] in ("__entry", "return"):
        return 0
    stars = count
    while stars < len(head) and head[stars] == "*":
        stars += 1
    if stars > count:
        return count if stars < len(head) and is_name(head[stars]) and (count > 1 or is_type([*head[:count], "*"])) else 0
    return count - 1 if count > 1 else 0


__all__ = ["NOTHING", "Binary", "Held", "Type", "Walker"]
