"""Which stack slots may still be read: what no path below a state reads makes no difference between two states.

Marks are made as instructions are checked, for each function as called through one chain of callers (an instance): slots
that an instruction may read, and slots that it writes in whole on every visit. From them follows, backwards through the
function, what is live before each instruction. That is complete for a state whose paths have all been followed.

Kernel: kernel/bpf/liveness.c. Differs: of the slots of callers, what a callee reads is told and what it writes is not; live
slots are computed when they are asked for.
"""

from __future__ import annotations

from fastrtp.isa import BPF_CALL, BPF_EXIT, BPF_JA, BPF_JMP, BPF_JMP32, BPF_ST, BPF_STX
from fastrtp.native.intrinsics import device, load8, load16, load32, load64, memset, native, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import CALLS_CALLBACK, VENV, VINSN, VINSTANCE, VMARKS
from fastrtp.verifier.state_native import (
    E_CUR,
    E_INSTANCES,
    F_CALLSITE,
    F_NSLOTS,
    F_SUBPROG,
    INSTANCE_MARKS,
    INSTANCE_NEXT,
    T_CLEANED,
    T_IDX,
    T_NFRAMES,
    allocate,
    frame_of,
    slot_of,
)
from fastrtp.verifier.tnum_native import sx32

E_INSNS, E_INSN_IDX = at(VENV, "insns"), at(VENV, "insn_idx")
E_STARTS, E_DIRTY, E_LAST = at(VENV, "subprog_start"), at(VENV, "instances_dirty"), at(VENV, "instance")
I_CODE, I_OFF, I_IMM, I_FLAGS = at(VINSN, "code"), at(VINSN, "off"), at(VINSN, "imm"), at(VINSN, "flags")
INSN_SIZE, MARKS_SIZE, INSTANCE_SIZE = VINSN.itemsize, VMARKS.itemsize, VINSTANCE.itemsize
L_PARENT, L_CALLSITE, L_SUBPROG = at(VINSTANCE, "parent"), at(VINSTANCE, "callsite"), at(VINSTANCE, "subprogno")
L_DEPTH, L_START, L_COUNT, L_DIRTY = (at(VINSTANCE, name) for name in ("depth", "start", "count", "dirty"))
M_READ, M_WRITTEN, M_VISITED, M_LIVE = (at(VMARKS, name) for name in ("read", "written", "visited", "live"))
LD_IMM64 = 0x18


@device
def _instance(env: int, parent: int, frame: int, depth: int, make: int) -> int:
    """The instance of a frame's function below that of its caller; made where there is none and `make` is set, else 0."""
    callsite = load64(frame + F_CALLSITE)
    subprogno = load64(frame + F_SUBPROG)
    found = load64(env + E_INSTANCES)
    while found != 0:
        same = load64(found + L_CALLSITE) == callsite and load64(found + L_SUBPROG) == subprogno
        if same and load64(found + L_PARENT) == parent:
            return found
        found = load64(found + INSTANCE_NEXT)
    if not make:
        return 0
    new = allocate(env, INSTANCE_SIZE)
    if new != 0:
        memset(new, 0, INSTANCE_SIZE)
        starts = load64(env + E_STARTS) + 8 * subprogno
        store64(new + L_PARENT, parent)
        store64(new + L_CALLSITE, callsite)
        store64(new + L_SUBPROG, subprogno)
        store64(new + L_DEPTH, depth)
        store64(new + L_START, load64(starts))
        store64(new + L_COUNT, load64(starts + 8) - load64(starts))
        store64(new + INSTANCE_NEXT, load64(env + E_INSTANCES))
        store64(env + E_INSTANCES, new)
    return new


@device
def _instance_of(env: int, state: int, last: int, make: int) -> int:
    """The instance of frame `last` of a state, 0 for none."""
    found = 0
    for number in range(last + 1):
        found = _instance(env, found, frame_of(state, number), number, make)
        if found == 0:
            return 0
    return found


@device
def _is_instance_of(instance: int, state: int, last: int) -> int:
    """Whether an instance is that of frame `last` of a state."""
    for back in range(last + 1):
        frame = frame_of(state, last - back)
        if (
            instance == 0
            or load64(instance + L_CALLSITE) != load64(frame + F_CALLSITE)
            or load64(instance + L_SUBPROG) != load64(frame + F_SUBPROG)
        ):
            return 0
        instance = load64(instance + L_PARENT)
    return 1 if instance == 0 else 0


@device
def _current_instance(env: int, state: int) -> int:
    """The instance of the function that runs, made where there is none; 0: no memory."""
    last = load64(state + T_NFRAMES) - 1
    found = load64(env + E_LAST)
    if _is_instance_of(found, state, last) == 0:
        found = _instance_of(env, state, last, 1)
        store64(env + E_LAST, found)
    return found


@device
def _marks(env: int, instance: int, frameno: int, idx: int, make: int) -> int:
    """Where the marks of an instruction for the slots of a frame are, 0 for none."""
    where = instance + INSTANCE_MARKS + 8 * frameno
    found = load64(where)
    if found == 0:
        if not make:
            return 0
        size = load64(instance + L_COUNT) * MARKS_SIZE
        found = allocate(env, size)
        if found == 0:
            return 0
        memset(found, 0, size)
        store64(where, found)
    return found + (idx - load64(instance + L_START)) * MARKS_SIZE


@device
def _mark_read(env: int, instance: int, frameno: int, idx: int, slots: int) -> None:
    marks = _marks(env, instance, frameno, idx, 1)
    if marks != 0 and (slots & ~load64(marks + M_READ)) != 0:
        store64(marks + M_READ, load64(marks + M_READ) | slots)
        if (slots & ~load64(marks + M_LIVE)) != 0:
            store64(instance + L_DIRTY, 1)
            store64(env + E_DIRTY, 1)


@device
def mark_stack_read(env: int, frameno: int, low: int, high: int) -> None:
    """The instruction may read bytes `[low, high)` from the frame pointer of a frame. Kernel: bpf_mark_stack_read."""
    instance = _current_instance(env, load64(env + E_CUR))
    if instance != 0 and low < high:
        first = max((-high) >> 3, 0)
        last = min((-low - 1) >> 3, 63)
        slots = 0
        for spi in range(first, last + 1):
            slots |= 1 << spi
        _mark_read(env, instance, frameno, load64(env + E_INSN_IDX), slots)


@device
def mark_stack_write(env: int, frameno: int, slots: int) -> None:
    """The store under way writes these slots of a frame in whole, and no others. Kernel: bpf_mark_stack_write."""
    idx = load64(env + E_INSN_IDX)
    kind = load8(load64(env + E_INSNS) + idx * INSN_SIZE + I_CODE) & 7
    if kind != BPF_ST and kind != BPF_STX:
        return  # a helper's
    cur = load64(env + E_CUR)
    top = load64(cur + T_NFRAMES) - 1
    if frameno != top:
        slots = 0
    instance = _current_instance(env, cur)
    marks = _marks(env, instance, top, idx, 1) if instance != 0 else 0
    if marks == 0:
        return
    before = load64(marks + M_WRITTEN)
    now = slots & before if load64(marks + M_VISITED) else slots
    store64(marks + M_VISITED, 1)
    if now != before:
        store64(marks + M_WRITTEN, now)
        store64(instance + L_DIRTY, 1)
        store64(env + E_DIRTY, 1)


@device
def _live_at(marks: int, count: int, i: int) -> int:
    return load64(marks + i * MARKS_SIZE + M_LIVE) if i >= 0 and i < count else 0


@device
def _live_after(insns: int, marks: int, count: int, i: int) -> int:
    """What is live where an instruction of a function leads; `i` counts from the function's first."""
    insn = insns + i * INSN_SIZE
    code = load8(insn + I_CODE)
    kind = code & 7
    if code == LD_IMM64:
        return _live_at(marks, count, i + 2)
    op = code & 0xF0
    if (kind != BPF_JMP and kind != BPF_JMP32) or op == BPF_CALL:
        return _live_at(marks, count, i + 1)
    if op == BPF_EXIT:
        return 0
    off = ((load16(insn + I_OFF) & 0xFFFF) ^ 0x8000) - 0x8000
    live = _live_at(marks, count, i + 1 + (sx32(load32(insn + I_IMM)) if code == BPF_JMP32 | BPF_JA else off))
    return live if op == BPF_JA else live | _live_at(marks, count, i + 1)


@device
def _update_instance(env: int, instance: int) -> None:
    """Bring `live` up to date, and tell the caller's instance what is read of its frames. Kernel: update_instance."""
    store64(instance + L_DIRTY, 0)
    start = load64(instance + L_START)
    count = load64(instance + L_COUNT)
    depth = load64(instance + L_DEPTH)
    insns = load64(env + E_INSNS) + start * INSN_SIZE
    for frameno in range(depth + 1):
        marks = load64(instance + INSTANCE_MARKS + 8 * frameno)
        if marks == 0:
            continue
        changed = True
        while changed:
            changed = False
            for back in range(count):
                i = count - 1 - back
                place = marks + i * MARKS_SIZE
                live = _live_after(insns, marks, count, i) & ~load64(place + M_WRITTEN)
                live |= load64(place + M_READ)
                if live != load64(place + M_LIVE):
                    store64(place + M_LIVE, live)
                    changed = True
        if frameno < depth:
            _mark_read(env, load64(instance + L_PARENT), frameno, load64(instance + L_CALLSITE), load64(marks + M_LIVE))


@device
def _update_instances(env: int) -> None:
    """Callees come before their callers: they were made later."""
    store64(env + E_DIRTY, 0)
    instance = load64(env + E_INSTANCES)
    while instance != 0:
        if load64(instance + L_DIRTY):
            _update_instance(env, instance)
        instance = load64(instance + INSTANCE_NEXT)
    store64(env + E_DIRTY, 0)


@device
def _live_slots(env: int, state: int, frameno: int) -> int:
    """Slots of a frame that a path from a state may read. Kernel: bpf_stack_slot_alive."""
    last = load64(state + T_NFRAMES) - 1
    live = 0
    for number in range(frameno, last + 1):
        instance = _instance_of(env, state, number, 0)
        if instance == 0:
            continue  # nothing of any stack was read there
        idx = load64(state + T_IDX)
        if number < last:
            # a helper that calls back is come back to; any other call is gone on from
            idx = load64(frame_of(state, number + 1) + F_CALLSITE)
            if (load16(load64(env + E_INSNS) + idx * INSN_SIZE + I_FLAGS) & CALLS_CALLBACK) == 0:
                idx += 1
        marks = _marks(env, instance, frameno, idx, 0)
        if marks != 0:
            live |= load64(marks + M_LIVE)
    return live


@device
def clean_verifier_state(env: int, state: int) -> None:
    """Empty the slots that no path from a state reads; every one of them has been followed. Kernel: clean_verifier_state."""
    store64(state + T_CLEANED, 1)
    if load64(env + E_DIRTY):
        _update_instances(env)
    for number in range(load64(state + T_NFRAMES)):
        frame = frame_of(state, number)
        count = load64(frame + F_NSLOTS)
        if count == 0:
            continue
        live = _live_slots(env, state, number)
        for spi in range(count):
            slot = slot_of(frame, spi)
            if ((live >> spi) & 1) == 0:
                store64(slot, 0)


@native()
def verifier_mark_stack_read(venv: int, frameno: int, spi: int, count: int) -> int:
    """The instruction looks at `count` slots from `spi` down: at what Python knows of them."""
    mark_stack_read(venv, frameno, -8 * (spi + 1), -8 * (spi + 1 - count))
    return 0
