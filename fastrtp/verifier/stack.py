"""The stack: bounds, spills and fills, data of fixed and of variable offset, areas given to helpers.

Kernel: kernel/bpf/verifier.c:check_stack_access_within_bounds, check_stack_read, check_stack_write,
check_stack_range_initialized.
"""

from __future__ import annotations

from errno import EACCES, EFAULT, EINVAL

from fastrtp.uapi import MAX_BPF_STACK
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.precision import mark_chain_precision, mark_reg_precise
from fastrtp.verifier.regtype import PTR_TO_STACK, SCALAR_VALUE, is_spillable_regtype
from fastrtp.verifier.resolve import BPF_MAX_VAR_OFF
from fastrtp.verifier.slots import SPECIAL, destroy_if_dynptr, first_special, refuse_dynptr_bytes
from fastrtp.verifier.state import (
    ALL_MISC,
    ALL_SPILL,
    BPF_ADD_CONST,
    REG_UNKNOWN,
    REG_ZERO,
    SLOT_INVALID,
    SLOT_MISC,
    STACK_INVALID,
    STACK_MISC,
    STACK_SPILL,
    STACK_ZERO,
    BpfFuncState,
    BpfRegState,
    BpfStackState,
    const_scalar,
    is_spilled_reg,
    register_is_null,
)
from fastrtp.verifier.tnum import U32, tnum_strn

READ, WRITE = 0, 1


def func(env: BpfVerifierEnv, reg: BpfRegState) -> BpfFuncState:
    """The frame that a stack pointer points into."""
    return env.cur_state.frames[reg.num]


def get_reg_width(reg: BpfRegState) -> int:
    """Bits that a scalar may need."""
    return reg.bounds.umax_value.bit_length()


def assign_scalar_id_before_mov(env: BpfVerifierEnv, reg: BpfRegState) -> BpfRegState:
    """`reg` with an id, so that the copy about to be made is known to be equal. Constants need none."""
    if reg.type != SCALAR_VALUE or not reg.bounds.var_off.mask:
        return reg
    if reg.id & BPF_ADD_CONST:
        return reg.with_id(env.new_id(), 0)
    return reg if reg.id else reg.with_id(env.new_id())


def check_stack_access_within_bounds(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, access: int) -> None:
    """`[off, off + size)` from a stack pointer lies within the frame's 512 bytes; the frame's depth grows to it."""
    b = reg.bounds
    extra = " write to" if access == WRITE else " read from"
    if not b.var_off.mask:
        min_off = b.smin_value + off
        max_off = min_off + size
    else:
        if b.smax_value >= BPF_MAX_VAR_OFF or b.smin_value <= -BPF_MAX_VAR_OFF:
            env.reject(EACCES, f"invalid unbounded variable-offset{extra} stack R{regno}")
        min_off = b.smin_value + off
        max_off = b.smax_value + off + size
    errno = 0
    if min_off < -MAX_BPF_STACK or min_off > -1:
        errno = EACCES
    elif max_off > 0:
        errno = EINVAL
    elif size < 0:
        errno = EFAULT
    if errno:
        if not b.var_off.mask:
            env.reject(errno, f"invalid{extra} stack R{regno} off={min_off} size={size}")
        env.reject(errno, f"invalid variable-offset{extra} stack R{regno} var_off={tnum_strn(b.var_off)} off={off} size={size}")
    subprog = env.subprogs[func(env, reg).subprogno]
    if -min_off > subprog.stack_depth:
        subprog.stack_depth = -min_off


def _set_slot(frame: BpfFuncState, spi: int, slot: BpfStackState, deps: int = 0) -> None:
    frame.stack[spi] = slot
    frame.stack_deps[spi] = deps


def _unmark_iter(frame: BpfFuncState, spi: int) -> None:
    """A store into an iterator leaves bytes without a meaning, and a reference that nothing can release."""
    slot = frame.stack.get(spi, SLOT_INVALID)
    if slot.slot_type[7] in SPECIAL:
        frame.stack[spi] = SLOT_MISC


def _scrubbed(slot_type: bytes) -> bytearray:
    """Bytes of a spilled register turned into plain data."""
    return bytearray(STACK_MISC if kind != STACK_INVALID else STACK_INVALID for kind in slot_type)


def check_stack_write(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, value_regno: int, imm: int | None
) -> None:
    """Store a register, the constant `imm`, or (neither) unknown data."""
    if reg.bounds.var_off.mask:
        _write_var_off(env, reg, off, size, value_regno, imm)
    else:
        _write_fixed_off(env, reg, off + reg.bounds.smin_value, size, value_regno, imm)


def _write_fixed_off(env: BpfVerifierEnv, ptr: BpfRegState, off: int, size: int, value_regno: int, imm: int | None) -> None:
    frame = func(env, ptr)
    start = -off - 1
    spi = start // 8
    if spi in frame.stack and frame.stack[spi].slot_type[7] in SPECIAL:
        destroy_if_dynptr(env, frame, spi)
        _unmark_iter(frame, spi)
    value = env.regs[value_regno] if value_regno >= 0 else None
    if not off % 8:
        if value is not None and value.type == SCALAR_VALUE:
            if get_reg_width(value) <= 8 * size:
                value = assign_scalar_id_before_mov(env, value)
                env.regs[value_regno] = value
                stored = value
            else:
                stored = value.with_id(0, 0)
            _save_register(frame, spi, stored, size, env.frame.deps[value_regno])
            return
        if value is None and imm is not None:
            _save_register(frame, spi, const_scalar(imm), size, 0)
            return
    if value is not None and is_spillable_regtype(value.type):
        if size != 8:
            env.reject(EACCES, "invalid size of register spill")
        if frame is not env.frame and value.type == PTR_TO_STACK:
            env.reject(EINVAL, "cannot spill pointers to stack into stack frame of the caller")
        _set_slot(frame, spi, BpfStackState(ALL_SPILL, value))
        return
    kind = STACK_MISC
    if (value is not None and register_is_null(value)) or (value is None and imm == 0):
        # the slot's type will say zero whatever later states hold, so the zero must be exact
        if value is not None:
            mark_reg_precise(env, value_regno)
        kind = STACK_ZERO
    slot = frame.stack.get(spi, SLOT_INVALID)
    if size == 8 and kind == STACK_MISC:
        _set_slot(frame, spi, SLOT_MISC)
        return
    types = _scrubbed(slot.slot_type) if is_spilled_reg(slot) else bytearray(slot.slot_type)
    for i in range(size):
        types[(start - i) % 8] = kind
    _set_slot(frame, spi, BpfStackState(bytes(types)))


def _save_register(frame: BpfFuncState, spi: int, reg: BpfRegState, size: int, deps: int) -> None:
    """Kernel: save_register_state."""
    if size == 8:
        _set_slot(frame, spi, BpfStackState(ALL_SPILL, reg), deps)
        return
    old = frame.stack.get(spi, SLOT_INVALID).slot_type
    types = bytearray(kind if kind in (STACK_ZERO, STACK_INVALID) else STACK_MISC for kind in old)
    for i in range(8 - size, 8):
        types[i] = STACK_SPILL
    _set_slot(frame, spi, BpfStackState(bytes(types), reg), deps)


def _write_var_off(env: BpfVerifierEnv, ptr: BpfRegState, off: int, size: int, value_regno: int, imm: int | None) -> None:
    """Any byte that may be hit becomes data; zero stays zero where zero is written."""
    frame = func(env, ptr)
    low, high = ptr.bounds.smin_value + off, ptr.bounds.smax_value + off + size
    value = env.regs[value_regno] if value_regno >= 0 else None
    writing_zero = (value is not None and register_is_null(value)) or (value is None and imm == 0)
    zero_used = False
    for spi in range((-high) // 8, (-low - 1) // 8 + 1):
        destroy_if_dynptr(env, frame, spi)
        _unmark_iter(frame, spi)
        slot = frame.stack.get(spi, SLOT_INVALID)
        types = _scrubbed(slot.slot_type) if is_spilled_reg(slot) else bytearray(slot.slot_type)
        for i in range(8):
            if not low <= -8 * spi - 1 - i < high:
                continue
            if writing_zero and types[i] == STACK_ZERO:
                zero_used = True
            else:
                types[i] = STACK_MISC
        _set_slot(frame, spi, BpfStackState(bytes(types)))
    if zero_used and value_regno >= 0:
        mark_reg_precise(env, value_regno)


def check_stack_read(env: BpfVerifierEnv, regno: int, reg: BpfRegState, off: int, size: int, dst_regno: int) -> None:
    """Load from the stack into a register (-1: only check, for a helper)."""
    if not reg.bounds.var_off.mask:
        _read_fixed_off(env, reg, off + reg.bounds.smin_value, size, dst_regno)
        return
    if dst_regno < 0:
        env.reject(
            EACCES,
            "variable offset stack pointer cannot be passed into helper function; "
            f"var_off={tnum_strn(reg.bounds.var_off)} off={off} size={size}",
        )
    check_stack_range_initialized(env, regno, reg, off, size, False, READ)
    low, high = reg.bounds.smin_value + off, reg.bounds.smax_value + off + size
    _mark_reg_stack_read(env, func(env, reg), low, high, dst_regno)


def _mark_reg_stack_read(env: BpfVerifierEnv, frame: BpfFuncState, low: int, high: int, dst_regno: int) -> None:
    """All bytes zero: the constant zero; else unknown."""
    zero = all(frame.stack.get((-i - 1) // 8, SLOT_INVALID).slot_type[(-i - 1) % 8] == STACK_ZERO for i in range(low, high))
    env.regs[dst_regno] = REG_ZERO if zero else REG_UNKNOWN
    env.frame.deps[dst_regno] = 0


def _read_fixed_off(env: BpfVerifierEnv, ptr: BpfRegState, off: int, size: int, dst_regno: int) -> None:
    frame = func(env, ptr)
    start = -off - 1
    spi = start // 8
    slot = frame.stack.get(spi, SLOT_INVALID)
    if not is_spilled_reg(slot):
        if slot.slot_type[7] in SPECIAL:
            env.reject(EACCES, f"invalid read from stack off {off}+0 size {size}")
        if dst_regno >= 0:
            _mark_reg_stack_read(env, frame, off, off + size, dst_regno)
        return
    reg = slot.spilled_ptr
    if size == 8 and slot.slot_type == ALL_SPILL:
        if dst_regno >= 0:
            env.regs[dst_regno] = reg
            env.frame.deps[dst_regno] = frame.slot_deps(spi)
        return
    if reg.type != SCALAR_VALUE:
        env.reject(EACCES, "invalid size of register fill")
    if dst_regno < 0:
        return
    spill_size = slot.slot_type.count(STACK_SPILL)
    deps = 0
    if size <= spill_size and off % 8 == 0:
        # the low bytes of what was stored
        result = reg if get_reg_width(reg) <= size * 8 else reg.with_id(0, 0)
        deps = frame.slot_deps(spi)
    else:
        kinds = [slot.slot_type[(start - i) % 8] for i in range(size)]
        if all(kind == STACK_SPILL for kind in kinds) and register_is_null(reg):
            result, deps = REG_ZERO, frame.slot_deps(spi)
        elif all(kind == STACK_ZERO for kind in kinds):
            result = REG_ZERO
        else:
            result = REG_UNKNOWN
    env.regs[dst_regno] = result
    env.frame.deps[dst_regno] = deps


def check_stack_range_initialized(
    env: BpfVerifierEnv,
    regno: int,
    reg: BpfRegState,
    off: int,
    size: int,
    zero_size_allowed: bool,
    access: int,
    raw_mode: bool = False,
) -> bool:
    """An area that a helper reads or writes. True: `raw_mode` applies and the helper's writes are still to be marked.

    A privileged program may pass stack that it never wrote, as in the kernel; a write turns spills into data.
    """
    if size == 0 and not zero_size_allowed:
        env.reject(EACCES, "invalid zero-sized read")
    check_stack_access_within_bounds(env, regno, reg, off, size, access)
    b = reg.bounds
    if b.var_off.mask:
        raw_mode = False
    low, high = b.smin_value + off, b.smax_value + off + size
    frame = func(env, reg)
    if raw_mode:
        refuse_dynptr_bytes(env, frame, low, high)
        return True
    special = first_special(frame, low, high)
    if special is not None:
        where = f"var_off {tnum_strn(b.var_off)}" if b.var_off.mask else f"off {low}"
        env.reject(EACCES, f"invalid read from stack R{regno} {where}+{special - low} size {size}")
    if access == WRITE:
        for spi in range((-high) // 8, (-low - 1) // 8 + 1) if high > low else ():
            slot = frame.stack.get(spi, SLOT_INVALID)
            types = _scrubbed(slot.slot_type) if is_spilled_reg(slot) else bytearray(slot.slot_type)
            for i in range(8):
                if low <= -8 * spi - 1 - i < high:
                    types[i] = STACK_MISC
            _set_slot(frame, spi, BpfStackState(bytes(types)))
    return False


def mark_stack_written(env: BpfVerifierEnv, reg: BpfRegState, size: int) -> None:
    """A helper filled `size` bytes at a fixed offset: they are data now."""
    check_bounds_off = reg.off + reg.bounds.smin_value
    frame = func(env, reg)
    low, high = check_bounds_off, check_bounds_off + size
    for spi in range((-high) // 8, (-low - 1) // 8 + 1) if size else ():
        _unmark_iter(frame, spi)
        slot = frame.stack.get(spi, SLOT_INVALID)
        types = _scrubbed(slot.slot_type) if is_spilled_reg(slot) else bytearray(slot.slot_type)
        for i in range(8):
            if low <= -8 * spi - 1 - i < high:
                types[i] = STACK_MISC
        _set_slot(frame, spi, SLOT_MISC if bytes(types) == ALL_MISC else BpfStackState(bytes(types)))


def constant_map_key(env: BpfVerifierEnv, reg: BpfRegState, key_size: int) -> int | None:
    """The key that a stack pointer points at, when it is one known number. Kernel: get_constant_map_key."""
    if reg.type != PTR_TO_STACK or reg.bounds.var_off.mask:
        return None
    off = reg.off + reg.bounds.smin_value
    frame = func(env, reg)
    start = -off - 1
    spi = start // 8
    slot = frame.stack.get(spi, SLOT_INVALID)
    kinds = [slot.slot_type[i] for i in range(start % 8, -1, -1)]
    if len(kinds) < key_size:
        return None
    if all(kind == STACK_ZERO for kind in kinds[:key_size]):
        return 0
    spilled = slot.spilled_ptr
    if off % 8 or not is_spilled_reg(slot) or spilled.type != SCALAR_VALUE or slot.slot_type.count(STACK_SPILL) != key_size:
        return None
    if spilled.bounds.var_off.mask:
        return None
    mark_chain_precision(env.cur_state.parent, frame.slot_deps(spi))
    return spilled.bounds.umin_value & (U32 if key_size == 4 else (1 << 64) - 1)
