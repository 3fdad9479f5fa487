"""Which scalars must be exact for a decision that was taken on them, and which may become unknown.

A checkpoint matches a later state only if the later one is within it, and for most scalars it does not matter: no
check ever looked at them. Where a check does, `mark_chain_precision` follows the dependency sets up the chain of
checkpoints and sets the bits in `precise`. A path that was pruned at a checkpoint still in progress hangs on it as a
back edge, so that what becomes precise there later reaches the pruned path's own past too.

Kernel: kernel/bpf/verifier.c:mark_chain_precision, propagate_precision, propagate_backedges, find_prev_entry,
widen_imprecise_scalars.
Differs: dependencies are carried forward with each value instead of being found by walking instructions backwards.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load32, load64, memcpy, memset, native, stack_bytes, store64
from fastrtp.native.verifier_layout import BITS_PER_FRAME, MASK_WORDS, MAX_BPF_REG, REG_SIZE
from fastrtp.verifier.regtype import SCALAR_VALUE
from fastrtp.verifier.stacktype import STACK_SPILL
from fastrtp.verifier.state_native import (
    E_CUR,
    E_TODO,
    E_TODO_MAX,
    F_CALLSITE,
    F_NSLOTS,
    R_DEPS,
    R_MAP,
    R_NUM,
    R_OFF,
    R_TYPE,
    S_REG,
    SET_SIZE,
    T_BACKEDGES,
    T_IDX,
    T_NEXT_BACKEDGE,
    T_NFRAMES,
    T_PARENT,
    T_PRECISE,
    TODO_SIZE,
    frame_of,
    grow,
    mark_unknown,
    mask_add,
    reg_of,
    slot_deps,
    slot_of,
    top_frame,
)


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
def mark_chain_precision(env: int, state: int, mask: int) -> None:
    """The bits at `mask` must be exact in checkpoint `state` (0: there is none), and so must what they were made from."""
    bits = stack_bytes(80)
    above = stack_bytes(80)
    memcpy(bits, mask, SET_SIZE)
    todo = 0
    while True:
        while state != 0 and _add_precise(state, bits):
            edge = load64(state + T_BACKEDGES)
            while edge != 0:
                if todo == load64(env + E_TODO_MAX) and grow(env, env + E_TODO, env + E_TODO_MAX, TODO_SIZE) == 0:
                    return
                entry = load64(env + E_TODO) + todo * TODO_SIZE
                store64(entry, load64(edge + T_PARENT))
                deps_of(env, edge, bits, entry + 8)
                todo += 1
                edge = load64(edge + T_NEXT_BACKEDGE)
            deps_of(env, state, bits, above)
            memcpy(bits, above, SET_SIZE)
            state = load64(state + T_PARENT)
        if todo == 0:
            return
        todo -= 1
        entry = load64(env + E_TODO) + todo * TODO_SIZE
        state = load64(entry)
        memcpy(bits, entry + 8, SET_SIZE)


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
def propagate_precision(env: int, old: int, cur: int) -> None:
    """`cur` was pruned at `old`: what had to be exact from there on has to be exact in `cur`'s past."""
    mask = stack_bytes(80)
    deps_of(env, cur, old + T_PRECISE, mask)
    mark_chain_precision(env, load64(cur + T_PARENT), mask)


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
def is_precise(state: int, number: int, index: int) -> int:
    """Whether a register, or a slot (11 + its number), of a frame must be exact."""
    bit = number * BITS_PER_FRAME + index
    return (load64(state + T_PRECISE + 8 * (bit >> 6)) >> (bit & 63)) & 1


@device
def _widen(was: int, now: int, precise: int) -> None:
    if load32(was + R_TYPE) == SCALAR_VALUE and load32(now + R_TYPE) == SCALAR_VALUE and not precise and not regs_same(was, now):
        mark_unknown(now)


@device
def widen_imprecise_scalars(old: int, cur: int) -> None:
    """Scalars of `cur` that differ from `old` and need not be exact there become unknown."""
    for number in range(min(load64(old + T_NFRAMES), load64(cur + T_NFRAMES))):
        was = frame_of(old, number)
        now = frame_of(cur, number)
        for regno in range(MAX_BPF_REG):
            _widen(reg_of(was, regno), reg_of(now, regno), is_precise(old, number, regno))
        for spi in range(min(load64(was + F_NSLOTS), load64(now + F_NSLOTS))):
            a = slot_of(was, spi)
            b = slot_of(now, spi)
            if load8(a + 7) == STACK_SPILL and load8(b + 7) == STACK_SPILL:
                _widen(a + S_REG, b + S_REG, is_precise(old, number, MAX_BPF_REG + spi))


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
def verifier_widen(old: int, cur: int) -> int:
    """`widen_imprecise_scalars` for Python."""
    widen_imprecise_scalars(old, cur)
    return 0
