"""The registers of one function while its text is written.

Each register has a slot (`%r<N>.slot`, an i64 alloca) that carries it between blocks, one of 32 bits for where these are
enough (`%w<N>.slot`), and one for its offset where the dataflow knows its base (`%o<N>.slot`); mem2reg turns them into SSA
values. Inside a block the current value is an SSA name or a
literal, kept in up to three forms that are made when asked for: all 64 bits, the lower 32 (zero-extended when all are
wanted), and the offset from a known base. Slots are written at the end of a block, and only for registers that are
live there, so neither a dead value nor a pointer that is only used as an address is ever written down as a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from fastrtp.isa import MAX_BPF_REG
from fastrtp.jit.lower_alu import is_number, signed
from fastrtp.jit.lower_pointers import State


@dataclass(frozen=True, slots=True)
class MemoryBytes:
    """`count` bytes of memory at `start` (a ptr) + `at`, as a little-endian number shifted left by `shift` bytes."""

    start: str
    at: int
    count: int
    shift: int = 0

    def shifted(self, bits: int) -> MemoryBytes | None:
        """The number shifted left, where no byte is lost."""
        shift = self.shift + bits // 8
        return None if bits % 8 or shift + self.count > 8 else replace(self, shift=shift)

    def joined(self, other: MemoryBytes) -> MemoryBytes | None:
        """Both in one number, where each byte has its place."""
        low, high = (self, other) if self.at < other.at else (other, self)
        if low.start != high.start or low.at + low.count != high.at or low.shift + low.count != high.shift:
            return None
        return replace(low, count=low.count + high.count)


class Registers:
    """Current values. `emit` appends an instruction that yields a value, `line` one that yields none.

    `slot(offset)`: name and offset of the private piece of the stack that fp + offset is in, or None. `whole_slots`: see
    CodeOptions.
    """

    def __init__(
        self, emit: Callable[[str], str], line: Callable[[str], None], slot: Callable[[int], tuple[str, int] | None],
        *, whole_slots: bool = True,
    ) -> None:  # fmt: skip
        self._whole_slots = whole_slots
        self._private = slot
        self._emit = emit
        self._line = line
        self._full: list[str | None] = [None] * MAX_BPF_REG
        self._low: list[str | None] = [None] * MAX_BPF_REG
        self._offset: list[str | None] = [None] * MAX_BPF_REG
        self._saved_full = [False] * MAX_BPF_REG
        self._saved_low = [False] * MAX_BPF_REG
        self._saved_offset = [False] * MAX_BPF_REG
        self._pointers: dict[tuple[str, str], str] = {}
        self._bytes: list[MemoryBytes | None] = [None] * MAX_BPF_REG
        self.state: State = [None] * MAX_BPF_REG
        self.slots: set[str] = set()

    def enter(self, state: State, narrow: int) -> None:
        """Start a block: every register is in its slot (of 32 bits for those in `narrow`), or known from the dataflow."""
        self.state = list(state)
        for values in (self._full, self._low, self._offset):
            values[:] = [None] * MAX_BPF_REG
        self._bytes[:] = [None] * MAX_BPF_REG
        self._saved_low[:] = [pointer is None and bool(narrow >> register & 1) for register, pointer in enumerate(state)]
        self._saved_full[:] = [pointer is None and not narrow >> register & 1 for register, pointer in enumerate(state)]
        self._saved_offset[:] = [pointer is not None and pointer[1] is None for pointer in state]
        self._pointers.clear()

    def full(self, register: int) -> str:
        """All 64 bits."""
        value = self._full[register]
        if value is None:
            low = self.low(register) if self._saved_low[register] else self._low[register]
            if low is not None:
                value = str(int(low) & 0xFFFFFFFF) if is_number(low) else self._emit(f"zext i32 {low} to i64")
            elif self.state[register] is not None:
                value = self._address(register)
            else:
                value = self._emit(f"load i64, ptr {self._slot('r', register)}")
            self._full[register] = value
        return value

    def low(self, register: int) -> str:
        """The lower 32 bits."""
        value = self._low[register]
        if value is None:
            if self._saved_low[register] and self._full[register] is None:
                value = self._emit(f"load i32, ptr {self._slot('w', register)}")
            elif self._saved_full[register] and self._full[register] is None and not self._whole_slots:
                return self._emit(f"load i32, ptr {self._slot('r', register)}")
            else:
                full = self.full(register)
                value = str(signed(int(full), 32)) if is_number(full) else self._emit(f"trunc i64 {full} to i32")
            self._low[register] = value
        return value

    def offset(self, register: int) -> str:
        """Distance from the base of a register whose base is known."""
        pointer = self.state[register]
        assert pointer is not None
        if pointer[1] is not None:
            return str(pointer[1])
        value = self._offset[register]
        if value is None:
            value = self._offset[register] = self._emit(f"load i64, ptr {self._slot('o', register)}")
        return value

    def set_full(self, register: int, value: str) -> None:
        """Write all 64 bits; no base is known."""
        self._write(register)
        self._full[register] = value

    def set_low(self, register: int, value: str) -> None:
        """Write the lower 32 bits and zero the rest."""
        self._write(register)
        self._low[register] = value

    def set_offset(self, register: int, base: str, offset: str, full: str | None = None) -> None:
        """Write base + offset; a literal offset stays a constant of the dataflow. `full`: the sum, where it is known."""
        self._write(register)
        self._full[register] = full
        if is_number(offset):
            self.state[register] = base, int(offset)
        else:
            self.state[register] = base, None
            self._offset[register] = offset

    def copy(self, dst: int, src: int) -> None:
        """dst = src, in every form that src has."""
        if dst == src:
            return
        if self.state[src] is None and self._low[src] is None:
            if self._saved_low[src]:
                self.low(src)
            else:
                self.full(src)
        else:
            self._keep_offset(src)
        self._write(dst)
        self.state[dst] = self.state[src]
        self._full[dst], self._low[dst], self._offset[dst] = self._full[src], self._low[src], self._offset[src]
        self._bytes[dst] = self._bytes[src]

    def pointer(self, register: int, displacement: int = 0, size: int = 0) -> str:
        """A ptr to register + displacement, through a known base where there is one; `size` bytes will be accessed."""
        return self.pointer_to(*self.place(register, displacement, size))

    def pointer_to(self, start: str, displacement: int) -> str:
        """The ptr `start` + displacement."""
        if not displacement:
            return start
        return self._cached(start, str(displacement), lambda: f"getelementptr i8, ptr {start}, i64 {displacement}")

    def place(
        self, register: int, displacement: int, size: int, copies: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[str, int]:
        """(ptr, displacement from it) of register + displacement. `copies`: bases by the bases that they stand in for."""
        pointer = self.state[register]
        if pointer is None:
            full = self.full(register)
            return self._cached("inttoptr", full, lambda: f"inttoptr i64 {full} to ptr"), displacement
        base = base_name(pointer[0])
        base = copies.get(base, base)
        if pointer[1] is None:
            offset = self.offset(register)
            return self._cached(base, offset, lambda: f"getelementptr i8, ptr {base}, i64 {offset}"), displacement
        displacement += pointer[1]
        private = self._private(displacement) if size and pointer[0] == "fp" else None
        return private or (base, displacement)

    def bytes_of(self, register: int) -> MemoryBytes | None:
        """What a register is made of, where it is bytes from one place in memory that nobody has written since."""
        return self._bytes[register]

    def set_bytes(self, register: int, loaded: MemoryBytes) -> None:
        """Note what a register, just written, is made of."""
        self._bytes[register] = loaded

    def memory_written(self) -> None:
        """Forget what registers are made of."""
        self._bytes[:] = [None] * MAX_BPF_REG

    def save(self, live: int, successors: list[tuple[int, State, int]]) -> None:
        """End a block: write the live registers to the slots that its successors (live mask, state, narrow mask) read."""
        for register in range(MAX_BPF_REG - 1):
            if not live >> register & 1:
                continue
            wanted = [(state[register], narrow >> register & 1) for mask, state, narrow in successors if mask >> register & 1]
            if (None, 0) in wanted and not self._saved_full[register]:
                self._line(f"store i64 {self.full(register)}, ptr {self._slot('r', register)}")
            if (None, 1) in wanted and not self._saved_low[register]:
                self._line(f"store i32 {self.low(register)}, ptr {self._slot('w', register)}")
            if any(pointer is not None and pointer[1] is None for pointer, _ in wanted) and not self._saved_offset[register]:
                self._line(f"store i64 {self.offset(register)}, ptr {self._slot('o', register)}")

    def _write(self, register: int) -> None:
        self.state[register] = None
        self._bytes[register] = None
        self._full[register] = self._low[register] = self._offset[register] = None
        self._saved_full[register] = self._saved_low[register] = self._saved_offset[register] = False

    def _keep_offset(self, register: int) -> None:
        pointer = self.state[register]
        if pointer is not None and pointer[1] is None:
            self.offset(register)

    def _address(self, register: int) -> str:
        pointer = self.pointer(register)
        return self._emit(f"ptrtoint ptr {pointer} to i64")

    def _cached(self, base: str, offset: str, text: Callable[[], str]) -> str:
        name = self._pointers.get((base, offset))
        if name is None:
            name = self._pointers[base, offset] = self._emit(text())
        return name

    def _slot(self, kind: str, register: int) -> str:
        name = f"%{kind}{register}.slot"
        self.slots.add(name)
        return name


def base_name(base: str) -> str:
    """The ptr value of a base: a global, or a value of the function's entry block."""
    return base if base[0] == "@" else f"%{base}"
