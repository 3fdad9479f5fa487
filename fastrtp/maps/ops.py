"""MapOps: what is true of all maps of a type, said once, in the row that the type's class has for it.

Everybody who treats types differently asks the row: the system call layer, the verifier, the loader of objects. A new map type
is a class with its row (and bodies in a `*_native.py`), a name in `maps/__init__.py`, and a test.

Kernel: include/linux/bpf.h:struct bpf_map_ops; kernel/bpf/verifier.c:check_map_func_compatibility;
kernel/bpf/syscall.c:map_check_btf. Must not know: programs, descriptors, BTF.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fastrtp.maps.attr import MapAttr

GENERAL = frozenset({"map_lookup_elem", "map_update_elem", "map_delete_elem", "kptr_xchg"})
"""Helpers that belong to no map type, though some types allow only these."""
BASIC_FIELDS = frozenset({"bpf_refcount", "kptr", "kptr_untrusted"})
OWNING_FIELDS = BASIC_FIELDS | {"bpf_timer", "bpf_list_head", "bpf_rb_root"}
LOCKED_FIELDS = OWNING_FIELDS | {"bpf_spin_lock", "bpf_res_spin_lock"}
"""Special fields that values may have, by what the type can do: pointers; timers, lists and trees; locks."""


class Holds(Enum):
    """What the values are to the kernel: bytes, or references that system calls name by descriptors."""

    DATA = "data"
    PROGS = "programs"
    EVENTS = "perf events"
    MAPS = "maps"
    CGROUPS = "cgroups"
    DEVICES = "network devices"
    SOCKETS = "sockets"
    CPUS = "CPUs"


class KeyBtf(Enum):
    """What the BTF type of the keys has to be. Kernel: the types' map_check_btf"""

    ANY = "any type of the right size"
    INT32 = "a 32-bit integer"
    ARRAY = "a 32-bit integer; none for one data section"
    STRUCT = "a struct"
    NONE = "none: there are no keys"
    NO_BTF = "maps of this type take no BTF types"


class Batch(Enum):
    """How the batch commands go through a map."""

    NONE = "not at all"
    KEYS = "key by key"
    KEYS_AND_DELETE = "key by key, with deletion"
    BUCKETS = "bucket by bucket"


class NativeCall(NamedTuple):
    """A native function for a helper on one map: its name, the constants that it gets behind env, how many of r1..r5 it takes."""

    symbol: str
    constants: tuple[int, ...]
    args: int


@dataclass(frozen=True)
class MapOps:
    """A map type.

    `alloc_check`: BpfError for attributes that Linux refuses. `helpers`: those that work on it and no others; None: all that
    belong to no other type. `struct`: its `struct` in the kernel's BTF. `fields`: special fields that its values may have.
    `owner`: whose storage it is ("task", "cgroup", "inode", "sock"): keys are descriptors then. `lookup_and_delete`,
    `for_each`, `map_extra`: whether there is such a command, such a helper, such an attribute.
    """

    alloc_check: Callable[[MapAttr, MapOps], None]
    struct: str = "bpf_map"
    helpers: frozenset[str] | None = None
    percpu: bool = False
    lru: bool = False
    holds: Holds = Holds.DATA
    owner: str = ""
    key_btf: KeyBtf = KeyBtf.ANY
    fields: frozenset[str] = frozenset()
    batch: Batch = Batch.NONE
    lookup_and_delete: bool = False
    for_each: bool = False
    map_extra: bool = False

    @property
    def fd_array(self) -> bool:
        """Whether it is an array of descriptors."""
        return self.struct == "bpf_array" and self.holds is not Holds.DATA
