"""Prototypes: what the program's BTF says of a function's arguments, in the verifier's terms.

An `arg:<tag>` declaration tag goes before what the C type says. Kernel: kernel/bpf/btf.c:btf_prepare_func_args,
btf_is_prog_ctx_type, btf_validate_prog_ctx_type, btf_get_ptr_to_btf_id.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from errno import EINVAL, ENOENT, EOPNOTSUPP, ESRCH
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.btf.core import find_cands
from fastrtp.btf.core_types import essential_name
from fastrtp.errors import BtfError
from fastrtp.helpers.argtype import MEM_RDONLY, PTR_MAYBE_NULL, PTR_TRUSTED, PTR_UNTRUSTED, ArgType
from fastrtp.uapi import BpfProgType
from fastrtp.verifier.report.log import Refusal
from fastrtp.verifier.rules.env import BpfVerifierEnv

MAX_BPF_FUNC_REG_ARGS = 5
BTF_FUNC_GLOBAL = 1
_MODIFIERS = frozenset({BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG})
_SCALARS = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64})
_STRUCTS = frozenset({BtfKind.STRUCT, BtfKind.UNION})
_CTX_STRUCT = "bpf_raw_tracepoint_args"
_RAW_TP = frozenset({BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE})
_TAG_PREFIX = "arg:"


class ArgTag(IntFlag):
    """Tags that an argument may have."""

    CTX = 1
    TRUSTED = 2
    UNTRUSTED = 4
    NONNULL = 8
    NULLABLE = 16
    ARENA = 32


@dataclass(frozen=True, slots=True)
class SubprogArg:
    """One argument: an ArgType with flags, the bytes behind a pointer to memory, or the kernel type behind a BTF pointer."""

    arg_type: int
    mem_size: int = 0
    btf_id: int = 0


def func_type(env: BpfVerifierEnv, subprogno: int) -> Any:
    """The FUNC record of a function, None where the program has no BTF for it."""
    attr = env.attr
    if attr.btf is None or attr.func_info is None or subprogno >= len(attr.func_info):
        return None
    insn_off, type_id = (int(value) for value in attr.func_info[subprogno])
    if insn_off != env.subprogs[subprogno].start or not 0 < type_id < len(attr.btf):
        return None
    record = attr.btf.type(type_id)
    return record if record.kind == BtfKind.FUNC else None


def subprog_is_global(env: BpfVerifierEnv, subprogno: int) -> bool:
    """Whether the BTF calls the function global: it is then verified on its own."""
    record = func_type(env, subprogno)
    return record is not None and record.linkage == BTF_FUNC_GLOBAL


def subprog_name(env: BpfVerifierEnv, subprogno: int) -> str:
    """Name of a function, "" where it has none."""
    record = func_type(env, subprogno)
    return "" if record is None else str(record.name)


class _Prototype:
    """One run of btf_prepare_func_args. What is wrong with a static function is nobody's business: EINVAL without a word."""

    def __init__(self, env: BpfVerifierEnv, func: Any) -> None:
        self.env = env
        self.btf = env.attr.btf
        self.func = func
        self.is_global = func.linkage == BTF_FUNC_GLOBAL

    def refusal(self, message: str, errno: int = EINVAL) -> Refusal:
        return Refusal(errno, message if self.is_global else "")

    def stripped(self, type_id: int) -> Any:
        """The record below modifiers; None: void."""
        type_id = self.btf.strip(type_id) if type_id else 0
        return self.btf.type(type_id) if type_id else None

    def args(self) -> list[SubprogArg]:
        proto = self.btf.type(self.func.type)
        name = self.func.name
        if len(proto.params) > MAX_BPF_FUNC_REG_ARGS:
            count = f"{len(proto.params)} > {MAX_BPF_FUNC_REG_ARGS}"
            raise self.refusal(f"Global function {name}() with {count} args. Buggy compiler.")
        result = self.stripped(proto.type)
        if result is None or result.kind not in _SCALARS:
            raise self.refusal(f"Global function {name}() doesn't return scalar. Only those are supported.")
        return [self.arg(number, param.type_id) for number, param in enumerate(proto.params)]

    def tags(self, number: int) -> ArgTag:
        found = ArgTag(0)
        for record in self.btf:
            if record.kind != BtfKind.DECL_TAG or record.type != self.func.id or record.component_idx != number:
                continue
            if not record.name.startswith(_TAG_PREFIX):
                continue
            if not self.is_global:
                raise Refusal(EOPNOTSUPP, f"arg#{number} type tag is not supported in static functions")
            name = record.name.removeprefix(_TAG_PREFIX).upper()
            if name not in ArgTag.__members__ or record.name != record.name.lower():
                raise Refusal(EOPNOTSUPP, f"arg#{number} has unsupported set of tags")
            found |= ArgTag[name]
        return found

    def arg(self, number: int, type_id: int) -> SubprogArg:
        tags = self.tags(number)
        record = self.stripped(type_id)
        if record is not None and record.kind == BtfKind.PTR:
            found = self.pointer(number, record, tags)
            if found is not None:
                return found
        if tags:
            raise self.refusal(f"arg#{number} has pointer tag, but is not a pointer type")
        if record is not None and record.kind in _SCALARS:
            return SubprogArg(ArgType.ARG_ANYTHING)
        raise self.refusal(f"Arg#{number} type {_kind(record)} in {self.func.name}() is not supported yet.")

    def pointer(self, number: int, pointer: Any, tags: ArgTag) -> SubprogArg | None:
        """A pointer's meaning, None where a static function has one that is nothing special."""
        if tags & ArgTag.CTX or self.is_ctx(pointer):
            if tags & ~ArgTag.CTX:
                raise self.refusal(f"arg#{number} has invalid combination of tags")
            if tags:
                self.check_ctx(number, pointer)
            return SubprogArg(ArgType.ARG_PTR_TO_CTX)
        target = self.stripped(pointer.type)
        if target is not None and target.kind == BtfKind.STRUCT and target.name == "bpf_dynptr":
            if tags:
                raise self.refusal(f"arg#{number} has invalid combination of tags")
            return SubprogArg(ArgType.ARG_PTR_TO_DYNPTR | MEM_RDONLY)
        if tags & ArgTag.TRUSTED:
            if tags & ArgTag.NONNULL:
                raise self.refusal(f"arg#{number} has invalid combination of tags")
            nullable = PTR_MAYBE_NULL if tags & ArgTag.NULLABLE else 0
            return SubprogArg(ArgType.ARG_PTR_TO_BTF_ID | PTR_TRUSTED | nullable, btf_id=self.kernel_type(number, pointer))
        if tags & ArgTag.UNTRUSTED:
            return self.untrusted(number, pointer, target, tags)
        if tags & ArgTag.ARENA:
            if tags & ~ArgTag.ARENA:
                raise self.refusal(f"arg#{number} arena cannot be combined with any other tags")
            raise self.refusal(f"arg#{number} is a pointer into an arena: those are not implemented yet", EOPNOTSUPP)
        if not self.is_global:
            return None
        if tags & ArgTag.NULLABLE:
            raise self.refusal(f"arg#{number} has invalid combination of tags")
        try:
            size = self.btf.sizeof(target.id) if target is not None else None
        except BtfError:
            size = None
        if target is None or size is None or target.kind == BtfKind.FWD:
            name = "" if target is None else target.name
            raise self.refusal(f"arg#{number} reference type('{_kind(target)} {name}') size cannot be determined: -22")
        return SubprogArg(ArgType.ARG_PTR_TO_MEM | (0 if tags & ArgTag.NONNULL else PTR_MAYBE_NULL), mem_size=size)

    def untrusted(self, number: int, pointer: Any, target: Any, tags: ArgTag) -> SubprogArg:
        """Read-only, through loads that may fail: any value is fine."""
        if tags & ~ArgTag.UNTRUSTED:
            raise self.refusal(f"arg#{number} untrusted cannot be combined with any other tags")
        if target is None or target.kind in _SCALARS:
            return SubprogArg(ArgType.ARG_PTR_TO_MEM | MEM_RDONLY | PTR_UNTRUSTED)
        btf_id = self.kernel_type(number, pointer)
        record = self.env.attr.kernel_btf.type(btf_id)
        if record.kind not in _STRUCTS:
            what = f"arg#{number} has type {_kind(record)} '{record.name}'"
            raise self.refusal(f"{what}, but only struct or primitive types are allowed")
        return SubprogArg(ArgType.ARG_PTR_TO_BTF_ID | PTR_UNTRUSTED, btf_id=btf_id)

    def is_ctx(self, pointer: Any) -> bool:
        """A pointer to the struct that the kernel has for the context of such programs."""
        target = self.stripped(pointer.type)
        return self.env.prog_type in _RAW_TP and target is not None and target.kind in _STRUCTS and target.name == _CTX_STRUCT

    def check_ctx(self, number: int, pointer: Any) -> None:
        """What an argument tagged as context may be declared as."""
        target = self.stripped(pointer.type)
        if target is None:
            return
        if not target.name:
            raise self.refusal(f"arg#{number} type doesn't have a name")
        if self.env.prog_type == BpfProgType.BPF_PROG_TYPE_TRACEPOINT:
            return
        if self.env.prog_type in _RAW_TP or self.env.is_tracing:
            if target.kind == BtfKind.INT and target.size == 8:
                return
            if target.kind == BtfKind.STRUCT and target.name == _CTX_STRUCT:
                return
        if self.env.prog_type in _RAW_TP:
            raise self.refusal(f"arg#{number} should be `struct {_CTX_STRUCT} *`")
        raise self.refusal(f"arg#{number} should be void pointer")

    def kernel_type(self, number: int, pointer: Any) -> int:
        """The one kernel type of that name and kind."""
        target = self.stripped(pointer.type)
        kernel = self.env.attr.kernel_btf
        found: list[int] = []
        if target is not None and target.name and kernel is not None:
            found = find_cands(self.btf, target.id, kernel)
        if len(found) == 1:
            return found[0]
        name = "(anon)" if target is None or not target.name else target.name
        what = f"arg#{number} reference type('{_kind(target)} {name}')"
        if found:
            raise self.refusal(f"{what} is ambiguous", ESRCH)
        if target is None or not essential_name(target.name):
            raise self.refusal(f"{what} candidate matching error: -22")
        raise self.refusal(f"{what} has no matches", ENOENT)


def _kind(record: Any) -> str:
    return "UNKNOWN" if record is None else record.kind.name


def prepare_func_args(env: BpfVerifierEnv, subprogno: int) -> list[SubprogArg]:
    """A function's arguments. Errors (Refusal): EINVAL, ENOENT, ESRCH, EOPNOTSUPP for what the verifier cannot use."""
    known = env.subprog_args.get(subprogno)
    if known is None:
        known = env.subprog_args[subprogno] = _Prototype(env, func_type(env, subprogno)).args()
    return known
