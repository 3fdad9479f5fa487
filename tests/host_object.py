"""The programs of an object file on the running kernel: maps and BTF made, programs loaded (never attached) through bpf(2).

And what either verifier says of them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import fastrtp as rtp
from fastrtp.btf import Btf, BtfKind, host_btf, tracepoints
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.errors import VerifierError
from fastrtp.isa import Insn, encode
from fastrtp.obj import ObjectSpec, ProgramSpec
from fastrtp.uapi import ATTR_SIZE, ATTRS, BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, BpfCmd, BpfMapType

SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_NO_BTF = frozenset(
    {
        BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
        BpfMapType.BPF_MAP_TYPE_RINGBUF,
        BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS,
    }
)
_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: BpfCmd, **fields: Any) -> int:
    """One call: the result, or -errno. Bytes and buffers are given by their address."""
    attr = (ctypes.c_char * ATTR_SIZE)()
    record = ATTRS[cmd].struct.from_buffer(attr)
    keep = []
    for name, value in fields.items():
        if isinstance(value, bytes) and not name.endswith("_name"):
            value = ctypes.create_string_buffer(value, max(len(value), 1))
        if isinstance(value, ctypes.Array):
            keep.append(value)
            value = ctypes.addressof(value)
        setattr(record, name, value)
    result = int(_libc.syscall(SYS_BPF, int(cmd), attr, ATTR_SIZE)) if SYS_BPF else -1
    return result if result >= 0 else -ctypes.get_errno()


def test_run(fd: int, ctx: bytes) -> int:
    """R0 (32 bits) of one run of a raw_tp program. OSError."""
    cmd = BpfCmd.BPF_PROG_TEST_RUN
    attr = (ctypes.c_char * ATTR_SIZE)()
    struct = ATTRS[cmd].struct.from_buffer(attr)
    buffer = ctypes.create_string_buffer(ctx, len(ctx))
    struct.prog_fd, struct.ctx_in, struct.ctx_size_in = fd, ctypes.addressof(buffer), len(ctx)
    if _libc.syscall(SYS_BPF, int(cmd), attr, ATTR_SIZE) < 0:
        raise OSError(ctypes.get_errno(), "PROG_TEST_RUN")
    return int(struct.retval)


test_run.__test__ = False  # type: ignore[attr-defined]  # no test: a name that pytest would take for one


def usable() -> bool:
    """Whether this is Linux 6.18 on x86-64, with bpf(2) to be had."""
    if platform.machine() != "x86_64" or platform.release().split(".")[:2] != ["6", "18"]:
        return False
    fd = bpf(BpfCmd.BPF_MAP_CREATE, map_type=2, key_size=4, value_size=4, max_entries=1)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def without_externs(data: bytes) -> bytes:
    """The BTF with the kernel's functions and variables that it names as global ones, their section as a struct: libbpf's way.

    libbpf: bpf_object__collect_externs, bpf_object__sanitize_btf
    """
    btf, raw = Btf.parse(data), bytearray(data)
    section = btf.find(".ksyms", BtfKind.DATASEC)
    number = next((record for record in btf if record.kind == BtfKind.INT and record.size == 4), None)
    if section is None or number is None:
        return data
    (name,) = struct.unpack_from("<I", data, btf.record_offset(number.id))
    at = btf.record_offset(section)
    infos = btf.type(section).secinfos
    struct.pack_into("<III", raw, at, 0, BtfKind.STRUCT << 24 | len(infos), 4 * len(infos))
    for place, info in enumerate(infos):
        struct.pack_into("<III", raw, at + 12 + 12 * place, 0, number.id, 32 * place)
        function = btf.type(info.type_id)
        if function.kind == BtfKind.VAR:
            struct.pack_into("<II", raw, btf.record_offset(function.id) + 8, number.id, 1)
            continue
        struct.pack_into("<I", raw, btf.record_offset(function.id) + 4, BtfKind.FUNC << 24 | 1)
        for param in range(len(btf.type(function.type).params)):
            struct.pack_into("<I", raw, btf.record_offset(function.type) + 12 + 8 * param, name)
    return bytes(raw)


class HostObject:
    """One object's maps and BTF in the running kernel. A context manager."""

    def __init__(self, data: bytes, name: str = "") -> None:
        self.spec = ObjectSpec.parse(data, name)
        self.fds: dict[str, int] = {}
        self.btf_fd = -1
        if self.spec.btf_bytes:
            types = without_externs(self.spec.btf_bytes)
            self.btf_fd = bpf(BpfCmd.BPF_BTF_LOAD, btf=types, btf_size=len(types))
            if self.btf_fd < 0:
                raise OSError(-self.btf_fd, f"BTF of {name}: {os.strerror(-self.btf_fd)}")
        for spec in self.spec.maps.values():
            self.fds[spec.name] = self._map(spec)

    def __enter__(self) -> HostObject:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self.fds.values(), self.btf_fd):
            if fd >= 0:
                os.close(fd)

    def _map(self, spec: Any) -> int:
        with_btf = self.btf_fd >= 0 and spec.map_type not in _NO_BTF and bool(spec.btf_value_type_id)
        inner = self._map(spec.inner) if spec.inner is not None else 0
        fd = bpf(
            BpfCmd.BPF_MAP_CREATE, map_name=spec.name[:15].encode(),
            map_type=spec.map_type, key_size=spec.key_size, value_size=spec.value_size,
            max_entries=spec.max_entries or (1 if spec.map_type == BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY else 0),
            map_flags=spec.map_flags, inner_map_fd=inner, btf_fd=self.btf_fd if with_btf else 0,
            btf_key_type_id=spec.btf_key_type_id if with_btf else 0, btf_value_type_id=spec.btf_value_type_id if with_btf else 0,
        )  # fmt: skip
        if inner:
            os.close(inner)
        if fd < 0:
            raise OSError(-fd, f"map {spec.name}: {os.strerror(-fd)}")
        if spec.initial is not None:
            bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=bytes(spec.key_size), value=spec.initial)
        if spec.frozen:
            bpf(BpfCmd.BPF_MAP_FREEZE, map_fd=fd)
        return fd

    def load(self, program: ProgramSpec, log_level: int = 1, insns: Sequence[Insn] | None = None) -> tuple[int, str]:
        """(descriptor or -errno, log). `insns`: other instructions than the program's own, with map numbers in place."""
        kernel = host_btf()
        code = self.insns(program) if insns is None else insns
        log = ctypes.create_string_buffer(1 << 24)
        fields: dict[str, Any] = {}
        if self.btf_fd >= 0 and len(program.func_info):
            fields = {
                "prog_btf_fd": self.btf_fd, "func_info": program.func_info.tobytes(), "func_info_cnt": len(program.func_info),
                "func_info_rec_size": 8, "line_info": program.line_info.tobytes(), "line_info_cnt": len(program.line_info),
                "line_info_rec_size": 16,
            }  # fmt: skip
        if program.attach_name and int(program.prog_type) == 26:
            fields["attach_btf_id"] = tracepoints(kernel)[program.attach_name].btf_id
        fd = bpf(
            BpfCmd.BPF_PROG_LOAD, prog_type=program.prog_type, insns=encode(code), insn_cnt=len(code),
            license=self.spec.license.encode() + b"\0", expected_attach_type=program.attach_type,
            log_level=log_level, log_buf=log if log_level else 0, log_size=len(log) if log_level else 0, **fields,
        )  # fmt: skip
        return fd, log.value.decode(errors="replace")

    def insns(self, program: ProgramSpec) -> list[Insn]:
        """Instructions for this kernel: CO-RE, maps and kernel functions resolved."""
        kernel = host_btf()
        insns = list(self.spec.relocated(program.name, kernel))
        for ref in program.map_refs:
            source = BPF_PSEUDO_MAP_FD if ref.value_offset is None else BPF_PSEUDO_MAP_VALUE
            insns[ref.insn_idx] = insns[ref.insn_idx]._replace(src_reg=source, imm=self.fds[ref.map_name])
            insns[ref.insn_idx + 1] = insns[ref.insn_idx + 1]._replace(imm=ref.value_offset or 0)
        for index, name in program.kfunc_refs:
            ident = kfunc_id(kernel, name)
            if ident is not None:
                insns[index] = insns[index]._replace(src_reg=BPF_PSEUDO_KFUNC_CALL, off=0, imm=ident)
        return insns


def last_line(log: str) -> str:
    """The verdict in a verifier's log: its last line but for the statistics."""
    lines = [line for line in log.splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("processed", "verification time", "stack depth"))]
    return told[-1].strip() if told else ""


def said(kernel: rtp.Kernel, path: Path, name: str) -> str:
    """What is said of one program of an object here: nothing when it is loaded, else the last line of the log."""
    try:
        with kernel.load(path, autoload=[name]) as obj:
            assert name in obj.programs
    except VerifierError as refused:
        return last_line(refused.log) or "refused without a word"
    return ""


def said_by_linux(path: Path) -> dict[str, str]:
    """The same of every program by the running kernel; the test is skipped where that is not to be had."""
    if not usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    found = {}
    with HostObject(path.read_bytes(), path.name.removesuffix(".bpf.o")) as host:
        for name, program in host.spec.programs.items():
            fd, log = host.load(program)
            found[name] = "" if fd >= 0 else last_line(log)
    return found
