"""Whether a program could tell an update of a map in place from one that gives the key another element.

It could, if it goes on holding an address in a value (or key) of that map over the call: in a register that may be read
later, on the stack, in a function that called. What cannot be followed is taken for such an address: memory of unknown origin, a
dynptr, a value of an inner map, and whatever the callers of a function hold that is verified by itself.

The fact is one of speed: where it is set, the code generator takes the way that is right for every program
(maps/hashtab_native.py). It is exact for what runs within one run of a program; a program that runs in the middle of another
one's helper (on bpf_trace_printk) may be seen to write in place.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load16, load32, load64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import OBJECT_NAMED, VINSN
from fastrtp.verifier.mem_native import E_OBJECTS, O_KIND, OBJECT_SIZE
from fastrtp.verifier.regtype import PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM
from fastrtp.verifier.stacktype import STACK_DYNPTR, STACK_SPILL
from fastrtp.verifier.state_native import (
    E_CUR,
    F_NSLOTS,
    F_SUBPROG,
    R_MAP,
    R_TYPE,
    S_REG,
    T_NFRAMES,
    frame_of,
    reg_of,
    slot_of,
)

_LIVE = at(VINSN, "live")


@device
def _may_point_into(env: int, reg: int, map: int) -> bool:
    base = load32(reg + R_TYPE) & 0xFF
    if base == PTR_TO_MEM:
        return True
    if base != PTR_TO_MAP_VALUE and base != PTR_TO_MAP_KEY:
        return False
    number = load32(reg + R_MAP)
    return number == map or load64(load64(env + E_OBJECTS) + number * OBJECT_SIZE + O_KIND) & OBJECT_NAMED == 0


@device
def _frame_holds(env: int, frame: int, map: int, live: int) -> bool:
    for regno in range(6, 10):
        if live >> regno & 1 and _may_point_into(env, reg_of(frame, regno), map):
            return True
    for spi in range(load64(frame + F_NSLOTS)):
        slot = slot_of(frame, spi)
        kind = load8(slot + 7)
        if kind == STACK_DYNPTR or (kind == STACK_SPILL and _may_point_into(env, slot + S_REG, map)):
            return True
    return False


@device
def value_held(env: int, insn: int, map: int) -> bool:
    """Of a call that updates the map with this number."""
    state = load64(env + E_CUR)
    frames = load64(state + T_NFRAMES)
    if load64(frame_of(state, 0) + F_SUBPROG) != 0:
        return True
    for number in range(frames):
        live = load16(insn + _LIVE) if number == frames - 1 else 0xFFFF
        if _frame_holds(env, frame_of(state, number), map, live):
            return True
    return False
