"""Number iterators: bpf_iter_num_new, next and destroy; the loops that bpf_for makes.

An iterator's slot has a register with `num` = its state, `off` = its depth and the reference to it.
Kernel: kernel/bpf/verifier.c:process_iter_arg, mark_stack_slots_iter, process_iter_next_call.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device
from fastrtp.verifier.core.call_native import clear_caller_saved_regs
from fastrtp.verifier.core.jmp_native import cannot_push, push_stack
from fastrtp.verifier.core.liveness_native import mark_stack_read
from fastrtp.verifier.core.loop_native import KIND_ITER
from fastrtp.verifier.core.mem_native import check_mem_access, check_reg_read, current_reg
from fastrtp.verifier.core.precision_native import find_prev_entry, widen_imprecise_scalars
from fastrtp.verifier.core.reason import (
    DO_CALL,
    DO_SLOTS,
    OK,
    R_ARG_TRUSTED_NULL,
    R_ITER_ARG,
    R_ITER_NUMBER,
    R_ITER_STATE,
    R_LOOP_TOO_COMPLEX,
)
from fastrtp.verifier.core.refs_native import acquire_reference, release_reference
from fastrtp.verifier.core.stack_native import EVERY, NO_VALUE, WRITE, is_const, register_is_null, say
from fastrtp.verifier.core.state_native import (
    frame_of,
    mark_const,
    mark_not_init,
    mark_unknown,
    new_id,
    reg_clear,
    reg_of,
    room_for_slot,
    set_slot_types,
    slot_of,
    top_frame,
)
from fastrtp.verifier.domain.bounds_native import bounds_const
from fastrtp.verifier.domain.records import ITER_DESTROY, ITER_NEW, ITER_NEXT, VEnv, VFrame, VInsn, VSlot, VState
from fastrtp.verifier.domain.regtype import MEM_RDONLY, PTR_MAYBE_NULL, PTR_TO_MEM, PTR_TO_STACK, SCALAR_VALUE
from fastrtp.verifier.domain.stacktype import STACK_ITER

ITER_ACTIVE, ITER_DRAINED = 1, 2
"""State of an iterator."""


@device
def _is_iter(frame: VFrame, spi: int) -> int:
    return 1 if spi < frame.nslots and slot_of(frame, spi).slot_type[7] == STACK_ITER else 0


@device
def _check_iter_arg(env: VEnv, known: int) -> int:
    """R1 points at a slot that has an iterator (`known`), or may get one."""
    reason = check_reg_read(env, 1)
    if reason != OK:
        return reason
    reg = current_reg(env, 1)
    if register_is_null(reg) != 0 or (reg.type & PTR_MAYBE_NULL) != 0:
        return say(env, R_ARG_TRUSTED_NULL, 1, 0, 0, 0)
    if reg.type != PTR_TO_STACK:
        return say(env, R_ITER_ARG, 0, 0, 0, 0)
    off = reg.off + reg.smin
    if not is_const(reg):
        return say(env, R_ITER_STATE, known, 1, 0, 0)
    if off >= 0 and not known:
        return OK  # the write will be refused
    if (off & 7) != 0 or off >= 0:
        return say(env, R_ITER_STATE, known, 2, off, 0)
    if _is_iter(frame_of(env.cur, reg.num), (-off - 1) >> 3) != known:
        return say(env, R_ITER_STATE, known, 0, 0, 0)
    return OK


@device
def _iter_new(env: VEnv, frame: VFrame, spi: int) -> int:
    reason = check_mem_access(env, 1, 0, 8, WRITE, NO_VALUE, 0, 0, 0)
    if reason == DO_SLOTS:
        env.jmps_processed = env.jmps_processed - 1  # the call is taken again
    for regno in range(2, 4):
        if reason == OK and current_reg(env, regno).type != SCALAR_VALUE:
            return say(env, R_ITER_NUMBER, regno, 0, 0, 0)
    if reason != OK:
        return reason
    cur = env.cur
    ref = acquire_reference(env, cur, env.insn_idx, KIND_ITER)
    slot = room_for_slot(frame, spi)
    set_slot_types(slot, EVERY * STACK_ITER)
    mark_const(slot.reg, 0)
    slot.reg.type = PTR_TO_STACK
    slot.reg.ref_obj_id = ref
    slot.reg.num = ITER_ACTIVE
    clear_caller_saved_regs(top_frame(cur))
    mark_unknown(reg_of(top_frame(cur), 0))
    return OK


@device
def _iter_destroy(env: VEnv, slot: VSlot) -> int:
    cur = env.cur
    ref = slot.reg.ref_obj_id
    set_slot_types(slot, 0)
    mark_not_init(slot.reg)
    release_reference(env, cur, ref)
    clear_caller_saved_regs(top_frame(cur))
    return OK


@device
def _iter_next(env: VEnv, frameno: int, spi: int) -> int:
    """Two ways on: another number, as a path of its own, and the end."""
    cur = env.cur
    idx = env.insn_idx
    held = slot_of(frame_of(cur, frameno), spi).reg
    clear_caller_saved_regs(top_frame(cur))
    ident = new_id(env)
    if held.num == ITER_ACTIVE:
        parent = cur.parent
        previous = find_prev_entry(env, parent, idx) if parent else VState(0)
        queued = push_stack(env, idx + 1, 0)
        if not queued:
            return cannot_push(env, R_LOOP_TOO_COMPLEX)
        other = slot_of(frame_of(queued, frameno), spi).reg
        other.off = held.off + 1
        r0 = reg_of(top_frame(queued), 0)
        reg_clear(r0, PTR_TO_MEM | MEM_RDONLY)
        bounds_const(r0, 0)
        r0.id = ident
        r0.ref_obj_id = held.ref_obj_id
        r0.num = 4
        if previous:
            widen_imprecise_scalars(env, previous, queued)
    held.num = ITER_DRAINED
    mark_const(reg_of(top_frame(cur), 0), 0)
    return OK


@device
def check_iter_call(env: VEnv, insn: VInsn) -> int:
    """A call of one of the three; DO_CALL: of another kernel function."""
    flags = insn.flags
    if (flags & (ITER_NEW | ITER_NEXT | ITER_DESTROY)) == 0:
        return DO_CALL
    reason = _check_iter_arg(env, 0 if flags & ITER_NEW else 1)
    if reason != OK:
        return reason
    reg = current_reg(env, 1)
    frameno = reg.num
    frame = frame_of(env.cur, frameno)
    off = reg.off + reg.smin
    spi = (-off - 1) >> 3
    if flags & ITER_NEW:
        reason = _iter_new(env, frame, spi)
    else:
        mark_stack_read(env, frameno, off, off + 8)
        reason = _iter_next(env, frameno, spi) if flags & ITER_NEXT else _iter_destroy(env, slot_of(frame, spi))
    if reason == OK:
        env.insn_idx += 1
    return reason
