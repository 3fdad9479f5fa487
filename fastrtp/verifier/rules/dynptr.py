"""Dynptrs as arguments of helpers: made in 16 bytes of stack, used, given back.

Kernel: kernel/bpf/verifier.c:process_dynptr_func, mark_stack_slots_dynptr, unmark_stack_slots_dynptr.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.helpers.argtype import DYNPTR_TYPE_LOCAL, DYNPTR_TYPE_RINGBUF, MEM_RDONLY, MEM_UNINIT
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import CONST_PTR_TO_DYNPTR
from fastrtp.verifier.domain.state import SLOT_INVALID, STACK_DYNPTR, BpfRegState, BpfStackState
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.mem import check_mem_access
from fastrtp.verifier.rules.slots import ALL_DYNPTR, destroy_if_dynptr, invalidate_dynptr, slot_of
from fastrtp.verifier.rules.stack import WRITE, func

_TYPES = DYNPTR_TYPE_LOCAL | DYNPTR_TYPE_RINGBUF
_TYPE_NAMES = {DYNPTR_TYPE_LOCAL: "local", DYNPTR_TYPE_RINGBUF: "ringbuf"}


def _spi(env: BpfVerifierEnv, reg: BpfRegState) -> int:
    return slot_of(env, reg.off + reg.bounds.smin_value, reg.bounds.var_off.mask, "dynptr", 2)


def held_dynptr(env: BpfVerifierEnv, reg: BpfRegState) -> BpfRegState | None:
    """What a stack pointer points at, where that is the first slot of a dynptr; a pointer to one that a callback was given."""
    if reg.type == CONST_PTR_TO_DYNPTR:
        return reg
    spi, frame = _spi(env, reg), func(env, reg)
    if spi < 0:
        return None
    first, second = frame.stack.get(spi, SLOT_INVALID), frame.stack.get(spi - 1, SLOT_INVALID)
    if first.slot_type[7] != STACK_DYNPTR or second.slot_type[7] != STACK_DYNPTR or not first.spilled_ptr.num & 1:
        return None
    env.lib.verifier_mark_stack_read(env.address, frame.frameno, spi, 2)
    if env.log.enabled and frame.frameno == env.frame.frameno:
        env.insn_log.scratch_slot(spi)
    return first.spilled_ptr


def check_dynptr_arg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int) -> BpfRegState | None:
    """One dynptr argument; what is in the slot, None for one that the helper is about to make. Errors: EINVAL."""
    if reg.type == CONST_PTR_TO_DYNPTR and not arg_type & (MEM_RDONLY | MEM_UNINIT):
        env.reject(EINVAL, "cannot pass pointer to const bpf_dynptr, the helper mutates it")
    if arg_type & MEM_UNINIT:
        if reg.type == CONST_PTR_TO_DYNPTR:
            env.reject(EINVAL, "Dynptr has to be an uninitialized dynptr")
        _make(env, regno, reg, arg_type & _TYPES)
        return None
    found = held_dynptr(env, reg)
    if found is None:
        env.reject(EINVAL, f"Expected an initialized dynptr as arg #{regno - 1}")
    wanted = arg_type & _TYPES
    if wanted and found.num & _TYPES != wanted:
        env.reject(EINVAL, f"Expected a dynptr of type {_TYPE_NAMES[wanted]} as arg #{regno - 1}")
    return found


def clone_dynptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, parent: BpfRegState) -> None:
    """Another dynptr of the same area: of a record, it is given back with it. Errors: EINVAL."""
    if reg.type == CONST_PTR_TO_DYNPTR:
        env.reject(EINVAL, "Dynptr has to be an uninitialized dynptr")
    _make(env, regno, reg, parent.num & _TYPES, parent.ref_obj_id)


def _make(env: BpfVerifierEnv, regno: int, reg: BpfRegState, kind: int, ref: int | None = None) -> None:
    spi, frame = _spi(env, reg), func(env, reg)
    if spi < 0:
        env.reject(EINVAL, "Dynptr has to be an uninitialized dynptr")
    for part in (0, 8):
        check_mem_access(env, regno, part, 8, WRITE)
    destroy_if_dynptr(env, frame, spi)
    destroy_if_dynptr(env, frame, spi - 1)
    ident = env.new_id()
    if ref is None:
        ref = env.acquire_reference(env.insn_idx) if kind == DYNPTR_TYPE_RINGBUF else 0
    for where, first in ((spi, 1), (spi - 1, 0)):
        held = BpfRegState(CONST_PTR_TO_DYNPTR, ZERO, id=ident, ref_obj_id=ref, num=kind | first)
        frame.stack[where] = BpfStackState(ALL_DYNPTR, held)
        frame.stack_deps[where] = 0


def end_dynptr(env: BpfVerifierEnv, ref_obj_id: int) -> None:
    """Dynptrs of a released record are gone. Kernel: unmark_stack_slots_dynptr."""
    for frame in env.cur_state.frames:
        for spi, slot in list(frame.stack.items()):
            if slot.slot_type[7] == STACK_DYNPTR and slot.spilled_ptr.num & 1 and slot.spilled_ptr.ref_obj_id == ref_obj_id:
                invalidate_dynptr(frame, spi)
