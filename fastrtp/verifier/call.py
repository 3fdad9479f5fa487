"""Calls of helpers: who may call what, every argument against the helper table, what comes back.

Kernel: kernel/bpf/verifier.c:check_helper_call, check_func_arg, check_reg_type, check_map_func_compatibility.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.btf import BtfKind
from fastrtp.helpers.argtype import MEM_RDONLY, PTR_MAYBE_NULL, RetType
from fastrtp.helpers.table import HELPER_IDS, HELPERS, HelperProto
from fastrtp.isa import Insn, func_id_name
from fastrtp.uapi import BPF_F_SLEEPABLE
from fastrtp.verifier.bounds import S32_MAX, S32_MIN, ZERO, reg_bounds_sync
from fastrtp.verifier.call_args import CallArgMeta, check_func_arg
from fastrtp.verifier.call_funcs import check_by_func, refuse_func_ip
from fastrtp.verifier.call_maps import check_map_func_compatibility, ids, is_lookup_of_known_element, record_func_map
from fastrtp.verifier.dynptr import end_dynptr
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import has_field
from fastrtp.verifier.func import clear_caller_saved_regs
from fastrtp.verifier.kptr import kptr_xchg_result
from fastrtp.verifier.refs import check_reference_leak, release_reference
from fastrtp.verifier.regtype import PTR_TO_BTF_ID, PTR_TO_MAP_VALUE, PTR_TO_MEM
from fastrtp.verifier.stack import mark_stack_written
from fastrtp.verifier.state import REG_NOT_INIT, REG_UNKNOWN, BpfRegState, register_is_null, scalar
from fastrtp.verifier.tnum import TNUM_UNKNOWN, U32, U64

MAX_ERRNO = 4095

_FN = HELPER_IDS
_SIZED_RESULT = ids("get_stack", "get_task_stack", "probe_read_str", "probe_read_kernel_str", "probe_read_user_str")


def get_helper_proto(env: BpfVerifierEnv, func_id: int) -> HelperProto:
    """The helper's row, if this program may call it. Errors: EINVAL."""
    proto = HELPERS.get(func_id)
    if proto is None:
        env.reject(EINVAL, f"invalid func {func_id_name(func_id)}#{func_id}")
    if env.prog_type not in proto.prog_types:
        env.reject(EINVAL, f"program of this type cannot use helper {func_id_name(func_id)}#{func_id}")
    return proto


def check_helper_call(env: BpfVerifierEnv, insn: Insn) -> None:
    """Check the call at the current instruction and set R0."""
    func_id = insn.imm
    fn = get_helper_proto(env, func_id)
    name = f"{func_id_name(func_id)}#{func_id}"
    if fn.gpl_only and not env.gpl_compatible:
        env.reject(EINVAL, "cannot call GPL-restricted function from non-GPL compatible program")
    if fn.might_sleep and not env.attr.prog_flags & BPF_F_SLEEPABLE:
        env.reject(EINVAL, "helper call might sleep in a non-sleepable prog")
    if func_id == _FN["get_func_ip"]:
        refuse_func_ip(env, name)
    if env.attr.implemented_only and not fn.implemented:
        env.reject(EINVAL, f"helper bpf_{fn.name} is not implemented yet")
    meta = CallArgMeta()
    for arg in range(len(fn.args)):
        check_func_arg(env, arg, meta, fn)
    record_func_map(env, meta.map_ptr, func_id)
    if meta.access_size:
        mark_stack_written(env, meta.raw_regno, meta.access_size)
    if meta.release_regno:
        released = env.regs[meta.release_regno]
        if meta.dynptr is not None:
            end_dynptr(env, meta.dynptr.ref_obj_id)
            release_reference(env, meta.dynptr.ref_obj_id)
        elif meta.ref_obj_id and release_reference(env, meta.ref_obj_id):
            pass
        elif not register_is_null(released):
            env.reject(EINVAL, f"func {name} reference has not been acquired before")
    check_by_func(env, func_id, meta)
    elided = is_lookup_of_known_element(meta.map_ptr, meta.const_map_key, func_id)
    clear_caller_saved_regs(env.frame)
    env.regs[0] = _return_value(env, fn, meta, elided)
    check_map_func_compatibility(env, meta.map_ptr, func_id, name)


def _return_value(env: BpfVerifierEnv, fn: HelperProto, meta: CallArgMeta, elided: bool) -> BpfRegState:
    base, flags = fn.ret & 0xFF, fn.ret & ~0xFF
    if base == RetType.RET_INTEGER:
        if fn.id in _SIZED_RESULT and meta.msize_max_value <= S32_MAX:
            top = meta.msize_max_value
            return scalar(reg_bounds_sync(TNUM_UNKNOWN, -MAX_ERRNO, top, 0, U64, max(S32_MIN, -MAX_ERRNO), top, 0, U32))
        if fn.id == _FN["get_smp_processor_id"]:
            top = env.attr.nr_cpu_ids - 1
            return scalar(reg_bounds_sync(TNUM_UNKNOWN, 0, top, 0, top, 0, top, 0, top))
        return REG_UNKNOWN
    if base == RetType.RET_VOID:
        return REG_NOT_INIT
    ident = env.new_id() if flags & PTR_MAYBE_NULL and meta.kptr_field is None else 0
    if base == RetType.RET_PTR_TO_MAP_VALUE:
        if elided:
            flags &= ~PTR_MAYBE_NULL
            ident = env.new_id() if has_field(env, meta.map_ptr, "bpf_spin_lock") else 0
        return BpfRegState(PTR_TO_MAP_VALUE | flags, ZERO, id=ident, map=meta.map_ptr, num=meta.map_uid)
    if base == RetType.RET_PTR_TO_MEM:
        ref = 0
        if meta.dynptr is not None:
            # a slice: dead with its dynptr
            return BpfRegState(
                PTR_TO_MEM | flags, ZERO, id=ident, ref_obj_id=meta.dynptr.ref_obj_id, map=meta.dynptr.id, num=meta.mem_size
            )
        if fn.name == "ringbuf_reserve":
            ident = ref = env.acquire_reference(env.insn_idx)
        return BpfRegState(PTR_TO_MEM | flags, ZERO, id=ident, ref_obj_id=ref, num=meta.mem_size)
    btf = env.attr.kernel_btf
    if meta.kptr_field is not None:
        return kptr_xchg_result(env, meta.kptr_btf, meta.kptr_field)
    if base == RetType.RET_PTR_TO_BTF_ID:
        type_id = btf.find(fn.ret_btf, BtfKind.STRUCT) if btf is not None else None
        if type_id is None:
            env.reject(EINVAL, f"func {func_id_name(fn.id)}#{fn.id}: no struct {fn.ret_btf} in the kernel's BTF")
        return BpfRegState(PTR_TO_BTF_ID | flags, ZERO, id=ident, num=type_id)
    if base == RetType.RET_PTR_TO_MEM_OR_BTF_ID:
        return BpfRegState(PTR_TO_BTF_ID | flags & ~MEM_RDONLY, ZERO, id=ident, num=meta.ret_btf_id)
    env.reject(EINVAL, f"unknown return type {fn.ret} of func {func_id_name(fn.id)}#{fn.id}")
    return None



__all__ = ["check_helper_call", "check_reference_leak", "get_helper_proto"]
