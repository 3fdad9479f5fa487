"""Nothing leaks, nothing is used after it is freed: many cycles, and other threads while events fire."""

from __future__ import annotations

import errno
import gc
import os
import struct
import threading
import time
import weakref

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.kernel.files.file import FdTable, FileTable
from fastrtp.kernel.files.idr import Idr

RETURN_0 = encode(assemble("r0 = 0\nexit"))
CYCLES = int(os.environ.get("FASTRTP_LEAK_CYCLES", "1000"))
"""Load/attach/close cycles of the leak test: a thousand in every run, ten thousand where asked for."""


def resident_kib() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_load_attach_run_close_cycles_do_not_grow_the_process(kernel: Kernel):
    def cycle() -> None:
        fd = kernel.map_create(1, 4, 8, 16)
        prog = kernel.prog_load(17, struct.pack("<BBhi", 0x18, 0x11, 0, fd) + bytes(8) + RETURN_0)
        link = kernel.raw_tracepoint_open("sched_switch", prog)
        kernel.prog_test_run(prog)
        for number in (fd, prog, link):
            kernel.close(number)

    for _ in range(50):
        cycle()
    gc.collect()
    allocated, resident = kernel.memory.arena.allocated, resident_kib()
    for _ in range(CYCLES):
        cycle()
    gc.collect()

    assert kernel.memory.arena.allocated == allocated
    assert resident_kib() - resident < 8_192  # kib, however many cycles


def test_kernels_go_when_nobody_refers_to_them():
    made = []
    for _ in range(20):
        kernel = Kernel(cpus=1)
        kernel.raw_tracepoint_open("sched_switch", kernel.prog_load(17, RETURN_0))
        made.append(weakref.ref(kernel))
    del kernel
    gc.collect()

    assert [reference() for reference in made] == [None] * 20


def test_failing_loads_leave_nothing(kernel: Kernel):
    allocated, files = kernel.memory.arena.allocated, kernel.file_table.nr_files
    for _ in range(50):
        with pytest.raises(BpfError):
            kernel.prog_load(17, encode(assemble("r0 = *(u64 *)(r2 +0)\nexit")))
        with pytest.raises(BpfError):
            kernel.map_create(1, 4, 8, 16, name="not-a-name")

    assert (kernel.memory.arena.allocated, kernel.file_table.nr_files) == (allocated, files)


def test_descriptors_that_do_not_fit_leave_nothing(kernel: Kernel):
    kernel.current.files.rlimit_nofile = 3
    allocated = kernel.memory.arena.allocated
    for make in (lambda: kernel.map_create(1, 4, 8, 16), lambda: kernel.prog_load(17, RETURN_0), kernel.enable_stats):
        with pytest.raises(BpfError) as caught:
            make()
        assert caught.value.errno == errno.EMFILE

    assert (len(kernel.maps), len(kernel.progs), kernel.memory.arena.allocated) == (0, 0, allocated)


def test_attaching_detaching_and_reading_while_events_fire(kernel: Kernel):
    """Two threads attach and detach and use a map, a third fires events: counts stay exact and nothing crashes."""
    prog = kernel.prog_load(17, RETURN_0)
    always = kernel.raw_tracepoint_open("sched_switch", prog)
    counts = kernel.map_create(1, 4, 8, 64)
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work) -> None:
        try:
            while not stop.is_set():
                work()
        except BaseException as error:
            errors.append(error)
            stop.set()

    def attach() -> None:
        mine = kernel.prog_load(17, RETURN_0)
        fds = [kernel.raw_tracepoint_open("sched_switch", mine) for _ in range(3)]
        for fd in [mine, *fds]:
            kernel.close(fd)

    def touch() -> None:
        for key in range(64):
            kernel.map_update_elem(counts, struct.pack("<I", key), bytes(8))
        for key in range(64):
            kernel.map_delete_elem(counts, struct.pack("<I", key))

    fired = 0
    trace = kernel.trace("sched_switch")

    def fire() -> None:
        nonlocal fired
        for _ in range(20):
            trace(0, 0, 0, 0)
            fired += 1

    threads = [threading.Thread(target=guarded, args=(work,)) for work in (attach, touch, fire)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()

    assert errors == []
    assert fired > 0
    assert kernel.current.files.fget(prog).private_data.runs == fired
    kernel.close(always)
    assert not kernel.tracepoints["sched_switch"].enabled


class TestIdr:
    def test_ids_go_round(self):
        ids: Idr[str] = Idr()
        ids._cursor = (1 << 31) - 2

        assert [ids.alloc_cyclic(name) for name in "abc"] == [(1 << 31) - 2, 1, 2]
        assert ids.get_next(3) == (1 << 31) - 2
        ids.remove(1)
        assert (ids.get_next(1), ids.find(1), list(ids)) == (2, None, ["c", "a"])
        assert ids.get_next((1 << 31) - 1) is None


class TestFdTable:
    def opened(self, count: int) -> tuple[FdTable, list[int], list[int]]:
        files, released = FileTable(), []
        table = FdTable(rlimit_nofile=16)
        fds = []
        for number in range(count):
            fd = table.get_unused_fd(False)
            fds.append(table.fd_install(fd, files.open("x", number, os.O_RDWR, lambda file: released.append(file.private_data))))
        return table, fds, released

    def test_the_lowest_free_number_is_taken(self):
        table, fds, _released = self.opened(6)
        for fd in (4, 1, 2):
            table.close(fd)

        assert [table.get_unused_fd(False) for _ in range(4)] == [1, 2, 4, 6]
        assert fds == [0, 1, 2, 3, 4, 5]

    def test_a_reserved_number_is_not_open(self):
        table, _fds, _released = self.opened(1)
        reserved = table.get_unused_fd(False)

        with pytest.raises(BpfError) as caught:
            table.fget(reserved)
        assert caught.value.errno == errno.EBADF
        assert list(table) == [0]
        table.put_unused_fd(reserved)
        assert table.get_unused_fd(False) == reserved

    def test_dup_from_a_number_on(self):
        table, _fds, released = self.opened(2)

        assert table.dup(0, start=10) == 10
        assert table.dup(0) == 2
        table.close(0)
        table.close(2)
        assert released == []
        table.close(10)
        assert released == [0]
        with pytest.raises(BpfError) as caught:
            table.dup(1, start=16)
        assert caught.value.errno == errno.EINVAL

    def test_a_copy_shares_the_files(self):
        table, _fds, released = self.opened(3)
        table.set_cloexec(1, True)
        copy = table.copy()
        table.close_all()
        assert released == []

        copy.close_on_exec()
        assert released == [1]
        copy.close_all()

        assert released == [1, 0, 2]
        assert len(copy) == 0
