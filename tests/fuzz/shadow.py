"""The reference interpreter with maps and helpers: every access is checked against the exact bytes of one object.

What a program may read without it being defined (fresh stack, clocks, random numbers, addresses) differs between two
`variant`s, so a result that both agree on is one that every implementation has to give.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastrtp.isa import Insn
from fastrtp.uapi import MAX_TAIL_CALL_CNT

from .shapes import ARRAYS, CTX, HASH_KEYS, HASHES, SHAPES, Memory
from .targets import TARGETS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interpreter import MEM_BASE, STACK_SIZE, Frame, Interpreter, InterpreterError

__all__ = ["InterpreterError", "Shadow", "TooLong"]

U64 = (1 << 64) - 1
_HANDLE = 0x40_0000_0000
_VALUES = (0x50_0000_0000, 0x0F_0000_0000)
"""Values of maps in either variant: above the stack, and below it."""
_E2BIG, _EEXIST, _EFAULT, _EINVAL, _ENOENT, _ERANGE = 7, 17, 14, 22, 2, 34
_RING_SIZE, _USER_END = 4096, (1 << 47) + 4096
_FINISHED = -2
_SHIFT = 0xFFFF_88A5_5B7A_3A58
"""Where the second variant has every object: no bit of an address but the lowest three is the same."""


class TooLong(Exception):
    """More steps than the interpreter is given."""


class Shadow(Interpreter):
    """One run of a verified program on CTX. `variant`: even or odd is the layout, the number the seed of random helpers."""

    def __init__(
        self, insns: Sequence[Insn], fds: Sequence[int], variant: int, kfuncs: Mapping[int, str] | None = None,
        max_steps: int = 60_000,
    ) -> None:  # fmt: skip
        super().__init__(insns, bytearray(CTX))
        self.variant, self.steps = variant, max_steps
        self.shift = _SHIFT * (variant % 2)
        self.values: dict[int, dict[bytes, int]] = {}
        self.ring: list[tuple[int, int]] = []
        self.ring_used = 0
        self.tail_calls = 0
        self.rng = random.Random(variant)
        self.helpers = {number: method.__get__(self) for number, method in HELPERS.items()}
        self.numbers = dict(self._numbers(fds))
        self.kfuncs = kfuncs or {}
        self.dynptrs: dict[int, tuple[int, int]] = {}
        self.iterators: dict[int, tuple[int, int]] = {}

    def _numbers(self, fds: Sequence[int] | Mapping[int, int]) -> Any:
        for index, insn in enumerate(self.insns):
            if insn.code == 0x18 and insn.src_reg == 1:
                yield index, _HANDLE + self.shift + fds[insn.imm]
            elif insn.code == 0x18 and insn.src_reg == 2:
                yield index, self._array_base(fds[insn.imm]) + self.insns[index + 1].imm
            elif insn.code == 0x18 and insn.src_reg == 4:
                yield index, index + insn.imm + 1

    def _array_base(self, fd: int) -> int:
        return _VALUES[self.variant % 2] + self.shift + (fd << 24) & U64

    def run(self) -> int:
        """r0 at exit. InterpreterError for an access outside, TooLong."""
        self.regs = [0] * 11
        self.regions = {}
        base = MEM_BASE + self.shift
        self.regions[base] = self.mem
        self.regs[1] = base
        self.frames = [Frame([], -1)]
        self._push_stack()
        self._fill()
        for fd in (*ARRAYS, 5, 10):
            self.values[fd] = {}
            for index in range(SHAPES[fd].max_entries):
                at = self._array_base(fd) + index * SHAPES[fd].value_size
                self.regions[at] = bytearray(SHAPES[fd].initial(index))
                self.values[fd][index.to_bytes(4, "little")] = at
        for fd in HASHES:
            self.values[fd] = {}
            for number in HASH_KEYS:
                self._insert(fd, number.to_bytes(8, "little"), SHAPES[fd].initial(number))
        self.values[12] = {bytes(4): _HANDLE + self.shift + SHAPES[12].inner}
        self._walk(0, None)
        return self.regs[0]

    def _walk(self, index: int, end: int | None) -> None:
        while True:
            if self.steps == 0:
                raise TooLong
            self.steps -= 1
            if not 0 <= index < len(self.insns):
                raise InterpreterError(f"insn {index} is outside the program")
            self.at = index
            following = self._step(index)
            if following == end:
                return
            assert following is not None
            index = following

    def _push_stack(self) -> None:
        super()._push_stack()
        base = self.regs[10] - STACK_SIZE
        if self.shift:
            self.regions[base + self.shift], self.regions[base] = self.regions[base], bytearray()
        self.regs[10] += self.shift

    def _fill(self) -> None:
        """Stack that nobody wrote to is not zero."""
        for address, region in self.regions.items():
            if address == self.regs[10] - STACK_SIZE:
                region[:] = bytes([self.variant % 2 * 0xA5]) * STACK_SIZE

    def _step(self, index: int) -> int | None:
        insn = self.insns[index]
        if insn.code == 0x85 and insn.src_reg == 0 and insn.imm == 12:
            target = TARGETS.get(self.regs[3] & 0xFFFFFFFF)
            if target is not None and self.tail_calls < MAX_TAIL_CALL_CNT:
                self.tail_calls += 1
                self.regs[0] = self._run_instead(target)
                return self._leave()
            self.regs[1:6] = [0] * 5
            return index + 1
        if insn.code == 0x95:
            return self._leave()
        if insn.code == 0x85 and insn.src_reg == 2:
            self.regs[0] = KFUNCS[self.kfuncs[index]](self, *self.regs[1:4]) & U64
            self.regs[1:6] = [0] * 5
            return index + 1
        following = super()._step(index)
        if insn.code == 0x85 and insn.src_reg == 1:
            self._fill()
        return following

    def _leave(self) -> int | None:
        if self.shift and len(self.frames) > 1:
            del self.regions[self.regs[10] - STACK_SIZE]
        self.insns, whole = [Insn(0x95)], self.insns
        try:
            return super()._step(0)
        finally:
            self.insns = whole

    def _run_instead(self, insns: Sequence[Insn]) -> int:
        """r0 of another program, run on the context."""
        mine = self.insns, self.numbers, self.kfuncs
        self.insns, self.kfuncs = insns, {}
        self.numbers = dict(self._numbers({fd: fd for fd in SHAPES}))
        result = self.call(0, self.regs[1])
        self.insns, self.numbers, self.kfuncs = mine
        return result

    def call(self, start: int, *args: int) -> int:
        """r0 of a callback."""
        self.frames.append(Frame(self.regs[6:11], _FINISHED))
        self._push_stack()
        self._fill()
        self.regs[1:6] = [*args, 0, 0, 0, 0, 0][:5]
        at = self.at
        self._walk(start, _FINISHED)
        self.at = at
        return self.regs[0]

    def memory(self) -> Memory:
        """Map contents."""
        found = {
            f"{fd}[{key.hex()}]": bytes(self.regions[at]) for fd in (*HASHES, *ARRAYS) for key, at in self.values[fd].items()
        }
        for number, (at, size) in enumerate(self.ring):
            found[f"ring[{number}]"] = bytes(self.regions[at][:size])
        return found

    def _insert(self, fd: int, key: bytes, value: bytes) -> None:
        self.inserted = getattr(self, "inserted", 0) + 1
        at = self._array_base(fd) + self.inserted * 0x1000
        self.regions[at] = bytearray(value)
        self.values[fd][key] = at

    def _bytes(self, address: int, size: int) -> bytes:
        region, at = self._find(self.at, address, size)
        return bytes(region[at : at + size])

    def _put(self, address: int, data: bytes) -> None:
        region, at = self._find(self.at, address, len(data))
        region[at : at + len(data)] = data

    def _map(self, handle: int) -> int:
        fd = handle - _HANDLE - self.shift
        if fd not in SHAPES:
            raise InterpreterError(f"insn {self.at}: {handle:#x} is no map")
        return fd

    def lookup(self, r1: int, r2: int, *_: int) -> int:
        fd = self._map(r1)
        return self.values[fd].get(self._bytes(r2, SHAPES[fd].key_size), 0)

    def update(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        fd = self._map(r1)
        key, value = self._bytes(r2, SHAPES[fd].key_size), self._bytes(r3, SHAPES[fd].value_size)
        there = key in self.values[fd]
        if r4 > 2:
            return -_EINVAL
        if fd not in HASHES and not there:
            return -_E2BIG
        if there and r4 == 1:
            return -_EEXIST
        if not there and r4 == 2:
            return -_ENOENT
        if there:
            self.regions[self.values[fd][key]][:] = value
        elif len(self.values[fd]) == SHAPES[fd].max_entries:
            return -_E2BIG
        else:
            self._insert(fd, key, value)
        return 0

    def delete(self, r1: int, r2: int, *_: int) -> int:
        fd = self._map(r1)
        key = self._bytes(r2, SHAPES[fd].key_size)
        if fd not in HASHES:
            return -_EINVAL
        return 0 if self.values[fd].pop(key, 0) else -_ENOENT

    def probe_read(self, r1: int, r2: int, r3: int, *_: int) -> int:
        size = r2 & 0xFFFFFFFF
        self._bytes(r1, size)
        try:
            self._put(r1, self._bytes(r3, size))
        except InterpreterError:
            self._put(r1, bytes(size))
            return -_ERANGE if r3 < _USER_END or r3 >> 47 != (1 << 17) - 1 else -_EFAULT
        return 0

    def unknown(self, *_: int) -> int:
        return self.rng.choice((0, self.rng.getrandbits(8), self.rng.getrandbits(32)))  # a pid of nobody is 0

    def cpu(self, *_: int) -> int:
        return 0

    def loop(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        count = r1 & 0xFFFFFFFF
        if r4:
            return -_EINVAL
        if count > 1 << 23:
            return -_E2BIG
        for number in range(count):
            if self.call(r2, number, r3):
                return number + 1
        return count

    def for_each(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        if r4:
            return -_EINVAL
        fd = self._map(r1)
        seen = 0
        for key, at in list(self.values[fd].items()):
            seen += 1
            place = 0x60_0000_0000 + self.shift + self.steps * 16
            self.regions[place] = bytearray(key)
            stop = self.call(r2, r1, place, at, r3)
            del self.regions[place]
            if stop:
                break
        return seen

    def reserve(self, r1: int, r2: int, r3: int, *_: int) -> int:
        need = (r2 + 15) & ~7
        if r3 or self.ring_used + need > _RING_SIZE - 1:
            return 0
        at = 0x70_0000_0000 + self.shift + self.ring_used * 16
        self.regions[at] = bytearray([self.variant % 2 * 0xA5] * r2)
        self.ring_used += need
        self.ring.append((at, r2))
        return at

    # dynptrs: (address of the data, 0 for none; size), by the address of the slot

    def dynptr_from_mem(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        size = r2 & 0xFFFFFFFF
        self._bytes(r4, 16)
        self.dynptrs[r4] = (0, 0) if r3 or size >= 1 << 24 else (r1, size)
        return -_E2BIG if size >= 1 << 24 else -_EINVAL if r3 else 0

    def reserve_dynptr(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        self._bytes(r4, 16)
        at = 0 if r3 else self.reserve(r1, r2 & 0xFFFFFFFF, 0)
        self.dynptrs[r4] = (at, r2 & 0xFFFFFFFF if at else 0)
        return 0 if at else -_EINVAL

    def submit_dynptr(self, r1: int, *_: int) -> int:
        del self.dynptrs[r1]
        return 0

    def discard_dynptr(self, r1: int, *_: int) -> int:
        at, _size = self.dynptrs.pop(r1)
        self.discard(at)
        return 0

    def _part(self, slot: int, offset: int, length: int) -> int:
        """Address of a part of the data, or a negative errno."""
        at, size = self.dynptrs[slot]
        offset, length = offset & 0xFFFFFFFF, length & 0xFFFFFFFF
        if not at:
            return -_EINVAL
        return -_E2BIG if length > size or offset > size - length else at + offset

    def dynptr_read(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        length = r2 & 0xFFFFFFFF
        self._bytes(r1, length)
        if r5:
            return -_EINVAL
        at = self._part(r3, r4, length)
        if at < 0:
            return at
        self._put(r1, self._bytes(at, length))
        return 0

    def dynptr_write(self, r1: int, r2: int, r3: int, r4: int, r5: int) -> int:
        data = self._bytes(r3, r4 & 0xFFFFFFFF)
        at = self._part(r1, r2, len(data))
        if at < 0 or r5:
            return at if at < 0 else -_EINVAL
        self._put(at, data)
        return 0

    def dynptr_data(self, r1: int, r2: int, r3: int, *_: int) -> int:
        return max(self._part(r1, r2, r3), 0)

    # number iterators: (last number, end), by the address of the slot

    def iter_new(self, r1: int, r2: int, r3: int) -> int:
        self._bytes(r1, 8)
        low, high = (value - (1 << 32) if value & 1 << 31 else value for value in (r2 & 0xFFFFFFFF, r3 & 0xFFFFFFFF))
        self.iterators[r1] = (low - 1, high)
        if low > high:
            self.iterators[r1] = (0, 0)
            return -_EINVAL
        if high - low > 1 << 23:
            self.iterators[r1] = (0, 0)
            return -_E2BIG
        return 0

    def iter_next(self, r1: int, *_: int) -> int:
        last, end = self.iterators[r1]
        if last + 1 >= end:
            self.iterators[r1] = (0, 0)
            return 0
        self.iterators[r1] = (last + 1, end)
        place = 0x68_0000_0000 + self.shift + (r1 & 0xFFFFF) * 8
        self.regions[place] = bytearray(((last + 1) & 0xFFFFFFFF).to_bytes(4, "little"))
        return place

    def iter_destroy(self, r1: int, *_: int) -> int:
        del self.iterators[r1]
        return 0

    def nothing(self, *_: int) -> int:
        return 0

    def submit(self, *_: int) -> int:
        return 0

    def discard(self, r1: int, *_: int) -> int:
        self.ring = [record for record in self.ring if record[0] != r1]
        return 0

    def output(self, r1: int, r2: int, r3: int, r4: int, _: int) -> int:
        data = self._bytes(r2, r3)
        at = self.reserve(r1, r3, 0)
        if r4 or not at:
            return -_EINVAL if r4 else -11
        self._put(at, data)
        return 0


HELPERS: dict[int, Callable[..., int]] = {
    1: Shadow.lookup, 2: Shadow.update, 3: Shadow.delete, 113: Shadow.probe_read, 5: Shadow.unknown, 7: Shadow.unknown,
    8: Shadow.cpu, 14: Shadow.unknown, 181: Shadow.loop, 164: Shadow.for_each, 130: Shadow.output, 131: Shadow.reserve,
    132: Shadow.submit, 133: Shadow.discard, 197: Shadow.dynptr_from_mem, 198: Shadow.reserve_dynptr,
    199: Shadow.submit_dynptr, 200: Shadow.discard_dynptr, 201: Shadow.dynptr_read, 202: Shadow.dynptr_write,
    203: Shadow.dynptr_data,
}  # fmt: skip
"""Every helper that generated programs call, but bpf_tail_call, which is no call."""
KFUNCS: dict[str, Callable[..., int]] = {
    "bpf_iter_num_new": Shadow.iter_new, "bpf_iter_num_next": Shadow.iter_next, "bpf_iter_num_destroy": Shadow.iter_destroy,
    "bpf_rcu_read_lock": Shadow.nothing, "bpf_rcu_read_unlock": Shadow.nothing, "bpf_preempt_disable": Shadow.nothing,
    "bpf_preempt_enable": Shadow.nothing,
}  # fmt: skip
"""And every kernel function."""
