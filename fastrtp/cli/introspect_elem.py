"""`fastrtp map lookup|update|delete|getnext`: single elements. Kernel: tools/bpf/bpftool/map.c:do_lookup, do_update, do_getnext

Bytes are given as bpftool takes them: decimal or 0x numbers, one a byte; after the word `hex`, two digits a byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.introspect import Answer, Verb, Words, only_one, open_ids
from fastrtp.cli.introspect_map import element, hexes, line, row

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

_FLAGS = {"any": 0, "noexist": 1, "exist": 2}


def _data(words: Words, size: int, what: str) -> bytes:
    """The next `size` bytes. UsageError."""
    base, out = 0, bytearray()
    while len(out) < size:
        word = words.take(f"byte {len(out)} of {size} of the {what}")
        if word == "hex" and not out and not base:
            base = 16
            continue
        try:
            number = int(word, base)
        except ValueError:
            number = -1
        if not 0 <= number <= 255:
            raise click.UsageError(
                f"byte {len(out)} of the {what} is {word!r}: a byte is 0 to 255, or 0xff, or ff behind the word hex"
            )
        out.append(number)
    return bytes(out)


def _on_map(body: Callable[[Kernel, int, Any, Words], Answer]) -> Verb:
    """A verb on the one map that the words begin with."""

    def verb(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
        number = only_one(open_ids(kernel, "map", words, lambda number: row(kernel, number)), "map")
        held: Any = kernel.maps.find(number)
        fd = kernel.fd_by_id("map", number)
        try:
            return body(kernel, fd, held.map, words)
        finally:
            kernel.close(fd)

    verb.__doc__ = body.__doc__
    return verb


def _key(words: Words, contents: Any) -> bytes:
    if not contents.key_size:
        return b""
    words.take("key", ["key"])
    return _data(words, contents.key_size, "key")


def _lookup(kernel: Kernel, fd: int, contents: Any, words: Words) -> Answer:
    """`map lookup MAP key DATA`."""
    key = _key(words, contents)
    words.end()
    found = element(contents, key, kernel.map_lookup_elem(fd, key))
    shown = found.get("formatted")
    return Answer(found, line(found) if shown is None else json.dumps(shown, indent=4, ensure_ascii=False))


def _update(kernel: Kernel, fd: int, contents: Any, words: Words) -> Answer:
    """`map update MAP key DATA value DATA [any|exist|noexist]`; a per-CPU map's value is the same on every CPU."""
    key = _key(words, contents)
    words.take("value", ["value"])
    value = _data(words, contents.value_size, "value")
    flags = _FLAGS[words.take("flag", list(_FLAGS))] if words else 0
    words.end()
    if contents.percpu:
        value = value.ljust(-(-len(value) // 8) * 8, b"\0") * contents.memory.cpus
    kernel.map_update_elem(fd, key, value, flags)
    return Answer(None, "")


def _delete(kernel: Kernel, fd: int, contents: Any, words: Words) -> Answer:
    """`map delete MAP key DATA`."""
    key = _key(words, contents)
    words.end()
    kernel.map_delete_elem(fd, key)
    return Answer(None, "")


def _getnext(kernel: Kernel, fd: int, contents: Any, words: Words) -> Answer:
    """`map getnext MAP [key DATA]`: the first key without one. BpfError ENOENT after the last."""
    key = _key(words, contents) if words else None
    words.end()
    following = kernel.map_get_next_key(fd, key)
    rows = {"key": hexes(key) if key is not None else None, "next_key": hexes(following)}
    text = "\n".join(f"{title}:\n{part.hex(' ')}" for title, part in (("key", key), ("next key", following)) if part is not None)
    return Answer(rows, text)


VERBS: dict[str, Verb] = {
    "lookup": _on_map(_lookup), "update": _on_map(_update), "delete": _on_map(_delete), "getnext": _on_map(_getnext),
}  # fmt: skip
