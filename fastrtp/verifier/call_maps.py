"""Which map types go with which helpers.

Kernel: kernel/bpf/verifier.c:check_map_func_compatibility.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastrtp.helpers.table import HELPER_IDS
from fastrtp.uapi import BpfMapType

_FN = HELPER_IDS
_T = BpfMapType
_MAP_TYPES = 64


def ids(*names: str) -> frozenset[int]:
    """Numbers of helpers."""
    return frozenset(_FN[name] for name in names)


_RINGBUF_FUNCS = ids(
    "ringbuf_output",
    "ringbuf_reserve",
    "ringbuf_query",
    "ringbuf_reserve_dynptr",
    "ringbuf_submit_dynptr",
    "ringbuf_discard_dynptr",
)
_PERF_FUNCS = ids("perf_event_read", "perf_event_output", "skb_output", "perf_event_read_value", "xdp_output")
_QUEUE_FUNCS = ids("map_peek_elem", "map_pop_elem", "map_push_elem")
_MAP_FUNCS: dict[int, frozenset[int]] = {
    _T.BPF_MAP_TYPE_PROG_ARRAY: ids("tail_call"),
    _T.BPF_MAP_TYPE_PERF_EVENT_ARRAY: _PERF_FUNCS,
    _T.BPF_MAP_TYPE_RINGBUF: _RINGBUF_FUNCS,
    _T.BPF_MAP_TYPE_USER_RINGBUF: ids("user_ringbuf_drain"),
    _T.BPF_MAP_TYPE_STACK_TRACE: ids("get_stackid"),
    _T.BPF_MAP_TYPE_CGROUP_ARRAY: ids("current_task_under_cgroup"),
    _T.BPF_MAP_TYPE_ARRAY_OF_MAPS: ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_HASH_OF_MAPS: ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_QUEUE: _QUEUE_FUNCS,
    _T.BPF_MAP_TYPE_STACK: _QUEUE_FUNCS,
    _T.BPF_MAP_TYPE_BLOOM_FILTER: ids("map_peek_elem", "map_push_elem"),
    _T.BPF_MAP_TYPE_TASK_STORAGE: ids("task_storage_get", "task_storage_delete"),
    _T.BPF_MAP_TYPE_CGRP_STORAGE: ids("cgrp_storage_get"),
    _T.BPF_MAP_TYPE_SK_STORAGE: ids("sk_storage_get", "sk_storage_delete"),
    _T.BPF_MAP_TYPE_CGROUP_STORAGE: frozenset(),
    _T.BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE: frozenset(),
    _T.BPF_MAP_TYPE_DEVMAP: ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_DEVMAP_HASH: ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_CPUMAP: frozenset(),
    _T.BPF_MAP_TYPE_XSKMAP: ids("map_lookup_elem"),
    _T.BPF_MAP_TYPE_SOCKMAP: ids("map_delete_elem", "map_lookup_elem"),
    _T.BPF_MAP_TYPE_SOCKHASH: ids("map_delete_elem", "map_lookup_elem"),
    _T.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: frozenset(),
    _T.BPF_MAP_TYPE_INODE_STORAGE: frozenset(),
}
_PERCPU_MAPS = frozenset({_T.BPF_MAP_TYPE_PERCPU_ARRAY, _T.BPF_MAP_TYPE_PERCPU_HASH, _T.BPF_MAP_TYPE_LRU_PERCPU_HASH})
_FUNC_MAPS: Mapping[int, frozenset[int]] = {
    _FN["tail_call"]: frozenset({_T.BPF_MAP_TYPE_PROG_ARRAY}),
    _FN["get_stackid"]: frozenset({_T.BPF_MAP_TYPE_STACK_TRACE}),
    _FN["map_lookup_percpu_elem"]: _PERCPU_MAPS,
    _FN["current_task_under_cgroup"]: frozenset({_T.BPF_MAP_TYPE_CGROUP_ARRAY}),
    **{func: frozenset({_T.BPF_MAP_TYPE_PERF_EVENT_ARRAY}) for func in _PERF_FUNCS},
    **{func: frozenset({_T.BPF_MAP_TYPE_RINGBUF}) for func in _RINGBUF_FUNCS},
    **{func: frozenset({_T.BPF_MAP_TYPE_QUEUE, _T.BPF_MAP_TYPE_STACK, _T.BPF_MAP_TYPE_BLOOM_FILTER}) for func in _QUEUE_FUNCS},
    **{_FN[name]: frozenset({_T.BPF_MAP_TYPE_TASK_STORAGE}) for name in ("task_storage_get", "task_storage_delete")},
    _FN["cgrp_storage_get"]: frozenset({_T.BPF_MAP_TYPE_CGRP_STORAGE}),
    _FN["user_ringbuf_drain"]: frozenset({_T.BPF_MAP_TYPE_USER_RINGBUF}),
    **{_FN[name]: frozenset({_T.BPF_MAP_TYPE_SK_STORAGE}) for name in ("sk_storage_get", "sk_storage_delete")},
}
FOR_EACH_MAPS = frozenset(
    {
        _T.BPF_MAP_TYPE_HASH,
        _T.BPF_MAP_TYPE_PERCPU_HASH,
        _T.BPF_MAP_TYPE_LRU_HASH,
        _T.BPF_MAP_TYPE_LRU_PERCPU_HASH,
        _T.BPF_MAP_TYPE_ARRAY,
        _T.BPF_MAP_TYPE_PERCPU_ARRAY,
    }
)
WRITING = ids("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem")
"""What may not be called with a read-only map."""


def map_types(func_id: int) -> int:
    """Types of maps that a helper works on: bit t for type t. Kernel: check_map_func_compatibility."""
    needed = _FUNC_MAPS.get(func_id)
    return sum(
        1 << kind
        for kind in range(_MAP_TYPES)
        if (kind not in _MAP_FUNCS or func_id in _MAP_FUNCS[kind]) and (needed is None or kind in needed)
    )
