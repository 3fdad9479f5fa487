"""Calls of helpers: who may call what, every argument against the helper table, what comes back.

Kernel: kernel/bpf/verifier.c:check_helper_call, check_func_arg, check_reg_type, check_map_func_compatibility.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EACCES, EINVAL, EOPNOTSUPP
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.errors import ENOTSUPP
from fastrtp.helpers.argtype import (
    MEM_ALIGNED,
    MEM_FIXED_SIZE,
    MEM_RDONLY,
    MEM_UNINIT,
    MEM_WRITE,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    ArgType,
    RetType,
)
from fastrtp.helpers.table import HELPER_IDS, HELPERS, HelperProto
from fastrtp.isa import Insn, func_id_name
from fastrtp.uapi import BPF_F_INNER_MAP, BPF_F_RDONLY_PROG, BPF_F_SLEEPABLE, BpfMapType
from fastrtp.verifier.bounds import S32_MAX, S32_MIN, ZERO, reg_bounds_sync
from fastrtp.verifier.dynptr import check_dynptr_arg, end_dynptr, held_dynptr
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import has_field
from fastrtp.verifier.func import clear_caller_saved_regs, push_callback_call
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
from fastrtp.verifier.section import check_sections_closed, check_spin_lock
from fastrtp.verifier.stack import READ, WRITE, constant_map_key, mark_stack_written
from fastrtp.verifier.state import REG_NOT_INIT, REG_UNKNOWN, SLOT_MISC, BpfFuncState, BpfRegState, register_is_null, scalar
from fastrtp.verifier.tnum import TNUM_UNKNOWN, U32, U64

MAX_ERRNO = 4095

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
    ArgType.ARG_PTR_TO_SPIN_LOCK: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_PTR_TO_RINGBUF_MEM: (PTR_TO_MEM | MEM_RINGBUF,),
    ArgType.ARG_PTR_TO_PERCPU_BTF_ID: (PTR_TO_BTF_ID | MEM_PERCPU, PTR_TO_BTF_ID | MEM_PERCPU | PTR_TRUSTED),
    ArgType.ARG_PTR_TO_FUNC: (PTR_TO_FUNC,),
    ArgType.ARG_PTR_TO_STACK: (PTR_TO_STACK,),
    ArgType.ARG_PTR_TO_CONST_STR: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_PTR_TO_TIMER: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_KPTR_XCHG_DEST: (PTR_TO_MAP_VALUE,),
    ArgType.ARG_PTR_TO_DYNPTR: (PTR_TO_STACK, CONST_PTR_TO_DYNPTR),
}
_ANY_OFFSET = frozenset(
    {PTR_TO_STACK, PTR_TO_PACKET, PTR_TO_PACKET_META, PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM, PTR_TO_BUF, SCALAR_VALUE}
)
_FN = HELPER_IDS
_T = BpfMapType


def _ids(*names: str) -> frozenset[int]:
    return frozenset(_FN[name] for name in names)


_RINGBUF_FUNCS = _ids(
    "ringbuf_output",
    "ringbuf_reserve",
    "ringbuf_query",
    "ringbuf_reserve_dynptr",
    "ringbuf_submit_dynptr",
    "ringbuf_discard_dynptr",
)
_PERF_FUNCS = _ids("perf_event_read", "perf_event_output", "skb_output", "perf_event_read_value", "xdp_output")
_QUEUE_FUNCS = _ids("map_peek_elem", "map_pop_elem", "map_push_elem")
_MAP_FUNCS: dict[int, frozenset[int]] = {
    _T.BPF_MAP_TYPE_PROG_ARRAY: _ids("tail_call"),
    _T.BPF_MAP_TYPE_PERF_EVENT_ARRAY: _PERF_FUNCS,
    _T.BPF_MAP_TYPE_RINGBUF: _RINGBUF_FUNCS,
    _T.BPF_MAP_TYPE_USER_RINGBUF: _ids("user_ringbuf_drain"),
    _T.BPF_MAP_TYPE_STACK_TRACE: _ids("get_stackid"),
    _T.BPF_MAP_TYPE_CGROUP_ARRAY: _ids("current_task_under_cgroup"),
    _T.BPF_MAP_TYPE_ARRAY_OF_MAPS: _ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_HASH_OF_MAPS: _ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_QUEUE: _QUEUE_FUNCS,
    _T.BPF_MAP_TYPE_STACK: _QUEUE_FUNCS,
    _T.BPF_MAP_TYPE_BLOOM_FILTER: _ids("map_peek_elem", "map_push_elem"),
    _T.BPF_MAP_TYPE_TASK_STORAGE: _ids("task_storage_get", "task_storage_delete"),
    _T.BPF_MAP_TYPE_CGRP_STORAGE: _ids("cgrp_storage_get"),
    _T.BPF_MAP_TYPE_SK_STORAGE: _ids("sk_storage_get", "sk_storage_delete"),
    _T.BPF_MAP_TYPE_CGROUP_STORAGE: frozenset(),
    _T.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: frozenset(),
    _T.BPF_MAP_TYPE_DEVMAP: _ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_DEVMAP_HASH: _ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_CPUMAP: frozenset(),
    _T.BPF_MAP_TYPE_XSKMAP: _ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_SOCKMAP: _ids("map_delete_elem", "map_lookup_elem"),
    _T.BPF_MAP_TYPE_SOCKHASH: _ids("map_delete_elem", "map_lookup_elem"),
    _T.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: frozenset(),
    _T.BPF_MAP_TYPE_INODE_STORAGE: frozenset(),
}
_PERCPU_MAPS = frozenset({_T.BPF_MAP_TYPE_PERCPU_ARRAY, _T.BPF_MAP_TYPE_PERCPU_HASH, _T.BPF_MAP_TYPE_LRU_PERCPU_HASH})
_FUNC_MAPS: Mapping[int, frozenset[int]] = {
    _FN["tail_call"]: frozenset({_T.BPF_MAP_TYPE_PROG_ARRAY}),
    _FN["get_stackid"]: frozenset({_T.BPF_MAP_TYPE_STACK_TRACE}),
    _FN["map_lookup_percpu_elem"]: _PERCPU_MAPS,
    _FN["current_task_under_cgroup"]: frozenset({_T.BPF_MAP_TYPE_CGROUP_ARRAY}),
    **{func: frozenset({_T.BPF_MAP_TYPE_PERF_EVENT_ARRAY}) for func in _PERF_FUNCS},
    **{func: frozenset({_T.BPF_MAP_TYPE_RINGBUF}) for func in _RINGBUF_FUNCS},
    **{func: frozenset({_T.BPF_MAP_TYPE_QUEUE, _T.BPF_MAP_TYPE_STACK, _T.BPF_MAP_TYPE_BLOOM_FILTER}) for func in _QUEUE_FUNCS},
    **{_FN[name]: frozenset({_T.BPF_MAP_TYPE_TASK_STORAGE}) for name in ("task_storage_get", "task_storage_delete")},
    _FN["cgrp_storage_get"]: frozenset({_T.BPF_MAP_TYPE_CGRP_STORAGE}),
    _FN["user_ringbuf_drain"]: frozenset({_T.BPF_MAP_TYPE_USER_RINGBUF}),
    **{_FN[name]: frozenset({_T.BPF_MAP_TYPE_SK_STORAGE}) for name in ("sk_storage_get", "sk_storage_delete")},
}
_FOR_EACH_MAPS = frozenset(
    {
        _T.BPF_MAP_TYPE_HASH,
        _T.BPF_MAP_TYPE_PERCPU_HASH,
        _T.BPF_MAP_TYPE_LRU_HASH,
        _T.BPF_MAP_TYPE_LRU_PERCPU_HASH,
        _T.BPF_MAP_TYPE_ARRAY,
        _T.BPF_MAP_TYPE_PERCPU_ARRAY,
    }
)
_WRITING = _ids("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem")
_RECORDED = _WRITING | _ids("tail_call", "map_lookup_elem", "map_peek_elem", "for_each_map_elem", "map_lookup_percpu_elem")
_SIZED_RESULT = _ids("get_stack", "get_task_stack", "probe_read_str", "probe_read_kernel_str", "probe_read_user_str")
_KEY_ELIDED = frozenset({_T.BPF_MAP_TYPE_ARRAY, _T.BPF_MAP_TYPE_PERCPU_ARRAY})


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
        _refuse_func_ip(env, name)
    if env.attr.implemented_only and not fn.implemented:
        env.reject(EINVAL, f"helper bpf_{fn.name} is not implemented yet")
    meta = CallArgMeta()
    for arg in range(len(fn.args)):
        _check_func_arg(env, arg, meta, fn)
    _record_func_map(env, meta, func_id)
    if meta.access_size:
        mark_stack_written(env, env.regs[meta.raw_regno], meta.access_size)
    if meta.release_regno:
        released = env.regs[meta.release_regno]
        if meta.dynptr is not None:
            end_dynptr(env, meta.dynptr.ref_obj_id)
            release_reference(env, meta.dynptr.ref_obj_id)
        elif meta.ref_obj_id and release_reference(env, meta.ref_obj_id):
            pass
        elif not register_is_null(released):
            env.reject(EINVAL, f"func {name} reference has not been acquired before")
    _check_by_func(env, func_id, meta)
    elided = _is_lookup_of_known_element(func_id, meta)
    clear_caller_saved_regs(env.frame)
    env.regs[0] = _return_value(env, fn, meta, elided)
    _check_map_func_compatibility(env, meta.map_ptr, func_id, name)


def _check_func_arg(env: BpfVerifierEnv, arg: int, meta: CallArgMeta, fn: HelperProto) -> None:
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
    meta.map_ptr = reg.map
    meta.map_uid = reg.num


def _check_map_key(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if meta.map_ptr is None:
        env.reject(EACCES, "invalid map_ptr to access map->key")
    check_helper_mem_access(env, regno, meta.map_ptr.key_size, READ, False)
    if meta.map_ptr.map_type in _KEY_ELIDED:
        key = constant_map_key(env, reg, meta.map_ptr.key_size)
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
            check_ptr_alignment(env, reg, 0, size, True)


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


def _check_dynptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if arg_type & OBJ_RELEASE:
        held = held_dynptr(env, reg)
        if held is None or not held.ref_obj_id:
            env.reject(EINVAL, f"arg {regno} is an unacquired reference")
    meta.dynptr = check_dynptr_arg(env, regno, reg, arg_type)


def _refuse_special(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    env.reject(EINVAL, f"helper bpf_{fn.name} is not implemented yet")


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
    ArgType.ARG_PTR_TO_TIMER: _refuse_special,
    ArgType.ARG_KPTR_XCHG_DEST: _refuse_special,
    ArgType.ARG_PTR_TO_DYNPTR: _check_dynptr,
}


def _check_reg_type(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, fn: HelperProto, arg: int) -> None:
    compatible = _COMPATIBLE[arg_type & 0xFF]
    kind = reg.type
    if arg_type & MEM_RDONLY:
        kind &= ~MEM_RDONLY
    if arg_type & PTR_MAYBE_NULL:
        kind &= ~PTR_MAYBE_NULL
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


def release_reference(env: BpfVerifierEnv, ref_obj_id: int) -> bool:
    """Give a resource back: every pointer to it is dead. False: it was not held."""
    if not env.release_reference_nomark(ref_obj_id):
        return False
    for frame in env.cur_state.frames:
        for regno, reg in enumerate(frame.regs):
            if reg.ref_obj_id == ref_obj_id:
                frame.regs[regno] = REG_UNKNOWN
                frame.deps[regno] = 0
        for spi, slot in frame.stack.items():
            if slot.spilled_ptr.ref_obj_id == ref_obj_id:
                frame.stack[spi] = SLOT_MISC
                frame.stack_deps[spi] = 0
    return True


def _record_func_map(env: BpfVerifierEnv, meta: CallArgMeta, func_id: int) -> None:
    """For the code generator: the one map that the call works on, and no writes to read-only maps."""
    found = meta.map_ptr
    if func_id in _WRITING and found is not None and found.map_flags & BPF_F_RDONLY_PROG:
        env.reject(EACCES, "write into map forbidden")
    if found is None:
        return
    aux = env.aux[env.insn_idx]
    index = next((i for i, used in enumerate(env.used_maps) if used is found), None)
    if index is None or aux.map_ambiguous or aux.map not in (None, index):
        aux.map, aux.map_ambiguous = None, True
    else:
        aux.map = index


def _is_lookup_of_known_element(func_id: int, meta: CallArgMeta) -> bool:
    """A lookup in an array with a constant key below max_entries never gives NULL."""
    return (
        func_id == _FN["map_lookup_elem"]
        and meta.map_ptr is not None
        and meta.map_ptr.map_type in _KEY_ELIDED
        and not meta.map_ptr.map_flags & BPF_F_INNER_MAP  # max_entries is then the template's, not the map's
        and 0 <= meta.const_map_key < meta.map_ptr.max_entries
    )


def _check_map_func_compatibility(env: BpfVerifierEnv, found: Any, func_id: int, name: str) -> None:
    if found is None:
        return
    allowed = _MAP_FUNCS.get(found.map_type)
    needed = _FUNC_MAPS.get(func_id)
    if (allowed is not None and func_id not in allowed) or (needed is not None and found.map_type not in needed):
        env.reject(EINVAL, f"cannot pass map_type {int(found.map_type)} into func {name}")


def check_reference_leak(env: BpfVerifierEnv, prefix: str) -> None:
    """Nothing acquired is still held, no section is open. Errors: EINVAL. Kernel: check_resource_leak."""
    if not env.cur_state.refs or (len(env.cur_state.frames) > 1 and prefix != "tail_call"):
        return
    check_sections_closed(env, prefix, ("lock",))
    held = [ref for ref in env.cur_state.refs if ref.kind in ("ptr", "iter")]
    for ref in held:
        env.log.line(f"Unreleased reference id={ref.id} alloc_insn={ref.insn_idx}")
    if held:
        env.reject(EINVAL, f"{prefix} would lead to reference leak")
    check_sections_closed(env, prefix, ("rcu", "preempt"))


def _check_by_func(env: BpfVerifierEnv, func_id: int, meta: CallArgMeta) -> None:
    """What single helpers need beyond their prototype."""
    regs = env.regs
    if func_id == _FN["tail_call"]:
        check_reference_leak(env, "tail_call")
    elif func_id == _FN["loop"]:
        _note_callback(env, meta.subprogno)
        mark_reg_precise(env, 1)
        if env.frame.callback_depth < regs[1].bounds.umax_value:
            push_callback_call(env, meta.subprogno, _set_loop_callback_state)
        else:
            env.frame.callback_depth = 0
    elif func_id == _FN["for_each_map_elem"]:
        if meta.map_ptr.map_type not in _FOR_EACH_MAPS:
            env.reject(EINVAL, "callback function not allowed for map")
        _note_callback(env, meta.subprogno)
        push_callback_call(env, meta.subprogno, _set_map_elem_callback_state)
    elif func_id in (_FN["find_vma"], _FN["user_ringbuf_drain"], _FN["timer_set_callback"]):
        env.reject(EOPNOTSUPP, f"helper {func_id_name(func_id)} is not implemented yet")
    elif func_id == _FN["dynptr_from_mem"]:
        if regs[1].type != PTR_TO_MAP_VALUE:
            env.reject(EACCES, f"Unsupported reg type {reg_type_str(regs[1].type)} for bpf_dynptr_from_mem data")
    elif func_id == _FN["snprintf"]:
        size = regs[5].bounds.var_off.value
        if size % 8:
            env.reject(EINVAL, f"R5 size {size} of the data array is no multiple of 8")


def _refuse_func_ip(env: BpfVerifierEnv, name: str) -> None:
    """Nothing that runs here was entered by a function's address. Kernel: check_get_func_ip."""
    only = "supported only for fentry/fexit/fsession/fmod_ret programs"
    env.reject(ENOTSUPP, f"func {name} {only if env.is_tracing else f'not supported for program type {int(env.prog_type)}'}")


def _note_callback(env: BpfVerifierEnv, subprogno: int) -> None:
    aux = env.aux[env.insn_idx]
    start = env.subprogs[subprogno].start
    if aux.callback_ambiguous or aux.callback not in (None, start):
        aux.callback, aux.callback_ambiguous = None, True
    else:
        aux.callback = start


def _set_loop_callback_state(caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the iteration's number, R2: the context that was given in R3."""
    callee.regs[1] = REG_UNKNOWN
    callee.regs[2], callee.deps[2] = caller.regs[3], caller.deps[3]


def _set_map_elem_callback_state(caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the map, R2: pointer to the key, R3: pointer to the value, R4: the context that was given in R3."""
    pointer = caller.regs[1]
    callee.regs[1] = BpfRegState(CONST_PTR_TO_MAP, ZERO, map=pointer.map, num=pointer.num)
    callee.regs[2] = BpfRegState(PTR_TO_MAP_KEY, ZERO, map=pointer.map)
    callee.regs[3] = BpfRegState(PTR_TO_MAP_VALUE, ZERO, map=pointer.map, num=pointer.num)
    callee.regs[4], callee.deps[4] = caller.regs[3], caller.deps[3]


def _return_value(env: BpfVerifierEnv, fn: HelperProto, meta: CallArgMeta, elided: bool) -> BpfRegState:
    base, flags = fn.ret & 0xFF, fn.ret & ~0xFF
    if base == RetType.RET_INTEGER:
        if fn.id in _SIZED_RESULT and meta.msize_max_value <= S32_MAX:
            top = meta.msize_max_value
            return scalar(reg_bounds_sync(TNUM_UNKNOWN, -MAX_ERRNO, top, 0, U64, max(S32_MIN, -MAX_ERRNO), top, 0, U32))
        return REG_UNKNOWN
    if base == RetType.RET_VOID:
        return REG_NOT_INIT
    ident = env.new_id() if flags & PTR_MAYBE_NULL else 0
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
    if base == RetType.RET_PTR_TO_BTF_ID:
        type_id = btf.find(fn.ret_btf, BtfKind.STRUCT) if btf is not None else None
        if type_id is None:
            env.reject(EINVAL, f"func {func_id_name(fn.id)}#{fn.id}: no struct {fn.ret_btf} in the kernel's BTF")
        return BpfRegState(PTR_TO_BTF_ID | flags, ZERO, id=ident, num=type_id)
    if base == RetType.RET_PTR_TO_MEM_OR_BTF_ID:
        return BpfRegState(PTR_TO_BTF_ID | flags & ~MEM_RDONLY, ZERO, id=ident, num=meta.ret_btf_id)
    env.reject(EINVAL, f"unknown return type {fn.ret} of func {func_id_name(fn.id)}#{fn.id}")
    return None
