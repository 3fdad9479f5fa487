"""The stack: bounds, spills and fills, data of fixed and of variable offset, areas given to helpers.

What a store does to a dynptr or an iterator is Python's: `DO_SLOTS` asks for it, and the store is made again.
Kernel: kernel/bpf/verifier.c:check_stack_access_within_bounds, check_stack_read, check_stack_write,
check_stack_range_initialized.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, store64, ule
from fastrtp.verifier.core.liveness_native import mark_stack_read, mark_stack_write
from fastrtp.verifier.core.precision_native import mark_deps_precise, mark_reg_precise
from fastrtp.verifier.core.reason import (
    DO_SLOTS,
    OK,
    R_STACK_BOUNDS,
    R_STACK_DYNPTR,
    R_STACK_FILL_SIZE,
    R_STACK_RANGE_SPECIAL,
    R_STACK_SPECIAL,
    R_STACK_SPILL_CALLER,
    R_STACK_SPILL_SIZE,
    R_STACK_UNBOUNDED,
    R_STACK_VAR_HELPER,
    R_STACK_ZERO_SIZE,
)
from fastrtp.verifier.core.state_native import (
    copy_reg,
    frame_of,
    mark_const,
    mark_not_init,
    mark_unknown,
    new_id,
    push_jmp_history,
    reg_of,
    room_for_slot,
    set_slot_types,
    slot_of,
    slot_types,
    top_frame,
)
from fastrtp.verifier.domain.records import VEnv, VFrame, VReg, VSlot
from fastrtp.verifier.domain.regtype import PTR_TO_STACK, SCALAR_VALUE, SPILLABLE_MASK
from fastrtp.verifier.domain.stacktype import STACK_DYNPTR, STACK_INVALID, STACK_ITER, STACK_MISC, STACK_SPILL, STACK_ZERO

READ, WRITE = 0, 1
MAX_BPF_STACK = 512
BPF_MAX_VAR_OFF = 1 << 29
BPF_ADD_CONST64, BPF_ADD_CONST32 = 1 << 31, 1 << 30
"""Set in `id` of a scalar that is the value with the id plus `off`: in 64 bits, or in 32 and zero-extended.

The latter is made only of values that fit in 32 bits, so that it can be undone.
"""
BPF_ADD_CONST = BPF_ADD_CONST64 | BPF_ADD_CONST32
NO_VALUE, IMM_VALUE = -1, -2
"""Instead of a register number: unknown data, and the constant `imm`."""

EVERY = 0x0101010101010101


@device
def say(env: VEnv, reason: int, a: int, b: int, c: int, d: int) -> int:
    """The reason, with its operands left for Python."""
    env.a = a
    env.b = b
    env.c = c
    env.d = d
    return reason


@device
def is_const(reg: VReg) -> int:
    """Whether every bit of the value (of a pointer: of the variable offset) is known."""
    return 1 if reg.mask == 0 else 0


@device
def register_is_null(reg: VReg) -> int:
    """The constant 0."""
    return 1 if reg.type == SCALAR_VALUE and reg.mask == 0 and reg.value == 0 else 0


@device
def fits(reg: VReg, bits: int) -> int:
    """Whether a scalar needs no more than `bits`."""
    return 1 if bits >= 64 or ule(reg.umax, (1 << bits) - 1) else 0


@device
def assign_scalar_id_before_mov(env: VEnv, reg: VReg) -> None:
    """An id, so that the copy about to be made is known to be equal. Constants need none."""
    if reg.type != SCALAR_VALUE:
        return
    if reg.id & BPF_ADD_CONST:
        reg.id = 0
        reg.off = 0
    if reg.id == 0 and not is_const(reg):
        reg.id = new_id(env)


@device
def _is_special(kind: int) -> int:
    return 1 if kind == STACK_DYNPTR or kind == STACK_ITER else 0


@device
def _any_special(frame: VFrame, low: int, high: int) -> int:
    """The first of slots `low..high` (numbers) that holds a dynptr or an iterator, or -1."""
    for spi in range(low, min(high + 1, frame.nslots)):
        if _is_special(slot_of(frame, spi).slot_type[7]):
            return spi
    return -1


@device
def kind_at(frame: VFrame, off: int) -> int:
    """Type of the byte at `off` from the frame pointer."""
    at = -off - 1
    return slot_of(frame, at >> 3).slot_type[at & 7] if (at >> 3) < frame.nslots else STACK_INVALID


@device
def _target(env: VEnv, reg: VReg) -> VFrame:
    """The frame that a stack pointer points into."""
    return frame_of(env.cur, reg.num)


@device
def check_stack_access_within_bounds(env: VEnv, regno: int, reg: VReg, off: int, size: int, access: int) -> int:
    """`[off, off + size)` from a stack pointer lies within the frame's 512 bytes; the frame's depth grows to it."""
    smin = reg.smin
    smax = reg.smax
    if smax >= BPF_MAX_VAR_OFF or smin <= -BPF_MAX_VAR_OFF:  # beyond, sums with `off` and `size` could wrap
        if is_const(reg):
            return say(env, R_STACK_BOUNDS, regno, access, off, size)
        return say(env, R_STACK_UNBOUNDED, regno, access, 0, 0)
    low = smin + off
    if low < -MAX_BPF_STACK or low > -1 or smax + off + size > 0 or size < 0:
        return say(env, R_STACK_BOUNDS, regno, access, off, size)
    depth = int(env.subprog_depth) + 8 * _target(env, reg).subprogno
    if -low > load64(depth):
        store64(depth, -low)
    room_for_slot(_target(env, reg), (-low - 1) >> 3)
    return OK


@device
def scrub(slot: VSlot) -> None:
    """A slot that held a register, or an iterator, holds plain data."""
    if _is_special(slot.slot_type[7]):
        set_slot_types(slot, EVERY * STACK_MISC)
    if slot.slot_type[7] == STACK_SPILL:
        for i in range(8):
            if slot.slot_type[i] != STACK_INVALID:
                slot.slot_type[i] = STACK_MISC
        mark_not_init(slot.reg)


@device
def _mark_bytes(frame: VFrame, low: int, high: int, kind: int) -> None:
    """Bytes `[low, high)` from the frame pointer become data of a kind; spills that they touch do too."""
    for spi in range((-high) >> 3, ((-low - 1) >> 3) + 1):
        slot = room_for_slot(frame, spi)
        scrub(slot)
        mark_not_init(slot.reg)
        for i in range(8):
            off = -8 * spi - 1 - i
            if low <= off and off < high:
                slot.slot_type[i] = kind


@device
def _save_register(env: VEnv, frame: VFrame, spi: int, reg: int, size: int) -> VReg:
    """Kernel: save_register_state. The slot's copy of the register."""
    slot = room_for_slot(frame, spi)
    if size == 8:
        set_slot_types(slot, EVERY * STACK_SPILL)
    else:
        for i in range(8):
            kind = slot.slot_type[i]
            if i >= 8 - size:
                slot.slot_type[i] = STACK_SPILL
            elif kind != STACK_ZERO and kind != STACK_INVALID:
                slot.slot_type[i] = STACK_MISC
    copy_reg(int(slot.reg), reg)
    push_jmp_history(env)
    return slot.reg


@device
def _write_fixed_off(env: VEnv, frame: VFrame, off: int, size: int, value_regno: int, imm: int, scratch: VReg) -> int:
    at = -off - 1
    spi = at >> 3
    if _any_special(frame, spi, spi) >= 0:
        return say(env, DO_SLOTS, frame.frameno, spi, spi, 0)
    running = top_frame(env.cur)
    value = reg_of(running, value_regno) if value_regno >= 0 else VReg(0)
    if (off & 7) == 0:
        if value and value.type == SCALAR_VALUE:
            if fits(value, 8 * size):
                assign_scalar_id_before_mov(env, value)
                _save_register(env, frame, spi, int(value), size)
            else:
                saved = _save_register(env, frame, spi, int(value), size)
                saved.id = 0
                saved.off = 0
            return OK
        if value_regno == IMM_VALUE:
            mark_const(scratch, imm)
            _save_register(env, frame, spi, int(scratch), size)
            return OK
    if value and ((SPILLABLE_MASK >> (value.type & 0xFF)) & 1) != 0:
        if size != 8:
            return say(env, R_STACK_SPILL_SIZE, 0, 0, 0, 0)
        if frame != running and value.type == PTR_TO_STACK:
            return say(env, R_STACK_SPILL_CALLER, 0, 0, 0, 0)
        _save_register(env, frame, spi, int(value), 8).deps = 0
        return OK
    kind = STACK_MISC
    if (value and register_is_null(value)) or (value_regno == IMM_VALUE and imm == 0):
        # the slot's type will say zero whatever later states hold, so the zero must be exact
        if value:
            mark_reg_precise(env, value_regno)
        kind = STACK_ZERO
    _mark_bytes(frame, off, off + size, kind)
    return OK


@device
def _write_var_off(env: VEnv, frame: VFrame, low: int, high: int, value_regno: int, imm: int) -> int:
    """Any byte that may be hit becomes data; zero stays zero where zero is written."""
    first = (-high) >> 3
    last = (-low - 1) >> 3
    if _any_special(frame, first, last) >= 0:
        return say(env, DO_SLOTS, frame.frameno, first, last, 0)
    writing_zero = value_regno == IMM_VALUE and imm == 0
    if value_regno >= 0:
        writing_zero = register_is_null(reg_of(top_frame(env.cur), value_regno)) != 0
    zero_used = False
    for spi in range(first, last + 1):
        slot = room_for_slot(frame, spi)
        scrub(slot)
        mark_not_init(slot.reg)
        for i in range(8):
            off = -8 * spi - 1 - i
            if low <= off and off < high:
                if writing_zero and slot.slot_type[i] == STACK_ZERO:
                    zero_used = True
                else:
                    slot.slot_type[i] = STACK_MISC
    if zero_used and value_regno >= 0:
        mark_reg_precise(env, value_regno)
    return OK


@device
def check_stack_write(env: VEnv, reg: VReg, off: int, size: int, value_regno: int, imm: int, scratch: VReg) -> int:
    """Store a register, the constant `imm` (IMM_VALUE), or unknown data (NO_VALUE)."""
    frame = _target(env, reg)
    low = off + reg.smin
    fixed = is_const(reg) != 0
    mark_stack_write(env, reg.num, 1 << ((-low - 1) >> 3) if fixed and size == 8 and (low & 7) == 0 else 0)
    if fixed:
        return _write_fixed_off(env, frame, low, size, value_regno, imm, scratch)
    return _write_var_off(env, frame, low, off + reg.smax + size, value_regno, imm)


@device
def _mark_reg_stack_read(env: VEnv, frame: VFrame, low: int, high: int, dst: VReg) -> None:
    """All bytes zero: the constant zero; else unknown."""
    for off in range(low, high):
        if kind_at(frame, off) != STACK_ZERO:
            mark_unknown(dst)
            return
    mark_const(dst, 0)


@device
def spilled_bytes(slot: VSlot) -> int:
    """How many bytes of a slot belong to the register that was stored."""
    count = 0
    for i in range(8):
        if slot.slot_type[i] == STACK_SPILL:
            count += 1
    return count


@device
def _read_fixed_off(env: VEnv, frame: VFrame, off: int, size: int, dst_regno: int) -> int:
    at = -off - 1
    spi = at >> 3
    dst = reg_of(top_frame(env.cur), dst_regno) if dst_regno >= 0 else VReg(0)
    kind = slot_of(frame, spi).slot_type[7] if spi < frame.nslots else STACK_INVALID
    if kind != STACK_SPILL:
        if _is_special(kind):
            return say(env, R_STACK_SPECIAL, off, size, 0, 0)
        if dst:
            _mark_reg_stack_read(env, frame, off, off + size, dst)
        return OK
    slot = slot_of(frame, spi)
    reg = slot.reg
    if size == 8 and slot_types(slot) == EVERY * STACK_SPILL:
        if dst:
            copy_reg(int(dst), int(reg))
        push_jmp_history(env)
        return OK
    if reg.type != SCALAR_VALUE:
        return say(env, R_STACK_FILL_SIZE, 0, 0, 0, 0)
    if not dst:
        return OK
    if size <= spilled_bytes(slot) and (off & 7) == 0:
        # the low bytes of what was stored
        copy_reg(int(dst), int(reg))
        push_jmp_history(env)
        if not fits(reg, size * 8):
            dst.id = 0
            dst.off = 0
        return OK
    spilled = 0
    zeros = 0
    for i in range(size):
        kind = slot.slot_type[(at - i) & 7]
        spilled += 1 if kind == STACK_SPILL else 0
        zeros += 1 if kind == STACK_ZERO else 0
    if spilled == size and register_is_null(reg):
        deps = reg.deps
        mark_const(dst, 0)
        dst.deps = deps
        push_jmp_history(env)
    elif zeros == size:
        mark_const(dst, 0)
    else:
        mark_unknown(dst)
    return OK


@device
def check_stack_range_initialized(
    env: VEnv, regno: int, reg: VReg, off: int, size: int, zero_size_allowed: int, access: int, raw_mode: int
) -> int:
    """An area that a helper reads or writes. -1: `raw_mode` applies and the helper's writes are still to be marked.

    A privileged program may pass stack that it never wrote, as in the kernel; a write turns spills into data.
    """
    if size == 0 and not zero_size_allowed:
        return say(env, R_STACK_ZERO_SIZE, 0, 0, 0, 0)
    reason = check_stack_access_within_bounds(env, regno, reg, off, size, access)
    if reason != OK:
        return reason
    low = reg.smin + off
    high = reg.smax + off + size
    raw = raw_mode != 0 and is_const(reg) != 0
    frame = _target(env, reg)
    if _any_special(frame, (-high) >> 3, (-low - 1) >> 3) >= 0:
        for at in range(low, high):
            kind = kind_at(frame, at)
            if raw and kind == STACK_DYNPTR:
                return say(env, R_STACK_DYNPTR, at, 0, 0, 0)
            if not raw and _is_special(kind):
                return say(env, R_STACK_RANGE_SPECIAL, regno, low, at - low, size)
    if raw:
        return -1
    mark_stack_read(env, reg.num, low, high)
    if access == WRITE and high > low:
        _mark_bytes(frame, low, high, STACK_MISC)
    return OK


@device
def check_stack_read(env: VEnv, regno: int, reg: VReg, off: int, size: int, dst_regno: int) -> int:
    """Load from the stack into a register (-1: only check, for a helper)."""
    frame = _target(env, reg)
    low = reg.smin + off
    if is_const(reg):
        mark_stack_read(env, reg.num, low, low + size)
        return _read_fixed_off(env, frame, low, size, dst_regno)
    if dst_regno < 0:
        return say(env, R_STACK_VAR_HELPER, regno, off, size, 0)
    reason = check_stack_range_initialized(env, regno, reg, off, size, 0, READ, 0)
    if reason != OK:
        return reason
    high = reg.smax + off + size
    _mark_reg_stack_read(env, frame, low, high, reg_of(top_frame(env.cur), dst_regno))
    return OK


@device
def mark_stack_written(env: VEnv, reg: VReg, size: int) -> None:
    """A helper filled `size` bytes at the fixed offset in a register: they are data now."""
    low = reg.off + reg.smin
    if size != 0:
        _mark_bytes(_target(env, reg), low, low + size, STACK_MISC)


@device
def constant_map_key(env: VEnv, reg: VReg, key_size: int) -> int:
    """The key, when a stack pointer points at one known number; -1 where not. Kernel: get_constant_map_key."""
    if reg.type != PTR_TO_STACK or not is_const(reg):
        return -1
    off = reg.off + reg.smin
    at = -off - 1
    frame = _target(env, reg)
    if (at >> 3) >= frame.nslots or (at & 7) + 1 < key_size:
        return -1
    slot = slot_of(frame, at >> 3)
    zeros = 0
    for i in range(key_size):
        zeros += 1 if slot.slot_type[(at & 7) - i] == STACK_ZERO else 0
    if zeros == key_size:
        return 0
    spilled = slot.reg
    if (off & 7) != 0 or slot.slot_type[7] != STACK_SPILL or spilled.type != SCALAR_VALUE:
        return -1
    if spilled_bytes(slot) != key_size or not is_const(spilled):
        return -1
    mark_deps_precise(env, spilled.deps)
    value = spilled.umin
    return value & 0xFFFFFFFF if key_size == 4 else value
