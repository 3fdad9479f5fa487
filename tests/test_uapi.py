"""fastrtp/uapi.py against what Linux 6.18 has: sizes, offsets and numbers."""

from __future__ import annotations

import ctypes

import pytest

from fastrtp import uapi
from fastrtp.uapi import ATTRS, BpfCmd


def test_every_command_has_a_layout():
    assert set(ATTRS) == set(BpfCmd)


def test_the_longest_attr_is_as_long_as_the_union():
    assert max(ctypes.sizeof(row.struct) for row in ATTRS.values()) == uapi.ATTR_SIZE


@pytest.mark.parametrize(("name", "size"), [
    ("bpf_prog_info", 232), ("bpf_map_info", 104), ("bpf_btf_info", 32),
    ("bpf_link_info_raw_tracepoint", 64), ("bpf_link_info_tracing", 64),
])  # fmt: skip
def test_info_structures_have_the_kernels_size(name: str, size: int):
    assert ctypes.sizeof(getattr(uapi, name)) == size


@pytest.mark.parametrize(("cmd", "field", "offset"), [
    ("BPF_MAP_CREATE", "map_name", 28), ("BPF_MAP_CREATE", "map_extra", 64), ("BPF_MAP_CREATE", "excl_prog_hash_size", 88),
    ("BPF_PROG_LOAD", "prog_name", 48), ("BPF_PROG_LOAD", "fd_array", 120), ("BPF_PROG_LOAD", "log_true_size", 140),
    ("BPF_PROG_TEST_RUN", "ctx_in", 48), ("BPF_RAW_TRACEPOINT_OPEN", "cookie", 16), ("BPF_TASK_FD_QUERY", "probe_addr", 40),
    ("BPF_LINK_CREATE", "cookie", 24), ("BPF_MAP_LOOKUP_BATCH", "flags", 48), ("BPF_BTF_LOAD", "btf_log_true_size", 28),
])  # fmt: skip
def test_attr_fields_lie_where_the_kernel_has_them(cmd: str, field: str, offset: int):
    assert getattr(ATTRS[BpfCmd[cmd]].struct, field).offset == offset


def test_the_cookie_is_the_last_field_of_raw_tracepoint_open():
    assert ATTRS[BpfCmd.BPF_RAW_TRACEPOINT_OPEN].end == 24


def test_attr_of_reads_short_data_as_followed_by_zeros():
    attr = uapi.attr_of(BpfCmd.BPF_RAW_TRACEPOINT_OPEN, b"\x01" + bytes(7) + b"\x05")

    assert (attr.name, attr.prog_fd, attr.cookie) == (1, 5, 0)
