"""Introspection: OBJ_GET_INFO_BY_FD, ids, TASK_FD_QUERY, statistics, PROG_TEST_RUN, and links that cannot be changed."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import struct

import pytest

from fastrtp.btf import BtfWriter
from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTRS, BpfCmd, bpf_prog_info

RAW_TP = 17
TRACEPOINT = "sched_switch"


def asm(text: str) -> bytes:
    return encode(assemble(text))


def with_map(fd: int) -> bytes:
    return struct.pack("<BBhi", 0x18, 0x11, 0, fd) + bytes(8) + asm("r0 = 0\nexit")


def errno_of(function, *args, **kwargs) -> int:
    with pytest.raises(BpfError) as caught:
        function(*args, **kwargs)
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.fixture
def prog(kernel: Kernel) -> int:
    return kernel.prog_load(RAW_TP, asm("r0 = 7\nexit"), name="seven")


class TestProgram:
    def test_tag_is_sha256_over_the_instructions(self, kernel: Kernel, prog: int):
        tag = hashlib.sha256(asm("r0 = 7\nexit")).digest()[:8]

        assert bytes(kernel.obj_get_info_by_fd(prog).tag) == tag

    def test_tag_does_not_depend_on_the_descriptors_of_its_maps(self, kernel: Kernel):
        progs = [kernel.prog_load(RAW_TP, with_map(kernel.map_create(1, 4, 4, 1))) for _ in range(2)]

        assert len({bytes(kernel.obj_get_info_by_fd(prog).tag) for prog in progs}) == 1

    def test_name_type_id_and_license(self, kernel: Kernel, prog: int):
        info = kernel.obj_get_info_by_fd(prog)

        assert (info.name, info.type, info.id, info.gpl_compatible, info.verified_insns) == (b"seven", RAW_TP, 1, 1, 2)
        assert info.load_time > 0
        proprietary = kernel.prog_load(RAW_TP, asm("r0 = 7\nexit"), license="Proprietary")
        assert kernel.obj_get_info_by_fd(proprietary).gpl_compatible == 0

    def test_map_ids_are_those_of_the_maps_it_uses(self, kernel: Kernel):
        fd = kernel.map_create(1, 4, 4, 1)
        prog = kernel.prog_load(RAW_TP, with_map(fd))
        ids = (ctypes.c_uint32 * 4)()
        info = kernel.obj_get_info_by_fd(prog, map_ids=ctypes.addressof(ids), nr_map_ids=4)

        assert (info.nr_map_ids, ids[0]) == (1, kernel.obj_get_info_by_fd(fd).id)

    def test_xlated_dump_names_maps_by_id(self, kernel: Kernel):
        kernel.map_create(1, 4, 4, 1)
        fd = kernel.map_create(1, 4, 4, 1)
        prog = kernel.prog_load(RAW_TP, with_map(fd))
        code = ctypes.create_string_buffer(64)
        info = kernel.obj_get_info_by_fd(prog, xlated_prog_insns=ctypes.addressof(code), xlated_prog_len=64)

        assert info.xlated_prog_len == 32
        assert code.raw[:32] == with_map(2)

    def test_jited_dump_is_the_native_code(self, kernel: Kernel, prog: int):
        size = kernel.obj_get_info_by_fd(prog).jited_prog_len
        code = ctypes.create_string_buffer(size)
        address = (ctypes.c_uint64 * 1)()
        kernel.obj_get_info_by_fd(
            prog, jited_prog_insns=ctypes.addressof(code), jited_prog_len=size,
            jited_ksyms=ctypes.addressof(address), nr_jited_ksyms=1,
        )  # fmt: skip

        assert size > 0
        assert ctypes.string_at(address[0], size) == code.raw

    def test_a_short_structure_gets_its_beginning(self, kernel: Kernel, prog: int):
        info = ctypes.create_string_buffer(b"\xff" * 16, 16)
        attr = ATTRS[BpfCmd.BPF_OBJ_GET_INFO_BY_FD].struct(bpf_fd=prog, info=ctypes.addressof(info), info_len=8)
        kernel.bpf(BpfCmd.BPF_OBJ_GET_INFO_BY_FD, attr)

        assert (info.raw, attr.info_len) == (struct.pack("<II", RAW_TP, 1) + b"\xff" * 8, 8)

    def test_record_sizes_that_are_not_the_kernels_are_einval(self, kernel: Kernel, prog: int):
        assert errno_of(kernel.obj_get_info_by_fd, prog, func_info_rec_size=12) == errno.EINVAL
        assert errno_of(kernel.obj_get_info_by_fd, prog, nr_line_info=1) == errno.EINVAL

    def test_a_longer_structure_with_a_non_zero_tail_is_e2big(self, kernel: Kernel, prog: int):
        size = ctypes.sizeof(bpf_prog_info)
        buffer = ctypes.create_string_buffer(bytes(size) + b"\x01", size + 8)
        attr = ATTRS[BpfCmd.BPF_OBJ_GET_INFO_BY_FD].struct(bpf_fd=prog, info=ctypes.addressof(buffer), info_len=size + 8)

        assert errno_of(kernel.bpf, BpfCmd.BPF_OBJ_GET_INFO_BY_FD, attr) == errno.E2BIG


class TestLink:
    @pytest.fixture
    def link(self, kernel: Kernel, prog: int) -> int:
        return kernel.raw_tracepoint_open(TRACEPOINT, prog, cookie=0xFEDCBA9876543210)

    def test_type_ids_name_length_and_cookie(self, kernel: Kernel, link: int):
        info = kernel.obj_get_info_by_fd(link)

        assert (info.type, info.id, info.prog_id, info.tp_name_len) == (1, 1, 1, len(TRACEPOINT) + 1)
        assert info.cookie == 0xFEDCBA9876543210

    def test_the_name_is_copied_with_its_nul(self, kernel: Kernel, link: int):
        name = ctypes.create_string_buffer(b"x" * 32, 32)
        kernel.obj_get_info_by_fd(link, tp_name=ctypes.addressof(name), tp_name_len=32)

        assert name.value == TRACEPOINT.encode()

    def test_only_one_of_pointer_and_length_is_einval(self, kernel: Kernel, link: int):
        assert errno_of(kernel.obj_get_info_by_fd, link, tp_name_len=32) == errno.EINVAL
        assert errno_of(kernel.obj_get_info_by_fd, link, tp_name=8) == errno.EINVAL

    def test_a_short_buffer_is_cut_ended_with_nul_and_enospc(self, kernel: Kernel, link: int):
        name = ctypes.create_string_buffer(b"x" * 8, 8)

        assert errno_of(kernel.obj_get_info_by_fd, link, tp_name=ctypes.addressof(name), tp_name_len=6) == errno.ENOSPC
        assert name.raw == b"sched\0xx"

    def test_update_detach_and_attach_are_refused(self, kernel: Kernel, prog: int, link: int):
        def call(cmd: BpfCmd, **fields: int) -> int:
            return errno_of(kernel.bpf, cmd, ATTRS[cmd].struct(**fields))

        assert call(BpfCmd.BPF_LINK_UPDATE, link_fd=link, new_prog_fd=prog) == errno.EINVAL
        assert call(BpfCmd.BPF_LINK_DETACH, link_fd=link) == errno.EOPNOTSUPP
        assert call(BpfCmd.BPF_PROG_ATTACH, target_fd=link, attach_bpf_fd=prog, attach_type=23) == errno.EINVAL
        assert call(BpfCmd.BPF_LINK_CREATE, prog_fd=prog, attach_type=23) == errno.EINVAL

    def test_task_fd_query_says_what_is_attached(self, kernel: Kernel, link: int):
        assert kernel.task_fd_query(os.getpid(), link) == (TRACEPOINT, 1)

    def test_task_fd_query_fills_the_outputs_of_a_short_buffer_too(self, kernel: Kernel, link: int):
        name = ctypes.create_string_buffer(8)
        attr = ATTRS[BpfCmd.BPF_TASK_FD_QUERY].struct(pid=os.getpid(), fd=link, buf=ctypes.addressof(name), buf_len=6, fd_type=9)

        assert errno_of(kernel.bpf, BpfCmd.BPF_TASK_FD_QUERY, attr) == errno.ENOSPC
        assert (name.value, attr.buf_len, attr.prog_id, attr.fd_type) == (b"sched", len(TRACEPOINT), 1, 0)

    def test_task_fd_query_errors(self, kernel: Kernel, prog: int, link: int):
        def query(**fields: int) -> int:
            return errno_of(kernel.bpf, BpfCmd.BPF_TASK_FD_QUERY, ATTRS[BpfCmd.BPF_TASK_FD_QUERY].struct(**fields))

        assert query(pid=os.getpid(), fd=link, flags=1) == errno.EINVAL
        assert query(pid=1 << 30, fd=link) == errno.ENOENT
        assert query(pid=os.getpid(), fd=prog) == ENOTSUPP
        assert query(pid=os.getpid(), fd=999) == errno.EBADF


class TestIds:
    def test_ids_rise_and_are_not_given_out_again(self, kernel: Kernel):
        fds = [kernel.map_create(1, 4, 4, 1) for _ in range(3)]
        kernel.close(fds[2])
        kernel.map_create(1, 4, 4, 1)

        assert list(kernel.ids("map")) == [1, 2, 4]

    def test_walks_end_with_enoent(self, kernel: Kernel, prog: int):
        attr = ATTRS[BpfCmd.BPF_PROG_GET_NEXT_ID].struct(id=1)

        assert errno_of(kernel.bpf, BpfCmd.BPF_PROG_GET_NEXT_ID, attr) == errno.ENOENT

    def test_a_descriptor_by_id_keeps_the_object(self, kernel: Kernel, prog: int):
        again = kernel.fd_by_id("prog", 1)
        kernel.close(prog)
        assert kernel.prog_test_run(again) == 7

        kernel.close(again)

        assert errno_of(kernel.fd_by_id, "prog", 1) == errno.ENOENT

    def test_every_noun_can_be_walked_and_opened(self, kernel: Kernel, prog: int):
        kernel.map_create(1, 4, 4, 1)
        kernel.raw_tracepoint_open(TRACEPOINT, prog)
        for noun in ("prog", "map", "link", "btf"):
            (number,) = kernel.ids(noun)

            assert kernel.obj_get_info_by_fd(kernel.fd_by_id(noun, number)).id == number

    def test_the_kernels_own_btf_is_first(self, kernel: Kernel):
        name = ctypes.create_string_buffer(16)
        info = kernel.obj_get_info_by_fd(kernel.fd_by_id("btf", 1), name=ctypes.addressof(name), name_len=16)

        assert (info.kernel_btf, name.value, info.btf_size) == (1, b"vmlinux", len(kernel.btf.data))


class TestStatistics:
    def test_runs_are_counted_while_the_descriptor_is_open(self, kernel: Kernel, prog: int):
        kernel.prog_test_run(prog)
        held = kernel.enable_stats()
        kernel.prog_test_run(prog)
        kernel.prog_test_run(prog)
        kernel.close(held)
        kernel.prog_test_run(prog)
        info = kernel.obj_get_info_by_fd(prog)

        assert info.run_cnt == 2
        assert info.run_time_ns > 0

    def test_other_kinds_are_einval(self, kernel: Kernel):
        assert errno_of(kernel.bpf, BpfCmd.BPF_ENABLE_STATS, ATTRS[BpfCmd.BPF_ENABLE_STATS].struct(type=1)) == errno.EINVAL


class TestTestRun:
    def call(self, kernel: Kernel, **fields: int) -> int:
        return errno_of(kernel.bpf, BpfCmd.BPF_PROG_TEST_RUN, ATTRS[BpfCmd.BPF_PROG_TEST_RUN].struct(**fields))

    @pytest.mark.parametrize("field", ["data_in", "data_out", "repeat", "duration", "batch_size"])
    def test_what_is_for_other_program_types_is_einval(self, kernel: Kernel, prog: int, field: str):
        assert self.call(kernel, prog_fd=prog, **{field: 1}) == errno.EINVAL

    def test_context_smaller_than_what_is_read_or_larger_than_96_is_einval(self, kernel: Kernel):
        fd = kernel.prog_load(RAW_TP, asm("r0 = *(u64 *)(r1 +8)\nexit"))

        assert errno_of(kernel.prog_test_run, fd, bytes(8)) == errno.EINVAL
        assert errno_of(kernel.prog_test_run, fd, bytes(104)) == errno.EINVAL
        assert kernel.prog_test_run(fd, struct.pack("<QQ", 1, 2)) == 2

    def test_cpu_takes_its_flag_and_has_to_be_there(self, kernel: Kernel, prog: int):
        assert self.call(kernel, prog_fd=prog, cpu=1) == errno.EINVAL
        assert self.call(kernel, prog_fd=prog, cpu=1, flags=1) == errno.ENXIO

    def test_a_bad_context_pointer_is_efault(self, kernel: Kernel, prog: int):
        assert self.call(kernel, prog_fd=prog, ctx_in=8, ctx_size_in=8) == errno.EFAULT

    def test_the_chosen_cpu_is_the_one_that_the_program_sees(self):
        with Kernel(cpus=3) as kernel:
            fd = kernel.prog_load(RAW_TP, asm("call bpf_get_smp_processor_id#8\nexit"))

            assert [kernel.prog_test_run(fd, flags=1, cpu=cpu) for cpu in range(3)] == [0, 1, 2]


class TestMap:
    def test_info_says_what_it_was_made_of(self, kernel: Kernel):
        fd = kernel.map_create(1, 4, 12, 7, 1, name="counts")
        info = kernel.obj_get_info_by_fd(fd)

        assert (info.type, info.id, info.key_size, info.value_size, info.max_entries, info.map_flags) == (1, 1, 4, 12, 7, 1)
        assert info.name == b"counts"

    def test_btf_types_are_kept_with_their_btf(self, kernel: Kernel):
        writer = BtfWriter()
        u32, u64 = writer.add_int("u32", 4), writer.add_int("u64", 8)
        btf = kernel.btf_load(writer.dump())
        fd = kernel.map_create(1, 4, 8, 4, btf_fd=btf, btf_key_type_id=u32, btf_value_type_id=u64)
        info = kernel.obj_get_info_by_fd(fd)
        kernel.close(btf)

        assert (info.btf_key_type_id, info.btf_value_type_id) == (u32, u64)
        assert list(kernel.ids("btf")) == [1, info.btf_id]
        kernel.close(fd)
        assert list(kernel.ids("btf")) == [1]

    @pytest.mark.parametrize(("key", "value"), [(2, 2), (1, 1), (1, 9), (9, 2)])
    def test_btf_types_that_do_not_fit_are_einval(self, kernel: Kernel, key: int, value: int):
        writer = BtfWriter()
        writer.add_int("u32", 4)
        writer.add_int("u64", 8)
        btf = kernel.btf_load(writer.dump())

        assert errno_of(kernel.map_create, 1, 4, 8, 4, btf_fd=btf, btf_key_type_id=key, btf_value_type_id=value) == errno.EINVAL
        assert len(kernel.maps) == 0

    def test_a_frozen_arrays_contents_have_a_hash(self, kernel: Kernel):
        fd = kernel.map_create(2, 4, 8, 2)
        digest = ctypes.create_string_buffer(32)
        fields = {"hash": ctypes.addressof(digest), "hash_size": 32}
        assert errno_of(kernel.obj_get_info_by_fd, fd, **fields) == errno.EPERM

        kernel.map_freeze(fd)
        kernel.obj_get_info_by_fd(fd, **fields)

        assert digest.raw == hashlib.sha256(bytes(16)).digest()


class TestProgramArray:
    def test_it_holds_its_programs_until_user_space_lets_it_go(self, kernel: Kernel, prog: int):
        array = kernel.map_create(3, 4, 4, 2)
        kernel.map_update_elem(array, bytes(4), struct.pack("<I", prog))
        kernel.close(prog)
        assert len(kernel.progs) == 1
        assert kernel.map_lookup_elem(array, bytes(4)) == struct.pack("<I", 1)

        kernel.close(array)

        assert len(kernel.progs) == 0

    def test_a_replaced_and_a_deleted_program_go(self, kernel: Kernel):
        array = kernel.map_create(3, 4, 4, 2)
        for _ in range(2):
            fd = kernel.prog_load(RAW_TP, asm("r0 = 1\nexit"))
            kernel.map_update_elem(array, bytes(4), struct.pack("<I", fd))
            kernel.close(fd)
        assert list(kernel.ids("prog")) == [2]

        kernel.map_delete_elem(array, bytes(4))

        assert len(kernel.progs) == 0
        assert errno_of(kernel.map_lookup_elem, array, bytes(4)) == errno.ENOENT

    def test_a_tail_call_runs_the_program_in_the_slot(self, kernel: Kernel, prog: int):
        array = kernel.map_create(3, 4, 4, 2)
        load_map = struct.pack("<BBhi", 0x18, 0x12, 0, array) + bytes(8)
        caller = kernel.prog_load(RAW_TP, load_map + asm("r3 = 1\ncall bpf_tail_call#12\nr0 = 41\nexit"))
        assert kernel.prog_test_run(caller) == 41

        kernel.map_update_elem(array, struct.pack("<I", 1), struct.pack("<I", prog))

        assert kernel.prog_test_run(caller) == 7

    def test_a_program_that_reads_arguments_that_the_tracepoint_lacks_is_not_called(self, kernel: Kernel):
        """The call fails and counts as a faulted read: what lies behind the arguments is nobody's."""
        array = kernel.map_create(3, 4, 4, 1)
        load_map = struct.pack("<BBhi", 0x18, 0x12, 0, array) + bytes(8)
        caller = kernel.prog_load(RAW_TP, load_map + asm("r3 = 0\ncall bpf_tail_call#12\nr0 = 41\nexit"))
        for argument, runs in ((3, True), (4, False), (11, False)):
            target = kernel.prog_load(RAW_TP, asm(f"r7 = *(u64 *)(r1 +{8 * argument})\nr0 = 7\nexit"))
            kernel.map_update_elem(array, bytes(4), struct.pack("<I", target))
            link = kernel.raw_tracepoint_open("sched_switch", caller)
            before = int(kernel.memory.env["faulted"].sum())

            kernel.trace("sched_switch")(0, 0, 0, 0)

            assert (int(kernel.memory.env["faulted"].sum()) - before == 0) is runs
            assert kernel.prog_test_run(caller) == 7  # 96 bytes are there
            kernel.close(link)

    def test_an_array_that_holds_its_own_user_is_freed_all_the_same(self, kernel: Kernel):
        array = kernel.map_create(3, 4, 4, 2)
        load_map = struct.pack("<BBhi", 0x18, 0x12, 0, array) + bytes(8)
        caller = kernel.prog_load(RAW_TP, load_map + asm("r3 = 0\ncall bpf_tail_call#12\nr0 = 41\nexit"))
        kernel.map_update_elem(array, bytes(4), struct.pack("<I", caller))
        kernel.close(caller)
        kernel.close(array)

        assert (len(kernel.progs), len(kernel.maps)) == (0, 0)


class TestPerfEventArray:
    CODE = """
        *(u64 *)(r10 -8) = 7
        r4 = r10
        r4 += -8
        r3 = 0xffffffff ll
        r5 = 8"""

    def output(self, array: int) -> bytes:
        load_map = struct.pack("<BBhi", 0x18, 0x12, 0, array) + bytes(8)
        return asm(self.CODE) + load_map + asm("call bpf_perf_event_output#25\nexit")

    def test_a_program_writes_to_the_ring_of_its_cpu(self, kernel: Kernel):
        array = kernel.map_create(4, 4, 4, 1)
        prog = kernel.prog_load(RAW_TP, self.output(array))
        assert kernel.prog_test_run(prog) == (-errno.ENOENT) & 0xFFFFFFFF

        event = kernel.perf_event_open(0)
        kernel.map_update_elem(array, bytes(4), struct.pack("<I", event))

        assert kernel.prog_test_run(prog) == 0
        assert [sample[:8] for sample in kernel.perf_event_consume(event)] == [struct.pack("<Q", 7)]

    def test_it_lets_its_events_go_with_the_descriptor_that_put_them_there(self, kernel: Kernel):
        array = kernel.map_create(4, 4, 4, 1)
        prog = kernel.prog_load(RAW_TP, self.output(array))
        allocated = kernel.memory.arena.allocated
        event = kernel.perf_event_open(0, 4096)
        kernel.map_update_elem(array, bytes(4), struct.pack("<I", event))
        kernel.close(event)
        assert kernel.prog_test_run(prog) == 0

        kernel.close(array)

        assert kernel.memory.arena.allocated == allocated
        assert kernel.prog_test_run(prog) == (-errno.ENOENT) & 0xFFFFFFFF

    def test_events_of_no_cpu_and_other_descriptors_are_refused(self, kernel: Kernel, prog: int):
        array = kernel.map_create(4, 4, 4, 1)

        assert errno_of(kernel.perf_event_open, 5) == errno.EINVAL
        assert errno_of(kernel.map_update_elem, array, bytes(4), struct.pack("<I", prog)) == errno.EBADF
        assert errno_of(kernel.perf_event_consume, prog) == errno.EINVAL


class TestVerifierLog:
    def test_statistics_are_in_the_log_where_asked_for(self, kernel: Kernel):
        code, log = ctypes.create_string_buffer(asm("r0 = 0\nexit")), ctypes.create_string_buffer(512)
        license_text = ctypes.c_char_p(b"GPL")
        attr = ATTRS[BpfCmd.BPF_PROG_LOAD].struct(
            prog_type=RAW_TP, insns=ctypes.addressof(code), insn_cnt=2, license=ctypes.cast(license_text, ctypes.c_void_p).value,
            log_level=4, log_buf=ctypes.addressof(log), log_size=512,
        )  # fmt: skip
        kernel.bpf(BpfCmd.BPF_PROG_LOAD, attr)
        lines = log.value.decode().splitlines()

        assert lines[0].startswith("verification time ")
        assert lines[1] == "stack depth 0"
        assert lines[2].startswith("processed 2 insns (limit 1000000)")
        assert attr.log_true_size == len(log.value) + 1

    def test_a_refused_program_has_its_log_in_the_exception(self, kernel: Kernel):
        with pytest.raises(BpfError) as caught:
            kernel.prog_load(RAW_TP, asm("r0 = *(u64 *)(r1 +96)\nexit"))

        assert caught.value.errno == errno.EACCES
        assert "invalid bpf_context access off=96 size=8" in caught.value.log
