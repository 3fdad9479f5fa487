"""State of the abstract machine in native memory: blocks, copies, users, dependency sets, references held.

A saved state lives as long as someone uses it: the list of its instruction, a state made from it, a path that was
pruned at it. Blocks come from malloc and are all in one list, so that the end of a run frees what is left. Memory is
bounded by `max_bytes`: beyond it `out_of_memory` is set and the caller gives up.

Kernel: kernel/bpf/verifier.c:copy_verifier_state, free_verifier_state, mark_reg_known, mark_reg_unknown.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, free, load64, malloc, memcpy, memset, native, store64
from fastrtp.verifier.domain.bounds_native import bounds_const, bounds_unknown
from fastrtp.verifier.domain.records import (
    BITS_PER_FRAME,
    FRAME_HEAD,
    FULL_FRAME,
    MASK_WORDS,
    MAX_BPF_REG,
    MAX_CALL_FRAMES,
    REG_SIZE,
    SLOT_SIZE,
    SLOTS_PER_FRAME,
    VEnv,
    VFrame,
    VInstance,
    VRef,
    VRefs,
    VReg,
    VSlot,
    VState,
    VVisit,
)
from fastrtp.verifier.domain.regtype import NOT_INIT, PTR_TO_STACK, SCALAR_VALUE

T_FRAME_AT = VState.layout.at("frame_at")
STATE_HEAD = VState.layout.size
ENV_SIZE = VEnv.layout.size
E_SETS = VEnv.layout.at("sets")
E_SET_MAX = VEnv.layout.at("set_max")
VISIT_SIZE = VVisit.layout.size
REFS_HEAD = VRefs.layout.size
REF_SIZE = VRef.layout.size
SINGLE_SETS = 1 + BITS_PER_FRAME * MAX_CALL_FRAMES
"""Numbers below this one are no set, or the set of one bit."""
SET_SIZE = 8 * MASK_WORDS


@device
def allocate(env: VEnv, size: int) -> int:
    """`size` bytes, or 0 with `out_of_memory` set."""
    total = env.bytes + size
    if total > env.max_bytes:
        env.out_of_memory = 1
        return 0
    block = malloc(size)
    if block == 0:
        env.out_of_memory = 1
        return 0
    env.bytes = total
    return block


@device
def grow(env: VEnv, pointer: int, limit: int, item: int) -> int:
    """Double the array whose address and room are kept at `pointer` and `limit`; 0 where there is no memory."""
    old = load64(pointer)
    count = load64(limit)
    block = allocate(env, 2 * count * item)
    if block == 0:
        return 0
    memcpy(block, old, count * item)
    free(old)
    env.bytes = env.bytes - count * item
    store64(pointer, block)
    store64(limit, 2 * count)
    return block


@device
def frame_of(state: VState, number: int) -> VFrame:
    """Address of a frame."""
    return state.frame_at[number]


@device
def top_frame(state: VState) -> VFrame:
    """Address of the frame that runs."""
    return state.frame_at[state.nframes - 1]


@device
def reg_of(frame: VFrame, regno: int) -> VReg:
    """Address of a register."""
    return frame.regs[regno]


@device
def slot_of(frame: VFrame, spi: int) -> VSlot:
    """Address of a stack slot; the caller has looked at `nslots`."""
    return frame.slots[spi]


@device
def reg_clear(reg: VReg, type: int) -> None:
    """No offset, id, map, number."""
    reg.type = type
    reg.off = 0
    reg.id = 0
    reg.ref_obj_id = 0
    reg.map = 0
    reg.num = 0


@device
def mark_unknown(reg: VReg) -> None:
    """Any number, depending on nothing."""
    reg.deps = 0
    reg_clear(reg, SCALAR_VALUE)
    bounds_unknown(reg)


@device
def mark_not_init(reg: VReg) -> None:
    """Never written."""
    reg.deps = 0
    reg_clear(reg, NOT_INIT)
    bounds_unknown(reg)


@device
def mark_const(reg: VReg, value: int) -> None:
    """The number `value`, depending on nothing."""
    reg.deps = 0
    reg_clear(reg, SCALAR_VALUE)
    bounds_const(reg, value)


@device
def copy_reg(to: int, source: int) -> None:
    """A register with its dependencies."""
    if to != source:
        memcpy(to, source, REG_SIZE)


@device
def identity(frameno: int, index: int) -> int:
    """The dependency set of what depends on itself alone; `index`: register number, or 11 + slot number."""
    return 1 + frameno * BITS_PER_FRAME + index


@device
def slot_types(slot: VSlot) -> int:
    """The types of its eight bytes as one number: EVERY * a type where they are the same."""
    return load64(int(slot.slot_type))


@device
def set_slot_types(slot: VSlot, types: int) -> None:
    """All eight at once."""
    store64(int(slot.slot_type), types)


@device
def room_for_slot(frame: VFrame, spi: int) -> VSlot:
    """Address of a slot of a frame with room for all 64; those below it exist from now on, with nothing in them."""
    count = frame.nslots
    while count <= spi:
        slot = slot_of(frame, count)
        set_slot_types(slot, 0)
        mark_not_init(slot.reg)
        count += 1
    if frame.nslots < count:
        frame.nslots = count
    return slot_of(frame, spi)


@device
def init_frame(frame: VFrame, callsite: int, frameno: int, subprogno: int) -> None:
    """A frame with nothing in it but the frame pointer."""
    memset(int(frame), 0, FRAME_HEAD)
    frame.callsite = callsite
    frame.frameno = frameno
    frame.subprogno = subprogno
    frame.cap = SLOTS_PER_FRAME
    for regno in range(MAX_BPF_REG):
        mark_not_init(reg_of(frame, regno))
    pointer = reg_of(frame, MAX_BPF_REG - 1)
    reg_clear(pointer, PTR_TO_STACK)
    pointer.num = frameno
    bounds_const(pointer, 0)


@device
def copy_frame(to: VFrame, source: VFrame, cap: int) -> None:
    """A frame's used part, into a place with room for `cap` slots."""
    memcpy(int(to), int(source), FRAME_HEAD + source.nslots * SLOT_SIZE)
    to.cap = cap


@device
def state_put(env: VEnv, state: VState) -> None:
    """One user less; states without users go, with what only they used."""
    if not state:
        return
    users = state.users - 1
    state.users = users
    if users != 0:
        return
    state.next = env.put
    env.put = state
    while env.put:
        gone = env.put
        env.put = gone.next
        parent = gone.parent
        if parent:
            users = parent.users - 1
            parent.users = users
            if users == 0:
                parent.next = env.put
                env.put = parent
        before = gone.all_prev
        after = gone.all_next
        if before:
            before.all_next = after
        else:
            env.all = after
        if after:
            after.all_prev = before
        env.bytes -= gone.size
        free(int(gone))


@device
def _set_parent(state: VState, parent: VState) -> None:
    """A user more."""
    state.parent = parent
    if parent:
        parent.users += 1


@device
def state_save(env: VEnv, source: VState, roomy: int) -> VState:
    """A copy in a block of its own with the same parent; `roomy`: a frame may still be added, and slots. 0: no memory."""
    count = source.nframes
    size = STATE_HEAD
    for number in range(count):
        size += FRAME_HEAD + (SLOTS_PER_FRAME if roomy else frame_of(source, number).nslots) * SLOT_SIZE
    if roomy and count < MAX_CALL_FRAMES:
        size += FULL_FRAME
    state = VState(allocate(env, size))
    if not state:
        return VState(0)
    memcpy(int(state), int(source), STATE_HEAD)
    memset(int(state.precise), 0, SET_SIZE)
    state.branches = 0
    state.users = 1
    state.equal_state = VState(0)
    state.next_backedge = VState(0)
    state.next = VState(0)
    state.hit_cnt = 0
    state.miss_cnt = 0
    state.size = size
    _set_parent(state, source.parent)
    where = VFrame(int(state) + STATE_HEAD)
    for number in range(count):
        frame = frame_of(source, number)
        cap = SLOTS_PER_FRAME if roomy else frame.nslots
        copy_frame(where, frame, cap)
        state.frame_at[number] = where
        where = VFrame(int(where) + FRAME_HEAD + cap * SLOT_SIZE)
    if roomy and count < MAX_CALL_FRAMES:
        state.frame_at[count] = where
    first = env.all
    state.all_prev = VState(0)
    state.all_next = first
    if first:
        first.all_prev = state
    env.all = state
    return state


@device
def state_restore(env: VEnv, saved: VState) -> None:
    """Make a saved state the one under way; the block is freed."""
    cur = env.cur
    state_put(env, cur.parent)
    memcpy(int(cur), int(saved), T_FRAME_AT)
    memset(int(cur.precise), 0, SET_SIZE)
    _set_parent(cur, saved.parent)
    for number in range(saved.nframes):
        copy_frame(frame_of(cur, number), frame_of(saved, number), SLOTS_PER_FRAME)
    state_put(env, saved)


@device
def become_child(cur: VState, parent: VState) -> None:
    """`cur` goes on from the checkpoint `parent`: everything depends on itself there. The old parent has passed to it."""
    _set_parent(cur, parent)
    for number in range(cur.nframes):
        frame = frame_of(cur, number)
        for regno in range(MAX_BPF_REG):
            reg_of(frame, regno).deps = identity(number, regno)
        for spi in range(frame.nslots):
            slot_of(frame, spi).reg.deps = identity(number, MAX_BPF_REG + spi)


@device
def push_jmp_history(env: VEnv) -> None:
    """The instruction under way is noted in the jump history, once. Only how long that is matters here.

    Kernel: push_jmp_history
    """
    if env.in_history == 0:
        env.in_history = 1
        cur = env.cur
        cur.history += 1


@device
def mask_add(env: VEnv, mask: int, deps: int) -> None:
    """Add a dependency set to the bits at `mask`."""
    if deps == 0:
        return
    if deps < SINGLE_SETS:
        bit = deps - 1
        word = mask + 8 * (bit >> 6)
        store64(word, load64(word) | (1 << (bit & 63)))
        return
    source = env.sets + (deps - SINGLE_SETS) * SET_SIZE
    for word in range(MASK_WORDS):
        store64(mask + 8 * word, load64(mask + 8 * word) | load64(source + 8 * word))


@device
def _union_slot(table: int, mask: int, key: int) -> int:
    """Where a pair is in the table of unions, or where it belongs."""
    index = (key * -7046029254386353131) >> 32
    index &= mask
    while True:
        slot = table + 16 * index
        found = load64(slot)
        if found == 0 or found == key:
            return slot
        index = (index + 1) & mask


@device
def _same_set(a: int, b: int) -> int:
    """Whether two sets have the same words."""
    for word in range(MASK_WORDS):
        if load64(a + 8 * word) != load64(b + 8 * word):
            return 0
    return 1


@device
def _note_union(env: VEnv, slot: int, key: int, result: int) -> None:
    """Remember a union; a table that is half full is made twice as large."""
    store64(slot, key)
    store64(slot + 8, result)
    count = env.union_cnt + 1
    env.union_cnt = count
    mask = env.union_mask
    if 2 * count <= mask:
        return
    size = 2 * (mask + 1)
    table = allocate(env, 16 * size)
    if table == 0:
        return
    memset(table, 0, 16 * size)
    old = env.unions
    for index in range(mask + 1):
        entry = old + 16 * index
        if load64(entry) != 0:
            where = _union_slot(table, size - 1, load64(entry))
            store64(where, load64(entry))
            store64(where + 8, load64(entry + 8))
    free(old)
    env.bytes = env.bytes - 16 * (mask + 1)
    env.unions = table
    env.union_mask = size - 1


@device
def deps_union(env: VEnv, a: int, b: int) -> int:
    """The set of what is in either; each union is made once."""
    if a == b or b == 0:
        return a
    if a == 0:
        return b
    if a > b:
        a, b = b, a
    key = (a << 32) | b
    mask = env.union_mask
    table = env.unions
    slot = _union_slot(table, mask, key)
    if load64(slot) == key:
        return load64(slot + 8)
    count = env.set_cnt
    if count == env.set_max and grow(env, int(env) + E_SETS, int(env) + E_SET_MAX, SET_SIZE) == 0:
        return a
    where = env.sets + count * SET_SIZE
    memset(where, 0, SET_SIZE)
    mask_add(env, where, a)
    mask_add(env, where, b)
    result = count + SINGLE_SETS
    # one operand may hold the other
    if b >= SINGLE_SETS and _same_set(where, env.sets + (b - SINGLE_SETS) * SET_SIZE):
        result = b
    elif a >= SINGLE_SETS and _same_set(where, env.sets + (a - SINGLE_SETS) * SET_SIZE):
        result = a
    else:
        env.set_cnt = count + 1
    _note_union(env, slot, key, result)
    return result


@device
def slot_deps(frame: VFrame, spi: int) -> int:
    """Dependencies of a stack slot; those of one that was never written are none."""
    return slot_of(frame, spi).reg.deps if spi < frame.nslots else 0


@device
def has_refs(state: VState) -> int:
    """Whether anything is held."""
    refs = state.refs
    return 1 if refs and refs.count != 0 else 0


@device
def forget_ref(env: VEnv, state: VState, ident: int) -> None:
    """Take a reference out of what the state holds."""
    refs = state.refs
    if not refs:
        return
    count = refs.count
    new = VRefs(allocate(env, REFS_HEAD + count * REF_SIZE))
    if not new:
        return
    kept = 0
    for index in range(count):
        entry = refs.items[index]
        if entry.id != ident:
            memcpy(int(new.items[kept]), int(entry), REF_SIZE)
            kept += 1
    new.count = kept
    new.next = env.all_refs
    env.all_refs = new
    state.refs = new


@device
def new_id(env: VEnv) -> int:
    """A number not used before in this run."""
    ident = env.id_gen + 1
    env.id_gen = ident
    return ident


@native()
def verifier_init(venv: VEnv, sets: int, unions: int) -> int:
    """Make the first arrays (room for `sets`, `unions` a power of two) and the program's own frame; 0, or -1: no memory."""
    venv.sets = allocate(venv, sets * SET_SIZE)
    venv.set_max = sets
    venv.unions = allocate(venv, 16 * unions)
    venv.union_mask = unions - 1
    if venv.out_of_memory:
        return -1
    memset(venv.unions, 0, 16 * unions)
    cur = venv.cur
    memset(int(cur), 0, STATE_HEAD)
    for number in range(MAX_CALL_FRAMES):
        cur.frame_at[number] = VFrame(int(cur) + STATE_HEAD + number * FULL_FRAME)
    cur.nframes = 1
    init_frame(frame_of(cur, 0), -1, 0, 0)
    return 0


@native()
def verifier_free(venv: VEnv) -> int:
    """Give back all that the run allocated."""
    state = venv.all
    while state:
        after = int(state.all_next)
        free(int(state))
        state = VState(after)
    refs = venv.all_refs
    while refs:
        after = int(refs.next)
        free(int(refs))
        refs = VRefs(after)
    instance = venv.instances
    while instance:
        after = int(instance.next)
        for number in range(MAX_CALL_FRAMES):
            free(int(instance.marks[number]))
        free(int(instance))
        instance = VInstance(after)
    free(venv.sets)
    free(venv.unions)
    visit = venv.visits
    while visit:
        after = int(visit.next)
        free(int(visit))
        visit = VVisit(after)
    memset(int(venv), 0, ENV_SIZE)
    return 0


@native()
def verifier_push_frame(state: VState, callsite: int, subprogno: int) -> int:
    """A new frame on top; its address, or 0 where eight are in use."""
    count = state.nframes
    if count >= MAX_CALL_FRAMES:
        return 0
    init_frame(frame_of(state, count), callsite, count, subprogno)
    state.nframes = count + 1
    return int(frame_of(state, count))


@native()
def verifier_room(frame: VFrame, spi: int) -> int:
    """Address of a stack slot that Python is about to write."""
    return int(room_for_slot(frame, spi))


@native()
def verifier_new_refs(venv: VEnv, count: int) -> int:
    """A VREFS record for Python to fill, 0 where there is no memory."""
    refs = VRefs(allocate(venv, REFS_HEAD + count * REF_SIZE))
    if refs:
        refs.count = count
        refs.next = venv.all_refs
        venv.all_refs = refs
    return int(refs)


@native()
def verifier_restart(venv: VEnv, insn_cnt: int, subprogno: int) -> int:
    """Begin anew with a function: no checkpoints, one frame with nothing in it."""
    for index in range(insn_cnt):
        insn = venv.insns[index]
        checkpoint = insn.explored
        insn.explored = VState(0)
        while checkpoint:
            older = checkpoint.next
            state_put(venv, checkpoint)
            checkpoint = older
    visit = venv.visits
    venv.visits = VVisit(0)
    while visit:  # all paths were followed: none has anything left in it
        after = visit.next
        free(int(visit))
        venv.bytes -= VISIT_SIZE
        visit = after
    venv.states = 0
    cur = venv.cur
    state_put(venv, cur.parent)
    memset(int(cur), 0, T_FRAME_AT)
    memset(int(cur.precise), 0, SET_SIZE)
    cur.nframes = 1
    init_frame(frame_of(cur, 0), -1, 0, subprogno)
    return 0
