"""What a program's section name says: its type, where it attaches, whether it loads by itself.

Kernel: tools/lib/bpf/libbpf.c:section_defs
"""

from __future__ import annotations

from typing import NamedTuple

from fastrtp.uapi import BpfAttachType, BpfProgType


class SectionDef(NamedTuple):
    """A row of the table: program type, attach type, writable context buffer."""

    prog_type: int
    attach_type: int = 0
    writable: bool = False


SECTION_DEFS = {
    "raw_tp": SectionDef(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT),
    "raw_tracepoint": SectionDef(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT),
    "raw_tp.w": SectionDef(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, writable=True),
    "raw_tracepoint.w": SectionDef(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE, writable=True),
    "tp": SectionDef(BpfProgType.BPF_PROG_TYPE_TRACEPOINT),
    "tracepoint": SectionDef(BpfProgType.BPF_PROG_TYPE_TRACEPOINT),
    "tp_btf": SectionDef(BpfProgType.BPF_PROG_TYPE_TRACING, BpfAttachType.BPF_TRACE_RAW_TP),
}
"""Sections whose programs run here; each may be followed by `/<tracepoint>`, tp and tracepoint by `/<system>/<tracepoint>`."""

FOREIGN_SECTIONS = {
    "kprobe": "kprobe", "kretprobe": "kprobe", "ksyscall": "kprobe", "kretsyscall": "kprobe", "kprobe.multi": "kprobe",
    "kretprobe.multi": "kprobe", "kprobe.session": "kprobe", "uprobe": "uprobe", "uretprobe": "uprobe", "uprobe.s": "uprobe",
    "uretprobe.s": "uprobe", "uprobe.multi": "uprobe", "usdt": "usdt",
    "perf_event": "perf_event", "fentry": "fentry", "fentry.s": "fentry", "fexit": "fexit", "fexit.s": "fexit",
    "fmod_ret": "fmod_ret", "fmod_ret.s": "fmod_ret", "freplace": "freplace", "lsm": "lsm", "lsm.s": "lsm", "lsm_cgroup": "lsm",
    "iter": "iterator", "iter.s": "iterator", "syscall": "syscall", "struct_ops": "struct_ops", "struct_ops.s": "struct_ops",
    "xdp": "xdp", "xdp.frags": "xdp", "tc": "tc", "tcx": "tc", "classifier": "tc", "action": "tc", "netkit": "netkit",
    "socket": "socket filter", "sk_msg": "sk_msg", "sk_skb": "sk_skb", "sk_reuseport": "sk_reuseport", "sk_lookup": "sk_lookup",
    "sockops": "sockops", "flow_dissector": "flow_dissector", "lwt_in": "lwt", "lwt_out": "lwt", "lwt_xmit": "lwt",
    "cgroup": "cgroup", "cgroup_skb": "cgroup", "lirc_mode2": "lirc_mode2", "netfilter": "netfilter", "seccomp": "seccomp",
}  # fmt: skip
"""Section prefixes that libbpf knows and that have no tracepoint behind them."""


class SectionName(NamedTuple):
    """A section name taken apart; `definition` is None when its programs do not run here, `reason` says why."""

    definition: SectionDef | None
    attach_name: str
    autoload: bool
    reason: str


def parse_section_name(name: str) -> SectionName:
    """`?raw_tp/sched_switch` -> raw_tp, "sched_switch", no autoload."""
    autoload = not name.startswith("?")
    prefix, _, extra = name.removeprefix("?").partition("/")
    definition = SECTION_DEFS.get(prefix)
    if definition is not None:
        return SectionName(definition, extra, autoload, "")
    kind = FOREIGN_SECTIONS.get(prefix)
    if kind is not None:
        reason = f"section {name!r}: {kind} programs do not run on raw tracepoints"
    else:
        reason = f"section {name!r} names no program type, expected raw_tp/<tracepoint> or tp_btf/<tracepoint>"
    return SectionName(None, extra, autoload, reason)
