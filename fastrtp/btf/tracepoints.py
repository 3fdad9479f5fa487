"""Tracepoint prototypes out of BTF: `typedef void (*btf_trace_<name>)(void *__data, TP_PROTO)`.

Kernel: include/trace/bpf_probe.h (where the typedefs come from), kernel/bpf/verifier.c:bpf_check_attach_target
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

from .cformat import proto_of
from .parse import Btf
from .types import BtfKind, Param

_PREFIX = "btf_trace_"
_NAMED_BY = ("__traceiter_", "__probestub_", "__bpf_trace_", "trace_event_raw_event_", "perf_trace_")
"""Functions that take a tracepoint's arguments behind `void *__data`, with their names: TP_PROTO's own."""


class ProtoArg(NamedTuple):
    """One TP_PROTO argument: C size in bytes, whether it is a pointer, whether it is a signed integer.

    `name` is "" where the kernel's BTF leaves the parameters of prototypes unnamed (most do).
    """

    name: str
    type_id: int
    size: int
    is_pointer: bool
    signed: bool


class TracepointProto(NamedTuple):
    """A tracepoint's name, arguments in TP_PROTO order (without `void *__data`), and its typedef's id for attach_btf_id."""

    name: str
    args: tuple[ProtoArg, ...]
    btf_id: int = 0


class _Tracepoints(Mapping[str, TracepointProto]):
    """Prototypes by name, looked up when asked for: a kernel has over a thousand, a program wants one."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self._protos: dict[str, TracepointProto] = {}

    @cached_property
    def _ids(self) -> dict[str, int]:
        btf = self._btf
        ids = (found for found in btf.find_prefix(_PREFIX) if btf.kind(found) == BtfKind.TYPEDEF)
        return {btf.name(found).removeprefix(_PREFIX): found for found in ids}

    def __getitem__(self, name: str) -> TracepointProto:
        proto = self._protos.get(name)
        if proto is None:
            found = self._btf.find(f"{_PREFIX}{name}", BtfKind.TYPEDEF)
            if found is None:
                raise KeyError(name)
            proto = self._protos[name] = _tracepoint(self._btf, name, found)
        return proto

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._btf.find(f"{_PREFIX}{name}", BtfKind.TYPEDEF) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def tracepoints(btf: Btf) -> Mapping[str, TracepointProto]:
    """Every tracepoint that the BTF knows, by name. Arguments are decoded at the first look."""
    return _Tracepoints(btf)


def proto_arg(btf: Btf, name: str, type_id: int) -> ProtoArg:
    """Describe one argument type."""
    record = btf.type(btf.strip(type_id))
    is_pointer = record.kind == BtfKind.PTR
    return ProtoArg(name, type_id, 8 if is_pointer else btf.sizeof(type_id), is_pointer, record.signed)


def _tracepoint(btf: Btf, name: str, type_id: int) -> TracepointProto:
    params = proto_of(btf, type_id).params[1:]
    return TracepointProto(name, tuple(proto_arg(btf, param.name, param.type_id) for param in params), type_id)


def argument_names(btf: Btf, proto: TracepointProto) -> tuple[str, ...]:
    """The names of a tracepoint's arguments, "" for each that the BTF does not tell.

    The typedef that the prototype comes from has none; the functions that the kernel makes for a tracepoint have them.
    Kernel: include/linux/tracepoint.h:__DECLARE_TRACE (`__traceiter_<name>`, since 5.10)
    """
    if any(arg.name for arg in proto.args):
        return tuple(arg.name for arg in proto.args)
    for prefix in _NAMED_BY:
        found = btf.find(f"{prefix}{proto.name}", BtfKind.FUNC)
        if found is None:
            continue
        params = proto_of(btf, found).params[1:]
        if len(params) == len(proto.args) and all(_same(btf, *pair) for pair in zip(params, proto.args, strict=True)):
            return tuple(param.name for param in params)
    return ("",) * len(proto.args)


def _same(btf: Btf, param: Param, arg: ProtoArg) -> bool:
    """Whether a function's parameter is the argument: of one type, whatever name for it either has."""
    return param.type_id == arg.type_id or btf.c_type(param.type_id) == btf.c_type(arg.type_id)
