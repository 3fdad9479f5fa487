"""The helper table: number, name, prototype, licence and program types of every helper of Linux 6.18.

One row per helper; the verifier's argument checks, the loader's refusals and the native calls all read it here.
Helpers that no raw tracepoint program may call have a row without a prototype (`proto` False, no program types).
Kernel: kernel/bpf/helpers.c, kernel/trace/bpf_trace.c and others: struct bpf_func_proto; raw_tp_prog_func_proto and
tracing_prog_func_proto say who may call what. Must not know: registers, native code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fastrtp.helpers.argtype import (
    DYNPTR_TYPE_LOCAL,
    DYNPTR_TYPE_RINGBUF,
    MEM_ALIGNED,
    MEM_FIXED_SIZE,
    MEM_RDONLY,
    MEM_RINGBUF,
    MEM_UNINIT,
    MEM_WRITE,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    PTR_TRUSTED,
    ArgType,
    RetType,
)
from fastrtp.isa import FUNC_NAMES
from fastrtp.uapi import BpfProgType

RAW_TP = frozenset(
    {
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT,
        BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE,
        BpfProgType.BPF_PROG_TYPE_TRACING,
    }
)
TP_BTF = frozenset({BpfProgType.BPF_PROG_TYPE_TRACING})
TRACEPOINT = frozenset({BpfProgType.BPF_PROG_TYPE_TRACEPOINT})
"""tp_prog_func_proto and raw_tp_prog_func_proto know the same numbers."""


@dataclass(frozen=True, slots=True)
class HelperProto:
    """A helper as the verifier sees it (struct bpf_func_proto).

    `args`: argument types with flags (`ArgType | flag`), at most five; missing ones are not looked at.
    `arg_size`: bytes of a fixed-size memory argument by position; `arg_btf`: kernel type of a BTF pointer by position.
    `prog_types`: program types that may call it; `allowed`: False where it is for programs attached to certain functions only.
    `members`: (argument, struct, member) of kernel objects that the body looks at: it gets their offsets behind env, -1 for one
    that the kernel does not have. `never`: why no call of it is accepted, as in Linux; it has no body then.
    """

    id: int
    name: str
    ret: int = RetType.RET_INTEGER
    args: tuple[int, ...] = ()
    gpl_only: bool = False
    prog_types: frozenset[BpfProgType] = frozenset()
    allowed: bool = True
    might_sleep: bool = False
    arg_size: Mapping[int, int] = field(default_factory=dict)
    arg_btf: Mapping[int, str] = field(default_factory=dict)
    ret_btf: str = ""
    members: tuple[tuple[int, str, str], ...] = ()
    never: str = ""
    proto: bool = True


_A = ArgType
_R = RetType
_ANY = _A.ARG_ANYTHING
_MAP = _A.ARG_CONST_MAP_PTR
_KEY = _A.ARG_PTR_TO_MAP_KEY
_VALUE = _A.ARG_PTR_TO_MAP_VALUE
_CTX = _A.ARG_PTR_TO_CTX
_SIZE = _A.ARG_CONST_SIZE
_SIZE0 = _A.ARG_CONST_SIZE_OR_ZERO
_RMEM = _A.ARG_PTR_TO_MEM | MEM_RDONLY
_WMEM = _A.ARG_PTR_TO_MEM | MEM_UNINIT | MEM_WRITE
_FUNC = _A.ARG_PTR_TO_FUNC
_STACK0 = _A.ARG_PTR_TO_STACK | PTR_MAYBE_NULL
_BTF = _A.ARG_PTR_TO_BTF_ID
_BTF0 = _A.ARG_PTR_TO_BTF_ID | PTR_MAYBE_NULL
_VALUE_OR_NULL = _R.RET_PTR_TO_MAP_VALUE | PTR_MAYBE_NULL
_LONG_OUT = _A.ARG_PTR_TO_MEM | MEM_FIXED_SIZE | MEM_UNINIT | MEM_WRITE | MEM_ALIGNED
_DYNPTR = _A.ARG_PTR_TO_DYNPTR
_NEW_LOCAL_DYNPTR = _DYNPTR | DYNPTR_TYPE_LOCAL | MEM_UNINIT | MEM_WRITE
_NEW_RINGBUF_DYNPTR = _DYNPTR | DYNPTR_TYPE_RINGBUF | MEM_UNINIT
_OLD_RINGBUF_DYNPTR = _DYNPTR | DYNPTR_TYPE_RINGBUF | OBJ_RELEASE
_READ = (_WMEM, _SIZE0, _ANY)
_SOCK = _A.ARG_PTR_TO_BTF_ID_SOCK_COMMON | PTR_MAYBE_NULL

_SLEEPS = "for programs that may sleep"
_XDP = ("data", "data_end", "flags")
_STATE, _PROTOCOL, _FAMILY = "__sk_common.skc_state", "sk_protocol", "__sk_common.skc_family"


def _skc_to(
    struct: str, *members: str, arg: int = _A.ARG_PTR_TO_BTF_ID_SOCK_COMMON
) -> tuple[int, tuple[int, ...], bool, dict[str, Any]]:
    """A socket, if it is one of a kind: the body is told where these members of struct sock are."""
    more = {"arg_btf": {0: "sock_common"}, "ret_btf": struct, "members": tuple((0, "sock", name) for name in members)}
    return _R.RET_PTR_TO_BTF_ID | PTR_MAYBE_NULL, (arg,), False, more


# name: (return type, arguments, GPL-only, further members)
_RAW_TP_ROWS: dict[str, tuple[int, tuple[int, ...], bool, dict[str, Any]]] = {
    "map_lookup_elem": (_VALUE_OR_NULL, (_MAP, _KEY), False, {}),
    "map_update_elem": (_R.RET_INTEGER, (_MAP, _KEY, _VALUE, _ANY), False, {}),
    "map_delete_elem": (_R.RET_INTEGER, (_MAP, _KEY), False, {}),
    "map_push_elem": (_R.RET_INTEGER, (_MAP, _VALUE, _ANY), False, {}),
    "map_pop_elem": (_R.RET_INTEGER, (_MAP, _VALUE | MEM_UNINIT | MEM_WRITE), False, {}),
    "map_peek_elem": (_R.RET_INTEGER, (_MAP, _VALUE | MEM_UNINIT | MEM_WRITE), False, {}),
    "map_lookup_percpu_elem": (_VALUE_OR_NULL, (_MAP, _KEY, _ANY), False, {}),
    "probe_read": (_R.RET_INTEGER, _READ, True, {}),
    "probe_read_str": (_R.RET_INTEGER, _READ, True, {}),
    "probe_read_user": (_R.RET_INTEGER, _READ, True, {}),
    "probe_read_kernel": (_R.RET_INTEGER, _READ, True, {}),
    "probe_read_user_str": (_R.RET_INTEGER, _READ, True, {}),
    "probe_read_kernel_str": (_R.RET_INTEGER, _READ, True, {}),
    "ktime_get_ns": (_R.RET_INTEGER, (), False, {}),
    "ktime_get_boot_ns": (_R.RET_INTEGER, (), False, {}),
    "ktime_get_tai_ns": (_R.RET_INTEGER, (), False, {}),
    "jiffies64": (_R.RET_INTEGER, (), False, {}),
    "trace_printk": (_R.RET_INTEGER, (_RMEM, _SIZE), True, {}),
    "trace_vprintk": (_R.RET_INTEGER, (_RMEM, _SIZE, _RMEM | PTR_MAYBE_NULL, _SIZE0), True, {}),
    "get_prandom_u32": (_R.RET_INTEGER, (), False, {}),
    "get_smp_processor_id": (_R.RET_INTEGER, (), False, {}),
    "get_numa_node_id": (_R.RET_INTEGER, (), False, {}),
    "tail_call": (_R.RET_VOID, (_CTX, _MAP, _ANY), False, {}),
    "get_current_pid_tgid": (_R.RET_INTEGER, (), False, {}),
    "get_current_uid_gid": (_R.RET_INTEGER, (), False, {}),
    "get_current_comm": (_R.RET_INTEGER, (_WMEM, _SIZE), False, {}),
    "get_cgroup_classid": (_R.RET_INTEGER, (), False, {}),
    "get_current_cgroup_id": (_R.RET_INTEGER, (), False, {}),
    "get_current_ancestor_cgroup_id": (_R.RET_INTEGER, (_ANY,), False, {}),
    "current_task_under_cgroup": (_R.RET_INTEGER, (_MAP, _ANY), False, {}),
    "perf_event_read": (_R.RET_INTEGER, (_MAP, _ANY), True, {}),
    "perf_event_read_value": (_R.RET_INTEGER, (_MAP, _ANY, _WMEM, _SIZE), True, {}),
    "perf_event_output": (_R.RET_INTEGER, (_CTX, _MAP, _ANY, _RMEM, _SIZE0), True, {}),
    "get_stackid": (_R.RET_INTEGER, (_CTX, _MAP, _ANY), True, {}),
    "get_stack": (_R.RET_INTEGER, (_CTX, _WMEM, _SIZE0, _ANY), True, {}),
    "get_task_stack": (_R.RET_INTEGER, (_BTF, _WMEM, _SIZE0, _ANY), False, {"arg_btf": {0: "task_struct"}}),
    "get_current_task": (_R.RET_INTEGER, (), True, {}),
    "get_current_task_btf": (_R.RET_PTR_TO_BTF_ID | PTR_TRUSTED, (), True, {"ret_btf": "task_struct"}),
    "task_pt_regs": (
        _R.RET_PTR_TO_BTF_ID,
        (_BTF,),
        True,
        {"arg_btf": {0: "task_struct"}, "ret_btf": "pt_regs", "members": ((0, "task_struct", "stack"),)},
    ),
    "spin_lock": (_R.RET_VOID, (_A.ARG_PTR_TO_SPIN_LOCK,), False, {}),
    "spin_unlock": (_R.RET_VOID, (_A.ARG_PTR_TO_SPIN_LOCK,), False, {}),
    "strtol": (_R.RET_INTEGER, (_RMEM, _SIZE, _ANY, _LONG_OUT), False, {"arg_size": {3: 8}}),
    "strtoul": (_R.RET_INTEGER, (_RMEM, _SIZE, _ANY, _LONG_OUT), False, {"arg_size": {3: 8}}),
    "strncmp": (_R.RET_INTEGER, (_RMEM, _SIZE, _A.ARG_PTR_TO_CONST_STR), False, {}),
    "snprintf": (
        _R.RET_INTEGER,
        (_WMEM | PTR_MAYBE_NULL, _SIZE0, _A.ARG_PTR_TO_CONST_STR, _RMEM | PTR_MAYBE_NULL, _SIZE0),
        True,
        {},
    ),
    "snprintf_btf": (_R.RET_INTEGER, (_WMEM, _SIZE, _RMEM, _SIZE, _ANY), False, {}),
    "send_signal": (_R.RET_INTEGER, (_ANY,), False, {}),
    "send_signal_thread": (_R.RET_INTEGER, (_ANY,), False, {}),
    "get_ns_current_pid_tgid": (_R.RET_INTEGER, (_ANY, _ANY, _WMEM, _SIZE), False, {}),
    "ringbuf_output": (_R.RET_INTEGER, (_MAP, _RMEM, _SIZE0, _ANY), False, {}),
    "ringbuf_reserve": (
        _R.RET_PTR_TO_MEM | PTR_MAYBE_NULL | MEM_RINGBUF,
        (_MAP, _A.ARG_CONST_ALLOC_SIZE_OR_ZERO, _ANY),
        False,
        {},
    ),
    "ringbuf_submit": (_R.RET_VOID, (_A.ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, _ANY), False, {}),
    "ringbuf_discard": (_R.RET_VOID, (_A.ARG_PTR_TO_RINGBUF_MEM | OBJ_RELEASE, _ANY), False, {}),
    "ringbuf_query": (_R.RET_INTEGER, (_MAP, _ANY), False, {}),
    "ringbuf_reserve_dynptr": (_R.RET_INTEGER, (_MAP, _ANY, _ANY, _NEW_RINGBUF_DYNPTR), False, {}),
    "ringbuf_submit_dynptr": (_R.RET_VOID, (_OLD_RINGBUF_DYNPTR, _ANY), False, {}),
    "ringbuf_discard_dynptr": (_R.RET_VOID, (_OLD_RINGBUF_DYNPTR, _ANY), False, {}),
    "dynptr_from_mem": (_R.RET_INTEGER, (_WMEM, _SIZE0, _ANY, _NEW_LOCAL_DYNPTR), False, {}),
    "dynptr_read": (_R.RET_INTEGER, (_WMEM, _SIZE0, _DYNPTR | MEM_RDONLY, _ANY, _ANY), False, {}),
    "dynptr_write": (_R.RET_INTEGER, (_DYNPTR | MEM_RDONLY, _ANY, _RMEM, _SIZE0, _ANY), False, {}),
    "dynptr_data": (_R.RET_PTR_TO_MEM | PTR_MAYBE_NULL, (_DYNPTR | MEM_RDONLY, _ANY, _A.ARG_CONST_ALLOC_SIZE_OR_ZERO), False, {}),
    "copy_from_user": (_R.RET_INTEGER, _READ, False, {"might_sleep": True, "never": _SLEEPS}),
    "copy_from_user_task": (
        _R.RET_INTEGER,
        (_WMEM, _SIZE0, _ANY, _BTF, _ANY),
        True,
        {"might_sleep": True, "arg_btf": {3: "task_struct"}, "never": _SLEEPS},
    ),
    "per_cpu_ptr": (_R.RET_PTR_TO_MEM_OR_BTF_ID | PTR_MAYBE_NULL | MEM_RDONLY, (_A.ARG_PTR_TO_PERCPU_BTF_ID, _ANY), False, {}),
    "this_cpu_ptr": (_R.RET_PTR_TO_MEM_OR_BTF_ID | MEM_RDONLY, (_A.ARG_PTR_TO_PERCPU_BTF_ID,), False, {}),
    "task_storage_get": (_VALUE_OR_NULL, (_MAP, _BTF0, _VALUE | PTR_MAYBE_NULL, _ANY), False, {"arg_btf": {1: "task_struct"}}),
    "task_storage_delete": (_R.RET_INTEGER, (_MAP, _BTF0), False, {"arg_btf": {1: "task_struct"}}),
    "cgrp_storage_get": (_VALUE_OR_NULL, (_MAP, _BTF0, _VALUE | PTR_MAYBE_NULL, _ANY), False, {"arg_btf": {1: "cgroup"}}),
    "cgrp_storage_delete": (_R.RET_INTEGER, (_MAP, _BTF0), False, {"arg_btf": {1: "cgroup"}}),
    "for_each_map_elem": (_R.RET_INTEGER, (_MAP, _FUNC, _STACK0, _ANY), False, {}),
    "find_vma": (_R.RET_INTEGER, (_BTF, _ANY, _FUNC, _STACK0, _ANY), False, {"arg_btf": {0: "task_struct"}}),
    "loop": (_R.RET_INTEGER, (_ANY, _FUNC, _STACK0, _ANY), False, {}),
    "user_ringbuf_drain": (_R.RET_INTEGER, (_MAP, _FUNC, _STACK0, _ANY), False, {}),
    "timer_init": (_R.RET_INTEGER, (_A.ARG_PTR_TO_TIMER, _MAP, _ANY), True, {}),
    "timer_set_callback": (_R.RET_INTEGER, (_A.ARG_PTR_TO_TIMER, _FUNC), True, {}),
    "timer_start": (_R.RET_INTEGER, (_A.ARG_PTR_TO_TIMER, _ANY, _ANY), True, {}),
    "timer_cancel": (_R.RET_INTEGER, (_A.ARG_PTR_TO_TIMER,), True, {}),
    "get_func_ip": (_R.RET_INTEGER, (_CTX,), True, {"never": "for programs that a function's address led to"}),
    "get_attach_cookie": (_R.RET_INTEGER, (_CTX,), False, {}),
    "get_branch_snapshot": (_R.RET_INTEGER, (_WMEM, _SIZE0), True, {}),
    "kptr_xchg": (_R.RET_PTR_TO_BTF_ID | PTR_MAYBE_NULL, (_A.ARG_KPTR_XCHG_DEST, _BTF0 | OBJ_RELEASE), False, {}),
}

_TP_BTF_ROWS: dict[str, tuple[int, tuple[int, ...], bool, dict[str, Any]]] = {
    "d_path": (
        _R.RET_INTEGER,
        (_BTF, _WMEM, _SIZE0),
        False,
        {"arg_btf": {0: "path"}, "allowed": False, "never": "for programs at a few functions of the file system"},
    ),
    "get_socket_cookie": (
        _R.RET_INTEGER,
        (_SOCK,),
        False,
        {"arg_btf": {0: "sock_common"}, "members": ((0, "sock", "__sk_common.skc_cookie"),)},
    ),
    "sk_storage_get": (_VALUE_OR_NULL, (_MAP, _SOCK, _VALUE | PTR_MAYBE_NULL, _ANY), False, {"arg_btf": {1: "sock_common"}}),
    "sk_storage_delete": (_R.RET_INTEGER, (_MAP, _SOCK), False, {"arg_btf": {1: "sock_common"}}),
    "skb_output": (
        _R.RET_INTEGER,
        (_BTF, _MAP, _ANY, _RMEM, _SIZE0),
        True,
        {"arg_btf": {0: "sk_buff"}, "members": tuple((0, "sk_buff", name) for name in ("len", "data_len", "data"))},
    ),
    "xdp_output": (
        _R.RET_INTEGER,
        (_BTF, _MAP, _ANY, _RMEM, _SIZE0),
        True,
        {"arg_btf": {0: "xdp_buff"}, "members": tuple((0, "xdp_buff", name) for name in _XDP)},
    ),
    "xdp_get_buff_len": (
        _R.RET_INTEGER,
        (_BTF,),
        False,
        {"arg_btf": {0: "xdp_buff"}, "members": tuple((0, "xdp_buff", name) for name in _XDP)},
    ),
    "sock_from_file": (
        _R.RET_PTR_TO_BTF_ID | PTR_MAYBE_NULL,
        (_BTF,),
        False,
        {"arg_btf": {0: "file"}, "ret_btf": "socket", "members": ((0, "file", "f_op"),)},
    ),
    "skc_to_tcp_sock": _skc_to("tcp_sock", _STATE, _PROTOCOL),
    "skc_to_tcp6_sock": _skc_to("tcp6_sock", _STATE, _PROTOCOL, _FAMILY),
    "skc_to_udp6_sock": _skc_to("udp6_sock", _STATE, _PROTOCOL, _FAMILY, "sk_type"),
    "skc_to_unix_sock": _skc_to("unix_sock", _STATE, _FAMILY),
    "skc_to_tcp_timewait_sock": _skc_to("tcp_timewait_sock", "__sk_common.skc_prot"),
    "skc_to_tcp_request_sock": _skc_to("tcp_request_sock", "__sk_common.skc_prot"),
    "skc_to_mptcp_sock": (
        _R.RET_PTR_TO_BTF_ID | PTR_MAYBE_NULL,
        (_A.ARG_PTR_TO_SOCK_COMMON,),
        False,
        {"ret_btf": "mptcp_sock", "never": "for sockets that programs of the network are given"},
    ),
}


def _table() -> dict[int, HelperProto]:
    rows = {}
    for number, name in enumerate(FUNC_NAMES):
        if number == 0:
            continue
        for source, prog_types in ((_RAW_TP_ROWS, RAW_TP | TRACEPOINT), (_TP_BTF_ROWS, TP_BTF)):
            if name in source:
                ret, args, gpl_only, more = source[name]
                rows[number] = HelperProto(number, name, int(ret), tuple(int(a) for a in args), gpl_only, prog_types, **more)
                break
        else:
            rows[number] = HelperProto(number, name, proto=False)
    return rows


HELPERS: Mapping[int, HelperProto] = MappingProxyType(_table())
"""Every helper by number, 1 to 211."""

HELPER_IDS: Mapping[str, int] = MappingProxyType({proto.name: number for number, proto in HELPERS.items()})
"""Number by name (without `bpf_`)."""

__all__ = ["HELPERS", "HELPER_IDS", "RAW_TP", "TP_BTF", "ArgType", "HelperProto", "RetType"]
