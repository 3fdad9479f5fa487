"""Which stack slots may still be read: what no path below a state reads makes no difference between two states.

Marks are made as instructions are checked, for each function as called through one chain of callers (an instance): slots
that an instruction may read, and slots that it writes in whole on every visit. From them follows, backwards through the
function, what is live before each instruction. That is complete for a state whose paths have all been followed.

Kernel: kernel/bpf/liveness.c. Differs: of the slots of callers, what a callee reads is told and what it writes is not; live
slots are computed when they are asked for.
"""

from __future__ import annotations

from fastrtp.isa import BPF_CALL, BPF_EXIT, BPF_JA, BPF_JMP, BPF_JMP32, BPF_ST, BPF_STX
from fastrtp.native.intrinsics import device, load64, memset, native, store64
from fastrtp.native.record import Array
from fastrtp.verifier.core.state_native import (
    allocate,
    frame_of,
    set_slot_types,
    slot_of,
)
from fastrtp.verifier.domain.records import (
    BITS_PER_FRAME,
    CALLS_CALLBACK,
    MAX_BPF_REG,
    VEnv,
    VFrame,
    VInsn,
    VInstance,
    VMarks,
    VState,
)

INSN_SIZE, MARKS_SIZE, INSTANCE_SIZE = VInsn.layout.size, VMarks.layout.size, VInstance.layout.size
LD_IMM64 = 0x18


@device
def _instance(env: VEnv, parent: int, frame: VFrame, depth: int, make: int) -> VInstance:
    """The instance of a frame's function below that of its caller; made where there is none and `make` is set, else 0."""
    callsite = frame.callsite
    subprogno = frame.subprogno
    found = env.instances
    while found:
        same = found.callsite == callsite and found.subprogno == subprogno
        if same and int(found.parent) == parent:
            return found
        found = found.next
    if not make:
        return VInstance(0)
    new = VInstance(allocate(env, INSTANCE_SIZE))
    if new:
        memset(int(new), 0, INSTANCE_SIZE)
        starts = env.subprog_start
        new.parent = VInstance(parent)
        new.callsite = callsite
        new.subprogno = subprogno
        new.depth = depth
        new.start = starts[subprogno]
        new.count = starts[subprogno + 1] - starts[subprogno]
        new.next = env.instances
        env.instances = new
    return new


@device
def _instance_of(env: VEnv, state: VState, last: int, make: int) -> VInstance:
    """The instance of frame `last` of a state, 0 for none."""
    found = VInstance(0)
    for number in range(last + 1):
        found = _instance(env, int(found), frame_of(state, number), number, make)
        if not found:
            return VInstance(0)
    return found


@device
def _is_instance_of(instance: VInstance, state: VState, last: int) -> int:
    """Whether an instance is that of frame `last` of a state."""
    for back in range(last + 1):
        frame = frame_of(state, last - back)
        if not instance or instance.callsite != frame.callsite or instance.subprogno != frame.subprogno:
            return 0
        instance = instance.parent
    return 1 if not instance else 0


@device
def _current_instance(env: VEnv, state: VState) -> VInstance:
    """The instance of the function that runs, made where there is none; 0: no memory."""
    last = state.nframes - 1
    found = env.instance
    if _is_instance_of(found, state, last) == 0:
        found = _instance_of(env, state, last, 1)
        env.instance = found
    return found


@device
def _marks(env: VEnv, instance: VInstance, frameno: int, idx: int, make: int) -> int:
    """Where the marks of an instruction for the slots of a frame are, 0 for none."""
    where = int(instance.marks) + 8 * frameno
    found = load64(where)
    if found == 0:
        if not make:
            return 0
        size = instance.count * MARKS_SIZE
        found = allocate(env, size)
        if found == 0:
            return 0
        memset(found, 0, size)
        store64(where, found)
    return found + (idx - instance.start) * MARKS_SIZE


@device
def _mark_read(env: VEnv, instance: VInstance, frameno: int, idx: int, slots: int) -> None:
    marks = VMarks(_marks(env, instance, frameno, idx, 1))
    if marks and (slots & ~marks.read) != 0:
        marks.read |= slots
        if (slots & ~marks.live) != 0:
            instance.dirty = 1
            env.instances_dirty = 1


@device
def mark_stack_read(env: VEnv, frameno: int, low: int, high: int) -> None:
    """The instruction may read bytes `[low, high)` from the frame pointer of a frame. Kernel: bpf_mark_stack_read."""
    instance = _current_instance(env, env.cur)
    if instance and low < high:
        first = max((-high) >> 3, 0)
        last = min((-low - 1) >> 3, 63)
        slots = 0
        for spi in range(first, last + 1):
            slots |= 1 << spi
        _mark_read(env, instance, frameno, env.insn_idx, slots)


@device
def mark_stack_write(env: VEnv, frameno: int, slots: int) -> None:
    """The store under way writes these slots of a frame in whole, and no others. Kernel: bpf_mark_stack_write."""
    idx = env.insn_idx
    kind = env.insns[idx].code & 7
    if kind != BPF_ST and kind != BPF_STX:
        return  # a helper's
    cur = env.cur
    top = cur.nframes - 1
    if frameno != top:
        slots = 0
    instance = _current_instance(env, cur)
    marks = VMarks(_marks(env, instance, top, idx, 1) if instance else 0)
    if not marks:
        return
    before = marks.written
    now = slots & before if marks.visited else slots
    marks.visited = 1
    if now != before:
        marks.written = now
        instance.dirty = 1
        env.instances_dirty = 1


@device
def _live_at(marks: Array[VMarks], count: int, i: int) -> int:
    return marks[i].live if i >= 0 and i < count else 0


@device
def _live_after(insn: VInsn, marks: Array[VMarks], count: int, i: int) -> int:
    """What is live where an instruction of a function leads; `i` counts from the function's first."""
    code = insn.code
    kind = code & 7
    if code == LD_IMM64:
        return _live_at(marks, count, i + 2)
    op = code & 0xF0
    if (kind != BPF_JMP and kind != BPF_JMP32) or op == BPF_CALL:
        return _live_at(marks, count, i + 1)
    if op == BPF_EXIT:
        return 0
    live = _live_at(marks, count, i + 1 + (insn.imm if code == BPF_JMP32 | BPF_JA else insn.off))
    return live if op == BPF_JA else live | _live_at(marks, count, i + 1)


@device
def _update_instance(env: VEnv, instance: VInstance) -> None:
    """Bring `live` up to date, and tell the caller's instance what is read of its frames. Kernel: update_instance."""
    instance.dirty = 0
    start = instance.start
    count = instance.count
    depth = instance.depth
    for frameno in range(depth + 1):
        marks = instance.marks[frameno]
        if not marks:
            continue
        changed = True
        while changed:
            changed = False
            for back in range(count):
                i = count - 1 - back
                place = marks[i]
                live = _live_after(env.insns[start + i], marks, count, i) & ~place.written
                live |= place.read
                if live != place.live:
                    place.live = live
                    changed = True
        if frameno < depth:
            _mark_read(env, instance.parent, frameno, instance.callsite, marks[0].live)


@device
def _update_instances(env: VEnv) -> None:
    """Callees come before their callers: they were made later."""
    env.instances_dirty = 0
    instance = env.instances
    while instance:
        if instance.dirty:
            _update_instance(env, instance)
        instance = instance.next
    env.instances_dirty = 0


@device
def _live_slots(env: VEnv, state: VState, frameno: int) -> int:
    """Slots of a frame that a path from a state may read. Kernel: bpf_stack_slot_alive."""
    last = state.nframes - 1
    live = 0
    for number in range(frameno, last + 1):
        instance = _instance_of(env, state, number, 0)
        if not instance:
            continue  # nothing of any stack was read there
        idx = state.insn_idx
        if number < last:
            # a helper that calls back is come back to; any other call is gone on from
            idx = frame_of(state, number + 1).callsite
            if (env.insns[idx].flags & CALLS_CALLBACK) == 0:
                idx += 1
        marks = VMarks(_marks(env, instance, frameno, idx, 0))
        if marks:
            live |= marks.live
    return live


@device
def _forget_precise(state: VState, number: int, index: int) -> None:
    """A register, or a slot (11 + its number), of a frame need not be exact."""
    bit = number * BITS_PER_FRAME + index
    state.precise[bit >> 6] &= ~(1 << (bit & 63))


@device
def clean_verifier_state(env: VEnv, state: VState) -> None:
    """Empty the slots that no path from a state reads; every one of them has been followed.

    What is not read need not be exact either, and is not passed on as such. Kernel: clean_verifier_state.
    """
    state.cleaned = 1
    if env.instances_dirty:
        _update_instances(env)
    last = state.nframes - 1
    for number in range(last + 1):
        frame = frame_of(state, number)
        idx = state.insn_idx if number == last else frame_of(state, number + 1).callsite
        regs = env.insns[idx].live
        for regno in range(MAX_BPF_REG):
            if ((regs >> regno) & 1) == 0:
                _forget_precise(state, number, regno)
        count = frame.nslots
        if count == 0:
            continue
        live = _live_slots(env, state, number)
        for spi in range(count):
            slot = slot_of(frame, spi)
            if ((live >> spi) & 1) == 0:
                set_slot_types(slot, 0)
                _forget_precise(state, number, MAX_BPF_REG + spi)


@native()
def verifier_mark_stack_read(venv: VEnv, frameno: int, spi: int, count: int) -> int:
    """The instruction looks at `count` slots from `spi` down: at what Python knows of them."""
    mark_stack_read(venv, frameno, -8 * (spi + 1), -8 * (spi + 1 - count))
    return 0
