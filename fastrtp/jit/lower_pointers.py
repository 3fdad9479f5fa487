"""Which registers hold a known base plus an offset: the forward dataflow behind good addresses.

A register is `None` (an i64 like any other), or `(base, offset)` with a constant offset, or `(base, None)` when the
offset varies. Bases are the frame pointer ("fp"), the context ("ctx"), the memory of a map's values ("@symbol"), and
what an instruction loaded or a call returned ("p<index>") or a subprogram was given ("p.a<N>"), if it is used as an
address at all. Accesses through such a register become a getelementptr on the base, so LLVM knows what they touch:
stack slots become registers, loops over memory vectorise, and a store to a map does not make it read the context again.

The dataflow also finds which part of the stack is private: slots that are only ever accessed at constant offsets, below
everything whose address leaves the function (a helper reads upwards from the pointer that it is given).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastrtp.isa import BPF_REG_FP, MAX_BPF_REG, Insn, Kind, Row
from fastrtp.jit.lower_cfg import Function, refuse

Pointer = tuple[str, int | None] | None
State = list[Pointer]
STACK_SIZE = 512
"""Bytes of a frame (MAX_BPF_STACK)."""

_DERIVING = ("add", "sub")


class PointerFlow:
    """The dataflow over one function. `symbol(index)` gives (base, offset) of an ld_imm64 that refers to map values.

    `checked(index)`: the load there is range-checked, so its address is used as a number. `known` False: no base but the
    frame pointer is (CodeOptions.bases). `states`: at the start of each block.
    """

    def __init__(
        self,
        function: Function,
        insns: Sequence[Insn],
        symbol: Callable[[int], tuple[str, int] | None],
        checked: Callable[[int], bool],
        *,
        main: bool,
        known: bool = True,
    ) -> None:
        self.function = function
        self.insns = insns
        self._symbol = symbol if known else _no_symbol
        main = main and known
        self._checked = checked
        # First every number is taken for a base, to see which are used as addresses; then only those are.
        self._bases: set[str] | None = None if known else set()
        self.entry = self._entry(main)
        self.states = self._solve()
        self._bases = self._addresses() if known else set()
        self.entry = self._entry(main)
        self.states = self._solve()

    def is_base(self, base: str) -> bool:
        """What an instruction (`p<index>`) or an argument (`p.a<N>`) yields is used as an address."""
        return self._bases is None or base in self._bases

    def transfer(self, state: State, index: int) -> None:
        """State after the instruction at `index`, in place."""
        row, insn = self.function.rows[index], self.insns[index]
        dst = insn.dst_reg
        match row.kind:
            case Kind.LD_IMM64:
                state[dst] = self._symbol(index) if row.op in ("map_value", "map_idx_value") else None
            case Kind.MOV if row.x and row.wide:
                state[dst] = state[insn.src_reg]
            case Kind.ALU if row.wide and row.op in _DERIVING:
                state[dst] = derived(state, row, insn)
            case Kind.LOAD if row.size == 64:
                self._define(state, dst, index)
            case Kind.ALU | Kind.MOV | Kind.MOVSX | Kind.NEG | Kind.END | Kind.BSWAP | Kind.LOAD:
                state[dst] = None
            case Kind.CALL | Kind.PSEUDO_CALL:
                state[:6] = [None] * 6
                self._define(state, 0, index)
            case Kind.ATOMIC:
                if row.op == "load_acquire":
                    state[dst] = None
                elif row.op == "cmpxchg":
                    state[0] = None
                elif row.op == "xchg" or row.op.startswith("fetch_"):
                    state[insn.src_reg] = None

    def address(self, index: int) -> int | None:
        """Register that the instruction at `index` accesses memory through."""
        row, insn = self.function.rows[index], self.insns[index]
        match row.kind:
            case Kind.LOAD:
                return None if self._checked(index) else insn.src_reg
            case Kind.STORE | Kind.STORE_IMM:
                return insn.dst_reg
            case Kind.ATOMIC:
                return insn.src_reg if row.op == "load_acquire" else insn.dst_reg
        return None

    def _entry(self, main: bool) -> State:
        state: State = [None] * MAX_BPF_REG
        state[BPF_REG_FP] = ("fp", 0)
        if main:
            state[1] = ("ctx", 0)
        else:
            for register in range(1, 6):
                if self.is_base(f"p.a{register}"):
                    state[register] = (f"p.a{register}", 0)
        return state

    def _define(self, state: State, register: int, index: int) -> None:
        # No pointer of the last time that the instruction ran can be left: a base is only known where every path comes
        # from the instruction, and none does where it runs for the first time.
        base = f"p{index}"
        state[register] = (base, 0) if self.is_base(base) else None

    def _solve(self) -> dict[int, State]:
        start = self.function.start
        states: dict[int, State] = {start: list(self.entry)}
        pending = [start]
        while pending:
            block = self.function.blocks[pending.pop()]
            state = list(states[block.start])
            for index in block.insns(self.function):
                self.transfer(state, index)
            for succ in block.succs:
                known = states.get(succ)
                merged = list(state) if known is None else [_merge(a, b) for a, b in zip(known, state, strict=True)]
                if merged != known:
                    states[succ] = merged
                    pending.append(succ)
        return states

    def _addresses(self) -> set[str]:
        bases = set()
        for block in self.function.blocks.values():
            state = list(self.states[block.start])
            for index in block.insns(self.function):
                register = self.address(index)
                if register is not None and (pointer := state[register]) is not None:
                    bases.add(pointer[0])
                self.transfer(state, index)
        return bases


def _no_symbol(_index: int) -> None:
    return None


def derived(state: State, row: Row, insn: Insn) -> Pointer:
    """What a 64-bit addition or subtraction leaves in its destination."""
    pointer = state[insn.dst_reg]
    if not row.x:
        if pointer is None or pointer[1] is None:
            return pointer
        return pointer[0], pointer[1] + (insn.imm if row.op == "add" else -insn.imm)
    other = state[insn.src_reg]
    if pointer is not None and other is None:
        return pointer[0], None
    if pointer is None and other is not None and row.op == "add":
        return other[0], None
    return None


def _merge(a: Pointer, b: Pointer) -> Pointer:
    if a == b:
        return a
    return (a[0], None) if a is not None and b is not None and a[0] == b[0] else None


def slot_name(offset: int) -> str:
    """LLVM name of the private piece of the stack at fp + offset."""
    return f"%fp.{-offset}"


class StackUse:
    """What a function does with its frame: accesses that end at or below fp + `floor` are private.

    `slots`: [(offset, size)] of the private pieces: what no access overlaps from outside.
    `arguments(index)`: mask of the registers that a call reads; `reads_upwards(index)`: it reads no memory below the
    pointers in them. `private` False: nothing is (CodeOptions.private_stack). JitError for an access outside the frame.
    """

    def __init__(
        self, flow: PointerFlow, arguments: Callable[[int], int], reads_upwards: Callable[[int], bool], *, private: bool = True
    ) -> None:
        self.floor = 0
        self._flow = flow
        self._arguments = arguments
        self._reads_upwards = reads_upwards
        self._accesses: set[tuple[int, int]] = set()
        self._words: dict[int, int] = {}
        self._odd: set[int] = set()
        function = flow.function
        for block in function.blocks.values():
            state = list(flow.states[block.start])
            for index in block.insns(function):
                self._access(state, index)
                self._escape(state, index)
                flow.transfer(state, index)
            for succ in block.succs:
                for register in range(BPF_REG_FP):
                    if function.blocks[succ].live_in >> register & 1 and flow.states[succ][register] is None:
                        self._leaves(state, register)
        if not private:
            self.floor = min([self.floor, *(offset for offset, _ in self._accesses)])
        for offset, size in sorted(self._accesses, reverse=True):
            if offset < self.floor < offset + size:
                self.floor = offset
        self.slots = self._pieces()
        whole = {offset for offset, size in self.slots if size == 8 and not self._odd & set(range(offset, offset + size))}
        self._words = {index: offset for index, offset in self._words.items() if offset in whole}

    def private(self, offset: int) -> tuple[str, int] | None:
        """(name, offset in it) of the private piece that fp + `offset` is in; None where the stack is not private."""
        for start, size in self.slots:
            if start <= offset < start + size:
                return slot_name(start), offset - start
        return None

    def word_at(self, index: int) -> int | None:
        """Offset of the private piece of 8 bytes that the instruction at `index` loads or stores as a whole.

        None for pieces that are ever accessed otherwise.
        """
        return self._words.get(index)

    def _pieces(self) -> list[tuple[int, int]]:
        pieces: list[tuple[int, int]] = []
        for offset, size in sorted(self._accesses):
            if offset + size > self.floor:
                continue
            if pieces and offset < sum(pieces[-1]):
                start, end = pieces[-1][0], max(sum(pieces[-1]), offset + size)
                pieces[-1] = start, end - start
            else:
                pieces.append((offset, size))
        return pieces

    def _access(self, state: State, index: int) -> None:
        register = self._flow.address(index)
        pointer = None if register is None else state[register]
        if pointer is None or pointer[0] != "fp":
            return
        if pointer[1] is None:
            self.floor = -STACK_SIZE
            return
        offset, size = pointer[1] + self._flow.insns[index].off, self._flow.function.rows[index].size // 8
        if not -STACK_SIZE <= offset <= -size:
            raise refuse(index, self._flow.insns, f"stack access at fp{offset:+d} is outside the frame of {STACK_SIZE} bytes")
        self._accesses.add((offset, size))
        if size == 8 and self._flow.function.rows[index].kind in (Kind.LOAD, Kind.STORE, Kind.STORE_IMM):
            self._words[index] = offset
        else:
            self._odd.add(offset)

    def _escape(self, state: State, index: int) -> None:
        row, insn = self._flow.function.rows[index], self._flow.insns[index]
        match row.kind:
            case Kind.STORE | Kind.ATOMIC if row.x:
                self._leaves(state, insn.src_reg)
                if row.op == "cmpxchg":
                    self._leaves(state, 0)
            case Kind.CALL | Kind.PSEUDO_CALL:
                arguments, upwards = self._arguments(index), self._reads_upwards(index)
                for register in range(1, 6):
                    if arguments >> register & 1:
                        self._leaves(state, register, upwards=upwards)
            case Kind.LOAD if self._flow.address(index) is None:
                self._leaves(state, insn.src_reg)
            case Kind.ALU if not row.wide or row.op not in _DERIVING or derived(state, row, insn) is None:
                self._leaves(state, insn.dst_reg)
                if row.x:
                    self._leaves(state, insn.src_reg)
            case Kind.MOV if row.x and not row.wide:
                self._leaves(state, insn.src_reg)
            case Kind.MOVSX:
                self._leaves(state, insn.src_reg)
            case Kind.NEG | Kind.END | Kind.BSWAP:
                self._leaves(state, insn.dst_reg)

    def _leaves(self, state: State, register: int, *, upwards: bool = False) -> None:
        """The register's value becomes a number; `upwards`: only bytes at and above it can be reached through it."""
        pointer = state[register]
        if pointer is not None and pointer[0] == "fp":
            self.floor = min(self.floor, pointer[1]) if upwards and pointer[1] is not None else -STACK_SIZE
