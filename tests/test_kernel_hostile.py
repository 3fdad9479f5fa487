"""Attrs of any content: every call returns or raises BpfError, and in the end nothing is left."""

from __future__ import annotations

import ctypes
import errno
import random
import struct
from typing import Any

import pytest

from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTRS, BpfCmd

CALLS = 3000


def value_of(rnd: random.Random, ctype: Any, addresses: list[int]) -> Any:
    """A value that may well be right: a small number, an address of ours, or anything."""
    if ctype is ctypes.c_uint64:
        return rnd.choice([*addresses, 0, 1, 8, rnd.getrandbits(64)])
    if ctype in (ctypes.c_uint32, ctypes.c_int32):
        return rnd.choice([rnd.randrange(12), rnd.randrange(40), rnd.getrandbits(31), 4, 8, 4096])
    return rnd.randbytes(rnd.randrange(16))


@pytest.mark.parametrize("seed", range(3))
def test_no_attr_does_harm(kernel: Kernel, seed: int):
    rnd = random.Random(seed)
    code = encode(assemble("r0 = 0\nexit"))
    texts = (code, b"sched_switch", b"GPL", b"", struct.pack("<I", 1), b"/sys/fs/bpf/x")
    buffers = [ctypes.create_string_buffer(text, 4096) for text in texts]
    addresses = [ctypes.addressof(buffer) for buffer in buffers]
    for map_type, key_size, value_size, max_entries in ((1, 4, 8, 4), (2, 4, 8, 4), (3, 4, 4, 4), (27, 0, 0, 4096)):
        kernel.map_create(map_type, key_size, value_size, max_entries)
    kernel.raw_tracepoint_open("sched_switch", kernel.prog_load(17, code))
    succeeded = set()

    for number in range(CALLS):
        cmd = rnd.choice(list(BpfCmd))
        attr: Any = ATTRS[cmd].struct()
        for name, ctype, *_bits in attr._fields_:
            if rnd.random() < 0.4:
                setattr(attr, name, value_of(rnd, ctype, addresses))
        try:
            kernel.bpf(cmd, attr)
            succeeded.add(cmd)
        except BpfError:
            pass
        if number % 50 == 0:
            for fd in [fd for fd in kernel.current.files if fd > 9]:
                kernel.close(fd)
            kernel.bpffs.unmount()

    assert len(succeeded) > 5
    kernel.current.exit()
    kernel.bpffs.unmount()
    assert (len(kernel.progs), len(kernel.maps), len(kernel.links)) == (0, 0, 0)


@pytest.mark.parametrize("cmd", [-1, 38, 1000, 1 << 40])
def test_commands_that_are_none_are_einval(kernel: Kernel, cmd: int):
    with pytest.raises(BpfError, match=f"no command {cmd}"):
        kernel.bpf(cmd, bytearray(168))


def test_an_attr_that_cannot_be_written_is_a_type_error(kernel: Kernel):
    with pytest.raises(TypeError, match="writable"):
        kernel.bpf(BpfCmd.BPF_MAP_CREATE, bytes(64))


@pytest.mark.parametrize("attr", [bytearray(168), (ctypes.c_char * 168)(), memoryview(bytearray(168))])
def test_any_writable_buffer_is_an_attr(kernel: Kernel, attr: Any):
    with pytest.raises(BpfError) as caught:
        kernel.bpf(BpfCmd.BPF_MAP_CREATE, attr)
    assert caught.value.errno == errno.EINVAL


def test_results_are_written_back_into_the_buffer(kernel: Kernel):
    kernel.map_create(1, 4, 8, 4)
    attr = bytearray(16)

    assert kernel.bpf(BpfCmd.BPF_MAP_GET_NEXT_ID, attr) == 0
    assert attr == struct.pack("<IIII", 0, 1, 0, 0)


def test_a_size_shorter_than_the_attr_hides_the_rest(kernel: Kernel):
    attr = bytearray(struct.pack("<IIIII", 1, 4, 8, 4, 0xFFFFFFFF))

    assert kernel.bpf(BpfCmd.BPF_MAP_CREATE, attr, 16) == 3
