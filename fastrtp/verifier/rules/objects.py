"""What the core is told of a map: how its values behave, in a few bits.

Kernel: kernel/bpf/verifier.c:mark_ptr_not_null_reg, bpf_map_is_rdonly, check_map_access.
"""

from __future__ import annotations

from typing import Any

from fastrtp.maps import MAP_OPS, Holds
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.domain.records import (
    OBJECT_CONST,
    OBJECT_FIELDS,
    OBJECT_INNER,
    OBJECT_LOCK,
    OBJECT_MAPS,
    OBJECT_NAMED,
    OBJECT_SOCKETS,
    OBJECT_UID,
)
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import fields_of, has_field, keeps_id


def is_constant(found: Any) -> bool:
    """Whether a load from the map's only value always gives the same. Kernel: bpf_map_is_rdonly."""
    return bool(
        found.map_type == BpfMapType.BPF_MAP_TYPE_ARRAY
        and found.map_flags & BPF_F_RDONLY_PROG
        and found.frozen
        and found.max_entries == 1
    )


def describe(env: BpfVerifierEnv, found: Any) -> int:
    """`kind` of a map's VObject.layout.dtype."""
    inner = getattr(found, "inner_map", None)
    holds = MAP_OPS[found.map_type].holds if found.map_type in MAP_OPS else Holds.DATA
    facts = {
        OBJECT_FIELDS: bool(fields_of(env, found)),
        OBJECT_LOCK: keeps_id(env, found),
        OBJECT_MAPS: holds is Holds.MAPS,
        OBJECT_SOCKETS: holds is Holds.SOCKETS,
        OBJECT_CONST: is_constant(found),
        OBJECT_INNER: hasattr(inner, "key_size"),
        OBJECT_UID: inner is not None and has_field(env, inner, "bpf_timer"),
        OBJECT_NAMED: any(found is used for used in env.used_maps),
    }
    return sum(bit for bit, holds in facts.items() if holds)
