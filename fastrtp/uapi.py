"""include/uapi/linux/bpf.h as of Linux 6.18: enums, flags, the layout of every command's attr and of the info structures.

Names, values, offsets and sizes are the kernel's. The layouts are ctypes Structures made from one table, `ATTRS`:
a row per command with its fields and the last field that the command knows (everything after it has to be zero:
CHECK_ATTR). Fields are read from a `bytes` that is as long as the whole union: `attr_of(cmd, data)`.

Must not know: anything else of the package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple


class BpfCmd(IntEnum):
    """Commands of bpf(2). Kernel: enum bpf_cmd."""

    BPF_MAP_CREATE = 0
    BPF_MAP_LOOKUP_ELEM = 1
    BPF_MAP_UPDATE_ELEM = 2
    BPF_MAP_DELETE_ELEM = 3
    BPF_MAP_GET_NEXT_KEY = 4
    BPF_PROG_LOAD = 5
    BPF_OBJ_PIN = 6
    BPF_OBJ_GET = 7
    BPF_PROG_ATTACH = 8
    BPF_PROG_DETACH = 9
    BPF_PROG_TEST_RUN = 10
    BPF_PROG_RUN = 10
    BPF_PROG_GET_NEXT_ID = 11
    BPF_MAP_GET_NEXT_ID = 12
    BPF_PROG_GET_FD_BY_ID = 13
    BPF_MAP_GET_FD_BY_ID = 14
    BPF_OBJ_GET_INFO_BY_FD = 15
    BPF_PROG_QUERY = 16
    BPF_RAW_TRACEPOINT_OPEN = 17
    BPF_BTF_LOAD = 18
    BPF_BTF_GET_FD_BY_ID = 19
    BPF_TASK_FD_QUERY = 20
    BPF_MAP_LOOKUP_AND_DELETE_ELEM = 21
    BPF_MAP_FREEZE = 22
    BPF_BTF_GET_NEXT_ID = 23
    BPF_MAP_LOOKUP_BATCH = 24
    BPF_MAP_LOOKUP_AND_DELETE_BATCH = 25
    BPF_MAP_UPDATE_BATCH = 26
    BPF_MAP_DELETE_BATCH = 27
    BPF_LINK_CREATE = 28
    BPF_LINK_UPDATE = 29
    BPF_LINK_GET_FD_BY_ID = 30
    BPF_LINK_GET_NEXT_ID = 31
    BPF_ENABLE_STATS = 32
    BPF_ITER_CREATE = 33
    BPF_LINK_DETACH = 34
    BPF_PROG_BIND_MAP = 35
    BPF_TOKEN_CREATE = 36
    BPF_PROG_STREAM_READ_BY_FD = 37


class BpfMapType(IntEnum):
    """Kinds of map. Kernel: enum bpf_map_type."""

    BPF_MAP_TYPE_UNSPEC = 0
    BPF_MAP_TYPE_HASH = 1
    BPF_MAP_TYPE_ARRAY = 2
    BPF_MAP_TYPE_PROG_ARRAY = 3
    BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4
    BPF_MAP_TYPE_PERCPU_HASH = 5
    BPF_MAP_TYPE_PERCPU_ARRAY = 6
    BPF_MAP_TYPE_STACK_TRACE = 7
    BPF_MAP_TYPE_CGROUP_ARRAY = 8
    BPF_MAP_TYPE_LRU_HASH = 9
    BPF_MAP_TYPE_LRU_PERCPU_HASH = 10
    BPF_MAP_TYPE_LPM_TRIE = 11
    BPF_MAP_TYPE_ARRAY_OF_MAPS = 12
    BPF_MAP_TYPE_HASH_OF_MAPS = 13
    BPF_MAP_TYPE_DEVMAP = 14
    BPF_MAP_TYPE_SOCKMAP = 15
    BPF_MAP_TYPE_CPUMAP = 16
    BPF_MAP_TYPE_XSKMAP = 17
    BPF_MAP_TYPE_SOCKHASH = 18
    BPF_MAP_TYPE_CGROUP_STORAGE_DEPRECATED = 19
    BPF_MAP_TYPE_CGROUP_STORAGE = 19
    BPF_MAP_TYPE_REUSEPORT_SOCKARRAY = 20
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE_DEPRECATED = 21
    BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE = 21
    BPF_MAP_TYPE_QUEUE = 22
    BPF_MAP_TYPE_STACK = 23
    BPF_MAP_TYPE_SK_STORAGE = 24
    BPF_MAP_TYPE_DEVMAP_HASH = 25
    BPF_MAP_TYPE_STRUCT_OPS = 26
    BPF_MAP_TYPE_RINGBUF = 27
    BPF_MAP_TYPE_INODE_STORAGE = 28
    BPF_MAP_TYPE_TASK_STORAGE = 29
    BPF_MAP_TYPE_BLOOM_FILTER = 30
    BPF_MAP_TYPE_USER_RINGBUF = 31
    BPF_MAP_TYPE_CGRP_STORAGE = 32
    BPF_MAP_TYPE_ARENA = 33


class BpfProgType(IntEnum):
    """Kinds of program. Kernel: enum bpf_prog_type."""

    BPF_PROG_TYPE_UNSPEC = 0
    BPF_PROG_TYPE_SOCKET_FILTER = 1
    BPF_PROG_TYPE_KPROBE = 2
    BPF_PROG_TYPE_SCHED_CLS = 3
    BPF_PROG_TYPE_SCHED_ACT = 4
    BPF_PROG_TYPE_TRACEPOINT = 5
    BPF_PROG_TYPE_XDP = 6
    BPF_PROG_TYPE_PERF_EVENT = 7
    BPF_PROG_TYPE_CGROUP_SKB = 8
    BPF_PROG_TYPE_CGROUP_SOCK = 9
    BPF_PROG_TYPE_LWT_IN = 10
    BPF_PROG_TYPE_LWT_OUT = 11
    BPF_PROG_TYPE_LWT_XMIT = 12
    BPF_PROG_TYPE_SOCK_OPS = 13
    BPF_PROG_TYPE_SK_SKB = 14
    BPF_PROG_TYPE_CGROUP_DEVICE = 15
    BPF_PROG_TYPE_SK_MSG = 16
    BPF_PROG_TYPE_RAW_TRACEPOINT = 17
    BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18
    BPF_PROG_TYPE_LWT_SEG6LOCAL = 19
    BPF_PROG_TYPE_LIRC_MODE2 = 20
    BPF_PROG_TYPE_SK_REUSEPORT = 21
    BPF_PROG_TYPE_FLOW_DISSECTOR = 22
    BPF_PROG_TYPE_CGROUP_SYSCTL = 23
    BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE = 24
    BPF_PROG_TYPE_CGROUP_SOCKOPT = 25
    BPF_PROG_TYPE_TRACING = 26
    BPF_PROG_TYPE_STRUCT_OPS = 27
    BPF_PROG_TYPE_EXT = 28
    BPF_PROG_TYPE_LSM = 29
    BPF_PROG_TYPE_SK_LOOKUP = 30
    BPF_PROG_TYPE_SYSCALL = 31
    BPF_PROG_TYPE_NETFILTER = 32


class BpfAttachType(IntEnum):
    """Where a program of a type may be attached. Kernel: enum bpf_attach_type."""

    BPF_CGROUP_INET_INGRESS = 0
    BPF_CGROUP_INET_EGRESS = 1
    BPF_CGROUP_INET_SOCK_CREATE = 2
    BPF_CGROUP_SOCK_OPS = 3
    BPF_SK_SKB_STREAM_PARSER = 4
    BPF_SK_SKB_STREAM_VERDICT = 5
    BPF_CGROUP_DEVICE = 6
    BPF_SK_MSG_VERDICT = 7
    BPF_CGROUP_INET4_BIND = 8
    BPF_CGROUP_INET6_BIND = 9
    BPF_CGROUP_INET4_CONNECT = 10
    BPF_CGROUP_INET6_CONNECT = 11
    BPF_CGROUP_INET4_POST_BIND = 12
    BPF_CGROUP_INET6_POST_BIND = 13
    BPF_CGROUP_UDP4_SENDMSG = 14
    BPF_CGROUP_UDP6_SENDMSG = 15
    BPF_LIRC_MODE2 = 16
    BPF_FLOW_DISSECTOR = 17
    BPF_CGROUP_SYSCTL = 18
    BPF_CGROUP_UDP4_RECVMSG = 19
    BPF_CGROUP_UDP6_RECVMSG = 20
    BPF_CGROUP_GETSOCKOPT = 21
    BPF_CGROUP_SETSOCKOPT = 22
    BPF_TRACE_RAW_TP = 23
    BPF_TRACE_FENTRY = 24
    BPF_TRACE_FEXIT = 25
    BPF_MODIFY_RETURN = 26
    BPF_LSM_MAC = 27
    BPF_TRACE_ITER = 28
    BPF_CGROUP_INET4_GETPEERNAME = 29
    BPF_CGROUP_INET6_GETPEERNAME = 30
    BPF_CGROUP_INET4_GETSOCKNAME = 31
    BPF_CGROUP_INET6_GETSOCKNAME = 32
    BPF_XDP_DEVMAP = 33
    BPF_CGROUP_INET_SOCK_RELEASE = 34
    BPF_XDP_CPUMAP = 35
    BPF_SK_LOOKUP = 36
    BPF_XDP = 37
    BPF_SK_SKB_VERDICT = 38
    BPF_SK_REUSEPORT_SELECT = 39
    BPF_SK_REUSEPORT_SELECT_OR_MIGRATE = 40
    BPF_PERF_EVENT = 41
    BPF_TRACE_KPROBE_MULTI = 42
    BPF_LSM_CGROUP = 43
    BPF_STRUCT_OPS = 44
    BPF_NETFILTER = 45
    BPF_TCX_INGRESS = 46
    BPF_TCX_EGRESS = 47
    BPF_TRACE_UPROBE_MULTI = 48
    BPF_CGROUP_UNIX_CONNECT = 49
    BPF_CGROUP_UNIX_SENDMSG = 50
    BPF_CGROUP_UNIX_RECVMSG = 51
    BPF_CGROUP_UNIX_GETPEERNAME = 52
    BPF_CGROUP_UNIX_GETSOCKNAME = 53
    BPF_NETKIT_PRIMARY = 54
    BPF_NETKIT_PEER = 55
    BPF_TRACE_KPROBE_SESSION = 56
    BPF_TRACE_UPROBE_SESSION = 57


class BpfLinkType(IntEnum):
    """Kinds of link. Kernel: enum bpf_link_type."""

    BPF_LINK_TYPE_UNSPEC = 0
    BPF_LINK_TYPE_RAW_TRACEPOINT = 1
    BPF_LINK_TYPE_TRACING = 2
    BPF_LINK_TYPE_CGROUP = 3
    BPF_LINK_TYPE_ITER = 4
    BPF_LINK_TYPE_NETNS = 5
    BPF_LINK_TYPE_XDP = 6
    BPF_LINK_TYPE_PERF_EVENT = 7
    BPF_LINK_TYPE_KPROBE_MULTI = 8
    BPF_LINK_TYPE_STRUCT_OPS = 9
    BPF_LINK_TYPE_NETFILTER = 10
    BPF_LINK_TYPE_TCX = 11
    BPF_LINK_TYPE_UPROBE_MULTI = 12
    BPF_LINK_TYPE_NETKIT = 13
    BPF_LINK_TYPE_SOCKMAP = 14


class BpfTaskFdType(IntEnum):
    """What BPF_TASK_FD_QUERY found behind a file descriptor. Kernel: enum bpf_task_fd_type."""

    BPF_FD_TYPE_RAW_TRACEPOINT = 0
    BPF_FD_TYPE_TRACEPOINT = 1
    BPF_FD_TYPE_KPROBE = 2
    BPF_FD_TYPE_KRETPROBE = 3
    BPF_FD_TYPE_UPROBE = 4
    BPF_FD_TYPE_URETPROBE = 5


class BpfStatsType(IntEnum):
    """What BPF_ENABLE_STATS switches on. Kernel: enum bpf_stats_type."""

    BPF_STATS_RUN_TIME = 0


# BPF_MAP_UPDATE_ELEM flags
BPF_ANY = 0
BPF_NOEXIST = 1
BPF_EXIST = 2
BPF_F_LOCK = 4

# BPF_MAP_CREATE flags
BPF_F_NO_PREALLOC = 1 << 0
BPF_F_NO_COMMON_LRU = 1 << 1
BPF_F_NUMA_NODE = 1 << 2
BPF_F_RDONLY = 1 << 3
BPF_F_WRONLY = 1 << 4
BPF_F_STACK_BUILD_ID = 1 << 5
BPF_F_ZERO_SEED = 1 << 6
BPF_F_RDONLY_PROG = 1 << 7
BPF_F_WRONLY_PROG = 1 << 8
BPF_F_CLONE = 1 << 9
BPF_F_MMAPABLE = 1 << 10
BPF_F_PRESERVE_ELEMS = 1 << 11
BPF_F_INNER_MAP = 1 << 12
BPF_F_LINK = 1 << 13
BPF_F_PATH_FD = 1 << 14
BPF_F_VTYPE_BTF_OBJ_FD = 1 << 15
BPF_F_TOKEN_FD = 1 << 16
BPF_F_SEGV_ON_FAULT = 1 << 17
BPF_F_NO_USER_CONV = 1 << 18

# BPF_PROG_LOAD flags
BPF_F_STRICT_ALIGNMENT = 1 << 0
BPF_F_ANY_ALIGNMENT = 1 << 1
BPF_F_TEST_RND_HI32 = 1 << 2
BPF_F_TEST_STATE_FREQ = 1 << 3
BPF_F_SLEEPABLE = 1 << 4
BPF_F_XDP_HAS_FRAGS = 1 << 5
BPF_F_XDP_DEV_BOUND_ONLY = 1 << 6
BPF_F_TEST_REG_INVARIANTS = 1 << 7

# BPF_PROG_ATTACH, BPF_LINK_UPDATE
BPF_F_ALLOW_OVERRIDE = 1 << 0
BPF_F_ALLOW_MULTI = 1 << 1
BPF_F_REPLACE = 1 << 2

# BPF_PROG_TEST_RUN flags
BPF_F_TEST_RUN_ON_CPU = 1 << 0
BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1
BPF_F_TEST_SKB_CHECKSUM_COMPLETE = 1 << 2

# src_reg of an ld_imm64 and of a call
BPF_PSEUDO_MAP_FD = 1
BPF_PSEUDO_MAP_VALUE = 2
BPF_PSEUDO_BTF_ID = 3
BPF_PSEUDO_FUNC = 4
BPF_PSEUDO_MAP_IDX = 5
BPF_PSEUDO_MAP_IDX_VALUE = 6
BPF_PSEUDO_CALL = 1
BPF_PSEUDO_KFUNC_CALL = 2

# flags of helpers
BPF_F_INDEX_MASK = 0xFFFFFFFF
BPF_F_CURRENT_CPU = BPF_F_INDEX_MASK
BPF_F_CTXLEN_MASK = 0xFFFFF << 32
BPF_F_SKIP_FIELD_MASK = 0xFF
BPF_F_USER_STACK = 1 << 8
BPF_F_FAST_STACK_CMP = 1 << 9
BPF_F_REUSE_STACKID = 1 << 10
BPF_F_USER_BUILD_ID = 1 << 11
BPF_F_TIMER_ABS = 1 << 0
BPF_F_TIMER_CPU_PIN = 1 << 1
BPF_RB_NO_WAKEUP = 1 << 0
BPF_RB_FORCE_WAKEUP = 1 << 1
BPF_RB_AVAIL_DATA = 0
BPF_RB_RING_SIZE = 1
BPF_RB_CONS_POS = 2
BPF_RB_PROD_POS = 3
BPF_RINGBUF_BUSY_BIT = 1 << 31
BPF_RINGBUF_DISCARD_BIT = 1 << 30
BPF_RINGBUF_HDR_SZ = 8

# limits
BPF_OBJ_NAME_LEN = 16
BPF_TAG_SIZE = 8
MAX_BPF_STACK = 512
MAX_CALL_FRAMES = 8
MAX_BPF_FUNC_ARGS = 12
BPF_MAXINSNS = 4096
BPF_COMPLEXITY_LIMIT_INSNS = 1_000_000
MAX_USED_MAPS = 64
MAX_TAIL_CALL_CNT = 33
BPF_MAX_LOOPS = 8 * 1024 * 1024
BPF_MAX_USER_RINGBUF_SAMPLES = 128 * 1024
BPF_LINE_INFO_SIZE = 16
BPF_FUNC_INFO_SIZE = 8
BPF_LOG_FIXED = 8
"""Bit of log_level: the verifier's log ends with an error when it does not fit, instead of rotating."""

_CTYPES = {
    "u8": ctypes.c_uint8, "u16": ctypes.c_uint16, "u32": ctypes.c_uint32, "s32": ctypes.c_int32, "u64": ctypes.c_uint64,
    "char16": ctypes.c_char * 16, "tag": ctypes.c_uint8 * 8,
}  # fmt: skip


def _struct(name: str, text: str) -> type[ctypes.Structure]:
    """A C structure out of "type field field; type field": every type is one of `_CTYPES`."""
    fields: list[tuple[str, object]] = []
    for group in text.split(";"):
        ctype, *names = group.split()
        fields += [(field, _CTYPES[ctype]) for field in names]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


class AttrLayout(NamedTuple):
    """Layout of one command's attr: `struct`, and `end`, the offset just past the last field that the command knows."""

    struct: type[ctypes.Structure]
    end: int


def _attrs(rows: Iterable[tuple[str, str, str]]) -> dict[BpfCmd, AttrLayout]:
    table = {}
    for commands, text, last in rows:
        struct = _struct("bpf_attr_" + commands.split()[0].removeprefix("BPF_").lower(), text)
        field = getattr(struct, last)
        for command in commands.split():
            table[BpfCmd[command]] = AttrLayout(struct, field.offset + field.size)
    return table


_ELEM = "u32 map_fd; u64 key value flags"
_GET_ID = "u32 id next_id open_flags; s32 fd_by_id_token_fd"

ATTRS: dict[BpfCmd, AttrLayout] = _attrs([
    ("BPF_MAP_CREATE",
     ("u32 map_type key_size value_size max_entries map_flags inner_map_fd numa_node; char16 map_name;"
     "u32 map_ifindex btf_fd btf_key_type_id btf_value_type_id btf_vmlinux_value_type_id; u64 map_extra;"
     "s32 value_type_btf_obj_fd map_token_fd; u64 excl_prog_hash; u32 excl_prog_hash_size"), "excl_prog_hash_size"),
    ("BPF_MAP_LOOKUP_ELEM BPF_MAP_UPDATE_ELEM BPF_MAP_LOOKUP_AND_DELETE_ELEM", _ELEM, "flags"),
    ("BPF_MAP_DELETE_ELEM", _ELEM, "key"),
    ("BPF_MAP_GET_NEXT_KEY", "u32 map_fd; u64 key next_key flags", "next_key"),
    ("BPF_MAP_FREEZE", _ELEM, "map_fd"),
    ("BPF_MAP_LOOKUP_BATCH BPF_MAP_LOOKUP_AND_DELETE_BATCH BPF_MAP_UPDATE_BATCH BPF_MAP_DELETE_BATCH",
     "u64 in_batch out_batch keys values; u32 count map_fd; u64 elem_flags flags", "flags"),
    ("BPF_PROG_LOAD",
     ("u32 prog_type insn_cnt; u64 insns license; u32 log_level log_size; u64 log_buf; u32 kern_version prog_flags;"
     "char16 prog_name; u32 prog_ifindex expected_attach_type prog_btf_fd func_info_rec_size; u64 func_info;"
     "u32 func_info_cnt line_info_rec_size; u64 line_info; u32 line_info_cnt attach_btf_id attach_btf_obj_fd core_relo_cnt;"
     "u64 fd_array core_relos; u32 core_relo_rec_size log_true_size; s32 prog_token_fd; u32 fd_array_cnt;"
     "u64 signature; u32 signature_size; s32 keyring_id"), "keyring_id"),
    ("BPF_OBJ_PIN BPF_OBJ_GET", "u64 pathname; u32 bpf_fd file_flags; s32 path_fd", "path_fd"),
    ("BPF_PROG_ATTACH BPF_PROG_DETACH",
     "u32 target_fd attach_bpf_fd attach_type attach_flags replace_bpf_fd relative_fd; u64 expected_revision",
     "expected_revision"),
    ("BPF_PROG_TEST_RUN",
     ("u32 prog_fd retval data_size_in data_size_out; u64 data_in data_out; u32 repeat duration ctx_size_in ctx_size_out;"
     "u64 ctx_in ctx_out; u32 flags cpu batch_size"), "batch_size"),
    ("BPF_PROG_GET_NEXT_ID BPF_MAP_GET_NEXT_ID BPF_BTF_GET_NEXT_ID BPF_LINK_GET_NEXT_ID", _GET_ID, "next_id"),
    ("BPF_PROG_GET_FD_BY_ID BPF_LINK_GET_FD_BY_ID", _GET_ID, "id"),
    ("BPF_MAP_GET_FD_BY_ID", _GET_ID, "open_flags"),
    ("BPF_BTF_GET_FD_BY_ID", _GET_ID, "fd_by_id_token_fd"),
    ("BPF_OBJ_GET_INFO_BY_FD", "u32 bpf_fd info_len; u64 info", "info"),
    ("BPF_PROG_QUERY",
     ("u32 target_fd attach_type query_flags attach_flags; u64 prog_ids; u32 prog_cnt;"
     "u64 prog_attach_flags link_ids link_attach_flags revision"), "revision"),
    ("BPF_RAW_TRACEPOINT_OPEN", "u64 name; u32 prog_fd; u64 cookie", "cookie"),
    ("BPF_BTF_LOAD",
     "u64 btf btf_log_buf; u32 btf_size btf_log_size btf_log_level btf_log_true_size btf_flags; s32 btf_token_fd",
     "btf_token_fd"),
    ("BPF_TASK_FD_QUERY", "u32 pid fd flags buf_len; u64 buf; u32 prog_id fd_type; u64 probe_offset probe_addr", "probe_addr"),
    ("BPF_LINK_CREATE",
     "u32 prog_fd target_fd attach_type flags target_btf_id; u64 cookie unused1 unused2; u32 unused3 unused4 uprobe_multi_pid",
     "uprobe_multi_pid"),
    ("BPF_LINK_UPDATE", "u32 link_fd new_prog_fd flags old_prog_fd", "old_prog_fd"),
    ("BPF_LINK_DETACH", "u32 link_fd", "link_fd"),
    ("BPF_ENABLE_STATS", "u32 type", "type"),
    ("BPF_ITER_CREATE", "u32 link_fd flags", "flags"),
    ("BPF_PROG_BIND_MAP", "u32 prog_fd map_fd flags", "flags"),
    ("BPF_TOKEN_CREATE", "u32 flags bpffs_fd", "bpffs_fd"),
    ("BPF_PROG_STREAM_READ_BY_FD", "u64 stream_buf; u32 stream_buf_len stream_id prog_fd", "prog_fd"),
])  # fmt: skip
"""Every command of 6.18. Fields of unions carry one of their names (`id` stands for start_id, prog_id, ...)."""

ATTR_SIZE = 168
"""sizeof(union bpf_attr), bytes."""

bpf_prog_info = _struct(
    "bpf_prog_info",
    "u32 type id; tag tag; u32 jited_prog_len xlated_prog_len; u64 jited_prog_insns xlated_prog_insns load_time;"
    "u32 created_by_uid nr_map_ids; u64 map_ids; char16 name; u32 ifindex gpl_compatible; u64 netns_dev netns_ino;"
    "u32 nr_jited_ksyms nr_jited_func_lens; u64 jited_ksyms jited_func_lens; u32 btf_id func_info_rec_size; u64 func_info;"
    "u32 nr_func_info nr_line_info; u64 line_info jited_line_info;"
    "u32 nr_jited_line_info line_info_rec_size jited_line_info_rec_size nr_prog_tags; u64 prog_tags run_time_ns run_cnt"
    " recursion_misses; u32 verified_insns attach_btf_obj_id attach_btf_id pad",
)
bpf_map_info = _struct(
    "bpf_map_info",
    "u32 type id key_size value_size max_entries map_flags; char16 name; u32 ifindex btf_vmlinux_value_type_id;"
    "u64 netns_dev netns_ino; u32 btf_id btf_key_type_id btf_value_type_id btf_vmlinux_id; u64 map_extra hash; u32 hash_size",
)
bpf_btf_info = _struct("bpf_btf_info", "u64 btf; u32 btf_size id; u64 name; u32 name_len kernel_btf")
bpf_link_info_raw_tracepoint = _struct(
    "bpf_link_info_raw_tracepoint", "u32 type id prog_id; u64 tp_name; u32 tp_name_len; u64 cookie unused1 unused2 unused3"
)
bpf_link_info_tracing = _struct(
    "bpf_link_info_tracing",
    "u32 type id prog_id; u32 pad attach_type target_obj_id target_btf_id pad2; u64 cookie unused1 unused2 unused3",
)


def attr_of(cmd: BpfCmd, data: bytes) -> ctypes.Structure:
    """The fields of a command's attr; `data` is shorter or longer than the structure as it happens (zeros follow)."""
    struct = ATTRS[cmd].struct
    return struct.from_buffer_copy(data.ljust(ctypes.sizeof(struct), b"\0"))
