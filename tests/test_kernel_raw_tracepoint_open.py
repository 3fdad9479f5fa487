"""BPF_RAW_TRACEPOINT_OPEN, row by row of what Linux does: the order of the checks, the descriptor, the probes."""

from __future__ import annotations

import ctypes
import errno
import struct

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTRS, BpfCmd

RAW_TP = 17
OPEN = BpfCmd.BPF_RAW_TRACEPOINT_OPEN
TRACEPOINT = "sched_switch"


def asm(text: str) -> bytes:
    return encode(assemble(text))


RETURN_0 = asm("r0 = 0\nexit")
READS_ARG_0 = asm("r0 = *(u64 *)(r1 +0)\nexit")
READS_ARG_8 = asm("r0 = *(u64 *)(r1 +64)\nexit")


def attr_of(**fields: int) -> ctypes.Structure:
    return ATTRS[OPEN].struct(**fields)


def error_of(kernel: Kernel, attr, size: int | None = None) -> int:
    with pytest.raises(BpfError) as caught:
        kernel.bpf(OPEN, attr, size)
    assert caught.value.errno is not None
    return caught.value.errno


def name_at(text: bytes) -> tuple[int, ctypes.Array]:
    buffer = ctypes.create_string_buffer(text)
    return ctypes.addressof(buffer), buffer


@pytest.fixture
def prog(kernel: Kernel) -> int:
    return kernel.prog_load(RAW_TP, RETURN_0, name="nothing")


class TestOrderOfTheChecks:
    def test_an_attr_longer_than_a_page_is_e2big(self, kernel: Kernel):
        assert error_of(kernel, bytearray(8192), 4097) == errno.E2BIG

    def test_non_zero_bytes_past_the_known_attr_are_e2big(self, kernel: Kernel):
        assert error_of(kernel, bytearray(200) + bytearray(b"\x01"), 201) == errno.E2BIG

    def test_an_unreadable_attr_is_efault(self, kernel: Kernel):
        assert error_of(kernel, None, 24) == errno.EFAULT
        assert error_of(kernel, 4096, 24) == errno.EFAULT

    def test_a_byte_after_the_cookie_is_einval_before_prog_fd_is_looked_at(self, kernel: Kernel):
        attr = bytearray(bytes(attr_of(prog_fd=999)).ljust(32, b"\0"))
        attr[24] = 1

        assert error_of(kernel, attr) == errno.EINVAL

    def test_prog_fd_that_is_not_open_is_ebadf(self, kernel: Kernel):
        assert error_of(kernel, attr_of(name=1, prog_fd=999)) == errno.EBADF

    def test_prog_fd_that_is_no_program_is_einval(self, kernel: Kernel):
        fd = kernel.map_create(1, 4, 4, 1)

        assert error_of(kernel, attr_of(name=1, prog_fd=fd)) == errno.EINVAL
        assert error_of(kernel, attr_of(name=1, prog_fd=0)) == errno.EINVAL

    @pytest.mark.parametrize("address", [0, 8, 1 << 63])
    def test_a_name_that_cannot_be_read_is_efault(self, kernel: Kernel, prog: int, address: int):
        assert error_of(kernel, attr_of(name=address, prog_fd=prog)) == errno.EFAULT

    @pytest.mark.parametrize("name", [b"", b"no_such", b"sched:sched_switch", b"sched_switch" + b"x" * 200])
    def test_no_such_tracepoint_is_enoent(self, kernel: Kernel, prog: int, name: bytes):
        address, _kept = name_at(name)

        assert error_of(kernel, attr_of(name=address, prog_fd=prog)) == errno.ENOENT

    def test_127_characters_of_the_name_are_looked_at(self, kernel: Kernel, prog: int):
        kernel.trace_event("x" * 127, "int a")

        fd = kernel.raw_tracepoint_open("x" * 127 + "and what follows is cut off", prog)

        assert kernel.current.fd_name(fd) == "anon_inode:bpf_link"

    def test_no_free_descriptor_is_emfile_and_nothing_leaks(self, kernel: Kernel, prog: int):
        before = (len(kernel.links), kernel.file_table.nr_files, kernel.memory.arena.allocated)
        kernel.current.files.rlimit_nofile = prog + 1

        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert caught.value.errno == errno.EMFILE
        assert (len(kernel.links), kernel.file_table.nr_files, kernel.memory.arena.allocated) == before
        assert kernel.tracepoints.references(TRACEPOINT) == 0

    def test_no_free_file_is_enfile_and_nothing_leaks(self, kernel: Kernel, prog: int):
        kernel.file_table.max_files = kernel.file_table.nr_files

        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert caught.value.errno == errno.ENFILE
        assert len(kernel.links) == 0
        assert kernel.tracepoints.references(TRACEPOINT) == 0
        kernel.file_table.max_files += 1
        assert kernel.raw_tracepoint_open(TRACEPOINT, prog) == prog + 1

    def test_emfile_comes_before_the_check_of_the_arguments(self, kernel: Kernel):
        fd = kernel.prog_load(RAW_TP, READS_ARG_8)
        kernel.current.files.rlimit_nofile = fd + 1

        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open(TRACEPOINT, fd)

        assert caught.value.errno == errno.EMFILE

    def test_a_program_that_reads_past_the_arguments_is_einval_and_nothing_leaks(self, kernel: Kernel):
        fd = kernel.prog_load(RAW_TP, READS_ARG_8)
        before = (len(kernel.links), kernel.file_table.nr_files, len(kernel.current.files))

        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open(TRACEPOINT, fd)

        assert caught.value.errno == errno.EINVAL
        assert (len(kernel.links), kernel.file_table.nr_files, len(kernel.current.files)) == before
        assert not kernel.tracepoints[TRACEPOINT].enabled

    def test_regfunc_decides_with_its_own_errno(self, kernel: Kernel, prog: int):
        tp = kernel.trace_event("refusing", "int a", regfunc=lambda: -errno.ENOSYS)

        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open("refusing", prog)

        assert caught.value.errno == errno.ENOSYS
        assert not tp.enabled
        assert len(kernel.links) == 0


class TestTheDescriptor:
    def test_it_is_the_lowest_free_one(self, kernel: Kernel, prog: int):
        first, second = (kernel.raw_tracepoint_open(TRACEPOINT, prog) for _ in range(2))
        kernel.close(first)

        assert (first, second) == (prog + 1, prog + 2)
        assert kernel.raw_tracepoint_open(TRACEPOINT, prog) == first

    def test_it_is_closed_on_exec(self, kernel: Kernel, prog: int):
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert kernel.current.files.cloexec(link)
        kernel.current.exec("other")
        assert not kernel.tracepoints[TRACEPOINT].enabled

    def test_read_is_einval_and_write_is_ebadf(self, kernel: Kernel, prog: int):
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog)

        with pytest.raises(BpfError) as read:
            kernel.current.read(link, 1)
        with pytest.raises(BpfError) as write:
            kernel.current.write(link, b"x")
        assert (read.value.errno, write.value.errno) == (errno.EINVAL, errno.EBADF)

    def test_fdinfo_names_link_program_tracepoint_and_cookie(self, kernel: Kernel, prog: int):
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog, cookie=77)
        rows = dict(line.split(":\t") for line in kernel.current.fdinfo(link).splitlines())

        assert rows["flags"] == "02000000"
        assert rows["link_type"] == "raw_tracepoint"
        assert (rows["link_id"], rows["prog_id"]) == ("1", "1")
        assert rows["prog_tag"] == bytes(kernel.obj_get_info_by_fd(prog).tag).hex()
        assert (rows["tp_name"], rows["cookie"]) == (TRACEPOINT, "77")


class TestProbes:
    def order(self, kernel: Kernel) -> list[int]:
        """Link ids in the order in which their programs run."""
        by_record = {link.record.address: link.id for link in kernel.links}
        return [by_record[func.data] for func in kernel.tracepoints[TRACEPOINT].funcs]

    def test_three_run_in_the_order_of_opening_and_a_reopened_one_is_last(self, kernel: Kernel, prog: int):
        fds = [kernel.raw_tracepoint_open(TRACEPOINT, prog) for _ in range(3)]
        assert self.order(kernel) == [1, 2, 3]

        kernel.close(fds[0])
        kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert self.order(kernel) == [2, 3, 4]

    def test_one_program_may_be_on_a_tracepoint_twice(self, kernel: Kernel, prog: int):
        kernel.raw_tracepoint_open(TRACEPOINT, prog)
        kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert len(kernel.tracepoints[TRACEPOINT].funcs) == 2

    def test_one_program_may_be_on_many_tracepoints(self, kernel: Kernel, prog: int):
        names = ["sched_switch", "sched_wakeup", "task_rename", "sys_enter"]
        for name in names:
            kernel.raw_tracepoint_open(name, prog)

        assert all(kernel.tracepoints[name].enabled for name in names)
        assert len(kernel.progs) == 1

    def test_closing_the_program_leaves_the_link(self, kernel: Kernel, prog: int):
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog)
        kernel.close(prog)
        assert (len(kernel.progs), kernel.tracepoints[TRACEPOINT].enabled) == (1, True)

        kernel.close(link)

        assert (len(kernel.progs), kernel.tracepoints[TRACEPOINT].enabled) == (0, False)

    def test_a_duplicate_keeps_it_attached_until_the_last_close(self, kernel: Kernel, prog: int):
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog)
        duplicate = kernel.current.dup(link)
        kernel.close(link)
        assert kernel.tracepoints[TRACEPOINT].enabled

        kernel.close(duplicate)

        assert not kernel.tracepoints[TRACEPOINT].enabled

    def test_regfunc_and_unregfunc_run_for_the_first_and_the_last(self, kernel: Kernel, prog: int):
        calls: list[str] = []
        kernel.trace_event("counted", "int a", regfunc=lambda: calls.append("reg"), unregfunc=lambda: calls.append("unreg"))

        fds = [kernel.raw_tracepoint_open("counted", prog) for _ in range(2)]
        assert calls == ["reg"]
        for fd in fds:
            kernel.close(fd)

        assert calls == ["reg", "unreg"]

    def test_release_detaches_then_lets_the_tracepoint_then_the_program_go(self, kernel: Kernel, prog: int, monkeypatch):
        steps: list[str] = []
        registry = kernel.tracepoints
        for name in ("bpf_probe_unregister", "bpf_put_raw_tracepoint"):
            real = getattr(registry, name)
            monkeypatch.setattr(registry, name, lambda arg, real=real, name=name: (steps.append(name), real(arg)))
        link = kernel.raw_tracepoint_open(TRACEPOINT, prog)
        held = next(iter(kernel.progs))
        kernel.close(prog)
        release = held.release
        monkeypatch.setattr(held, "release", lambda: (steps.append("bpf_prog_put"), release()))

        kernel.close(link)

        assert steps == ["bpf_probe_unregister", "bpf_put_raw_tracepoint", "bpf_prog_put"]

    def test_a_tracepoint_with_links_cannot_be_removed(self, kernel: Kernel, prog: int):
        kernel.trace_event("mine", "int a")
        link = kernel.raw_tracepoint_open("mine", prog)
        with pytest.raises(BpfError) as caught:
            kernel.tracepoints.remove("mine")
        assert caught.value.errno == errno.EBUSY

        kernel.close(link)
        kernel.tracepoints.remove("mine")

        assert "mine" not in kernel.tracepoints

    def test_the_table_filled_to_its_limit_leaves_exact_counts(self, kernel: Kernel, prog: int):
        kernel.current.files.rlimit_nofile = 300
        opened = [kernel.raw_tracepoint_open(TRACEPOINT, prog) for _ in range(300 - 4)]
        with pytest.raises(BpfError) as caught:
            kernel.raw_tracepoint_open(TRACEPOINT, prog)

        assert caught.value.errno == errno.EMFILE
        assert len(opened) == len(kernel.links) == len(kernel.tracepoints[TRACEPOINT].funcs)
        for fd in opened:
            kernel.close(fd)
        assert (len(kernel.links), kernel.file_table.nr_files) == (0, 4)


class TestTheProgramRuns:
    def test_once_on_ctx_in_and_r0_is_cut_to_32_bits(self, kernel: Kernel):
        fd = kernel.prog_load(RAW_TP, READS_ARG_0)

        assert kernel.prog_test_run(fd, struct.pack("<Q", 0x1122334455667788)) == 0x55667788
