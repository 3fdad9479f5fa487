"""Checkpoints: where a path comes to a state that was already shown safe it ends, and loops are told from progress.

Kernel: kernel/bpf/verifier.c:is_state_visited, states_equal, func_states_equal, regsafe, stacksafe, refsafe,
clean_live_states, update_branch_counts.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load16, load32, load64, stack_bytes, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import (
    CALLS_CALLBACK,
    FORCE_CHECKPOINT,
    ITER_NEXT,
    MAX_BPF_REG,
    VENV,
    VINSN,
    VREF,
)
from fastrtp.verifier.bounds_native import R_SMIN, range_within
from fastrtp.verifier.liveness_native import clean_verifier_state
from fastrtp.verifier.loop_native import (
    add_scc_backedge,
    as_far,
    called_back,
    incomplete_visit,
    iterated,
    maybe_enter_scc,
    maybe_exit_scc,
)
from fastrtp.verifier.mem_native import E_INSN_IDX, insn_at
from fastrtp.verifier.precision_native import (
    E_IDMAP_CNT,
    both_ids,
    check_ids,
    is_precise,
    propagate_precision,
    regs_exact,
    regs_same,
    same_callsites,
)
from fastrtp.verifier.reason import OK, R_LOOP, R_NO_MEMORY, SAFE
from fastrtp.verifier.regtype import (
    NOT_INIT,
    PTR_TO_BUF,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_TO_TP_BUFFER,
    SCALAR_VALUE,
)
from fastrtp.verifier.stack_native import BPF_ADD_CONST, EVERY, say
from fastrtp.verifier.stacktype import STACK_DYNPTR, STACK_INVALID, STACK_ITER, STACK_MISC, STACK_SPILL
from fastrtp.verifier.state_native import (
    E_CUR,
    E_NO_MEMORY,
    F_ACTIVATION,
    F_CALLSITE,
    F_DEPTH,
    F_IN_CALLBACK,
    F_NSLOTS,
    R_ID,
    R_MAP,
    R_NUM,
    R_OFF,
    R_TYPE,
    REF_SIZE,
    REFS_COUNT,
    REFS_HEAD,
    S_REG,
    T_BRANCHES,
    T_CLEANED,
    T_FIRST,
    T_HISTORY,
    T_HIT,
    T_IDX,
    T_MAY_GOTO,
    T_MISS,
    T_NEXT,
    T_NFRAMES,
    T_PARENT,
    T_REFS,
    T_UNROLL,
    become_child,
    frame_of,
    mark_unknown,
    reg_of,
    reg_off,
    slot_of,
    state_put,
    state_save,
    top_frame,
)

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
"""How states are compared: imprecise scalars ignored; everything equal; all scalars within the old ranges."""
HISTORY_MAX = 40
"""A longer history of jumps makes a checkpoint."""
E_FRESH = at(VENV, "fresh")
E_TEST_FREQ = at(VENV, "test_state_freq")
E_PROCESSED, E_PREV_PROCESSED = at(VENV, "insn_processed"), at(VENV, "prev_insn_processed")
E_JMPS, E_PREV_JMPS = at(VENV, "jmps_processed"), at(VENV, "prev_jmps_processed")
E_ACTIVATIONS, E_FROM_CALLBACK = at(VENV, "activations"), at(VENV, "from_callback")
E_TOTAL, E_PEAK = at(VENV, "total_states"), at(VENV, "peak_states")
E_STATES, E_PER_INSN = at(VENV, "states"), at(VENV, "max_states_per_insn")
E_INSNS = at(VENV, "insns")
I_LIVE, I_FLAGS, I_EXPLORED = at(VINSN, "live"), at(VINSN, "flags"), at(VINSN, "explored")
INSN_SIZE = VINSN.itemsize
REF_ID, REF_KIND, REF_PTR = at(VREF, "id"), at(VREF, "kind"), at(VREF, "ptr")


@device
def _check_scalar_ids(env: int, old_id: int, cur_id: int) -> int:
    """A scalar without an id is bound to nothing, and may be; what now has none counts as one with an id of its own."""
    if old_id == 0:
        return 1
    if cur_id == 0:
        cur_id = load64(env + E_FRESH) - 1
        store64(env + E_FRESH, cur_id)
    if not check_ids(env, old_id, cur_id):
        return 0
    if old_id & BPF_ADD_CONST:
        return check_ids(env, old_id & ~BPF_ADD_CONST, cur_id & ~BPF_ADD_CONST if cur_id > 0 else cur_id)
    return 1


@device
def regsafe(env: int, old: int, cur: int, precise: int, exact: int) -> int:
    """Whether what was safe with `old` is safe with `cur`."""
    if exact == EXACT:
        return regs_exact(env, old, cur)
    kind = load32(old + R_TYPE)
    if kind == NOT_INIT:
        return 1
    if kind != load32(cur + R_TYPE):
        return 0
    if kind == SCALAR_VALUE:
        if not precise and exact == NOT_EXACT:
            return 1
        old_id = load32(old + R_ID)
        cur_id = load32(cur + R_ID)
        if old_id != 0 and (old_id & BPF_ADD_CONST) != (cur_id & BPF_ADD_CONST):
            return 0
        if old_id & BPF_ADD_CONST and load32(old + R_OFF) != load32(cur + R_OFF):
            return 0
        return range_within(old, cur) if _check_scalar_ids(env, old_id, cur_id) else 0
    base = kind & 0xFF
    if base == PTR_TO_MAP_VALUE or base == PTR_TO_MEM or base == PTR_TO_MAP_KEY or base == PTR_TO_BUF or base == PTR_TO_TP_BUFFER:
        if (
            load32(old + R_OFF) != load32(cur + R_OFF)
            or load64(old + R_NUM) != load64(cur + R_NUM)
            or load32(old + R_MAP) != load32(cur + R_MAP)
            or not range_within(old, cur)
        ):
            return 0
        return both_ids(env, old, cur)
    return regs_exact(env, old, cur)


@device
def _is_data(slot: int) -> int:
    """Whether every byte is unknown data or was never written: then it does not matter what a later state has there."""
    for i in range(8):
        kind = load8(slot + i)
        if kind != STACK_MISC and kind != STACK_INVALID:
            return 0
    return 1


@device
def _scalar_reg_for_stack(slot: int, unknown: int) -> int:
    """The scalar that eight bytes of stack are, or 0."""
    types = load64(slot)
    if types == EVERY * STACK_SPILL:
        return slot + S_REG if load32(slot + S_REG + R_TYPE) == SCALAR_VALUE else 0
    if types == EVERY * STACK_MISC or types == 0:
        return unknown
    return unknown if _is_data(slot) else 0


@device
def _slot_safe(env: int, old: int, cur: int, precise: int, exact: int, unknown: int) -> int:
    was = old + S_REG
    now = cur + S_REG
    if exact != NOT_EXACT and load64(old) != load64(cur):
        return 0
    if load64(old) == 0:
        return 1
    if load8(old + 7) >= STACK_DYNPTR:
        # the same kind and state; how often an active iterator went round matters to EXACT alone
        if load64(old) != load64(cur) or load64(was + R_NUM) != load64(now + R_NUM):
            return 0
        if exact == EXACT and load32(was + R_OFF) != load32(now + R_OFF):
            return 0
        return both_ids(env, was, now)
    if exact == EXACT:
        return regs_exact(env, was, now) if load8(old + 7) == STACK_SPILL else 1
    old_reg = _scalar_reg_for_stack(old, unknown)
    if old_reg != 0:
        cur_reg = _scalar_reg_for_stack(cur, unknown)
        if cur_reg != 0:
            return regsafe(env, old_reg, cur_reg, precise, exact)
    for i in range(8):
        kind = load8(old + i)
        if kind != load8(cur + i) and kind != STACK_INVALID and kind != STACK_MISC:
            return 0
    if load8(old + 7) != STACK_SPILL:
        return 1
    return regsafe(env, was, now, precise, exact) if load8(cur + 7) == STACK_SPILL else 0


@device
def _func_states_equal(env: int, state: int, number: int, old: int, cur: int, live: int, exact: int, unknown: int) -> int:
    if load64(old + F_DEPTH) > load64(cur + F_DEPTH):
        return 0
    for regno in range(MAX_BPF_REG):
        if (live >> regno) & 1 == 0:
            continue
        if not regsafe(env, reg_of(old, regno), reg_of(cur, regno), is_precise(state, number, regno), exact):
            return 0
    old_count = load64(old + F_NSLOTS)
    cur_count = load64(cur + F_NSLOTS)
    for spi in range(old_count):
        slot = slot_of(old, spi)
        if spi >= cur_count:
            if exact != NOT_EXACT or not _is_data(slot):
                return 0
            continue
        other = slot_of(cur, spi)
        if not _slot_safe(env, slot, other, is_precise(state, number, MAX_BPF_REG + spi), exact, unknown):
            return 0
    return 1


@device
def _refs_equal(env: int, old: int, cur: int) -> int:
    """The same kinds of things are held, in the same order."""
    a = load64(old + T_REFS)
    b = load64(cur + T_REFS)
    count = load64(a + REFS_COUNT) if a != 0 else 0
    if count != (load64(b + REFS_COUNT) if b != 0 else 0):
        return 0
    for index in range(count):
        was = a + REFS_HEAD + index * REF_SIZE
        now = b + REFS_HEAD + index * REF_SIZE
        if load64(was + REF_KIND) != load64(now + REF_KIND) or load64(was + REF_PTR) != load64(now + REF_PTR):
            return 0
        if not check_ids(env, load64(was + REF_ID), load64(now + REF_ID)):
            return 0
    return 1


@device
def states_equal(env: int, old: int, cur: int, exact: int) -> int:
    """Whether `cur` needs no further look because `old` was safe (`exact` says how to compare)."""
    if not same_callsites(old, cur):
        return 0
    store64(env + E_IDMAP_CNT, 0)
    store64(env + E_FRESH, 0)
    unknown = stack_bytes(96)
    mark_unknown(unknown)
    last = load64(old + T_NFRAMES) - 1
    for number in range(last + 1):
        was = frame_of(old, number)
        now = frame_of(cur, number)
        if load64(was + F_IN_CALLBACK) != load64(now + F_IN_CALLBACK):
            return 0
        idx = load64(env + E_INSN_IDX) if number == last else load64(frame_of(old, number + 1) + F_CALLSITE)
        live = load16(load64(env + E_INSNS) + idx * INSN_SIZE + I_LIVE)
        if not _func_states_equal(env, old, number, was, now, live, exact, unknown):
            return 0
    return _refs_equal(env, old, cur)


@device
def _states_maybe_looping(old: int, cur: int) -> int:
    if load64(old + T_NFRAMES) != load64(cur + T_NFRAMES):
        return 0
    was = top_frame(old)
    now = top_frame(cur)
    for regno in range(MAX_BPF_REG):
        if not regs_same(reg_of(was, regno), reg_of(now, regno)):
            return 0
    return 1


@device
def _iter_active(cur: int) -> int:
    """Whether the iterator that R1 points at, at a call for its next value, may have one."""
    reg = reg_of(top_frame(cur), 1)
    if load32(reg + R_TYPE) != PTR_TO_STACK:
        return 0
    spi = (-reg_off(reg) - load64(reg + R_SMIN) - 1) >> 3
    frame = frame_of(cur, load64(reg + R_NUM))
    if spi < 0 or spi >= load64(frame + F_NSLOTS):
        return 0
    slot = slot_of(frame, spi)
    return 1 if load8(slot + 7) == STACK_ITER and load64(slot + S_REG + R_NUM) == 1 else 0


@device
def _add_checkpoint(env: int, insn: int, cur: int) -> int:
    """Keep a copy of the state under way, which goes on as its child."""
    store64(cur + T_HISTORY, 0)
    new = state_save(env, cur, 0)
    if new == 0:
        return R_NO_MEMORY
    idx = load64(env + E_INSN_IDX)
    store64(new + T_IDX, idx)
    store64(new + T_BRANCHES, 1)
    store64(new + T_NEXT, load64(insn + I_EXPLORED))
    store64(insn + I_EXPLORED, new)
    parent = load64(cur + T_PARENT)
    become_child(cur, new)
    state_put(env, parent)
    maybe_enter_scc(env, new)
    store64(cur + T_FIRST, idx)
    store64(env + E_PREV_JMPS, load64(env + E_JMPS))
    store64(env + E_PREV_PROCESSED, load64(env + E_PROCESSED))
    store64(env + E_TOTAL, load64(env + E_TOTAL) + 1)
    states = load64(env + E_STATES) + 1
    store64(env + E_STATES, states)
    store64(env + E_PEAK, max(load64(env + E_PEAK), states))
    return OK


@device
def is_state_visited(env: int) -> int:
    """SAFE: the path ends here; else it may have become a checkpoint."""
    insn = insn_at(env)
    cur = load64(env + E_CUR)
    flags = load16(insn + I_FLAGS)
    force = load64(env + E_TEST_FREQ) != 0 or (flags & FORCE_CHECKPOINT) != 0 or load64(cur + T_HISTORY) > HISTORY_MAX
    jumps = load64(env + E_JMPS) - load64(env + E_PREV_JMPS)
    done = load64(env + E_PROCESSED) - load64(env + E_PREV_PROCESSED)
    add_new_state = force or (jumps >= 2 and done >= 8)
    calls_back = (flags & CALLS_CALLBACK) != 0
    if calls_back and not load64(env + E_FROM_CALLBACK):
        activations = load64(env + E_ACTIVATIONS) + 1
        store64(env + E_ACTIVATIONS, activations)
        store64(top_frame(cur) + F_ACTIVATION, activations)
    store64(env + E_FROM_CALLBACK, 0)
    old = load64(insn + I_EXPLORED)
    if old == 0 and not add_new_state:
        return OK
    link = insn + I_EXPLORED
    count = 0
    while old != 0:
        after = load64(old + T_NEXT)
        loop = False
        hit = False
        if load64(old + T_BRANCHES) != 0:
            if calls_back:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and called_back(old, cur) != 0
                loop = hit
            elif (flags & ITER_NEXT) != 0:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and _iter_active(cur) != 0 and iterated(old, cur) != 0
                loop = hit
            elif load64(old + T_MAY_GOTO) != load64(cur + T_MAY_GOTO):
                hit = (flags & FORCE_CHECKPOINT) != 0 and states_equal(env, old, cur, RANGE_WITHIN) != 0
                loop = hit
            elif (
                load64(old + T_UNROLL) == load64(cur + T_UNROLL)
                and _states_maybe_looping(old, cur) != 0
                and states_equal(env, old, cur, EXACT) != 0
            ):
                return say(env, R_LOOP, old, 0, 0, 0)
            if not hit and not force and jumps < 20 and done < 100:
                add_new_state = False
        else:
            visit = incomplete_visit(env, old)
            loop = visit != 0
            if loop:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and as_far(visit, old, cur) != 0
            else:
                if not load64(old + T_CLEANED) and same_callsites(old, cur):
                    clean_verifier_state(env, old)
                hit = states_equal(env, old, cur, NOT_EXACT) != 0
        if hit:
            store64(old + T_HIT, load64(old + T_HIT) + 1)
            propagate_precision(env, old, cur)
            if loop:
                add_scc_backedge(env, old, cur)
            return R_NO_MEMORY if load64(env + E_NO_MEMORY) else SAFE
        misses = load64(old + T_MISS)
        if add_new_state:
            misses += 1
            store64(old + T_MISS, misses)
        limit = 64 if (flags & FORCE_CHECKPOINT) != 0 and load64(old + T_BRANCHES) != 0 else 3
        if misses > load64(old + T_HIT) * limit + limit:
            # useless: out of the list, and gone once no path needs it as its past
            if link == insn + I_EXPLORED:
                store64(link, after)
            else:
                store64(link + T_NEXT, after)
            store64(env + E_STATES, load64(env + E_STATES) - 1)
            state_put(env, old)
        else:
            link = old
            count += 1
        old = after
    store64(env + E_PER_INSN, max(load64(env + E_PER_INSN), count))
    return _add_checkpoint(env, insn, cur) if add_new_state else OK


@device
def update_branch_counts(env: int, state: int) -> None:
    """A path is done: so are the checkpoints that have no other."""
    parent = load64(state + T_PARENT)
    while parent != 0:
        branches = load64(parent + T_BRANCHES) - 1
        store64(parent + T_BRANCHES, branches)
        if branches != 0:
            return
        maybe_exit_scc(env, parent)
        parent = load64(parent + T_PARENT)
