"""Processes: descriptors, duplicates, fork, exec, exit, passing a descriptor on, and the BPF file system."""

from __future__ import annotations

import errno

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel

RETURN_0 = encode(assemble("r0 = 0\nexit"))
TRACEPOINT = "sched_switch"


@pytest.fixture
def attached(kernel: Kernel) -> tuple[int, int]:
    """(program, link) descriptors of the current process."""
    prog = kernel.prog_load(17, RETURN_0)
    return prog, kernel.raw_tracepoint_open(TRACEPOINT, prog)


def errno_of(function, *args) -> int:
    with pytest.raises(BpfError) as caught:
        function(*args)
    assert caught.value.errno is not None
    return caught.value.errno


def test_the_first_descriptor_is_3(kernel: Kernel):
    assert kernel.map_create(1, 4, 4, 1) == 3


def test_closing_twice_is_ebadf(kernel: Kernel):
    fd = kernel.map_create(1, 4, 4, 1)
    kernel.close(fd)

    assert errno_of(kernel.close, fd) == errno.EBADF
    assert errno_of(kernel.close, -1) == errno.EBADF


def test_dup_takes_the_lowest_free_number_and_is_not_closed_on_exec(kernel: Kernel):
    fd = kernel.map_create(1, 4, 4, 1)
    duplicate = kernel.current.dup(fd)

    assert duplicate == fd + 1
    assert kernel.current.files.cloexec(fd)
    assert not kernel.current.files.cloexec(duplicate)


def test_dup2_replaces_what_was_there(kernel: Kernel):
    first, second = kernel.map_create(1, 4, 4, 1), kernel.map_create(2, 4, 4, 1)

    assert kernel.current.dup2(first, second) == second
    assert len(kernel.maps) == 1
    assert kernel.current.dup2(first, first) == first
    assert errno_of(kernel.current.dup2, 99, 5) == errno.EBADF
    assert errno_of(kernel.current.dup2, first, 1024) == errno.EBADF


def test_dup3_of_a_descriptor_onto_itself_is_einval(kernel: Kernel):
    fd = kernel.map_create(1, 4, 4, 1)

    assert errno_of(kernel.current.dup3, fd, fd) == errno.EINVAL
    assert kernel.current.dup3(fd, 50, True) == 50
    assert kernel.current.files.cloexec(50)


def test_exit_closes_everything_and_detaches(kernel: Kernel, attached):
    kernel.current.exit()

    assert not kernel.tracepoints[TRACEPOINT].enabled
    assert (len(kernel.links), len(kernel.progs)) == (0, 0)


def test_a_forked_child_keeps_the_program_attached(kernel: Kernel, attached):
    child = kernel.current.fork()
    kernel.current.exit()
    assert kernel.tracepoints[TRACEPOINT].enabled

    child.kill()

    assert not kernel.tracepoints[TRACEPOINT].enabled


def test_exec_closes_what_bpf_gave(kernel: Kernel, attached):
    child = kernel.current.fork()
    child.exec("other")

    assert list(child.files) == [0, 1, 2]
    assert kernel.tracepoints[TRACEPOINT].enabled


def test_several_processes_on_one_tracepoint(kernel: Kernel):
    processes = [kernel.new_process(comm=f"tool{number}") for number in range(3)]
    for process in processes:
        process.raw_tracepoint_open(TRACEPOINT, process.prog_load(17, RETURN_0))
    assert len(kernel.tracepoints[TRACEPOINT].funcs) == 3

    processes[1].kill()

    assert len(kernel.tracepoints[TRACEPOINT].funcs) == 2
    assert len(kernel.progs) == 2


def test_a_descriptor_means_nothing_in_another_process(kernel: Kernel, attached):
    prog, _link = attached
    other = kernel.new_process()

    assert errno_of(other.raw_tracepoint_open, TRACEPOINT, prog) == errno.EBADF


def test_a_descriptor_can_be_passed_on(kernel: Kernel, attached):
    prog, link = attached
    other = kernel.new_process()
    passed = kernel.current.send_fd(link, other)
    kernel.close(link)
    kernel.close(prog)
    assert (passed, kernel.tracepoints[TRACEPOINT].enabled) == (3, True)

    other.close(passed)

    assert len(kernel.progs) == 0


def test_a_process_without_rights_gets_eperm(kernel: Kernel):
    user = kernel.new_process(uid=1000, capable=False)

    assert errno_of(user.map_create, 1, 4, 4, 1) == errno.EPERM
    assert errno_of(user.prog_load, 17, RETURN_0) == errno.EPERM
    assert errno_of(user.enable_stats) == errno.EPERM


def test_a_pinned_link_stays_attached_after_exit(kernel: Kernel, attached):
    _prog, link = attached
    kernel.obj_pin("/sys/fs/bpf/switches", link)
    kernel.current.exit()
    assert kernel.tracepoints[TRACEPOINT].enabled

    other = kernel.new_process()
    again = other.obj_get("/sys/fs/bpf/switches")
    kernel.bpffs.unlink("/sys/fs/bpf/switches")
    assert kernel.tracepoints[TRACEPOINT].enabled
    other.close(again)

    assert not kernel.tracepoints[TRACEPOINT].enabled


def test_pins_have_the_errors_of_a_file_system(kernel: Kernel, attached):
    prog, _link = attached
    kernel.obj_pin("/sys/fs/bpf/p", prog)

    assert errno_of(kernel.obj_pin, "/sys/fs/bpf/p", prog) == errno.EEXIST
    assert errno_of(kernel.obj_pin, "/tmp/p", prog) == errno.EPERM
    assert errno_of(kernel.obj_pin, "/sys/fs/bpf/no/p", prog) == errno.ENOENT
    assert errno_of(kernel.obj_get, "/sys/fs/bpf/q") == errno.ENOENT
    assert errno_of(kernel.obj_pin, "/sys/fs/bpf/" + "n" * 256, prog) == errno.ENAMETOOLONG
    assert errno_of(kernel.obj_get, "/sys/fs/bpf/" + "n" * 256) == errno.ENAMETOOLONG
    assert errno_of(kernel.obj_pin, "/sys/fs/bpf/no/" + "n" * 256, prog) == errno.ENOENT
    kernel.bpffs.mkdir("/sys/fs/bpf/no")
    kernel.obj_pin("/sys/fs/bpf/no/p", prog)
    assert list(kernel.bpffs) == ["/sys/fs/bpf/no/p", "/sys/fs/bpf/p"]
    kernel.obj_pin("/sys/fs/bpf/" + "n" * 255, prog)
    kernel.bpffs.unmount()


def test_a_pinned_map_keeps_its_contents(kernel: Kernel):
    fd = kernel.map_create(1, 4, 4, 4)
    kernel.map_update_elem(fd, b"key.", b"val.")
    kernel.obj_pin("/sys/fs/bpf/m", fd)
    kernel.close(fd)

    again = kernel.obj_get("/sys/fs/bpf/m")

    assert kernel.map_lookup_elem(again, b"key.") == b"val."
    kernel.bpffs.unlink("/sys/fs/bpf/m")
