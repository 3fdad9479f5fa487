"""Number iterators: bpf_iter_num_new, next and destroy; the loops that bpf_for makes.

An iterator's slot has a register with `num` = its state, `off` = its depth and the reference to it.
Kernel: kernel/bpf/verifier.c:process_iter_arg, mark_stack_slots_iter, process_iter_next_call.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load16, load32, load64, store32, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import ITER_DESTROY, ITER_NEW, ITER_NEXT, VINSN
from fastrtp.verifier.bounds_native import R_SMIN, bounds_const
from fastrtp.verifier.call_native import clear_caller_saved_regs
from fastrtp.verifier.jmp_native import cannot_push, push_stack
from fastrtp.verifier.liveness_native import mark_stack_read
from fastrtp.verifier.loop_native import KIND_ITER
from fastrtp.verifier.mem_native import E_INSN_IDX, check_mem_access, check_reg_read, current_reg
from fastrtp.verifier.precision_native import find_prev_entry, widen_imprecise_scalars
from fastrtp.verifier.prune_native import E_JMPS
from fastrtp.verifier.reason import DO_CALL, DO_SLOTS, OK, R_ITER_ARG, R_ITER_NUMBER, R_ITER_STATE, R_LOOP_TOO_COMPLEX
from fastrtp.verifier.refs_native import acquire_reference, release_reference
from fastrtp.verifier.regtype import MEM_RDONLY, PTR_TO_MEM, PTR_TO_STACK, SCALAR_VALUE
from fastrtp.verifier.stack_native import EVERY, NO_VALUE, WRITE, is_const, say
from fastrtp.verifier.stacktype import STACK_ITER
from fastrtp.verifier.state_native import (
    E_CUR,
    F_NSLOTS,
    R_NUM,
    R_OFF,
    R_REF,
    R_TYPE,
    S_REG,
    T_PARENT,
    frame_of,
    mark_const,
    mark_not_init,
    mark_unknown,
    reg_clear,
    reg_of,
    reg_off,
    room_for_slot,
    slot_of,
    top_frame,
)

ITER_ACTIVE, ITER_DRAINED = 1, 2
"""State of an iterator."""
I_FLAGS = at(VINSN, "flags")


@device
def _is_iter(frame: int, spi: int) -> int:
    return 1 if spi < load64(frame + F_NSLOTS) and load8(slot_of(frame, spi) + 7) == STACK_ITER else 0


@device
def _check_iter_arg(env: int, known: int) -> int:
    """R1 points at a slot that has an iterator (`known`), or may get one."""
    reason = check_reg_read(env, 1)
    if reason != OK:
        return reason
    reg = current_reg(env, 1)
    if load32(reg + R_TYPE) != PTR_TO_STACK:
        return say(env, R_ITER_ARG, 0, 0, 0, 0)
    off = reg_off(reg) + load64(reg + R_SMIN)
    if not is_const(reg):
        return say(env, R_ITER_STATE, known, 1, 0, 0)
    if (off & 7) != 0 or off >= 0:
        return say(env, R_ITER_STATE, known, 2, off, 0)
    if _is_iter(frame_of(load64(env + E_CUR), load64(reg + R_NUM)), (-off - 1) >> 3) != known:
        return say(env, R_ITER_STATE, known, 0, 0, 0)
    return OK


@device
def _iter_new(env: int, frame: int, spi: int) -> int:
    reason = check_mem_access(env, 1, 0, 8, WRITE, NO_VALUE, 0, 0, 0)
    if reason == DO_SLOTS:
        store64(env + E_JMPS, load64(env + E_JMPS) - 1)  # the call is taken again
    for regno in range(2, 4):
        if reason == OK:
            reason = check_reg_read(env, regno)
            if reason == OK and load32(current_reg(env, regno) + R_TYPE) != SCALAR_VALUE:
                return say(env, R_ITER_NUMBER, regno, 0, 0, 0)
    if reason != OK:
        return reason
    cur = load64(env + E_CUR)
    ref = acquire_reference(env, cur, load64(env + E_INSN_IDX), KIND_ITER)
    slot = room_for_slot(frame, spi)
    store64(slot, EVERY * STACK_ITER)
    mark_const(slot + S_REG, 0)
    store32(slot + S_REG + R_TYPE, PTR_TO_STACK)
    store32(slot + S_REG + R_REF, ref)
    store64(slot + S_REG + R_NUM, ITER_ACTIVE)
    clear_caller_saved_regs(top_frame(cur))
    mark_unknown(reg_of(top_frame(cur), 0))
    return OK


@device
def _iter_destroy(env: int, slot: int) -> int:
    cur = load64(env + E_CUR)
    ref = load32(slot + S_REG + R_REF)
    store64(slot, 0)
    mark_not_init(slot + S_REG)
    release_reference(env, cur, ref)
    clear_caller_saved_regs(top_frame(cur))
    return OK


@device
def _iter_next(env: int, frameno: int, spi: int) -> int:
    """Two ways on: another number, as a path of its own, and the end."""
    cur = load64(env + E_CUR)
    idx = load64(env + E_INSN_IDX)
    held = slot_of(frame_of(cur, frameno), spi) + S_REG
    clear_caller_saved_regs(top_frame(cur))
    if load64(held + R_NUM) == ITER_ACTIVE:
        parent = load64(cur + T_PARENT)
        previous = find_prev_entry(parent, idx) if parent != 0 else 0
        queued = push_stack(env, idx + 1, 0)
        if queued == 0:
            return cannot_push(env, R_LOOP_TOO_COMPLEX)
        other = slot_of(frame_of(queued, frameno), spi) + S_REG
        store32(other + R_OFF, load32(held + R_OFF) + 1)
        r0 = reg_of(top_frame(queued), 0)
        reg_clear(r0, PTR_TO_MEM | MEM_RDONLY)
        bounds_const(r0, 0)
        store32(r0 + R_REF, load32(held + R_REF))
        store64(r0 + R_NUM, 4)
        if previous != 0:
            widen_imprecise_scalars(env, previous, queued)
    store64(held + R_NUM, ITER_DRAINED)
    mark_const(reg_of(top_frame(cur), 0), 0)
    return OK


@device
def check_iter_call(env: int, insn: int) -> int:
    """A call of one of the three; DO_CALL: of another kernel function."""
    flags = load16(insn + I_FLAGS)
    if (flags & (ITER_NEW | ITER_NEXT | ITER_DESTROY)) == 0:
        return DO_CALL
    reason = _check_iter_arg(env, 0 if flags & ITER_NEW else 1)
    if reason != OK:
        return reason
    reg = current_reg(env, 1)
    frameno = load64(reg + R_NUM)
    frame = frame_of(load64(env + E_CUR), frameno)
    off = reg_off(reg) + load64(reg + R_SMIN)
    spi = (-off - 1) >> 3
    if flags & ITER_NEW:
        reason = _iter_new(env, frame, spi)
    else:
        mark_stack_read(env, frameno, off, off + 8)
        reason = _iter_next(env, frameno, spi) if flags & ITER_NEXT else _iter_destroy(env, slot_of(frame, spi))
    if reason == OK:
        store64(env + E_INSN_IDX, load64(env + E_INSN_IDX) + 1)
    return reason
