"""What every helper and kernel function does besides its arguments' memory: a row each. One without a row is not understood.

What the memory arguments are (read, written, how long) stands in the helpers' own table.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from fastrtp.effects.values import CPU, FROM_KERNEL, KERNEL_OBJECT, LOCAL, TOP, Value


class Do(Enum):
    """How a call is followed (calls.py)."""

    NOTHING = auto()
    LOOKUP = auto()
    PERCPU_LOOKUP = auto()
    UPDATE = auto()
    DELETE = auto()
    ITERATE = auto()
    RING = auto()
    PERF = auto()
    STACK = auto()
    DRAIN = auto()
    TAIL_CALL = auto()
    PROBE = auto()
    """Copies kernel memory from the third argument to the first."""
    MEMBER = auto()
    """Reads `member` of the running task."""
    KERNEL = auto()
    """Reads kernel memory somewhere."""
    MEMORY_DYNPTR = auto()
    """Its first argument is memory that others will read and write through what it makes."""
    LOOP = auto()
    OUTSIDE = auto()


class Rule(NamedTuple):
    """`result`: R0; `detail`: the member, or what is done outside of maps."""

    do: Do
    result: Value = TOP
    detail: str = ""


_PROBE = Rule(Do.PROBE)
_RING = Rule(Do.RING)
_PIPE = Rule(Do.OUTSIDE, detail="writes to the trace pipe, whose lines have one order")
_TIMER = Rule(Do.OUTSIDE, detail="works on a timer, and timers fire in the order of all events")
_SIGNAL = Rule(Do.OUTSIDE, detail="asks for a signal, and signals have one order")
_OBJECT = Rule(Do.OUTSIDE, detail="works on an object that CPUs share")
_RECORDED_STACK = Rule(Do.OUTSIDE, detail="asks for a stack by the event's place among all events")
_STORAGE = Rule(Do.OUTSIDE, detail="works on storage of an object that CPUs share")
_QUEUE = Rule(Do.OUTSIDE, detail="works on a map without keys, whose values have one order")
_NOTHING = Rule(Do.NOTHING)

HELPER_RULES: dict[str, Rule] = {
    "map_lookup_elem": Rule(Do.LOOKUP),
    "map_update_elem": Rule(Do.UPDATE),
    "map_delete_elem": Rule(Do.DELETE),
    "map_lookup_percpu_elem": Rule(Do.PERCPU_LOOKUP),
    "for_each_map_elem": Rule(Do.ITERATE),
    "map_push_elem": _QUEUE,
    "map_pop_elem": _QUEUE,
    "map_peek_elem": _QUEUE,
    "task_storage_get": _STORAGE,
    "task_storage_delete": _STORAGE,
    "cgrp_storage_get": _STORAGE,
    "cgrp_storage_delete": _STORAGE,
    "sk_storage_get": _STORAGE,
    "sk_storage_delete": _STORAGE,
    "current_task_under_cgroup": _NOTHING,  # there is one cgroup
    "get_current_ancestor_cgroup_id": _NOTHING,
    "get_branch_snapshot": _NOTHING,  # there are none
    "perf_event_read": _NOTHING,  # nothing counts
    "perf_event_read_value": _NOTHING,
    "snprintf_btf": Rule(Do.KERNEL),
    "task_pt_regs": Rule(Do.NOTHING, KERNEL_OBJECT),
    "get_socket_cookie": Rule(Do.KERNEL),
    "sock_from_file": Rule(Do.KERNEL),
    "skb_output": Rule(Do.PERF),
    "xdp_output": Rule(Do.PERF),
    "xdp_get_buff_len": Rule(Do.KERNEL),
    **dict.fromkeys(
        (f"skc_to_{kind}_sock" for kind in ("tcp", "tcp6", "udp6", "unix", "tcp_timewait", "tcp_request")),
        Rule(Do.KERNEL, KERNEL_OBJECT),
    ),
    "loop": Rule(Do.LOOP),
    "tail_call": Rule(Do.TAIL_CALL),
    "ringbuf_output": _RING,
    "ringbuf_reserve": Rule(Do.RING, LOCAL),
    "ringbuf_reserve_dynptr": _RING,
    "ringbuf_query": _RING,
    "ringbuf_submit": _NOTHING,  # the place in the ring was taken by the reservation
    "ringbuf_discard": _NOTHING,
    "ringbuf_submit_dynptr": _NOTHING,
    "ringbuf_discard_dynptr": _NOTHING,
    "perf_event_output": Rule(Do.PERF),
    "user_ringbuf_drain": Rule(Do.DRAIN),
    "get_stackid": Rule(Do.STACK),
    "get_stack": _RECORDED_STACK,
    "get_task_stack": _RECORDED_STACK,
    "probe_read": _PROBE,
    "probe_read_str": _PROBE,
    "probe_read_kernel": _PROBE,
    "probe_read_kernel_str": _PROBE,
    "probe_read_user": _PROBE,
    "probe_read_user_str": _PROBE,
    "get_current_comm": Rule(Do.MEMBER, detail="comm"),
    "get_current_pid_tgid": Rule(Do.MEMBER, detail="pid tgid"),
    "get_ns_current_pid_tgid": Rule(Do.MEMBER, detail="pid tgid"),
    "get_current_task": Rule(Do.NOTHING, KERNEL_OBJECT),
    "get_current_task_btf": Rule(Do.NOTHING, KERNEL_OBJECT),
    "get_current_uid_gid": _NOTHING,
    "get_smp_processor_id": Rule(Do.NOTHING, CPU),
    "get_numa_node_id": _NOTHING,
    "get_prandom_u32": _NOTHING,  # each CPU has a sequence of its own
    "get_cgroup_classid": _NOTHING,  # always 0
    "get_current_cgroup_id": _NOTHING,  # always the root's
    "get_attach_cookie": _NOTHING,
    "ktime_get_ns": _NOTHING,
    "ktime_get_boot_ns": _NOTHING,
    "ktime_get_tai_ns": _NOTHING,
    "jiffies64": _NOTHING,
    "per_cpu_ptr": Rule(Do.NOTHING, FROM_KERNEL),
    "this_cpu_ptr": Rule(Do.NOTHING, FROM_KERNEL),
    "snprintf": Rule(Do.KERNEL),  # %s
    "strncmp": _NOTHING,
    "strtol": _NOTHING,
    "strtoul": _NOTHING,
    "spin_lock": _NOTHING,
    "spin_unlock": _NOTHING,
    "find_vma": _NOTHING,  # there is none to be found
    "dynptr_from_mem": Rule(Do.MEMORY_DYNPTR),
    "dynptr_read": _NOTHING,
    "dynptr_write": _NOTHING,
    "dynptr_data": Rule(Do.NOTHING, LOCAL),
    "trace_printk": _PIPE,
    "trace_vprintk": _PIPE,
    "send_signal": _SIGNAL,
    "send_signal_thread": _SIGNAL,
    "timer_init": _TIMER,
    "timer_set_callback": _TIMER,
    "timer_start": _TIMER,
    "timer_cancel": _TIMER,
    "kptr_xchg": _OBJECT,
}
"""By name, without `bpf_`."""

KFUNC_RULES: dict[str, Rule] = {
    **dict.fromkeys((f"bpf_dynptr_{what}" for what in ("adjust", "is_null", "is_rdonly", "size")), _NOTHING),
    "bpf_iter_num_new": _NOTHING,
    "bpf_iter_num_next": Rule(Do.NOTHING, LOCAL),
    "bpf_iter_num_destroy": _NOTHING,
    "bpf_rcu_read_lock": _NOTHING,
    "bpf_rcu_read_unlock": _NOTHING,
    "bpf_preempt_disable": _NOTHING,
    "bpf_preempt_enable": _NOTHING,
    "bpf_rdonly_cast": Rule(Do.NOTHING, FROM_KERNEL),
}
"""By name."""

UNKNOWN = Rule(Do.OUTSIDE, detail="calls what is not known to commute")
