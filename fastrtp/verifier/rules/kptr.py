"""kptrs: pointers to kernel objects, or to objects of the program, in map values and in objects of the program.

Kernel: kernel/bpf/verifier.c:check_map_kptr_access, map_kptr_match_type, process_kptr_func, btf_ld_kptr_type.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any

from fastrtp.isa import BPF_ATOMIC, BPF_CLASS, BPF_MEM, BPF_MODE, BPF_ST
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    MEM_ALLOC,
    MEM_RCU,
    NON_OWN_REF,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_MAP_VALUE,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
    base_type,
    reg_type_str,
    type_flag,
)
from fastrtp.verifier.domain.state import BpfRegState, register_is_null
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import DESTRUCTIBLE, BtfField, fields_of, is_local, object_fields
from fastrtp.verifier.rules.precision import mark_reg_precise

GRAPH_NODES = frozenset({"bpf_list_node", "bpf_rb_node"})


def kptr_at(env: BpfVerifierEnv, reg: BpfRegState, off: int) -> BtfField | None:
    """The kptr at `off` of a map value (the register's own offset included), where the place is known."""
    if reg.bounds.var_off.mask:
        return None
    place = off + reg.bounds.smin_value
    return next((field for field in fields_of(env, reg.map) if field.name == "kptr" and field.offset == place), None)


def pointee(env: BpfVerifierEnv, btf: Any, field: BtfField) -> tuple[Any, int]:
    """(BTF, type id) that a kptr points to, `btf` being where the field is from; BTF None: the kernel's."""
    kernel_btf = env.attr.kernel_btf
    if is_local(btf, field.type_id, kernel_btf):
        return btf, field.type_id
    record = btf.type(field.type_id)
    return None, kernel_btf.find(record.name, record.kind)


def _name(env: BpfVerifierEnv, btf: Any, type_id: int) -> str:
    return str((btf or env.attr.kernel_btf).type(type_id).name)


def check_map_kptr_access(
    env: BpfVerifierEnv, reg: BpfRegState, field: BtfField, write: bool, value_regno: int
) -> BpfRegState | None:
    """A load or store of a whole kptr; what a load gives. Errors: EACCES."""
    insn = env.insns[env.insn_idx]
    if BPF_MODE(insn.code) != BPF_MEM or BPF_MODE(insn.code) == BPF_ATOMIC:
        env.reject(EACCES, "kptr in map can only be accessed using BPF_MEM instruction mode")
    if write and field.tag != "kptr_untrusted":
        env.reject(EACCES, "store to referenced kptr disallowed")
    btf, type_id = pointee(env, reg.map.btf, field)
    if not write:
        return BpfRegState(PTR_TO_BTF_ID | _load_flags(env, btf, type_id, field), ZERO, id=env.new_id(), map=btf, num=type_id)
    if BPF_CLASS(insn.code) == BPF_ST:
        if insn.imm:
            env.reject(EACCES, f"BPF_ST imm must be 0 when storing to kptr at off={field.offset}")
        return None
    value = env.regs[value_regno]
    if register_is_null(value):
        mark_reg_precise(env, value_regno)
    else:
        match_kptr_type(env, value_regno, value, reg.map.btf, field)
    return None


def _load_flags(env: BpfVerifierEnv, btf: Any, type_id: int, field: BtfField) -> int:
    """Kernel: btf_ld_kptr_type. A program that does not sleep is in an RCU section of its own."""
    if field.tag != "kptr" or (btf is None and _name(env, btf, type_id) not in DESTRUCTIBLE):
        return PTR_MAYBE_NULL | PTR_UNTRUSTED
    flags = PTR_MAYBE_NULL | MEM_RCU
    if btf is not None:
        flags |= MEM_ALLOC
        if any(inner.name in GRAPH_NODES for inner in object_fields(btf, type_id)):
            flags |= NON_OWN_REF
    return flags


def match_kptr_type(env: BpfVerifierEnv, regno: int, reg: BpfRegState, types: Any, field: BtfField) -> None:
    """A pointer may be put into the kptr: exactly the struct that it names. Errors: EACCES. Kernel: map_kptr_match_type."""
    btf, type_id = pointee(env, types, field)
    allowed = PTR_MAYBE_NULL | (MEM_ALLOC if reg.map is not None else PTR_TRUSTED | MEM_RCU)
    if reg.map is None and field.tag == "kptr_untrusted":
        allowed |= PTR_UNTRUSTED
    is_pointer = base_type(reg.type) == PTR_TO_BTF_ID
    if is_pointer and not type_flag(reg.type) & ~allowed:
        if reg.bounds.var_off.mask or reg.bounds.var_off.value or reg.off < 0:
            env.reject(EACCES, f"dereference of modified {reg_type_str(reg.type)} ptr R{regno} off={reg.off} disallowed")
        if reg.map is btf and reg.num == type_id and not reg.off:
            return
    shown = f"{reg_type_str(reg.type)}{_name(env, reg.map, reg.num) if is_pointer else ''}"
    target = _name(env, btf, type_id)
    more = f" or {reg_type_str(PTR_TO_BTF_ID | PTR_UNTRUSTED)}{target}" if field.tag == "kptr_untrusted" else ""
    env.reject(EACCES, f"invalid kptr access, R{regno} type={shown} expected={reg_type_str(PTR_TO_BTF_ID)}{target}{more}")


def kptr_of_arg(env: BpfVerifierEnv, regno: int, reg: BpfRegState) -> tuple[Any, BtfField]:
    """(BTF, kptr) that the first argument of bpf_kptr_xchg points at, in a map value or an object of the program.

    Errors: EINVAL, EACCES. Kernel: process_kptr_func.
    """
    in_map = base_type(reg.type) == PTR_TO_MAP_VALUE
    if in_map and getattr(reg.map, "btf", None) is None:
        env.reject(EINVAL, f"map '{reg.map.name}' has to have BTF in order to use bpf_kptr_xchg")
    if reg.bounds.var_off.mask:
        env.reject(EINVAL, f"R{regno} doesn't have constant offset. kptr has to be at the constant offset")
    fields = fields_of(env, reg.map) if in_map else object_fields(reg.map, reg.num)
    if not any(field.name == "kptr" for field in fields):
        env.reject(EINVAL, f"R{regno} has no valid kptr")
    off = reg.off + reg.bounds.smin_value
    field = next((field for field in fields if field.name == "kptr" and field.offset == off), None)
    if field is None:
        env.reject(EACCES, f"off={off} doesn't point to kptr")
    if field.tag != "kptr":
        env.reject(EACCES, f"off={off} kptr isn't referenced kptr")
    return reg.map.btf if in_map else reg.map, field


def kptr_xchg_result(env: BpfVerifierEnv, types: Any, field: BtfField) -> BpfRegState:
    """What was in the kptr: now the program's, or NULL."""
    btf, type_id = pointee(env, types, field)
    env.new_id()  # of a pointer that may be NULL; the reference's takes its place
    ident = env.acquire_reference(env.insn_idx)
    flags = PTR_MAYBE_NULL | (MEM_ALLOC if btf is not None else 0)
    return BpfRegState(PTR_TO_BTF_ID | flags, ZERO, id=ident, ref_obj_id=ident, map=btf, num=type_id)
