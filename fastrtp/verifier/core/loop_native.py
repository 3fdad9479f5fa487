"""Loops: what is not known of a checkpoint before every way round has been followed, and that each way round has an end.

A loop is a strongly connected component of a function's instructions; a visit is a loop as entered through one chain of
callers. While a path was pruned in a visit that is not over, precision is incomplete for the checkpoints in it: states are
compared with them by all ranges, and what the pruned paths have to pass on is passed on when the visit is over.

Ends: where it was shown beforehand that every loop has an end (termination.py: `loops_end`), paths are pruned wherever Linux
prunes them. Elsewhere a loop ends if each way round uses something up that is bounded: values of an iterator, runs of a
callback by its helper, a may_goto's count. It must be the same iterator, or run of the helper, as before, not one made anew by
the same call. Iterators are ordered as they were made: an older one that has handed out another value may make all younger
ones anew.

Kernel: kernel/bpf/verifier.c:compute_scc_callchain, maybe_enter_scc, maybe_exit_scc, add_scc_backedge,
incomplete_read_marks, propagate_backedges, iter_active_depths_differ.
Differs: Linux takes iterators that were made anew, too, wherever they are, and so accepts loops without an end.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, memset
from fastrtp.verifier.core.precision_native import propagate_precision
from fastrtp.verifier.core.state_native import (
    VISIT_SIZE,
    allocate,
    frame_of,
    slot_of,
    state_put,
    state_save,
)
from fastrtp.verifier.domain.records import VEnv, VInsn, VState, VVisit
from fastrtp.verifier.domain.stacktype import STACK_ITER

KIND_ITER = 1
"""`kind` of a reference to an iterator."""
ANEW, SAME, FURTHER = -1, 0, 1
"""Iterators of a state beside those of an earlier one."""
NO_FLOOR = (1 << 62) - 1
EDGES_MAX = 256
"""So many pruned paths are looked at; beyond them the answer is no."""
INSN_SIZE = VInsn.layout.size


@device
def _scc_at(env: VEnv, idx: int) -> int:
    return env.insns[idx].scc


@device
def _is_visit_of(visit: VVisit, scc: int, depth: int, state: VState) -> int:
    if visit.scc != scc or visit.depth != depth:
        return 0
    for number in range(depth):
        if visit.callsites[number] != frame_of(state, number + 1).callsite:
            return 0
    return 1


@device
def visit_of(env: VEnv, state: VState, idx: int, make: int) -> VVisit:
    """The visit that a state, at instruction `idx`, belongs to, by its outermost frame in a loop; 0 for none, or no memory."""
    last = state.nframes - 1
    for depth in range(last + 1):
        scc = _scc_at(env, idx if depth == last else frame_of(state, depth + 1).callsite)
        if scc == 0:
            continue
        visit = env.visits
        while visit:
            if _is_visit_of(visit, scc, depth, state):
                return visit
            visit = visit.next
        if not make:
            return VVisit(0)
        visit = VVisit(allocate(env, VISIT_SIZE))
        if visit:
            memset(int(visit), 0, VISIT_SIZE)
            visit.scc = scc
            visit.depth = depth
            for number in range(depth):
                visit.callsites[number] = frame_of(state, number + 1).callsite
            visit.next = env.visits
            env.visits = visit
        return visit
    return VVisit(0)


@device
def maybe_enter_scc(env: VEnv, state: VState) -> None:
    """A new checkpoint: the first of a visit ends it, when all paths from there are followed."""
    visit = visit_of(env, state, state.insn_idx, 1)
    if visit and not visit.entry_state:
        visit.entry_state = state


@device
def maybe_exit_scc(env: VEnv, state: VState) -> None:
    """All paths from a checkpoint are followed. Kernel: maybe_exit_scc, propagate_backedges."""
    visit = visit_of(env, state, state.insn_idx, 0)
    if not visit or visit.entry_state != state:
        return
    visit.entry_state = VState(0)
    changed = True
    while changed:
        changed = False
        edge = visit.backedges
        while edge:
            if propagate_precision(env, edge.equal_state, edge):
                changed = True
            edge = edge.next_backedge
    edge = visit.backedges
    visit.backedges = VState(0)
    visit.iter_floor = 0
    visit.activation_floor = 0
    while edge:
        after = edge.next_backedge
        equal = edge.equal_state
        state_put(env, edge)
        state_put(env, equal)
        edge = after


@device
def add_scc_backedge(env: VEnv, old: VState, cur: VState) -> None:
    """A path was pruned at `old`, of which not all is known."""
    visit = visit_of(env, old, old.insn_idx, 1)
    if not visit:
        return
    edge = state_save(env, cur, 0)
    if not edge:
        return
    edge.equal_state = old
    old.users += 1
    edge.next_backedge = visit.backedges
    visit.backedges = edge
    refs = old.refs
    for index in range(refs.count if refs else 0):
        ref = refs.items[index]
        if ref.kind == KIND_ITER:
            visit.iter_floor = max(visit.iter_floor, ref.id)
    for number in range(old.nframes):
        activation = frame_of(old, number).activation
        visit.activation_floor = max(visit.activation_floor, activation)


@device
def incomplete_visit(env: VEnv, state: VState) -> VVisit:
    """The visit of a checkpoint where a path was pruned in it and it is not over, else 0. Kernel: incomplete_read_marks."""
    visit = visit_of(env, state, state.insn_idx, 0)
    return visit if visit and visit.backedges else VVisit(0)


@device
def _iter_depth(state: VState, ref: int) -> int:
    """How many values the iterator with a reference has handed out."""
    for number in range(state.nframes):
        frame = frame_of(state, number)
        for spi in range(frame.nslots):
            slot = slot_of(frame, spi)
            if slot.slot_type[7] == STACK_ITER and slot.reg.ref_obj_id == ref:
                return slot.reg.off & 0xFFFFFFFF
    return 0


@device
def _further_than_all(visit: VVisit, state: VState, ref: int) -> int:
    """Whether an iterator has gone further than wherever a path was pruned in the visit."""
    depth = _iter_depth(state, ref)
    edge = visit.backedges
    count = 0
    while edge:
        count += 1
        if count > EDGES_MAX or _iter_depth(edge.equal_state, ref) >= depth:
            return 0
        edge = edge.next_backedge
    return 1


@device
def _iters_beside(old: VState, cur: VState, floor: int, visit: VVisit) -> int:
    """ANEW, SAME or FURTHER: `cur`'s iterators beside those of `old`, the oldest first. Both hold as many (refsafe).

    Those made after whatever leads round (`floor`) may differ. In a visit, one that is further than all that paths were
    pruned at is far enough, whatever `old` has: none of these can be come round to without it.
    """
    a = old.refs
    b = cur.refs
    for index in range(a.count if a else 0):
        was = a.items[index]
        now = b.items[index]
        if was.kind != KIND_ITER:
            continue
        before = was.id
        after = now.id
        if before != after:
            if before > floor and after > floor:
                continue
            return ANEW
        depth = _iter_depth(cur, after) - _iter_depth(old, before)
        if depth > 0 or (depth < 0 and visit and _further_than_all(visit, cur, after) != 0):
            return FURTHER
        if depth < 0:
            return ANEW
    return SAME


@device
def _same_activations(old: VState, cur: VState, floor: int) -> int:
    """Whether both states are in the same runs of the helpers that called back, frame by frame."""
    for number in range(old.nframes):
        before = frame_of(old, number).activation
        after = frame_of(cur, number).activation
        if before != after and (before <= floor or after <= floor):
            return 0
    return 1


@device
def iterated(env: VEnv, old: VState, cur: VState) -> int:
    """`cur` came round to `old` at a call for an iterator's next value: whether that can happen a bounded number of times."""
    return 1 if env.loops_end or _iters_beside(old, cur, NO_FLOOR, VVisit(0)) == FURTHER else 0


@device
def called_back(env: VEnv, old: VState, cur: VState) -> int:
    """The same at a call of a helper that calls back."""
    if env.loops_end:
        return 1
    beside = _iters_beside(old, cur, NO_FLOOR, VVisit(0))
    return 1 if beside == FURTHER or (beside == SAME and _same_activations(old, cur, NO_FLOOR) != 0) else 0


@device
def as_far(env: VEnv, visit: VVisit, old: VState, cur: VState) -> int:
    """Whether going on from `cur` as from `old` uses up what `old` used up on its ways round, or more."""
    if env.loops_end:
        return 1
    beside = _iters_beside(old, cur, visit.iter_floor, visit)
    return 1 if beside == FURTHER or (beside == SAME and _same_activations(old, cur, visit.activation_floor)) else 0
