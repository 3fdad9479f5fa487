"""Types of helper arguments and return values, and the flags that qualify them (and register types).

A type is a base in the low 8 bits with flags above. Kernel: include/linux/bpf.h:enum bpf_arg_type, enum bpf_return_type,
enum bpf_type_flag.
"""

from __future__ import annotations

from enum import IntEnum

PTR_MAYBE_NULL = 1 << 8
MEM_RDONLY = 1 << 9
MEM_RINGBUF = 1 << 10
MEM_USER = 1 << 11
MEM_PERCPU = 1 << 12
OBJ_RELEASE = 1 << 13
PTR_UNTRUSTED = 1 << 14
MEM_UNINIT = 1 << 15
DYNPTR_TYPE_LOCAL = 1 << 16
DYNPTR_TYPE_RINGBUF = 1 << 17
MEM_FIXED_SIZE = 1 << 18
MEM_ALLOC = 1 << 19
PTR_TRUSTED = 1 << 20
MEM_RCU = 1 << 21
NON_OWN_REF = 1 << 22
MEM_WRITE = 1 << 26
MEM_ALIGNED = 1 << 28


class ArgType(IntEnum):
    """Base type of an argument. Kernel: enum bpf_arg_type."""

    ARG_DONTCARE = 0
    ARG_CONST_MAP_PTR = 1
    ARG_PTR_TO_MAP_KEY = 2
    ARG_PTR_TO_MAP_VALUE = 3
    ARG_PTR_TO_MEM = 4
    ARG_PTR_TO_ARENA = 5
    ARG_CONST_SIZE = 6
    ARG_CONST_SIZE_OR_ZERO = 7
    ARG_PTR_TO_CTX = 8
    ARG_ANYTHING = 9
    ARG_PTR_TO_SPIN_LOCK = 10
    ARG_PTR_TO_SOCK_COMMON = 11
    ARG_PTR_TO_SOCKET = 12
    ARG_PTR_TO_BTF_ID = 13
    ARG_PTR_TO_RINGBUF_MEM = 14
    ARG_CONST_ALLOC_SIZE_OR_ZERO = 15
    ARG_PTR_TO_BTF_ID_SOCK_COMMON = 16
    ARG_PTR_TO_PERCPU_BTF_ID = 17
    ARG_PTR_TO_FUNC = 18
    ARG_PTR_TO_STACK = 19
    ARG_PTR_TO_CONST_STR = 20
    ARG_PTR_TO_TIMER = 21
    ARG_KPTR_XCHG_DEST = 22
    ARG_PTR_TO_DYNPTR = 23


class RetType(IntEnum):
    """Base type of a return value. Kernel: enum bpf_return_type."""

    RET_INTEGER = 0
    RET_VOID = 1
    RET_PTR_TO_MAP_VALUE = 2
    RET_PTR_TO_SOCKET = 3
    RET_PTR_TO_TCP_SOCK = 4
    RET_PTR_TO_SOCK_COMMON = 5
    RET_PTR_TO_MEM = 6
    RET_PTR_TO_MEM_OR_BTF_ID = 7
    RET_PTR_TO_BTF_ID = 8
