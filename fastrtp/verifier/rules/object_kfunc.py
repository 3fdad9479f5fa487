"""Kernel functions on objects of the program: made, dropped and counted, put into lists and trees; and casts.

An object of the program is a PTR_TO_BTF_ID | MEM_ALLOC whose `map` is the program's BTF. Who owns it has a reference; in a
list or tree it is not owned (NON_OWN_REF), and what points to it is good until the lock is given back.
Kernel: kernel/bpf/verifier.c:check_kfunc_args, check_kfunc_call, ref_convert_owning_non_owning.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import E2BIG, EACCES, EFAULT, EINVAL, ELOOP
from functools import partial
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.btf.kfuncs import KfuncProto
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    MEM_ALLOC,
    MEM_RCU,
    NON_OWN_REF,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_FUNC,
    PTR_TO_MAP_VALUE,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
    SCALAR_VALUE,
    base_type,
)
from fastrtp.verifier.domain.state import REG_NOT_INIT, REG_UNKNOWN, BpfFuncState, BpfRegState, BpfStackState, register_is_null
from fastrtp.verifier.domain.tnum import U32
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import BTF_FIELDS_MAX, BtfField, field_rows, fields_of, object_fields
from fastrtp.verifier.rules.func import clear_caller_saved_regs, push_callback_call
from fastrtp.verifier.rules.mem import check_ptr_off_reg, check_reg_read
from fastrtp.verifier.rules.precision import mark_reg_precise
from fastrtp.verifier.rules.refs import release_reference
from fastrtp.verifier.rules.section import lock_ident

_OBJECT = PTR_TO_BTF_ID | MEM_ALLOC
_HEADS = {"list": ("bpf_list_head", "bpf_list_node"), "rbtree": ("bpf_rb_root", "bpf_rb_node")}
_ROOTS, _NODES = ({names[0] for names in _HEADS.values()}, {names[1] for names in _HEADS.values()})


def check_object_kfunc(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    """Check the call at the current instruction and set R0. Errors: EINVAL, EACCES."""
    _FAMILIES[proto.family](env, proto)


def _finish(env: BpfVerifierEnv, proto: KfuncProto, reg: BpfRegState) -> None:
    """R0 with the reference and the doubt that the flags say."""
    clear_caller_saved_regs(env.frame)
    kind = reg.type | (PTR_MAYBE_NULL if proto.ret_null else 0)
    ident = env.new_id() if proto.ret_null else reg.id
    if proto.acquire:
        ident = env.acquire_reference(env.insn_idx)
    env.regs[0] = BpfRegState(kind, reg.bounds, reg.off, ident, ident if proto.acquire else 0, reg.map, reg.num)


def _refuse_null(env: BpfVerifierEnv, reg: BpfRegState, arg: int) -> None:
    if register_is_null(reg) or reg.type & PTR_MAYBE_NULL:
        env.reject(EACCES, f"Possibly NULL pointer passed to trusted arg{arg}")


# objects of the program


def _fields(env: BpfVerifierEnv, reg: BpfRegState) -> list[BtfField]:
    """Special fields of a map value or of an object. Kernel: reg_btf_record."""
    if base_type(reg.type) == PTR_TO_MAP_VALUE:
        return fields_of(env, reg.map)
    return object_fields(reg.map, reg.num)


def _obj_new(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    reg = check_reg_read(env, 1)
    if reg.type != SCALAR_VALUE:
        env.reject(EINVAL, "R1 is not a scalar")
    if reg.bounds.var_off.mask:
        env.reject(EINVAL, "R1 must be a known constant")
    mark_reg_precise(env, 1)
    type_id, btf = reg.bounds.umin_value, env.attr.btf
    if type_id > U32:
        env.reject(EINVAL, "local type ID argument must be in range [0, U32_MAX]")
    if btf is None:
        env.reject(EINVAL, "bpf_obj_new/bpf_percpu_obj_new requires prog BTF")
    if not 0 < type_id < len(btf) or btf.type(type_id).kind != BtfKind.STRUCT:
        env.reject(EINVAL, "bpf_obj_new/bpf_percpu_obj_new type ID argument must be of a struct")
    fields = object_fields(btf, type_id)
    size = btf.type(type_id).size
    rows = field_rows(btf, fields, env.attr.kernel_btf)
    if len(rows) > BTF_FIELDS_MAX:
        env.reject(E2BIG, f"struct {btf.type(type_id).name} has {len(rows)} special fields, of at most {BTF_FIELDS_MAX}")
    _check_cycle(env, btf, type_id, fields)
    _note_operands(env, [size, len(rows), *(row.row for row in rows), *[0] * (BTF_FIELDS_MAX - len(rows))])
    _finish(env, proto, BpfRegState(_OBJECT, ZERO, map=btf, num=type_id))


def _check_cycle(env: BpfVerifierEnv, btf: Any, type_id: int, fields: list[BtfField]) -> None:
    """What is owned itself holds no owners: nothing comes to own itself. Errors: ELOOP. Kernel: btf_check_and_fixup_fields."""
    if not any(field.name in _NODES for field in fields):
        return
    for field in fields:
        if field.name in _ROOTS and any(inner.name in _ROOTS for inner in object_fields(btf, field.type_id)):
            within = btf.type(field.type_id).name
            env.reject(ELOOP, f"struct {btf.type(type_id).name} has nodes, and struct {within}, which it holds, holds others")


def _types_of(reg: BpfRegState) -> Any:
    """The BTF that a map value's or an object's fields are from."""
    return reg.map.btf if base_type(reg.type) == PTR_TO_MAP_VALUE else reg.map


def _note_operands(env: BpfVerifierEnv, operands: list[int]) -> None:
    """Constants that the native function gets behind env: the same whatever the path. Errors: EINVAL.

    Differs: Linux takes the constants of the last path that it looked at for all, and so gives an object of the wrong size.
    """
    aux, text = env.aux[env.insn_idx], ",".join(map(str, operands))
    if aux.operands not in ("", text):
        env.reject(EINVAL, "one call is made with objects of different types")
    aux.operands = text


def _obj_drop(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    reg = check_reg_read(env, 1)
    _refuse_null(env, reg, 0)
    if not reg.ref_obj_id and not reg.type & (PTR_TRUSTED | MEM_ALLOC):
        env.reject(EINVAL, "R1 must be referenced or trusted")
    _check_release_off(env, reg)
    if reg.type != _OBJECT:
        env.reject(EINVAL, "arg#0 expected pointer to allocated object")
    if not reg.ref_obj_id:
        env.reject(EINVAL, "allocated object must be referenced")
    release_reference(env, reg.ref_obj_id)
    clear_caller_saved_regs(env.frame)


def _check_release_off(env: BpfVerifierEnv, reg: BpfRegState) -> None:
    if reg.ref_obj_id:
        if reg.off:
            env.reject(EINVAL, "R1 must have zero offset when passed to release func or trusted arg to kfunc")
        check_ptr_off_reg(env, 1)


def _refcount_acquire(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    reg = check_reg_read(env, 1)
    _refuse_null(env, reg, 0)
    if base_type(reg.type) != PTR_TO_BTF_ID or not reg.type & MEM_ALLOC or not (reg.ref_obj_id or reg.type & NON_OWN_REF):
        env.reject(EINVAL, "arg#0 is neither owning or non-owning ref")
    if reg.off:
        env.reject(EINVAL, "R1 must have zero offset when passed to release func or trusted arg to kfunc")
    if not any(field.name == "bpf_refcount" for field in _fields(env, reg)):
        env.reject(EINVAL, "arg#0 doesn't point to a type with bpf_refcount field")
    # one that is owned is there: the result needs no check
    _finish(
        env,
        proto if not reg.ref_obj_id else KfuncProto(proto.name, acquire=True),
        BpfRegState(_OBJECT, ZERO, map=reg.map, num=reg.num),
    )


# lists and trees


def _head(env: BpfVerifierEnv, family: str) -> BtfField:
    """The list head or tree root in R1, with the lock beside it held. Errors: EINVAL."""
    name = _HEADS[family][0]
    reg = check_reg_read(env, 1)
    if reg.type not in (PTR_TO_MAP_VALUE, _OBJECT):
        env.reject(EINVAL, "arg#0 expected pointer to map value or allocated object")
    if reg.bounds.var_off.mask:
        env.reject(EINVAL, f"R1 doesn't have constant offset. {name} has to be at the constant offset")
    off = reg.off + reg.bounds.smin_value
    fields = _fields(env, reg)
    field = next((field for field in fields if field.name == name and field.offset == off), None)
    if field is None:
        env.reject(EINVAL, f"{name} not found at offset={off}")
    ident, place = lock_ident(reg)
    if not any(ref.kind == "lock" and ref.id == ident and ref.ptr is place for ref in env.cur_state.refs):
        lock = next((other.offset for other in fields if other.name == "bpf_spin_lock"), -22)
        env.reject(EINVAL, f"bpf_spin_lock at off={lock} must be held for {name}")
    return field


def _node(env: BpfVerifierEnv, family: str, field: BtfField, root: BpfRegState, owning: bool, kfunc: str) -> BpfRegState:
    """The node in R2, of the struct that the list or tree contains. Errors: EINVAL."""
    head, name = _HEADS[family]
    reg = check_reg_read(env, 2)
    if owning:
        if reg.type != _OBJECT:
            env.reject(EINVAL, "arg#1 expected pointer to allocated object")
        if not reg.ref_obj_id:
            env.reject(EINVAL, "allocated object must be referenced")
    elif not reg.type & NON_OWN_REF and not reg.ref_obj_id:
        env.reject(EINVAL, f"{kfunc} can only take non-owning or refcounted {name} pointer")
    if base_type(reg.type) != PTR_TO_BTF_ID or not reg.type & MEM_ALLOC or reg.type & PTR_MAYBE_NULL:
        env.reject(EINVAL, "arg#1 expected pointer to allocated object")
    check_ptr_off_reg(env, 2, fixed_off_ok=True)
    if not any(inner.name == name and inner.offset == reg.off for inner in _fields(env, reg)):
        env.reject(EINVAL, f"{name} not found at offset={reg.off}")
    if reg.map is not _types_of(root) or reg.num != field.type_id:
        wanted, given = _types_of(root).type(field.type_id).name, reg.map.type(reg.num).name
        env.reject(
            EINVAL,
            f"operation on {head} expects arg#1 {name} at offset={field.node_at} in struct {wanted}, "
            f"but arg is at offset={reg.off} in struct {given}",
        )
    if reg.off != field.node_at:
        struct = reg.map.type(reg.num).name
        env.reject(EINVAL, f"arg#1 offset={reg.off}, but expected {name} at offset={field.node_at} in struct {struct}")
    return reg


def _list(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    _graph(env, proto, "list", proto.name in ("bpf_list_push_front_impl", "bpf_list_push_back_impl"))


def _rbtree(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    if in_rbtree_callback(env) and proto.name in ("bpf_rbtree_remove", "bpf_rbtree_add_impl"):
        env.reject(EINVAL, f"{proto.name} not allowed in rbtree cb")
    _graph(env, proto, "rbtree", proto.name == "bpf_rbtree_add_impl")


def _graph(env: BpfVerifierEnv, proto: KfuncProto, family: str, adds: bool) -> None:
    field, root = _head(env, family), env.regs[1]
    if adds:
        reg = _node(env, family, field, root, True, proto.name)
        _note_operands(env, [field.node_at])
        if family == "rbtree":
            less = check_reg_read(env, 3)
            if less.type != PTR_TO_FUNC:
                env.reject(EINVAL, "arg2 expected pointer to func")
            push_callback_call(env, less.num, partial(_set_less_state, _not_owned(env, _types_of(root), field)))
        _no_longer_owned(env, reg)
        clear_caller_saved_regs(env.frame)
        env.regs[0] = REG_UNKNOWN
        return
    if proto.name == "bpf_rbtree_remove":
        _node(env, family, field, root, False, proto.name)
    made = _not_owned(env, _types_of(root), field)
    if proto.acquire:
        made = made.with_type(_OBJECT)
    _finish(env, proto, made)


def _not_owned(env: BpfVerifierEnv, btf: Any, field: BtfField) -> BpfRegState:
    """A pointer to a node within a list or tree."""
    counted = any(inner.name == "bpf_refcount" for inner in object_fields(btf, field.type_id))
    kind = _OBJECT | NON_OWN_REF | (MEM_RCU if counted else 0)
    return BpfRegState(kind, ZERO, off=field.node_at, map=btf, num=field.type_id)


def _no_longer_owned(env: BpfVerifierEnv, owned: BpfRegState) -> None:
    """The list or tree owns it now. Kernel: ref_convert_owning_non_owning."""
    counted = any(inner.name == "bpf_refcount" for inner in object_fields(owned.map, owned.num))
    flags = NON_OWN_REF | (MEM_RCU if counted else 0)
    env.release_reference_nomark(owned.ref_obj_id)
    for frame in env.cur_state.frames:
        for regno, reg in enumerate(frame.regs):
            if reg.ref_obj_id == owned.ref_obj_id:
                frame.regs[regno] = _converted(reg, flags)
        for spi, slot in list(frame.stack.items()):
            if slot.spilled_ptr.ref_obj_id == owned.ref_obj_id:
                frame.stack[spi] = BpfStackState(slot.slot_type, _converted(slot.spilled_ptr, flags))


def _converted(reg: BpfRegState, flags: int) -> BpfRegState:
    return BpfRegState(reg.type | flags, reg.bounds, reg.off, 0, 0, reg.map, reg.num)


def _set_less_state(node: BpfRegState, caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the node that is put in, R2: one of the tree."""
    callee.regs[1] = callee.regs[2] = node
    for regno in (3, 4, 5):
        callee.regs[regno] = REG_NOT_INIT


def in_rbtree_callback(env: BpfVerifierEnv) -> bool:
    """Whether the function being verified is the order of a tree. Kernel: in_rbtree_lock_required_cb."""
    frame = env.frame
    called = env.kfuncs.get(frame.callsite) if frame.in_callback_fn else None
    return called is not None and called.family == "rbtree"


def _rdonly_cast(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    """Any value as a pointer to a kernel struct or union, or to anything (void, 0); its loads are checked as they are made."""
    check_reg_read(env, 1)
    reg = check_reg_read(env, 2)
    if reg.type != SCALAR_VALUE:
        env.reject(EINVAL, "R2 is not a scalar")
    if reg.bounds.var_off.mask:
        env.reject(EINVAL, "R2 must be a known constant")
    mark_reg_precise(env, 2)
    type_id, btf = reg.bounds.umin_value, env.attr.kernel_btf
    known = type_id == 0 or (btf is not None and type_id < len(btf) and btf.type(type_id).kind in (BtfKind.STRUCT, BtfKind.UNION))
    if not known:
        env.reject(EINVAL, f"kfunc {proto.name} type ID argument must be of a struct or void")
    _finish(env, proto, BpfRegState(PTR_TO_BTF_ID | PTR_UNTRUSTED, ZERO, num=type_id))


def _trap(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    """The compiler put it where C says that anything may happen."""
    env.reject(EFAULT, "unexpected __bpf_trap() due to uninitialized variable?")


def _device(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    env.reject(EINVAL, "metadata kfuncs require device-bound program")


_FAMILIES: dict[str, Callable[[BpfVerifierEnv, KfuncProto], None]] = {
    "obj_new": _obj_new,
    "obj_drop": _obj_drop,
    "refcount_acquire": _refcount_acquire,
    "list": _list,
    "rbtree": _rbtree,
    "rdonly_cast": _rdonly_cast,
    "trap": _trap,
    "device": _device,
}
