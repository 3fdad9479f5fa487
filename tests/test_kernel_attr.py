"""Attr size rules, for every command: what lies past an attr has to be zero, and how that is said depends on where it lies."""

from __future__ import annotations

import errno

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.kernel.syscall.sys_bpf import COMMANDS
from fastrtp.uapi import ATTR_SIZE, ATTRS, BpfCmd

WITH_A_TAIL = [cmd for cmd in BpfCmd if ATTRS[cmd].end < ATTR_SIZE]


def refused(kernel: Kernel, cmd: BpfCmd, attr: bytearray, size: int | None = None) -> BpfError:
    with pytest.raises(BpfError) as caught:
        kernel.bpf(cmd, attr, size)
    return caught.value


def errno_of(kernel: Kernel, cmd: BpfCmd, attr: bytearray) -> int:
    """0 where the call succeeds."""
    try:
        kernel.bpf(cmd, attr)
    except BpfError as error:
        return error.errno or 0
    return 0


def test_every_command_has_a_layout_and_a_function():
    assert set(ATTRS) == set(COMMANDS) == set(BpfCmd)


@pytest.mark.parametrize("cmd", WITH_A_TAIL)
def test_a_byte_after_the_last_field_is_einval_before_anything_else(kernel: Kernel, cmd: BpfCmd):
    end = ATTRS[cmd].end
    for at in (end, (end + ATTR_SIZE) // 2, ATTR_SIZE - 1):
        attr = bytearray(ATTR_SIZE)
        attr[at] = 1
        error = refused(kernel, cmd, attr)

        assert (error.errno, f"past the {end} of attr that {cmd.name} knows" in str(error)) == (errno.EINVAL, True)


@pytest.mark.parametrize("cmd", list(BpfCmd))
def test_a_byte_after_the_attr_is_e2big_and_zeroes_are_fine(kernel: Kernel, cmd: BpfCmd):
    attr = bytearray(4096)
    attr[4000] = 1

    assert refused(kernel, cmd, attr).errno == errno.E2BIG
    assert refused(kernel, cmd, bytearray(8192), 4097).errno == errno.E2BIG
    if cmd != BpfCmd.BPF_PROG_LOAD:  # no instructions at all are E2BIG too
        assert errno_of(kernel, cmd, bytearray(4096)) != errno.E2BIG


@pytest.mark.parametrize("cmd", list(BpfCmd))
def test_an_attr_that_cannot_be_read_is_efault(kernel: Kernel, cmd: BpfCmd):
    with pytest.raises(BpfError) as caught:
        kernel.bpf(cmd, 4096, 16)

    assert caught.value.errno == errno.EFAULT


def test_a_descriptor_that_cannot_be_passed_on_stays_where_it_is(kernel: Kernel):
    link = kernel.raw_tracepoint_open("sched_switch", kernel.prog_load(17, encode(assemble("r0 = 0\nexit"))))
    receiver = kernel.new_process(comm="receiver")
    receiver.files.rlimit_nofile = 3

    with pytest.raises(BpfError) as caught:
        kernel.current.send_fd(link, receiver)

    assert caught.value.errno == errno.EMFILE
    assert kernel.current.files.fget(link).f_count == 1
    receiver.files.rlimit_nofile = 4
    passed = kernel.current.send_fd(link, receiver, cloexec=True)
    assert receiver.files.cloexec(passed)
    kernel.current.exit()
    assert kernel.tracepoints["sched_switch"].enabled
    assert "tp_name:\tsched_switch\n" in receiver.fdinfo(passed)
    receiver.exec("other")
    assert not kernel.tracepoints["sched_switch"].enabled
