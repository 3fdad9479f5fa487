"""Generated programs, nearly valid: our verdict beside the running kernel's, where bpf(2) may be used.

`python tests/test_verifier_fuzz.py SEED COUNT` prints every program that the kernel refuses and we accept (the
dangerous kind) and counts the others. Programs are only loaded, never attached. Under pytest a small count is run.
"""

from __future__ import annotations

import collections
import ctypes
import os
import platform
import random
import struct
import sys

import pytest

from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import Insn, dump, encode
from fastrtp.uapi import BpfProgType
from fastrtp.verifier import LoadAttr, bpf_check

_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_MAP_CREATE, _PROG_LOAD, _BTF_LOAD = 0, 5, 18
# void f(void), static: what every function of a program is said to be
_BTF = (
    struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 24, 24, 3)
    + struct.pack("<III", 0, 13 << 24, 0)
    + struct.pack("<III", 1, 12 << 24, 1)
    + b"\0f\0"
)
ALU64, ALU32, JMP, JMP32 = 0x07, 0x04, 0x05, 0x06
ALU_OPS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xC0)
JMP_OPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
SIZES = ((0x00, 4), (0x08, 2), (0x10, 1), (0x18, 8))


class FuzzMap:
    """A map that both sides know."""

    def __init__(self, map_type: int, key_size: int, value_size: int, max_entries: int) -> None:
        self.map_type, self.key_size, self.value_size, self.max_entries = map_type, key_size, value_size, max_entries
        self.map_flags, self.frozen, self.name, self.btf, self.btf_value_type_id = 0, False, "", None, 0

    def read_value(self, offset: int, size: int) -> bytes:
        return bytes(size)


def _bpf(cmd: int, attr: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = libc.syscall(_SYS_BPF, cmd, buffer, len(attr))
    return result if result >= 0 else -ctypes.get_errno()


class HostKernel:
    """The running kernel's verifier."""

    def __init__(self, maps: list[FuzzMap]) -> None:
        self.fds = [
            _bpf(_MAP_CREATE, struct.pack("<5I", m.map_type, m.key_size, m.value_size, m.max_entries, 0) + bytes(60))
            for m in maps
        ]

        blob = ctypes.create_string_buffer(_BTF, len(_BTF))
        self.btf = _bpf(_BTF_LOAD, struct.pack("<QQIII", ctypes.addressof(blob), 0, len(_BTF), 0, 0) + bytes(12))

    @property
    def usable(self) -> bool:
        """Whether bpf(2) may be used."""
        return bool(_SYS_BPF) and self.btf >= 0 and all(fd >= 0 for fd in self.fds)

    def load(self, insns: list[Insn]) -> tuple[int, str]:
        """(errno, last line of the log)."""
        code = ctypes.create_string_buffer(encode(insns))
        text = ctypes.create_string_buffer(b"GPL")
        log = ctypes.create_string_buffer(1 << 22)
        starts = {0} | {i + insn.imm + 1 for i, insn in enumerate(insns) if (insn.code, insn.src_reg) in ((0x85, 1), (0x18, 4))}
        info = ctypes.create_string_buffer(b"".join(struct.pack("<II", start, 2) for start in sorted(starts)))
        attr = struct.pack(
            "<IIQQIIQII16sIIIIQII",
            *(17, len(insns), ctypes.addressof(code), ctypes.addressof(text), 1, len(log), ctypes.addressof(log), 0, 0),
            *(b"", 0, 0, self.btf, 8, ctypes.addressof(info), len(starts), 0),
        ) + bytes(48)
        fd = _bpf(_PROG_LOAD, attr)
        if fd >= 0:
            os.close(fd)
            fd = 0
        lines = [line for line in log.value.decode(errors="replace").strip().splitlines() if not line.startswith("processed")]
        return -fd, lines[-1] if lines and fd else ""

    def close(self) -> None:
        for fd in (*self.fds, self.btf):
            if fd >= 0:
                os.close(fd)


class Generator:
    """Random programs that mostly pass: initialised registers, map values, bounded indices, spills, loops, calls."""

    def __init__(self, rng: random.Random, fds: list[int]) -> None:
        self.rng = rng
        self.fds = fds
        self.out: list[Insn] = []

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.out.append(Insn(code, dst, src, off, imm))

    def reg(self) -> int:
        """A register, rarely one of those that hold pointers."""
        return self.rng.choice((0, 1, 2, 3, 4, 5, 8, 9)) if self.rng.random() < 0.985 else self.rng.randrange(11)

    def number(self) -> int:
        return self.rng.choice(
            (
                0,
                1,
                -1,
                2,
                7,
                8,
                15,
                16,
                31,
                32,
                63,
                64,
                255,
                256,
                0x7FFFFFFF,
                -0x80000000,
                48,
                40,
                44,
                self.rng.randrange(-70, 70),
                self.rng.randrange(-(1 << 31), 1 << 31),
            )
        )

    def stack_off(self) -> int:
        return -self.rng.choice((8, 16, 24, 32, 4, 12, 40, 1, 2))

    def program(self) -> list[Insn]:
        """r6 = ctx, r7 = map value, r8 = unknown scalar, the others scalars."""
        rng = self.rng
        self.out = []
        self.emit(0xBF, 6, 1)
        self.lookup()
        self.emit(0xBF, 7, 0)
        self.emit(0x79, 8, 6, 8 * rng.randrange(12))
        for r in (0, 1, 2, 3, 4, 5, 9):
            if rng.random() < 0.7:
                self.emit(0xB7, r, imm=self.number())
            elif rng.random() < 0.7:
                self.emit(0xBF, r, 8)
            else:
                self.emit(rng.choice((0x61, 0x69, 0x71)), r, 7, rng.choice((0, 4, 8, 40)))
        start = len(self.out)
        for _ in range(rng.randrange(2, 28)):
            rng.choice(self.statements if rng.random() < 0.98 else self.rare)(self)
        end = len(self.out)
        for i in range(start, end):
            insn = self.out[i]
            if insn.code & 7 in (JMP, JMP32) and insn.off == 9999:
                back = rng.random() < 0.06
                target = rng.randrange(start, i + 1) if back else rng.randrange(i + 1, end + 1)
                self.out[i] = insn._replace(off=target - i - 1)
        self.emit(0xB7, 0)
        self.emit(0x95)
        self.functions()
        return self.out

    def functions(self) -> None:
        """Give the calls that were emitted (placeholders with imm 9999) their functions."""
        calls = [i for i, insn in enumerate(self.out) if insn.imm == 9999 and insn.src_reg in (1, 4)]
        for i in calls:
            self.out[i] = self.out[i]._replace(imm=len(self.out) - i - 1)
            is_callback = self.out[i].code == 0x18
            start = len(self.out)
            self.emit(0xB7, 0, imm=self.number())
            if is_callback:
                self.emit(0xBF, 9, 2)
                self.emit(0xBF, 8, 1)
                self.emit(0x79, 3, 9, 0)
                self.emit(self.rng.choice((0x07, 0x07, 0x57, 0x77)), 3, imm=self.rng.choice((1, 2, 8, 63)))
                self.emit(self.rng.choice((0x7B, 0x7B, 0x63)), 9, 3, 0)
                if self.rng.random() < 0.5:
                    self.emit(0x25, 3, off=1, imm=self.rng.choice((8, 40, 47)))
                    self.emit(0xBF, 0, 3)
            for _ in range(self.rng.randrange(1, 6)):
                self.rng.choice((Generator.alu, Generator.mov, Generator.stack, Generator.bound))(
                    self
                ) if not is_callback else self.rng.choice((Generator.stack_callee, Generator.bound_callee))(self)
            if is_callback:
                self.emit(0x57, 0, imm=self.rng.choice((1, 1, 0)))
            elif self.rng.random() < 0.7:
                self.emit(0x57, 0, imm=self.rng.choice((1, 7, 31)))
            self.emit(0x95)
            for k in range(start, len(self.out)):
                if self.out[k].off == 9999:
                    self.out[k] = self.out[k]._replace(off=len(self.out) - 2 - k)

    def stack_callee(self) -> None:
        self.emit(0x7B, 10, 8, -8)
        self.emit(0x79, self.rng.choice((0, 4, 5)), 10, -8)

    def bound_callee(self) -> None:
        self.bound(self.rng.choice((0, 8)))

    def subprog(self) -> None:
        for r in range(1, 6):
            if self.rng.random() < 0.9:
                self.emit(0xBF, r, self.rng.choice((8, 8, 9, 10, 7)))
        self.emit(0x85, 0, 1, imm=9999)
        for r in range(1, 6):
            self.emit(0xB7, r, imm=self.number())

    def loop_helper(self) -> None:
        """bpf_loop with a counter on the stack, which indexes the map value afterwards."""
        self.emit(0x7A, 10, off=-48, imm=self.rng.choice((0, 1)))
        self.emit(0xB7, 1, imm=self.rng.choice((0, 1, 3, 100)))
        self.emit(0x18, 2, 4, imm=9999)
        self.emit(0)
        self.emit(0xBF, 3, 10)
        self.emit(0x07, 3, imm=-48)
        self.emit(0xB7, 4)
        self.emit(0x85, imm=181)
        self.emit(0x79, 1, 10, -48)
        for r in range(2, 6):
            self.emit(0xB7, r, imm=self.number())
        self.value_access()

    def counted_loop(self) -> None:
        """A loop over an index, with an access in it."""
        r = self.rng.choice((9, 8))
        self.emit(0xB7, r, imm=self.rng.choice((0, 0, 1, -1)))
        top = len(self.out)
        for _ in range(self.rng.randrange(0, 3)):
            self.rng.choice((Generator.alu, Generator.stack, Generator.mov))(self)
        self.emit(0xBF, 1, 7)
        self.emit(0x0F, 1, r)
        self.emit(self.rng.choice((0x71, 0x73)), *((2, 1) if self.out[-1].code else (1, 2)), self.rng.choice((0, 0, 8)))
        if self.out[-1].code == 0x73:
            self.out[-1] = self.out[-1]._replace(dst_reg=1, src_reg=r)
        self.emit(0x07, r, imm=self.rng.choice((1, 1, 2, 3)))
        self.emit(
            self.rng.choice((0xA5, 0xA5, 0xC5, 0xA6, 0x55)), r, off=top - len(self.out) - 1, imm=self.rng.choice((4, 8, 30, 40))
        )

    def lookup(self) -> None:
        which = self.rng.randrange(len(self.fds))
        self.emit(0x7A, 10, off=-8, imm=self.rng.choice((0, 0, 1, 5)))
        self.emit(0xBF, 2, 10)
        self.emit(0x07, 2, imm=-8)
        self.emit(0x18, 1, 1, imm=self.fds[which])
        self.emit(0)
        self.emit(0x85, imm=1)
        self.emit(0x55, 0, off=2)
        self.emit(0xB7, 0)
        self.emit(0x95)

    def alu(self) -> None:
        code = self.rng.choice((ALU64, ALU64, ALU32)) | self.rng.choice(ALU_OPS)
        if self.rng.random() < 0.5:
            imm = self.rng.randrange(0, 34) if code & 0xF0 in (0x60, 0x70, 0xC0) else self.number()
            if code & 0xF0 in (0x30, 0x90) and not imm:
                imm = 3
            self.emit(code, self.reg(), imm=imm)
        else:
            self.emit(code | 8, self.reg(), self.reg())

    def mov(self) -> None:
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit(ALU64 | 0xB0, self.reg(), imm=self.number())
        elif kind == 1:
            self.emit(ALU32 | 0xB8, self.reg(), self.reg(), self.rng.choice((0, 8, 16)))
        else:
            self.emit(ALU64 | 0xB8, self.reg(), self.reg(), self.rng.choice((0, 0, 0, 8, 16, 32)))

    def neg_end(self) -> None:
        if self.rng.random() < 0.5:
            self.emit(self.rng.choice((0x87, 0x84)), self.reg())
        else:
            self.emit(self.rng.choice((0xD4, 0xDC, 0xD7)), self.reg(), imm=self.rng.choice((16, 32, 64)))

    def branch(self) -> None:
        code = self.rng.choice((JMP, JMP, JMP32)) | self.rng.choice(JMP_OPS)
        if self.rng.random() < 0.7:
            self.emit(code, self.reg(), off=9999, imm=self.number())
        else:
            self.emit(code | 8, self.reg(), self.reg(), 9999)

    def bound(self, r: int = -1) -> None:
        """A range check that makes a register a usable index."""
        if r < 0:
            r = self.reg()
        limit = self.rng.choice((4, 8, 8, 16, 16, 32, 40, 44, 47))
        kind = self.rng.randrange(4)
        if kind == 0:
            self.emit(ALU64 | 0x50, r, imm=limit - 1)
        elif kind == 1:
            self.emit(self.rng.choice((JMP, JMP32)) | 0xB0, r, off=1, imm=limit)
            self.emit(ALU64 | 0xB0, r)
        elif kind == 2:
            self.emit(self.rng.choice((JMP, JMP32)) | 0x60, r, off=1, imm=limit)
            self.emit(self.rng.choice((JMP, JMP32)) | 0x70, r, off=1, imm=0)
            self.emit(ALU64 | 0xB0, r, imm=limit)
        else:
            self.emit(ALU32 | 0x50, r, imm=limit - 1)

    def value_access(self) -> None:
        """Load or store in the map value at a computed offset."""
        r, index = self.rng.choice((1, 2, 3, 4, 5, 9)), self.reg()
        if index != r and self.rng.random() < 0.8:
            self.bound(index)
        self.emit(0xBF, r, 7)
        if index != r and index not in (6, 7):
            self.emit(0x0F, r, index)
        size, width = self.rng.choice(SIZES)
        off = self.rng.choice((0, 0, 0, 0, 0, 1, 4, 8, 48 - width, -1))
        if self.rng.random() < 0.5:
            self.emit(0x61 & ~0x18 | size, self.reg(), r, off)
        elif self.rng.random() < 0.5:
            self.emit(0x63 & ~0x18 | size, r, self.reg(), off)
        else:
            self.emit(0xDB if width == 8 else 0xC3, r, self.reg(), off & ~3, self.rng.choice((0, 1, 0x40, 0xE1, 0xF1, 0x51)))

    def stack(self) -> None:
        size, width = self.rng.choice(SIZES)
        off = self.stack_off()
        if self.rng.random() < 0.85:
            off = off // width * width
        kind = self.rng.randrange(4)
        if kind == 0:
            self.emit(0x61 & ~0x18 | size, self.reg(), 10, off)
        elif kind == 1:
            self.emit(0x62 & ~0x18 | size, 10, 0, off, self.number())
        elif kind == 2:
            self.emit(0x81 & ~0x18 | (size if width < 8 else 0), self.reg(), 10, off if width < 8 else off // 8 * 8)
        else:
            self.emit(0x63 & ~0x18 | size, 10, self.reg(), off)

    def var_stack(self) -> None:
        """Stack access at a variable offset."""
        index, r = self.reg(), self.rng.choice((1, 2, 3, 4, 5))
        if index == r:
            return
        self.emit(ALU64 | 0x50, index, imm=self.rng.choice((4, 8, 16, 24)))
        self.emit(0xBF, r, 10)
        self.emit(0x07, r, imm=-self.rng.choice((16, 32, 64)))
        self.emit(0x0F, r, index)
        size = self.rng.choice((0x00, 0x10, 0x10))
        if self.rng.random() < 0.5:
            self.emit(0x61 & ~0x18 | size, self.reg(), r, 0)
        else:
            self.emit(0x63 & ~0x18 | size, r, self.reg(), 0)

    def call(self) -> None:
        kind = self.rng.randrange(4)
        if kind == 0:
            self.emit(0x85, imm=self.rng.choice((5, 7, 8, 14)))
        elif kind == 1:
            self.emit(0xBF, 1, 10)
            self.emit(0x07, 1, imm=self.rng.choice((-16, -32, -8)))
            if self.rng.random() < 0.5:
                self.emit(0xB7, 2, imm=self.rng.choice((8, 16, 20, 0)))
            else:
                self.emit(0xBF, 2, 8)
                self.emit(ALU64 | 0x50, 2, imm=self.rng.choice((7, 15, 31)))
            self.emit(0xBF, 3, 8)
            self.emit(0x85, imm=self.rng.choice((113, 4, 115, 45)))
        elif kind == 2:
            self.lookup()
            if self.rng.random() < 0.2:
                self.out[-3] = self.out[-3]._replace(code=self.rng.choice((0x55, 0x15)))
        for r in range(1, 6):
            if self.rng.random() < 0.6:
                self.emit(0xB7, r, imm=self.number())

    def ctx(self) -> None:
        size, width = self.rng.choice(SIZES)
        self.emit(0x61 & ~0x18 | size, self.reg(), 6, self.rng.choice((0, 8, 88, 4, 90, 96)) // width * width)

    def pointer(self) -> None:
        self.emit(
            ALU64 | self.rng.choice((0x00, 0x10)) | self.rng.choice((0, 8)), self.rng.choice((7, 7, 6, self.reg())), 0, imm=0
        )
        last = self.out[-1]
        self.out[-1] = last._replace(src_reg=self.reg()) if last.code & 8 else last._replace(imm=self.number())

    rare = (pointer,)
    statements = (
        alu,
        alu,
        alu,
        mov,
        mov,
        branch,
        branch,
        bound,
        bound,
        value_access,
        value_access,
        value_access,
        stack,
        stack,
        var_stack,
        neg_end,
        call,
        ctx,
        subprog,
        loop_helper,
        counted_loop,
        counted_loop,
    )


def verdict(insns: list[Insn], maps: dict[int, FuzzMap]) -> tuple[int, str]:
    """Ours: (errno, message)."""

    def fd_to_map(fd: int) -> FuzzMap:
        if fd not in maps:
            raise BpfError(9)
        return maps[fd]

    try:
        bpf_check(LoadAttr(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, insns, fd_to_map, log_level=0, func_info=()))
    except VerifierError as error:
        return error.errno, error.strerror
    return 0, ""


def compare(seed: int, count: int, show: int = 5) -> collections.Counter[str]:
    """Counts of agreements and differences; prints the first of each kind of difference."""
    kinds = [FuzzMap(1, 8, 48, 4), FuzzMap(2, 4, 48, 2), FuzzMap(2, 4, 64, 1)]
    host = HostKernel(kinds)
    if not host.usable:
        host.close()
        pytest.skip("bpf(2) is not allowed here")
    result: collections.Counter[str] = collections.Counter()
    shown: collections.Counter[str] = collections.Counter()
    maps = dict(zip(host.fds, kinds, strict=True))
    for number in range(count):
        insns = Generator(random.Random(f"{seed}:{number}"), host.fds).program()
        theirs, ours = host.load(insns), verdict(insns, maps)
        if not theirs[0] and not ours[0]:
            kind = "both accept"
        elif theirs[0] and ours[0]:
            kind = "both reject, same errno" if theirs[0] == ours[0] else "both reject, errno differs"
            result["same message"] += theirs[1] == ours[1]
        else:
            kind = "ACCEPTED, kernel rejects" if theirs[0] else "rejected, kernel accepts"
            if theirs[1].startswith("verifier bug"):
                kind = "accepted, kernel has a bug"
        result[kind] += 1
        if kind[:4] in ("ACCE", "reje", "both") and kind not in ("both accept", "both reject, same errno"):
            shown[kind] += 1
            if shown[kind] <= show:
                print(f"--- {seed}:{number} {kind}: kernel {theirs}, ours {ours}")
                if kind != "both reject, errno differs":
                    print("\n".join(dump(insns)))
    host.close()
    return result


def test_generated_programs_against_the_running_kernel() -> None:
    """Nothing that the kernel refuses is accepted."""
    result = compare(1, 150)
    print(dict(result))

    assert result["ACCEPTED, kernel rejects"] == 0


if __name__ == "__main__":
    print(dict(compare(int(sys.argv[1]), int(sys.argv[2]))))
