"""Loads, stores and areas given to helpers, by the type of the pointer.

Kernel: kernel/bpf/verifier.c:check_mem_access, check_mem_region_access, check_map_access, check_ptr_alignment,
check_helper_mem_access, check_mem_size_reg, check_atomic.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any

from fastrtp.isa import BPF_ATOMIC, BPF_CMPXCHG, BPF_FETCH, BPF_LOAD_ACQ, BPF_MODE, BPF_SIZE, BPF_STORE_REL, BPF_XCHG, Insn
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType
from fastrtp.verifier.bounds import S64_MIN, coerce_to_size, coerce_to_size_sx
from fastrtp.verifier.btf_access import check_map_ptr_access, check_ptr_to_btf_access
from fastrtp.verifier.ctx import check_ctx_access
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.fields import check_map_fields
from fastrtp.verifier.precision import mark_reg_precise
from fastrtp.verifier.regtype import (
    CONST_PTR_TO_MAP,
    MEM_RDONLY,
    NOT_INIT,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_CTX,
    PTR_TO_FLOW_KEYS,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_PACKET,
    PTR_TO_STACK,
    PTR_TO_TP_BUFFER,
    PTR_UNTRUSTED,
    SCALAR_VALUE,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.resolve import BPF_MAX_VAR_OFF
from fastrtp.verifier.stack import (
    READ,
    WRITE,
    check_stack_access_within_bounds,
    check_stack_range_initialized,
    check_stack_read,
    check_stack_write,
)
from fastrtp.verifier.state import BPF_REG_FP, REG_UNKNOWN, BpfRegState, const_scalar, register_is_null, scalar
from fastrtp.verifier.tnum import tnum_add, tnum_const, tnum_is_aligned, tnum_strn

BPF_MAX_VAR_SIZ = 1 << 29
SIZE_BYTES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_ALIGN_DESC = {PTR_TO_MAP_KEY: "key ", PTR_TO_MAP_VALUE: "value ", PTR_TO_CTX: "context ", PTR_TO_STACK: "stack "}
_ACCESS_NAME = {
    PTR_TO_CTX: "ctx",
    PTR_TO_STACK: "stack",
    PTR_TO_MAP_VALUE: "map_value",
    PTR_TO_MAP_KEY: "mem",
    PTR_TO_MEM: "mem",
    PTR_TO_TP_BUFFER: "tp_buffer",
    PTR_TO_BTF_ID: "btf",
    CONST_PTR_TO_MAP: "btf",
}
_NO_MISMATCH = frozenset({PTR_TO_CTX, PTR_TO_BTF_ID, CONST_PTR_TO_MAP})


def check_ptr_off_reg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, fixed_off_ok: bool = False) -> None:
    """A pointer that must be as it was given (or, `fixed_off_ok`, plus a known non-negative offset)."""
    name = reg_type_str(reg.type)
    if reg.off < 0:
        env.reject(EACCES, f"negative offset {name} ptr R{regno} off={reg.off} disallowed")
    if not fixed_off_ok and reg.off:
        env.reject(EACCES, f"dereference of modified {name} ptr R{regno} off={reg.off} disallowed")
    var_off = reg.bounds.var_off
    if var_off.mask or var_off.value:
        env.reject(EACCES, f"variable {name} access var_off={tnum_strn(var_off)} disallowed")


def check_ptr_alignment(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int, strict: bool) -> None:
    """The stack is always accessed aligned; other memory only where asked for."""
    base = base_type(reg.type)
    if base == PTR_TO_STACK:
        strict = True
    if not strict or size == 1:
        return
    var_off = reg.bounds.var_off
    if not var_off.mask and not (var_off.value + reg.off + off) % size:
        return
    if not tnum_is_aligned(tnum_add(var_off, tnum_const(reg.off + off)), size):
        env.reject(EACCES, f"misaligned {_ALIGN_DESC.get(base, '')}access off {tnum_strn(var_off)}+{reg.off}+{off} size {size}")


def _check_mem_range(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, mem_size: int, zero_ok: bool
) -> bool:
    """`[off, off + size)` within `mem_size`; says what is wrong where it is not. Kernel: __check_mem_access."""
    if off >= 0 and (size > 0 or (size == 0 and zero_ok)) and off + size <= mem_size:
        return True
    base = base_type(reg.type)
    if base == PTR_TO_MAP_KEY:
        env.log.line(f"invalid access to map key, key_size={mem_size} off={off} size={size}")
    elif base == PTR_TO_MAP_VALUE:
        env.log.line(f"invalid access to map value, value_size={mem_size} off={off} size={size}")
    else:
        env.log.line(f"invalid access to memory, mem_size={mem_size} off={off} size={size}")
    return False


def check_mem_region_access(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, mem_size: int, zero_ok: bool
) -> None:
    """Every offset that the pointer's variable part allows lies within `mem_size` bytes."""
    b = reg.bounds
    if b.smin_value < 0 and (b.smin_value == S64_MIN or not -(1 << 31) <= off + b.smin_value < 1 << 31 or b.smin_value + off < 0):
        env.reject(EACCES, f"R{regno} min value is negative, either use unsigned index or do a if (index >=0) check.")
    if not _check_mem_range(env, regno, reg, b.smin_value + off, size, mem_size, zero_ok):
        env.reject(EACCES, f"R{regno} min value is outside of the allowed memory range")
    if b.umax_value >= BPF_MAX_VAR_OFF:
        env.reject(EACCES, f"R{regno} unbounded memory access, make sure to bounds check any such access")
    if not _check_mem_range(env, regno, reg, b.umax_value + off, size, mem_size, zero_ok):
        env.reject(EACCES, f"R{regno} max value is outside of the allowed memory range")


def check_map_access_type(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int, access: int) -> None:
    """Maps made with BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG."""
    flags = reg.map.map_flags
    if access == WRITE and flags & BPF_F_RDONLY_PROG:
        env.reject(EACCES, f"write into map forbidden, value_size={reg.map.value_size} off={off} size={size}")
    if access == READ and flags & BPF_F_WRONLY_PROG:
        env.reject(EACCES, f"read from map forbidden, value_size={reg.map.value_size} off={off} size={size}")


def check_map_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, zero_ok: bool, direct: bool) -> None:
    """Within the value, and not on a field that only helpers may touch."""
    check_mem_region_access(env, regno, reg, off, size, reg.map.value_size, zero_ok)
    check_map_fields(env, reg, off, size, direct)


def _set_loaded(env: BpfVerifierEnv, regno: int, reg: BpfRegState) -> None:
    env.regs[regno] = reg
    env.frame.deps[regno] = 0


def _read_const_map_value(reg: BpfRegState, off: int, size: int, is_ldsx: bool) -> BpfRegState:
    """A load from a frozen read-only array has one result. Kernel: bpf_map_direct_read."""
    found: Any = reg.map
    if (
        reg.bounds.var_off.mask
        or found.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY
        or not found.map_flags & BPF_F_RDONLY_PROG
        or not found.frozen
        or found.max_entries != 1
    ):
        return REG_UNKNOWN
    data = found.read_value(off + reg.bounds.smin_value, size)
    return const_scalar(int.from_bytes(data, "little", signed=is_ldsx)) if len(data) == size else REG_UNKNOWN


def check_mem_access(
    env: BpfVerifierEnv,
    regno: int,
    off: int,
    size: int,
    access: int,
    value_regno: int,
    strict_alignment_once: bool = False,
    is_ldsx: bool = False,
    imm: int | None = None,
) -> None:
    """A load or store of `size` bytes at `regno + off`; the loaded value goes to `value_regno` (-1: nowhere).

    Errors: EACCES for memory that is not the program's, EINVAL for stack beyond the frame.
    """
    reg = env.regs[regno]
    check_ptr_alignment(env, reg, off, size, strict_alignment_once or env.strict_alignment)
    off += reg.off
    kind = reg.type
    base = kind & 0xFF
    if kind == PTR_TO_STACK:
        check_stack_access_within_bounds(env, regno, reg, off, size, access)
        if access == READ:
            check_stack_read(env, regno, reg, off, size, value_regno)
        else:
            check_stack_write(env, regno, reg, off, size, value_regno, imm)
    elif kind == PTR_TO_MAP_VALUE:
        check_map_access_type(env, reg, off, size, access)
        check_map_access(env, regno, reg, off, size, False, True)
        if access == READ and value_regno >= 0:
            _set_loaded(env, value_regno, _read_const_map_value(reg, off, size, is_ldsx))
    elif kind == PTR_TO_CTX:
        check_ptr_off_reg(env, regno, reg)
        loaded = check_ctx_access(env, off, size, access)
        if access == READ and value_regno >= 0:
            _set_loaded(env, value_regno, loaded)
    elif kind == PTR_TO_MAP_KEY:
        if access == WRITE:
            env.reject(EACCES, f"write to change key R{regno} not allowed")
        check_mem_region_access(env, regno, reg, off, size, reg.map.key_size, False)
        if value_regno >= 0:
            _set_loaded(env, value_regno, REG_UNKNOWN)
    elif base == PTR_TO_MEM:
        if kind & PTR_MAYBE_NULL:
            env.reject(EACCES, f"R{regno} invalid mem access '{reg_type_str(kind)}'")
        if access == WRITE and kind & MEM_RDONLY:
            env.reject(EACCES, f"R{regno} cannot write into {reg_type_str(kind)}")
        if not kind & PTR_UNTRUSTED:  # such loads are range-checked when they run
            check_mem_region_access(env, regno, reg, off, size, reg.num, False)
        if access == READ and value_regno >= 0:
            _set_loaded(env, value_regno, REG_UNKNOWN)
    elif kind == PTR_TO_TP_BUFFER:
        _check_tp_buffer_access(env, regno, reg, off, size)
        if access == READ and value_regno >= 0:
            _set_loaded(env, value_regno, REG_UNKNOWN)
    elif base == PTR_TO_BTF_ID and not kind & PTR_MAYBE_NULL:
        loaded = check_ptr_to_btf_access(env, regno, reg, off, size, access)
        if access == READ and value_regno >= 0:
            _set_loaded(env, value_regno, loaded)
    elif kind == CONST_PTR_TO_MAP:
        loaded = check_map_ptr_access(env, regno, reg, off, size, access)
        if value_regno >= 0:
            _set_loaded(env, value_regno, loaded)
    else:
        env.reject(EACCES, f"R{regno} invalid mem access '{reg_type_str(kind)}'")
    if size < 8 and access == READ and value_regno >= 0:
        result = env.regs[value_regno]
        if result.type == SCALAR_VALUE:
            b = coerce_to_size_sx(result.bounds, size) if is_ldsx else coerce_to_size(result.bounds, size)
            if b is not result.bounds:
                env.regs[value_regno] = scalar(b)
    _note_access(env, kind)


def _note_access(env: BpfVerifierEnv, kind: int) -> None:
    """For the code generator: what kind of memory the instruction touches on any path."""
    aux = env.aux[env.insn_idx]
    name = "btf" if kind & PTR_UNTRUSTED else _ACCESS_NAME[kind & 0xFF]
    if aux.access != name:
        aux.access = name if aux.access is None else "mem"


def _by_itself(kind: int) -> bool:
    """Whether the code generator treats loads through such a pointer unlike all others."""
    return base_type(kind) in _NO_MISMATCH or bool(kind & PTR_UNTRUSTED)


def save_aux_ptr_type(env: BpfVerifierEnv, kind: int) -> None:
    """An instruction that the code generator treats specially must see one kind of pointer only."""
    aux = env.aux[env.insn_idx]
    if aux.ptr_type == NOT_INIT:
        aux.ptr_type = kind
    elif aux.ptr_type != kind and (_by_itself(kind) or _by_itself(aux.ptr_type)):
        if base_type(kind) == base_type(aux.ptr_type) == PTR_TO_BTF_ID:
            return
        env.reject(EINVAL, "same insn cannot be used with different pointers")


def _check_tp_buffer_access(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int) -> None:
    """The size is known at attach only: remember the highest end."""
    if off < 0:
        env.reject(EACCES, f"R{regno} invalid tracepoint buffer access: off={off}, size={size}")
    var_off = reg.bounds.var_off
    if var_off.mask or var_off.value:
        env.reject(EACCES, f"R{regno} invalid variable buffer offset: off={off}, var_off={tnum_strn(var_off)}")
    env.max_tp_access = max(env.max_tp_access, off + size)


def check_helper_mem_access(
    env: BpfVerifierEnv, regno: int, size: int, access: int, zero_ok: bool, raw_mode: bool = False
) -> bool:
    """An area of `size` bytes given to a helper. True: stack that the helper will fill (raw mode)."""
    reg = env.regs[regno]
    base = base_type(reg.type)
    if base == PTR_TO_STACK and reg.type == PTR_TO_STACK:
        return check_stack_range_initialized(env, regno, reg, reg.off, size, zero_ok, access, raw_mode)
    if reg.type == PTR_TO_MAP_VALUE:
        check_map_access_type(env, reg, reg.off, size, access)
        check_map_access(env, regno, reg, reg.off, size, zero_ok, False)
    elif reg.type == PTR_TO_MAP_KEY:
        if access == WRITE:
            env.reject(EACCES, f"R{regno} cannot write into {reg_type_str(reg.type)}")
        check_mem_region_access(env, regno, reg, reg.off, size, reg.map.key_size, False)
    elif base == PTR_TO_MEM and not reg.type & PTR_MAYBE_NULL:
        if access == WRITE and reg.type & MEM_RDONLY:
            env.reject(EACCES, f"R{regno} cannot write into {reg_type_str(reg.type)}")
        check_mem_region_access(env, regno, reg, reg.off, size, reg.num, zero_ok)
    elif base == PTR_TO_BTF_ID and not reg.type & PTR_MAYBE_NULL:
        env.reject(EACCES, f"R{regno} type={reg_type_str(reg.type)} expected=fp")
    elif zero_ok and size == 0 and register_is_null(reg):
        pass
    else:
        env.reject(EACCES, f"R{regno} type={reg_type_str(reg.type)} expected=fp")
    return False


def check_mem_size_reg(env: BpfVerifierEnv, regno: int, access: int, zero_ok: bool, raw_mode: bool) -> bool:
    """The size in `regno` of the area in the register before it, whatever value it has. Kernel: check_mem_size_reg."""
    reg = env.regs[regno]
    b = reg.bounds
    if b.var_off.mask:
        raw_mode = False
    if b.smin_value < 0:
        env.reject(EACCES, f"R{regno} min value is negative, either use unsigned or 'var &= const'")
    if b.umin_value == 0 and not zero_ok:
        env.reject(EACCES, f"R{regno} invalid zero-sized read: u64=[{b.umin_value},{b.umax_value}]")
    if b.umax_value >= BPF_MAX_VAR_SIZ:
        env.reject(EACCES, f"R{regno} unbounded memory access, use 'var &= const' or 'if (var < const)'")
    filled = check_helper_mem_access(env, regno - 1, b.umax_value, access, zero_ok, raw_mode)
    mark_reg_precise(env, regno)
    return filled


_ATOMIC_RMW = frozenset({0x00, 0x40, 0x50, 0xA0, 0x01, 0x41, 0x51, 0xA1, BPF_XCHG, BPF_CMPXCHG})


def check_reg_read(env: BpfVerifierEnv, regno: int) -> BpfRegState:
    """A register used as a source. Errors: EINVAL no such register, EACCES never written."""
    if regno > BPF_REG_FP:
        env.reject(EINVAL, f"R{regno} is invalid")
    reg = env.regs[regno]
    if reg.type == NOT_INIT:
        env.reject(EACCES, f"R{regno} !read_ok")
    return reg


def check_reg_write(env: BpfVerifierEnv, regno: int) -> None:
    """A register that is about to be written."""
    if regno >= BPF_REG_FP:
        if regno > BPF_REG_FP:
            env.reject(EINVAL, f"R{regno} is invalid")
        env.reject(EACCES, "frame pointer is read only")


def check_atomic(env: BpfVerifierEnv, insn: Insn) -> None:
    """Atomic operations: read and write of one place, and the register that gets the old value."""
    assert BPF_MODE(insn.code) == BPF_ATOMIC
    size = SIZE_BYTES[BPF_SIZE(insn.code)]
    if insn.imm == BPF_LOAD_ACQ:
        source = check_reg_read(env, insn.src_reg)
        check_reg_write(env, insn.dst_reg)
        _check_atomic_pointer(env, insn.src_reg, source, "loads from")
        check_mem_access(env, insn.src_reg, insn.off, size, READ, insn.dst_reg, True)
        save_aux_ptr_type(env, source.type)
        return
    if insn.imm == BPF_STORE_REL:
        check_reg_read(env, insn.src_reg)
        target = check_reg_read(env, insn.dst_reg)
        _check_atomic_pointer(env, insn.dst_reg, target, "stores into")
        check_mem_access(env, insn.dst_reg, insn.off, size, WRITE, insn.src_reg, True)
        save_aux_ptr_type(env, target.type)
        return
    if insn.imm not in _ATOMIC_RMW:
        env.reject(EINVAL, f"BPF_ATOMIC uses invalid atomic opcode {insn.imm & 0xFFFFFFFF:02x}")
    if size < 4:
        env.reject(EINVAL, "invalid atomic operand size")
    check_reg_read(env, insn.src_reg)
    target = check_reg_read(env, insn.dst_reg)
    if insn.imm == BPF_CMPXCHG:
        check_reg_read(env, 0)
    _check_atomic_pointer(env, insn.dst_reg, target, "stores into")
    load_reg = -1
    if insn.imm & BPF_FETCH:
        load_reg = 0 if insn.imm == BPF_CMPXCHG else insn.src_reg
        check_reg_write(env, load_reg)
    check_mem_access(env, insn.dst_reg, insn.off, size, READ, -1, True)
    if load_reg >= 0:
        # where the old value replaces the pointer itself, the write below has no pointer left and is refused
        check_mem_access(env, insn.dst_reg, insn.off, size, READ, load_reg, True)
    check_mem_access(env, insn.dst_reg, insn.off, size, WRITE, -1, True)
    save_aux_ptr_type(env, target.type)


def _check_atomic_pointer(env: BpfVerifierEnv, regno: int, reg: BpfRegState, verb: str) -> None:
    if base_type(reg.type) in (PTR_TO_CTX, PTR_TO_PACKET, PTR_TO_FLOW_KEYS):
        env.reject(EACCES, f"BPF_ATOMIC {verb} R{regno} {reg_type_str(reg.type)} is not allowed")
