"""Which programs want one thread: what they work on is not for several at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.btf.kfuncs import KFUNCS
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.maps.fields import FieldKind

if TYPE_CHECKING:
    from fastrtp.kernel.prog import BpfProg

_CALL = 0x85
_HELPERS = frozenset(
    HELPER_IDS[name]
    for name in (
        "kptr_xchg", "get_stack", "get_stackid", "get_task_stack", "user_ringbuf_drain", "send_signal", "send_signal_thread",
        "timer_init", "timer_start", "timer_cancel",
    )
)  # fmt: skip
"""Helpers whose bodies take no lock, or that ask for the stack of an event by its place in the whole recording."""
_FAMILIES = frozenset({"obj_new", "obj_drop", "refcount_acquire", "list", "rbtree"})


def wants_order(prog: BpfProg) -> bool:
    """Timers, objects of programs (and values that hold some), stacks, signals, samples from user space."""
    if any(field.kind != FieldKind.LOCK for used in prog.used_maps for field in used.map.fields):
        return True
    for insn, aux in zip(prog.verified.insns, prog.verified.aux, strict=True):
        if insn.code != _CALL or not aux.seen:
            continue
        if insn.src_reg == 0 and insn.imm in _HELPERS:
            return True
        known = KFUNCS.get(aux.kfunc)
        if known is not None and known.family in _FAMILIES:
            return True
    return False
