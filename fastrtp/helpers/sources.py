"""Where the answers of helpers and kernel functions come from in a replay: a line each, for people.

What a single program reads, and how well a recording knows that, is `fastrtp check`'s to say (replay/fidelity.py).
Must not know: recordings, the verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MAP = "the map"
_RING = "the ring; a full one is emptied on the spot, or by the reader that was asked for"
_TIME = "the event's time; live: the host's clock"
_CALLER = "the caller's arguments"
_KERNEL = "objects as events told them; what none told is missing, by name"
_USER = "memory of processes is not recorded: -EFAULT"
_STACK = "the stacks that were recorded with the event, or -EFAULT"
_CGROUP = "all tasks are in the root cgroup; missing, by name"
_STORAGE = "the map, by the object's identity in the recording"
_SOCKET = "the socket's members as events told them; what none told is 0, by name"
_PACKET = "meta data of the caller; a packet's bytes are not recorded: 0, by name"
_SIGNAL = "nothing is sent: kernel.signals() lists what would have been"
_SECTION = "one program at a time: nothing to wait for"
_DYNPTR = "the caller's memory, or the ring"


def _each(text: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


HELPER_SOURCES: Mapping[str, str] = MappingProxyType({
    **_each(_MAP, "map_lookup_elem map_update_elem map_delete_elem map_lookup_percpu_elem map_push_elem map_pop_elem "
                  "map_peek_elem for_each_map_elem kptr_xchg tail_call"),
    **_each(_RING, "ringbuf_output ringbuf_reserve ringbuf_submit ringbuf_discard ringbuf_query ringbuf_reserve_dynptr "
                   "ringbuf_submit_dynptr ringbuf_discard_dynptr perf_event_output"),
    **_each(_TIME, "ktime_get_ns ktime_get_boot_ns ktime_get_tai_ns jiffies64"),
    **_each(_CALLER, "loop strncmp strtol strtoul snprintf"),
    **_each(_KERNEL, "probe_read probe_read_kernel probe_read_str probe_read_kernel_str per_cpu_ptr this_cpu_ptr snprintf_btf"),
    **_each(_USER, "probe_read_user probe_read_user_str"),
    **_each(_STACK, "get_stack get_stackid get_task_stack"),
    **_each(_CGROUP, "get_current_cgroup_id get_current_ancestor_cgroup_id current_task_under_cgroup"),
    **_each(_STORAGE, "task_storage_get task_storage_delete cgrp_storage_get cgrp_storage_delete sk_storage_get "
                      "sk_storage_delete"),
    **_each(_SOCKET, "skc_to_tcp_sock skc_to_tcp6_sock skc_to_udp6_sock skc_to_unix_sock"),
    **_each("no recorded object has the address that tells it: NULL, by name",
            "skc_to_tcp_timewait_sock skc_to_tcp_request_sock sock_from_file"),
    **_each(_PACKET, "skb_output xdp_output xdp_get_buff_len"),
    **_each(_SIGNAL, "send_signal send_signal_thread"),
    **_each(_SECTION, "spin_lock spin_unlock"),
    **_each(_DYNPTR, "dynptr_from_mem dynptr_read dynptr_write dynptr_data"),
    **_each("timers fire between events, by the events' time", "timer_init timer_set_callback timer_start timer_cancel"),
    **_each("the trace pipe", "trace_printk trace_vprintk"),
    **_each("nothing counts here: an error, or 0 of events that programs write to; missing, by name",
            "perf_event_read perf_event_read_value"),
    "get_current_pid_tgid": "common_pid of the record; thread groups as far as the recording tells them",
    "get_ns_current_pid_tgid": "the same, in the initial namespace",
    "get_current_comm": "the name that an event told last, before it the first one, or the one saved with the recording",
    "get_current_uid_gid": "of whoever replays; missing, by name",
    "get_current_task": "the task of common_pid",
    "get_current_task_btf": "the task of common_pid",
    "task_pt_regs": "registers as sys_enter and sys_exit told them",
    "get_smp_processor_id": "the CPU of the event",
    "get_numa_node_id": "0",
    "get_prandom_u32": "a sequence for each CPU, the same in every run",
    "get_cgroup_classid": "0: there is no net_cls hierarchy",
    "get_socket_cookie": "the cookie that an event told, or a number for each socket; missing, by name",
    "get_attach_cookie": "what was given when it was attached",
    "get_branch_snapshot": "no recording here has branch records: -ENOENT, by name",
    "find_vma": "there are no mappings: -ENOENT",
    "user_ringbuf_drain": "what user space wrote into the ring",
})  # fmt: skip
"""By name, without `bpf_`: of every helper that is not refused."""

KFUNC_SOURCES: tuple[tuple[str, str], ...] = (
    ("bpf_dynptr_*", _DYNPTR),
    ("bpf_map_*", _MAP),
    ("bpf_probe_read_user_*", _USER),
    ("bpf_probe_read_kernel_*", _KERNEL),
    ("bpf_str*", "memory of programs, and strings as events told them"),
    ("bpf_cpumask_*", "the program's masks; the kernel's as events told them"),
    ("bpf_iter_num_*", _CALLER),
    ("bpf_rcu_read_*", "objects live as long as the replay: nothing to wait for"),
    ("bpf_preempt_*", _SECTION),
    ("bpf_obj_*", "the heap of programs' objects"),
    ("bpf_refcount_*", "the heap of programs' objects"),
    ("bpf_list_*", "the heap of programs' objects"),
    ("bpf_rbtree_*", "the heap of programs' objects"),
    ("bpf_task_from_*", "the running task; others are not found, by name"),
    ("bpf_task_under_cgroup", _CGROUP),
    ("bpf_task_get_cgroup1", "there are no hierarchies of version 1: NULL, by name"),
    ("bpf_task_*", "tasks live as long as the replay: nothing to count"),
    ("bpf_cgroup_ancestor", "levels and ancestors as events told them"),
    ("bpf_cgroup_*", "cgroups live as long as the replay: nothing to count"),
    ("bpf_rdonly_cast", _KERNEL),
)
"""(pattern, text): the first that fits a kernel function's name."""
