"""The helper table against the list of what programs may call on 6.18."""

from __future__ import annotations

from pathlib import Path

from fastrtp.helpers.argtype import ArgType
from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.uapi import BpfProgType


def test_numbers_and_names() -> None:
    """All 211 helpers have a row, and names and numbers are each other's inverse."""
    assert sorted(HELPERS) == list(range(1, 212))
    assert all(HELPERS[HELPER_IDS[name]].name == name for name in HELPER_IDS)
    assert HELPER_IDS["map_lookup_elem"] == 1
    assert HELPER_IDS["ringbuf_reserve"] == 131


def test_prototypes_are_well_formed() -> None:
    """At most five arguments; a size follows a memory pointer; BTF arguments and fixed sizes name what they point to."""
    for proto in HELPERS.values():
        assert len(proto.args) <= 5
        assert proto.proto == bool(proto.prog_types)
        for i, arg in enumerate(proto.args):
            if arg & 0xFF in (ArgType.ARG_CONST_SIZE, ArgType.ARG_CONST_SIZE_OR_ZERO):
                assert proto.args[i - 1] & 0xFF == ArgType.ARG_PTR_TO_MEM, proto.name
            if arg & 0xFF == ArgType.ARG_PTR_TO_BTF_ID and proto.name != "kptr_xchg":
                assert i in proto.arg_btf, proto.name


def test_availability(shared: Path) -> None:
    """Program types are those of the kernel's list."""
    common, tracing = (
        [name for line in part.splitlines() if not line.startswith("#") for name in line.split()]
        for part in (shared / "helpers.txt").read_text().split("# tp_btf")
    )
    tracing = [name for name in tracing if name in HELPER_IDS]
    raw_tp = {p.name for p in HELPERS.values() if BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT in p.prog_types}
    tp_btf = {p.name for p in HELPERS.values() if BpfProgType.BPF_PROG_TYPE_TRACING in p.prog_types}

    common.append("cgrp_storage_delete")  # the list ends before the last number
    assert raw_tp == set(common)
    assert tp_btf == set(common) | set(tracing)
