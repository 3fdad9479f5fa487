"""The key of compiled code: everything that the code can depend on, in one place.

    toolchain    the lowering and what compiles for it with all that they import (`fastrtp.provenance`), the native library (whose
                 own key has every native function, the versions of llvmlite and numba, and the processor with its features):
                 the name of the cache's maker, and so in no key
    a program    every field of its LowerInput: the instructions, the verifier's facts on each, the functions, the native
                 function that each call becomes with its constants (which is where the shapes of the maps are), the symbol
                 of each map, the contents of frozen ones, and every option

A LowerInput is all that `lower` is told, and `lower` is pure; so equal keys mean equal code, and code can be found without
making the text that it would be compiled from. A new field is part of the key as it is; one that is no plain value has to
be taught here, and is refused until then.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, cast

from fastrtp.isa import BPF_PSEUDO_CALL, encode
from fastrtp.jit.lower import CallTarget, LowerInput
from fastrtp.native import library
from fastrtp.native.compiler import Part
from fastrtp.provenance import made_by

_MAKERS = ("fastrtp.jit.key", "fastrtp.jit.cache", "fastrtp.native.compile_server")
_CALL = 0x85
_LD_IMM64 = 0x18
_PLAIN = (bool, int, str, bytes, type(None))


def toolchain() -> str:
    """Name of the version of all that makes code of a program: the same for every one."""
    return f"{made_by(*_MAKERS)} {library.key()}"


def text_key(text: str, parts: Sequence[Part] = (), exports: Sequence[str] = (), *, smp: bool = False) -> str:
    """Key of the code of an IR text and its parts, for one CPU or (`smp`) several."""
    digest = hashlib.blake2b(f"text\0{smp}\0{tuple(exports)!r}\0{text}".encode(), digest_size=16)
    for part in parts:
        digest.update(f"\0{part.names!r}\0{part.text}".encode())
    return digest.hexdigest()


def program_key(program: LowerInput, parts: Sequence[Part] = (), exports: Sequence[str] = ()) -> str:
    """Key of the code of a program and its parts. TypeError for an input that has a field without a plain form."""
    insns = program.insns
    loads = [index for index, insn in enumerate(insns) if insn.code == _LD_IMM64 and insn.src_reg]
    facts: list[Any] = ["program", tuple(exports), [(part.names, part.text) for part in parts]]
    for name in _names(LowerInput):
        value = getattr(program, name)
        if name == "insns":
            value = encode(insns)
        elif name == "aux":
            value = None if value is None else _aux(value)
        elif name == "subprogs":
            value = [(int(start), int(end)) for start, end in value]
        elif name == "resolve":
            calls = (index for index, insn in enumerate(insns) if insn.code == _CALL and insn.src_reg != BPF_PSEUDO_CALL)
            value = [(index, _resolved(program, index)) for index in calls]
        elif name == "map_symbols":
            value = [(index, _symbol(program, index)) for index in loads]
        elif name == "constants":
            value = [(index, _content(program, index)) for index in loads]
        else:
            value = _plain(value, f"LowerInput.{name}")
        facts.append((name, value))
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).hexdigest()


@functools.cache
def _names(record: Hashable) -> tuple[str, ...]:
    return tuple(member.name for member in fields(cast("type[Any]", record)))


def _aux(aux: Sequence[Any]) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Facts on the instructions: the distinct ones, and which of them each instruction has."""
    if not aux:
        return [], []
    row = attrgetter(*_names(cast(Hashable, type(aux[0]))))
    objects = {id(one): one for one in aux}  # of a cached program, equal ones are the same
    distinct: dict[tuple[Any, ...], int] = {}
    number = {name: distinct.setdefault(row(one), len(distinct)) for name, one in objects.items()}
    return list(distinct), [number[id(one)] for one in aux]


_target = attrgetter(*(member.name for member in fields(CallTarget)))


def _resolved(program: LowerInput, index: int) -> Any:
    try:
        return _target(program.resolve(index, program.insns[index]))
    except KeyError:  # the lowering will say so, if it gets there
        return None


def _symbol(program: LowerInput, index: int) -> Any:
    try:
        return program.map_symbols(index)
    except KeyError:
        return None


def _content(program: LowerInput, index: int) -> str:
    found = program.constants(index)
    return "" if found is None else hashlib.blake2b(found).hexdigest()


def _plain(value: Any, where: str) -> Any:
    """A value in a form that says all of it, records by their members. TypeError."""
    if isinstance(value, tuple | list):
        return [_plain(one, where) for one in value]
    if is_dataclass(value):
        return [(name, _plain(getattr(value, name), where)) for name in _names(cast(Hashable, type(value)))]
    if type(value) not in _PLAIN:
        raise TypeError(f"{where} has no form for the key: {type(value).__name__}")
    return value
