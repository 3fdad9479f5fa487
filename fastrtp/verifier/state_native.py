"""State of the abstract machine in native memory: blocks, copies, users, dependency sets, references held.

A saved state lives as long as someone uses it: the list of its instruction, a state made from it, a path that was
pruned at it. Blocks come from malloc and are all in one list, so that the end of a run frees what is left. Memory is
bounded by `max_bytes`: beyond it `out_of_memory` is set and the caller gives up.

Kernel: kernel/bpf/verifier.c:copy_verifier_state, free_verifier_state, mark_reg_known, mark_reg_unknown.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, free, load32, load64, malloc, memcpy, memset, native, store32, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import (
    BITS_PER_FRAME,
    FRAME_HEAD,
    FRAME_REGS,
    FULL_FRAME,
    MASK_WORDS,
    MAX_BPF_REG,
    MAX_CALL_FRAMES,
    REG_SIZE,
    SLOT_SIZE,
    SLOTS_PER_FRAME,
    VENV,
    VFRAME,
    VINSTANCE,
    VREF,
    VREFS,
    VREG,
    VSLOT,
    VSTATE,
    VVISIT,
)
from fastrtp.verifier.bounds_native import bounds_const, bounds_unknown
from fastrtp.verifier.regtype import NOT_INIT, PTR_TO_STACK, SCALAR_VALUE
from fastrtp.verifier.tnum_native import sx32

R_DEPS, R_TYPE, R_OFF, R_ID = at(VREG, "deps"), at(VREG, "type"), at(VREG, "off"), at(VREG, "id")
R_REF, R_MAP, R_NUM = at(VREG, "ref_obj_id"), at(VREG, "map"), at(VREG, "num")
S_REG = at(VSLOT, "reg")
F_CALLSITE, F_FRAMENO, F_SUBPROG = at(VFRAME, "callsite"), at(VFRAME, "frameno"), at(VFRAME, "subprogno")
F_IN_CALLBACK, F_DEPTH, F_ACTIVATION = at(VFRAME, "in_callback_fn"), at(VFRAME, "callback_depth"), at(VFRAME, "activation")
F_NSLOTS, F_CAP = at(VFRAME, "nslots"), at(VFRAME, "cap")
T_NFRAMES, T_REFS = at(VSTATE, "nframes"), at(VSTATE, "refs")
T_IDX, T_FIRST = at(VSTATE, "insn_idx"), at(VSTATE, "first_insn_idx")
T_BRANCHES, T_PARENT = at(VSTATE, "branches"), at(VSTATE, "parent")
T_MAY_GOTO, T_UNROLL = at(VSTATE, "may_goto_depth"), at(VSTATE, "callback_unroll_depth")
T_HISTORY, E_IN_HISTORY = at(VSTATE, "history"), at(VENV, "in_history")
T_NEXT, T_HIT, T_MISS, T_USERS = at(VSTATE, "next"), at(VSTATE, "hit_cnt"), at(VSTATE, "miss_cnt"), at(VSTATE, "users")
T_EQUAL, T_NEXT_BACKEDGE = at(VSTATE, "equal_state"), at(VSTATE, "next_backedge")
T_ALL_NEXT, T_ALL_PREV, T_SIZE = at(VSTATE, "all_next"), at(VSTATE, "all_prev"), at(VSTATE, "size")
T_CLEANED = at(VSTATE, "cleaned")
T_FRAME_AT, T_PRECISE = at(VSTATE, "frame_at"), at(VSTATE, "precise")
STATE_HEAD = VSTATE.itemsize
ENV_SIZE = VENV.itemsize
E_CUR, E_ALL, E_ALL_REFS, E_PUT = at(VENV, "cur"), at(VENV, "all"), at(VENV, "all_refs"), at(VENV, "put")
E_BYTES, E_MAX_BYTES, E_NO_MEMORY = at(VENV, "bytes"), at(VENV, "max_bytes"), at(VENV, "out_of_memory")
E_SETS, E_SET_CNT, E_SET_MAX = at(VENV, "sets"), at(VENV, "set_cnt"), at(VENV, "set_max")
E_UNIONS, E_UNION_MASK, E_UNION_CNT = at(VENV, "unions"), at(VENV, "union_mask"), at(VENV, "union_cnt")
E_ID_GEN = at(VENV, "id_gen")
E_INSTANCES, INSTANCE_NEXT, INSTANCE_MARKS = at(VENV, "instances"), at(VINSTANCE, "next"), at(VINSTANCE, "marks")
E_VISITS, E_STATES = at(VENV, "visits"), at(VENV, "states")
VISIT_NEXT, VISIT_SIZE = at(VVISIT, "next"), VVISIT.itemsize
REFS_NEXT, REFS_COUNT, REFS_HEAD, REF_SIZE = at(VREFS, "next"), at(VREFS, "count"), VREFS.itemsize, VREF.itemsize
SINGLE_SETS = 1 + BITS_PER_FRAME * MAX_CALL_FRAMES
"""Numbers below this one are no set, or the set of one bit."""
SET_SIZE = 8 * MASK_WORDS


@device
def allocate(env: int, size: int) -> int:
    """`size` bytes, or 0 with `out_of_memory` set."""
    total = load64(env + E_BYTES) + size
    if total > load64(env + E_MAX_BYTES):
        store64(env + E_NO_MEMORY, 1)
        return 0
    block = malloc(size)
    if block == 0:
        store64(env + E_NO_MEMORY, 1)
        return 0
    store64(env + E_BYTES, total)
    return block


@device
def grow(env: int, pointer: int, limit: int, item: int) -> int:
    """Double the array whose address and room are kept at `pointer` and `limit`; 0 where there is no memory."""
    old = load64(pointer)
    count = load64(limit)
    block = allocate(env, 2 * count * item)
    if block == 0:
        return 0
    memcpy(block, old, count * item)
    free(old)
    store64(env + E_BYTES, load64(env + E_BYTES) - count * item)
    store64(pointer, block)
    store64(limit, 2 * count)
    return block


@device
def frame_of(state: int, number: int) -> int:
    """Address of a frame."""
    return load64(state + T_FRAME_AT + 8 * number)


@device
def top_frame(state: int) -> int:
    """Address of the frame that runs."""
    return load64(state + T_FRAME_AT + 8 * load64(state + T_NFRAMES) - 8)


@device
def reg_of(frame: int, regno: int) -> int:
    """Address of a register."""
    return frame + FRAME_REGS + regno * REG_SIZE


@device
def slot_of(frame: int, spi: int) -> int:
    """Address of a stack slot; the caller has looked at `nslots`."""
    return frame + FRAME_HEAD + spi * SLOT_SIZE


@device
def reg_off(reg: int) -> int:
    """`off`, signed."""
    return sx32(load32(reg + R_OFF))


@device
def reg_clear(reg: int, type: int) -> None:
    """No offset, id, map, number."""
    store32(reg + R_TYPE, type)
    store32(reg + R_OFF, 0)
    store64(reg + R_ID, 0)
    store32(reg + R_MAP, 0)
    store64(reg + R_NUM, 0)


@device
def mark_unknown(reg: int) -> None:
    """Any number, depending on nothing."""
    store32(reg + R_DEPS, 0)
    reg_clear(reg, SCALAR_VALUE)
    bounds_unknown(reg)


@device
def mark_not_init(reg: int) -> None:
    """Never written."""
    store32(reg + R_DEPS, 0)
    reg_clear(reg, NOT_INIT)
    bounds_unknown(reg)


@device
def mark_const(reg: int, value: int) -> None:
    """The number `value`, depending on nothing."""
    store32(reg + R_DEPS, 0)
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
def room_for_slot(frame: int, spi: int) -> int:
    """Address of a slot of a frame with room for all 64; those below it exist from now on, with nothing in them."""
    count = load64(frame + F_NSLOTS)
    while count <= spi:
        slot = slot_of(frame, count)
        store64(slot, 0)
        mark_not_init(slot + S_REG)
        count += 1
    if load64(frame + F_NSLOTS) < count:
        store64(frame + F_NSLOTS, count)
    return slot_of(frame, spi)


@device
def init_frame(frame: int, callsite: int, frameno: int, subprogno: int) -> None:
    """A frame with nothing in it but the frame pointer."""
    memset(frame, 0, FRAME_HEAD)
    store64(frame + F_CALLSITE, callsite)
    store64(frame + F_FRAMENO, frameno)
    store64(frame + F_SUBPROG, subprogno)
    store64(frame + F_CAP, SLOTS_PER_FRAME)
    for regno in range(MAX_BPF_REG):
        mark_not_init(reg_of(frame, regno))
    pointer = reg_of(frame, MAX_BPF_REG - 1)
    reg_clear(pointer, PTR_TO_STACK)
    store64(pointer + R_NUM, frameno)
    bounds_const(pointer, 0)


@device
def copy_frame(to: int, source: int, cap: int) -> None:
    """A frame's used part, into a place with room for `cap` slots."""
    memcpy(to, source, FRAME_HEAD + load64(source + F_NSLOTS) * SLOT_SIZE)
    store64(to + F_CAP, cap)


@device
def state_put(env: int, state: int) -> None:
    """One user less; states without users go, with what only they used."""
    if state == 0:
        return
    users = load64(state + T_USERS) - 1
    store64(state + T_USERS, users)
    if users != 0:
        return
    store64(state + T_NEXT, load64(env + E_PUT))
    store64(env + E_PUT, state)
    while load64(env + E_PUT) != 0:
        gone = load64(env + E_PUT)
        store64(env + E_PUT, load64(gone + T_NEXT))
        parent = load64(gone + T_PARENT)
        if parent != 0:
            users = load64(parent + T_USERS) - 1
            store64(parent + T_USERS, users)
            if users == 0:
                store64(parent + T_NEXT, load64(env + E_PUT))
                store64(env + E_PUT, parent)
        before = load64(gone + T_ALL_PREV)
        after = load64(gone + T_ALL_NEXT)
        if before != 0:
            store64(before + T_ALL_NEXT, after)
        else:
            store64(env + E_ALL, after)
        if after != 0:
            store64(after + T_ALL_PREV, before)
        store64(env + E_BYTES, load64(env + E_BYTES) - load64(gone + T_SIZE))
        free(gone)


@device
def _set_parent(state: int, parent: int) -> None:
    """A user more."""
    store64(state + T_PARENT, parent)
    if parent != 0:
        store64(parent + T_USERS, load64(parent + T_USERS) + 1)


@device
def state_save(env: int, source: int, roomy: int) -> int:
    """A copy in a block of its own with the same parent; `roomy`: a frame may still be added, and slots. 0: no memory."""
    count = load64(source + T_NFRAMES)
    size = STATE_HEAD
    for number in range(count):
        size += FRAME_HEAD + (SLOTS_PER_FRAME if roomy else load64(frame_of(source, number) + F_NSLOTS)) * SLOT_SIZE
    if roomy and count < MAX_CALL_FRAMES:
        size += FULL_FRAME
    state = allocate(env, size)
    if state == 0:
        return 0
    memcpy(state, source, STATE_HEAD)
    memset(state + T_PRECISE, 0, SET_SIZE)
    store64(state + T_BRANCHES, 0)
    store64(state + T_USERS, 1)
    store64(state + T_EQUAL, 0)
    store64(state + T_NEXT_BACKEDGE, 0)
    store64(state + T_NEXT, 0)
    store64(state + T_HIT, 0)
    store64(state + T_MISS, 0)
    store64(state + T_SIZE, size)
    _set_parent(state, load64(source + T_PARENT))
    where = state + STATE_HEAD
    for number in range(count):
        frame = frame_of(source, number)
        cap = SLOTS_PER_FRAME if roomy else load64(frame + F_NSLOTS)
        copy_frame(where, frame, cap)
        store64(state + T_FRAME_AT + 8 * number, where)
        where += FRAME_HEAD + cap * SLOT_SIZE
    if roomy and count < MAX_CALL_FRAMES:
        store64(state + T_FRAME_AT + 8 * count, where)
    first = load64(env + E_ALL)
    store64(state + T_ALL_PREV, 0)
    store64(state + T_ALL_NEXT, first)
    if first != 0:
        store64(first + T_ALL_PREV, state)
    store64(env + E_ALL, state)
    return state


@device
def state_restore(env: int, saved: int) -> None:
    """Make a saved state the one under way; the block is freed."""
    cur = load64(env + E_CUR)
    state_put(env, load64(cur + T_PARENT))
    memcpy(cur, saved, T_FRAME_AT)
    memset(cur + T_PRECISE, 0, SET_SIZE)
    _set_parent(cur, load64(saved + T_PARENT))
    for number in range(load64(saved + T_NFRAMES)):
        copy_frame(frame_of(cur, number), frame_of(saved, number), SLOTS_PER_FRAME)
    state_put(env, saved)


@device
def become_child(cur: int, parent: int) -> None:
    """`cur` goes on from the checkpoint `parent`: everything depends on itself there. The old parent has passed to it."""
    _set_parent(cur, parent)
    for number in range(load64(cur + T_NFRAMES)):
        frame = frame_of(cur, number)
        for regno in range(MAX_BPF_REG):
            store32(reg_of(frame, regno) + R_DEPS, identity(number, regno))
        for spi in range(load64(frame + F_NSLOTS)):
            store32(slot_of(frame, spi) + S_REG + R_DEPS, identity(number, MAX_BPF_REG + spi))


@device
def push_jmp_history(env: int) -> None:
    """The instruction under way is noted in the jump history, once. Only how long that is matters here.

    Kernel: push_jmp_history
    """
    if load64(env + E_IN_HISTORY) == 0:
        store64(env + E_IN_HISTORY, 1)
        cur = load64(env + E_CUR)
        store64(cur + T_HISTORY, load64(cur + T_HISTORY) + 1)


@device
def mask_add(env: int, mask: int, deps: int) -> None:
    """Add a dependency set to the bits at `mask`."""
    if deps == 0:
        return
    if deps < SINGLE_SETS:
        bit = deps - 1
        word = mask + 8 * (bit >> 6)
        store64(word, load64(word) | (1 << (bit & 63)))
        return
    source = load64(env + E_SETS) + (deps - SINGLE_SETS) * SET_SIZE
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
def _note_union(env: int, slot: int, key: int, result: int) -> None:
    """Remember a union; a table that is half full is made twice as large."""
    store64(slot, key)
    store64(slot + 8, result)
    count = load64(env + E_UNION_CNT) + 1
    store64(env + E_UNION_CNT, count)
    mask = load64(env + E_UNION_MASK)
    if 2 * count <= mask:
        return
    size = 2 * (mask + 1)
    table = allocate(env, 16 * size)
    if table == 0:
        return
    memset(table, 0, 16 * size)
    old = load64(env + E_UNIONS)
    for index in range(mask + 1):
        entry = old + 16 * index
        if load64(entry) != 0:
            where = _union_slot(table, size - 1, load64(entry))
            store64(where, load64(entry))
            store64(where + 8, load64(entry + 8))
    free(old)
    store64(env + E_BYTES, load64(env + E_BYTES) - 16 * (mask + 1))
    store64(env + E_UNIONS, table)
    store64(env + E_UNION_MASK, size - 1)


@device
def deps_union(env: int, a: int, b: int) -> int:
    """The set of what is in either; each union is made once."""
    if a == b or b == 0:
        return a
    if a == 0:
        return b
    if a > b:
        a, b = b, a
    key = (a << 32) | b
    mask = load64(env + E_UNION_MASK)
    table = load64(env + E_UNIONS)
    slot = _union_slot(table, mask, key)
    if load64(slot) == key:
        return load64(slot + 8)
    count = load64(env + E_SET_CNT)
    if count == load64(env + E_SET_MAX) and grow(env, env + E_SETS, env + E_SET_MAX, SET_SIZE) == 0:
        return a
    where = load64(env + E_SETS) + count * SET_SIZE
    memset(where, 0, SET_SIZE)
    mask_add(env, where, a)
    mask_add(env, where, b)
    result = count + SINGLE_SETS
    # one operand may hold the other
    if b >= SINGLE_SETS and _same_set(where, load64(env + E_SETS) + (b - SINGLE_SETS) * SET_SIZE):
        result = b
    elif a >= SINGLE_SETS and _same_set(where, load64(env + E_SETS) + (a - SINGLE_SETS) * SET_SIZE):
        result = a
    else:
        store64(env + E_SET_CNT, count + 1)
    _note_union(env, slot, key, result)
    return result


@device
def slot_deps(frame: int, spi: int) -> int:
    """Dependencies of a stack slot; those of one that was never written are none."""
    return load32(slot_of(frame, spi) + S_REG + R_DEPS) if spi < load64(frame + F_NSLOTS) else 0


@device
def has_refs(state: int) -> int:
    """Whether anything is held."""
    refs = load64(state + T_REFS)
    return 1 if refs != 0 and load64(refs + REFS_COUNT) != 0 else 0


@device
def forget_ref(env: int, state: int, ident: int) -> None:
    """Take a reference out of what the state holds."""
    refs = load64(state + T_REFS)
    if refs == 0:
        return
    count = load64(refs + REFS_COUNT)
    new = allocate(env, REFS_HEAD + count * REF_SIZE)
    if new == 0:
        return
    kept = 0
    for index in range(count):
        entry = refs + REFS_HEAD + index * REF_SIZE
        if load64(entry) != ident:
            memcpy(new + REFS_HEAD + kept * REF_SIZE, entry, REF_SIZE)
            kept += 1
    store64(new + REFS_COUNT, kept)
    store64(new + REFS_NEXT, load64(env + E_ALL_REFS))
    store64(env + E_ALL_REFS, new)
    store64(state + T_REFS, new)


@device
def new_id(env: int) -> int:
    """A number not used before in this run."""
    ident = load64(env + E_ID_GEN) + 1
    store64(env + E_ID_GEN, ident)
    return ident


@native()
def verifier_init(venv: int, sets: int, unions: int) -> int:
    """Make the first arrays (room for `sets`, `unions` a power of two) and the program's own frame; 0, or -1: no memory."""
    store64(venv + E_SETS, allocate(venv, sets * SET_SIZE))
    store64(venv + E_SET_MAX, sets)
    store64(venv + E_UNIONS, allocate(venv, 16 * unions))
    store64(venv + E_UNION_MASK, unions - 1)
    if load64(venv + E_NO_MEMORY):
        return -1
    memset(load64(venv + E_UNIONS), 0, 16 * unions)
    cur = load64(venv + E_CUR)
    memset(cur, 0, STATE_HEAD)
    for number in range(MAX_CALL_FRAMES):
        store64(cur + T_FRAME_AT + 8 * number, cur + STATE_HEAD + number * FULL_FRAME)
    store64(cur + T_NFRAMES, 1)
    init_frame(frame_of(cur, 0), -1, 0, 0)
    return 0


@native()
def verifier_free(venv: int) -> int:
    """Give back all that the run allocated."""
    state = load64(venv + E_ALL)
    while state != 0:
        after = load64(state + T_ALL_NEXT)
        free(state)
        state = after
    refs = load64(venv + E_ALL_REFS)
    while refs != 0:
        after = load64(refs + REFS_NEXT)
        free(refs)
        refs = after
    instance = load64(venv + E_INSTANCES)
    while instance != 0:
        after = load64(instance + INSTANCE_NEXT)
        for number in range(MAX_CALL_FRAMES):
            free(load64(instance + INSTANCE_MARKS + 8 * number))
        free(instance)
        instance = after
    free(load64(venv + E_SETS))
    free(load64(venv + E_UNIONS))
    visit = load64(venv + E_VISITS)
    while visit != 0:
        after = load64(visit + VISIT_NEXT)
        free(visit)
        visit = after
    memset(venv, 0, ENV_SIZE)
    return 0


@native()
def verifier_push_frame(state: int, callsite: int, subprogno: int) -> int:
    """A new frame on top; its address, or 0 where eight are in use."""
    count = load64(state + T_NFRAMES)
    if count >= MAX_CALL_FRAMES:
        return 0
    init_frame(frame_of(state, count), callsite, count, subprogno)
    store64(state + T_NFRAMES, count + 1)
    return frame_of(state, count)


@native()
def verifier_room(frame: int, spi: int) -> int:
    """Address of a stack slot that Python is about to write."""
    return room_for_slot(frame, spi)


@native()
def verifier_new_refs(venv: int, count: int) -> int:
    """A VREFS record for Python to fill, 0 where there is no memory."""
    refs = allocate(venv, REFS_HEAD + count * REF_SIZE)
    if refs != 0:
        store64(refs + REFS_COUNT, count)
        store64(refs + REFS_NEXT, load64(venv + E_ALL_REFS))
        store64(venv + E_ALL_REFS, refs)
    return refs


@native()
def verifier_restart(venv: int, insns: int, insn_cnt: int, insn_size: int, explored_at: int, subprogno: int) -> int:
    """Begin anew with a function: no checkpoints, one frame with nothing in it."""
    for index in range(insn_cnt):
        where = insns + index * insn_size + explored_at
        state = load64(where)
        store64(where, 0)
        while state != 0:
            after = load64(state + T_NEXT)
            state_put(venv, state)
            state = after
    visit = load64(venv + E_VISITS)
    store64(venv + E_VISITS, 0)
    while visit != 0:  # all paths were followed: none has anything left in it
        after = load64(visit + VISIT_NEXT)
        free(visit)
        store64(venv + E_BYTES, load64(venv + E_BYTES) - VISIT_SIZE)
        visit = after
    store64(venv + E_STATES, 0)
    cur = load64(venv + E_CUR)
    state_put(venv, load64(cur + T_PARENT))
    memset(cur, 0, T_FRAME_AT)
    memset(cur + T_PRECISE, 0, SET_SIZE)
    store64(cur + T_NFRAMES, 1)
    init_frame(frame_of(cur, 0), -1, 0, subprogno)
    return 0
