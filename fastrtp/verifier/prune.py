"""Checkpoints: where a path comes to a state that was already shown safe it ends, and loops are told from progress.

Kernel: kernel/bpf/verifier.c:is_state_visited, states_equal, func_states_equal, regsafe, stacksafe, refsafe.
"""

from __future__ import annotations

from errno import EINVAL
from functools import lru_cache

from fastrtp.verifier.bounds import range_within
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.log import print_frame
from fastrtp.verifier.precision import propagate_precision
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
from fastrtp.verifier.state import (
    ALL_INVALID,
    ALL_SPILL,
    BITS_PER_FRAME,
    BPF_ADD_CONST,
    MAX_BPF_REG,
    REG_UNKNOWN,
    SLOT_INVALID,
    STACK_DYNPTR,
    STACK_INVALID,
    STACK_ITER,
    STACK_MISC,
    BpfFuncState,
    BpfRegState,
    BpfStackState,
    BpfVerifierState,
    is_spilled_reg,
)

NOT_EXACT, EXACT, RANGE_WITHIN = range(3)
"""How states are compared: imprecise scalars ignored; everything equal; all scalars within the old ranges."""

_RANGED = frozenset({PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM, PTR_TO_BUF, PTR_TO_TP_BUFFER})


class StateListElem:
    """A checkpoint in the list of its instruction, with how often it helped."""

    __slots__ = ("hit_cnt", "miss_cnt", "state")

    def __init__(self, state: BpfVerifierState) -> None:
        self.state = state
        self.hit_cnt = 0
        self.miss_cnt = 0


class IdMap:
    """A one-to-one relation between the ids of two states. Kernel: struct bpf_idmap, check_ids."""

    __slots__ = ("fresh", "new", "old")

    def __init__(self) -> None:
        self.old: dict[int, int] = {}
        self.new: dict[int, int] = {}
        self.fresh = -1

    def check(self, old_id: int, cur_id: int) -> bool:
        """Both without an id, or related as before."""
        if not old_id or not cur_id:
            return old_id == cur_id
        known = self.old.get(old_id)
        if known is not None:
            return known == cur_id
        if cur_id in self.new:
            return False
        self.old[old_id] = cur_id
        self.new[cur_id] = old_id
        return True

    def check_scalar(self, old_id: int, cur_id: int) -> bool:
        """As `check`; a scalar without an id counts as one with an id of its own."""
        if not old_id:
            if not cur_id:
                return True
            old_id = self.fresh
            self.fresh -= 1
        elif not cur_id:
            cur_id = self.fresh
            self.fresh -= 1
        return self.check(old_id, cur_id)


def _regs_exact(old: BpfRegState, cur: BpfRegState, ids: IdMap) -> bool:
    return old.same(cur, ids=False) and ids.check(old.id, cur.id) and ids.check(old.ref_obj_id, cur.ref_obj_id)


def regsafe(old: BpfRegState, cur: BpfRegState, precise: bool, ids: IdMap, exact: int) -> bool:
    """Whether what was safe with `old` is safe with `cur`."""
    if exact == EXACT:
        return _regs_exact(old, cur, ids)
    kind = old.type
    if kind == NOT_INIT:
        return True
    if kind != cur.type:
        return False
    if kind == SCALAR_VALUE:
        if not precise and exact == NOT_EXACT:
            return True
        if (old.id & BPF_ADD_CONST) != (cur.id & BPF_ADD_CONST) or (old.id & BPF_ADD_CONST and old.off != cur.off):
            return False
        return range_within(old.bounds, cur.bounds) and ids.check_scalar(old.id & ~BPF_ADD_CONST, cur.id & ~BPF_ADD_CONST)
    if kind & 0xFF in _RANGED:
        return (
            old.off == cur.off
            and old.num == cur.num
            and old.map is cur.map
            and range_within(old.bounds, cur.bounds)
            and ids.check(old.id, cur.id)
            and ids.check(old.ref_obj_id, cur.ref_obj_id)
        )
    return _regs_exact(old, cur, ids)


def _scalar_reg_for_stack(slot: BpfStackState) -> BpfRegState | None:
    if slot.slot_type == ALL_SPILL:
        return slot.spilled_ptr if slot.spilled_ptr.type == SCALAR_VALUE else None
    return REG_UNKNOWN if all(kind in (STACK_MISC, STACK_INVALID) for kind in slot.slot_type) else None


def _special_slots_equal(old: BpfStackState, cur: BpfStackState, ids: IdMap, exact: int) -> bool:
    """Dynptrs and iterators: the same kind and state; how often an active iterator went round matters to EXACT alone."""
    was, now = old.spilled_ptr, cur.spilled_ptr
    return (
        old.slot_type == cur.slot_type
        and was.num == now.num
        and (exact != EXACT or was.off == now.off)
        and ids.check(was.id, now.id)
        and ids.check(was.ref_obj_id, now.ref_obj_id)
    )


def _slot_safe(old: BpfStackState, cur: BpfStackState, precise: bool, ids: IdMap, exact: int) -> bool:
    if old.slot_type[7] >= STACK_DYNPTR or cur.slot_type[7] >= STACK_DYNPTR:
        return _special_slots_equal(old, cur, ids, exact)
    if exact == EXACT:
        return old.slot_type == cur.slot_type and (not is_spilled_reg(old) or _regs_exact(old.spilled_ptr, cur.spilled_ptr, ids))
    if old.slot_type == ALL_INVALID:
        return True
    old_reg, cur_reg = _scalar_reg_for_stack(old), _scalar_reg_for_stack(cur)
    if old_reg is not None and cur_reg is not None:
        return regsafe(old_reg, cur_reg, precise, ids, exact)
    for was, now in zip(old.slot_type, cur.slot_type, strict=True):
        if was != now and was not in (STACK_INVALID, STACK_MISC):
            return False
    if not is_spilled_reg(old):
        return True
    return is_spilled_reg(cur) and regsafe(old.spilled_ptr, cur.spilled_ptr, precise, ids, exact)


@lru_cache(maxsize=1 << MAX_BPF_REG)
def _members(mask: int) -> tuple[int, ...]:
    """Numbers of the registers in a mask."""
    return tuple(regno for regno in range(MAX_BPF_REG) if mask >> regno & 1)


def _func_states_equal(
    env: BpfVerifierEnv, old: BpfFuncState, cur: BpfFuncState, precise: int, live: int, ids: IdMap, exact: int
) -> bool:
    if old.callback_depth > cur.callback_depth:
        return False
    old_regs, cur_regs = old.regs, cur.regs
    for regno in _members(live):
        was, now = old_regs[regno], cur_regs[regno]
        if was is now and not was.id and not was.ref_obj_id:
            continue
        if exact == NOT_EXACT and was.type == SCALAR_VALUE == now.type and not precise >> regno & 1:
            continue
        if not regsafe(was, now, bool(precise >> regno & 1), ids, exact):
            return False
    cur_stack = cur.stack
    for spi, slot in old.stack.items():
        other = cur_stack.get(spi, SLOT_INVALID)
        if slot is other:
            spilled = slot.spilled_ptr
            if not spilled.id and not spilled.ref_obj_id:
                continue
        if not _slot_safe(slot, other, bool(precise >> (MAX_BPF_REG + spi) & 1), ids, exact):
            return False
    if exact == EXACT:
        return all(spi in old.stack or slot.slot_type == ALL_INVALID for spi, slot in cur_stack.items())
    return all(spi in old.stack or slot.slot_type[7] < STACK_DYNPTR for spi, slot in cur_stack.items())


def states_equal(env: BpfVerifierEnv, old: BpfVerifierState, cur: BpfVerifierState, insn_idx: int, exact: int) -> bool:
    """Whether `cur` needs no further look because `old` was safe (`exact` says how to compare)."""
    if len(old.frames) != len(cur.frames) or len(old.refs) != len(cur.refs):
        return False
    ids = IdMap()
    last = len(old.frames) - 1
    for number, (was, now) in enumerate(zip(old.frames, cur.frames, strict=True)):
        if was.callsite != now.callsite or was.in_callback_fn != now.in_callback_fn:
            return False
        live = env.live_regs[insn_idx if number == last else old.frames[number + 1].callsite]
        if not _func_states_equal(env, was, now, old.precise >> (number * BITS_PER_FRAME), live, ids, exact):
            return False
    return all(
        was.kind == now.kind and was.ptr is now.ptr and ids.check(was.id, now.id)
        for was, now in zip(old.refs, cur.refs, strict=True)
    )


def _clear_singular_ids(state: BpfVerifierState) -> None:
    """A scalar id that nothing else carries says nothing. Kernel: clear_singular_ids."""
    count: dict[int, int] = {}
    for frame in state.frames:
        for reg in frame.regs:
            if reg.id and reg.type == SCALAR_VALUE:
                base = reg.id & ~BPF_ADD_CONST
                count[base] = count.get(base, 0) + 1
        for slot in frame.stack.values():
            reg = slot.spilled_ptr
            if reg.id and reg.type == SCALAR_VALUE:
                base = reg.id & ~BPF_ADD_CONST
                count[base] = count.get(base, 0) + 1
    if not any(n == 1 for n in count.values()):
        return
    for frame in state.frames:
        regs = frame.regs
        for regno, reg in enumerate(regs):
            if reg.id and reg.type == SCALAR_VALUE and count[reg.id & ~BPF_ADD_CONST] == 1:
                regs[regno] = reg.with_id(0, 0)
        for spi, slot in frame.stack.items():
            reg = slot.spilled_ptr
            if reg.id and reg.type == SCALAR_VALUE and count[reg.id & ~BPF_ADD_CONST] == 1:
                frame.stack[spi] = BpfStackState(slot.slot_type, reg.with_id(0, 0))


def _states_maybe_looping(old: BpfVerifierState, cur: BpfVerifierState) -> bool:
    if len(old.frames) != len(cur.frames):
        return False
    return all(was is now or was.same(now, ids=False) for was, now in zip(old.frames[-1].regs, cur.frames[-1].regs, strict=True))


def is_state_visited(env: BpfVerifierEnv, insn_idx: int) -> bool:
    """Whether the current path ends here; if not, it may become a checkpoint."""
    force = env.test_state_freq or bool(env.force_checkpoint[insn_idx])
    jumps, done = env.jmps_processed - env.prev_jmps_processed, env.insn_processed - env.prev_insn_processed
    add_new_state = force or (jumps >= 2 and done >= 8)
    if env.calls_callback[insn_idx] and not env.from_callback:
        env.activations += 1
        env.frame.activation = env.activations
    env.from_callback = False
    entries: list[StateListElem] | None = env.explored_states.get(insn_idx)
    if entries is None and not add_new_state:
        return False
    cur = env.cur_state
    _clear_singular_ids(cur)
    if entries is None:
        entries = env.explored_states[insn_idx] = []
    evict = None
    for elem in reversed(entries):  # newest first: the older ones are not blamed for what a newer one settles
        old = elem.state
        loop = False
        if old.branches:
            if env.calls_callback[insn_idx] or (old.may_goto_depth != cur.may_goto_depth and env.force_checkpoint[insn_idx]):
                loop = hit = _bounded_loop(env, old, cur, insn_idx) and states_equal(env, old, cur, insn_idx, RANGE_WITHIN)
            elif insn_idx in env.kfuncs and _iter_active(cur):
                # the same iterator again, and it hands out a bounded number of values
                loop = hit = _same_iters(old, cur) and states_equal(env, old, cur, insn_idx, RANGE_WITHIN)
            else:
                hit = False
                if (
                    _states_maybe_looping(old, cur)
                    and states_equal(env, old, cur, insn_idx, EXACT)
                    and old.may_goto_depth == cur.may_goto_depth
                    and old.callback_unroll_depth == cur.callback_unroll_depth
                ):
                    env.log.line(f"infinite loop detected at insn {insn_idx}")
                    env.log.line(f"cur state: {print_frame(cur.frames[-1], cur)}")
                    env.reject(EINVAL, f"old state: {print_frame(old.frames[-1], old)}")
            if not hit and not force and jumps < 20 and done < 100:
                add_new_state = False
        else:
            open_since = _open_loop(env)
            loop = open_since is not None and open_since <= old.seq
            # what `old` leads back to is bounded within one run of a helper only
            hit = (not loop or _same_activations(old, cur)) and states_equal(
                env, old, cur, insn_idx, RANGE_WITHIN if loop else NOT_EXACT
            )
        if hit:
            elem.hit_cnt += 1
            propagate_precision(old, cur)
            if loop:
                old.backedges.append(cur)
                if old.branches:
                    env.open_loops.append(old)
            return True
        if add_new_state:
            elem.miss_cnt += 1
        limit = 64 if env.force_checkpoint[insn_idx] and old.branches else 3
        if elem.miss_cnt > elem.hit_cnt * limit + limit:
            evict = [elem] if evict is None else [*evict, elem]
    if evict is not None:
        for elem in evict:
            entries.remove(elem)
            env.stats.peak_states -= 1
    stats = env.stats
    stats.max_states_per_insn = max(stats.max_states_per_insn, len(entries))
    if not add_new_state:
        return False
    _add_checkpoint(env, entries, insn_idx)
    return False


def _same_activations(old: BpfVerifierState, cur: BpfVerifierState) -> bool:
    """Whether both states are in the same runs of the helpers that called back, frame by frame."""
    return _same_iters(old, cur) and len(old.frames) == len(cur.frames) and all(
        was.activation == now.activation for was, now in zip(old.frames, cur.frames, strict=True)
    )


def _iter_active(cur: BpfVerifierState) -> bool:
    """Whether the iterator that R1 points at, at a call for its next value, may have one."""
    reg = cur.frames[-1].regs[1]
    if reg.type != PTR_TO_STACK:
        return False
    slot = cur.frames[reg.num].stack.get((-reg.off - reg.bounds.smin_value - 1) // 8, SLOT_INVALID)
    return slot.slot_type[7] == STACK_ITER and slot.spilled_ptr.num == 1


def _same_iters(old: BpfVerifierState, cur: BpfVerifierState) -> bool:
    """The same iterators, not others made by the same call: a loop around one that is made anew need not end."""
    return [ref.id for ref in old.refs if ref.kind == "iter"] == [ref.id for ref in cur.refs if ref.kind == "iter"]


def _bounded_loop(env: BpfVerifierEnv, old: BpfVerifierState, cur: BpfVerifierState, insn_idx: int) -> bool:
    """Whether the way from `old` to `cur` is one that cannot be gone for ever.

    Either a helper came back to its own call, and it calls back a bounded number of times, or a may_goto was passed.
    A loop around the call is neither.
    """
    return _same_activations(old, cur) if env.calls_callback[insn_idx] else True


def _open_loop(env: BpfVerifierEnv) -> int | None:
    """Sequence number of the oldest checkpoint in progress that a path was pruned at."""
    if not env.open_loops:
        return None
    env.open_loops = [state for state in env.open_loops if state.branches]
    return min((state.seq for state in env.open_loops), default=None)


def _add_checkpoint(env: BpfVerifierEnv, entries: list[StateListElem], insn_idx: int) -> None:
    """Keep a copy of the current state, which goes on as its child."""
    cur = env.cur_state
    new = cur.copy()
    env.state_seq += 1
    new.seq = env.state_seq
    new.insn_idx = insn_idx
    new.branches = 1
    entries.append(StateListElem(new))
    cur.parent = new
    cur.first_insn_idx = insn_idx
    for frame in cur.frames:
        frame.reset_deps()
    env.prev_jmps_processed = env.jmps_processed
    env.prev_insn_processed = env.insn_processed
    env.stats.total_states += 1
    env.stats.peak_states += 1


def update_branch_counts(state: BpfVerifierState) -> None:
    """A path is done: so are the checkpoints that have no other."""
    parent = state.parent
    while parent is not None:
        parent.branches -= 1
        if parent.branches:
            break
        parent = parent.parent


__all__ = ["StateListElem", "is_state_visited", "states_equal", "update_branch_counts"]
