"""Loops: what is not known of a checkpoint before every way round has been followed, and that each way round has an end.

A loop is a strongly connected component of a function's instructions; a visit is a loop as entered through one chain of
callers. While a path was pruned in a visit that is not over, precision is incomplete for the checkpoints in it: states are
compared with them by all ranges, and what the pruned paths have to pass on is passed on when the visit is over.

Ends: a loop ends if each way round uses something up that is bounded: values of an iterator, runs of a callback by its
helper, a may_goto's count. It must be the same iterator, or run of the helper, as before, not one made anew by the same
call. Iterators are ordered as they were made: an older one that has handed out another value may make all younger ones anew.

Kernel: kernel/bpf/verifier.c:compute_scc_callchain, maybe_enter_scc, maybe_exit_scc, add_scc_backedge,
incomplete_read_marks, propagate_backedges, iter_active_depths_differ.
Differs: Linux takes iterators that were made anew, too, and so accepts loops without an end.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load32, load64, memset, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import VENV, VINSN, VREF, VVISIT
from fastrtp.verifier.precision_native import propagate_precision
from fastrtp.verifier.stacktype import STACK_ITER
from fastrtp.verifier.state_native import (
    E_VISITS,
    F_ACTIVATION,
    F_CALLSITE,
    F_NSLOTS,
    R_OFF,
    R_REF,
    REF_SIZE,
    REFS_COUNT,
    REFS_HEAD,
    S_REG,
    T_EQUAL,
    T_IDX,
    T_NEXT_BACKEDGE,
    T_NFRAMES,
    T_REFS,
    T_USERS,
    VISIT_NEXT,
    VISIT_SIZE,
    allocate,
    frame_of,
    slot_of,
    state_put,
    state_save,
)

KIND_ITER = 1
"""`kind` of a reference to an iterator."""
ANEW, SAME, FURTHER = -1, 0, 1
"""Iterators of a state beside those of an earlier one."""
NO_FLOOR = (1 << 62) - 1
EDGES_MAX = 256
"""So many pruned paths are looked at; beyond them the answer is no."""
E_INSNS = at(VENV, "insns")
I_SCC, INSN_SIZE = at(VINSN, "scc"), VINSN.itemsize
REF_ID, REF_KIND = at(VREF, "id"), at(VREF, "kind")
V_SCC, V_DEPTH, V_CALLSITES = at(VVISIT, "scc"), at(VVISIT, "depth"), at(VVISIT, "callsites")
V_ENTRY, V_BACKEDGES = at(VVISIT, "entry_state"), at(VVISIT, "backedges")
V_ITER_FLOOR, V_ACTIVATION_FLOOR = at(VVISIT, "iter_floor"), at(VVISIT, "activation_floor")


@device
def _scc_at(env: int, idx: int) -> int:
    return load32(load64(env + E_INSNS) + idx * INSN_SIZE + I_SCC)


@device
def _is_visit_of(visit: int, scc: int, depth: int, state: int) -> int:
    if load64(visit + V_SCC) != scc or load64(visit + V_DEPTH) != depth:
        return 0
    for number in range(depth):
        if load64(visit + V_CALLSITES + 8 * number) != load64(frame_of(state, number + 1) + F_CALLSITE):
            return 0
    return 1


@device
def visit_of(env: int, state: int, idx: int, make: int) -> int:
    """The visit that a state, at instruction `idx`, belongs to, by its outermost frame in a loop; 0 for none, or no memory."""
    last = load64(state + T_NFRAMES) - 1
    for depth in range(last + 1):
        scc = _scc_at(env, idx if depth == last else load64(frame_of(state, depth + 1) + F_CALLSITE))
        if scc == 0:
            continue
        visit = load64(env + E_VISITS)
        while visit != 0:
            if _is_visit_of(visit, scc, depth, state):
                return visit
            visit = load64(visit + VISIT_NEXT)
        if not make:
            return 0
        visit = allocate(env, VISIT_SIZE)
        if visit != 0:
            memset(visit, 0, VISIT_SIZE)
            store64(visit + V_SCC, scc)
            store64(visit + V_DEPTH, depth)
            for number in range(depth):
                store64(visit + V_CALLSITES + 8 * number, load64(frame_of(state, number + 1) + F_CALLSITE))
            store64(visit + VISIT_NEXT, load64(env + E_VISITS))
            store64(env + E_VISITS, visit)
        return visit
    return 0


@device
def maybe_enter_scc(env: int, state: int) -> None:
    """A new checkpoint: the first of a visit ends it, when all paths from there are followed."""
    visit = visit_of(env, state, load64(state + T_IDX), 1)
    if visit != 0 and load64(visit + V_ENTRY) == 0:
        store64(visit + V_ENTRY, state)


@device
def maybe_exit_scc(env: int, state: int) -> None:
    """All paths from a checkpoint are followed. Kernel: maybe_exit_scc, propagate_backedges."""
    visit = visit_of(env, state, load64(state + T_IDX), 0)
    if visit == 0 or load64(visit + V_ENTRY) != state:
        return
    store64(visit + V_ENTRY, 0)
    changed = True
    while changed:
        changed = False
        edge = load64(visit + V_BACKEDGES)
        while edge != 0:
            if propagate_precision(env, load64(edge + T_EQUAL), edge):
                changed = True
            edge = load64(edge + T_NEXT_BACKEDGE)
    edge = load64(visit + V_BACKEDGES)
    store64(visit + V_BACKEDGES, 0)
    store64(visit + V_ITER_FLOOR, 0)
    store64(visit + V_ACTIVATION_FLOOR, 0)
    while edge != 0:
        after = load64(edge + T_NEXT_BACKEDGE)
        equal = load64(edge + T_EQUAL)
        state_put(env, edge)
        state_put(env, equal)
        edge = after


@device
def add_scc_backedge(env: int, old: int, cur: int) -> None:
    """A path was pruned at `old`, of which not all is known."""
    visit = visit_of(env, old, load64(old + T_IDX), 1)
    if visit == 0:
        return
    edge = state_save(env, cur, 0)
    if edge == 0:
        return
    store64(edge + T_EQUAL, old)
    store64(old + T_USERS, load64(old + T_USERS) + 1)
    store64(edge + T_NEXT_BACKEDGE, load64(visit + V_BACKEDGES))
    store64(visit + V_BACKEDGES, edge)
    refs = load64(old + T_REFS)
    for index in range(load64(refs + REFS_COUNT) if refs != 0 else 0):
        ref = refs + REFS_HEAD + index * REF_SIZE
        if load64(ref + REF_KIND) == KIND_ITER:
            store64(visit + V_ITER_FLOOR, max(load64(visit + V_ITER_FLOOR), load64(ref + REF_ID)))
    for number in range(load64(old + T_NFRAMES)):
        activation = load64(frame_of(old, number) + F_ACTIVATION)
        store64(visit + V_ACTIVATION_FLOOR, max(load64(visit + V_ACTIVATION_FLOOR), activation))


@device
def incomplete_visit(env: int, state: int) -> int:
    """The visit of a checkpoint where a path was pruned in it and it is not over, else 0. Kernel: incomplete_read_marks."""
    visit = visit_of(env, state, load64(state + T_IDX), 0)
    return visit if visit != 0 and load64(visit + V_BACKEDGES) != 0 else 0


@device
def _iter_depth(state: int, ref: int) -> int:
    """How many values the iterator with a reference has handed out."""
    for number in range(load64(state + T_NFRAMES)):
        frame = frame_of(state, number)
        for spi in range(load64(frame + F_NSLOTS)):
            slot = slot_of(frame, spi)
            if load8(slot + 7) == STACK_ITER and load32(slot + S_REG + R_REF) == ref:
                return load32(slot + S_REG + R_OFF)
    return 0


@device
def _further_than_all(visit: int, state: int, ref: int) -> int:
    """Whether an iterator has gone further than wherever a path was pruned in the visit."""
    depth = _iter_depth(state, ref)
    edge = load64(visit + V_BACKEDGES)
    count = 0
    while edge != 0:
        count += 1
        if count > EDGES_MAX or _iter_depth(load64(edge + T_EQUAL), ref) >= depth:
            return 0
        edge = load64(edge + T_NEXT_BACKEDGE)
    return 1


@device
def _iters_beside(old: int, cur: int, floor: int, visit: int) -> int:
    """ANEW, SAME or FURTHER: `cur`'s iterators beside those of `old`, the oldest first. Both hold as many (refsafe).

    Those made after whatever leads round (`floor`) may differ. In a visit, one that is further than all that paths were
    pruned at is far enough, whatever `old` has: none of these can be come round to without it.
    """
    a = load64(old + T_REFS)
    b = load64(cur + T_REFS)
    for index in range(load64(a + REFS_COUNT) if a != 0 else 0):
        was = a + REFS_HEAD + index * REF_SIZE
        now = b + REFS_HEAD + index * REF_SIZE
        if load64(was + REF_KIND) != KIND_ITER:
            continue
        before = load64(was + REF_ID)
        after = load64(now + REF_ID)
        if before != after:
            if before > floor and after > floor:
                continue
            return ANEW
        depth = _iter_depth(cur, after) - _iter_depth(old, before)
        if depth > 0 or (depth < 0 and visit != 0 and _further_than_all(visit, cur, after) != 0):
            return FURTHER
        if depth < 0:
            return ANEW
    return SAME


@device
def _same_activations(old: int, cur: int, floor: int) -> int:
    """Whether both states are in the same runs of the helpers that called back, frame by frame."""
    for number in range(load64(old + T_NFRAMES)):
        before = load64(frame_of(old, number) + F_ACTIVATION)
        after = load64(frame_of(cur, number) + F_ACTIVATION)
        if before != after and (before <= floor or after <= floor):
            return 0
    return 1


@device
def iterated(old: int, cur: int) -> int:
    """`cur` came round to `old` at a call for an iterator's next value: whether that can happen a bounded number of times."""
    return 1 if _iters_beside(old, cur, NO_FLOOR, 0) == FURTHER else 0


@device
def called_back(old: int, cur: int) -> int:
    """The same at a call of a helper that calls back."""
    beside = _iters_beside(old, cur, NO_FLOOR, 0)
    return 1 if beside == FURTHER or (beside == SAME and _same_activations(old, cur, NO_FLOOR) != 0) else 0


@device
def as_far(visit: int, old: int, cur: int) -> int:
    """Whether going on from `cur` as from `old` uses up what `old` used up on its ways round, or more."""
    beside = _iters_beside(old, cur, load64(visit + V_ITER_FLOOR), visit)
    return 1 if beside == FURTHER or (beside == SAME and _same_activations(old, cur, load64(visit + V_ACTIVATION_FLOOR))) else 0
