"""Stack slots that hold a dynptr or an iterator: what plain loads and stores do to them.

A dynptr takes two slots of type STACK_DYNPTR; `spilled_ptr` of each is a CONST_PTR_TO_DYNPTR with the dynptr's `id`, the
`ref_obj_id` of the record behind it and `num` = the dynptr's type flag, plus 1 in the first slot (the lower address). A
slice of it is a PTR_TO_MEM whose `map` is the dynptr's id. An iterator's slot has `num` = its state and `off` = its depth.

Kernel: kernel/bpf/verifier.c:destroy_if_dynptr_stack_slot, invalidate_dynptr, check_stack_range_initialized.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.verifier.domain.regtype import PTR_TO_MEM, base_type
from fastrtp.verifier.domain.state import REG_UNKNOWN, SLOT_INVALID, SLOT_MISC, STACK_DYNPTR, STACK_ITER, BpfFuncState
from fastrtp.verifier.rules.env import BpfVerifierEnv

SPECIAL = frozenset({STACK_DYNPTR, STACK_ITER})
ALL_DYNPTR = bytes([STACK_DYNPTR]) * 8


def unmark_iter(frame: BpfFuncState, spi: int) -> None:
    """A store into an iterator leaves bytes without a meaning, and a reference that nothing can release."""
    slot = frame.stack.get(spi, SLOT_INVALID)
    if slot.slot_type[7] in SPECIAL:
        frame.stack[spi] = SLOT_MISC


def destroy_if_dynptr(env: BpfVerifierEnv, frame: BpfFuncState, spi: int) -> None:
    """A store into a dynptr ends it and its slices; one that has to be released cannot be stored over. Errors: EINVAL."""
    slot = frame.stack.get(spi, SLOT_INVALID)
    if slot.slot_type[7] != STACK_DYNPTR:
        return
    first = spi if slot.spilled_ptr.num & 1 else spi + 1
    dynptr = frame.stack[first].spilled_ptr
    if dynptr.ref_obj_id:
        env.reject(EINVAL, "cannot overwrite referenced dynptr")
    invalidate_dynptr(frame, first)
    invalidate_slices(env, dynptr.id)


def invalidate_dynptr(frame: BpfFuncState, first: int) -> None:
    """Both slots hold nothing that may be used."""
    for spi in (first, first - 1):
        frame.stack[spi] = SLOT_INVALID
        frame.stack_deps[spi] = 0


def invalidate_slices(env: BpfVerifierEnv, dynptr_id: int) -> None:
    """Pointers into what the dynptr described are plain numbers from here on."""
    for frame in env.cur_state.frames:
        for regno, reg in enumerate(frame.regs):
            if base_type(reg.type) == PTR_TO_MEM and reg.map == dynptr_id:
                frame.regs[regno] = REG_UNKNOWN
                frame.deps[regno] = 0
        for spi, slot in frame.stack.items():
            if base_type(slot.spilled_ptr.type) == PTR_TO_MEM and slot.spilled_ptr.map == dynptr_id:
                frame.stack[spi] = SLOT_INVALID
                frame.stack_deps[spi] = 0


def slot_of(env: BpfVerifierEnv, off: int, var_mask: int, kind: str, count: int) -> int:
    """First (highest-numbered) slot of an object of `count` slots at `off`; -1, with a line in the log, where it does not fit."""
    if var_mask:
        env.log.line(f"{kind} has to be at a constant offset")
        return -1
    spi = (-off - 1) // 8
    if off % 8 or spi + 1 < count:
        env.log.line(f"cannot pass in {kind} at an offset={off}")
        return -1
    return spi
