"""The stack: bounds, spills and fills, data of fixed and of variable offset, areas given to helpers.

What a store does to a dynptr or an iterator is Python's: `DO_SLOTS` asks for it, and the store is made again.
Kernel: kernel/bpf/verifier.c:check_stack_access_within_bounds, check_stack_read, check_stack_write,
check_stack_range_initialized.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load32, load64, store8, store32, store64, ule
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import VENV
from fastrtp.verifier.bounds_native import R_MASK, R_SMAX, R_SMIN, R_UMAX, R_UMIN, R_VALUE
from fastrtp.verifier.liveness_native import mark_stack_read, mark_stack_write
from fastrtp.verifier.precision_native import mark_deps_precise, mark_reg_precise
from fastrtp.verifier.reason import (
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
from fastrtp.verifier.regtype import PTR_TO_STACK, SCALAR_VALUE, SPILLABLE_MASK
from fastrtp.verifier.stacktype import STACK_DYNPTR, STACK_INVALID, STACK_ITER, STACK_MISC, STACK_SPILL, STACK_ZERO
from fastrtp.verifier.state_native import (
    E_CUR,
    F_FRAMENO,
    F_NSLOTS,
    F_SUBPROG,
    R_DEPS,
    R_ID,
    R_NUM,
    R_OFF,
    R_TYPE,
    S_REG,
    copy_reg,
    frame_of,
    mark_const,
    mark_not_init,
    mark_unknown,
    new_id,
    push_jmp_history,
    reg_of,
    reg_off,
    room_for_slot,
    slot_of,
    top_frame,
)

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
E_A, E_B, E_C, E_D = at(VENV, "a"), at(VENV, "b"), at(VENV, "c"), at(VENV, "d")
E_SUBPROG_DEPTH = at(VENV, "subprog_depth")


@device
def say(env: int, reason: int, a: int, b: int, c: int, d: int) -> int:
    """The reason, with its operands left for Python."""
    store64(env + E_A, a)
    store64(env + E_B, b)
    store64(env + E_C, c)
    store64(env + E_D, d)
    return reason


@device
def is_const(reg: int) -> int:
    """Whether every bit of the value (of a pointer: of the variable offset) is known."""
    return 1 if load64(reg + R_MASK) == 0 else 0


@device
def register_is_null(reg: int) -> int:
    """The constant 0."""
    return 1 if load32(reg + R_TYPE) == SCALAR_VALUE and load64(reg + R_MASK) == 0 and load64(reg + R_VALUE) == 0 else 0


@device
def fits(reg: int, bits: int) -> int:
    """Whether a scalar needs no more than `bits`."""
    return 1 if bits >= 64 or ule(load64(reg + R_UMAX), (1 << bits) - 1) else 0


@device
def assign_scalar_id_before_mov(env: int, reg: int) -> None:
    """An id, so that the copy about to be made is known to be equal. Constants need none."""
    if load32(reg + R_TYPE) != SCALAR_VALUE:
        return
    if load32(reg + R_ID) & BPF_ADD_CONST:
        store32(reg + R_ID, 0)
        store32(reg + R_OFF, 0)
    if load32(reg + R_ID) == 0 and not is_const(reg):
        store32(reg + R_ID, new_id(env))


@device
def _is_special(kind: int) -> int:
    return 1 if kind == STACK_DYNPTR or kind == STACK_ITER else 0


@device
def _any_special(frame: int, low: int, high: int) -> int:
    """The first of slots `low..high` (numbers) that holds a dynptr or an iterator, or -1."""
    for spi in range(low, min(high + 1, load64(frame + F_NSLOTS))):
        if _is_special(load8(slot_of(frame, spi) + 7)):
            return spi
    return -1


@device
def kind_at(frame: int, off: int) -> int:
    """Type of the byte at `off` from the frame pointer."""
    at = -off - 1
    return load8(slot_of(frame, at >> 3) + (at & 7)) if (at >> 3) < load64(frame + F_NSLOTS) else STACK_INVALID


@device
def _target(env: int, reg: int) -> int:
    """The frame that a stack pointer points into."""
    return frame_of(load64(env + E_CUR), load64(reg + R_NUM))


@device
def check_stack_access_within_bounds(env: int, regno: int, reg: int, off: int, size: int, access: int) -> int:
    """`[off, off + size)` from a stack pointer lies within the frame's 512 bytes; the frame's depth grows to it."""
    smin = load64(reg + R_SMIN)
    smax = load64(reg + R_SMAX)
    if smax >= BPF_MAX_VAR_OFF or smin <= -BPF_MAX_VAR_OFF:  # beyond, sums with `off` and `size` could wrap
        if is_const(reg):
            return say(env, R_STACK_BOUNDS, regno, access, off, size)
        return say(env, R_STACK_UNBOUNDED, regno, access, 0, 0)
    low = smin + off
    if low < -MAX_BPF_STACK or low > -1 or smax + off + size > 0 or size < 0:
        return say(env, R_STACK_BOUNDS, regno, access, off, size)
    depth = load64(env + E_SUBPROG_DEPTH) + 8 * load64(_target(env, reg) + F_SUBPROG)
    if -low > load64(depth):
        store64(depth, -low)
    room_for_slot(_target(env, reg), (-low - 1) >> 3)
    return OK


@device
def scrub(slot: int) -> None:
    """A slot that held a register, or an iterator, holds plain data."""
    if _is_special(load8(slot + 7)):
        store64(slot, EVERY * STACK_MISC)
    if load8(slot + 7) == STACK_SPILL:
        for i in range(8):
            if load8(slot + i) != STACK_INVALID:
                store8(slot + i, STACK_MISC)
        mark_not_init(slot + S_REG)


@device
def _mark_bytes(frame: int, low: int, high: int, kind: int) -> None:
    """Bytes `[low, high)` from the frame pointer become data of a kind; spills that they touch do too."""
    for spi in range((-high) >> 3, ((-low - 1) >> 3) + 1):
        slot = room_for_slot(frame, spi)
        scrub(slot)
        mark_not_init(slot + S_REG)
        for i in range(8):
            off = -8 * spi - 1 - i
            if low <= off and off < high:
                store8(slot + i, kind)


@device
def _save_register(env: int, frame: int, spi: int, reg: int, size: int) -> int:
    """Kernel: save_register_state. The slot's copy of the register."""
    slot = room_for_slot(frame, spi)
    if size == 8:
        store64(slot, EVERY * STACK_SPILL)
    else:
        for i in range(8):
            kind = load8(slot + i)
            if i >= 8 - size:
                store8(slot + i, STACK_SPILL)
            elif kind != STACK_ZERO and kind != STACK_INVALID:
                store8(slot + i, STACK_MISC)
    copy_reg(slot + S_REG, reg)
    push_jmp_history(env)
    return slot + S_REG


@device
def _write_fixed_off(env: int, frame: int, off: int, size: int, value_regno: int, imm: int, scratch: int) -> int:
    at = -off - 1
    spi = at >> 3
    if _any_special(frame, spi, spi) >= 0:
        return say(env, DO_SLOTS, load64(frame + F_FRAMENO), spi, spi, 0)
    running = top_frame(load64(env + E_CUR))
    value = reg_of(running, value_regno) if value_regno >= 0 else 0
    if (off & 7) == 0:
        if value != 0 and load32(value + R_TYPE) == SCALAR_VALUE:
            if fits(value, 8 * size):
                assign_scalar_id_before_mov(env, value)
                _save_register(env, frame, spi, value, size)
            else:
                saved = _save_register(env, frame, spi, value, size)
                store32(saved + R_ID, 0)
                store32(saved + R_OFF, 0)
            return OK
        if value_regno == IMM_VALUE:
            mark_const(scratch, imm)
            _save_register(env, frame, spi, scratch, size)
            return OK
    if value != 0 and ((SPILLABLE_MASK >> (load32(value + R_TYPE) & 0xFF)) & 1) != 0:
        if size != 8:
            return say(env, R_STACK_SPILL_SIZE, 0, 0, 0, 0)
        if frame != running and load32(value + R_TYPE) == PTR_TO_STACK:
            return say(env, R_STACK_SPILL_CALLER, 0, 0, 0, 0)
        store32(_save_register(env, frame, spi, value, 8) + R_DEPS, 0)
        return OK
    kind = STACK_MISC
    if (value != 0 and register_is_null(value)) or (value_regno == IMM_VALUE and imm == 0):
        # the slot's type will say zero whatever later states hold, so the zero must be exact
        if value != 0:
            mark_reg_precise(env, value_regno)
        kind = STACK_ZERO
    _mark_bytes(frame, off, off + size, kind)
    return OK


@device
def _write_var_off(env: int, frame: int, low: int, high: int, value_regno: int, imm: int) -> int:
    """Any byte that may be hit becomes data; zero stays zero where zero is written."""
    first = (-high) >> 3
    last = (-low - 1) >> 3
    if _any_special(frame, first, last) >= 0:
        return say(env, DO_SLOTS, load64(frame + F_FRAMENO), first, last, 0)
    writing_zero = value_regno == IMM_VALUE and imm == 0
    if value_regno >= 0:
        writing_zero = register_is_null(reg_of(top_frame(load64(env + E_CUR)), value_regno)) != 0
    zero_used = False
    for spi in range(first, last + 1):
        slot = room_for_slot(frame, spi)
        scrub(slot)
        mark_not_init(slot + S_REG)
        for i in range(8):
            off = -8 * spi - 1 - i
            if low <= off and off < high:
                if writing_zero and load8(slot + i) == STACK_ZERO:
                    zero_used = True
                else:
                    store8(slot + i, STACK_MISC)
    if zero_used and value_regno >= 0:
        mark_reg_precise(env, value_regno)
    return OK


@device
def check_stack_write(env: int, reg: int, off: int, size: int, value_regno: int, imm: int, scratch: int) -> int:
    """Store a register, the constant `imm` (IMM_VALUE), or unknown data (NO_VALUE)."""
    frame = _target(env, reg)
    low = off + load64(reg + R_SMIN)
    fixed = is_const(reg) != 0
    mark_stack_write(env, load64(reg + R_NUM), 1 << ((-low - 1) >> 3) if fixed and size == 8 and (low & 7) == 0 else 0)
    if fixed:
        return _write_fixed_off(env, frame, low, size, value_regno, imm, scratch)
    return _write_var_off(env, frame, low, off + load64(reg + R_SMAX) + size, value_regno, imm)


@device
def _mark_reg_stack_read(env: int, frame: int, low: int, high: int, dst: int) -> None:
    """All bytes zero: the constant zero; else unknown."""
    for off in range(low, high):
        if kind_at(frame, off) != STACK_ZERO:
            mark_unknown(dst)
            return
    mark_const(dst, 0)


@device
def spilled_bytes(slot: int) -> int:
    """How many bytes of a slot belong to the register that was stored."""
    count = 0
    for i in range(8):
        if load8(slot + i) == STACK_SPILL:
            count += 1
    return count


@device
def _read_fixed_off(env: int, frame: int, off: int, size: int, dst_regno: int) -> int:
    at = -off - 1
    spi = at >> 3
    dst = reg_of(top_frame(load64(env + E_CUR)), dst_regno) if dst_regno >= 0 else 0
    kind = load8(slot_of(frame, spi) + 7) if spi < load64(frame + F_NSLOTS) else STACK_INVALID
    if kind != STACK_SPILL:
        if _is_special(kind):
            return say(env, R_STACK_SPECIAL, off, size, 0, 0)
        if dst != 0:
            _mark_reg_stack_read(env, frame, off, off + size, dst)
        return OK
    slot = slot_of(frame, spi)
    reg = slot + S_REG
    if size == 8 and load64(slot) == EVERY * STACK_SPILL:
        if dst != 0:
            copy_reg(dst, reg)
        push_jmp_history(env)
        return OK
    if load32(reg + R_TYPE) != SCALAR_VALUE:
        return say(env, R_STACK_FILL_SIZE, 0, 0, 0, 0)
    if dst == 0:
        return OK
    if size <= spilled_bytes(slot) and (off & 7) == 0:
        # the low bytes of what was stored
        copy_reg(dst, reg)
        push_jmp_history(env)
        if not fits(reg, size * 8):
            store32(dst + R_ID, 0)
            store32(dst + R_OFF, 0)
        return OK
    spilled = 0
    zeros = 0
    for i in range(size):
        kind = load8(slot + ((at - i) & 7))
        spilled += 1 if kind == STACK_SPILL else 0
        zeros += 1 if kind == STACK_ZERO else 0
    if spilled == size and register_is_null(reg):
        deps = load32(reg + R_DEPS)
        mark_const(dst, 0)
        store32(dst + R_DEPS, deps)
        push_jmp_history(env)
    elif zeros == size:
        mark_const(dst, 0)
    else:
        mark_unknown(dst)
    return OK


@device
def check_stack_range_initialized(
    env: int, regno: int, reg: int, off: int, size: int, zero_size_allowed: int, access: int, raw_mode: int
) -> int:
    """An area that a helper reads or writes. -1: `raw_mode` applies and the helper's writes are still to be marked.

    A privileged program may pass stack that it never wrote, as in the kernel; a write turns spills into data.
    """
    if size == 0 and not zero_size_allowed:
        return say(env, R_STACK_ZERO_SIZE, 0, 0, 0, 0)
    reason = check_stack_access_within_bounds(env, regno, reg, off, size, access)
    if reason != OK:
        return reason
    low = load64(reg + R_SMIN) + off
    high = load64(reg + R_SMAX) + off + size
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
    mark_stack_read(env, load64(reg + R_NUM), low, high)
    if access == WRITE and high > low:
        _mark_bytes(frame, low, high, STACK_MISC)
    return OK


@device
def check_stack_read(env: int, regno: int, reg: int, off: int, size: int, dst_regno: int) -> int:
    """Load from the stack into a register (-1: only check, for a helper)."""
    frame = _target(env, reg)
    low = load64(reg + R_SMIN) + off
    if is_const(reg):
        mark_stack_read(env, load64(reg + R_NUM), low, low + size)
        return _read_fixed_off(env, frame, low, size, dst_regno)
    if dst_regno < 0:
        return say(env, R_STACK_VAR_HELPER, regno, off, size, 0)
    reason = check_stack_range_initialized(env, regno, reg, off, size, 0, READ, 0)
    if reason != OK:
        return reason
    high = load64(reg + R_SMAX) + off + size
    _mark_reg_stack_read(env, frame, low, high, reg_of(top_frame(load64(env + E_CUR)), dst_regno))
    return OK


@device
def mark_stack_written(env: int, reg: int, size: int) -> None:
    """A helper filled `size` bytes at the fixed offset in a register: they are data now."""
    low = reg_off(reg) + load64(reg + R_SMIN)
    if size != 0:
        _mark_bytes(_target(env, reg), low, low + size, STACK_MISC)


@device
def constant_map_key(env: int, reg: int, key_size: int) -> int:
    """The key, when a stack pointer points at one known number; -1 where not. Kernel: get_constant_map_key."""
    if load32(reg + R_TYPE) != PTR_TO_STACK or not is_const(reg):
        return -1
    off = reg_off(reg) + load64(reg + R_SMIN)
    at = -off - 1
    frame = _target(env, reg)
    if (at >> 3) >= load64(frame + F_NSLOTS) or (at & 7) + 1 < key_size:
        return -1
    slot = slot_of(frame, at >> 3)
    zeros = 0
    for i in range(key_size):
        zeros += 1 if load8(slot + (at & 7) - i) == STACK_ZERO else 0
    if zeros == key_size:
        return 0
    spilled = slot + S_REG
    if (off & 7) != 0 or load8(slot + 7) != STACK_SPILL or load32(spilled + R_TYPE) != SCALAR_VALUE:
        return -1
    if spilled_bytes(slot) != key_size or not is_const(spilled):
        return -1
    mark_deps_precise(env, load32(spilled + R_DEPS))
    value = load64(spilled + R_UMIN)
    return value & 0xFFFFFFFF if key_size == 4 else value
