"""Tracepoints whose pointer arguments may be NULL or an error pointer, as the kernel lists them for tp_btf.

One hex digit per argument, the first lowest: 1 the pointer may be NULL, 2 it may be an ERR_PTR (then it is a number
for the verifier). Kernel: kernel/bpf/btf.c:raw_tp_null_args.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_BY_MASK = {
    0x1: """
        afs_protocol_error cachefiles_unlink cachefiles_rename cachefiles_prep_read cachefiles_mark_active
        cachefiles_mark_failed cachefiles_mark_inactive cachefiles_vfs_error cachefiles_io_error
        cachefiles_ondemand_open cachefiles_ondemand_copen cachefiles_ondemand_close cachefiles_ondemand_read
        cachefiles_ondemand_cread cachefiles_ondemand_fd_write cachefiles_ondemand_fd_release
        mm_collapse_huge_page_isolate mm_page_alloc mm_page_pcpu_drain mm_page_alloc_zone_locked
        rxrpc_recvdata xs_stream_read_data tmigr_update_events
    """,
    0x10: """
        sched_pi_setprio afs_make_fs_call afs_make_fs_calli afs_make_fs_call1 afs_make_fs_call2 afs_flock_ev
        ext4_mballoc_discard ext4_mballoc_free posix_lock_inode fcntl_setlk locks_remove_posix
        flock_lock_inode break_lease_noblock break_lease_block break_lease_unblock generic_delete_lease
        time_out_leases mm_khugepaged_scan_pmd mm_khugepaged_scan_file mm_khugepaged_collapse_file
        netfs_failure device_pm_callback_start rxrpc_resend xprt_reserve_cong xprt_release_cong xprt_get_cong
        xprt_put_cong writeback_dirty_folio folio_wait_writeback
    """,
    0x100: """
        sched_stick_numa sched_swap_numa fib_table_lookup tegra_dma_tx_status
    """,
    0x1000: """
        kfree_skb qdisc_dequeue
    """,
    0x11: """
        tcp_send_reset
    """,
    0x201: """
        cachefiles_lookup
    """,
    0x2000: """
        mr_integ_alloc
    """,
    0x10000: """
        host1x_cdma_push_gather
    """,
}

_MASKS: Mapping[str, int] = MappingProxyType({name: mask for mask, names in _BY_MASK.items() for name in names.split()})


def raw_tp_null_arg(name: str, arg: int) -> int:
    """0: a valid pointer, 1: may be NULL, 2: may be an ERR_PTR."""
    return _MASKS.get(name, 0) >> (4 * arg) & 0xF
