"""What a program has acquired and must give back: references and open sections.

Kernel: kernel/bpf/verifier.c:release_reference, check_resource_leak.
"""

from __future__ import annotations

from errno import EINVAL

from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.section import check_sections_closed


def release_reference(env: BpfVerifierEnv, ref_obj_id: int) -> bool:
    """Give a resource back: every pointer to it is dead. False: it was not held."""
    return bool(env.lib.verifier_release_reference(env.address, ref_obj_id))


def check_reference_leak(env: BpfVerifierEnv, prefix: str) -> None:
    """Nothing acquired is still held, no section is open. Errors: EINVAL. Kernel: check_resource_leak.

    What a function holds its caller may still give back, after a tail call in it, too: that ends the function alone.
    """
    in_function = env.cur_state.nframes > 1
    if not env.cur_state.refs or (in_function and prefix != "tail_call"):
        return
    check_sections_closed(env, prefix, ("lock",))
    held = [] if in_function else [ref for ref in env.cur_state.refs if ref.kind in ("ptr", "iter")]
    for ref in held:
        env.log.line(f"Unreleased reference id={ref.id} alloc_insn={ref.insn_idx}")
    if held:
        env.reject(EINVAL, f"{prefix} would lead to reference leak")
    check_sections_closed(env, prefix, ("rcu", "preempt"))
