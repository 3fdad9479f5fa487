"""Which map types go with which helpers, and what a call says of the map that it works on.

Kernel: kernel/bpf/verifier.c:check_map_func_compatibility, record_func_map, record_func_key.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import EACCES, EINVAL
from typing import Any

from fastrtp.helpers.table import HELPER_IDS
from fastrtp.uapi import BPF_F_INNER_MAP, BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.env import BpfVerifierEnv

_FN = HELPER_IDS
_T = BpfMapType


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
_WRITING = ids("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem")
KEY_ELIDED = frozenset({_T.BPF_MAP_TYPE_ARRAY, _T.BPF_MAP_TYPE_PERCPU_ARRAY})


def record_func_map(env: BpfVerifierEnv, found: Any, func_id: int) -> None:
    """For the code generator: the one map that the call works on, and no writes to read-only maps."""
    if func_id in _WRITING and found is not None and found.map_flags & BPF_F_RDONLY_PROG:
        env.reject(EACCES, "write into map forbidden")
    if found is None:
        return
    aux = env.aux[env.insn_idx]
    index = next((i for i, used in enumerate(env.used_maps) if used is found), None)
    if index is None or aux.map_ambiguous or aux.map not in (None, index):
        aux.map, aux.map_ambiguous = None, True
    else:
        aux.map = index


def is_lookup_of_known_element(found: Any, const_map_key: int, func_id: int) -> bool:
    """A lookup in an array with a constant key below max_entries never gives NULL."""
    return (
        func_id == _FN["map_lookup_elem"]
        and found is not None
        and found.map_type in KEY_ELIDED
        and not found.map_flags & BPF_F_INNER_MAP  # max_entries is then the template's, not the map's
        and 0 <= const_map_key < found.max_entries
    )


def check_map_func_compatibility(env: BpfVerifierEnv, found: Any, func_id: int, name: str) -> None:
    """The map's type allows the helper, and the helper the type. Errors: EINVAL."""
    if found is None:
        return
    allowed = _MAP_FUNCS.get(found.map_type)
    needed = _FUNC_MAPS.get(func_id)
    if (allowed is not None and func_id not in allowed) or (needed is not None and found.map_type not in needed):
        env.reject(EINVAL, f"cannot pass map_type {int(found.map_type)} into func {name}")

