"""Accepted programs on disk, by content: what was verified once need not be verified again.

A verdict depends on who gives it: the verifier with all that it imports (`fastrtp.provenance`), and the native library, which
has its core, as it was compiled; the cache has no entries but theirs. The key covers the rest: instructions (maps by index
instead of by descriptor), the shape of each map with its BTF and the bytes of frozen constants, every member of LoadAttr, the
program's and the kernel's BTF. Entries are JSON: reading one runs no code, and every number in
it is checked against the program before it is used. Rejections are not kept: their log is followed anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fastrtp.entry_cache import EntryCache
from fastrtp.errors import BpfError
from fastrtp.isa import (
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    Insn,
    encode,
)
from fastrtp.native import library
from fastrtp.provenance import made_by
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.api import InsnAux, LoadAttr, SubprogInfo, VerifiedProgram, VerifierStats
from fastrtp.verifier.rules.check import bpf_check
from fastrtp.verifier.rules.resolve import LD_IMM64

MAX_BODY = 4 << 20
"""Bytes of an entry; a larger one (a level 2 log) is not kept."""

_MAPS = frozenset({BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE})
_BY_INDEX = frozenset({BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE})
_ACCESS = frozenset({None, "ctx", "stack", "map_value", "mem", "btf", "tp_buffer"})
_MEMBERS = tuple(member.name for member in fields(LoadAttr) if member.name not in ("insns", "fd_to_map", "fd_array"))
_KEPT = frozenset({"insns", "used_maps", "aux", "subprogs", "stats"})


class VerifiedCache:
    """Verified programs in `folder`, at most about `max_bytes` of them. `missed()` is called before one is verified anew."""

    def __init__(self, folder: Path, max_bytes: int = 16 << 20, missed: Callable[[], None] | None = None) -> None:
        self.entries = EntryCache(folder, "verified", ".json", judge(), max_bytes)
        self._missed = missed

    def bpf_check(self, attr: LoadAttr) -> VerifiedProgram:
        """As `bpf_check`, without the work when the program was accepted before. VerifierError, as there."""
        resolved = _resolve(attr)
        if resolved is None:
            return bpf_check(attr)
        insns, maps = resolved
        key = _key(attr, insns, maps)
        found = self.entries.get(key)
        if found is not None:
            program = _load(found[1], insns, maps)
            if program is not None:
                return program
        if self._missed is not None:
            self._missed()
        program = bpf_check(attr)
        body = _dump(program)
        if body is not None and program.insns == insns and all(a is b for a, b in zip(program.used_maps, maps, strict=True)):
            self.entries.put(key, {}, body)
        return program


def _resolve(attr: LoadAttr) -> tuple[list[Insn], list[Any]] | None:
    """Instructions with maps by index, and the maps; None for what the verifier has to refuse itself."""
    insns = list(attr.insns)
    maps: list[Any] = []
    try:
        skip = False
        for i, insn in enumerate(insns):
            if skip:
                skip = False
                continue
            if insn.code != LD_IMM64:
                continue
            skip = True
            if insn.src_reg not in _MAPS:
                continue
            fd = insn.imm
            if insn.src_reg in _BY_INDEX:
                if fd < 0:
                    return None
                fd = attr.fd_array[fd]
            found = attr.fd_to_map(fd)
            index = next((number for number, known in enumerate(maps) if known is found), len(maps))
            if index == len(maps):
                maps.append(found)
            insns[i] = insn._replace(imm=index)
    except (BpfError, IndexError):
        return None
    return insns, maps


def judge() -> str:
    """Name of the version of whatever says a verdict: the same for every program."""
    return f"{made_by(__name__)} {library.key()}"


def _btf(btf: Any) -> object:
    """Identity of a BTF: the digest of its bytes and of its base's."""
    return None if btf is None else btf.digest


def _records(info: Any) -> object:
    if info is None:
        return None
    return hashlib.blake2b(info.tobytes()).hexdigest() if hasattr(info, "tobytes") else [[int(x) for x in row] for row in info]


def _map(found: Any) -> object:
    """All of a map that the verifier may look at."""
    if not hasattr(found, "key_size"):
        return None
    constants = ""
    if found.map_type == BpfMapType.BPF_MAP_TYPE_ARRAY and found.frozen and found.map_flags & BPF_F_RDONLY_PROG:
        constants = hashlib.blake2b(found.read_value(0, found.value_size)).hexdigest()
    numbers = (found.map_type, found.key_size, found.value_size, found.max_entries, found.map_flags)
    return (
        *(int(number) for number in numbers),
        bool(found.frozen),
        found.name,
        int(getattr(found, "map_extra", 0) or 0),
        _btf(getattr(found, "btf", None)),
        getattr(found, "btf_key_type_id", 0),
        getattr(found, "btf_value_type_id", 0),
        _map(getattr(found, "inner_map", None)),
        constants,
    )


def _key(attr: LoadAttr, insns: Sequence[Insn], maps: Sequence[Any]) -> str:
    facts: list[object] = [[_map(found) for found in maps]]
    for name in _MEMBERS:
        value = getattr(attr, name)
        if name in ("btf", "kernel_btf"):
            value = _btf(value)
        elif name in ("func_info", "line_info"):
            value = _records(value)
        elif name == "attach":
            value = None if value is None else (value.name, value.btf_id)
        facts.append((name, value))
    digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
    digest.update(encode(insns))
    return digest.hexdigest()


def _row(record: Any) -> list[object]:
    """Members of a flat record. TypeError for one that has no plain form."""
    row: list[object] = []
    for member in fields(record):
        value = getattr(record, member.name)
        if isinstance(value, set):
            value = sorted(value)
        elif value is not None and type(value) not in (int, bool, str):
            raise TypeError(f"{member.name} of {type(record).__name__} is no plain value")
        row.append(value)
    return row


def _dump(program: VerifiedProgram) -> bytes | None:
    """The entry's text; None where the program has a part without a plain form, or one that no reader could check again."""
    if any(aux.operands for aux in program.aux):
        return None
    try:
        # most instructions are alike in what is known of them
        distinct: dict[tuple[object, ...], int] = {}
        which = [distinct.setdefault(tuple(_row(aux)), len(distinct)) for aux in program.aux]
        rest = {member.name: getattr(program, member.name) for member in fields(program) if member.name not in _KEPT}
        body = json.dumps(
            {
                "aux": list(distinct),
                "which": which,
                "subprogs": [_row(subprog) for subprog in program.subprogs],
                "stats": _row(program.stats),
                "rest": rest,
            },
            separators=(",", ":"),
        ).encode()
    except (TypeError, ValueError):
        return None
    return body if len(body) <= MAX_BODY else None


def _load(body: bytes, insns: list[Insn], maps: list[Any]) -> VerifiedProgram | None:
    """The program of an entry, or None when anything in it does not fit the program."""
    try:
        data = json.loads(body)
        rows, which = data["aux"], data["which"]
        count = len(insns)
        if len(which) != count or not all(type(index) is int and 0 <= index < len(rows) for index in which):
            return None
        kinds = [InsnAux(*row) for row in rows]
        for aux in kinds:
            _check_aux(aux, count, len(maps))
        subprogs = [_subprog(row) for row in data["subprogs"]]
        _check_subprogs(subprogs, count)
        stats = VerifierStats(*data["stats"])
        if not all(type(value) is int for value in _row(stats)):
            return None
        rest = data["rest"]
        _check_rest(rest)
        return VerifiedProgram(
            insns=insns, aux=[kinds[index] for index in which], subprogs=subprogs, used_maps=maps, stats=stats, **rest
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


@functools.cache
def _members(record: type) -> tuple[tuple[str, type | None], ...]:
    """(name, type) of the members of a record whose members have defaults; None for one that starts as None."""
    plain = record(0) if record is SubprogInfo else record()
    values = ((member.name, getattr(plain, member.name)) for member in fields(plain))
    return tuple((name, None if value is None else type(value)) for name, value in values)


def _check_aux(aux: InsnAux, count: int, maps: int) -> None:
    """ValueError for what no verification of such a program leaves behind."""
    for name, kind in _members(InsnAux):
        if kind is not None and type(getattr(aux, name)) is not kind:
            raise ValueError(name)
    if aux.access not in _ACCESS:
        raise ValueError("access")
    for value, limit in ((aux.map, maps), (aux.callback, count)):
        if value is not None and not (type(value) is int and 0 <= value < limit):
            raise ValueError("out of range")


def _subprog(row: list[Any]) -> SubprogInfo:
    values: list[Any] = [set(value) if isinstance(value, list) else value for value in row]
    return SubprogInfo(*values)


def _check_subprogs(subprogs: list[SubprogInfo], count: int) -> None:
    at = 0
    for subprog in subprogs:
        if any(type(getattr(subprog, name)) is not kind for name, kind in _members(SubprogInfo)):
            raise ValueError("subprog")
        if subprog.start != at or not at < subprog.end <= count or not 0 <= subprog.stack_depth <= 512:
            raise ValueError("subprog")
        if not all(type(callee) is int and 0 <= callee < len(subprogs) for callee in subprog.callees):
            raise ValueError("callee")
        at = subprog.end
    if at != count:
        raise ValueError("subprogs")


def _check_rest(rest: Mapping[str, object]) -> None:
    for member in fields(VerifiedProgram):
        if member.name in _KEPT:
            continue
        value = rest[member.name]
        if member.type == "int" and (type(value) is not int or value < 0):
            raise ValueError(member.name)
        if member.type == "str" and type(value) is not str:
            raise ValueError(member.name)
