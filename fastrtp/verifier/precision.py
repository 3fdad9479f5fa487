"""Which scalars must be exact for a decision that was taken on them.

A checkpoint matches a later state only if the later one is within it, and for most scalars it does not matter: no
check ever looked at them. Where a check does, `mark_precise` follows `deps` up the chain of checkpoints and sets the
bits in `precise`. A path that was pruned at a checkpoint still in progress hangs on it as a back edge, so that what
becomes precise there later reaches the pruned path's own past too.

Kernel: kernel/bpf/verifier.c:mark_chain_precision, propagate_precision, propagate_backedges.
Differs: dependencies are carried forward with each value instead of being found by walking instructions backwards.
"""

from __future__ import annotations

from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.state import BITS_PER_FRAME, MAX_BPF_REG, BpfVerifierState


def deps_of(state: BpfVerifierState, bits: int) -> int:
    """What the registers and slots `bits` of `state` depend on in its parent checkpoint."""
    result = 0
    frames = state.frames
    while bits:
        low = bits & -bits
        bits ^= low
        frameno, index = divmod(low.bit_length() - 1, BITS_PER_FRAME)
        if frameno >= len(frames):
            continue
        frame = frames[frameno]
        result |= frame.deps[index] if index < MAX_BPF_REG else frame.slot_deps(index - MAX_BPF_REG)
    return result


def mark_chain_precision(state: BpfVerifierState | None, mask: int) -> None:
    """`mask` (bits of checkpoint `state`) must be exact there, and so must what it was made from."""
    if state is None or not mask:
        return
    todo: list[tuple[BpfVerifierState | None, int]] = [(state, mask)]
    while todo:
        current, bits = todo.pop()
        while current is not None:
            bits &= ~current.precise
            if not bits:
                break
            current.precise |= bits
            todo.extend((pruned.parent, deps_of(pruned, bits)) for pruned in current.backedges)
            bits = deps_of(current, bits)
            current = current.parent


def mark_reg_precise(env: BpfVerifierEnv, regno: int) -> None:
    """A decision depended on the scalar in a register of the current frame."""
    deps = env.frame.deps[regno]
    if deps:
        mark_chain_precision(env.cur_state.parent, deps)


def propagate_precision(old: BpfVerifierState, cur: BpfVerifierState) -> None:
    """`cur` was pruned at `old`: what had to be exact from there on has to be exact in `cur`'s past."""
    mark_chain_precision(cur.parent, deps_of(cur, old.precise))
