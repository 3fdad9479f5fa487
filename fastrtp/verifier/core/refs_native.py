"""References that a path holds: acquired by a call, and given back by one.

Kernel: kernel/bpf/verifier.c:acquire_reference, release_reference.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, memcpy, native
from fastrtp.verifier.core.loop_native import KIND_ITER
from fastrtp.verifier.core.stack_native import EVERY
from fastrtp.verifier.core.state_native import (
    REF_SIZE,
    REFS_HEAD,
    allocate,
    forget_ref,
    frame_of,
    mark_not_init,
    mark_unknown,
    new_id,
    reg_of,
    set_slot_types,
    slot_of,
)
from fastrtp.verifier.domain.records import MAX_BPF_REG, VEnv, VRefs, VState
from fastrtp.verifier.domain.stacktype import STACK_MISC

KIND_PTR = 0


@device
def acquire_reference(env: VEnv, state: VState, insn_idx: int, kind: int) -> int:
    """A new resource that has to be released: its id; 0 where there is no memory."""
    refs = state.refs
    count = refs.count if refs else 0
    new = VRefs(allocate(env, REFS_HEAD + (count + 1) * REF_SIZE))
    if not new:
        return 0
    if count != 0:
        memcpy(int(new.items), int(refs.items), count * REF_SIZE)
    ident = new_id(env)
    entry = new.items[count]
    entry.id = ident
    entry.kind = kind
    entry.ptr = 0
    entry.insn_idx = insn_idx
    new.count = count + 1
    new.next = env.all_refs
    env.all_refs = new
    state.refs = new
    return ident


@device
def holds(state: VState, ident: int) -> int:
    """Whether a resource has not been released."""
    refs = state.refs
    count = refs.count if refs else 0
    for index in range(count):
        if refs.items[index].id == ident:
            return 1
    return 0


@device
def in_section(state: VState) -> int:
    """Whether a lock is held, or another section is open."""
    refs = state.refs
    count = refs.count if refs else 0
    for index in range(count):
        if refs.items[index].kind > KIND_ITER:
            return 1
    return 0


@device
def release_reference(env: VEnv, state: VState, ident: int) -> int:
    """Give a resource back: every pointer to it is dead. 0: it was not held."""
    if not holds(state, ident):
        return 0
    forget_ref(env, state, ident)
    for number in range(state.nframes):
        frame = frame_of(state, number)
        for regno in range(MAX_BPF_REG):
            reg = reg_of(frame, regno)
            if reg.ref_obj_id == ident:
                mark_unknown(reg)
        for spi in range(frame.nslots):
            slot = slot_of(frame, spi)
            if slot.reg.ref_obj_id == ident:
                set_slot_types(slot, EVERY * STACK_MISC)
                mark_not_init(slot.reg)
    return 1


@native()
def verifier_acquire_reference(venv: VEnv, insn_idx: int) -> int:
    """`acquire_reference` for Python, in the state under way."""
    return acquire_reference(venv, venv.cur, insn_idx, KIND_PTR)


@native()
def verifier_release_reference(venv: VEnv, ident: int) -> int:
    """`release_reference` for Python, in the state under way."""
    return release_reference(venv, venv.cur, ident)
