"""Making loops converge: a scalar that changes from one iteration to the next and decides nothing becomes unknown.

Kernel: kernel/bpf/verifier.c:find_prev_entry, widen_imprecise_scalars, maybe_widen_reg.
"""

from __future__ import annotations

from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.regtype import SCALAR_VALUE
from fastrtp.verifier.state import BITS_PER_FRAME, MAX_BPF_REG, REG_UNKNOWN, BpfStackState, BpfVerifierState, is_spilled_reg


def find_prev_entry(env: BpfVerifierEnv, state: BpfVerifierState, insn_idx: int) -> BpfVerifierState | None:
    """The checkpoint of the previous iteration: the nearest ancestor at `insn_idx` with the same callers."""
    parent = state.parent
    while parent is not None:
        if (
            parent.insn_idx == insn_idx
            and len(parent.frames) == len(state.frames)
            and all(a.callsite == b.callsite for a, b in zip(parent.frames, state.frames, strict=True))
        ):
            # the newest one is this iteration's own entry
            return parent
        parent = parent.parent
    return None


def widen_imprecise_scalars(old: BpfVerifierState, cur: BpfVerifierState) -> None:
    """Scalars of `cur` that differ from `old` and need not be exact there become unknown."""
    for number, (was, now) in enumerate(zip(old.frames, cur.frames, strict=False)):
        precise = old.precise >> (number * BITS_PER_FRAME)
        for regno in range(MAX_BPF_REG):
            a, b = was.regs[regno], now.regs[regno]
            if a.type == SCALAR_VALUE == b.type and not precise >> regno & 1 and not a.same(b, ids=False):
                now.regs[regno] = REG_UNKNOWN
                now.deps[regno] = 0
        for spi, slot in was.stack.items():
            other = now.stack.get(spi)
            if other is None or not is_spilled_reg(slot) or not is_spilled_reg(other):
                continue
            a, b = slot.spilled_ptr, other.spilled_ptr
            if a.type == SCALAR_VALUE == b.type and not precise >> (MAX_BPF_REG + spi) & 1 and not a.same(b, ids=False):
                now.stack[spi] = BpfStackState(other.slot_type, REG_UNKNOWN)
                now.stack_deps[spi] = 0
