"""Tracepoints whose pointer arguments may be NULL or an error pointer, as the kernel lists them for tp_btf.

One hex digit per argument, the first lowest: 1 the pointer may be NULL, 2 it may be an ERR_PTR (then it is a number
for the verifier). Kernel: kernel/bpf/btf.c:raw_tp_null_args (facts about the kernel's trace calls).
"""

from __future__ import annotations

from types import MappingProxyType

_MASKS: MappingProxyType[str, int] = MappingProxyType(
    {
        "sched_pi_setprio": 0x10,
        "sched_stick_numa": 0x100,
        "sched_swap_numa": 0x100,
        "kfree_skb": 0x1000,
        "tcp_send_reset": 0x11,
        "fib_table_lookup": 0x100,
        "writeback_dirty_folio": 0x10,
        "writeback_dirty_page": 0x10,
        "io_uring_complete": 0x10,
        "nfs4_sequence_done": 0x10,
        "nfs4_cb_sequence": 0x11,
        "nfs4_cached_open": 0x10,
        "netfs_failure": 0x10,
        "ext4_mballoc_discard": 0x10,
        "ext4_mballoc_free": 0x10,
        "qdisc_dequeue": 0x1000,
    }
)


def raw_tp_null_arg(name: str, arg: int) -> int:
    """0: a valid pointer, 1: may be NULL, 2: may be an ERR_PTR."""
    return _MASKS.get(name, 0) >> (4 * arg) & 0xF
