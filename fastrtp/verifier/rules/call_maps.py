"""Which map types go with which helpers.

Kernel: kernel/bpf/verifier.c:check_map_func_compatibility.
"""

from __future__ import annotations

from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.maps import MAP_OPS
from fastrtp.maps.ops import GENERAL

_FN = HELPER_IDS


def ids(*names: str) -> frozenset[int]:
    """Numbers of helpers."""
    return frozenset(_FN[name] for name in names)


WRITING = ids("map_delete_elem", "map_update_elem", "map_push_elem", "map_pop_elem")
"""What may not be called with a read-only map."""


def map_types(func_id: int) -> int:
    """Types of maps that a helper works on: bit t for type t. Kernel: check_map_func_compatibility."""
    name = HELPERS[func_id].name
    own = {kind for kind, ops in MAP_OPS.items() if ops.helpers is not None and name in ops.helpers and name not in GENERAL}
    if name == "map_lookup_percpu_elem":
        own = {kind for kind, ops in MAP_OPS.items() if ops.percpu}
    fits = (kind for kind, ops in MAP_OPS.items() if (kind in own or not own) and (ops.helpers is None or name in ops.helpers))
    return sum(1 << kind for kind in fits)
