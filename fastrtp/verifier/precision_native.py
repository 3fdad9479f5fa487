"""Which scalars must be exact for a decision that was taken on them, and which may become unknown.

A checkpoint matches a later state only if the later one is within it, and for most scalars it does not matter: no
check ever looked at them. Where a check does, `mark_chain_precision` follows the dependency sets up the chain of
checkpoints and sets the bits in `precise`. What a path that was pruned in a loop has to pass on is done when the loop is
over (loop_native.py).

Kernel: kernel/bpf/verifier.c:mark_chain_precision, propagate_precision, find_prev_entry, widen_imprecise_scalars.
Differs: dependencies are carried forward with each value instead of being found by walking instructions backwards.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load32, load64, memcpy, memset, native, stack_bytes, store32, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import BITS_PER_FRAME, MASK_WORDS, MAX_BPF_REG, REG_SIZE, VENV
from fastrtp.verifier.regtype import SCALAR_VALUE
from fastrtp.verifier.stacktype import STACK_SPILL
from fastrtp.verifier.state_native import (
    E_CUR,
    F_CALLSITE,
    F_NSLOTS,
    R_DEPS,
    R_ID,
    R_MAP,
    R_NUM,
    R_OFF,
    R_REF,
    R_TYPE,
    S_REG,
    SET_SIZE,
    T_IDX,
    T_NFRAMES,
    T_PARENT,
    T_PRECISE,
    frame_of,
    mark_unknown,
    mask_add,
    reg_of,
    slot_deps,
    slot_of,
    top_frame,
)

ID_PAIRS = 1024
E_IDMAP, E_IDMAP_CNT = at(VENV, "idmap"), at(VENV, "idmap_cnt")


@device
def deps_of(env: int, state: int, bits: int, result: int) -> None:
    """What the registers and slots `bits` of `state` depend on in its parent checkpoint, into `result` (both masks)."""
    memset(result, 0, SET_SIZE)
    count = load64(state + T_NFRAMES)
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
                        mask_add(env, result, load32(reg_of(frame, index) + R_DEPS))
                    else:
                        mask_add(env, result, slot_deps(frame, index - MAX_BPF_REG))
            left = (left >> 1) & 0x7FFFFFFFFFFFFFFF
            bit += 1


@device
def _add_precise(state: int, bits: int) -> int:
    """Set `bits` in the state's mask; `bits` keeps those that are new, and whether there are any is the result."""
    new = 0
    for word in range(MASK_WORDS):
        was = load64(state + T_PRECISE + 8 * word)
        left = load64(bits + 8 * word) & ~was
        store64(bits + 8 * word, left)
        store64(state + T_PRECISE + 8 * word, was | left)
        new |= left
    return 1 if new != 0 else 0


@device
def mark_chain_precision(env: int, state: int, mask: int) -> int:
    """The bits at `mask` must be exact in checkpoint `state` (0: there is none), and so must what they were made from.

    Whether any was not before.
    """
    bits = stack_bytes(80)
    above = stack_bytes(80)
    memcpy(bits, mask, SET_SIZE)
    changed = 0
    while state != 0 and _add_precise(state, bits):
        changed = 1
        deps_of(env, state, bits, above)
        memcpy(bits, above, SET_SIZE)
        state = load64(state + T_PARENT)
    return changed


@device
def mark_deps_precise(env: int, deps: int) -> None:
    """A decision depended on something with this dependency set, in the state under way."""
    if deps == 0:
        return
    mask = stack_bytes(80)
    memset(mask, 0, SET_SIZE)
    mask_add(env, mask, deps)
    mark_chain_precision(env, load64(load64(env + E_CUR) + T_PARENT), mask)


@device
def mark_reg_precise(env: int, regno: int) -> None:
    """A decision depended on the scalar in a register of the frame that runs."""
    mark_deps_precise(env, load32(reg_of(top_frame(load64(env + E_CUR)), regno) + R_DEPS))


@device
def propagate_precision(env: int, old: int, cur: int) -> int:
    """`cur` was pruned at `old`: what had to be exact from there on has to be exact in `cur`'s past. Whether any was not."""
    mask = stack_bytes(80)
    deps_of(env, cur, old + T_PRECISE, mask)
    return mark_chain_precision(env, load64(cur + T_PARENT), mask)


@device
def same_callsites(a: int, b: int) -> int:
    """Whether two states are in the same functions, called from the same places."""
    count = load64(a + T_NFRAMES)
    if count != load64(b + T_NFRAMES):
        return 0
    for number in range(count):
        if load64(frame_of(a, number) + F_CALLSITE) != load64(frame_of(b, number) + F_CALLSITE):
            return 0
    return 1


@device
def find_prev_entry(state: int, insn_idx: int) -> int:
    """The checkpoint of the previous iteration: the nearest ancestor at `insn_idx` with the same callers, or 0."""
    parent = load64(state + T_PARENT)
    while parent != 0:
        # the newest one is this iteration's own entry
        if load64(parent + T_IDX) == insn_idx and same_callsites(parent, state):
            return parent
        parent = load64(parent + T_PARENT)
    return 0


@device
def regs_same(a: int, b: int) -> int:
    """Whether everything but the identifiers is equal."""
    if (
        load32(a + R_TYPE) != load32(b + R_TYPE)
        or load32(a + R_OFF) != load32(b + R_OFF)
        or load32(a + R_MAP) != load32(b + R_MAP)
        or load64(a + R_NUM) != load64(b + R_NUM)
    ):
        return 0
    at = 32
    while at < REG_SIZE:
        if load64(a + at) != load64(b + at):
            return 0
        at += 8
    return 1


@device
def check_ids(env: int, old_id: int, cur_id: int) -> int:
    """Both without an id, or related one to one as before. Kernel: check_ids."""
    if old_id == 0 or cur_id == 0:
        return 1 if old_id == cur_id else 0
    count = load64(env + E_IDMAP_CNT)
    pair = load64(env + E_IDMAP)
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
    store64(env + E_IDMAP_CNT, count + 1)
    return 1


@device
def both_ids(env: int, old: int, cur: int) -> int:
    """Identity and resource."""
    if not check_ids(env, load32(old + R_ID), load32(cur + R_ID)):
        return 0
    return check_ids(env, load32(old + R_REF), load32(cur + R_REF))


@device
def regs_exact(env: int, old: int, cur: int) -> int:
    """Everything equal, identifiers one to one."""
    return both_ids(env, old, cur) if regs_same(old, cur) else 0


@device
def is_precise(state: int, number: int, index: int) -> int:
    """Whether a register, or a slot (11 + its number), of a frame must be exact."""
    bit = number * BITS_PER_FRAME + index
    return (load64(state + T_PRECISE + 8 * (bit >> 6)) >> (bit & 63)) & 1


@device
def _widen(env: int, was: int, now: int, precise: int) -> None:
    if load32(was + R_TYPE) != SCALAR_VALUE or load32(now + R_TYPE) != SCALAR_VALUE:
        return
    if not precise and not regs_exact(env, was, now):
        # what it was made from is not forgotten: a later decision on it makes that precise, here and in the round before
        deps = load32(now + R_DEPS)
        mark_unknown(now)
        store32(now + R_DEPS, deps)


@device
def widen_imprecise_scalars(env: int, old: int, cur: int) -> None:
    """Scalars of `cur` that differ from `old` and need not be exact there become unknown."""
    store64(env + E_IDMAP_CNT, 0)
    for back in range(load64(old + T_NFRAMES)):
        number = load64(old + T_NFRAMES) - 1 - back
        was = frame_of(old, number)
        now = frame_of(cur, number)
        for regno in range(MAX_BPF_REG):
            _widen(env, reg_of(was, regno), reg_of(now, regno), is_precise(old, number, regno))
        for spi in range(min(load64(was + F_NSLOTS), load64(now + F_NSLOTS))):
            a = slot_of(was, spi)
            b = slot_of(now, spi)
            if load8(a + 7) == STACK_SPILL and load8(b + 7) == STACK_SPILL:
                _widen(env, a + S_REG, b + S_REG, is_precise(old, number, MAX_BPF_REG + spi))


@native()
def verifier_mark_precise(venv: int, deps: int) -> int:
    """A decision in Python depended on something with this dependency set."""
    mark_deps_precise(venv, deps)
    return 0


@native()
def verifier_find_prev_entry(state: int, insn_idx: int) -> int:
    """`find_prev_entry` for Python."""
    return find_prev_entry(state, insn_idx)


@native()
def verifier_widen(venv: int, old: int, cur: int) -> int:
    """`widen_imprecise_scalars` for Python."""
    widen_imprecise_scalars(venv, old, cur)
    return 0
