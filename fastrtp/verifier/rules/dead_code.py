"""References to functions after Linux has taken out what no path reaches.

A function that only a bpf_loop of no iterations names is never entered, and so is taken out; what named it then names what came
to lie at its place. Where no function begins there, Linux calls it a bug of its verifier and refuses the program.
Kernel: kernel/bpf/verifier.c:optimize_bpf_loop, opt_remove_dead_code, adjust_subprog_starts_after_remove, jit_subprogs.
"""

from __future__ import annotations

from errno import EFAULT
from itertools import groupby

from fastrtp.helpers.table import HELPER_IDS
from fastrtp.isa import BPF_CALL, BPF_JMP
from fastrtp.uapi import BPF_PSEUDO_FUNC
from fastrtp.verifier.rules.env import BpfVerifierEnv

_LD_IMM64 = 0x18
_INLINED_LOOP = 19
"""Instructions that a call of bpf_loop becomes. Kernel: inline_bpf_loop."""


def check_func_refs(env: BpfVerifierEnv) -> None:
    """Refuse a program that refers to a function that is no longer there. Errors: EFAULT."""
    refs = [
        (i, i + insn.imm + 1)
        for i, insn in enumerate(env.insns)
        if insn.code == _LD_IMM64 and insn.src_reg == BPF_PSEUDO_FUNC and env.aux[i].seen
    ]
    if all(env.aux[target].seen for _, target in refs):
        return
    starts, targets = _after_removal(env, [target for _, target in refs])
    for target in targets if len(starts) > 1 else ():
        if target not in starts:
            env.reject(EFAULT, f"verifier bug: No program to jit at insn {target} (subprog < 0)")


def _after_removal(env: BpfVerifierEnv, targets: list[int]) -> tuple[set[int], list[int]]:
    """Where the functions that are left begin, and what `targets` have become."""
    place, places = 0, []
    alive = []
    for i, insn in enumerate(env.insns):
        places.append(place)
        loop = insn.code == BPF_JMP | BPF_CALL and not insn.src_reg and insn.imm == HELPER_IDS["loop"]
        inlined = loop and env.aux[i].callback is not None
        wide_half = i > 0 and env.insns[i - 1].code == _LD_IMM64
        count = _INLINED_LOOP if inlined else 1
        alive += [env.aux[i - 1 if wide_half else i].seen] * count
        place += count
    starts = {places[subprog.start] for subprog in env.subprogs}
    targets = [places[target] for target in targets]
    at = 0
    for seen, run in groupby(alive):
        count = len(list(run))
        if seen:
            at += count
            continue
        end = at + count
        targets = [target - count if target >= end else target for target in targets]
        starts = {start - count if start >= end else start for start in starts if not at <= start < end}
    return starts, targets
