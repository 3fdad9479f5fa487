"""Loads, stores and areas given to helpers, by the type of the pointer: stack, map values and keys, memory of known size.

Accesses that depend on C types, the context, special fields of map values and constants of frozen maps are Python's:
`DO_ACCESS` asks for them.
Kernel: kernel/bpf/verifier.c:check_mem_access, check_mem_region_access, check_map_access_type, check_ptr_alignment,
check_ptr_off_reg, check_helper_mem_access, check_atomic.
"""

from __future__ import annotations

from fastrtp.isa import BPF_CMPXCHG, BPF_FETCH, BPF_LOAD_ACQ, BPF_STORE_REL, BPF_XCHG
from fastrtp.native.intrinsics import device, native, ule
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG
from fastrtp.verifier.core.liveness_native import mark_stack_write
from fastrtp.verifier.core.reason import (
    DO_ACCESS,
    OK,
    R_ATOMIC_OPCODE,
    R_ATOMIC_POINTER,
    R_ATOMIC_SIZE,
    R_CANNOT_WRITE,
    R_EXPECTED_FP,
    R_FP_READ_ONLY,
    R_INVALID_MEM,
    R_KEY_WRITE,
    R_MAP_READ,
    R_MAP_WRITE,
    R_MAX_OUTSIDE,
    R_MIN_NEGATIVE,
    R_MIN_OUTSIDE,
    R_MISALIGNED,
    R_NO_REG,
    R_NOT_READ_OK,
    R_OFF_FIXED,
    R_OFF_NEGATIVE,
    R_OFF_VARIABLE,
    R_PTR_MISMATCH,
    R_READ_ONLY_MEM,
    R_TP_OFF,
    R_TP_VAR_OFF,
    R_UNBOUNDED,
)
from fastrtp.verifier.core.stack_native import (
    BPF_MAX_VAR_OFF,
    NO_VALUE,
    READ,
    WRITE,
    check_stack_access_within_bounds,
    check_stack_range_initialized,
    check_stack_read,
    check_stack_write,
    is_const,
    register_is_null,
    say,
)
from fastrtp.verifier.core.state_native import (
    mark_unknown,
    reg_of,
    top_frame,
)
from fastrtp.verifier.domain.bounds_native import (
    S32_MAX,
    S32_MIN,
    coerce_to_size,
    coerce_to_size_sx,
)
from fastrtp.verifier.domain.records import (
    ACCESS_MIXED,
    MAX_BPF_REG,
    OBJECT_CONST,
    OBJECT_FIELDS,
    VEnv,
    VInsn,
    VObject,
    VReg,
)
from fastrtp.verifier.domain.regtype import (
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
)
from fastrtp.verifier.domain.tnum_native import tnum_add

BPF_REG_FP = MAX_BPF_REG - 1
FAR = 1 << 33
"""Beyond any offset; what is nearer can be added to one."""
INSN_SIZE = VInsn.layout.size


@device
def insn_at(env: VEnv) -> VInsn:
    """The record of the instruction under way."""
    return env.insns[env.insn_idx]


@device
def object_of(env: VEnv, reg: VReg) -> VObject:
    """The record of the map that a register names."""
    return env.objects[reg.map]


@device
def current_reg(env: VEnv, regno: int) -> VReg:
    """A register of the frame that runs."""
    return reg_of(top_frame(env.cur), regno)


@device
def check_reg_read(env: VEnv, regno: int) -> int:
    """A register used as a source."""
    if regno >= MAX_BPF_REG:
        return say(env, R_NO_REG, regno, 0, 0, 0)
    if current_reg(env, regno).type == NOT_INIT:
        return say(env, R_NOT_READ_OK, regno, 0, 0, 0)
    return OK


@device
def check_reg_write(env: VEnv, regno: int) -> int:
    """A register that is about to be written."""
    if regno < BPF_REG_FP:
        return OK
    return say(env, R_NO_REG if regno > BPF_REG_FP else R_FP_READ_ONLY, regno, 0, 0, 0)


@device
def check_ptr_alignment(env: VEnv, regno: int, reg: VReg, off: int, size: int, strict: int) -> int:
    """The stack is always accessed aligned; other memory only where asked for."""
    if size == 1 or (not strict and (reg.type & 0xFF) != PTR_TO_STACK):
        return OK
    v, m = tnum_add(reg.value, reg.mask, reg.off + off, 0)
    if ((v | m) & (size - 1)) != 0:
        return say(env, R_MISALIGNED, regno, off, size, 0)
    return OK


@device
def _in_range(off: int, size: int, mem_size: int, zero_ok: int) -> int:
    """`[off, off + size)` within `mem_size`. Kernel: __check_mem_access."""
    return 1 if off >= 0 and (size > 0 or (size == 0 and zero_ok != 0)) and off + size <= mem_size else 0


@device
def check_mem_region_access(env: VEnv, regno: int, reg: VReg, off: int, size: int, mem_size: int, zero_ok: int) -> int:
    """Every offset that the pointer's variable part allows lies within `mem_size` bytes."""
    smin = reg.smin
    umax = reg.umax
    if smin < 0 and (smin < -FAR or off + smin < S32_MIN or off + smin > S32_MAX or smin + off < 0):
        return say(env, R_MIN_NEGATIVE, regno, 0, 0, 0)
    if smin > BPF_MAX_VAR_OFF or not _in_range(smin + off, size, mem_size, zero_ok):
        return say(env, R_MIN_OUTSIDE, regno, smin + off, size, mem_size)
    if not ule(umax, BPF_MAX_VAR_OFF - 1):
        return say(env, R_UNBOUNDED, regno, 0, 0, 0)
    if not _in_range(umax + off, size, mem_size, zero_ok):
        return say(env, R_MAX_OUTSIDE, regno, umax + off, size, mem_size)
    return OK


@device
def check_map_access_type(env: VEnv, regno: int, map: VObject, off: int, size: int, access: int) -> int:
    """Maps made with BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG."""
    flags = map.map_flags
    if access == WRITE and (flags & BPF_F_RDONLY_PROG) != 0:
        return say(env, R_MAP_WRITE, regno, off, size, 0)
    if access == READ and (flags & BPF_F_WRONLY_PROG) != 0:
        return say(env, R_MAP_READ, regno, off, size, 0)
    return OK


@device
def _note_access(env: VEnv, kind: int) -> None:
    """For the code generator: what kind of memory the instruction touches on any path."""
    insn = insn_at(env)
    base = PTR_TO_BTF_ID if kind & PTR_UNTRUSTED else kind & 0xFF
    known = insn.access
    if known == 0:
        insn.access = base
    elif known != base:
        insn.access = ACCESS_MIXED


@device
def finish_load(env: VEnv, regno: int, size: int, is_ldsx: int) -> None:
    """What is loaded in fewer than eight bytes has no more of them."""
    dst = current_reg(env, regno)
    if size < 8 and dst.type == SCALAR_VALUE:
        umax = dst.umax
        smin = dst.smin
        if is_ldsx:
            coerce_to_size_sx(dst, size)
        else:
            coerce_to_size(dst, size)
        if dst.umax != umax or dst.smin != smin:
            # another value than what was stored: no longer linked to it
            dst.id = 0
            dst.off = 0


@device
def check_mem_access(
    env: VEnv, regno: int, off: int, size: int, access: int, value_regno: int, imm: int, strict: int, is_ldsx: int
) -> int:
    """A load or store of `size` bytes at `regno + off`; a load's value goes to `value_regno` (-1: nowhere).

    A store's is that register, IMM_VALUE or NO_VALUE. DO_ACCESS: Python knows the result.
    """
    reg = current_reg(env, regno)
    kind = reg.type
    reason = check_ptr_alignment(env, regno, reg, off, size, strict | env.strict_alignment)
    if reason != OK:
        return reason
    off += reg.off
    base = kind & 0xFF
    if access == WRITE and kind != PTR_TO_STACK:
        mark_stack_write(env, -1, 0)
    if kind == PTR_TO_STACK:
        reason = check_stack_access_within_bounds(env, regno, reg, off, size, access)
        if reason == OK and access == READ:
            reason = check_stack_read(env, regno, reg, off, size, value_regno)
        elif reason == OK:
            reason = check_stack_write(env, reg, off, size, value_regno, imm, env.scratch[0])
        if reason == OK and access == READ and value_regno >= 0:
            finish_load(env, value_regno, size, is_ldsx)
    elif kind == PTR_TO_MAP_VALUE:
        map = object_of(env, reg)
        reason = check_map_access_type(env, regno, map, off, size, access)
        if reason == OK:
            reason = check_mem_region_access(env, regno, reg, off, size, map.value_size, 0)
        if reason == OK and (map.kind & OBJECT_FIELDS) != 0:
            return say(env, DO_ACCESS, regno, 0, 0, 0)
        if reason == OK and access == READ and (map.kind & OBJECT_CONST) != 0 and is_const(reg):
            return say(env, DO_ACCESS, regno, 0, 0, 0)
    elif kind == PTR_TO_MAP_KEY:
        if access == WRITE:
            return say(env, R_KEY_WRITE, regno, 0, 0, 0)
        reason = check_mem_region_access(env, regno, reg, off, size, object_of(env, reg).key_size, 0)
    elif base == PTR_TO_MEM:
        if (kind & PTR_MAYBE_NULL) != 0:
            return say(env, R_INVALID_MEM, regno, 0, 0, 0)
        if access == WRITE and (kind & MEM_RDONLY) != 0:
            return say(env, R_READ_ONLY_MEM, regno, 0, 0, 0)
        if (kind & PTR_UNTRUSTED) == 0:  # such loads are range-checked when they run
            reason = check_mem_region_access(env, regno, reg, off, size, reg.num, 0)
    elif kind == PTR_TO_TP_BUFFER:
        # the size is known at attach only: the highest end is remembered
        if off < 0:
            return say(env, R_TP_OFF, regno, off, size, 0)
        if not is_const(reg) or reg.value != 0:
            return say(env, R_TP_VAR_OFF, regno, off, 0, 0)
        env.max_tp_access = max(env.max_tp_access, off + size)
    elif kind == PTR_TO_CTX or kind == CONST_PTR_TO_MAP or (base == PTR_TO_BTF_ID and (kind & PTR_MAYBE_NULL) == 0):
        return say(env, DO_ACCESS, regno, 0, 0, 0)
    else:
        return say(env, R_INVALID_MEM, regno, 0, 0, 0)
    if reason != OK:
        return reason
    _note_access(env, kind)
    if access == READ and value_regno >= 0 and kind != PTR_TO_STACK:
        mark_unknown(current_reg(env, value_regno))
        finish_load(env, value_regno, size, is_ldsx)
    return OK


@device
def _by_itself(kind: int) -> int:
    """Whether the code generator treats loads through such a pointer unlike all others."""
    base = kind & 0xFF
    return 1 if base == PTR_TO_CTX or base == PTR_TO_BTF_ID or base == CONST_PTR_TO_MAP or kind & PTR_UNTRUSTED else 0


@device
def save_aux_ptr_type(env: VEnv, kind: int) -> int:
    """An instruction that the code generator treats specially must see one kind of pointer only."""
    insn = insn_at(env)
    known = insn.ptr_type
    if known == NOT_INIT:
        insn.ptr_type = kind
    elif known != kind:
        if (kind & 0xFF) == PTR_TO_BTF_ID and (known & 0xFF) == PTR_TO_BTF_ID:
            return OK
        if _by_itself(kind) or _by_itself(known):
            return say(env, R_PTR_MISMATCH, 0, 0, 0, 0)
    return OK


@device
def _check_atomic_pointer(env: VEnv, regno: int, store: int) -> int:
    base = current_reg(env, regno).type & 0xFF
    if base == PTR_TO_CTX or base == PTR_TO_PACKET or base == PTR_TO_FLOW_KEYS:
        return say(env, R_ATOMIC_POINTER, regno, store, 0, 0)
    return OK


@device
def _is_atomic_rmw(imm: int) -> int:
    op = imm & ~BPF_FETCH
    return 1 if op == 0x00 or op == 0x40 or op == 0x50 or op == 0xA0 or imm == BPF_XCHG or imm == BPF_CMPXCHG else 0


@device
def check_atomic(env: VEnv, dst_reg: int, src_reg: int, off: int, imm: int, size: int) -> int:
    """Atomic operations: read and write of one place, and the register that gets the old value."""
    if imm == BPF_LOAD_ACQ:
        reason = check_reg_read(env, src_reg)
        if reason == OK:
            reason = check_reg_write(env, dst_reg)
        if reason == OK:
            reason = _check_atomic_pointer(env, src_reg, 0)
        if reason != OK:
            return reason
        kind = current_reg(env, src_reg).type
        reason = check_mem_access(env, src_reg, off, size, READ, dst_reg, 0, 1, 0)
        return save_aux_ptr_type(env, kind) if reason == OK else reason
    if imm != BPF_STORE_REL:
        if not _is_atomic_rmw(imm):
            return say(env, R_ATOMIC_OPCODE, imm, 0, 0, 0)
        if size < 4:
            return say(env, R_ATOMIC_SIZE, 0, 0, 0, 0)
    reason = check_reg_read(env, src_reg)
    if reason == OK:
        reason = check_reg_read(env, dst_reg)
    if reason == OK and imm == BPF_CMPXCHG:
        reason = check_reg_read(env, 0)
    if reason == OK:
        reason = _check_atomic_pointer(env, dst_reg, 1)
    if reason != OK:
        return reason
    kind = current_reg(env, dst_reg).type
    if imm == BPF_STORE_REL:
        reason = check_mem_access(env, dst_reg, off, size, WRITE, src_reg, 0, 1, 0)
        return save_aux_ptr_type(env, kind) if reason == OK else reason
    load_reg = -1
    if imm & BPF_FETCH:
        load_reg = 0 if imm == BPF_CMPXCHG else src_reg
        reason = check_reg_write(env, load_reg)
        if reason == OK:
            # where the old value replaces the pointer itself there is no pointer left, and the access is refused
            mark_unknown(current_reg(env, load_reg))
    if reason == OK:
        reason = check_mem_access(env, dst_reg, off, size, READ, -1, 0, 1, 0)
    if reason == OK and load_reg >= 0:
        reason = check_mem_access(env, dst_reg, off, size, READ, load_reg, 0, 1, 0)
    if reason == OK:
        reason = check_mem_access(env, dst_reg, off, size, WRITE, NO_VALUE, 0, 1, 0)
    return save_aux_ptr_type(env, kind) if reason == OK else reason


@native()
def verifier_mem_access(
    venv: VEnv, regno: int, off: int, size: int, access: int, value_regno: int, imm: int, strict: int, is_ldsx: int
) -> int:
    """`check_mem_access` for Python."""
    return check_mem_access(venv, regno, off, size, access, value_regno, imm, strict, is_ldsx)


@native()
def verifier_mem_region(venv: VEnv, regno: int, off: int, size: int, mem_size: int, zero_ok: int) -> int:
    """`check_mem_region_access` for Python."""
    return check_mem_region_access(venv, regno, current_reg(venv, regno), off, size, mem_size, zero_ok)


@native()
def verifier_note_access(venv: VEnv, kind: int) -> int:
    """An access that Python checked."""
    _note_access(venv, kind)
    return 0


@native()
def verifier_save_ptr_type(venv: VEnv, kind: int) -> int:
    """`save_aux_ptr_type` for Python."""
    return save_aux_ptr_type(venv, kind)


@native()
def verifier_finish_load(venv: VEnv, regno: int, size: int, is_ldsx: int) -> int:
    """A load that Python checked gave a register its value."""
    finish_load(venv, regno, size, is_ldsx)
    return 0


@native()
def verifier_alignment(venv: VEnv, regno: int, off: int, size: int) -> int:
    """`check_ptr_alignment`, strict, for Python."""
    return check_ptr_alignment(venv, regno, current_reg(venv, regno), off, size, 1)


@device
def check_helper_mem_access(env: VEnv, regno: int, size: int, access: int, zero_ok: int, raw_mode: int) -> int:
    """An area of `size` bytes given to a helper. -1: stack that the helper will fill; DO_ACCESS: a value with special
    fields, or a kernel object.
    """
    reg = current_reg(env, regno)
    kind = reg.type
    off = reg.off
    if kind == PTR_TO_STACK:
        return check_stack_range_initialized(env, regno, reg, off, size, zero_ok, access, raw_mode)
    if kind == PTR_TO_MAP_VALUE:
        map = object_of(env, reg)
        reason = check_map_access_type(env, regno, map, off, size, access)
        if reason == OK:
            reason = check_mem_region_access(env, regno, reg, off, size, map.value_size, zero_ok)
        if reason == OK and (map.kind & OBJECT_FIELDS) != 0:
            return say(env, DO_ACCESS, regno, size, access, 0)
        return reason
    if (kind & 0xFF) == PTR_TO_BTF_ID:
        return say(env, DO_ACCESS, regno, size, access, 0)
    if kind == PTR_TO_MAP_KEY:
        if access == WRITE:
            return say(env, R_CANNOT_WRITE, regno, 0, 0, 0)
        return check_mem_region_access(env, regno, reg, off, size, object_of(env, reg).key_size, 0)
    if (kind & 0xFF) == PTR_TO_MEM and (kind & PTR_MAYBE_NULL) == 0:
        if access == WRITE and (kind & MEM_RDONLY) != 0:
            return say(env, R_CANNOT_WRITE, regno, 0, 0, 0)
        return check_mem_region_access(env, regno, reg, off, size, reg.num, zero_ok)
    if zero_ok and size == 0 and register_is_null(reg):
        return OK
    return say(env, R_EXPECTED_FP, regno, 0, 0, 0)


@native()
def verifier_helper_mem(venv: VEnv, regno: int, size: int, access: int, zero_ok: int, raw_mode: int) -> int:
    """`check_helper_mem_access` for Python."""
    return check_helper_mem_access(venv, regno, size, access, zero_ok, raw_mode)


@device
def check_ptr_off_reg(env: VEnv, regno: int, reg: VReg, fixed_off_ok: int) -> int:
    """A pointer that must be as it was given (or, `fixed_off_ok`, plus a known non-negative offset)."""
    if reg.off < 0:
        return say(env, R_OFF_NEGATIVE, regno, 0, 0, 0)
    if not fixed_off_ok and reg.off != 0:
        return say(env, R_OFF_FIXED, regno, 0, 0, 0)
    if not is_const(reg) or reg.value != 0:
        return say(env, R_OFF_VARIABLE, regno, 0, 0, 0)
    return OK


@native()
def verifier_ptr_off_reg(venv: VEnv, regno: int, fixed_off_ok: int) -> int:
    """`check_ptr_off_reg` for Python."""
    return check_ptr_off_reg(venv, regno, current_reg(venv, regno), fixed_off_ok)
