"""TRACE_EVENT: tracepoints of one's own from C text, their types, and kallsyms."""

from __future__ import annotations

import struct

import pytest

from fastrtp.errors import BpfError, BtfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import BpfAttachType, BpfProgType

READS_ARG_0 = encode(assemble("r0 = *(u64 *)(r1 +0)\nexit"))


def args_of(kernel: Kernel, proto: str) -> list[tuple[str, int, bool, bool]]:
    return [(arg.name, arg.size, arg.is_pointer, arg.signed) for arg in kernel.trace_event("event", proto).proto.args]


@pytest.mark.parametrize(("proto", "expected"), [
    ("int a", [("a", 4, False, True)]),
    ("u64 b, const char *c", [("b", 8, False, False), ("c", 8, True, False)]),
    ("unsigned long long x, long unsigned int y", [("x", 8, False, False), ("y", 8, False, False)]),
    ("unsigned char a, short b, signed char c", [("a", 1, False, False), ("b", 2, False, True), ("c", 1, False, True)]),
    ("bool on, unsigned flags", [("on", 1, False, False), ("flags", 4, False, False)]),
    ("const struct task_struct *p", [("p", 8, True, False)]),
    ("struct task_struct *const *p, char name[16]", [("p", 8, True, False), ("name", 8, True, False)]),
    ("enum pid_type type", [("type", 4, False, False)]),
    ("void (*fn)(void *, int), gfp_t gfp", [("fn", 8, True, False), ("gfp", 4, False, False)]),
    ("int, char *", [("", 4, False, True), ("", 8, True, False)]),
    ("struct list_head *", [("", 8, True, False)]),
    ("int *", [("", 8, True, False)]),
])  # fmt: skip
def test_prototypes_are_read_as_c_reads_them(kernel: Kernel, proto: str, expected: list[tuple[str, int, bool, bool]]):
    assert args_of(kernel, proto) == expected


@pytest.mark.parametrize("proto", [
    "", "void", "int a,", "int a b", "5", "no_such_t x", "struct no_such s", "*", "int a; int b", "struct task_struct t",
    ", ".join(["int a"] * 13), "const", "struct",
])  # fmt: skip
def test_what_is_no_prototype_is_a_btf_error_that_shows_it(kernel: Kernel, proto: str):
    with pytest.raises(BtfError) as caught:
        kernel.trace_event("event", proto)

    assert proto in str(caught.value)
    assert "event" not in kernel.tracepoints


def test_a_name_that_is_there_is_eexist(kernel: Kernel):
    with pytest.raises(BpfError, match="EEXIST"):
        kernel.trace_event("sched_switch", "int a")


def test_a_name_that_is_no_identifier_is_refused(kernel: Kernel):
    with pytest.raises(BtfError, match="identifier"):
        kernel.trace_event("a-b", "int a")


def test_its_prototype_can_be_shown(kernel: Kernel):
    kernel.trace_event("event", "int a, u64 b, const char *c")

    assert kernel.prototype("event") == "event(int a, u64 b, const char *c)"


def test_a_program_sees_the_arguments_zero_extended(kernel: Kernel):
    kernel.trace_event("event", "int a, u64 b")
    array = kernel.map_create(2, 4, 8, 1)
    store = """
        r6 = *(u64 *)(r1 +0)
        *(u32 *)(r10 -4) = 0
        *(u64 *)(r10 -16) = r6
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0"""
    load_map = struct.pack("<BBhi", 0x18, 0x11, 0, array) + bytes(8)
    code = encode(assemble(store)) + load_map + encode(assemble("call bpf_map_update_elem#2\nr0 = 0\nexit"))
    kernel.raw_tracepoint_open("event", kernel.prog_load(17, code))

    kernel.trace("event")(-1, 0)

    assert kernel.map_lookup_elem(array, bytes(4)) == struct.pack("<Q", 0xFFFFFFFF)


def test_tp_btf_programs_attach_to_it_through_its_module(kernel: Kernel):
    tp = kernel.trace_event("event", "int a, struct task_struct *p")
    btf = kernel.fd_by_id("btf", kernel.modules["event"].id)
    prog = kernel.prog_load(
        BpfProgType.BPF_PROG_TYPE_TRACING, READS_ARG_0, expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP,
        attach_btf_id=tp.proto.btf_id, attach_btf_obj_fd=btf,
    )  # fmt: skip
    link = kernel.raw_tracepoint_open(None, prog)

    assert tp.enabled
    assert kernel.obj_get_info_by_fd(prog).attach_btf_obj_id == kernel.modules["event"].id
    kernel.close(link)
    again = kernel.link_create(prog, 0, BpfAttachType.BPF_TRACE_RAW_TP, cookie=9)
    assert kernel.obj_get_info_by_fd(again).cookie == 9


def test_a_tp_btf_program_is_opened_without_a_name(kernel: Kernel):
    btf_id = kernel.tracepoints.proto("sched_switch").btf_id
    prog = kernel.prog_load(
        BpfProgType.BPF_PROG_TYPE_TRACING, encode(assemble("r0 = 0\nexit")),
        expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP, attach_btf_id=btf_id,
    )  # fmt: skip
    with pytest.raises(BpfError, match="name must be NULL"):
        kernel.raw_tracepoint_open("sched_switch", prog)
    with pytest.raises(BpfError, match="EFAULT"):
        kernel.prog_test_run(prog)

    kernel.raw_tracepoint_open(None, prog)

    assert kernel.tracepoints["sched_switch"].enabled


class TestKallsyms:
    def test_every_bpf_trace_run_has_an_address(self, kernel: Kernel):
        addresses = {kernel.kallsyms.lookup_name(f"bpf_trace_run{number}") for number in range(1, 13)}

        assert len(addresses) == 12
        assert 0 not in addresses
        assert kernel.kallsyms.lookup_name("bpf_trace_run13") == 0

    def test_shims_are_shared_by_signature(self, kernel: Kernel):
        lookup = kernel.kallsyms.lookup_name

        assert lookup("__bpf_trace_sched_switch") == kernel.tracepoints.bpf_get_raw_tracepoint("sched_switch").bpf_func()
        assert lookup("__bpf_trace_sched_wakeup_template") != 0
        assert lookup("__bpf_trace_no_such_class") == 0

    def test_programs_are_named_by_tag_and_name(self, kernel: Kernel):
        fd = kernel.prog_load(17, READS_ARG_0, name="first")
        tag = bytes(kernel.obj_get_info_by_fd(fd).tag).hex()

        assert kernel.kallsyms.lookup_name(f"bpf_prog_{tag}_first") == next(iter(kernel.progs)).native.entry
        assert f"bpf_prog_{tag}_first" in set(kernel.kallsyms)
