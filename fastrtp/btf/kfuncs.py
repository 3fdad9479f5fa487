"""Kernel functions that programs may call by their BTF id: the table of all (kfunc_table.py), and which have a body here.

A kernel whose BTF has no such function (it came later) offers it all the same, under an id of its own behind all types.
Kernel: kernel/bpf/verifier.c:fetch_kfunc_meta, get_kfunc_ptr_arg_type. Must not know: the verifier, native code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fastrtp.btf.kfunc_table import COMMON, TRACING
from fastrtp.btf.types import BtfKind

_SYNTHETIC = 0x7F000000
_SUFFIXES = ("__ign", "__sz", "__szk", "__k", "__opt", "__uninit", "__nullable", "__str", "__map", "__alloc", "__refcounted_kptr",
             "__prog", "__irq_flag")  # fmt: skip


@dataclass(frozen=True, slots=True)
class KfuncParam:
    """A parameter. `pointer`: whether it is one, `struct`: to which struct, "" for none; `suffixes`: what its name says."""

    name: str
    type: str
    pointer: bool
    struct: str
    suffixes: frozenset[str]


@dataclass(frozen=True, slots=True)
class KfuncProto:
    """`ret`: the type that comes back; `common`: also for raw_tp programs; `acquire` to `sleepable`: its KF_ flags.

    `iterator`: the first parameter is one, on the stack; `section`: what it opens or closes; `family`: rules beyond those that
    the prototype gives (verifier/rules/object_kfunc.py); `members`: (struct, member) of which the body gets offsets behind env,
    sizes where there is no member. `why`: why it is not here, "" for what is.
    """

    name: str
    ret: str = "void"
    params: tuple[KfuncParam, ...] = ()
    common: bool = False
    acquire: bool = False
    release: bool = False
    ret_null: bool = False
    rcu: bool = False
    sleepable: bool = False
    iterator: str = ""
    section: str = ""
    opens: bool = False
    family: str = ""
    members: tuple[tuple[str, str], ...] = ()
    why: str = ""
    text: str = ""

    @property
    def args(self) -> int:
        """How many parameters it has."""
        return len(self.params)

    @property
    def is_graph(self) -> bool:
        """Called with a lock held. Kernel: is_bpf_graph_api_kfunc."""
        return self.family in ("list", "rbtree", "refcount_acquire")

    @property
    def ret_struct(self) -> str:
        """The kernel struct that it gives a pointer to, "" for anything else."""
        found = re.fullmatch(r"struct (\w+) \*", self.ret)
        return found[1] if found else ""


_SECTIONS = {"bpf_rcu_read_lock": ("rcu", True), "bpf_rcu_read_unlock": ("rcu", False),
             "bpf_preempt_disable": ("preempt", True), "bpf_preempt_enable": ("preempt", False)}  # fmt: skip
_FAMILIES = {
    "bpf_obj_new_impl": "obj_new",
    "bpf_obj_drop_impl": "obj_drop",
    "bpf_refcount_acquire_impl": "refcount_acquire",
    "bpf_rdonly_cast": "rdonly_cast",
    "__bpf_trap": "trap",
    **dict.fromkeys((f"bpf_xdp_metadata_rx_{what}" for what in ("hash", "timestamp", "vlan_tag")), "device"),
    **dict.fromkeys(
        ("bpf_list_push_front_impl", "bpf_list_push_back_impl", "bpf_list_pop_front", "bpf_list_pop_back", "bpf_list_front",
         "bpf_list_back"), "list"),
    **dict.fromkeys(("bpf_rbtree_add_impl", "bpf_rbtree_remove", "bpf_rbtree_first"), "rbtree"),
}  # fmt: skip
_NEVER = frozenset({"trap", "device"})
"""Families of which every call is refused, as in Linux."""
_NUM = frozenset({"bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"})
_LATER = "not written yet"
_NOT_HERE: dict[str, str] = {
    **dict.fromkeys(("bpf_lookup_system_key", "bpf_key_put"), "nobody has keys here"),
    **dict.fromkeys(("bpf_kfunc_call_memb_release", "bpf_kfunc_call_test_release"), "for the kernel's own tests"),
    **dict.fromkeys(
        ("bpf_task_work_schedule_resume_impl", "bpf_task_work_schedule_signal_impl"), "tasks do no work of programs here"
    ),
    **dict.fromkeys(("bpf_wq_init", "bpf_wq_set_callback_impl", "bpf_wq_start"), "there are no workqueues here"),
    "bpf_stream_vprintk_impl": "programs have no streams here",
    "bpf_cgroup_read_xattr": "there are no extended attributes here",
    "bpf_dynptr_from_skb": "recordings have no packets",
    "bpf_get_kmem_cache": "objects are in no caches here",
    "bpf_modify_return_test_tp": "for the kernel's own tests",
    "css_rstat_updated": "cgroups have no statistics here",
    "bpf_cgroup_from_id": "cgroups are known by the events that name them, not by number",
    "bpf_send_signal_task": "signals are noted for the running task only",
    "bpf_cast_to_kern_ctx": _LATER,
    **dict.fromkeys(
        ("bpf_rbtree_root", "bpf_rbtree_left", "bpf_rbtree_right"),
        "trees are balanced in another way here: they would look different",
    ),
    "bpf_throw": "no unwinding through frames",
    **dict.fromkeys(("bpf_percpu_obj_new_impl", "bpf_percpu_obj_drop_impl"), "no per-CPU objects"),
    **dict.fromkeys(("bpf_local_irq_save", "bpf_local_irq_restore"), "no interrupt flags on the stack"),
    **dict.fromkeys(
        ("bpf_res_spin_lock", "bpf_res_spin_unlock", "bpf_res_spin_lock_irqsave", "bpf_res_spin_unlock_irqrestore"),
        "no locks that can fail",
    ),
    **dict.fromkeys(
        (
            f"bpf_iter_{kind}_{step}"
            for kind in ("bits", "css", "css_task", "task", "task_vma")
            for step in ("new", "next", "destroy")
        ),
        "no iterator but that of numbers",
    ),
}
_NAME = re.compile(r"^(.*?)(\w+)\((.*)\)$")
_TYPE_AND_NAME = re.compile(r"^(.*?)(\w+)$")
_STRUCT = re.compile(r"^(?:const )?struct (\w+) \*$")


def _param(text: str) -> KfuncParam:
    found = _TYPE_AND_NAME.match(text)
    assert found is not None
    kind, name = found[1].strip(), found[2]
    struct = _STRUCT.match(kind)
    suffixes = frozenset(suffix for suffix in _SUFFIXES if name.endswith(suffix))
    return KfuncParam(name, kind, kind.endswith("*"), struct[1] if struct else "", suffixes)


def _row(line: str, common: bool) -> KfuncProto:
    flags, _, text = line.partition(" ")
    found = _NAME.match(text.strip())
    assert found is not None
    ret, name = found[1].strip(), found[2]
    params = () if found[3] == "void" else tuple(_param(part.strip()) for part in found[3].split(","))
    step = re.fullmatch(r"bpf_iter_(\w+?)_(new|next|destroy)", name)
    section, opens = _SECTIONS.get(name, ("", False))
    why = _NOT_HERE.get(name, "")
    if not why and name not in BODIES and name not in _NUM and _FAMILIES.get(name) not in _NEVER and "S" not in flags:
        why = _LATER
    return KfuncProto(
        name, ret, params, common, acquire="A" in flags, release="R" in flags, ret_null="N" in flags, rcu="U" in flags,
        sleepable="S" in flags, iterator=step[2] if step else "", section=section, opens=opens, family=_FAMILIES.get(name, ""),
        members=_members(name), why=why, text=text.strip(),
    )  # fmt: skip


def _members(name: str) -> tuple[tuple[str, str], ...]:
    if name in ("bpf_cgroup_ancestor", "bpf_task_under_cgroup"):
        return (("cgroup", "level"), ("cgroup", "ancestors")) if name == "bpf_cgroup_ancestor" else (("cgroup", "level"),)
    if name == "bpf_cpumask_create":
        return ("bpf_cpumask", ""), ("bpf_cpumask", "usage"), ("cpumask", "")
    return (("cpumask", ""),) if name.startswith("bpf_cpumask_") and name[12:] not in ("acquire", "release") else ()


def _group(prefix: str, words: str) -> tuple[str, ...]:
    return tuple(prefix + word for word in words.split())


BODIES = frozenset((
    *_SECTIONS,
    *(name for name, family in _FAMILIES.items() if family not in _NEVER),
    *_group("bpf_task_", "acquire release from_pid from_vpid under_cgroup get_cgroup1"),
    *_group("bpf_cgroup_", "acquire release ancestor"),
    "bpf_map_sum_elem_count",
    *_group("bpf_dynptr_", "adjust clone copy is_null is_rdonly memset size slice slice_rdwr"),
    *(f"bpf_probe_read_{kind}_dynptr" for kind in ("kernel", "kernel_str", "user", "user_str")),
    *_group("bpf_str", "casecmp chr chrnul cmp cspn len nchr nlen nstr rchr spn str"),
    *_group("bpf_cpumask_",
            "acquire and any_and_distribute any_distribute clear clear_cpu copy create empty equal first first_and first_zero "
            "full intersects or populate release set_cpu setall subset test_and_clear_cpu test_and_set_cpu test_cpu weight xor"),
))  # fmt: skip
"""Functions with a body of that name in a *_native.py module."""

EVERY = {
    proto.name: proto
    for text, common in ((COMMON, True), (TRACING, False))
    for proto in (_row(line, common) for line in text.split("\n") if line.strip())
}
"""All of 6.18's, by name."""
KFUNCS = {name: proto for name, proto in EVERY.items() if not proto.why}
"""Those that are called here, or that are refused as Linux refuses them, by name."""


_NAMES = tuple(KFUNCS)
_NUMBERS = {name: number for number, name in enumerate(_NAMES)}


def kfunc_of(btf: Any, ident: int) -> KfuncProto | None:
    """The function of the id that a call has in `imm`."""
    if _SYNTHETIC <= ident < _SYNTHETIC + len(_NAMES):
        return KFUNCS[_NAMES[ident - _SYNTHETIC]]
    if btf is None or not 0 < ident < len(btf):
        return None
    record = btf.type(ident)
    return KFUNCS.get(record.name) if record.kind == BtfKind.FUNC else None


def kfunc_id(btf: Any, name: str) -> int | None:
    """Id of a function, None where there is none of that name."""
    if name not in _NUMBERS:
        return None
    found: int | None = btf.find(name, BtfKind.FUNC) if btf is not None else None
    return _SYNTHETIC + _NUMBERS[name] if found is None else found
