"""`fastrtp map`: maps and what is in them. Kernel: tools/bpf/bpftool/map.c, btf_dumper.c"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastrtp.cli.introspect import Answer, Verb, Words, fdinfo, holders, holders_text, only_one, open_ids, pin, pinned
from fastrtp.errors import BpfError
from fastrtp.uapi import BpfMapType, BpfProgType

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel


def row(kernel: Kernel, number: int, bpffs: bool = False) -> dict[str, Any]:
    """A map with the keys of `bpftool -j map show`."""
    fd = kernel.fd_by_id("map", number)
    try:
        info, more = kernel.obj_get_info_by_fd(fd), fdinfo(kernel, fd)
    finally:
        kernel.close(fd)
    found: dict[str, Any] = {
        "id": info.id,
        "type": BpfMapType(info.type).name.removeprefix("BPF_MAP_TYPE_").lower(),
        **({"name": info.name.decode()} if info.name else {}),
        "flags": info.map_flags,
        "bytes_key": info.key_size,
        "bytes_value": info.value_size,
        "max_entries": info.max_entries,
        "bytes_memlock": int(more["memlock"]),
    }
    if "owner_prog_type" in more:
        owner = BpfProgType(int(more["owner_prog_type"])).name.removeprefix("BPF_PROG_TYPE_").lower()
        found |= {"owner_prog_type": owner, "owner_jited": more["owner_jited"] == "1"}
    found |= {"frozen": int(more["frozen"])}
    found |= {"pinned": pinned(kernel, "map", number)} if bpffs else {}
    found |= {"btf_id": info.btf_id} if info.btf_id else {}
    return found | {"pids": holders(kernel, "map", number)}


def as_text(found: dict[str, Any]) -> str:
    """A map as `bpftool map show` prints it."""
    name = f"  name {found['name']}" if "name" in found else ""
    owner = ""
    if "owner_prog_type" in found:
        owner = f"\n\towner_prog_type {found['owner_prog_type']}  owner {'jited' if found['owner_jited'] else 'not jited'}"
    last = "  ".join([f"btf_id {found['btf_id']}"] * ("btf_id" in found) + ["frozen"] * bool(found["frozen"]))
    return (
        f"{found['id']}: {found['type']}{name}  flags {found['flags']:#x}\n"
        f"\tkey {found['bytes_key']}B  value {found['bytes_value']}B  max_entries {found['max_entries']}"
        f"  memlock {found['bytes_memlock']}B{owner}"
        + "".join(f"\n\tpinned {path}" for path in found.get("pinned", ()))
        + (f"\n\t{last}" if last else "")
        + holders_text(found)
    )


def show(kernel: Kernel, words: Words, bpffs: bool) -> Answer:
    """`map show [MAP]`."""
    one = bool(words)
    ids = open_ids(kernel, "map", words, lambda number: row(kernel, number))
    words.end()
    rows = [row(kernel, number, bpffs) for number in ids]
    return Answer(rows[0] if one and len(rows) == 1 else rows, "\n".join(map(as_text, rows)))


def dump(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`map dump MAP`: decoded by BTF where the map has it."""
    number = only_one(open_ids(kernel, "map", words, lambda number: row(kernel, number)), "map")
    words.end()
    fd = kernel.fd_by_id("map", number)
    try:
        rows = list(_elements(kernel, fd, number))
    finally:
        kernel.close(fd)
    if rows and all("formatted" in found for found in rows):
        return Answer(rows, json.dumps([found["formatted"] for found in rows], indent=4, ensure_ascii=False))
    return Answer(rows, "\n".join([*map(line, rows), f"Found {len(rows)} element{'s'[: len(rows) != 1]}"]))


def _elements(kernel: Kernel, fd: int, number: int) -> Iterator[dict[str, Any]]:
    """Key and value of each element: the bytes in hex, and decoded."""
    bpf_map: Any = kernel.maps.find(number)
    contents = bpf_map.map
    key: bytes | None = None
    while True:
        try:
            key = kernel.map_get_next_key(fd, key)
        except BpfError:
            return
        try:
            value = kernel.map_lookup_elem(fd, key)
        except BpfError as error:
            yield {"key": hexes(key), "value": {"error": error.strerror}}
            continue
        yield element(contents, key, value)


def element(contents: Any, key: bytes, value: bytes) -> dict[str, Any]:
    """An element with the keys of `bpftool -j map lookup`: the bytes in hex, and decoded where the map has types."""
    found: dict[str, Any] = {"key": hexes(key)}
    decoded = contents.btf is not None and bool(contents.btf_value_type_id)
    formatted: dict[str, Any] = {"key": _ready(contents.decode_key(key))} if contents.btf_key_type_id else {}
    if contents.percpu:
        step = -(-contents.value_size // 8) * 8
        values = [value[at : at + contents.value_size] for at in range(0, len(value), step)]
        found["values"] = [{"cpu": cpu, "value": hexes(part)} for cpu, part in enumerate(values)]
        if decoded:
            formatted["values"] = [{"cpu": cpu, "value": _value(contents, part)} for cpu, part in enumerate(values)]
    else:
        found["value"] = hexes(value)
        formatted["value"] = _value(contents, value) if decoded else None
    return found | ({"formatted": formatted} if decoded else {})


def _value(contents: Any, value: bytes) -> Any:
    from fastrtp.btf import BtfKind

    decoded = _ready(contents.decode_value(value))
    record = contents.btf.type(contents.btf_value_type_id)
    return {record.name: [{name: part} for name, part in decoded.items()]} if record.kind == BtfKind.DATASEC else decoded


def _ready(value: Any) -> Any:
    """Decoded values as JSON takes them."""
    if isinstance(value, dict):
        return {name: _ready(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_ready(part) for part in value]
    return value.hex() if isinstance(value, bytes) else value


def hexes(data: bytes) -> list[str]:
    """Bytes as bpftool writes them in JSON."""
    return [f"{byte:#04x}" for byte in data]


def line(found: dict[str, Any]) -> str:
    """An element as bpftool prints it without types."""
    key = " ".join(byte[2:] for byte in found["key"])
    if "values" in found:
        rows = (f"value (CPU {part['cpu']:02}): {' '.join(byte[2:] for byte in part['value'])}" for part in found["values"])
        return "\n".join([f"key: {key}", *rows])
    value = found["value"]
    return f"key: {key}  value: {'<no entry>' if isinstance(value, dict) else ' '.join(byte[2:] for byte in value)}"


VERBS: dict[str, Verb] = {"show": show, "list": show, "dump": dump, "pin": pin("map")}
