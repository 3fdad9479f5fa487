"""Whether a program could tell an update of a map in place from one that gives the key another element.

It could, if it goes on holding an address in a value (or key) of that map over the call: in a register that may be read
later, on the stack, in a function that called. What cannot be followed is taken for such an address: memory of unknown origin, a
dynptr, a value of an inner map, and whatever the callers of a function hold that is verified by itself.

The fact is one of speed: where it is set, the code generator takes the way that is right for every program
(maps/hashtab_native.py). It is exact for what runs within one run of a program; a program that runs in the middle of another
one's helper (on bpf_trace_printk) may be seen to write in place.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device
from fastrtp.verifier.core.state_native import (
    frame_of,
    reg_of,
    slot_of,
)
from fastrtp.verifier.domain.records import OBJECT_NAMED, VEnv, VFrame, VInsn, VReg
from fastrtp.verifier.domain.regtype import PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM
from fastrtp.verifier.domain.stacktype import STACK_DYNPTR, STACK_SPILL


@device
def _may_point_into(env: VEnv, reg: VReg, map: int) -> bool:
    base = reg.type & 0xFF
    if base == PTR_TO_MEM:
        return True
    if base != PTR_TO_MAP_VALUE and base != PTR_TO_MAP_KEY:
        return False
    number = reg.map
    return number == map or env.objects[number].kind & OBJECT_NAMED == 0


@device
def _frame_holds(env: VEnv, frame: VFrame, map: int, live: int) -> bool:
    for regno in range(6, 10):
        if live >> regno & 1 and _may_point_into(env, reg_of(frame, regno), map):
            return True
    for spi in range(frame.nslots):
        slot = slot_of(frame, spi)
        kind = slot.slot_type[7]
        if kind == STACK_DYNPTR or (kind == STACK_SPILL and _may_point_into(env, slot.reg, map)):
            return True
    return False


@device
def value_held(env: VEnv, insn: VInsn, map: int) -> bool:
    """Of a call that updates the map with this number."""
    state = env.cur
    frames = state.nframes
    if frame_of(state, 0).subprogno != 0:
        return True
    for number in range(frames):
        live = insn.live if number == frames - 1 else 0xFFFF
        if _frame_holds(env, frame_of(state, number), map, live):
            return True
    return False
