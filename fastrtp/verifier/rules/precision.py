"""Which scalars must be exact, and making loops converge: the core's (precision_native.py), for calls.

Kernel: kernel/bpf/verifier.c:mark_chain_precision, find_prev_entry, widen_imprecise_scalars.
"""

from __future__ import annotations

from fastrtp.verifier.domain.state import BpfVerifierState
from fastrtp.verifier.rules.env import BpfVerifierEnv


def mark_reg_precise(env: BpfVerifierEnv, regno: int) -> None:
    """A decision depended on the scalar in a register of the current frame."""
    deps = env.frame.deps[regno]
    if deps:
        env.lib.verifier_mark_precise(env.address, deps)


def find_prev_entry(env: BpfVerifierEnv, state: BpfVerifierState, insn_idx: int) -> BpfVerifierState | None:
    """The checkpoint of the previous iteration: the nearest ancestor at `insn_idx` with the same callers."""
    address = env.lib.verifier_find_prev_entry(env.address, state.address, insn_idx)
    return BpfVerifierState(env.space, address, env) if address else None


def widen_imprecise_scalars(env: BpfVerifierEnv, old: BpfVerifierState, cur: BpfVerifierState) -> None:
    """Scalars of `cur` that differ from `old` and need not be exact there become unknown."""
    env.lib.verifier_widen(env.address, old.address, cur.address)
