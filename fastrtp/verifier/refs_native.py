"""References that a path holds: acquired by a call, and given back by one.

Kernel: kernel/bpf/verifier.c:acquire_reference, release_reference.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load32, load64, memcpy, native, store64
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import MAX_BPF_REG, VREF
from fastrtp.verifier.loop_native import KIND_ITER, REF_ID, REF_KIND
from fastrtp.verifier.prune_native import REF_PTR
from fastrtp.verifier.stack_native import EVERY
from fastrtp.verifier.stacktype import STACK_MISC
from fastrtp.verifier.state_native import (
    E_ALL_REFS,
    E_CUR,
    F_NSLOTS,
    R_REF,
    REF_SIZE,
    REFS_COUNT,
    REFS_HEAD,
    REFS_NEXT,
    S_REG,
    T_NFRAMES,
    T_REFS,
    allocate,
    forget_ref,
    frame_of,
    mark_not_init,
    mark_unknown,
    new_id,
    reg_of,
    slot_of,
)

KIND_PTR = 0
REF_IDX = at(VREF, "insn_idx")


@device
def acquire_reference(env: int, state: int, insn_idx: int, kind: int) -> int:
    """A new resource that has to be released: its id; 0 where there is no memory."""
    refs = load64(state + T_REFS)
    count = load64(refs + REFS_COUNT) if refs != 0 else 0
    new = allocate(env, REFS_HEAD + (count + 1) * REF_SIZE)
    if new == 0:
        return 0
    if count != 0:
        memcpy(new + REFS_HEAD, refs + REFS_HEAD, count * REF_SIZE)
    ident = new_id(env)
    entry = new + REFS_HEAD + count * REF_SIZE
    store64(entry + REF_ID, ident)
    store64(entry + REF_KIND, kind)
    store64(entry + REF_PTR, 0)
    store64(entry + REF_IDX, insn_idx)
    store64(new + REFS_COUNT, count + 1)
    store64(new + REFS_NEXT, load64(env + E_ALL_REFS))
    store64(env + E_ALL_REFS, new)
    store64(state + T_REFS, new)
    return ident


@device
def holds(state: int, ident: int) -> int:
    """Whether a resource has not been released."""
    refs = load64(state + T_REFS)
    count = load64(refs + REFS_COUNT) if refs != 0 else 0
    for index in range(count):
        if load64(refs + REFS_HEAD + index * REF_SIZE + REF_ID) == ident:
            return 1
    return 0


@device
def in_section(state: int) -> int:
    """Whether a lock is held, or another section is open."""
    refs = load64(state + T_REFS)
    count = load64(refs + REFS_COUNT) if refs != 0 else 0
    for index in range(count):
        if load64(refs + REFS_HEAD + index * REF_SIZE + REF_KIND) > KIND_ITER:
            return 1
    return 0


@device
def release_reference(env: int, state: int, ident: int) -> int:
    """Give a resource back: every pointer to it is dead. 0: it was not held."""
    if not holds(state, ident):
        return 0
    forget_ref(env, state, ident)
    for number in range(load64(state + T_NFRAMES)):
        frame = frame_of(state, number)
        for regno in range(MAX_BPF_REG):
            reg = reg_of(frame, regno)
            if load32(reg + R_REF) == ident:
                mark_unknown(reg)
        for spi in range(load64(frame + F_NSLOTS)):
            slot = slot_of(frame, spi)
            if load32(slot + S_REG + R_REF) == ident:
                store64(slot, EVERY * STACK_MISC)
                mark_not_init(slot + S_REG)
    return 1


@native()
def verifier_acquire_reference(venv: int, insn_idx: int) -> int:
    """`acquire_reference` for Python, in the state under way."""
    return acquire_reference(venv, load64(venv + E_CUR), insn_idx, KIND_PTR)


@native()
def verifier_release_reference(venv: int, ident: int) -> int:
    """`release_reference` for Python, in the state under way."""
    return release_reference(venv, load64(venv + E_CUR), ident)
