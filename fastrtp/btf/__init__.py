"""BPF Type Format: parse, write, print as C, decode values, relocate programs (CO-RE).

Owns what types mean. Kernel: kernel/bpf/btf.c, tools/lib/bpf/{btf.c,btf_dump.c,relo_core.c}.
Must not know: ELF, maps, programs.
"""

from __future__ import annotations

from .load import (
    DEFAULT_KERNEL_VERSION,
    DEFAULT_RELEASE,
    default_btf,
    host_btf,
    load_btf,
    object_btf,
    parse_btf,
    shipped_config,
)
from .parse import Btf
from .tracepoints import ProtoArg, TracepointProto, tracepoints
from .types import BtfKind, BtfType, EnumValue, Field, Member, Param, SecInfo
from .write import BtfWriter, trim

__all__ = [
    "DEFAULT_KERNEL_VERSION",
    "DEFAULT_RELEASE",
    "Btf",
    "BtfKind",
    "BtfType",
    "BtfWriter",
    "EnumValue",
    "Field",
    "Member",
    "Param",
    "ProtoArg",
    "SecInfo",
    "TracepointProto",
    "default_btf",
    "host_btf",
    "load_btf",
    "object_btf",
    "parse_btf",
    "shipped_config",
    "tracepoints",
    "trim",
]
