"""TRACE_EVENT(name, TP_PROTO(...)): a tracepoint of one's own, from C text.

The prototype becomes BTF on top of the kernel's, as the BTF of a module is, with `typedef void (*btf_trace_<name>)(void *, ...)`
in it. So everything that knows tracepoints from BTF (arguments, tp_btf programs, listings) knows this one too.

Kernel counterpart: include/linux/tracepoint.h, include/trace/bpf_probe.h
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastrtp.btf import Btf, BtfKind, BtfWriter, tracepoints
from fastrtp.errors import BtfError
from fastrtp.kernel.objects.btf_object import BtfObject
from fastrtp.uapi import MAX_BPF_FUNC_ARGS

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.trace.tracepoint import Tracepoint

_TOKEN = re.compile(r"[A-Za-z_]\w*|\*|\[[^\]]*\]|\S")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")
_QUALIFIERS: dict[str, BtfKind | None] = {
    "const": BtfKind.CONST, "volatile": BtfKind.VOLATILE, "restrict": None, "__restrict": None, "__user": None, "__rcu": None,
}  # fmt: skip
_TAGGED = {"struct": BtfKind.STRUCT, "union": BtfKind.UNION, "enum": BtfKind.ENUM}
_INTEGER_WORDS = frozenset({"int", "long", "short", "char", "signed", "unsigned", "_Bool"})
_BY_VALUE = (1, 2, 4, 8)


def _integer_name(words: list[str]) -> str:
    """The name that compilers give an integer type in BTF: "unsigned long" -> "long unsigned int"."""
    count = Counter(words)
    unsigned = " unsigned" if count["unsigned"] else ""
    if count["_Bool"]:
        return "_Bool"
    if count["char"]:
        return "unsigned char" if unsigned else "signed char" if count["signed"] else "char"
    if count["short"]:
        return f"short{unsigned} int"
    if count["long"]:
        return f"{'long ' * min(count['long'], 2)}".strip() + f"{unsigned} int"
    return "unsigned int" if unsigned else "int"


class _Prototype:
    """Parses TP_PROTO text into types of a split BTF."""

    def __init__(self, base: Btf, text: str) -> None:
        self.base = base
        self.text = text
        self.writer = BtfWriter(start_id=len(base), str_start=base.str_end)
        self._chars: dict[tuple[int, int], int] = {}

    def error(self, why: str) -> BtfError:
        """With the prototype in the message."""
        return BtfError(f"TP_PROTO({self.text}): {why}")

    def params(self) -> list[tuple[str, int]]:
        """(name, type id) of each argument."""
        parts = [part.strip() for part in re.split(r",(?![^()]*\))", self.text)]
        if parts in ([""], ["void"]):
            raise self.error("a tracepoint takes at least 1 argument")
        if len(parts) > MAX_BPF_FUNC_ARGS:
            raise self.error(f"{len(parts)} arguments, at most {MAX_BPF_FUNC_ARGS} are allowed")
        return [self._param(part) for part in parts]

    def _param(self, text: str) -> tuple[str, int]:
        if "(" in text:
            found = re.search(r"\(\s*\*\s*(\w*)", text)
            return (found.group(1) if found else ""), self.writer.add_pointer(0)
        tokens = _TOKEN.findall(text)
        arrays = [token for token in tokens if token.startswith("[")]
        tokens = [token for token in tokens if not token.startswith("[")]
        bad = [token for token in tokens if token != "*" and not _IDENTIFIER.match(token)]
        if bad or not tokens:
            raise self.error(f"cannot read {text!r}")
        type_id, rest = self._base_type(tokens, text)
        type_id, rest = self._pointers(type_id, rest)
        if len(rest) > 1 or rest == ["*"]:
            raise self.error(f"cannot read {text!r}")
        if arrays:
            type_id = self.writer.add_pointer(type_id)
        return (rest[0] if rest else ""), type_id

    def _base_type(self, tokens: list[str], text: str) -> tuple[int, list[str]]:
        """(type id with its qualifiers, tokens that follow)."""
        qualifiers: list[str] = []
        words: list[str] = []
        at = 0
        while at < len(tokens):
            token = tokens[at]
            if token in _QUALIFIERS:
                qualifiers.append(token)
            elif token in _TAGGED and not words and at + 1 < len(tokens):
                words = [token, tokens[at + 1]]
                at += 1
            elif (token in _INTEGER_WORDS and all(word in _INTEGER_WORDS for word in words)) or (not words and token != "*"):
                words.append(token)
            else:
                break
            at += 1
        if not words:
            raise self.error(f"no type in {text!r}")
        type_id = self._named(words)
        for qualifier in qualifiers:
            type_id = self._qualified(qualifier, type_id)
        return type_id, tokens[at:]

    def _named(self, words: list[str]) -> int:
        if words == ["void"]:
            return 0
        if words[0] in _TAGGED and len(words) == 1:
            raise self.error(f"{words[0]} without a name")
        if words[0] in _TAGGED:
            kinds: tuple[BtfKind, ...] = (_TAGGED[words[0]],)
            if words[0] == "enum":
                kinds = (BtfKind.ENUM, BtfKind.ENUM64)
            names = [words[1]]
        elif words[0] in _INTEGER_WORDS:
            kinds, names = (BtfKind.INT,), [_integer_name(words)]
        else:
            kinds, names = (BtfKind.TYPEDEF, BtfKind.INT), words[:1]
        for name in names:
            for kind in kinds:
                found = self.base.find(name, kind)
                if found is not None:
                    return found
        raise self.error(f"the kernel's BTF has no type {' '.join(words)!r}")

    def _pointers(self, type_id: int, tokens: list[str]) -> tuple[int, list[str]]:
        at = 0
        while at < len(tokens) and (tokens[at] == "*" or tokens[at] in _QUALIFIERS):
            type_id = self.writer.add_pointer(type_id) if tokens[at] == "*" else self._qualified(tokens[at], type_id)
            at += 1
        return type_id, tokens[at:]

    def _qualified(self, qualifier: str, type_id: int) -> int:
        kind = _QUALIFIERS[qualifier]
        if kind is None:
            return type_id
        key = (int(kind), type_id)
        if key not in self._chars:
            self._chars[key] = self.writer.add(kind, "", type_id)
        return self._chars[key]


def module_btf(base: Btf, name: str, text: str) -> bytes:
    """Split BTF with the typedef of one tracepoint. BtfError."""
    if not _IDENTIFIER.match(name):
        raise BtfError(f"TRACE_EVENT({name!r}): not a C identifier")
    prototype = _Prototype(base, text)
    params = prototype.params()
    writer = prototype.writer
    proto = writer.add_func_proto(0, [("", writer.add_pointer(0)), *params])
    writer.add(BtfKind.TYPEDEF, f"btf_trace_{name}", writer.add_pointer(proto))
    return writer.dump()


def define(
    kernel: Kernel, name: str, text: str, *, writable_size: int = 0,
    regfunc: Callable[[], int | None] | None = None, unregfunc: Callable[[], None] | None = None,
) -> Tracepoint:  # fmt: skip
    """Add the tracepoint to a kernel, with a module of its name. BtfError, BpfError."""
    data = module_btf(kernel.btf, name, text)
    btf = Btf.parse(data, kernel.btf)
    proto = tracepoints(btf)[name]
    for arg in proto.args:
        if not arg.is_pointer and arg.size not in _BY_VALUE:
            noun = arg.name or "an argument"
            raise BtfError(f"TP_PROTO({text}): {noun} has {arg.size} bytes, by value 1, 2, 4 or 8 are allowed")
    tp = kernel.tracepoints.add(proto, writable_size=writable_size, regfunc=regfunc, unregfunc=unregfunc)
    kernel.modules[name] = BtfObject(kernel.btfs, btf, data, name)
    return tp
