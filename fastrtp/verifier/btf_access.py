"""Walks through kernel objects: loads by a pointer whose C type is known.

A load never faults: the code generator checks the address and gives 0 outside the objects, so what matters here is
the type of the result. Kernel: kernel/bpf/verifier.c:check_ptr_to_btf_access, check_ptr_to_map_access;
kernel/bpf/btf.c:btf_struct_access.
"""

from __future__ import annotations

from errno import EACCES
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.uapi import BpfMapType
from fastrtp.verifier.bounds import ZERO
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import special_fields
from fastrtp.verifier.regtype import MEM_ALLOC, MEM_PERCPU, MEM_RCU, MEM_USER, NON_OWN_REF, PTR_TO_BTF_ID, PTR_UNTRUSTED
from fastrtp.verifier.state import REG_UNKNOWN, BpfRegState
from fastrtp.verifier.tnum import tnum_strn

_STRUCTS = (BtfKind.STRUCT, BtfKind.UNION)
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
    return _result(env, reg.num, off, size, reg.type & PTR_UNTRUSTED)


def _check_object_access(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int) -> None:
    """A load or store within an object of the program: not of special fields. Errors: EACCES."""
    for field in special_fields(reg.map, reg.num):
        if off < field.offset + field.size and field.offset < off + size:
            env.reject(EACCES, f"direct access to {field.name} is disallowed")
    record = reg.map.type(reg.num)
    if off + size > record.size:
        env.reject(EACCES, f"access beyond struct {record.name} at off {off} size {size}")
    btf_struct_walk(env, reg.map, reg.num, off, size)


def _result(env: BpfVerifierEnv, type_id: int, off: int, size: int, flags: int) -> BpfRegState:
    target = btf_struct_walk(env, env.attr.kernel_btf, type_id, off, size)
    return REG_UNKNOWN if not target else BpfRegState(PTR_TO_BTF_ID | flags, ZERO, num=target)


def btf_struct_walk(env: BpfVerifierEnv, btf: Any, type_id: int, off: int, size: int) -> int:
    """The struct that the loaded member points to, 0 where the load gives a number. Errors: EACCES."""
    for _ in range(32):
        record = btf.type(btf.strip(type_id))
        if record.kind == BtfKind.ARRAY:
            element = btf.sizeof(record.type) if record.nelems or record.type else 0
            if not element:
                return 0
            if off % element + size > element and btf.type(btf.strip(record.type)).kind in _STRUCTS:
                env.reject(EACCES, f"access beyond struct {record.name} at off {off} size {size}")
            type_id, off = record.type, off % element
            if btf.type(btf.strip(type_id)).kind not in (*_STRUCTS, BtfKind.ARRAY, BtfKind.PTR):
                return 0
            continue
        if record.kind == BtfKind.PTR:
            if off or size != 8:
                env.reject(EACCES, f"cannot access ptr member with moff 0 in struct with off {off} size {size}")
            target = btf.strip(record.type) if record.type else 0
            return target if target and btf.type(target).kind in _STRUCTS else 0
        if record.kind not in _STRUCTS:
            return 0
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
            return 0
        inside = _member_at(env, btf, record, off, size)
        if inside is None:
            return 0
        type_id, off = inside
    return 0


def _member_at(env: BpfVerifierEnv, btf: Any, record: Any, off: int, size: int) -> tuple[int, int] | None:
    """The member that holds `[off, off + size)` and the offset within it; None: a number whatever it is."""
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
            return member.type_id, off - start
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
    return _result(env, type_id, off, size, 0)
