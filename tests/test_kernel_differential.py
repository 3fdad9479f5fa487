"""The same bpf(2) calls to Linux and to `Kernel.bpf`: return value, errno and every output are compared.

Runs as root on Linux 6.18 with bpf(2) to be had, and is skipped elsewhere. Nothing is attached to anything but
bpf_trigger_tp, a tracepoint that fires only when a BPF self-test asks for it.

A call is a command and its fields. A field's value is a number; `Fd("name")`: a descriptor that an earlier call returned,
which differs on the two sides; `BtfId("name")`: a type of the running kernel; bytes: the address of a copy of them; `Out(n)`: the address of n bytes, compared after the call
(unless they are opaque).
"""

# ruff: noqa: E501 - a call is a row of a table

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fastrtp.btf import host_btf
from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTR_SIZE, ATTRS, BpfCmd, bpf_link_info_raw_tracepoint, bpf_map_info, bpf_prog_info

SYS_BPF = 321
RAW_TP = 17
NOT_OPEN = 999


@dataclass(frozen=True)
class Fd:
    name: str


@dataclass(frozen=True)
class FdBytes:
    """A descriptor in the bytes of a key; "nothing": one that is not open."""

    name: str


@dataclass(frozen=True)
class BtfId:
    name: str


@dataclass(frozen=True)
class Out:
    size: int
    fill: bytes = b""
    opaque: bool = False


@dataclass
class Call:
    """One call. `save`: name for the descriptor that it returns. `mask`: fields of the attr that may differ (ids)."""

    cmd: str
    fields: dict[str, Any]
    save: str = ""
    mask: tuple[str, ...] = ()
    size: int | None = None
    null: bool = False
    tail: dict[int, int] = field(default_factory=dict)


def call(cmd: str, *, save: str = "", mask: tuple[str, ...] = (), size: int | None = None, null: bool = False,
         tail: dict[int, int] | None = None, **fields: Any) -> Call:  # fmt: skip
    return Call("BPF_" + cmd, fields, save, mask, size, null, tail or {})


@dataclass
class Outcome:
    ret: int
    errno: str
    attr: bytes
    outs: list[bytes]


class Side:
    """One of the two kernels: the system call, the descriptors it gave, and how to close them."""

    kernel: Kernel

    def __init__(self, bpf: Callable[[int, Any, int], int], close: Callable[[int], None]) -> None:
        self.bpf = bpf
        self.close = close
        self.fds: dict[str, int] = {}
        self.extra: list[int] = []

    def run(self, row: Call) -> Outcome:
        cmd = BpfCmd[row.cmd]
        attr = (ctypes.c_char * 8192)()
        struct_ = ATTRS[cmd].struct.from_buffer(attr)
        keep, outs, variable = [], [], set(row.mask)
        for name, value in row.fields.items():
            if isinstance(value, Fd):
                variable.add(name)
                value = self.fds[value.name]
            elif isinstance(value, BtfId):
                value = host_btf().find(value.name)
            elif isinstance(value, FdBytes):
                variable.add(name)
                keep.append(ctypes.create_string_buffer(struct.pack("<I", self.fds.get(value.name, NOT_OPEN)), 4))
                value = ctypes.addressof(keep[-1])
            elif isinstance(value, bytes | Out) and not name.endswith("_name"):
                variable.add(name)
                size = value.size if isinstance(value, Out) else len(value)
                buffer = ctypes.create_string_buffer(value.fill if isinstance(value, Out) else value, max(size, 1))
                keep.append(buffer)
                if isinstance(value, Out) and not value.opaque:
                    outs.append(buffer)
                value = ctypes.addressof(buffer)
            setattr(struct_, name, value)
        for at, byte in row.tail.items():
            attr[at] = bytes([byte])
        ret = self.bpf(cmd, None if row.null else attr, ATTR_SIZE if row.size is None else row.size)
        number = -ret if ret < 0 else 0
        if ret >= 0 and row.save:
            self.fds[row.save] = ret
        elif ret > 2:
            self.extra.append(ret)
        for name in variable:
            where = getattr(type(struct_), name)
            ctypes.memset(ctypes.addressof(attr) + where.offset, 0, where.size)
        name = errno.errorcode.get(number, str(number)) if number else ""
        shown = 0 if ret >= 0 and (row.save or ret > 2) else (ret if ret >= 0 else -1)
        return Outcome(shown, name, bytes(attr), [out.raw for out in outs])

    def finish(self) -> None:
        for fd in [*self.fds.values(), *self.extra]:
            self.close(fd)


def linux_side() -> Side:
    libc = ctypes.CDLL(None, use_errno=True)

    def bpf(cmd: int, attr: Any, size: int) -> int:
        ctypes.set_errno(0)
        ret = libc.syscall(SYS_BPF, int(cmd), attr, size)
        return -ctypes.get_errno() if ret < 0 else int(ret)

    return Side(bpf, os.close)


def fastrtp_side(kernel: Kernel) -> Side:
    def bpf(cmd: int, attr: Any, size: int) -> int:
        try:
            return kernel.bpf(cmd, attr, size)
        except BpfError as error:
            return -(error.errno or 0)

    side = Side(bpf, kernel.close)
    side.kernel = kernel
    return side


@pytest.fixture(scope="module")
def linux_618() -> None:
    if platform.system() != "Linux" or not platform.release().startswith("6.18") or platform.machine() != "x86_64":
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    if os.geteuid() != 0:
        pytest.skip("bpf(2) takes root")
    probe = linux_side()
    if probe.run(call("MAP_CREATE", map_type=2, key_size=4, value_size=4, max_entries=1, save="probe")).errno:
        pytest.skip("bpf(2) is not allowed here")
    probe.finish()


def possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().rpartition("-")[2]) + 1


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", op, dst | src << 4, off, imm)


MOV7 = insn(0xB7, 0, imm=7) + insn(0x95)
ARG0 = insn(0x79, 0, 1, 0) + insn(0x95)
ARG9 = insn(0x79, 0, 1, 72) + insn(0x95)
NO_EXIT = insn(0xB7, 0)
GPL = b"GPL\0"
KEY = struct.pack("<I", 1)
VALUE = struct.pack("<Q", 0x1122334455667788)


def load(code: bytes = MOV7, *, save: str = "", **fields: Any) -> Call:
    fields = {"prog_type": RAW_TP, "insn_cnt": len(code) // 8, "insns": code, "license": GPL} | fields
    return call("PROG_LOAD", save=save, **fields)


def create(map_type: int, key_size: int = 4, value_size: int = 8, max_entries: int = 4, *, save: str = "", **fields: Any) -> Call:
    fields = {"map_type": map_type, "key_size": key_size, "value_size": value_size, "max_entries": max_entries} | fields
    return call("MAP_CREATE", save=save, **fields)


def update(name: str, key: bytes = KEY, value: Any = VALUE, flags: int = 0) -> Call:
    return call("MAP_UPDATE_ELEM", map_fd=Fd(name), key=key, value=value, flags=flags)


def lookup(name: str, key: bytes = KEY, size: int = 8, flags: int = 0) -> Call:
    return call("MAP_LOOKUP_ELEM", map_fd=Fd(name), key=key, value=Out(size), flags=flags)


def open_tp(name: Any = b"bpf_trigger_tp\0", prog: Any = Fd("prog"), *, save: str = "", **fields: Any) -> Call:
    return call("RAW_TRACEPOINT_OPEN", save=save, name=name, prog_fd=prog, **fields)


def run(prog: Any = Fd("prog"), **fields: Any) -> Call:
    return call("PROG_TEST_RUN", prog_fd=prog, **fields)


def tp_btf(target: str | int = "btf_trace_bpf_trigger_tp", code: bytes = MOV7, *, save: str = "", **fields: Any) -> Call:
    fields = {
        "prog_type": 26,
        "expected_attach_type": 23,
        "attach_btf_id": BtfId(target) if isinstance(target, str) else target,
    } | fields
    return load(code, save=save, **fields)


def map_info(**fields: int) -> bytes:
    return bytes(bpf_map_info(**fields))


SETUP = [
    create(1, save="hash"),
    create(2, save="array"),
    create(3, value_size=4, save="prog_array"),
    create(4, value_size=4, save="perf"),
    create(27, 0, 0, 4096, save="ringbuf"),
    create(1, save="rdonly", map_flags=8),
    create(1, save="wronly", map_flags=16),
    load(save="prog"),
    load(ARG0, save="arg0"),
    load(ARG9, save="arg9"),
    open_tp(save="link", cookie=77),
]

CASES: dict[str, list[Call]] = {
    "map_create: sizes and entries": [
        create(1, 0), create(1, 4, 0), create(1, 4, 8, 0), create(2, 8), create(2, 4, 0), create(2, 4, 8, 0), create(3, 4, 8),
        create(27, 4, 0, 4096), create(27, 0, 8, 4096), create(27, 0, 0, 4095), create(27, 0, 0, 0), create(27, 0, 0, 12288),
        create(1, 4, 1 << 22), create(6, 4, 40000), create(5, 4, 40000),
    ],
    "map_create: flags": [
        create(1, map_flags=1), create(2, map_flags=1), create(9, map_flags=1), create(1, map_flags=2), create(9, map_flags=2),
        create(1, map_flags=8 | 16), create(1, map_flags=128 | 256), create(2, map_flags=1 << 20), create(6, map_flags=4),
        create(1, map_flags=4, numa_node=1000), create(2, map_flags=1024), create(6, map_flags=1024), create(1, map_flags=1024),
        create(1, map_extra=1), create(2, map_flags=2048), create(4, value_size=4, map_flags=2048), create(3, value_size=4, map_flags=128),
    ],
    "map_create: names": [
        create(1, map_name=b"a_name.0"), create(1, map_name=b"a-name"), create(1, map_name=b"sixteen_chars_xx"[:16]),
        create(1, map_name=b"a b"), create(1, map_name=b"fifteen_chars_x"),
    ],
    "map_create: BTF": [
        create(1, btf_key_type_id=1), create(1, btf_fd=NOT_OPEN, btf_value_type_id=1), create(1, btf_fd=Fd("prog"), btf_value_type_id=1),
        create(1, btf_vmlinux_value_type_id=1), create(1, map_ifindex=12345), create(77), create(0), create(1 << 31),
        create(1, excl_prog_hash_size=32), create(1, excl_prog_hash=bytes(32), excl_prog_hash_size=31),
    ],
    "hash: update, lookup, delete": [
        lookup("hash"), update("hash", flags=2), update("hash", flags=1), update("hash", flags=1), update("hash", flags=2), lookup("hash"),
        update("hash", flags=3), update("hash", flags=4), update("hash", flags=8), lookup("hash", flags=1), lookup("hash", flags=4),
        call("MAP_DELETE_ELEM", map_fd=Fd("hash"), key=KEY), call("MAP_DELETE_ELEM", map_fd=Fd("hash"), key=KEY), lookup("hash"),
    ],
    "hash: full": [
        *[update("hash", struct.pack("<I", key)) for key in range(5)], update("hash", struct.pack("<I", 2), flags=2),
    ],
    "hash: bad pointers and descriptors": [
        call("MAP_LOOKUP_ELEM", map_fd=Fd("hash"), key=0, value=Out(8)), call("MAP_LOOKUP_ELEM", map_fd=Fd("hash"), key=8, value=Out(8)),
        update("hash"), call("MAP_LOOKUP_ELEM", map_fd=Fd("hash"), key=KEY, value=8), update("hash", value=8), update("hash", value=0),
        call("MAP_LOOKUP_ELEM", map_fd=NOT_OPEN, key=KEY, value=Out(8)), call("MAP_LOOKUP_ELEM", map_fd=Fd("prog"), key=KEY, value=Out(8)),
        call("MAP_LOOKUP_ELEM", map_fd=0, key=KEY, value=Out(8)), call("MAP_DELETE_ELEM", map_fd=Fd("hash"), key=0),
        call("MAP_DELETE_ELEM", map_fd=0xFFFFFFFF, key=KEY), call("MAP_UPDATE_ELEM", map_fd=Fd("link"), key=KEY, value=VALUE),
        call("MAP_LOOKUP_ELEM", map_fd=Fd("hash"), key=1 << 63, value=Out(8)),
    ],
    "hash: lookup and delete": [
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("hash"), key=KEY, value=Out(8)), update("hash"),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("hash"), key=KEY, value=Out(8), flags=1),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("hash"), key=KEY, value=Out(8), flags=4),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("hash"), key=KEY, value=Out(8)), lookup("hash"),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("array"), key=KEY, value=Out(8)),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("ringbuf"), key=0, value=Out(8)),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("rdonly"), key=KEY, value=Out(8)),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("wronly"), key=KEY, value=Out(8)),
    ],
    "hash: get_next_key of one element": [
        call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=0, next_key=Out(4)), update("hash"),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=0, next_key=Out(4)), call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=KEY, next_key=Out(4)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=bytes(4), next_key=Out(4)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=8, next_key=Out(4)), call("MAP_GET_NEXT_KEY", map_fd=Fd("hash"), key=0, next_key=8),
    ],
    "array": [
        lookup("array"), update("array"), lookup("array"), lookup("array", struct.pack("<I", 4)), update("array", struct.pack("<I", 4)),
        update("array", flags=1), update("array", flags=2), update("array", flags=3), call("MAP_DELETE_ELEM", map_fd=Fd("array"), key=KEY),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("array"), key=0, next_key=Out(4)), call("MAP_GET_NEXT_KEY", map_fd=Fd("array"), key=KEY, next_key=Out(4)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("array"), key=struct.pack("<I", 3), next_key=Out(4)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("array"), key=struct.pack("<I", 100), next_key=Out(4)),
    ],
    "program array": [
        lookup("prog_array", size=4), call("MAP_UPDATE_ELEM", map_fd=Fd("prog_array"), key=KEY, value=struct.pack("<I", NOT_OPEN)),
        call("MAP_UPDATE_ELEM", map_fd=Fd("prog_array"), key=KEY, value=bytes(4)),
        call("MAP_UPDATE_ELEM", map_fd=Fd("prog_array"), key=struct.pack("<I", 4), value=struct.pack("<I", NOT_OPEN)),
        call("MAP_UPDATE_ELEM", map_fd=Fd("prog_array"), key=KEY, value=struct.pack("<I", NOT_OPEN), flags=1),
        call("MAP_DELETE_ELEM", map_fd=Fd("prog_array"), key=KEY), call("MAP_DELETE_ELEM", map_fd=Fd("prog_array"), key=struct.pack("<I", 4)),
        lookup("prog_array", struct.pack("<I", 4), size=4), call("MAP_GET_NEXT_KEY", map_fd=Fd("prog_array"), key=0, next_key=Out(4)),
    ],
    "perf event array and ring buffer": [
        lookup("perf", size=4), call("MAP_UPDATE_ELEM", map_fd=Fd("perf"), key=bytes(4), value=struct.pack("<I", NOT_OPEN)),
        call("MAP_UPDATE_ELEM", map_fd=Fd("perf"), key=bytes(4), value=bytes(4)), call("MAP_DELETE_ELEM", map_fd=Fd("perf"), key=bytes(4)),
        call("MAP_LOOKUP_ELEM", map_fd=Fd("ringbuf"), key=0, value=Out(8)), call("MAP_LOOKUP_ELEM", map_fd=Fd("ringbuf"), key=KEY, value=Out(8)),
        call("MAP_UPDATE_ELEM", map_fd=Fd("ringbuf"), key=0, value=VALUE), call("MAP_DELETE_ELEM", map_fd=Fd("ringbuf"), key=0),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("ringbuf"), key=0, next_key=Out(8)),
    ],
    "maps opened for one direction": [
        update("rdonly"), lookup("rdonly"), update("wronly"), lookup("wronly"), call("MAP_DELETE_ELEM", map_fd=Fd("rdonly"), key=KEY),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("wronly"), key=0, next_key=Out(4)), call("MAP_FREEZE", map_fd=Fd("rdonly")),
    ],
    "map_freeze": [
        call("MAP_FREEZE", map_fd=Fd("array")), update("array"), lookup("array"), call("MAP_FREEZE", map_fd=Fd("array")),
        call("MAP_FREEZE", map_fd=NOT_OPEN), call("MAP_FREEZE", map_fd=Fd("prog")), call("MAP_FREEZE", map_fd=Fd("hash"), key=1),
    ],
    "batches on an array": [
        call("MAP_UPDATE_BATCH", map_fd=Fd("array"), keys=struct.pack("<4I", 0, 1, 2, 3), values=struct.pack("<4Q", 5, 6, 7, 8), count=4),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=3),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), in_batch=struct.pack("<I", 2), out_batch=Out(4), keys=Out(16), values=Out(32), count=3),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=4),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=0),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=8, values=Out(32), count=2),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=8, keys=Out(16), values=Out(32), count=2),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=2, elem_flags=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=2, elem_flags=4),
        call("MAP_UPDATE_BATCH", map_fd=Fd("array"), keys=struct.pack("<4I", 0, 1, 9, 3), values=struct.pack("<4Q", 5, 6, 7, 8), count=4),
        call("MAP_UPDATE_BATCH", map_fd=Fd("array"), keys=8, values=bytes(32), count=4),
        call("MAP_DELETE_BATCH", map_fd=Fd("array"), keys=bytes(16), count=4),
        call("MAP_LOOKUP_AND_DELETE_BATCH", map_fd=Fd("array"), out_batch=Out(4), keys=Out(16), values=Out(32), count=4),
        call("MAP_LOOKUP_BATCH", map_fd=NOT_OPEN, count=1), call("MAP_LOOKUP_BATCH", map_fd=Fd("prog"), count=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("ringbuf"), count=1), call("MAP_LOOKUP_BATCH", map_fd=Fd("prog_array"), count=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("wronly"), count=1), call("MAP_UPDATE_BATCH", map_fd=Fd("rdonly"), count=1),
    ],
    "batches on a hash map": [
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), out_batch=Out(4, opaque=True), keys=Out(16), values=Out(32), count=4),
        call("MAP_UPDATE_BATCH", map_fd=Fd("hash"), keys=KEY, values=VALUE, count=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), keys=Out(16), values=Out(32), count=4, out_batch=0),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), in_batch=struct.pack("<I", 4), out_batch=Out(4, opaque=True), keys=Out(4), values=Out(8), count=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), out_batch=Out(4), keys=Out(4), values=Out(8), count=1, flags=1),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), out_batch=Out(4), keys=8, values=Out(8), count=4),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("hash"), in_batch=8, out_batch=Out(4), keys=Out(4), values=Out(8), count=4),
        call("MAP_UPDATE_BATCH", map_fd=Fd("hash"), keys=KEY, values=VALUE, count=1, elem_flags=1),
        call("MAP_DELETE_BATCH", map_fd=Fd("hash"), keys=KEY + bytes(4), count=2), lookup("hash"),
        call("MAP_UPDATE_BATCH", map_fd=Fd("hash"), keys=struct.pack("<8I", *range(8)), values=bytes(64), count=8),
        call("MAP_UPDATE_BATCH", map_fd=Fd("hash"), keys=KEY, values=VALUE, count=0), call("MAP_DELETE_BATCH", map_fd=Fd("hash"), count=0),
    ],
    "prog_load: attr": [
        load(prog_flags=1 << 30), load(insn_cnt=0), load(insn_cnt=1_000_001), load(insns=8), load(insns=0), load(license=8), load(license=0),
        load(prog_type=999), load(prog_type=999, license=8), load(prog_type=0), load(prog_name=b"a-b"), load(prog_name=b"abcdefghijklmnop"),
        load(prog_name=b"abc.d_E9"), load(prog_ifindex=1), load(attach_btf_id=1), load(attach_btf_obj_fd=NOT_OPEN),
        load(attach_btf_obj_fd=Fd("prog")), load(attach_btf_obj_fd=Fd("hash")), load(expected_attach_type=5), load(kern_version=77),
        load(license=b"Proprietary\0"), load(license=b"x" * 300 + b"\0"), load(license=b"\0"), load(prog_flags=2), load(prog_flags=1),
    ],
    "prog_load: log": [
        load(log_level=1, log_size=16), load(log_level=0, log_buf=Out(16), log_size=16), load(log_level=16), load(log_level=16, prog_type=999),
        load(log_level=1), load(log_level=1, log_buf=Out(4096), log_size=0), load(log_level=1, log_buf=Out(16), log_size=1 << 30),
        load(log_level=1, log_buf=8, log_size=4096),
    ],
    "prog_load: log text": [
        *[load(log_level=1, log_buf=Out(256), log_size=size) for size in (256, 99, 98, 97, 32, 2, 1)],
        *[load(log_level=9, log_buf=Out(256), log_size=size) for size in (256, 98, 97, 32, 2, 1)],
        load(NO_EXIT, log_level=1, log_buf=Out(512), log_size=512),
    ],
    "prog_load: BTF": [
        load(prog_btf_fd=NOT_OPEN), load(prog_btf_fd=NOT_OPEN, func_info_cnt=1, func_info_rec_size=8, func_info=bytes(8)),
        load(prog_btf_fd=Fd("hash"), line_info_cnt=1, line_info_rec_size=16, line_info=bytes(16)), load(core_relo_cnt=1),
    ],
    "stack traces": [
        create(7, value_size=80, save="stacks"), create(7, value_size=80, max_entries=5), create(7, max_entries=0), create(7, key_size=8), create(7, value_size=0),
        create(7, value_size=4), create(7, value_size=12), create(7, value_size=127 * 8), create(7, value_size=128 * 8), create(7, map_flags=1),
        create(7, map_flags=64), create(7, map_flags=128), create(7, map_flags=8), create(7, max_entries=0x80000001), lookup("stacks", size=80),
        lookup("stacks", struct.pack("<I", 4), size=80), update("stacks", value=bytes(80)), update("stacks", value=bytes(80), flags=3),
        call("MAP_DELETE_ELEM", map_fd=Fd("stacks"), key=KEY), call("MAP_DELETE_ELEM", map_fd=Fd("stacks"), key=struct.pack("<I", 4)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("stacks"), next_key=Out(4)), call("MAP_GET_NEXT_KEY", map_fd=Fd("stacks"), key=KEY, next_key=Out(4)),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("stacks"), key=KEY, value=Out(80)),
        call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd("stacks"), key=KEY, value=Out(80), flags=4),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("stacks"), out_batch=Out(4), keys=Out(16), values=Out(320), count=4),
        call("MAP_FREEZE", map_fd=Fd("stacks")),
    ],
    "prog_load: maps": [
        load(insn(0x18, 1, 1, imm=NOT_OPEN) + insn(0) + MOV7), load(insn(0x18, 1, 1, imm=0) + insn(0) + MOV7),
    ],
    "tp_btf: load": [
        tp_btf(0), tp_btf(1), tp_btf(0xFFFFF), tp_btf(0x100000), tp_btf("task_struct"), tp_btf(insn_cnt=0), tp_btf(attach_btf_obj_fd=NOT_OPEN),
        tp_btf(attach_btf_obj_fd=Fd("hash")), tp_btf(0, attach_btf_obj_fd=Fd("prog")), tp_btf(prog_type=17), tp_btf("btf_trace_bpf_trigger_tp", ARG9),
        tp_btf(prog_flags=16), tp_btf(expected_attach_type=0), tp_btf(expected_attach_type=99), load(prog_flags=16), load(prog_flags=16, prog_type=24),
    ],
    "tp_btf: attach and run": [
        tp_btf(save="tp_btf"), open_tp(prog=Fd("tp_btf")), open_tp(0, prog=Fd("tp_btf"), save="l1"), open_tp(8, prog=Fd("tp_btf")), run(Fd("tp_btf")),
        run(Fd("tp_btf"), flags=1), run(Fd("tp_btf"), cpu=1), run(Fd("tp_btf"), ctx_in=bytes(8), ctx_size_in=8),
        call("LINK_CREATE", prog_fd=Fd("tp_btf"), attach_type=23, cookie=5, save="l2"), call("LINK_CREATE", prog_fd=Fd("tp_btf"), attach_type=24),
        call("LINK_CREATE", prog_fd=Fd("tp_btf"), attach_type=23, flags=1, save="l3"), call("LINK_CREATE", prog_fd=Fd("tp_btf"), target_fd=3, attach_type=23, save="l4"),
        call("PROG_ATTACH", attach_bpf_fd=Fd("tp_btf"), attach_type=23), call("PROG_DETACH", attach_bpf_fd=Fd("tp_btf"), attach_type=23),
        call("LINK_UPDATE", link_fd=Fd("l2"), new_prog_fd=Fd("tp_btf")), call("LINK_DETACH", link_fd=Fd("l2")),
    ],
    "writable raw_tp": [
        load(prog_type=24, save="w"), open_tp(prog=Fd("w"), save="l1"), run(Fd("w")), load(ARG0, prog_type=24, save="w0"), open_tp(prog=Fd("w0"), save="l2"),
    ],
    "raw_tracepoint_open: descriptors": [
        open_tp(prog=NOT_OPEN), open_tp(prog=0xFFFFFFFF), open_tp(prog=0), open_tp(prog=Fd("hash")), open_tp(prog=Fd("link")),
        open_tp(name=8, prog=NOT_OPEN), open_tp(name=0, prog=Fd("hash")),
    ],
    "raw_tracepoint_open: names": [
        open_tp(0), open_tp(8), open_tp(b"\0"), open_tp(b"no_such_tracepoint\0"), open_tp(b"bpf:bpf_trigger_tp\0"), open_tp(b"x" * 127 + b"\0"),
        open_tp(b"x" * 128 + b"\0"), open_tp(b"bpf_trigger_tp" + b"x" * 4000 + b"\0"), open_tp(b"x" * 4096 * 2), open_tp(b"BPF_TRIGGER_TP\0"),
    ],
    "raw_tracepoint_open: arguments": [
        open_tp(save="l1"), open_tp(save="l2", cookie=1 << 63), open_tp(prog=Fd("arg0"), save="l3"), open_tp(prog=Fd("arg9")),
        open_tp(b"task_rename\0", prog=Fd("arg9")), open_tp(b"no_such\0", prog=Fd("arg9")),
    ],
    "prog_test_run": [
        run(), run(Fd("arg0")), run(Fd("arg0"), ctx_in=struct.pack("<Q", 0xABCDEF0123456789), ctx_size_in=8),
        run(Fd("arg9"), ctx_in=bytes(72), ctx_size_in=72), run(Fd("arg9"), ctx_in=bytes(range(96)), ctx_size_in=96),
        run(ctx_in=bytes(104), ctx_size_in=104), run(ctx_in=8, ctx_size_in=8), run(ctx_in=bytes(8)), run(ctx_size_in=8),
        run(data_in=bytes(8), data_size_in=8), run(data_out=Out(8), data_size_out=8), run(data_size_in=8),
        run(ctx_out=Out(8), ctx_size_out=8), run(ctx_out=Out(8)), run(repeat=1), run(duration=1), run(batch_size=1),
        run(cpu=1), run(cpu=100000, flags=1), run(cpu=0, flags=1), run(cpu=100000), run(flags=8), run(NOT_OPEN),
        run(Fd("hash")), run(Fd("link")), run(retval=77),
    ],
    "links": [
        call("LINK_UPDATE", link_fd=Fd("link"), new_prog_fd=Fd("arg0")), call("LINK_UPDATE", link_fd=Fd("link"), new_prog_fd=NOT_OPEN),
        call("LINK_UPDATE", link_fd=Fd("prog"), new_prog_fd=Fd("arg0")), call("LINK_UPDATE", link_fd=Fd("link"), new_prog_fd=Fd("arg0"), flags=2),
        call("LINK_UPDATE", link_fd=Fd("link"), new_prog_fd=Fd("arg0"), flags=4, old_prog_fd=Fd("prog")),
        call("LINK_UPDATE", link_fd=Fd("link"), new_prog_fd=Fd("arg0"), flags=4, old_prog_fd=NOT_OPEN),
        call("LINK_DETACH", link_fd=Fd("link")), call("LINK_DETACH", link_fd=Fd("prog")), call("LINK_DETACH", link_fd=NOT_OPEN),
        call("PROG_ATTACH", target_fd=0, attach_bpf_fd=Fd("prog"), attach_type=23), call("PROG_ATTACH", attach_bpf_fd=Fd("prog"), attach_type=99),
        call("PROG_ATTACH", attach_bpf_fd=NOT_OPEN, attach_type=23), call("PROG_DETACH", attach_bpf_fd=Fd("prog"), attach_type=23),
        call("LINK_CREATE", prog_fd=Fd("prog"), attach_type=23), call("LINK_CREATE", prog_fd=Fd("prog")), call("LINK_CREATE", prog_fd=NOT_OPEN),
        call("LINK_CREATE", prog_fd=Fd("hash")), call("ITER_CREATE", link_fd=Fd("link")), call("ITER_CREATE", link_fd=Fd("link"), flags=1),
        call("PROG_BIND_MAP", prog_fd=Fd("prog"), map_fd=Fd("hash")), call("PROG_BIND_MAP", prog_fd=Fd("prog"), map_fd=Fd("hash")),
        call("PROG_BIND_MAP", prog_fd=Fd("prog"), map_fd=Fd("hash"), flags=1), call("PROG_BIND_MAP", prog_fd=Fd("hash"), map_fd=Fd("hash")),
        call("PROG_BIND_MAP", prog_fd=Fd("prog"), map_fd=NOT_OPEN),
    ],
    "task_fd_query": [
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=Out(64), buf_len=64, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=Out(64), buf_len=15, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=Out(64), buf_len=14, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=Out(64), buf_len=1, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=Out(64), buf_len=0, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=8, buf_len=64, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), buf=0, buf_len=64, mask=("prog_id",)),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("link"), flags=1), call("TASK_FD_QUERY", pid=os.getpid(), fd=NOT_OPEN),
        call("TASK_FD_QUERY", pid=0x7FFFFFF, fd=Fd("link")), call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("prog")),
        call("TASK_FD_QUERY", pid=os.getpid(), fd=Fd("hash")), call("TASK_FD_QUERY", pid=os.getpid(), fd=0),
    ],
    "ids": [
        call("PROG_GET_NEXT_ID", id=0, mask=("next_id",)), call("MAP_GET_NEXT_ID", id=0, mask=("next_id",)),
        call("LINK_GET_NEXT_ID", id=0, mask=("next_id",)), call("BTF_GET_NEXT_ID", id=0), call("PROG_GET_NEXT_ID", id=0x7FFFFFFE),
        call("PROG_GET_NEXT_ID", id=0x7FFFFFFF), call("PROG_GET_NEXT_ID", id=0xFFFFFFFF), call("PROG_GET_NEXT_ID", id=0, open_flags=1),
        call("PROG_GET_FD_BY_ID", id=0), call("MAP_GET_FD_BY_ID", id=0), call("LINK_GET_FD_BY_ID", id=0), call("BTF_GET_FD_BY_ID", id=0),
        call("PROG_GET_FD_BY_ID", id=0x7FFFFFF0), call("MAP_GET_FD_BY_ID", id=0x7FFFFFF0, open_flags=24),
        call("MAP_GET_FD_BY_ID", id=0x7FFFFFF0, open_flags=1), call("BTF_GET_FD_BY_ID", id=1, open_flags=1), call("BTF_GET_FD_BY_ID", id=1),
        call("LINK_GET_FD_BY_ID", id=1, open_flags=1),
    ],
    "btf_load": [
        call("BTF_LOAD", btf=0, btf_size=0), call("BTF_LOAD", btf=8, btf_size=64), call("BTF_LOAD", btf=bytes(64), btf_size=64),
        call("BTF_LOAD", btf=b"\x9f\xeb\x01", btf_size=3), call("BTF_LOAD", btf=bytes(24), btf_size=(16 << 20) + 1),
        call("BTF_LOAD", btf=bytes(24), btf_size=24, btf_flags=1), call("BTF_LOAD", btf=bytes(24), btf_size=24, btf_log_size=1),
        call("BTF_LOAD", btf=struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 1) + b"\0", btf_size=25),
        call("BTF_LOAD", btf=struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 16, 5) + struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32) + b"\0int\0",
             btf_size=45),
    ],
    "a map's contents as a hash": [
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("array"), info=map_info(hash_size=32), info_len=104),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("array"), info=map_info(hash=8, hash_size=31), info_len=104),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("array"), info=map_info(hash=8, hash_size=32), info_len=104),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("hash"), info=map_info(hash=8, hash_size=32), info_len=104),
        call("MAP_FREEZE", map_fd=Fd("array")),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("array"), info=map_info(hash=8, hash_size=32), info_len=104),
    ],
    "record sizes of a program's info": [
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("prog"), info=bytes(bpf_prog_info(**{name: size})), info_len=232)
        for name in ("func_info_rec_size", "line_info_rec_size", "jited_line_info_rec_size") for size in (1, 8, 16)
    ],
    "a link's name buffer": [
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd("link"), info=bytes(bpf_link_info_raw_tracepoint(tp_name=at, tp_name_len=size)), info_len=64)
        for at, size in ((8, 0), (0, 8), (8, 8), (8, 64))
    ],
    "statistics": [call("ENABLE_STATS", type=0), call("ENABLE_STATS", type=1), call("ENABLE_STATS", type=99)],
    "streams and tokens": [
        create(1, map_flags=1 << 16), create(1, map_flags=1 << 16, map_token_fd=NOT_OPEN), create(1, 0, map_flags=1 << 16),
        create(1, map_token_fd=5), load(prog_flags=1 << 16), load(prog_flags=1 << 16, prog_token_fd=NOT_OPEN), load(prog_flags=1 << 16, prog_token_fd=-1),
        call("BTF_LOAD", btf=bytes(24), btf_size=24, btf_flags=1 << 16), call("BTF_LOAD", btf=bytes(24), btf_size=24, btf_flags=1 << 16, btf_token_fd=NOT_OPEN),
        call("PROG_STREAM_READ_BY_FD", prog_fd=Fd("prog"), stream_id=1, stream_buf=Out(8), stream_buf_len=8),
        call("PROG_STREAM_READ_BY_FD", prog_fd=Fd("prog"), stream_id=3, stream_buf=Out(8), stream_buf_len=8),
        call("PROG_STREAM_READ_BY_FD", prog_fd=NOT_OPEN, stream_id=1), call("TOKEN_CREATE", flags=1), call("TOKEN_CREATE", bpffs_fd=NOT_OPEN),
    ],
    "pins": [
        call("OBJ_PIN", pathname=8, bpf_fd=Fd("prog")), call("OBJ_PIN", pathname=b"/x\0", bpf_fd=NOT_OPEN),
        call("OBJ_PIN", pathname=b"/x\0", bpf_fd=Fd("prog"), file_flags=8), call("OBJ_PIN", pathname=b"/x\0", bpf_fd=Fd("prog"), path_fd=3),
        call("OBJ_GET", pathname=8), call("OBJ_GET", pathname=b"/nosuch\0"), call("OBJ_GET", pathname=b"/x\0", bpf_fd=3),
        call("OBJ_GET", pathname=b"/x\0", file_flags=24), call("OBJ_GET", pathname=b"/x\0", file_flags=1 << 20),
    ],
}  # fmt: skip

QUEUE, STACK, BLOOM, LPM, TASK_STORAGE, CGRP_STORAGE, SK_STORAGE, INODE_STORAGE = 22, 23, 30, 11, 29, 32, 24, 28
NO_PREALLOC, ZERO_SEED = 1, 1 << 6
TYPES = (
    struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    + struct.pack("<IIII", 5, 1 << 24, 8, 64)
    + struct.pack("<III", 0, 4 << 24 | 0, 0)
)
NAMES = b"\0int\0long\0"
BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 32, 32, len(NAMES)) + TYPES[:32] + NAMES
LOAD_BTF = call("BTF_LOAD", btf=BTF, btf_size=len(BTF), save="types")


def push(name: str, value: Any = VALUE, flags: int = 0, key: Any = 0) -> Call:
    return call("MAP_UPDATE_ELEM", map_fd=Fd(name), key=key, value=value, flags=flags)


def peek(name: str, fill: bytes = b"", size: int = 8, **fields: Any) -> Call:
    return call("MAP_LOOKUP_ELEM", map_fd=Fd(name), value=Out(size, fill), **fields)


def pop(name: str, **fields: Any) -> Call:
    return call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=Fd(name), value=Out(8), **fields)


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def keyless(kind: int) -> list[Call]:
    return [
        create(kind, 0, 8, 0), create(kind, 4, 8, 4), create(kind, 0, 0, 4), create(kind, 0, 8, 4, map_flags=NO_PREALLOC), create(kind, 0, 8, 4, map_flags=24 << 4),
        create(kind, 0, 5 << 20, 4), create(kind, 0, 1 << 20, 1 << 20), create(kind, 0, 8, 4, map_extra=1), create(kind, 0, 8, 4, map_flags=ZERO_SEED),
        LOAD_BTF, create(kind, 0, 8, 4, btf_fd=Fd("types"), btf_value_type_id=2), create(kind, 0, 8, 4, btf_fd=Fd("types"), btf_key_type_id=1, btf_value_type_id=2),
        create(kind, 0, 8, 3, save="q"), peek("q"), pop("q"), push("q", number(1)), push("q", number(2)), push("q", number(3)), push("q", number(4)), peek("q"),
        push("q", number(5), 1), push("q", number(6), 2), push("q", number(7), 4), push("q", number(7), 3), peek("q"), pop("q"), pop("q", flags=4), pop("q", key=KEY), pop("q"),
        push("q", key=KEY), push("q", 8), peek("q", key=KEY), peek("q", flags=4), peek("q", flags=1), pop("q"), pop("q"), pop("q"),
        call("MAP_DELETE_ELEM", map_fd=Fd("q")), call("MAP_DELETE_ELEM", map_fd=Fd("q"), key=KEY), call("MAP_GET_NEXT_KEY", map_fd=Fd("q"), next_key=Out(8)),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("q"), count=1), call("MAP_DELETE_BATCH", map_fd=Fd("q"), count=1), call("MAP_FREEZE", map_fd=Fd("q")), push("q"), peek("q"),
        create(kind, 0, 8, 2, map_flags=8, save="ro"), push("ro"), peek("ro"), create(kind, 0, 8, 2, map_flags=16, save="wo"), push("wo"), peek("wo"), pop("wo"),
    ]  # fmt: skip


def prefix(bits: int, *octets: int) -> bytes:
    return struct.pack("<I", bits) + bytes(octets)


def storage(kind: int, *owners: str) -> list[Call]:
    typed = {"btf_fd": Fd("types"), "btf_key_type_id": 1, "btf_value_type_id": 2, "map_flags": NO_PREALLOC}
    rows = [
        LOAD_BTF, create(kind, 4, 8, 0, **typed, save="s"), create(kind, 4, 8, 0, map_flags=NO_PREALLOC), create(kind, 4, 8, 1, **typed), create(kind, 8, 8, 0, **typed),
        create(kind, 4, 4, 0, **typed), create(kind, 4, 0, 0, **typed), create(kind, 4, 8, 0, **typed | {"map_flags": 0}), create(kind, 4, 8, 0, **typed | {"map_flags": 1 | 1 << 9}),
        create(kind, 4, 65407, 0, **typed), create(kind, 4, 65408, 0, **typed), create(kind, 4, 8, 0, **typed | {"map_flags": 1 | 8}),
        create(kind, 4, 8, 0, **typed | {"btf_key_type_id": 2}), create(kind, 4, 8, 0, **typed | {"btf_key_type_id": 0}),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("s"), next_key=Out(4)), call("MAP_LOOKUP_BATCH", map_fd=Fd("s"), count=1), call("MAP_FREEZE", map_fd=Fd("hash")),
    ]  # fmt: skip
    for owner in owners:
        rows += [
            Call("BPF_MAP_LOOKUP_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": Out(8)}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(1), "flags": 2}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(2), "flags": 1}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(3), "flags": 1}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(3), "flags": 4}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(3), "flags": 3}),
            Call("BPF_MAP_LOOKUP_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": Out(8)}),
            Call("BPF_MAP_UPDATE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": number(4)}),
            Call("BPF_MAP_LOOKUP_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": Out(8)}),
            Call("BPF_MAP_LOOKUP_AND_DELETE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner), "value": Out(8)}),
            Call("BPF_MAP_DELETE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner)}),
            Call("BPF_MAP_DELETE_ELEM", {"map_fd": Fd("s"), "key": FdBytes(owner)}),
        ]
    return rows


NET_16 = prefix(16, 192, 168, 0, 0)
NET_24 = prefix(24, 192, 168, 0, 0)
NET_25 = prefix(24, 192, 168, 128, 0)
NEXT = prefix(24, 192, 168, 1, 0)
HOST = prefix(32, 192, 168, 1, 7)
TRIES = (
    NET_16,
    NET_24,
    NET_25,
    NEXT,
    HOST,
    prefix(0, 0, 0, 0, 0),
    prefix(8, 10, 0, 0, 0),
    prefix(32, 10, 1, 2, 3),
    prefix(33, 1, 2, 3, 4),
    prefix(23, 192, 168, 0, 0),
)


def trie_step(name: str, key: bytes) -> Call:
    return call("MAP_GET_NEXT_KEY", map_fd=Fd(name), key=key, next_key=Out(8))


CASES |= {
    "queue": keyless(QUEUE), "stack": keyless(STACK),
    "bloom filter": [
        *keyless(BLOOM)[:12], create(BLOOM, 0, 8, 4, map_extra=15), create(BLOOM, 0, 8, 4, map_extra=16), create(BLOOM, 0, 8, 0xFFFFFFF, map_extra=3),
        *(row for size in (1, 3, 4, 8, 11, 12, 13, 24, 25) for row in (
            create(BLOOM, 0, size, 40, map_flags=ZERO_SEED, map_extra=2, save=f"b{size}"),
            *(push(f"b{size}", bytes((value * 7 + at) & 255 for at in range(size))) for value in range(20)),
            *(peek(f"b{size}", bytes((value * 5 + at) & 255 for at in range(size)), size) for value in range(60)),
        )),
        push("b8", flags=1), push("b8", flags=2), push("b8", key=KEY), pop("b8"), peek("b8", flags=1), call("MAP_LOOKUP_ELEM", map_fd=Fd("b8"), value=8),
        call("MAP_DELETE_ELEM", map_fd=Fd("b8")), call("MAP_GET_NEXT_KEY", map_fd=Fd("b8"), next_key=Out(8)), call("MAP_LOOKUP_BATCH", map_fd=Fd("b8"), count=1),
    ],
    "trie": [
        create(LPM, 8, 8, 4), create(LPM, 8, 8, 0, map_flags=1), create(LPM, 4, 8, 4, map_flags=1), create(LPM, 5, 8, 4, map_flags=1), create(LPM, 260, 8, 4, map_flags=1),
        create(LPM, 261, 8, 4, map_flags=1), create(LPM, 8, 0, 4, map_flags=1), create(LPM, 8, 8, 4, map_flags=1 | 64), create(LPM, 8, 8, 4, map_flags=1 | 128 | 256),
        LOAD_BTF, create(LPM, 8, 8, 4, map_flags=1, btf_fd=Fd("types"), btf_key_type_id=2, btf_value_type_id=2),
        create(LPM, 8, 8, 6, map_flags=1, save="t"), call("MAP_GET_NEXT_KEY", map_fd=Fd("t"), next_key=Out(8)),
        *(lookup("t", key) for key in TRIES), *(update("t", key, number(at)) for at, key in enumerate(TRIES)), *(lookup("t", key) for key in TRIES),
        *(update("t", key, number(at + 50), 1) for at, key in enumerate(TRIES)), *(update("t", key, number(at + 90), 2) for at, key in enumerate(TRIES)),
        update("t", NET_16, number(7), 3), update("t", NET_16, number(7), 4), lookup("t", prefix(32, 192, 168, 0, 9)), lookup("t", prefix(31, 192, 168, 1, 6)),
        lookup("t", prefix(15, 192, 168, 0, 0)), lookup("t", prefix(32, 11, 0, 0, 0)), call("MAP_GET_NEXT_KEY", map_fd=Fd("t"), next_key=Out(8)), *(trie_step("t", key) for key in TRIES),
        pop("t", key=NET_16), call("MAP_DELETE_ELEM", map_fd=Fd("t"), key=NET_24), update("t", prefix(23, 192, 168, 0, 0), number(23)), *(trie_step("t", key) for key in TRIES),
        *(row for key in TRIES for row in (call("MAP_DELETE_ELEM", map_fd=Fd("t"), key=key), call("MAP_DELETE_ELEM", map_fd=Fd("t"), key=key), lookup("t", HOST), trie_step("t", NEXT))),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("t"), next_key=Out(8)),
        call("MAP_UPDATE_BATCH", map_fd=Fd("t"), keys=NET_16 + NET_24 + HOST, values=number(1) + number(2) + number(3), count=3),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("t"), out_batch=Out(8), keys=Out(24), values=Out(24), count=2),
        call("MAP_LOOKUP_BATCH", map_fd=Fd("t"), in_batch=NET_24, out_batch=Out(8), keys=Out(24), values=Out(24), count=3),
        call("MAP_LOOKUP_AND_DELETE_BATCH", map_fd=Fd("t"), out_batch=Out(8), keys=Out(24), values=Out(24), count=3),
        call("MAP_DELETE_BATCH", map_fd=Fd("t"), keys=NET_16 + HOST + HOST, count=3), call("MAP_FREEZE", map_fd=Fd("t")), update("t", HOST),
    ],
    "task storage": storage(TASK_STORAGE, "pidfd", "hash", "nothing"), "cgroup storage": storage(CGRP_STORAGE, "hash", "nothing", "pidfd"),
    "socket storage": storage(SK_STORAGE, "hash", "nothing", "pidfd"), "inode storage": storage(INODE_STORAGE, "nothing"),
    "cgroup array": [
        create(8, 4, 4, 2, save="c"), create(8, 4, 8, 2), create(8, 4, 4, 0), create(8, 8, 4, 2), create(8, 4, 4, 2, map_flags=1), LOAD_BTF,
        create(8, 4, 4, 2, btf_fd=Fd("types"), btf_key_type_id=1, btf_value_type_id=1), lookup("c", size=4), update("c", KEY, b"\xff\xff\xff\x7f"), update("c", KEY, number(0)[:4], 1),
        update("c", struct.pack("<I", 2), bytes(4)), call("MAP_DELETE_ELEM", map_fd=Fd("c"), key=KEY), call("MAP_DELETE_ELEM", map_fd=Fd("c"), key=struct.pack("<I", 2)),
        call("MAP_GET_NEXT_KEY", map_fd=Fd("c"), next_key=Out(4)), call("MAP_GET_NEXT_KEY", map_fd=Fd("c"), key=KEY, next_key=Out(4)), call("MAP_LOOKUP_BATCH", map_fd=Fd("c"), count=1),
    ],
    "maps of the network: create": [
        create(kind, key, value, entries, map_flags=flags)
        for kind in (14, 25, 16, 17, 15, 18, 20) for key, value, entries, flags in (
            (4, 4, 2, 0), (4, 8, 2, 0), (4, 12, 2, 0), (4, 2, 2, 0), (8, 4, 2, 0), (4, 4, 0, 0), (4, 4, 2, 1), (4, 4, 2, 8), (4, 4, 2, 64), (513, 4, 2, 0), (0, 4, 2, 0), (4, 4, 2, 128),
        )
    ],
    "maps of the network: types": [
        LOAD_BTF, *(create(kind, 4, 4, 2, btf_fd=Fd("types"), btf_key_type_id=key, btf_value_type_id=1) for kind in (14, 25, 16, 17, 15, 18, 20, 12, 13, 3, 4, 7) for key in (0, 1)),
    ],
    "maps of the network: look": [
        row for kind, size in ((14, 4), (25, 4), (16, 4), (17, 4), (15, 4), (15, 8), (18, 8), (20, 4), (20, 8)) for row in (
            create(kind, 4, size, 2, save=f"n{kind}"), lookup(f"n{kind}", size=8), call("MAP_GET_NEXT_KEY", map_fd=Fd(f"n{kind}"), next_key=Out(4)),
            call("MAP_GET_NEXT_KEY", map_fd=Fd(f"n{kind}"), key=KEY, next_key=Out(4)), call("MAP_DELETE_ELEM", map_fd=Fd(f"n{kind}"), key=KEY),
            call("MAP_DELETE_ELEM", map_fd=Fd(f"n{kind}"), key=number(7)[:4]), lookup(f"n{kind}", number(7)[:4], size=8),
            call("MAP_LOOKUP_BATCH", map_fd=Fd(f"n{kind}"), count=1), pop(f"n{kind}", key=KEY),
        )
    ],
}  # fmt: skip

INFO = {"hash": 104, "prog": 232, "link": 64}
for _name, _size in INFO.items():
    CASES[f"obj_get_info_by_fd: {_name}"] = [
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(_name), info=8, info_len=_size), call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(_name), info=0, info_len=0),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(_name), info=Out(4), info_len=4),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(_name), info=Out(8192), info_len=4097),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(_name), info=Out(512, bytes(_size) + b"\x01"), info_len=_size + 1),
        call("OBJ_GET_INFO_BY_FD", bpf_fd=NOT_OPEN, info=Out(8), info_len=8), call("OBJ_GET_INFO_BY_FD", bpf_fd=0, info=Out(8), info_len=8),
    ]  # fmt: skip

COMMON = [
    (sentence, cmd, fields)
    for cmd in BpfCmd
    for sentence, fields in (
        ("a longer attr than a page is E2BIG", {"size": 4097}),
        ("a non-zero byte past the union is E2BIG", {"size": ATTR_SIZE + 8, "tail": {ATTR_SIZE + 3: 1}}),
        ("zero bytes past the union are fine", {"size": ATTR_SIZE + 8, "tail": {ATTR_SIZE - 1: 1}}),
        ("an attr at NULL is EFAULT", {"null": True}),
        ("a byte past the last field is EINVAL", {"tail": {ATTR_SIZE - 1: 1}}),
    )
    if not (sentence.startswith(("a byte", "zero")) and ATTRS[cmd].end == ATTR_SIZE)
]


@pytest.fixture
def sides(linux_618: None):
    kernel = Kernel(btf="host", cpus=possible_cpus())
    both = linux_side(), fastrtp_side(kernel)
    both[0].fds["pidfd"], both[1].fds["pidfd"] = os.pidfd_open(os.getpid()), kernel.current.pidfd_open(kernel.current.pid)
    for row in SETUP:
        for side in both:
            outcome = side.run(row)
            assert not outcome.errno, (row.cmd, outcome.errno)
    yield both
    for side in both:
        side.finish()
    kernel.shutdown()
    assert not kernel.progs
    assert not kernel.maps
    assert not kernel.links


@pytest.mark.parametrize("name", CASES)
def test_linux_and_fastrtp_agree(sides, name: str):
    linux, ours = sides
    wrong = []
    for number, row in enumerate(CASES[name]):
        expected, actual = linux.run(row), ours.run(row)
        if expected != actual:
            wrong.append((number, row.cmd, row.fields, describe(expected), describe(actual)))

    assert wrong == []


def test_checks_common_to_all_commands_agree(sides):
    linux, ours = sides
    wrong = []
    for sentence, cmd, fields in COMMON:
        row = Call(cmd.name, {}, **fields)
        expected, actual = linux.run(row), ours.run(row)
        if (expected.ret, expected.errno) != (actual.ret, actual.errno):
            wrong.append((cmd.name, sentence, describe(expected), describe(actual)))

    assert wrong == []


def test_at_least_200_calls_are_compared():
    assert len(COMMON) + sum(map(len, CASES.values())) >= 200


def describe(outcome: Outcome) -> str:
    return f"{outcome.ret} {outcome.errno} attr {outcome.attr[:ATTR_SIZE].rstrip(bytes(1)).hex()} outs {[out[:128] for out in outcome.outs]}"


VARIABLE = {
    "prog": {"id", "load_time", "jited_prog_len"},
    "map": {"id"},
    "link": {"id", "prog_id"},
}
"""Fields of the info structures that differ from kernel to kernel."""


@pytest.mark.parametrize(("name", "noun", "struct_"), [
    ("prog", "prog", bpf_prog_info), ("arg9", "prog", bpf_prog_info), ("hash", "map", bpf_map_info), ("array", "map", bpf_map_info),
    ("prog_array", "map", bpf_map_info), ("ringbuf", "map", bpf_map_info), ("rdonly", "map", bpf_map_info), ("link", "link", bpf_link_info_raw_tracepoint),
])  # fmt: skip
def test_every_field_of_the_info_agrees(sides, name: str, noun: str, struct_: type[ctypes.Structure]):
    size = ctypes.sizeof(struct_)
    shown = []
    for side in sides:
        info = struct_.from_buffer_copy(
            side.run(call("OBJ_GET_INFO_BY_FD", bpf_fd=Fd(name), info=Out(size), info_len=size)).outs[0]
        )
        fields = [field[0] for field in struct_._fields_ if field[0] not in VARIABLE[noun]]
        shown.append(
            {field: bytes(value) if isinstance(value := getattr(info, field), ctypes.Array) else value for field in fields}
        )

    assert shown[0] == shown[1]


@pytest.mark.parametrize("name", ["prog", "hash", "array", "ringbuf", "link"])
def test_fdinfo_agrees(sides, name: str):
    """All lines in their order; ids, and what a map's or program's memory comes to, differ."""
    linux, ours = sides
    with open(f"/proc/self/fdinfo/{linux.fds[name]}") as file:
        expected = file.read()
    actual = ours.kernel.current.fdinfo(ours.fds[name])
    variable = ("mnt_id", "ino", "memlock", "map_id", "prog_id", "link_id")
    rows = [[line for line in text.splitlines() if not line.startswith(variable)] for text in (expected, actual)]
    names = [[line.partition(":")[0] for line in text.splitlines()] for text in (expected, actual)]

    assert rows[0] == rows[1]
    assert names[0] == names[1]
    assert os.readlink(f"/proc/self/fd/{linux.fds[name]}") == ours.kernel.current.fd_name(ours.fds[name])
