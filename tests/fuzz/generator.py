"""Programs that are nearly valid, each a function of its seed: registers have rough roles, and now and then a rule is broken.

r6 = ctx, r7 = a 48-byte map value, r8 = an unknown scalar, r0..r5 and r9 = scalars; the stack's bytes at -104..-64 hold
spilled pointers, those above scalars.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastrtp.isa import Insn
from fastrtp.uapi import BPF_F_STRICT_ALIGNMENT, BPF_F_TEST_STATE_FREQ

from . import calls, features, owned, spills, tails
from .shapes import HASHES, SHAPES
from .walks import TRACEPOINTS, walk_program

ALU64, ALU32, JMP, JMP32 = 0x07, 0x04, 0x05, 0x06
ALU_OPS = (0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x90, 0xA0, 0xC0)
JMP_OPS = (0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0)
SIZES = ((0x00, 4), (0x08, 2), (0x10, 1), (0x18, 8))
NUMBERS = (0, 1, -1, 2, 7, 8, 15, 16, 31, 32, 40, 44, 48, 63, 64, 255, 256, 0x7FFFFFFF, -0x80000000)
ATOMICS = (0x00, 0x01, 0x40, 0x41, 0x50, 0x51, 0xA0, 0xA1, 0xE1, 0xF1)
BOUNDS = (4, 8, 8, 16, 16, 32, 40, 44, 47)
OPEN, FUNC = 9999, 9999
FLAGS = (*[0] * 6, BPF_F_STRICT_ALIGNMENT, *[BPF_F_TEST_STATE_FREQ] * 4)
"""Of the load: with the last one a state is kept at every place where paths may join, so that more of them are pruned."""


@dataclass(frozen=True)
class Program:
    """Instructions (maps by their number in SHAPES, kernel functions by fastrtp's own ids) and how they are loaded.

    `tracepoint`: a tp_btf program on it, raw_tp otherwise. `globals`: (first instruction, FUNC id) of functions that are more
    than a static one.
    """

    insns: Sequence[Insn]
    flags: int = 0
    tracepoint: str = ""
    globals: tuple[tuple[int, int], ...] = ()


class Generator:
    """One program: `Generator(random.Random(seed)).program()`."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.out: list[Insn] = []
        self.globals: list[tuple[int, int]] = []

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        self.out.append(Insn(code, dst, src, off, imm))

    def reg(self) -> int:
        """A scalar's register, rarely any."""
        return self.rng.choice((0, 1, 2, 3, 4, 5, 8, 9)) if self.rng.random() < 0.996 else self.rng.randrange(11)

    def number(self) -> int:
        kind = self.rng.random()
        if kind < 0.8:
            return self.rng.choice(NUMBERS)
        return self.rng.randrange(-70, 70) if kind < 0.9 else self.rng.randrange(-(1 << 31), 1 << 31)

    def rarely(self, probability: float = 0.04) -> bool:
        return self.rng.random() < probability

    def program(self) -> list[Insn]:
        rng = self.rng
        self.emit(0xBF, 6, 1)
        self.lookup(rng.choice((1, 2)), rng.choice((0, 1)))
        self.emit(0xBF, 7, 0)
        self.emit(0x79, 8, 6, 8 * rng.randrange(12))
        for at in (-8, -16, -24, -32, -40):
            if not self.rarely(0.02):
                self.emit(0x7A, 10, 0, at, self.number()) if rng.random() < 0.6 else self.emit(0x7B, 10, 8, at)
        self.scalars((0, 1, 2, 3, 4, 5, 9))
        start = len(self.out)
        for _ in range(rng.randrange(2, 18)):
            rng.choice(STATEMENTS if rng.random() < 0.99 else RARE)(self)
        end = len(self.out)
        self.close_branches(start, end, 0.006)
        kind = rng.random()
        if kind < 0.6:
            self.emit(0xBF, 0, rng.choice((8, 9, 8, 9, 1, 2)))
        else:
            self.emit(0xB7, 0, imm=self.number())
        self.emit(0x95)
        self.functions()
        return self.out

    def scalars(self, registers: tuple[int, ...]) -> None:
        for r in registers:
            kind = self.rng.random()
            if kind < 0.45:
                self.emit(0xB7, r, imm=self.number())
            elif kind < 0.6:
                self.emit(0xBF, r, 8)
            elif kind < 0.8:
                self.emit(0x79, r, 6, 8 * self.rng.randrange(12))
            else:
                self.emit(self.rng.choice((0x61, 0x69, 0x71, 0x79, 0x81, 0x89, 0x91)), r, 7, self.rng.choice((0, 8, 40)))

    def close_branches(self, start: int, end: int, backward: float) -> None:
        for i in range(start, end):
            insn = self.out[i]
            if insn.code & 7 in (JMP, JMP32) and insn.off == OPEN:
                target = self.rng.randrange(start, i + 1) if self.rarely(backward) else self.rng.randrange(i + 1, end + 1)
                if target < end and self.out[target].code == 0 and not self.rarely(0.02):
                    target -= 1  # the second half of an ld_imm64
                if target == i:
                    target += 1
                self.out[i] = insn._replace(off=target - i - 1)

    # memory

    def lookup(self, fd: int, key: int, check: bool = True) -> None:
        """r0 = the value of a key, NULL leaves the program."""
        wide = fd in HASHES
        self.emit(0x7A if wide else 0x62, 10, off=-48, imm=key)
        self.emit(0xBF, 2, 10)
        self.emit(0x07, 2, imm=-48)
        self.emit(0x18, 1, 1, imm=fd)
        self.emit(0)
        self.emit(0x85, imm=1)
        if check:
            self.emit(0x55, 0, off=2)
            self.emit(0xB7, 0)
            self.emit(0x95)

    def second_value(self) -> None:
        """Another map's value, through a spill at times, accessed near its end."""
        fd = self.rng.choice((1, 2, 6, 7, 7, 9, 18))
        self.lookup(fd, self.rng.choice((0, 0, 1, 5, 20)), check=not self.rarely(0.05))
        if self.rng.random() < 0.4:
            self.emit(0x7B, 10, 0, -72)
            self.clobber()
            self.emit(0x79, 0, 10, -72)
        size, width = self.rng.choice(SIZES)
        room = SHAPES[fd].value_size
        off = self.rng.choice((0, 4, 8, room - width, room - width)) // width * width + (self.rarely() and 1)
        if fd != 6 and self.rng.random() < 0.5:
            self.emit(0x61 & ~0x18 | size, 9, 0, off)
        else:
            self.emit(0x63 & ~0x18 | size, 0, 8, off)
        self.clobber((0, 1, 2, 3, 4, 5))

    def direct_value(self) -> None:
        """The address of an array's value in the instruction, read-only ones too."""
        fd = self.rng.choice((9, 9, 10, 5, 2))
        self.emit(0x18, 1, 2, imm=fd)
        self.emit(0, imm=self.rng.choice((0, 0, 8, 15)))
        size, width = self.rng.choice(SIZES)
        at = self.rng.choice((0, 8)) // width * width
        if (fd in (9, 2) and self.rng.random() < 0.6) or self.rarely():
            self.emit(0x63 & ~0x18 | size, 1, 8, at if self.out[-1].imm == 0 else 0)
        else:
            self.emit(0x61 & ~0x18 | size, self.rng.choice((2, 9)), 1, at if self.out[-1].imm == 0 else 0)
        self.emit(0xB7, 1, imm=self.number())

    def value_access(self) -> None:
        """Load, store or atomic in the map value at a computed offset."""
        r, index = self.rng.choice((1, 2, 3, 4, 5, 9)), self.reg()
        size, width = self.rng.choice(SIZES)
        atomic = self.rng.random() < 0.25
        size, width = ((0x18, 8) if width > 2 else (0x00, 4)) if atomic else (size, width)
        if index != r and self.rng.random() < 0.3:
            self.emit(self.rng.choice((0x67, 0x27, 0x77, 0x64, 0x54, 0xC7)), index, imm=self.rng.choice((1, 2, 3, 7)))
        if index != r and not self.rarely(0.03):
            self.bound(index, sure=not self.rarely(0.3))
        if index != r and self.rarely(0.05):
            self.emit(self.rng.choice((0x67, 0x27, 0x77, 0x07)), index, imm=self.rng.choice((1, 2, 3)))
        if atomic and index != r and not self.rarely(0.05):
            self.emit(ALU64 | 0x50, index, imm=-width)
        self.emit(0xBF, r, 7)
        if index != r and index not in (6, 7):
            if self.rarely(0.1):
                self.emit(0x07, r, imm=self.rng.choice((8, 40, 47, 48, -8)))
                self.emit(0x1F, r, index)
            else:
                self.emit(0x0F, r, index)
        off = self.rng.choice((0, 0, 0, 0, 1, 4, 0)) if not self.rarely(0.06) else self.rng.choice((48 - width, -1, 8))
        kind = self.rng.random()
        if atomic:
            self.emit(0xDB if width == 8 else 0xC3, r, self.reg(), off & -width, self.rng.choice(ATOMICS))
        elif kind < 0.6:
            mode = 0x81 if width < 8 and self.rng.random() < 0.3 else 0x61
            self.emit(mode & ~0x18 | size, self.reg(), r, off)
        else:
            self.emit(0x63 & ~0x18 | size, r, self.reg(), off)
        self.emit(0xB7, r, imm=self.number())

    def stack(self) -> None:
        """A spill, a fill or a part of one."""
        size, width = self.rng.choice(SIZES)
        off = -self.rng.choice((8, 16, 24, 32, 4, 12, 40, 1, 2, 36))
        if self.rng.random() < 0.85:
            off = off // width * width
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit(0x61 & ~0x18 | size, self.reg(), 10, off)
        elif kind == 1:
            self.emit(0x62 & ~0x18 | size, 10, 0, off, self.number())
        elif kind == 2 and width < 8:
            self.emit(0x81 & ~0x18 | size, self.reg(), 10, off)
        elif kind == 3:
            self.emit(0xDB if width == 8 else 0xC3, 10, self.reg(), off & -width if width >= 4 else -8, self.rng.choice(ATOMICS))
        else:
            self.emit(0x63 & ~0x18 | size, 10, self.reg(), off)

    def spill_pointer(self) -> None:
        """A pointer goes to the stack and comes back, whole or not."""
        src, at = self.rng.choice((6, 7, 7, 10)), self.rng.choice((-64, -72, -80))
        self.emit(0x7B, 10, src, at)
        if self.rarely(0.1):
            size, width = self.rng.choice(SIZES)
            self.emit(0x62 & ~0x18 | size, 10, 0, at + self.rng.choice((0, 8 - width)), self.number())
        r = self.rng.choice((1, 2, 3, 4, 5))
        self.emit(0x79, r, 10, at)
        within = self.rng.choice((0, 8, 40)) if not self.rarely() else -8
        self.emit(0x71, 9, r, {7: within, 10: -8}.get(src, 0))
        self.emit(0xB7, r, imm=self.number())

    def var_stack(self) -> None:
        """Stack access at a variable offset."""
        index, r = self.reg(), self.rng.choice((1, 2, 3, 4, 5))
        if index in (r, 6, 7, 10):
            return
        self.emit(ALU64 | 0x50, index, imm=self.rng.choice((4, 8, 16, 24)))
        self.emit(0xBF, r, 10)
        self.emit(0x07, r, imm=-self.rng.choice((32, 40, 40, 16)))
        self.emit(0x0F, r, index)
        size = self.rng.choice((0x00, 0x10, 0x10, 0x18))
        if self.rng.random() < 0.5:
            self.emit(0x61 & ~0x18 | size, self.rng.choice((0, 9)), r, 0)
        else:
            self.emit(0x63 & ~0x18 | size, r, self.rng.choice((8, 9, 0)), 0)
        self.emit(0xB7, r, imm=self.number())

    def ctx(self) -> None:
        size, width = self.rng.choice(SIZES)
        off = self.rng.choice((0, 8, 88, 4, 90, 24, 40)) // width * width if not self.rarely() else self.rng.choice((96, 89, -8))
        self.emit(0x61 & ~0x18 | size, self.rng.choice((0, 1, 2, 3, 4, 5, 8, 9)), 6, off)

    # arithmetic and branches

    def alu(self) -> None:
        code = self.rng.choice((ALU64, ALU64, ALU32)) | self.rng.choice(ALU_OPS)
        signed = int(code & 0xF0 in (0x30, 0x90) and self.rng.random() < 0.4)
        if self.rng.random() < 0.5:
            bits = 64 if code & 7 == ALU64 else 32
            imm = self.rng.randrange(bits + self.rarely()) if code & 0xF0 in (0x60, 0x70, 0xC0) else self.number()
            if code & 0xF0 in (0x30, 0x90) and not imm:
                imm = 3
            self.emit(code, self.reg(), 0, signed, imm)
        else:
            self.emit(code | 8, self.reg(), self.reg(), signed)

    def mov(self) -> None:
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit(ALU64 | 0xB0, self.reg(), imm=self.number())
        elif kind == 1:
            self.emit(ALU32 | 0xB8, self.reg(), self.reg(), self.rng.choice((0, 8, 16)))
        else:
            self.emit(ALU64 | 0xB8, self.reg(), self.reg(), self.rng.choice((0, 0, 0, 8, 16, 32)))

    def wide(self) -> None:
        self.emit(0x18, self.rng.choice((1, 2, 3, 9)), imm=self.number())
        self.emit(0, imm=self.number())

    def neg_end(self) -> None:
        if self.rng.random() < 0.5:
            self.emit(self.rng.choice((0x87, 0x84)), self.reg())
        else:
            self.emit(self.rng.choice((0xD4, 0xDC, 0xD7)), self.reg(), imm=self.rng.choice((16, 32, 64)))

    def branch(self) -> None:
        code = self.rng.choice((JMP, JMP, JMP32)) | self.rng.choice(JMP_OPS)
        if self.rng.random() < 0.7:
            self.emit(code, self.reg(), 0, OPEN, self.number())
        else:
            self.emit(code | 8, self.reg(), self.reg(), OPEN)

    def bound(self, r: int = -1, *, sure: bool = False) -> None:
        """A range check that makes a register a usable index; not `sure`: perhaps only its lower half, or one end."""
        r = self.reg() if r < 0 else r
        limit = self.rng.choice(BOUNDS) if not sure else self.rng.choice((4, 8, 16, 32, 40))
        kind = self.rng.randrange(5)
        jump = self.rng.choice((JMP, JMP32)) if not sure else JMP
        if sure and kind == 3:
            kind = 0
        if kind == 0:
            self.emit(ALU64 | 0x50, r, imm=limit - 1)
        elif kind == 1:
            self.emit(jump | 0xB0, r, 0, 1, limit)
            self.emit(ALU64 | 0xB0, r)
        elif kind == 2:
            self.emit(jump | 0x60, r, 0, 1, limit)
            self.emit(jump | 0x70, r, 0, 1, 0)
            self.emit(ALU64 | 0xB0, r, imm=limit)
        elif kind == 3:
            self.emit(ALU64 | 0x90, r, 0, self.rng.choice((0, 1)), limit)
        else:
            self.emit(ALU32 | 0x50, r, imm=limit - 1)

    def linked(self) -> None:
        """A copy (with an offset at times) is checked, the original used."""
        a, b = self.rng.sample((1, 2, 3, 4, 5, 9), 2)
        self.emit(0xBF if self.rng.random() < 0.7 else 0xBC, a, 8)
        self.emit(0xBF if self.rng.random() < 0.8 else 0xBC, b, a)
        if self.rarely(0.3):
            self.emit(0x07 if self.rng.random() < 0.7 else 0x04, b, imm=self.rng.choice((1, 4, -4, 8)))
        if self.rng.random() < 0.3:
            self.emit(0x7B, 10, a, -32)
            self.emit(0x79, b, 10, -32)
        if self.rarely(0.08):
            self.emit(self.rng.choice((JMP, JMP32)) | self.rng.choice((0xB0, 0xA0, 0x10)), b, 0, 1, self.rng.choice(BOUNDS))
        else:
            self.emit(JMP if not self.rarely(0.1) else JMP32, b, 0, 1, 0)
            self.out[-1] = self.out[-1]._replace(
                code=self.out[-1].code | self.rng.choice((0xB0, 0xA0)), imm=self.rng.choice((8, 16, 40))
            )
        self.emit(ALU64 | 0xB0, a, imm=4)
        r = self.rng.choice([n for n in (1, 2, 3, 4, 5) if n != a])
        self.emit(0xBF, r, 7)
        self.emit(0x0F, r, a)
        self.emit(0x71, 0, r, 0)
        self.emit(0xB7, r, imm=self.number())

    def counted_loop(self) -> None:
        """A loop over an index, with an access in it."""
        r = 9
        self.emit(0xB7, r, imm=self.rng.choice((0, 0, 1)) if not self.rarely() else -1)
        top = len(self.out)
        for _ in range(self.rng.randrange(0, 3)):
            self.rng.choice((Generator.alu_low, Generator.stack_low))(self)
        self.emit(0xBF, 1, 7)
        self.emit(0x0F, 1, r)
        self.emit(0x71, 2, 1, self.rng.choice((0, 0, 8))) if self.rng.random() < 0.5 else self.emit(0x73, 1, r, 0)
        self.emit(0xB7, 1, imm=0)
        self.emit(0x07, r, imm=self.rng.choice((1, 1, 2, 3)))
        code = self.rng.choice((0xA5, 0xA5, 0xC5, 0xA6)) if not self.rarely(0.03) else 0x55
        self.emit(code, r, 0, top - len(self.out) - 1, self.rng.choice((4, 8, 30, 40)))

    def alu_low(self) -> None:
        self.emit(ALU64 | self.rng.choice(ALU_OPS[:3]), self.rng.choice((3, 4, 5)), imm=self.number())

    def stack_low(self) -> None:
        self.emit(0x7B, 10, self.rng.choice((3, 4, 8)), -self.rng.choice((8, 16, 24)))

    # calls

    def clobber(self, registers: tuple[int, ...] = (1, 2, 3, 4, 5)) -> None:
        """Give the registers that a call leaves unreadable values again, most of the time."""
        for r in registers:
            if not self.rarely(0.005):
                self.emit(0xB7, r, imm=self.number())

    def probe_read(self) -> None:
        at = self.rng.choice((-16, -32, -40))
        self.emit(0xBF, 1, 10)
        self.emit(0x07, 1, imm=at)
        if self.rng.random() < 0.5:
            self.emit(0xB7, 2, imm=self.rng.choice((8, 16, 4, 0, 1, 8 if not self.rarely() else 41)))
        else:
            self.emit(0xBF, 2, 8)
            self.emit(ALU64 | 0x50, 2, imm=self.rng.choice((7, 15, 15, 31)))
        self.emit(0xBF, 3, self.rng.choice((6, 7, 7, 8)))
        self.emit(0x85, imm=113)
        self.clobber()

    def small_helper(self) -> None:
        self.emit(0x85, imm=self.rng.choice((8, 8, 7, 5, 14)))
        self.clobber()

    def change_map(self) -> None:
        """Update or delete of keys that nobody looks up."""
        fd = self.rng.choice((1, 1, 2, 7, 9, 18, 18))
        wide = fd in HASHES
        self.emit(0x7A if wide else 0x62, 10, off=-48, imm=self.rng.choice((3, 4, 9) if wide else (0, 1, 7)))
        self.emit(0x18, 1, 1, imm=fd)
        self.emit(0)
        self.emit(0xBF, 2, 10)
        self.emit(0x07, 2, imm=-48)
        update = self.rng.random() < 0.7
        self.emit(0xBF, 3, 7 if fd != 2 or self.rarely() else 10)
        if self.out[-1].src_reg == 10:
            self.emit(0x07, 3, imm=-48 if self.rarely(0.2) else -16 if fd != 2 else -40)
        self.emit(0xB7, 4, imm=self.rng.choice((0, 0, 1, 2)))
        self.emit(0x85, imm=2 if update else 3)
        self.emit(0xBF, 9, 0)
        self.clobber()

    def ringbuf(self) -> None:
        size = self.rng.choice((8, 16, 24))
        self.emit(0x18, 1, 1, imm=3)
        self.emit(0)
        if self.rng.random() < 0.25:
            self.emit(0xBF, 2, 10)
            self.emit(0x07, 2, imm=-32)
            self.emit(0xB7, 3, imm=size)
            self.emit(0xB7, 4)
            self.emit(0x85, imm=130)
            return self.clobber()
        self.emit(0xB7, 2, imm=size)
        self.emit(0xB7, 3)
        self.emit(0x85, imm=131)
        body = [
            Insn(0x7B, 0, 8, at) if not self.rarely(0.02) else Insn(0x7B, 0, 8, at + self.rng.choice((4, size)))
            for at in range(0, size, 8)
        ]
        if self.rng.random() < 0.4:
            body.append(Insn(self.rng.choice((0x61, 0x79, 0x71)), 9, 0, self.rng.choice((0, 0, size - 8))))
        body += [Insn(0xBF, 1, 0), Insn(0xB7, 2), Insn(0x85, imm=self.rng.choice((132, 132, 133)))]
        if self.rarely(0.02):
            body.pop()
        if not self.rarely(0.02):
            self.emit(0x15, 0, off=len(body))
        self.out += body
        self.clobber((0, 1, 2, 3, 4, 5))
        return None

    def subprog(self) -> None:
        for r in range(1, 6):
            if self.rng.random() < 0.9:
                self.emit(0xBF, r, self.rng.choice((8, 8, 9, 10, 7, 7)))
        self.emit(0x85, 0, 1, imm=FUNC)
        self.clobber()
        if self.rng.random() < 0.5:
            self.emit(0xBF, 9, 0)

    def loop_helper(self) -> None:
        """bpf_loop with a counter on the stack, which indexes the map value afterwards."""
        self.emit(0x7A, 10, off=-56, imm=self.rng.choice((0, 1)))
        self.emit(0xB7, 1, imm=self.rng.choice((0, 1, 3, 50)))
        self.emit(0x18, 2, 4, imm=FUNC)
        self.emit(0)
        self.emit(0xBF, 3, 10)
        self.emit(0x07, 3, imm=-56)
        self.emit(0xB7, 4)
        self.emit(0x85, imm=181)
        self.after_callback()

    def for_each(self) -> None:
        self.emit(0x7A, 10, off=-56, imm=self.rng.choice((0, 1)))
        self.emit(0x18, 1, 1, imm=self.rng.choice((2, 2, 7, 9, 1)))
        self.emit(0)
        self.emit(0x18, 2, 4, imm=FUNC + 1)
        self.emit(0)
        self.emit(0xBF, 3, 10)
        self.emit(0x07, 3, imm=-56)
        self.emit(0xB7, 4)
        self.emit(0x85, imm=164)
        self.after_callback()

    def after_callback(self) -> None:
        self.clobber((2, 3, 4, 5))
        self.emit(0x79, 1, 10, -56)
        if not self.rarely(0.1):
            self.emit(0x57, 1, imm=self.rng.choice((7, 31, 47)))
        self.emit(0xBF, 2, 7)
        self.emit(0x0F, 2, 1)
        self.emit(0x71, 9, 2, 0)
        self.clobber((0, 2))

    def functions(self) -> None:
        """Give the calls that were emitted their functions."""
        done = 0
        while (i := self._unwritten(done)) >= 0:
            done, kind = i + 1, self.out[i]
            start = len(self.out)
            self.out[i] = kind._replace(imm=start - i - 1)
            if kind.imm >= features.GLOBAL:
                self.globals.append((start, kind.imm - features.GLOBAL))
                features.global_body(self, kind.imm - features.GLOBAL)
            elif kind.imm in calls.BODIES:
                calls.body(self, kind.imm)
            elif kind.imm in tails.BODIES:
                tails.body(self, kind.imm)
            elif kind.imm == owned.LESS:
                owned.less(self)
            elif kind.code == 0x85:
                self.callee()
            else:
                self.callback(kind.imm == FUNC + 1)
            self.emit(0x95)
            for k in range(start, len(self.out)):
                if self.out[k].off == OPEN:
                    self.out[k] = self.out[k]._replace(off=self.rng.randrange(len(self.out) - 2 - k + 1))

    def _unwritten(self, start: int) -> int:
        """The next call whose function has yet to be written, -1 for none."""
        for i in range(start, len(self.out)):
            insn = self.out[i]
            wanted = insn.imm in (FUNC, FUNC + 1, owned.LESS, *calls.BODIES, *tails.BODIES) or insn.imm >= features.GLOBAL
            if wanted and (insn.code, insn.src_reg) in CALLS:
                return i
        return -1

    def callee(self) -> None:
        self.emit(0xB7, 0, imm=self.number())
        for r in (8, 9):
            self.emit(0xB7, r, imm=self.number()) if not self.rarely(0.02) else None
        for at in (-8, -16, -32):
            self.emit(0x7A, 10, 0, at, self.number())
        for _ in range(self.rng.randrange(1, 6)):
            self.rng.choice((Generator.alu, Generator.mov, Generator.stack, Generator.bound, Generator.branch))(self)
        if self.rng.random() < 0.7:
            self.emit(0x57, 0, imm=self.rng.choice((1, 7, 31)))
        else:
            self.emit(0x07, 0, imm=0)

    def callback(self, for_each: bool) -> None:
        """r9 = the context (a counter on the caller's stack), r8 = a number."""
        self.emit(0xB7, 0)
        self.emit(0xBF, 9, 4 if for_each else 2)
        if for_each:
            self.emit(self.rng.choice((0x61, 0x71)), 8, self.rng.choice((3, 2)), self.rng.choice((0, 0, 0, 4, 15)))
            if self.rng.random() < 0.5:
                self.emit(0x73, 3, 8, self.rng.choice((0, 8, 15)))
        else:
            self.emit(0xBF, 8, 1)
        self.emit(0x79, 3, 9, 0)
        if self.rng.random() < 0.5:
            self.emit(self.rng.choice((0x07, 0x57, 0x77)), 3, imm=self.rng.choice((1, 2, 8, 63)))
        else:
            self.emit(self.rng.choice((0x0F, 0xAF)), 3, 8)
        self.emit(self.rng.choice((0x7B, 0x7B, 0x63)), 9, 3, 0)
        if self.rng.random() < 0.5:
            self.emit(0x25, 3, 0, 1, self.rng.choice((8, 40, 47)))
            self.emit(0xBF, 0, 3)
        self.emit(0x57, 0, imm=self.rng.choice((1, 1, 0)))

    # mistakes

    def pointer(self) -> None:
        """Arithmetic on a pointer itself."""
        code, dst = ALU64 | self.rng.choice((0x00, 0x10, 0x50)), self.rng.choice((7, 7, 6, 10))
        self.emit(code | 8, dst, self.reg()) if self.rng.random() < 0.5 else self.emit(code, dst, 0, 0, self.number())

    def wild(self) -> None:
        """Any instruction's bits."""
        rng = self.rng
        self.emit(
            rng.choice((0x61, 0x79, 0x63, 0x7B, 0x72, 0xDB)), rng.randrange(11), rng.randrange(11), rng.randrange(-64, 64), 0
        )

    def lost_check(self) -> None:
        self.lookup(self.rng.choice((1, 2, 7)), 0, check=False)
        self.emit(0x79, 9, 0, 0)
        self.clobber((0, 1, 2, 3, 4, 5))


CALLS = ((0x85, 1), (0x18, 4))
Statement = Callable[[Generator], None]
RARE: tuple[Statement, ...] = (Generator.pointer, Generator.wild, Generator.lost_check, calls.cast)
STATEMENTS: tuple[Statement, ...] = (
    *[Generator.alu] * 4, *[Generator.mov] * 2, *[Generator.branch] * 3, *[Generator.bound] * 2,
    *[Generator.value_access] * 4, *[Generator.stack] * 3, *[Generator.linked] * 2, Generator.spill_pointer,
    Generator.var_stack, Generator.neg_end, Generator.wide, Generator.ctx, Generator.subprog, Generator.loop_helper,
    Generator.for_each, Generator.counted_loop, Generator.second_value, Generator.direct_value, Generator.probe_read,
    Generator.small_helper, Generator.change_map, Generator.ringbuf, features.dynptr, features.dynptr,
    features.iterator, features.iterator, features.map_in_map, features.may_goto, features.ordered, features.section,
    features.global_call, features.global_call, *[calls.precise_args] * 2, calls.nested_loop, *[calls.linked_spills] * 2,
    *[spills.spilled_ids] * 3, *[spills.shift_left] * 2,
    calls.far_jump, calls.string_helper, calls.cpu_index, calls.user_drain, tails.tail_call, *[tails.tail_function] * 3,
    tails.tail_callback,
)  # fmt: skip


def generate(seed: int, number: int) -> Program:
    """The numbered program of a seed."""
    rng = random.Random(f"{seed}:{number}")
    generator = Generator(rng)
    if rng.random() < 0.1:
        walk_program(generator)
        return Program(generator.out, 0, rng.choice(TRACEPOINTS))
    insns = generator.program()
    return Program(insns, rng.choice(FLAGS), "", tuple(generator.globals))
