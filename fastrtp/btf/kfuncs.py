"""Kernel functions that programs may call by their BTF id, with their flags: iterators, sections, objects, lists, trees, tasks.

A kernel whose BTF has no such function (it came later) offers it all the same, under an id of its own behind all types.
Kernel: kernel/bpf/helpers.c:common_btf_ids, generic_btf_ids. Must not know: the verifier, native code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastrtp.btf.types import BtfKind

_SYNTHETIC = 0x7F000000


@dataclass(frozen=True, slots=True)
class KfuncProto:
    """`args`: how many; `iterator`: the first is one, on the stack; `section`: what it opens or closes.

    `family`: which rules its arguments follow (verifier/object_kfunc.py); `acquire`, `release`, `ret_null`: KF_ACQUIRE,
    KF_RELEASE, KF_RET_NULL; `struct`: the kernel type that it takes and gives.
    """

    name: str
    args: int = 0
    iterator: str = ""
    section: str = ""
    opens: bool = False
    family: str = ""
    acquire: bool = False
    release: bool = False
    ret_null: bool = False
    struct: str = ""

    @property
    def is_graph(self) -> bool:
        """Called with a lock held. Kernel: is_bpf_graph_api_kfunc."""
        return self.family in ("list", "rbtree", "refcount_acquire")


def _objects(struct: str, prefix: str) -> tuple[KfuncProto, ...]:
    return (
        KfuncProto(f"{prefix}_acquire", 1, family="acquire", acquire=True, ret_null=True, struct=struct),
        KfuncProto(f"{prefix}_release", 1, family="release", release=True, struct=struct),
    )


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
        KfuncProto("bpf_obj_new_impl", 2, family="obj_new", acquire=True, ret_null=True),
        KfuncProto("bpf_obj_drop_impl", 2, family="obj_drop", release=True),
        KfuncProto("bpf_refcount_acquire_impl", 2, family="refcount_acquire", acquire=True, ret_null=True),
        KfuncProto("bpf_list_push_front_impl", 4, family="list"),
        KfuncProto("bpf_list_push_back_impl", 4, family="list"),
        KfuncProto("bpf_list_pop_front", 1, family="list", acquire=True, ret_null=True),
        KfuncProto("bpf_list_pop_back", 1, family="list", acquire=True, ret_null=True),
        KfuncProto("bpf_list_front", 1, family="list", ret_null=True),
        KfuncProto("bpf_list_back", 1, family="list", ret_null=True),
        KfuncProto("bpf_rbtree_add_impl", 5, family="rbtree"),
        KfuncProto("bpf_rbtree_remove", 2, family="rbtree", acquire=True, ret_null=True),
        KfuncProto("bpf_rbtree_first", 1, family="rbtree", ret_null=True),
        *_objects("task_struct", "bpf_task"),
        *_objects("cgroup", "bpf_cgroup"),
        KfuncProto("bpf_task_from_pid", 1, family="from_pid", acquire=True, ret_null=True, struct="task_struct"),
        KfuncProto("bpf_rdonly_cast", 2, family="rdonly_cast"),
    )
}
"""By name; each has a body of that name in a *_native.py module."""


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
