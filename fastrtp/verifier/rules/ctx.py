"""The context: an array of 64-bit arguments, read only.

raw_tp: offset in [0, 96), 1, 2, 4 or 8 bytes, naturally aligned. Writable raw_tp: offset 0 is a pointer to the
tracepoint's buffer. tp_btf: each slot has the C type of the tracepoint's argument. Tracepoint: ctx_tracepoint.py.
Kernel: kernel/trace/bpf_trace.c:bpf_tracing_ctx_access, raw_tp_writable_prog_is_valid_access;
kernel/bpf/btf.c:btf_ctx_access.
"""

from __future__ import annotations

from errno import EACCES

from fastrtp.btf import BtfKind
from fastrtp.uapi import MAX_BPF_FUNC_ARGS
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import PTR_MAYBE_NULL, PTR_TO_BTF_ID, PTR_TO_TP_BUFFER, PTR_TRUSTED
from fastrtp.verifier.domain.state import REG_UNKNOWN, BpfRegState
from fastrtp.verifier.rules.ctx_tracepoint import tp_prog_is_valid_access
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.null_args import raw_tp_null_arg

_SCALAR_KINDS = frozenset({BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, BtfKind.STRUCT, BtfKind.UNION, BtfKind.FLOAT})


def check_ctx_access(env: BpfVerifierEnv, off: int, size: int, access: int) -> BpfRegState:
    """What a load of `size` bytes at `off` gives; remembers the highest end. Errors: EACCES."""
    loaded: BpfRegState | None = None
    if env.is_tracepoint:
        loaded = REG_UNKNOWN if tp_prog_is_valid_access(off, size, access) else None
    elif 0 <= off < 8 * MAX_BPF_FUNC_ARGS and not access and not off % size:
        loaded = REG_UNKNOWN
        if env.is_writable_tp and off == 0:
            loaded = BpfRegState(PTR_TO_TP_BUFFER, ZERO) if size == 8 else None
        elif env.is_tracing:
            loaded = _btf_ctx_access(env, off, size)
    if loaded is None:
        env.reject(EACCES, f"invalid bpf_context access off={off} size={size}")
    env.max_ctx_offset = max(env.max_ctx_offset, off + size)
    return loaded


def _btf_ctx_access(env: BpfVerifierEnv, off: int, size: int) -> BpfRegState | None:
    btf, attach = env.attr.kernel_btf, env.attr.attach
    if btf is None or attach is None:
        env.log.line("Tracing programs must provide btf_id")
        return None
    if off % 8:
        env.log.line(f"func '{attach.name}' offset {off} is not multiple of 8")
        return None
    arg = off // 8
    proto = btf.type(btf.type(btf.type(attach.btf_id).type).type)
    params = proto.params[1:]
    if arg >= len(params):
        env.log.line(f"func '{attach.name}' doesn't have {arg + 1}-th argument")
        return None
    record = btf.type(btf.strip(params[arg].type_id))
    if record.kind in _SCALAR_KINDS:
        return REG_UNKNOWN
    if record.kind != BtfKind.PTR:
        env.log.line(f"func '{attach.name}' arg{arg} has type {record.kind.name}. Only pointer access is allowed")
        return None
    if size != 8:
        env.log.line(f"func '{attach.name}' size {size} must be 8")
        return None
    if record.type == 0:
        return REG_UNKNOWN
    target = btf.strip(record.type)
    kind = btf.type(target).kind if target else BtfKind.INT
    if kind == BtfKind.INT or target == 0:
        return REG_UNKNOWN
    null = raw_tp_null_arg(attach.name, arg)
    if null == 2:
        # may be an ERR_PTR: a number, not a pointer
        return REG_UNKNOWN
    if kind not in (BtfKind.STRUCT, BtfKind.UNION):
        env.log.line(f"func '{attach.name}' arg{arg} type {kind.name} is not a struct")
        return None
    if env.log.enabled:
        env.log.line(f"func '{attach.name}' arg{arg} has btf_id {target} type {kind.name} '{btf.type(target).name}'")
    reg_type = PTR_TO_BTF_ID | PTR_TRUSTED | (PTR_MAYBE_NULL if null == 1 else 0)
    return BpfRegState(reg_type, ZERO, id=env.new_id() if null == 1 else 0, num=target)
