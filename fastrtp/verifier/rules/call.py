"""Calls of helpers: who may call what, and those calls that are not the core's alone (call_native.py).

Kernel: kernel/bpf/verifier.c:check_helper_call.
"""

from __future__ import annotations

from errno import EINVAL
from typing import Any

import numpy as np

from fastrtp.btf import BtfKind
from fastrtp.errors import BtfError
from fastrtp.helpers.argtype import MEM_RDONLY, PTR_MAYBE_NULL, ArgType, RetType
from fastrtp.helpers.table import HELPER_IDS, HELPERS, HelperProto
from fastrtp.isa import Insn, func_id_name
from fastrtp.once import once
from fastrtp.uapi import BPF_F_SLEEPABLE
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.records import (
    CALL_ALLOWED,
    HELPER_ACQUIRES,
    HELPER_CPU,
    HELPER_LOOKS_UP,
    HELPER_NATIVE,
    HELPER_RET_NATIVE,
    HELPER_ROWS,
    HELPER_SIZED,
    HELPER_WRITES_MAP,
    HELPER_XCHG,
    VHelper,
)
from fastrtp.verifier.domain.regtype import PTR_TO_BTF_ID, PTR_TO_MEM
from fastrtp.verifier.domain.state import BpfRegState
from fastrtp.verifier.rules.call_args import ARG_CHECKS, CallArgMeta, check_func_arg
from fastrtp.verifier.rules.call_funcs import FUNC_CHECKS, refuse_func_ip
from fastrtp.verifier.rules.call_maps import WRITING, ids, map_types
from fastrtp.verifier.rules.dynptr import end_dynptr
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.kptr import kptr_xchg_result
from fastrtp.verifier.rules.refs import check_reference_leak, release_reference

_FN = HELPER_IDS
_FACTS = {
    HELPER_WRITES_MAP: WRITING,
    HELPER_LOOKS_UP: ids("map_lookup_elem"),
    HELPER_SIZED: ids("get_stack", "get_task_stack", "probe_read_str", "probe_read_kernel_str", "probe_read_user_str"),
    HELPER_CPU: ids("get_smp_processor_id"),
    HELPER_ACQUIRES: ids("ringbuf_reserve"),
    HELPER_XCHG: ids("kptr_xchg"),
}
_NATIVE_RETURNS = frozenset({RetType.RET_INTEGER, RetType.RET_VOID, RetType.RET_PTR_TO_MAP_VALUE})


@once
def helper_rows() -> Any:
    """For the core: the helper table by number, and what else it has to know of each."""
    rows = np.zeros(HELPER_ROWS, VHelper.layout.dtype)
    for number, fn in HELPERS.items():
        row = rows[number]
        row["args"][: len(fn.args)] = fn.args
        for arg, size in fn.arg_size.items():
            row["arg_size"][arg] = size
        row["ret"], row["nargs"] = fn.ret, len(fn.args)
        row["maps"] = np.uint64(map_types(number)).astype("<i8")
        flags = sum(flag for flag, numbers in _FACTS.items() if number in numbers)
        if fn.ret & 0xFF in _NATIVE_RETURNS or flags & HELPER_ACQUIRES:
            flags |= HELPER_RET_NATIVE
            if number not in FUNC_CHECKS and not fn.arg_btf and not any(ArgType(arg & 0xFF) in ARG_CHECKS for arg in fn.args):
                flags |= HELPER_NATIVE
        row["flags"] = flags
    return rows


def member_offsets(btf: Any, fn: HelperProto) -> list[int]:
    """Where the members are that a helper's body looks at, -1 for one that the kernel does not have."""
    found = []
    for _arg, struct, member in fn.members:
        try:
            found.append(btf.member(struct, member).offset_bytes if btf is not None else -1)
        except BtfError:
            found.append(-1)
    return found


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
    if fn.gpl_only and not env.gpl_compatible:
        env.reject(EINVAL, "cannot call GPL-restricted function from non-GPL compatible program")
    if not fn.allowed:
        env.reject(EINVAL, "helper call is not allowed in probe")
    if fn.might_sleep and not env.attr.prog_flags & BPF_F_SLEEPABLE:
        env.reject(EINVAL, "helper call might sleep in a non-sleepable prog")
    if func_id == _FN["get_func_ip"]:
        refuse_func_ip(env, f"{func_id_name(func_id)}#{func_id}")
    env.insn_table["flags"][env.insn_idx] |= CALL_ALLOWED
    if fn.members:
        env.aux[env.insn_idx].operands = ",".join(str(offset) for offset in member_offsets(env.attr.kernel_btf, fn))
    meta = CallArgMeta(env)
    for arg in range(len(fn.args)):
        check_func_arg(env, arg, meta, fn)
    env.check(env.lib.verifier_finish_args(env.address, func_id))
    if meta.dynptr is not None and meta.release_regno:
        end_dynptr(env, meta.dynptr.ref_obj_id)
        release_reference(env, meta.dynptr.ref_obj_id)
    else:
        env.check(env.lib.verifier_release(env.address))
    check = FUNC_CHECKS.get(func_id)
    if check is not None:
        check(env, meta)
    env.check(env.lib.verifier_finish_call(env.address, func_id))
    if not helper_rows()["flags"][func_id] & HELPER_RET_NATIVE:
        env.regs[0] = _return_value(env, fn, meta)


def _return_value(env: BpfVerifierEnv, fn: HelperProto, meta: CallArgMeta) -> BpfRegState:
    """What comes back, where that depends on C types or dynptrs."""
    base, flags = fn.ret & 0xFF, fn.ret & ~0xFF
    if meta.kptr_field is not None:
        return kptr_xchg_result(env, meta.kptr_btf, meta.kptr_field)
    ident = env.new_id() if flags & PTR_MAYBE_NULL else 0
    if base == RetType.RET_PTR_TO_MEM and meta.dynptr is not None:
        # a slice: dead with its dynptr
        return BpfRegState(
            PTR_TO_MEM | flags, ZERO, id=ident, ref_obj_id=meta.dynptr.ref_obj_id, map=meta.dynptr.id, num=meta.mem_size
        )
    btf = env.attr.kernel_btf
    if base == RetType.RET_PTR_TO_BTF_ID:
        type_id = btf.find(fn.ret_btf, BtfKind.STRUCT) if btf is not None else None
        if type_id is None:
            env.reject(EINVAL, f"func {func_id_name(fn.id)}#{fn.id}: no struct {fn.ret_btf} in the kernel's BTF")
        return BpfRegState(PTR_TO_BTF_ID | flags, ZERO, id=ident, num=type_id)
    if base == RetType.RET_PTR_TO_MEM_OR_BTF_ID:
        return BpfRegState(PTR_TO_BTF_ID | flags & ~MEM_RDONLY, ZERO, id=ident, num=meta.ret_btf_id)
    env.reject(EINVAL, f"unknown return type {fn.ret} of func {func_id_name(fn.id)}#{fn.id}")
    return None


__all__ = ["check_helper_call", "check_reference_leak", "get_helper_proto", "helper_rows"]
