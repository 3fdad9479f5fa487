"""Which types of registers go with which types of arguments, for the core and for its messages.

Kernel: kernel/bpf/verifier.c:compatible_reg_types.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from fastrtp.helpers.argtype import ArgType
from fastrtp.once import once
from fastrtp.verifier.domain.records import ARG_TYPES_MAX
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    MEM_ALLOC,
    MEM_PERCPU,
    MEM_RCU,
    MEM_RINGBUF,
    PTR_TO_BTF_ID,
    PTR_TO_BUF,
    PTR_TO_CTX,
    PTR_TO_FUNC,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_SOCK_COMMON,
    PTR_TO_SOCKET,
    PTR_TO_STACK,
    PTR_TO_TCP_SOCK,
    PTR_TO_XDP_SOCK,
    PTR_TRUSTED,
    SCALAR_VALUE,
)

_MEM_TYPES = (
    PTR_TO_STACK,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_MEM | MEM_RINGBUF,
    PTR_TO_BUF,
    PTR_TO_BTF_ID | PTR_TRUSTED,
)
_SOCK_TYPES = (PTR_TO_SOCK_COMMON, PTR_TO_SOCKET, PTR_TO_TCP_SOCK, PTR_TO_XDP_SOCK)
_BTF_TYPES = (PTR_TO_BTF_ID, PTR_TO_BTF_ID | PTR_TRUSTED, PTR_TO_BTF_ID | MEM_RCU)
_COMPATIBLE: Mapping[int, tuple[int, ...]] = MappingProxyType(
    {
        ArgType.ARG_PTR_TO_MAP_KEY: _MEM_TYPES,
        ArgType.ARG_PTR_TO_MAP_VALUE: _MEM_TYPES,
        ArgType.ARG_PTR_TO_MEM: _MEM_TYPES,
        ArgType.ARG_CONST_SIZE: (SCALAR_VALUE,),
        ArgType.ARG_CONST_SIZE_OR_ZERO: (SCALAR_VALUE,),
        ArgType.ARG_CONST_ALLOC_SIZE_OR_ZERO: (SCALAR_VALUE,),
        ArgType.ARG_CONST_MAP_PTR: (CONST_PTR_TO_MAP,),
        ArgType.ARG_PTR_TO_CTX: (PTR_TO_CTX,),
        ArgType.ARG_PTR_TO_SOCK_COMMON: _SOCK_TYPES,
        ArgType.ARG_PTR_TO_BTF_ID: _BTF_TYPES,
        ArgType.ARG_PTR_TO_BTF_ID_SOCK_COMMON: (*_SOCK_TYPES, PTR_TO_BTF_ID, PTR_TO_BTF_ID | PTR_TRUSTED),
        ArgType.ARG_PTR_TO_SPIN_LOCK: (PTR_TO_MAP_VALUE, PTR_TO_BTF_ID | MEM_ALLOC),
        ArgType.ARG_PTR_TO_RINGBUF_MEM: (PTR_TO_MEM | MEM_RINGBUF,),
        ArgType.ARG_PTR_TO_PERCPU_BTF_ID: (PTR_TO_BTF_ID | MEM_PERCPU, PTR_TO_BTF_ID | MEM_PERCPU | PTR_TRUSTED),
        ArgType.ARG_PTR_TO_FUNC: (PTR_TO_FUNC,),
        ArgType.ARG_PTR_TO_STACK: (PTR_TO_STACK,),
        ArgType.ARG_PTR_TO_CONST_STR: (PTR_TO_MAP_VALUE,),
        ArgType.ARG_PTR_TO_TIMER: (PTR_TO_MAP_VALUE,),
        ArgType.ARG_KPTR_XCHG_DEST: (PTR_TO_MAP_VALUE, PTR_TO_BTF_ID | MEM_ALLOC),
        ArgType.ARG_PTR_TO_DYNPTR: (PTR_TO_STACK, CONST_PTR_TO_DYNPTR),
    }
)


def expected_types(base: int) -> tuple[int, ...]:
    """Register types that a refusal names for a type of argument."""
    return _COMPATIBLE[base]


@once
def arg_types() -> Any:
    """The register types of each type of argument, a row of ARG_TYPES_MAX numbers each, 0 behind the last."""
    table = np.zeros((max(ArgType) + 1, ARG_TYPES_MAX), "<u4")
    for base, kinds in _COMPATIBLE.items():
        table[base, : len(kinds)] = kinds
    return table
