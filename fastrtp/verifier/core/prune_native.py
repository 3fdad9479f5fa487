"""Checkpoints: where a path comes to a state that was already shown safe it ends, and loops are told from progress.

Kernel: kernel/bpf/verifier.c:is_state_visited, states_equal, func_states_equal, regsafe, stacksafe, refsafe,
clean_live_states, update_branch_counts.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, stack_bytes, store64
from fastrtp.verifier.core.liveness_native import clean_verifier_state
from fastrtp.verifier.core.loop_native import (
    add_scc_backedge,
    as_far,
    called_back,
    incomplete_visit,
    iterated,
    maybe_enter_scc,
    maybe_exit_scc,
)
from fastrtp.verifier.core.mem_native import insn_at
from fastrtp.verifier.core.precision_native import (
    both_ids,
    check_ids,
    is_precise,
    propagate_precision,
    regs_exact,
    regs_same,
    same_callsites,
)
from fastrtp.verifier.core.reason import OK, R_LOOP, R_NO_MEMORY, SAFE
from fastrtp.verifier.core.stack_native import BPF_ADD_CONST, EVERY, say
from fastrtp.verifier.core.state_native import (
    become_child,
    frame_of,
    mark_unknown,
    reg_of,
    slot_of,
    slot_types,
    state_put,
    state_save,
    top_frame,
)
from fastrtp.verifier.domain.bounds_native import range_within
from fastrtp.verifier.domain.records import (
    CALLS_CALLBACK,
    FORCE_CHECKPOINT,
    ITER_NEXT,
    MAX_BPF_REG,
    VEnv,
    VFrame,
    VInsn,
    VReg,
    VSlot,
    VState,
)
from fastrtp.verifier.domain.regtype import (
    NOT_INIT,
    PTR_TO_BUF,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_TO_TP_BUFFER,
    SCALAR_VALUE,
)
from fastrtp.verifier.domain.stacktype import STACK_DYNPTR, STACK_INVALID, STACK_ITER, STACK_MISC, STACK_SPILL

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
"""How states are compared: imprecise scalars ignored; everything equal; all scalars within the old ranges."""
HISTORY_MAX = 40
"""A longer history of jumps makes a checkpoint."""
I_EXPLORED = VInsn.layout.at("explored")
INSN_SIZE = VInsn.layout.size


@device
def _check_scalar_ids(env: VEnv, old_id: int, cur_id: int) -> int:
    """A scalar without an id is bound to nothing, and may be; what now has none counts as one with an id of its own."""
    if old_id == 0:
        return 1
    if cur_id == 0:
        cur_id = env.fresh - 1
        env.fresh = cur_id
    if not check_ids(env, old_id, cur_id):
        return 0
    if old_id & BPF_ADD_CONST:
        return check_ids(env, old_id & ~BPF_ADD_CONST, cur_id & ~BPF_ADD_CONST if cur_id > 0 else cur_id)
    return 1


@device
def regsafe(env: VEnv, old: VReg, cur: VReg, precise: int, exact: int) -> int:
    """Whether what was safe with `old` is safe with `cur`."""
    if exact == EXACT:
        return regs_exact(env, old, cur)
    kind = old.type
    if kind == NOT_INIT:
        return 1
    if kind != cur.type:
        return 0
    if kind == SCALAR_VALUE:
        if not precise and exact == NOT_EXACT:
            return 1
        old_id = old.id
        cur_id = cur.id
        if old_id != 0 and (old_id & BPF_ADD_CONST) != (cur_id & BPF_ADD_CONST):
            return 0
        if old_id & BPF_ADD_CONST and old.off != cur.off:
            return 0
        return range_within(old, cur) if _check_scalar_ids(env, old_id, cur_id) else 0
    base = kind & 0xFF
    if base == PTR_TO_MAP_VALUE or base == PTR_TO_MEM or base == PTR_TO_MAP_KEY or base == PTR_TO_BUF or base == PTR_TO_TP_BUFFER:
        if old.off != cur.off or old.num != cur.num or old.map != cur.map or not range_within(old, cur):
            return 0
        return both_ids(env, old, cur)
    return regs_exact(env, old, cur)


@device
def _is_data(slot: VSlot) -> int:
    """Whether every byte is unknown data or was never written: then it does not matter what a later state has there."""
    for i in range(8):
        kind = slot.slot_type[i]
        if kind != STACK_MISC and kind != STACK_INVALID:
            return 0
    return 1


@device
def _scalar_reg_for_stack(slot: VSlot, unknown: int) -> VReg:
    """The scalar that eight bytes of stack are, or 0."""
    types = slot_types(slot)
    if types == EVERY * STACK_SPILL:
        return slot.reg if slot.reg.type == SCALAR_VALUE else VReg(0)
    if types == EVERY * STACK_MISC or types == 0:
        return VReg(unknown)
    return VReg(unknown if _is_data(slot) else 0)


@device
def _slot_safe(env: VEnv, old: VSlot, cur: VSlot, precise: int, exact: int, unknown: int) -> int:
    was = old.reg
    now = cur.reg
    if exact != NOT_EXACT and slot_types(old) != slot_types(cur):
        return 0
    if slot_types(old) == 0:
        return 1
    if old.slot_type[7] >= STACK_DYNPTR:
        # the same kind and state; how often an active iterator went round matters to EXACT alone
        if slot_types(old) != slot_types(cur) or was.num != now.num:
            return 0
        if exact == EXACT and was.off != now.off:
            return 0
        return both_ids(env, was, now)
    if exact == EXACT:
        return regs_exact(env, was, now) if old.slot_type[7] == STACK_SPILL else 1
    old_reg = _scalar_reg_for_stack(old, unknown)
    if old_reg:
        cur_reg = _scalar_reg_for_stack(cur, unknown)
        if cur_reg:
            return regsafe(env, old_reg, cur_reg, precise, exact)
    for i in range(8):
        kind = old.slot_type[i]
        if kind != cur.slot_type[i] and kind != STACK_INVALID and kind != STACK_MISC:
            return 0
    if old.slot_type[7] != STACK_SPILL:
        return 1
    return regsafe(env, was, now, precise, exact) if cur.slot_type[7] == STACK_SPILL else 0


@device
def _func_states_equal(
    env: VEnv, state: VState, number: int, old: VFrame, cur: VFrame, live: int, exact: int, unknown: int
) -> int:
    if old.callback_depth > cur.callback_depth:
        return 0
    for regno in range(MAX_BPF_REG):
        if (live >> regno) & 1 == 0:
            continue
        if not regsafe(env, reg_of(old, regno), reg_of(cur, regno), is_precise(state, number, regno), exact):
            return 0
    old_count = old.nslots
    cur_count = cur.nslots
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
def _refs_equal(env: VEnv, old: VState, cur: VState) -> int:
    """The same kinds of things are held, in the same order."""
    a = old.refs
    b = cur.refs
    count = a.count if a else 0
    if count != (b.count if b else 0):
        return 0
    for index in range(count):
        was = a.items[index]
        now = b.items[index]
        if was.kind != now.kind or was.ptr != now.ptr:
            return 0
        if not check_ids(env, was.id, now.id):
            return 0
    return 1


@device
def states_equal(env: VEnv, old: VState, cur: VState, exact: int) -> int:
    """Whether `cur` needs no further look because `old` was safe (`exact` says how to compare)."""
    if not same_callsites(old, cur):
        return 0
    env.idmap_cnt = 0
    env.fresh = 0
    unknown = VReg(stack_bytes(96))
    mark_unknown(unknown)
    last = old.nframes - 1
    for number in range(last + 1):
        was = frame_of(old, number)
        now = frame_of(cur, number)
        if was.in_callback_fn != now.in_callback_fn:
            return 0
        idx = env.insn_idx if number == last else frame_of(old, number + 1).callsite
        live = env.insns[idx].live
        if not _func_states_equal(env, old, number, was, now, live, exact, int(unknown)):
            return 0
    return _refs_equal(env, old, cur)


@device
def _states_maybe_looping(old: VState, cur: VState) -> int:
    if old.nframes != cur.nframes:
        return 0
    was = top_frame(old)
    now = top_frame(cur)
    for regno in range(MAX_BPF_REG):
        if not regs_same(reg_of(was, regno), reg_of(now, regno)):
            return 0
    return 1


@device
def _iter_active(cur: VState) -> int:
    """Whether the iterator that R1 points at, at a call for its next value, may have one."""
    reg = reg_of(top_frame(cur), 1)
    if reg.type != PTR_TO_STACK:
        return 0
    spi = (-reg.off - reg.smin - 1) >> 3
    frame = frame_of(cur, reg.num)
    if spi < 0 or spi >= frame.nslots:
        return 0
    slot = slot_of(frame, spi)
    return 1 if slot.slot_type[7] == STACK_ITER and slot.reg.num == 1 else 0


@device
def _add_checkpoint(env: VEnv, insn: VInsn, cur: VState) -> int:
    """Keep a copy of the state under way, which goes on as its child."""
    cur.history = 0
    new = state_save(env, cur, 0)
    if not new:
        return R_NO_MEMORY
    idx = env.insn_idx
    new.insn_idx = idx
    new.branches = 1
    new.next = insn.explored
    insn.explored = new
    parent = cur.parent
    become_child(cur, new)
    state_put(env, parent)
    maybe_enter_scc(env, new)
    cur.first_insn_idx = idx
    env.prev_jmps_processed = env.jmps_processed
    env.prev_insn_processed = env.insn_processed
    env.total_states += 1
    states = env.states + 1
    env.states = states
    env.peak_states = max(env.peak_states, states)
    return OK


MISSES_UNPROVED = 1024
"""For how long a checkpoint of a loop that is not over is kept where the loops' ends are not proved (64 in Linux, and here where
they are). There a path that finds it gone cannot end at a later one whose iterator was made anew, as it does in Linux, and would
follow all rounds of the loop around it once more, each of them so.
"""


@device
def is_state_visited(env: VEnv) -> int:
    """SAFE: the path ends here; else it may have become a checkpoint."""
    insn = insn_at(env)
    cur = env.cur
    flags = insn.flags
    force = env.test_state_freq != 0 or (flags & FORCE_CHECKPOINT) != 0 or cur.history > HISTORY_MAX
    jumps = env.jmps_processed - env.prev_jmps_processed
    done = env.insn_processed - env.prev_insn_processed
    add_new_state = force or (jumps >= 2 and done >= 8)
    calls_back = (flags & CALLS_CALLBACK) != 0
    if calls_back and not env.from_callback:
        activations = env.activations + 1
        env.activations = activations
        top_frame(cur).activation = activations
    env.from_callback = 0
    old = insn.explored
    if not old and not add_new_state:
        return OK
    link = int(insn) + I_EXPLORED
    count = 0
    while old:
        after = old.next
        loop = False
        hit = False
        if old.branches != 0:
            if calls_back:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and called_back(env, old, cur) != 0
                loop = hit
            elif (flags & ITER_NEXT) != 0:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and _iter_active(cur) != 0 and iterated(env, old, cur) != 0
                loop = hit
            elif old.may_goto_depth != cur.may_goto_depth:
                hit = (flags & FORCE_CHECKPOINT) != 0 and states_equal(env, old, cur, RANGE_WITHIN) != 0
                loop = hit
            elif (
                old.callback_unroll_depth == cur.callback_unroll_depth
                and _states_maybe_looping(old, cur) != 0
                and states_equal(env, old, cur, EXACT) != 0
            ):
                return say(env, R_LOOP, int(old), 0, 0, 0)
            if not hit and not force and jumps < 20 and done < 100:
                add_new_state = False
        else:
            visit = incomplete_visit(env, old)
            loop = bool(visit)
            if visit:
                hit = states_equal(env, old, cur, RANGE_WITHIN) != 0 and as_far(env, visit, old, cur) != 0
            else:
                if not old.cleaned and same_callsites(old, cur):
                    clean_verifier_state(env, old)
                hit = states_equal(env, old, cur, NOT_EXACT) != 0
        if hit:
            old.hit_cnt += 1
            propagate_precision(env, old, cur)
            if loop:
                add_scc_backedge(env, old, cur)
            return R_NO_MEMORY if env.out_of_memory else SAFE
        misses = old.miss_cnt
        if add_new_state:
            misses += 1
            old.miss_cnt = misses
        limit = 3
        if (flags & FORCE_CHECKPOINT) != 0 and old.branches != 0:
            limit = 64 if env.loops_end else MISSES_UNPROVED
        if misses > old.hit_cnt * limit + limit:
            # useless: out of the list, and gone once no path needs it as its past
            if link == int(insn) + I_EXPLORED:
                store64(link, int(after))
            else:
                VState(link).next = after
            env.states -= 1
            state_put(env, old)
        else:
            link = int(old)
            count += 1
        old = after
    env.max_states_per_insn = max(env.max_states_per_insn, count)
    return _add_checkpoint(env, insn, cur) if add_new_state else OK


@device
def update_branch_counts(env: VEnv, state: VState) -> None:
    """A path is done: so are the checkpoints that have no other."""
    parent = state.parent
    while parent:
        branches = parent.branches - 1
        parent.branches = branches
        if branches != 0:
            return
        maybe_exit_scc(env, parent)
        parent = parent.parent
