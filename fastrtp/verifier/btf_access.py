"""Walks through kernel objects: loads by a pointer whose C type is known.

A load never faults: the code generator checks the address and gives 0 outside the objects, so what matters here is
the type of the result. Kernel: kernel/bpf/verifier.c:check_ptr_to_btf_access, check_ptr_to_map_access;
kernel/bpf/btf.c:btf_struct_access.
"""

from __future__ import annotations

from errno import EACCES
from typing import Any, NamedTuple

from fastrtp.btf import BtfKind
from fastrtp.uapi import BpfMapType
from fastrtp.verifier.bounds import ZERO
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import special_fields
from fastrtp.verifier.regtype import (
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_USER,
    NON_OWN_REF,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
)
from fastrtp.verifier.state import REG_UNKNOWN, BpfRegState
from fastrtp.verifier.tnum import tnum_strn

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
_MAP_STRUCT = {
    BpfMapType.BPF_MAP_TYPE_ARRAY: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_PROG_ARRAY: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY: "bpf_array",
    BpfMapType.BPF_MAP_TYPE_HASH: "bpf_htab",
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH: "bpf_htab",
    BpfMapType.BPF_MAP_TYPE_LRU_HASH: "bpf_htab",
    BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH: "bpf_htab",
    BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS: "bpf_htab",
    BpfMapType.BPF_MAP_TYPE_RINGBUF: "bpf_ringbuf_map",
    BpfMapType.BPF_MAP_TYPE_STACK_TRACE: "bpf_stack_map",
}


def btf_name(env: BpfVerifierEnv, type_id: int, own: Any = None) -> str:
    """Name of a kernel type, or of one of the program's BTF."""
    btf = env.attr.kernel_btf if own is None else own
    return btf.type(type_id).name if btf is not None else ""


def check_ptr_to_btf_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, access: int) -> BpfRegState:
    """Result of a load at `off` (the register's own offset included) through a kernel pointer. Errors: EACCES."""
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
    if reg.map is not None:
        _check_object_access(env, reg, off, size)
        return REG_UNKNOWN
    return _result(env, reg, reg.num, off, size)


def _check_object_access(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int) -> None:
    """A load or store within an object of the program: not of special fields. Errors: EACCES."""
    for field in special_fields(reg.map, reg.num):
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
    """Where a load led: the struct that the loaded member points to (0: the load gives a number), the member, its type tag."""

    target: int = 0
    member: str = ""
    tag: str = ""


_NUMBER = Walk()


def btf_struct_walk(env: BpfVerifierEnv, btf: Any, type_id: int, off: int, size: int) -> Walk:
    """Follow a load of `size` bytes at `off` of a struct down to the member. Errors: EACCES."""
    name = ""
    for _ in range(32):
        record = btf.type(btf.strip(type_id))
        if record.kind == BtfKind.ARRAY:
            element = btf.sizeof(record.type) if record.nelems or record.type else 0
            if not element:
                return _NUMBER
            if off % element + size > element and btf.type(btf.strip(record.type)).kind in _STRUCTS:
                env.reject(EACCES, f"access beyond struct {record.name} at off {off} size {size}")
            type_id, off = record.type, off % element
            if btf.type(btf.strip(type_id)).kind not in (*_STRUCTS, BtfKind.ARRAY, BtfKind.PTR):
                return _NUMBER
            continue
        if record.kind == BtfKind.PTR:
            if off or size != 8:
                env.reject(EACCES, f"cannot access ptr member with moff 0 in struct with off {off} size {size}")
            target = btf.strip(record.type) if record.type else 0
            if not target or btf.type(target).kind not in _STRUCTS:
                return _NUMBER
            first = btf.type(record.type)
            return Walk(target, name, first.name if first.kind == BtfKind.TYPE_TAG else "")
        if record.kind not in _STRUCTS:
            return _NUMBER
        if off + size > record.size:
            last = record.members[-1] if record.members else None
            flexible = (
                last is not None
                and btf.type(btf.strip(last.type_id)).kind == BtfKind.ARRAY
                and btf.type(btf.strip(last.type_id)).nelems == 0
                and last.bit_offset // 8 <= off
            )
            if not flexible or last is None:
                env.reject(EACCES, f"access beyond struct {record.name} at off {off} size {size}")
            array = btf.type(btf.strip(last.type_id))
            type_id, off = array.type, (off - last.bit_offset // 8) % max(1, btf.sizeof(array.type))
            continue
        if record.kind == BtfKind.UNION and len(record.members) > 1 and size != 8:
            return _NUMBER
        inside = _member_at(env, btf, record, off, size)
        if inside is None:
            return _NUMBER
        type_id, off, name = inside
    return _NUMBER


def _member_at(env: BpfVerifierEnv, btf: Any, record: Any, off: int, size: int) -> tuple[int, int, str] | None:
    """The member that holds `[off, off + size)`: its type, the offset within it, its name; None: a number whatever it is."""
    for member in record.members:
        start = member.bit_offset // 8
        if member.bitfield_size:
            if start <= off < start + (member.bitfield_size + 7) // 8 or off <= start < off + size:
                return None
            continue
        length = btf.sizeof(member.type_id)
        if start >= off + size or not length:
            continue
        if off < start + length and off >= start:
            kind = btf.type(btf.strip(member.type_id)).kind
            if off + size > start + length:
                if kind in (*_STRUCTS, BtfKind.PTR, BtfKind.ARRAY):
                    env.reject(
                        EACCES,
                        f"access beyond the end of member {member.name} (mend:{start + length}) in struct "
                        f"{record.name} with off {off} size {size}",
                    )
                return None
            if kind == BtfKind.PTR and (off != start or size != 8):
                env.reject(
                    EACCES,
                    f"cannot access ptr member {member.name} with moff {start} in struct {record.name} "
                    f"with off {off} size {size}",
                )
            return member.type_id, off - start, member.name
    # padding between members
    return None


def check_map_ptr_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, access: int) -> BpfRegState:
    """A load through a map pointer, as through a pointer to the kernel's struct of that map."""
    name = _MAP_STRUCT.get(reg.map.map_type)
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
