"""The running kernel through bpf(2): load, test run, map contents. Nothing is attached."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fastrtp.btf import host_btf
from fastrtp.isa import Insn, encode

from .features import with_kfuncs
from .functions import BLOB, IDS, func_info
from .generator import Program
from .shapes import ARRAYS, CTX, HASH_KEYS, HASHES, SHAPES, Memory
from .targets import TARGETS

_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT, _LOAD, _TEST_RUN, _BTF, _FREEZE = 0, 1, 2, 3, 4, 5, 10, 18, 22
_RING, _PROGS, _PERCPU = 3, 4, 7
_PSEUDO_MAP = (1, 2)
_TRACING, _TRACE_RAW_TP = 26, 23


@dataclass
class Verdict:
    """errno (0: accepted), last line of the log, and the instruction that it is about (-1: none)."""

    errno: int
    message: str = ""
    place: int = -1


class HostKernel:
    """The maps of SHAPES in the running kernel, which has `cpus` possible CPUs. `usable`: bpf(2) may be used."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fds: dict[int, int] = {}
        self.cpus = os.sysconf("SC_NPROCESSORS_CONF")
        with contextlib.suppress(OSError), open("/sys/devices/system/cpu/possible") as file:
            self.cpus = int(re.split("[-,]", file.read().strip())[-1]) + 1
        self._btf = -1
        self.usable = bool(_SYS_BPF) and self._begin()

    def _bpf(self, cmd: int, attr: bytes | ctypes.Array[ctypes.c_char]) -> int:
        buffer = ctypes.create_string_buffer(attr, len(attr)) if isinstance(attr, bytes) else attr
        result = self._libc.syscall(_SYS_BPF, cmd, buffer, len(buffer))
        return int(result) if result >= 0 else -ctypes.get_errno()

    def _begin(self) -> bool:
        blob = ctypes.create_string_buffer(BLOB, len(BLOB))
        self._btf = self._bpf(_BTF, struct.pack("<QQIII", ctypes.addressof(blob), 0, len(BLOB), 0, 0) + bytes(12))
        for number in SHAPES:
            self.fds[number] = self._create(number)
        if self._btf < 0 or any(fd < 0 for fd in self.fds.values()):
            return False
        for number, shape in SHAPES.items():
            if shape.frozen:
                self._update(number, bytes(4), shape.initial(0))
                self._bpf(_FREEZE, struct.pack("<I", self.fds[number]))
            if shape.inner:
                self._update(number, bytes(4), struct.pack("<i", self.fds[shape.inner]))
        self.types = host_btf()
        for slot, insns in TARGETS.items():
            target, verdict = self.load(Program(insns))
            if target < 0:
                raise OSError(verdict.errno, f"the program for slot {slot}: {verdict.message}")
            self._update(_PROGS, struct.pack("<I", slot), struct.pack("<i", target))
            os.close(target)
        return True

    def _create(self, number: int) -> int:
        s = SHAPES[number]
        inner = self.fds[s.inner] if s.inner else 0
        types = (self._btf, IDS["u32"], s.btf_value_type_id) if s.btf_value_type_id else (0, 0, 0)
        attr = struct.pack("<7I", s.map_type, s.key_size, s.value_size, s.max_entries, s.map_flags, inner, 0)
        return self._bpf(_CREATE, attr + struct.pack("<16sI3I", b"", 0, *types) + bytes(16))

    def _element(self, cmd: int, number: int, key: bytes, value: bytes = b"", room: int = 0) -> tuple[int, bytes]:
        a, b = ctypes.create_string_buffer(key, max(len(key), 1)), ctypes.create_string_buffer(value, max(len(value), room, 1))
        address = ctypes.addressof(b) if value or room else 0
        return self._bpf(cmd, struct.pack("<IIQQQ", self.fds[number], 0, ctypes.addressof(a), address, 0)), b.raw

    def _update(self, number: int, key: bytes, value: bytes) -> None:
        self._element(_UPDATE, number, key, value)

    def load(self, program: Program) -> tuple[int, Verdict]:
        """(fd or -errno, verdict). Map numbers in the instructions are SHAPES' own.

        The message is asked for in a second load: a log too long for its buffer would hide the errno, and the log of a
        program that is too large (E2BIG, without a message here) takes seconds.
        """
        fd = self._load(program, None)
        if fd >= 0 or -fd == errno.E2BIG:
            return fd, Verdict(max(-fd, 0))
        log = ctypes.create_string_buffer(1 << 22)
        self._load(program, log, 1)
        lines = [line for line in log.value.decode(errors="replace").splitlines() if line.strip()]
        places = [int(match[1]) for line in lines if (match := re.match(r"(\d+): \(", line))]
        told = [line for line in lines if not line.startswith(("processed", "verification time", "stack depth"))]
        return fd, Verdict(-fd, told[-1].strip() if told else "", places[-1] if places else -1)

    def log(self, program: Program, level: int, size: int = 1 << 22) -> tuple[int, str]:
        """(errno, log) of a load at a log level; 4: the statistics alone. ENOSPC where there is more than `size` bytes."""
        log = ctypes.create_string_buffer(size)
        fd = self._load(program, log, level)
        if fd >= 0:
            os.close(fd)
        return max(-fd, 0), log.value.decode(errors="replace")

    def _load(self, program: Program, log: ctypes.Array[ctypes.c_char] | None, level: int = 0) -> int:
        insns = program.insns
        code = ctypes.create_string_buffer(encode(self._with_fds(insns)))
        text = ctypes.create_string_buffer(b"GPL")
        rows = func_info(insns, program.globals)
        info = ctypes.create_string_buffer(b"".join(struct.pack("<II", *row) for row in rows))
        target = self.types.find(f"btf_trace_{program.tracepoint}") if program.tracepoint else 0
        kind, attach_type = (_TRACING, _TRACE_RAW_TP) if program.tracepoint else (17, 0)
        where = (level, len(log), ctypes.addressof(log)) if log is not None else (0, 0, 0)
        attr = struct.pack(
            "<IIQQIIQII16sIIIIQII",
            *(kind, len(insns), ctypes.addressof(code), ctypes.addressof(text), *where, 0),
            *(program.flags, b"", 0, attach_type, self._btf, 8, ctypes.addressof(info), len(rows), 0),
        )
        return self._bpf(_LOAD, attr + struct.pack("<QII", 0, 0, target or 0) + bytes(32))

    def _with_fds(self, insns: Sequence[Insn]) -> list[Insn]:
        def there(insn: Insn) -> Insn:
            if insn.code == 0x18 and insn.src_reg in _PSEUDO_MAP:
                return insn._replace(imm=self.fds.get(insn.imm, 9999))
            return insn

        return [there(insn) for insn in with_kfuncs(insns, self.types)]

    def run(self, program: Program) -> tuple[Verdict, int, Memory]:
        """(verdict, lower half of r0, map contents) after one test run on CTX from the initial contents."""
        if any(insn.code == 0x18 and insn.src_reg == 1 and insn.imm == _RING for insn in program.insns):
            os.close(self.fds[_RING])
            self.fds[_RING] = self._create(_RING)
        fd, verdict = self.load(program)
        if fd < 0:
            return verdict, 0, {}
        self._reset()
        ctx = ctypes.create_string_buffer(CTX, len(CTX))
        attr = ctypes.create_string_buffer(
            struct.pack("<IIIIQQIIIIQQII", fd, 0, 0, 0, 0, 0, 0, 0, len(CTX), 0, ctypes.addressof(ctx), 0, 1, 0) + bytes(8), 80
        )
        status = self._bpf(_TEST_RUN, attr)
        os.close(fd)
        if status < 0:
            raise OSError(-status, f"PROG_TEST_RUN: {os.strerror(-status)}")
        return verdict, struct.unpack_from("<I", attr.raw, 4)[0], self._contents()

    def _reset(self) -> None:
        for fd in HASHES:
            for key in self._hash_keys(fd):
                self._element(_DELETE, fd, key)
            for number in HASH_KEYS:
                self._update(fd, struct.pack("<Q", number), SHAPES[fd].initial(number))
        for fd in ARRAYS:
            for index in range(SHAPES[fd].max_entries):
                value = SHAPES[fd].initial(index)
                self._update(fd, struct.pack("<I", index), value * (self.cpus if fd == _PERCPU else 1))

    def _hash_keys(self, fd: int) -> list[bytes]:
        keys: list[bytes] = []
        status, key = self._element_next(fd, None)
        while status == 0:
            keys.append(key)
            status, key = self._element_next(fd, key)
        return keys

    def _element_next(self, fd: int, key: bytes | None) -> tuple[int, bytes]:
        out = ctypes.create_string_buffer(8)
        a = ctypes.create_string_buffer(key, 8) if key is not None else None
        attr = struct.pack("<IIQQQ", self.fds[fd], 0, ctypes.addressof(a) if a is not None else 0, ctypes.addressof(out), 0)
        return self._bpf(_NEXT, attr), out.raw

    def _contents(self) -> Memory:
        found = {}
        for fd in HASHES:
            for key in self._hash_keys(fd):
                found[f"{fd}[{key.hex()}]"] = self._element(_LOOKUP, fd, key, room=SHAPES[fd].value_size)[1]
        for fd in ARRAYS:
            size = SHAPES[fd].value_size
            for index in range(SHAPES[fd].max_entries):
                key = struct.pack("<I", index)
                room = size * (self.cpus if fd == _PERCPU else 1)
                found[f"{fd}[{key.hex()}]"] = self._element(_LOOKUP, fd, key, room=room)[1][:size]
        return found

    @staticmethod
    def close_prog(fd: int) -> None:
        """Unload a program."""
        os.close(fd)

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (*self.fds.values(), self._btf):
            if fd >= 0:
                os.close(fd)
