"""Which scalars must be exact for a decision that was taken on them, and which may become unknown.

A checkpoint matches a later state only if the later one is within it, and for most scalars it does not matter: no
check ever looked at them. Where a check does, `mark_chain_precision` follows the dependency sets up the chain of
checkpoints and sets the bits in `precise`. What a path that was pruned in a loop has to pass on is done when the loop is
over (loop_native.py).

Kernel: kernel/bpf/verifier.c:mark_chain_precision, propagate_precision, find_prev_entry, widen_imprecise_scalars.
Differs: dependencies are carried forward with each value instead of being found by walking instructions backwards.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, memcpy, memset, native, stack_bytes, store64
from fastrtp.verifier.core.state_native import (
    SET_SIZE,
    frame_of,
    mark_unknown,
    mask_add,
    reg_of,
    slot_deps,
    slot_of,
    top_frame,
)
from fastrtp.verifier.domain.records import BITS_PER_FRAME, MASK_WORDS, MAX_BPF_REG, REG_SIZE, VEnv, VReg, VState
from fastrtp.verifier.domain.regtype import SCALAR_VALUE
from fastrtp.verifier.domain.stacktype import STACK_SPILL

ID_PAIRS = 1024


@device
def deps_of(env: VEnv, state: VState, bits: int, result: int) -> None:
    """What the registers and slots `bits` of `state` depend on in its parent checkpoint, into `result` (both masks)."""
    memset(result, 0, SET_SIZE)
    count = state.nframes
    for word in range(MASK_WORDS):
        left = load64(bits + 8 * word)
        bit = 64 * word
        while left != 0:
            if left & 1:
                number = bit // BITS_PER_FRAME
                index = bit - number * BITS_PER_FRAME
                if number < count:
                    frame = frame_of(state, number)
                    if index < MAX_BPF_REG:
                        mask_add(env, result, reg_of(frame, index).deps)
                    else:
                        mask_add(env, result, slot_deps(frame, index - MAX_BPF_REG))
            left = (left >> 1) & 0x7FFFFFFFFFFFFFFF
            bit += 1


@device
def _add_precise(state: VState, bits: int) -> int:
    """Set `bits` in the state's mask; `bits` keeps those that are new, and whether there are any is the result."""
    new = 0
    for word in range(MASK_WORDS):
        was = state.precise[word]
        left = load64(bits + 8 * word) & ~was
        store64(bits + 8 * word, left)
        state.precise[word] = was | left
        new |= left
    return 1 if new != 0 else 0


@device
def mark_chain_precision(env: VEnv, state: VState, mask: int) -> int:
    """The bits at `mask` must be exact in checkpoint `state` (0: there is none), and so must what they were made from.

    Whether any was not before.
    """
    bits = stack_bytes(80)
    above = stack_bytes(80)
    memcpy(bits, mask, SET_SIZE)
    changed = 0
    while state and _add_precise(state, bits):
        changed = 1
        deps_of(env, state, bits, above)
        memcpy(bits, above, SET_SIZE)
        state = state.parent
    return changed


@device
def mark_deps_precise(env: VEnv, deps: int) -> None:
    """A decision depended on something with this dependency set, in the state under way."""
    if deps == 0:
        return
    mask = stack_bytes(80)
    memset(mask, 0, SET_SIZE)
    mask_add(env, mask, deps)
    mark_chain_precision(env, env.cur.parent, mask)


@device
def mark_reg_precise(env: VEnv, regno: int) -> None:
    """A decision depended on the scalar in a register of the frame that runs."""
    mark_deps_precise(env, reg_of(top_frame(env.cur), regno).deps)


@device
def propagate_precision(env: VEnv, old: VState, cur: VState) -> int:
    """`cur` was pruned at `old`: what had to be exact from there on has to be exact in `cur`'s past. Whether any was not."""
    mask = stack_bytes(80)
    deps_of(env, cur, int(old.precise), mask)
    return mark_chain_precision(env, cur.parent, mask)


@device
def same_callsites(a: VState, b: VState) -> int:
    """Whether two states are in the same functions, called from the same places."""
    count = a.nframes
    if count != b.nframes:
        return 0
    for number in range(count):
        if frame_of(a, number).callsite != frame_of(b, number).callsite:
            return 0
    return 1


@device
def find_prev_entry(env: VEnv, state: VState, insn_idx: int) -> VState:
    """The checkpoint of the previous iteration: the nearest ancestor at `insn_idx` with the same callers, or 0.

    One that was given up as useless is not found, as in Linux.
    """
    entry = env.insns[insn_idx].explored
    while entry:
        # those that are not done are ancestors, the newest first
        if entry != state and entry.branches != 0 and same_callsites(entry, state):
            return entry
        entry = entry.next
    return VState(0)


@device
def regs_same(a: VReg, b: VReg) -> int:
    """Whether everything but the identifiers is equal."""
    if a.type != b.type or a.off != b.off or a.map != b.map or a.num != b.num:
        return 0
    at = 32
    while at < REG_SIZE:
        if load64(int(a) + at) != load64(int(b) + at):
            return 0
        at += 8
    return 1


@device
def check_ids(env: VEnv, old_id: int, cur_id: int) -> int:
    """Both without an id, or related one to one as before. Kernel: check_ids."""
    if old_id == 0 or cur_id == 0:
        return 1 if old_id == cur_id else 0
    count = env.idmap_cnt
    pair = env.idmap
    for _ in range(count):
        if load64(pair) == old_id:
            return 1 if load64(pair + 8) == cur_id else 0
        if load64(pair + 8) == cur_id:
            return 0
        pair += 16
    if count >= ID_PAIRS:
        return 0
    store64(pair, old_id)
    store64(pair + 8, cur_id)
    env.idmap_cnt = count + 1
    return 1


@device
def both_ids(env: VEnv, old: VReg, cur: VReg) -> int:
    """Identity and resource."""
    if not check_ids(env, old.id, cur.id):
        return 0
    return check_ids(env, old.ref_obj_id, cur.ref_obj_id)


@device
def regs_exact(env: VEnv, old: VReg, cur: VReg) -> int:
    """Everything equal, identifiers one to one."""
    return both_ids(env, old, cur) if regs_same(old, cur) else 0


@device
def is_precise(state: VState, number: int, index: int) -> int:
    """Whether a register, or a slot (11 + its number), of a frame must be exact."""
    bit = number * BITS_PER_FRAME + index
    return (state.precise[bit >> 6] >> (bit & 63)) & 1


@device
def _widen(env: VEnv, was: VReg, now: VReg, precise: int) -> None:
    if was.type != SCALAR_VALUE or now.type != SCALAR_VALUE:
        return
    if not precise and not regs_exact(env, was, now):
        # what it was made from is not forgotten: a later decision on it makes that precise, here and in the round before
        deps = now.deps
        mark_unknown(now)
        now.deps = deps


@device
def widen_imprecise_scalars(env: VEnv, old: VState, cur: VState) -> None:
    """Scalars of `cur` that differ from `old` and need not be exact there become unknown."""
    env.idmap_cnt = 0
    for back in range(old.nframes):
        number = old.nframes - 1 - back
        was = frame_of(old, number)
        now = frame_of(cur, number)
        for regno in range(MAX_BPF_REG):
            _widen(env, reg_of(was, regno), reg_of(now, regno), is_precise(old, number, regno))
        for spi in range(min(was.nslots, now.nslots)):
            a = slot_of(was, spi)
            b = slot_of(now, spi)
            if a.slot_type[7] == STACK_SPILL and b.slot_type[7] == STACK_SPILL:
                _widen(env, a.reg, b.reg, is_precise(old, number, MAX_BPF_REG + spi))


@native()
def verifier_mark_precise(venv: VEnv, deps: int) -> int:
    """A decision in Python depended on something with this dependency set."""
    mark_deps_precise(venv, deps)
    return 0


@native()
def verifier_find_prev_entry(venv: VEnv, state: VState, insn_idx: int) -> int:
    """`find_prev_entry` for Python."""
    return int(find_prev_entry(venv, state, insn_idx))


@native()
def verifier_widen(venv: VEnv, old: VState, cur: VState) -> int:
    """`widen_imprecise_scalars` for Python."""
    widen_imprecise_scalars(venv, old, cur)
    return 0
