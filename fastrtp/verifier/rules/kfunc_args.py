"""Kernel functions whose prototype says all that is asked of a call: arguments one by one, references, what comes back.

Names of parameters have a meaning: `__ign`, `__sz`, `__szk`, `__opt`, `__uninit`, `__nullable`.
Kernel: kernel/bpf/verifier.c:check_kfunc_args, get_kfunc_ptr_arg_type, process_kf_arg_ptr_to_btf_id, check_kfunc_call.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.btf.kfuncs import KfuncParam, KfuncProto
from fastrtp.helpers.argtype import ArgType
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    MEM_ALLOC,
    MEM_RCU,
    MEM_RDONLY,
    NON_OWN_REF,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_TRUSTED,
    SCALAR_VALUE,
    base_type,
    type_flag,
)
from fastrtp.verifier.domain.state import REG_UNKNOWN, BpfRegState, register_is_null
from fastrtp.verifier.report.log import Refusal
from fastrtp.verifier.rules.btf_access import btf_name, btf_struct_ids_match
from fastrtp.verifier.rules.dynptr import check_dynptr_arg, clone_dynptr
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.func import clear_caller_saved_regs
from fastrtp.verifier.rules.mem import check_helper_mem_access, check_ptr_off_reg
from fastrtp.verifier.rules.precision import mark_reg_precise
from fastrtp.verifier.rules.refs import release_reference
from fastrtp.verifier.rules.stack import READ, WRITE

_TRUSTED = MEM_ALLOC | PTR_TRUSTED | NON_OWN_REF
_MAX_SIZE = 1 << 29
_SCALARS = (BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64, BtfKind.FLOAT)
_DYNPTR = "bpf_dynptr"
_SLICES = frozenset({"bpf_dynptr_slice", "bpf_dynptr_slice_rdwr"})


class _Call:
    """What the arguments of one call said. Kernel: struct bpf_kfunc_call_arg_meta."""

    def __init__(self) -> None:
        self.dynptr: BpfRegState | None = None
        self.constant = 0
        self.release_regno = 0


def check_plain_kfunc(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    """Check the call at the current instruction and set R0. Errors: EINVAL, EACCES."""
    call, skip = _Call(), False
    for number, param in enumerate(proto.params):
        following = proto.params[number + 1] if number + 1 < len(proto.params) else None
        if skip:
            skip = False
        elif "__ign" not in param.suffixes:
            skip = _check_arg(env, proto, call, number, param, following)
    if proto.release and not call.release_regno:
        env.reject(EINVAL, f"release kernel function {proto.name} expects refcounted PTR_TO_BTF_ID")
    if proto.name == "bpf_dynptr_slice_rdwr":  # as it may be that of a packet
        env.reject(EINVAL, "the prog does not allow writes to packet data")
    if call.release_regno:
        release_reference(env, env.regs[call.release_regno].ref_obj_id)
    clear_caller_saved_regs(env.frame)
    _set_result(env, proto, call)


def _set_result(env: BpfVerifierEnv, proto: KfuncProto, call: _Call) -> None:
    """R0 with the reference and the doubt that the flags say; nothing where nothing comes back."""
    if proto.ret == "void":
        return
    if proto.name in _SLICES and call.dynptr is not None:
        # it outlives its dynptr, as in Linux, whose search for slices looks for writable ones: the memory is still there
        made = BpfRegState(PTR_TO_MEM | MEM_RDONLY, ZERO, num=call.constant)
    elif proto.ret_struct:
        btf = env.attr.kernel_btf
        type_id = btf.find(proto.ret_struct, BtfKind.STRUCT) if btf is not None else None
        if type_id is None:
            env.reject(EINVAL, f"{proto.name}: no struct {proto.ret_struct} in the kernel's BTF")
        made = BpfRegState(PTR_TO_BTF_ID, ZERO, num=int(type_id))
    else:
        env.regs[0] = REG_UNKNOWN
        env.frame.deps[0] = 0
        return
    kind = made.type | (PTR_MAYBE_NULL if proto.ret_null else 0)
    ident = env.new_id() if proto.ret_null else 0
    if proto.acquire:
        ident = env.acquire_reference(env.insn_idx)
    env.regs[0] = BpfRegState(kind, ZERO, 0, ident, ident if proto.acquire else 0, made.map, made.num)
    env.frame.deps[0] = 0


def _check_arg(
    env: BpfVerifierEnv, proto: KfuncProto, call: _Call, number: int, param: KfuncParam, following: KfuncParam | None
) -> bool:
    """One argument; whether the next one was its size."""
    regno = number + 1
    reg = env.regs[regno]
    if not param.pointer:
        if reg.type != SCALAR_VALUE:
            env.reject(EINVAL, f"R{regno} is not a scalar")
        return False
    null = register_is_null(reg)
    if (null or reg.type & PTR_MAYBE_NULL) and not param.suffixes & {"__nullable", "__opt"}:
        env.reject(EACCES, f"Possibly NULL pointer passed to trusted arg{number}")
    if reg.ref_obj_id and proto.release:
        call.release_regno = regno
    if param.struct == _DYNPTR:
        _check_dynptr(env, proto, call, number, param)
        return False
    if null and "__nullable" in param.suffixes:
        mark_reg_precise(env, regno)
        return False
    if param.struct and (base_type(reg.type) == PTR_TO_BTF_ID or reg.type == CONST_PTR_TO_MAP):
        _check_object(env, proto, number, param)
        return False
    sized = following is not None and bool(following.suffixes & {"__sz", "__szk"}) and env.regs[regno + 1].type == SCALAR_VALUE
    if sized and following is not None:
        _check_mem_size(env, call, number, param, following)
        return True
    _check_mem(env, number, param)
    return False


def _check_dynptr(env: BpfVerifierEnv, proto: KfuncProto, call: _Call, number: int, param: KfuncParam) -> None:
    regno = number + 1
    reg = env.regs[regno]
    if reg.type not in (PTR_TO_STACK, CONST_PTR_TO_DYNPTR):
        env.reject(EINVAL, f"arg#{number} expected pointer to stack or const struct bpf_dynptr")
    if "__uninit" in param.suffixes:
        assert call.dynptr is not None, proto.name
        clone_dynptr(env, regno, reg, call.dynptr)
        return
    rdonly = MEM_RDONLY if reg.type == CONST_PTR_TO_DYNPTR else 0
    call.dynptr = check_dynptr_arg(env, regno, reg, int(ArgType.ARG_PTR_TO_DYNPTR) | rdonly)


def _check_object(env: BpfVerifierEnv, proto: KfuncProto, number: int, param: KfuncParam) -> None:
    """A pointer to the struct that is trusted: from the context, owned, or (KF_RCU) good until the section ends."""
    regno = number + 1
    reg = env.regs[regno]
    flags = type_flag(reg.type)
    trusted = bool(reg.ref_obj_id) or reg.type == CONST_PTR_TO_MAP or (flags & _TRUSTED != 0 and flags & ~_TRUSTED == 0)
    if not trusted and not proto.rcu:
        env.reject(EINVAL, f"R{regno} must be referenced or trusted")
    if not trusted and not flags & MEM_RCU:
        env.reject(EINVAL, f"R{regno} must be a rcu pointer")
    if proto.release and reg.ref_obj_id and reg.off:
        env.reject(EINVAL, f"R{regno} must have zero offset when passed to release func or trusted arg to kfunc")
    check_ptr_off_reg(env, regno, fixed_off_ok=not (proto.release and reg.ref_obj_id))
    btf = env.attr.kernel_btf
    type_id: int | None = reg.num
    if reg.type == CONST_PTR_TO_MAP:
        type_id = btf.find("bpf_map", BtfKind.STRUCT) if btf is not None else None
    own = reg.map if base_type(reg.type) == PTR_TO_BTF_ID else None
    strict = proto.acquire or (proto.release and bool(reg.ref_obj_id))
    if own is None and _matches(btf, type_id, reg.off, param.struct, strict):
        return
    given = "bpf_map" if reg.type == CONST_PTR_TO_MAP else btf_name(env, reg.num, own)
    env.reject(
        EINVAL,
        f"kernel function {proto.name} args#{number} expected pointer to STRUCT {param.struct} "
        f"but R{regno} has a pointer to STRUCT {given}",
    )


def _matches(btf: Any, type_id: int | None, off: int, wanted: str, strict: bool) -> bool:
    if btf is None or type_id is None:
        return False
    if strict:
        return off == 0 and bool(btf.type(type_id).name == wanted)
    return btf_struct_ids_match(btf, type_id, off, wanted)


def _check_mem(env: BpfVerifierEnv, number: int, param: KfuncParam) -> None:
    """Memory of the size of what the parameter points to, which has nothing but numbers."""
    btf, regno = env.attr.kernel_btf, number + 1
    type_id = btf.find(param.struct, BtfKind.STRUCT) if btf is not None and param.struct else None
    if type_id is None or not _is_scalar_struct(btf, type_id, 0):
        what = f"STRUCT {param.struct}" if param.struct else "UNKNOWN "
        env.reject(EINVAL, f"arg#{number} pointer type {what} must point to scalar, or struct with scalar")
    size = btf.sizeof(type_id)
    for access in (READ, WRITE):
        check_helper_mem_access(env, regno, size, access, True)


def _is_scalar_struct(btf: Any, type_id: int, depth: int) -> bool:
    """Kernel: __btf_type_is_scalar_struct."""
    for member in btf.type(type_id).members:
        record = btf.type(btf.strip(member.type_id))
        if record.kind == BtfKind.STRUCT:
            if depth >= 3 or not _is_scalar_struct(btf, record.id, depth + 1):
                return False
            continue
        if record.kind == BtfKind.ARRAY:
            record = btf.type(btf.strip(record.type))
        if record.kind not in _SCALARS:
            return False
    return True


def _check_mem_size(env: BpfVerifierEnv, call: _Call, number: int, param: KfuncParam, size: KfuncParam) -> None:
    """Memory and, in the next register, how much of it. Kernel: check_kfunc_mem_size_reg."""
    regno = number + 2
    reg = env.regs[regno]
    if not (register_is_null(env.regs[number + 1]) and "__opt" in param.suffixes):
        try:
            _check_area(env, regno, reg)
        except Refusal as refusal:
            env.log.line(refusal.message)
            pair = f"arg#{number} arg#{number + 1} memory, len pair leads to invalid memory access"
            env.reject(refusal.errno, pair)
    if "__szk" in size.suffixes:
        if reg.bounds.var_off.mask:
            env.reject(EINVAL, f"R{regno} must be a known constant")
        mark_reg_precise(env, regno)
        call.constant = reg.bounds.umin_value


def _check_area(env: BpfVerifierEnv, regno: int, reg: BpfRegState) -> None:
    if reg.bounds.smin_value < 0:
        env.reject(EACCES, f"R{regno} min value is negative, either use unsigned or 'var &= const'")
    if reg.bounds.umax_value >= _MAX_SIZE:
        env.reject(EACCES, f"R{regno} unbounded memory access, use 'var &= const' or 'if (var < const)'")
    for access in (READ, WRITE):
        check_helper_mem_access(env, regno - 1, reg.bounds.umax_value, access, True)
    mark_reg_precise(env, regno)


__all__ = ["check_plain_kfunc"]
