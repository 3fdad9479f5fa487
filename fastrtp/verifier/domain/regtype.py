"""Types that a register may have, with their flags, and their names in the log.

Kernel: include/linux/bpf.h:enum bpf_reg_type, enum bpf_type_flag; kernel/bpf/log.c:reg_type_str.
"""

from __future__ import annotations

from fastrtp.helpers.argtype import (
    MEM_ALIGNED,
    MEM_ALLOC,
    MEM_FIXED_SIZE,
    MEM_PERCPU,
    MEM_RCU,
    MEM_RDONLY,
    MEM_RINGBUF,
    MEM_UNINIT,
    MEM_USER,
    MEM_WRITE,
    NON_OWN_REF,
    OBJ_RELEASE,
    PTR_MAYBE_NULL,
    PTR_TRUSTED,
    PTR_UNTRUSTED,
)

__all__ = [
    "MEM_ALIGNED",
    "MEM_ALLOC",
    "MEM_FIXED_SIZE",
    "MEM_PERCPU",
    "MEM_RCU",
    "MEM_RDONLY",
    "MEM_RINGBUF",
    "MEM_UNINIT",
    "MEM_USER",
    "MEM_WRITE",
    "NON_OWN_REF",
    "OBJ_RELEASE",
    "PTR_MAYBE_NULL",
    "PTR_TRUSTED",
    "PTR_UNTRUSTED",
    "base_type",
    "is_spillable_regtype",
    "reg_type_str",
    "type_flag",
]


(
    NOT_INIT,
    SCALAR_VALUE,
    PTR_TO_CTX,
    CONST_PTR_TO_MAP,
    PTR_TO_MAP_VALUE,
    PTR_TO_MAP_KEY,
    PTR_TO_STACK,
    PTR_TO_PACKET_META,
    PTR_TO_PACKET,
    PTR_TO_PACKET_END,
    PTR_TO_FLOW_KEYS,
    PTR_TO_SOCKET,
    PTR_TO_SOCK_COMMON,
    PTR_TO_TCP_SOCK,
    PTR_TO_TP_BUFFER,
    PTR_TO_XDP_SOCK,
    PTR_TO_BTF_ID,
    PTR_TO_MEM,
    PTR_TO_ARENA,
    PTR_TO_BUF,
    PTR_TO_FUNC,
    CONST_PTR_TO_DYNPTR,
) = range(22)

_BASE_NAMES = (
    "?",
    "scalar",
    "ctx",
    "map_ptr",
    "map_value",
    "map_key",
    "fp",
    "pkt_meta",
    "pkt",
    "pkt_end",
    "flow_keys",
    "sock",
    "sock_common",
    "tcp_sock",
    "tp_buffer",
    "xdp_sock",
    "ptr_",
    "mem",
    "arena",
    "buf",
    "func",
    "dynptr_ptr",
)
_PREFIXES = (
    (MEM_RDONLY, "rdonly_"),
    (MEM_RINGBUF, "ringbuf_"),
    (MEM_USER, "user_"),
    (MEM_PERCPU, "percpu_"),
    (MEM_RCU, "rcu_"),
    (PTR_UNTRUSTED, "untrusted_"),
    (PTR_TRUSTED, "trusted_"),
)


def base_type(reg_type: int) -> int:
    """The type without its flags."""
    return reg_type & 0xFF


def type_flag(reg_type: int) -> int:
    """The flags alone."""
    return reg_type & ~0xFF


def reg_type_str(reg_type: int) -> str:
    """Name of a register type, as in messages: `map_value_or_null`, `rdonly_untrusted_mem`."""
    postfix = ""
    if reg_type & PTR_MAYBE_NULL:
        postfix = "or_null_" if base_type(reg_type) == PTR_TO_BTF_ID else "_or_null"
    prefix = "".join(text for flag, text in _PREFIXES if reg_type & flag)
    return f"{prefix}{_BASE_NAMES[base_type(reg_type)]}{postfix}"


def is_spillable_regtype(reg_type: int) -> bool:
    """Pointers that keep their type in a stack slot."""
    return bool(SPILLABLE_MASK >> base_type(reg_type) & 1)


SPILLABLE_MASK = sum(
    1 << kind
    for kind in (
        PTR_TO_MAP_VALUE,
        PTR_TO_STACK,
        PTR_TO_CTX,
        PTR_TO_PACKET,
        PTR_TO_PACKET_META,
        PTR_TO_PACKET_END,
        PTR_TO_FLOW_KEYS,
        CONST_PTR_TO_MAP,
        PTR_TO_SOCKET,
        PTR_TO_SOCK_COMMON,
        PTR_TO_TCP_SOCK,
        PTR_TO_XDP_SOCK,
        PTR_TO_BTF_ID,
        PTR_TO_BUF,
        PTR_TO_MEM,
        PTR_TO_FUNC,
        PTR_TO_MAP_KEY,
        PTR_TO_ARENA,
    )
)
"""A bit a base type."""

ARITHMETIC_MASK = sum(
    1 << kind
    for kind in (
        PTR_TO_CTX,
        PTR_TO_MAP_VALUE,
        PTR_TO_MAP_KEY,
        PTR_TO_STACK,
        PTR_TO_TP_BUFFER,
        PTR_TO_BTF_ID,
        PTR_TO_MEM,
        PTR_TO_BUF,
        PTR_TO_FUNC,
        CONST_PTR_TO_DYNPTR,
    )
)
"""Pointers that numbers may be added to, a bit a base type."""
