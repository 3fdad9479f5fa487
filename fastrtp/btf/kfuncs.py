"""Kernel functions that programs may call by their BTF id: number iterator, RCU and preemption sections.

A kernel whose BTF has no such function (before 6.4, 6.7) offers it all the same, under an id of its own behind all types.
Kernel: kernel/bpf/helpers.c:common_btf_ids. Must not know: the verifier, native code (helpers/section_native.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastrtp.btf.types import BtfKind

_SYNTHETIC = 0x7F000000


@dataclass(frozen=True, slots=True)
class KfuncProto:
    """`args`: how many; `iterator`: the first is one, on the stack; `section`: what it opens or closes."""

    name: str
    args: int = 0
    iterator: str = ""
    section: str = ""
    opens: bool = False


KFUNCS = {
    proto.name: proto
    for proto in (
        KfuncProto("bpf_iter_num_new", 3, iterator="new"),
        KfuncProto("bpf_iter_num_next", 1, iterator="next"),
        KfuncProto("bpf_iter_num_destroy", 1, iterator="destroy"),
        KfuncProto("bpf_rcu_read_lock", section="rcu", opens=True),
        KfuncProto("bpf_rcu_read_unlock", section="rcu"),
        KfuncProto("bpf_preempt_disable", section="preempt", opens=True),
        KfuncProto("bpf_preempt_enable", section="preempt"),
    )
}
"""By name; each has a body of that name in section_native.py."""


def kfunc_ids(btf: Any) -> dict[int, KfuncProto]:
    """The functions by the id that a call has in `imm`."""
    ids = {}
    for number, proto in enumerate(KFUNCS.values()):
        found = btf.find(proto.name, BtfKind.FUNC) if btf is not None else None
        ids[_SYNTHETIC + number if found is None else found] = proto
    return ids


def kfunc_id(btf: Any, name: str) -> int | None:
    """Id of a function, None where there is none of that name."""
    return next((ident for ident, proto in kfunc_ids(btf).items() if proto.name == name), None)
