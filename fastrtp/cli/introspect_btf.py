"""`fastrtp btf`: BTF objects and their types. Kernel: tools/bpf/bpftool/btf.c"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastrtp.cli.introspect import Answer, Verb, Words, holders, holders_text, no_such

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.btf.types import BtfType
    from fastrtp.kernel import Kernel

_LINKAGE = ("static", "global", "extern")
_ENCODINGS = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}
_PARTS = ("members", "values", "params", "vars")


def btf_row(kernel: Kernel, number: int) -> dict[str, Any]:
    """A BTF object with the keys of `bpftool -j btf show`."""
    held = kernel.btfs.find(number)
    if held is None:
        raise no_such("btf", f"id {number}")
    found: dict[str, Any] = {
        "id": number,
        "size": len(held.data),
        "prog_ids": [prog.id for prog in kernel.progs if held in (prog.aux.btf, prog.aux.attach_btf)],
        "map_ids": [bpf_map.id for bpf_map in kernel.maps if bpf_map.btf is held],
        "kernel": held.kernel_btf,
    }
    return found | ({"name": held.name} if held.name else {}) | {"pids": holders(kernel, "btf", number)}


def _btf_text(found: dict[str, Any]) -> str:
    name = f"[{found['name']}]" if found["kernel"] else "<anon>"
    used = [f"  {noun} {','.join(map(str, found[noun]))}" for noun in ("prog_ids", "map_ids") if found[noun]]
    return f"{found['id']}: name {name}  size {found['size']}B{''.join(used)}{holders_text(found)}"


def btf_show(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`btf show [id N]`."""
    one = bool(words)
    ids = list(kernel.ids("btf"))
    if words:
        words.take("handle", ["id"])
        ids = [words.number("id")]
    words.end()
    rows = [btf_row(kernel, number) for number in ids]
    return Answer(rows[0] if one else rows, "\n".join(map(_btf_text, rows)))


def btf_dump(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
    """`btf dump id N [format raw|c]`, `btf dump prog id N`, `btf dump map id N [key|value|kv|all]`, `btf dump file F`."""
    source = words.take("source", ["id", "prog", "map", "file"])
    if source == "file":
        return _dumped(_file_btf(words.take("file")), None, words)
    roots: list[int] | None = None
    if source == "id":
        held = kernel.btfs.find(number := words.number("id"))
    else:
        words.take("handle", ["id"])
        number = words.number("id")
        if source == "prog":
            prog = kernel.progs.find(number)
            held = prog.aux.btf if prog is not None else None
        else:
            bpf_map = kernel.maps.find(number)
            held = bpf_map.btf if bpf_map is not None else None
            roots = _map_roots(bpf_map, words) if bpf_map is not None else None
    if held is None:
        raise no_such("btf", f"{source} {number} has none" if source != "id" else f"id {number}")
    return _dumped(held.btf, roots, words)


def dump_file(words: Words) -> Answer | None:
    """The answer to `btf dump file F [format raw|c]`, which asks no kernel; None for other words."""
    asked = [words.take("verb"), words.take("source")] if len(words) >= 3 else []
    if not asked or not ("dump".startswith(asked[0]) and "file".startswith(asked[1])):
        return None
    return _dumped(_file_btf(words.take("file")), None, words)


def _dumped(btf: Btf, roots: list[int] | None, words: Words) -> Answer:
    form = words.take("format", ["raw", "c"]) if words and words.take("option", ["format"]) else "raw"
    words.end()
    if form == "c":
        from fastrtp.btf.dump import dump_header

        text = dump_header(btf, roots)
        return Answer({"c": text}, text.rstrip("\n"))
    base = btf.base
    ids = roots if roots is not None else range(len(base) if base is not None else 1, len(btf))
    rows = [_type_row(btf, btf.type(number)) for number in ids]
    return Answer({"types": rows}, "\n".join(map(_type_text, rows)))


def _file_btf(name: str) -> Btf:
    """The BTF of a file: raw, compressed, or the section of an object; a module's with the kernel's below it, as in sysfs.

    OSError, BtfError, ObjectError. Kernel: tools/bpf/bpftool/btf.c:do_dump
    """
    from pathlib import Path

    from fastrtp.btf import load_btf, parse_btf
    from fastrtp.errors import BtfError
    from fastrtp.obj.elf import ElfFile

    path = Path(name)
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            vmlinux = path.parent / "vmlinux"
            in_sysfs = str(path.absolute()).startswith("/sys/kernel/btf/") and path.name != "vmlinux"
            return load_btf(path, load_btf(vmlinux) if in_sysfs else None)
    section = ElfFile(path.read_bytes()).section(".BTF")
    if section is None:
        raise BtfError(f"{name}: no .BTF section")
    return parse_btf(section.data, name)


def _map_roots(bpf_map: Any, words: Words) -> list[int] | None:
    part = "kv"
    key, value = bpf_map.map.btf_key_type_id, bpf_map.map.btf_value_type_id
    if words:
        part = words.take("part", ["key", "value", "kv", "all", "format"])
        if part == "format":
            words.give_back(part)
            part = "kv"
    wanted = {"key": [key], "value": [value], "kv": [key, value]}.get(part)
    return [number for number in wanted if number] if wanted is not None else None


def _encoding(record: BtfType) -> str:
    return _ENCODINGS.get(record.encoding, f"UNKN({record.encoding:#x})")


def _type_row(btf: Btf, record: BtfType) -> dict[str, Any]:
    """A type with the keys of `bpftool -j btf dump`. Kernel: tools/bpf/bpftool/btf.c:dump_btf_type"""
    from fastrtp.btf.types import BtfKind

    found: dict[str, Any] = {"id": record.id, "kind": record.kind.name, "name": record.name or "(anon)"}
    kind = record.kind
    if kind == BtfKind.INT:
        found |= {"size": record.size, "bits_offset": record.int_offset, "nr_bits": record.bits, "encoding": _encoding(record)}
    elif kind == BtfKind.ARRAY:
        found |= {"type_id": record.type, "index_type_id": record.index_type, "nr_elems": record.nelems}
    elif kind in (BtfKind.STRUCT, BtfKind.UNION):
        found |= {"size": record.size, "vlen": len(record.members), "members": [
            {"name": member.name or "(anon)", "type_id": member.type_id, "bits_offset": member.bit_offset}
            | ({"bitfield_size": member.bitfield_size} if member.bitfield_size else {})
            for member in record.members
        ]}  # fmt: skip
    elif kind in (BtfKind.ENUM, BtfKind.ENUM64):
        signed = "SIGNED" if record.kind_flag else "UNSIGNED"
        values = [{"name": value.name or "(anon)", "val": value.value} for value in record.values]
        found |= {"encoding": signed, "size": record.size, "vlen": len(values), "values": values}
    elif kind == BtfKind.FWD:
        found |= {"fwd_kind": "union" if record.kind_flag else "struct"}
    elif kind == BtfKind.FUNC_PROTO:
        params = [{"name": param.name or "(anon)", "type_id": param.type_id} for param in record.params]
        found |= {"ret_type_id": record.type, "vlen": len(params), "params": params}
    elif kind in (BtfKind.FUNC, BtfKind.VAR):
        found |= {"type_id": record.type, "linkage": _LINKAGE[record.linkage] if record.linkage < 3 else "(unknown)"}
    elif kind == BtfKind.DATASEC:
        found |= {"size": record.size, "vlen": len(record.secinfos), "vars": [
            {"type_id": var.type_id, "offset": var.offset, "size": var.size, "type": {"name": btf.type(var.type_id).name}}
            for var in record.secinfos
        ]}  # fmt: skip
    elif kind == BtfKind.FLOAT:
        found |= {"size": record.size}
    elif kind == BtfKind.DECL_TAG:
        found |= {"type_id": record.type, "component_idx": record.component_idx}
    else:
        found |= {"type_id": record.type}
    return found


def _type_text(found: dict[str, Any]) -> str:
    """A type as `bpftool btf dump` prints it."""
    shown = {name: value for name, value in found.items() if name not in ("id", "kind", "name", *_PARTS)}
    separator = ", " if found["kind"] == "VAR" else " "
    head = f"[{found['id']}] {found['kind']} '{found['name']}'"
    head += (" " + separator.join(f"{name}={value}" for name, value in shown.items())) if shown else ""
    lines = []
    for part in next((found[name] for name in _PARTS if name in found), []):
        rest = " ".join(f"{name}={value}" for name, value in part.items() if name not in ("name", "type"))
        name = f"'{part['name']}' " if "name" in part else ""
        tail = f" (VAR '{part['type']['name']}')" if "type" in part else ""
        lines.append(f"\n\t{name}{rest}{tail}")
    return head + "".join(lines)


VERBS: dict[str, Verb] = {"show": btf_show, "list": btf_show, "dump": btf_dump}
