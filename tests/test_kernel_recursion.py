"""The recursion guard is per program and CPU: a nested run of the same program is left out, of another one is not."""

from __future__ import annotations

import pytest

from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel

PRINTS = encode(
    assemble("""
    *(u32 *)(r10 -8) = 0x000a6968
    r1 = r10
    r1 += -8
    r2 = 4
    call bpf_trace_printk#6
    r0 = 0
    exit""")
)
RETURN_0 = encode(assemble("r0 = 0\nexit"))


@pytest.fixture
def printing(kernel: Kernel) -> int:
    fd = kernel.prog_load(17, PRINTS, name="prints")
    kernel.raw_tracepoint_open("task_rename", fd)
    return fd


def counts(kernel: Kernel, fd: int) -> tuple[int, int]:
    """(runs, recursion misses) of a program."""
    prog = kernel.current.files.fget(fd).private_data
    return prog.runs, prog.stats()[2]


def test_a_nested_run_of_the_same_program_is_a_miss(kernel: Kernel, printing: int):
    kernel.raw_tracepoint_open("bpf_trace_printk", printing)

    kernel.trace("task_rename")(0, 0)

    assert counts(kernel, printing) == (1, 1)
    assert kernel.obj_get_info_by_fd(printing).recursion_misses == 1
    assert [text for _time, _cpu, _pid, text in kernel.memory.trace_pipe()] == [b"hi\n"]


def test_a_nested_run_of_another_program_is_a_run(kernel: Kernel, printing: int):
    other = kernel.prog_load(17, RETURN_0)
    kernel.raw_tracepoint_open("bpf_trace_printk", other)

    kernel.trace("task_rename")(0, 0)
    kernel.trace("task_rename")(0, 0)

    assert counts(kernel, printing) == (2, 0)
    assert counts(kernel, other) == (2, 0)


def test_two_links_of_one_program_on_one_tracepoint_both_run(kernel: Kernel, printing: int):
    kernel.raw_tracepoint_open("task_rename", printing)

    kernel.trace("task_rename")(0, 0)

    assert counts(kernel, printing) == (2, 0)


def test_the_guard_is_released_after_the_run(kernel: Kernel, printing: int):
    for _ in range(3):
        kernel.trace("task_rename")(0, 0)

    assert counts(kernel, printing) == (3, 0)
