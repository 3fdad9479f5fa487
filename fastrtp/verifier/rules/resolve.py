"""Instruction format and map references: what is checked before any path is followed.

`resolve_pseudo_ldimm64` turns file descriptors into indices of `env.used_maps` (left in the instruction's `imm`).
Kernel: kernel/bpf/verifier.c:resolve_pseudo_ldimm64, add_used_map, check_map_prog_compatibility.
"""

from __future__ import annotations

from errno import EINVAL, EPROTO
from typing import Any

import numpy as np

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.isa import (
    BPF_CLASS,
    BPF_LDX,
    BPF_MEM,
    BPF_MEMSX,
    BPF_MODE,
    BPF_PSEUDO_BTF_ID,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    bpf_opcode_in_insntable,
)
from fastrtp.once import once
from fastrtp.uapi import BpfMapType
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import fields_of

LD_IMM64 = 0x18
BPF_MAX_VAR_OFF = 1 << 29
MAX_USED_MAPS = 64


def resolve_pseudo_ldimm64(env: BpfVerifierEnv) -> None:
    """Check the form of loads, opcodes and 64-bit immediates; resolve map references."""
    insns = env.insns
    second_slot = -1
    for i in _to_look_at(env.insn_table).tolist():
        insn = insns[i]
        if i == second_slot:
            continue
        if BPF_CLASS(insn.code) == BPF_LDX and (BPF_MODE(insn.code) not in (BPF_MEM, BPF_MEMSX) or insn.imm):
            env.reject(EINVAL, "BPF_LDX uses reserved fields")
        if insn.code == LD_IMM64:
            if i + 1 >= env.insn_cnt:
                env.reject(EINVAL, "invalid bpf_ld_imm64 insn")
            second = insns[i + 1]
            if second.code or second.dst_reg or second.src_reg or second.off:
                env.reject(EINVAL, "invalid bpf_ld_imm64 insn")
            if insn.src_reg not in (0, BPF_PSEUDO_BTF_ID, BPF_PSEUDO_FUNC):
                _resolve_map(env, i)
            second_slot = i + 1
            continue
        if not bpf_opcode_in_insntable(insn.code):
            env.reject(EINVAL, f"unknown opcode {insn.code:02x}")


@once
def _known_opcodes() -> Any:
    return np.array([bpf_opcode_in_insntable(code) and code != LD_IMM64 for code in range(256)])


def _to_look_at(table: Any) -> Any:
    """Numbers of the instructions that are no plain ones: 64-bit immediates, loads with odd fields, unknown opcodes."""
    code = table["code"]
    mode = code & 0xE0
    odd_load = (code & 7 == BPF_LDX) & (((mode != BPF_MEM) & (mode != BPF_MEMSX)) | (table["imm"] != 0))
    return np.flatnonzero(odd_load | ~_known_opcodes()[code])


def _resolve_map(env: BpfVerifierEnv, i: int) -> None:
    insn, second = env.insns[i], env.insns[i + 1]
    kind = insn.src_reg
    if kind in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_IDX):
        if second.imm:
            env.reject(EINVAL, "unrecognized bpf_ld_imm64 insn")
    elif kind not in (BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE):
        env.reject(EINVAL, "unrecognized bpf_ld_imm64 insn")
    fd = insn.imm
    if kind in (BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE):
        if not env.attr.fd_array:
            env.reject(EPROTO, "fd_idx without fd_array is invalid")
        if not 0 <= fd < len(env.attr.fd_array):
            env.reject(EINVAL, f"fd_idx {fd} is outside fd_array of {len(env.attr.fd_array)}")
        fd = env.attr.fd_array[fd]
    index = add_used_map(env, fd)
    if kind in (BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE):
        used = env.used_maps[index]
        off = second.imm & 0xFFFFFFFF
        if off >= BPF_MAX_VAR_OFF:
            env.reject(EINVAL, f"direct value offset of {off} is not allowed")
        if used.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY:
            env.reject(EINVAL, "no direct value access support for this map type")
        if used.max_entries != 1 or off >= used.value_size:
            errno = EINVAL if used.max_entries == 1 else ENOTSUPP  # kernel/bpf/arraymap.c:array_map_direct_value_addr
            env.reject(errno, f"invalid access to map value pointer, value_size={used.value_size} off={off}")
    env.insns[i] = insn._replace(imm=index)


def add_used_map(env: BpfVerifierEnv, fd: int) -> int:
    """Index of the map of `fd` in `env.used_maps`, added if new."""
    try:
        found = env.attr.fd_to_map(fd)
    except BpfError as error:
        env.reject(error.errno or EINVAL, f"fd {fd} is not pointing to valid bpf_map")
    for index, used in enumerate(env.used_maps):
        if used is found:
            return index
    if len(env.used_maps) >= MAX_USED_MAPS:
        env.reject(7, f"The total number of maps per program has reached the limit of {MAX_USED_MAPS}")
    _check_map_prog_compatibility(env, found)
    env.used_maps.append(found)
    return len(env.used_maps) - 1


def _check_map_prog_compatibility(env: BpfVerifierEnv, found: object) -> None:
    if getattr(found, "map_type", 0) == BpfMapType.BPF_MAP_TYPE_STRUCT_OPS:
        env.reject(EINVAL, "bpf_struct_ops map cannot be used in prog")
    if env.is_tracing:
        return
    # raw tracepoints run anywhere, under a lock of the same map too; tp_btf programs are not counted among them
    names = {field.name for field in fields_of(env, found)}
    if names & {"bpf_list_head", "bpf_rb_root"}:
        env.reject(EINVAL, "tracing progs cannot use bpf_{list_head,rb_root} yet")
    if names & {"bpf_spin_lock", "bpf_res_spin_lock"}:
        env.reject(EINVAL, "tracing progs cannot use bpf_spin_lock yet")
    if "bpf_timer" in names:
        env.reject(EINVAL, "tracing progs cannot use bpf_timer yet")
    if "bpf_wq" in names:
        env.reject(EINVAL, "tracing progs cannot use bpf_wq yet")
