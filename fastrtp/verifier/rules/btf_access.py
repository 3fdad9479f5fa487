"""Walks through kernel objects: loads by a pointer whose C type is known.

A load never faults: the code generator checks the address and gives 0 outside the objects, so what matters here is
the type of the result. Kernel: kernel/bpf/verifier.c:check_ptr_to_btf_access, check_ptr_to_map_access;
kernel/bpf/btf.c:btf_struct_access.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any, NamedTuple

from fastrtp.btf import BtfKind
from fastrtp.maps import MAP_OPS
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_USER,
    NON_OWN_REF,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
    reg_type_str,
)
from fastrtp.verifier.domain.state import REG_UNKNOWN, BpfRegState
from fastrtp.verifier.domain.tnum import tnum_strn
from fastrtp.verifier.report.log import Refusal
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import object_fields

_STRUCTS = (BtfKind.STRUCT, BtfKind.UNION)
_TAGS = {"user": MEM_USER, "percpu": MEM_PERCPU, "rcu": MEM_RCU}
_RCU = frozenset(
    {
        ("task_struct", "cpus_ptr"),
        ("task_struct", "cgroups"),
        ("task_struct", "real_parent"),
        ("task_struct", "group_leader"),
        ("cgroup", "kn"),
        ("css_set", "dfl_cgrp"),
        ("cgroup_subsys_state", "cgroup"),
    }
)
_RCU_OR_NULL = frozenset({("mm_struct", "exe_file"), ("mm_struct", "owner"), ("sk_buff", "sk"), ("request_sock", "sk")})
_TRUSTED = frozenset({("linux_binprm", "file"), ("file", "f_inode")})
_TRUSTED_OR_NULL = frozenset(
    {("socket", "sk"), ("dentry", "d_inode"), ("vm_area_struct", "vm_mm"), ("vm_area_struct", "vm_file")}
)
"""Members that share the trust in their struct. Kernel: kernel/bpf/verifier.c:BTF_TYPE_SAFE_*."""


def btf_name(env: BpfVerifierEnv, type_id: int, own: Any = None) -> str:
    """Name of a kernel type, or of one of the program's BTF."""
    btf = env.attr.kernel_btf if own is None else own
    return btf.type(type_id).name if btf is not None else ""


def btf_struct_ids_match(btf: Any, type_id: int, off: int, wanted: str) -> bool:
    """Whether a struct has one of the kernel's structs at an offset: it is that itself, or begins there with one that is.

    Kernel: kernel/bpf/btf.c:btf_struct_ids_match.
    """
    while btf is not None and btf.type(type_id).kind in _STRUCTS:
        if off == 0 and btf.type(type_id).name == wanted:
            return True
        for member in btf.type(type_id).members:
            start, inner = member.bit_offset // 8, btf.strip(member.type_id)
            if not member.bitfield_size and btf.type(inner).kind in _STRUCTS and start <= off < start + btf.sizeof(inner):
                type_id, off = inner, off - start
                break
        else:
            return False
    return False


def check_ptr_to_btf_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, access: int) -> BpfRegState:
    """Result of a load at `off` (the register's own offset included) through a kernel pointer. Errors: EACCES."""
    if not reg.num:
        # void, of bpf_rdonly_cast: bytes anywhere, checked as they are loaded
        if access:
            env.reject(EACCES, f"R{regno} cannot write into rdonly_untrusted_mem")
        return REG_UNKNOWN
    check_btf_access(env, regno, reg, off, access)
    if reg.map is not None:
        _check_object_access(env, reg, off, size)
        return REG_UNKNOWN
    return _result(env, reg, reg.num, off, size)


def check_helper_btf_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, size: int, access: int) -> None:
    """An area of `size` bytes of a kernel object given to a helper that reads it: within one member. Errors: EACCES."""
    if not reg.num or reg.map is not None:
        env.reject(EACCES, f"R{regno} type={reg_type_str(reg.type)} expected=fp")
    check_btf_access(env, regno, reg, reg.off, access)
    btf_struct_walk(env, env.attr.kernel_btf, reg.num, reg.off, size)


def check_btf_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, access: int) -> None:
    """What any access at `off` through a pointer to a typed object needs. Errors: EACCES."""
    name = btf_name(env, reg.num, reg.map)
    var_off = reg.bounds.var_off
    if off < 0:
        env.reject(EACCES, f"R{regno} is ptr_{name} invalid negative access: off={off}")
    if var_off.mask or var_off.value:
        env.reject(EACCES, f"R{regno} is ptr_{name} invalid variable offset: off={off}, var_off={tnum_strn(var_off)}")
    if reg.type & MEM_USER:
        env.reject(EACCES, f"R{regno} is ptr_{name} access user memory: off={off}")
    if reg.type & MEM_PERCPU:
        env.reject(EACCES, f"R{regno} is ptr_{name} access percpu memory: off={off}")
    alive = reg.ref_obj_id or reg.type & (NON_OWN_REF | MEM_RCU)
    if access and not (reg.type & MEM_ALLOC and alive and not reg.type & PTR_UNTRUSTED):
        env.reject(EACCES, "only read is supported")


def _check_object_access(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int) -> None:
    """A load or store within an object of the program: not of special fields. Errors: EACCES."""
    for field in object_fields(reg.map, reg.num):
        if off < field.offset + field.size and field.offset < off + size:
            env.reject(EACCES, f"direct access to {field.name} is disallowed")
    record = reg.map.type(reg.num)
    if off + size > record.size:
        env.reject(EACCES, f"access beyond struct {record.name} at off {off} size {size}")
    btf_struct_walk(env, reg.map, reg.num, off, size)


def _result(env: BpfVerifierEnv, reg: BpfRegState, type_id: int, off: int, size: int) -> BpfRegState:
    btf = env.attr.kernel_btf
    walked = btf_struct_walk(env, btf, type_id, off, size)
    if not walked.target:
        return REG_UNKNOWN
    flags = _trust(reg, btf.type(type_id).name, walked)
    ident = env.new_id() if flags & PTR_MAYBE_NULL else 0
    return BpfRegState(PTR_TO_BTF_ID | flags, ZERO, id=ident, num=walked.target)


def _trust(reg: BpfRegState, struct: str, walked: Walk) -> int:
    """Flags of a pointer that was loaded through `reg`: what trust in a struct says of its members.

    A program that does not sleep is in an RCU section throughout. Kernel: check_ptr_to_btf_access.
    """
    place, tagged = (struct, walked.member), _TAGS.get(walked.tag, 0)
    if reg.type & PTR_UNTRUSTED:
        return PTR_UNTRUSTED
    if walked.in_union:
        return tagged & ~MEM_RCU | PTR_UNTRUSTED
    if reg.ref_obj_id or reg.type & (PTR_TRUSTED | MEM_RCU):
        if place in _TRUSTED:
            return PTR_TRUSTED
        if place in _TRUSTED_OR_NULL:
            return PTR_TRUSTED | PTR_MAYBE_NULL
        if place in _RCU:
            return MEM_RCU
        if tagged == MEM_RCU or place in _RCU_OR_NULL:
            return MEM_RCU | PTR_MAYBE_NULL
    return tagged & ~MEM_RCU


class Walk(NamedTuple):
    """Where a load led: the struct that the loaded member points to (0: the load gives a number), the member, its type tag, and
    whether the way went through a union of several members, where nothing says that the pointer is the one that is there.
    """

    target: int = 0
    member: str = ""
    tag: str = ""
    in_union: bool = False


_NUMBER = Walk()
_MAX_DEPTH = 64
"""Structs within structs; a program's own BTF may claim anything."""


def _said(name: str) -> str:
    """Kernel: __btf_name_by_offset."""
    return name or "(anon)"


def btf_struct_walk(env: BpfVerifierEnv, btf: Any, type_id: int, off: int, size: int) -> Walk:
    """Follow a load of `size` bytes at `off` of a struct down to the member. Errors: EACCES, EINVAL."""
    in_union = False
    for _ in range(_MAX_DEPTH):
        record = btf.type(btf.strip(type_id))
        in_union |= record.kind == BtfKind.UNION and len(record.members) != 1
        if off + size > record.size:
            start, element = _flexible_array(btf, record)
            kind = btf.type(element).kind
            if start < 0 or off < start or kind not in (*_STRUCTS, BtfKind.INT) or not btf.sizeof(element):
                env.reject(EACCES, f"access beyond struct {_said(record.name)} at off {off} size {size}")
            if kind == BtfKind.INT:
                return _NUMBER
            type_id, off = element, (off - start) % btf.sizeof(element)
            continue
        step = _member_at(env, btf, record, off, size, in_union)
        if isinstance(step, Walk):
            return step
        type_id, off = step
    raise Refusal(EINVAL, f"struct {btf.type(btf.strip(type_id)).name} is nested too deeply")


def _flexible_array(btf: Any, record: Any) -> tuple[int, int]:
    """(offset, type id of the elements) of an array without a length at the end of a struct; (-1, 0): there is none."""
    if not record.members:
        return -1, 0
    last = record.members[-1]
    array = btf.type(btf.strip(last.type_id))
    return (last.bit_offset // 8, btf.strip(array.type)) if array.kind == BtfKind.ARRAY and not array.nelems else (-1, 0)


def _member_at(env: BpfVerifierEnv, btf: Any, record: Any, off: int, size: int, in_union: bool) -> Walk | tuple[int, int]:
    """What is at `[off, off + size)` of a struct: where the load leads, or the struct within, (type id, offset in it)."""
    for member in record.members:
        start = member.bit_offset // 8
        if off + size <= start:
            break
        if member.bitfield_size:
            if off <= start and (member.bit_offset + member.bitfield_size + 7) // 8 <= off + size:
                return _NUMBER
            continue
        if off < start:
            break
        end = start + btf.sizeof(member.type_id)
        if off >= end:
            continue
        type_id = btf.strip(member.type_id)
        while btf.type(type_id).kind == BtfKind.ARRAY:
            type_id = btf.strip(btf.type(type_id).type)
        within = (off - start) % btf.sizeof(type_id)
        inner = btf.type(type_id)
        if inner.kind in _STRUCTS:
            return type_id, within
        if inner.kind == BtfKind.PTR:
            if within or size != btf.sizeof(type_id):
                text = f"cannot access ptr member {_said(member.name)} with moff {off - within} in struct {_said(record.name)}"
                env.reject(EACCES, f"{text} with off {off} size {size}")
            target = btf.strip(inner.type) if inner.type else 0
            if target and btf.type(target).kind in _STRUCTS:
                first = btf.type(inner.type)
                return Walk(target, member.name, first.name if first.kind == BtfKind.TYPE_TAG else "", in_union)
        # an integer, or an array of them, may be read in any way within its end
        if off + size > end and not in_union:
            text = f"access beyond the end of member {_said(member.name)} (mend:{end}) in struct {_said(record.name)}"
            env.reject(EACCES, f"{text} with off {off} size {size}")
        return _NUMBER
    raise Refusal(EINVAL, f"struct {_said(record.name)} doesn't have field at offset {off}")


def check_map_ptr_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, access: int) -> BpfRegState:
    """A load through a map pointer, as through a pointer to the kernel's struct of that map."""
    name = MAP_OPS[reg.map.map_type].struct if reg.map.map_type in MAP_OPS else None
    if name is None:
        env.reject(524, f"map_ptr access not supported for map type {reg.map.map_type}")
    if off < 0:
        env.reject(EACCES, f"R{regno} is {name} invalid negative access: off={off}")
    if access:
        env.reject(EACCES, f"only read from {name} is supported")
    btf = env.attr.kernel_btf
    type_id = btf.find(name, BtfKind.STRUCT) if btf is not None else None
    if type_id is None:
        env.reject(524, "map_ptr access not supported without CONFIG_DEBUG_INFO_BTF")
    return _result(env, reg, type_id, off, size)
