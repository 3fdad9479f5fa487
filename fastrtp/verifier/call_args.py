"""Arguments of a helper call, each against its type in the helper table.

Kernel: kernel/bpf/verifier.c:check_func_arg, check_reg_type, check_func_arg_reg_off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EACCES, EINVAL
from typing import Any

from fastrtp.helpers.argtype import (
    MEM_ALIGNED,
    MEM_FIXED_SIZE,
    MEM_RDONLY,
    MEM_UNINIT,
    MEM_WRITE,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    ArgType,
)
from fastrtp.helpers.table import HelperProto
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.call_maps import KEY_ELIDED
from fastrtp.verifier.dynptr import check_dynptr_arg, held_dynptr
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import BtfField, check_field_pointer
from fastrtp.verifier.kptr import kptr_of_arg, match_kptr_type
from fastrtp.verifier.mem import (
    check_helper_mem_access,
    check_map_access,
    check_mem_size_reg,
    check_ptr_alignment,
    check_ptr_off_reg,
    check_reg_read,
)
from fastrtp.verifier.precision import mark_reg_precise
from fastrtp.verifier.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_RINGBUF,
    PTR_TO_BTF_ID,
    PTR_TO_BUF,
    PTR_TO_CTX,
    PTR_TO_FUNC,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_STACK,
    PTR_TRUSTED,
    SCALAR_VALUE,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.section import check_spin_lock
from fastrtp.verifier.stack import READ, WRITE, constant_map_key
from fastrtp.verifier.state import BpfRegState, register_is_null
from fastrtp.verifier.tnum import U32

_MEM_TYPES = (
    PTR_TO_STACK,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_MEM | MEM_RINGBUF,
    PTR_TO_BUF,
    PTR_TO_BTF_ID | PTR_TRUSTED,
)
_BTF_TYPES = (PTR_TO_BTF_ID, PTR_TO_BTF_ID | PTR_TRUSTED, PTR_TO_BTF_ID | MEM_RCU)
_COMPATIBLE: dict[int, tuple[int, ...]] = {
    ArgType.ARG_PTR_TO_MAP_KEY: _MEM_TYPES,
    ArgType.ARG_PTR_TO_MAP_VALUE: _MEM_TYPES,
    ArgType.ARG_PTR_TO_MEM: _MEM_TYPES,
    ArgType.ARG_CONST_SIZE: (SCALAR_VALUE,),
    ArgType.ARG_CONST_SIZE_OR_ZERO: (SCALAR_VALUE,),
    ArgType.ARG_CONST_ALLOC_SIZE_OR_ZERO: (SCALAR_VALUE,),
    ArgType.ARG_CONST_MAP_PTR: (CONST_PTR_TO_MAP,),
    ArgType.ARG_PTR_TO_CTX: (PTR_TO_CTX,),
    ArgType.ARG_PTR_TO_BTF_ID: _BTF_TYPES,
    ArgType.ARG_PTR_TO_BTF_ID_SOCK_COMMON: _BTF_TYPES,
    ArgType.ARG_PTR_TO_SPIN_LOCK: (PTR_TO_MAP_VALUE, PTR_TO_BTF_ID | MEM_ALLOC),
    ArgType.ARG_PTR_TO_RINGBUF_MEM: (PTR_TO_MEM | MEM_RINGBUF,),
    ArgType.ARG_PTR_TO_PERCPU_BTF_ID: (PTR_TO_BTF_ID | MEM_PERCPU, PTR_TO_BTF_ID | MEM_PERCPU | PTR_TRUSTED),
    ArgType.ARG_PTR_TO_FUNC: (PTR_TO_FUNC,),
    ArgType.ARG_PTR_TO_STACK: (PTR_TO_STACK,),
    ArgType.ARG_PTR_TO_CONST_STR: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_PTR_TO_TIMER: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_KPTR_XCHG_DEST: (PTR_TO_MAP_VALUE, PTR_TO_BTF_ID | MEM_ALLOC),
    ArgType.ARG_PTR_TO_DYNPTR: (PTR_TO_STACK, CONST_PTR_TO_DYNPTR),
}
_ANY_OFFSET = frozenset(
    {PTR_TO_STACK, PTR_TO_PACKET, PTR_TO_PACKET_META, PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM, PTR_TO_BUF, SCALAR_VALUE}
)


@dataclass(slots=True)
class CallArgMeta:
    """What earlier arguments of a call said. Kernel: struct bpf_call_arg_meta."""

    map_ptr: Any = None
    map_uid: int = 0
    raw_mode: bool = False
    raw_regno: int = 0
    access_size: int = 0
    mem_size: int = 0
    msize_max_value: int = 0
    ref_obj_id: int = 0
    release_regno: int = 0
    subprogno: int = -1
    const_map_key: int = -1
    ret_btf_id: int = 0
    dynptr: BpfRegState | None = None
    kptr_field: BtfField | None = None
    kptr_btf: Any = None


def check_func_arg(env: BpfVerifierEnv, arg: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """Argument `arg` (from 0) of a helper; what it says goes to `meta`. Errors: EINVAL, EACCES."""
    regno = arg + 1
    arg_type = fn.args[arg]
    base = arg_type & 0xFF
    if base == ArgType.ARG_DONTCARE:
        return
    reg = check_reg_read(env, regno)
    if base == ArgType.ARG_ANYTHING:
        return
    if not (register_is_null(reg) and arg_type & PTR_MAYBE_NULL):
        _check_reg_type(env, regno, reg, arg_type, fn, arg)
        _check_func_arg_reg_off(env, regno, reg, arg_type)
    if arg_type & OBJ_RELEASE and base == ArgType.ARG_PTR_TO_DYNPTR:
        meta.release_regno = regno
    elif arg_type & OBJ_RELEASE:
        if not reg.ref_obj_id and not register_is_null(reg):
            env.reject(EINVAL, f"R{regno} must be referenced when passed to release function")
        meta.release_regno = regno
    if reg.ref_obj_id and base != ArgType.ARG_KPTR_XCHG_DEST:
        if meta.ref_obj_id:
            env.reject(EACCES, f"more than one arg with ref_obj_id R{regno} {reg.ref_obj_id} {meta.ref_obj_id}")
        meta.ref_obj_id = reg.ref_obj_id
    _ARG_CHECKS.get(base, _check_nothing)(env, regno, reg, arg_type, meta, fn)


def _check_nothing(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """The type was all there is to check."""


def _check_map_ptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if meta.map_ptr is not None and (meta.map_ptr is not reg.map or meta.map_uid != reg.num):
        env.reject(
            EINVAL, f"timer pointer in R1 map_uid={meta.map_uid} doesn't match map pointer in R2 map_uid={reg.num}"
        )
    meta.map_ptr = reg.map
    meta.map_uid = reg.num


def _check_map_key(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if meta.map_ptr is None:
        env.reject(EACCES, "invalid map_ptr to access map->key")
    check_helper_mem_access(env, regno, meta.map_ptr.key_size, READ, False)
    if meta.map_ptr.map_type in KEY_ELIDED:
        key = constant_map_key(env, regno, meta.map_ptr.key_size)
        meta.const_map_key = -1 if key is None else key


def _check_map_value(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    if register_is_null(reg) and arg_type & PTR_MAYBE_NULL:
        return
    if meta.map_ptr is None:
        env.reject(EACCES, "invalid map_ptr to access map->value")
    raw = bool(arg_type & MEM_UNINIT)
    if check_helper_mem_access(env, regno, meta.map_ptr.value_size, WRITE if arg_type & MEM_WRITE else READ, False, raw):
        meta.raw_regno, meta.access_size = regno, meta.map_ptr.value_size


def _check_mem(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    meta.raw_mode = bool(arg_type & MEM_UNINIT)
    if arg_type & MEM_FIXED_SIZE:
        size = fn.arg_size[regno - 1]
        if check_helper_mem_access(env, regno, size, WRITE if arg_type & MEM_WRITE else READ, False, meta.raw_mode):
            meta.raw_regno, meta.access_size = regno, size
        if arg_type & MEM_ALIGNED:
            check_ptr_alignment(env, regno, 0, size)


def _check_size(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    zero_ok = arg_type & 0xFF == ArgType.ARG_CONST_SIZE_OR_ZERO
    meta.msize_max_value = reg.bounds.umax_value
    access = WRITE if fn.args[regno - 2] & MEM_WRITE else READ
    if check_mem_size_reg(env, regno, access, zero_ok, meta.raw_mode):
        meta.raw_regno, meta.access_size = regno - 1, reg.bounds.umax_value


def _check_alloc_size(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    if reg.bounds.var_off.mask:
        env.reject(EACCES, f"R{regno} is not a known constant'")
    meta.mem_size = reg.bounds.umin_value & U32
    if reg.bounds.umin_value > U32:
        # the helper takes 64 bits: a truncated size would promise less memory than it checks, never more
        env.reject(EACCES, f"R{regno} allocation size {reg.bounds.umin_value} is too large")
    mark_reg_precise(env, regno)


def _check_func_ptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    meta.subprogno = reg.num


def _check_percpu_btf(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    meta.ret_btf_id = reg.num


def _check_const_str(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    found = reg.map
    if not (found.map_flags & BPF_F_RDONLY_PROG and found.frozen):
        env.reject(EACCES, f"R{regno} does not point to a readonly map'")
    if reg.bounds.var_off.mask:
        env.reject(EACCES, f"R{regno} is not a constant address'")
    if found.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY:
        env.reject(EACCES, "no direct value access support for this map type")
    check_map_access(env, regno, reg, reg.off, found.value_size - reg.off, False, False)
    start = reg.off + reg.bounds.smin_value
    if b"\0" not in found.read_value(start, found.value_size - start):
        env.reject(EINVAL, "string is not zero-terminated")


def _check_spin_lock(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    check_spin_lock(env, regno, reg, fn.name == "spin_lock")


def _check_timer(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """Kernel: process_timer_func."""
    check_field_pointer(env, regno, reg, "bpf_timer")
    meta.map_ptr, meta.map_uid = reg.map, reg.num


def _check_dynptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if arg_type & OBJ_RELEASE:
        if reg.type == CONST_PTR_TO_DYNPTR:
            env.reject(EINVAL, "cannot release unowned const bpf_dynptr")
        held = held_dynptr(env, reg)
        if held is None or not held.ref_obj_id:
            env.reject(EINVAL, f"arg {regno} is an unacquired reference")
    meta.dynptr = check_dynptr_arg(env, regno, reg, arg_type)


def _check_kptr_dest(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    meta.kptr_btf, meta.kptr_field = kptr_of_arg(env, regno, reg)
    if reg.type == PTR_TO_MAP_VALUE:
        meta.map_ptr = reg.map


def _check_btf_arg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if meta.kptr_field is not None and not register_is_null(reg):
        match_kptr_type(env, regno, reg, meta.kptr_btf, meta.kptr_field)


_ArgCheck = Callable[[BpfVerifierEnv, int, BpfRegState, int, CallArgMeta, HelperProto], None]

_ARG_CHECKS: dict[int, _ArgCheck] = {
    ArgType.ARG_CONST_MAP_PTR: _check_map_ptr,
    ArgType.ARG_PTR_TO_MAP_KEY: _check_map_key,
    ArgType.ARG_PTR_TO_MAP_VALUE: _check_map_value,
    ArgType.ARG_PTR_TO_MEM: _check_mem,
    ArgType.ARG_CONST_SIZE: _check_size,
    ArgType.ARG_CONST_SIZE_OR_ZERO: _check_size,
    ArgType.ARG_CONST_ALLOC_SIZE_OR_ZERO: _check_alloc_size,
    ArgType.ARG_PTR_TO_FUNC: _check_func_ptr,
    ArgType.ARG_PTR_TO_PERCPU_BTF_ID: _check_percpu_btf,
    ArgType.ARG_PTR_TO_CONST_STR: _check_const_str,
    ArgType.ARG_PTR_TO_SPIN_LOCK: _check_spin_lock,
    ArgType.ARG_PTR_TO_TIMER: _check_timer,
    ArgType.ARG_KPTR_XCHG_DEST: _check_kptr_dest,
    ArgType.ARG_PTR_TO_BTF_ID: _check_btf_arg,
    ArgType.ARG_PTR_TO_DYNPTR: _check_dynptr,
}


def _check_reg_type(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, fn: HelperProto, arg: int) -> None:
    compatible = _COMPATIBLE[arg_type & 0xFF]
    kind = reg.type
    if arg_type & MEM_RDONLY:
        kind &= ~MEM_RDONLY
    if arg_type & PTR_MAYBE_NULL:
        kind &= ~PTR_MAYBE_NULL
    if fn.name == "kptr_xchg" and arg == 1:
        kind &= ~MEM_ALLOC
    if kind not in compatible:
        expected = ", ".join(reg_type_str(t) for t in compatible)
        env.reject(EACCES, f"R{regno} type={reg_type_str(reg.type)} expected={expected}")
    if base_type(kind) == PTR_TO_BTF_ID and arg in fn.arg_btf:
        btf = env.attr.kernel_btf
        actual = btf.type(reg.num).name if btf is not None else ""
        if actual != fn.arg_btf[arg]:
            env.reject(EACCES, f"R{regno} is of type {actual} but {fn.arg_btf[arg]} is expected")


def _check_func_arg_reg_off(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int) -> None:
    if arg_type & OBJ_RELEASE and arg_type & 0xFF != ArgType.ARG_PTR_TO_DYNPTR:
        if reg.off:
            env.reject(EINVAL, f"R{regno} must have zero offset when passed to release func or trusted arg to kfunc")
        check_ptr_off_reg(env, regno, reg)
        return
    base = base_type(reg.type)
    if base not in _ANY_OFFSET:
        check_ptr_off_reg(env, regno, reg, fixed_off_ok=base == PTR_TO_BTF_ID)

