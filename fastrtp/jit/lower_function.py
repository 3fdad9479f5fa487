"""One function's text: instruction by instruction, block by block."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastrtp.isa import BPF_PSEUDO_CALL, MAX_BPF_REG, Insn, Kind, Row
from fastrtp.jit import lower_values
from fastrtp.jit.lower_alu import is_number, signed
from fastrtp.jit.lower_bits import BitFlow, EveryBit
from fastrtp.jit.lower_calls import call, call_subprog
from fastrtp.jit.lower_cfg import ENDS_BLOCK, R1_TO_R5, Block, Function, build, liveness, refuse
from fastrtp.jit.lower_memory import atomic, checked_load
from fastrtp.jit.lower_metadata import Metadata
from fastrtp.jit.lower_pointers import PointerFlow, StackUse, State, slot_name
from fastrtp.jit.lower_registers import MemoryBytes, Registers
from fastrtp.uapi import BPF_MAX_LOOPS

if TYPE_CHECKING:
    from fastrtp.jit.lower import CallTarget, LowerInput

_MAX_DEPTH = 64
_FP = re.compile(r"%fp(?![.\w])")


class Module:
    """What the functions of one program share: names, declarations, call targets."""

    def __init__(self, program: LowerInput) -> None:
        self.program = program
        self._starts = {start: number for number, (start, _) in enumerate(program.subprogs)}
        self._declared: dict[str, str] = {}
        self._targets: dict[int, CallTarget] = {}
        self._functions: dict[int, Function] = {}
        self._being_read: set[int] = set()
        self.metadata = Metadata()
        self.constants: dict[str, str] = {}
        """Name of the constant with the same content, by the name of the memory that programs address."""

    def function_name(self, number: int) -> str:
        """LLVM name of function `number`; 0 is the entry."""
        return f"@{_quoted(self.program.name)}" if number == 0 else f"@{_quoted(f'{self.program.name}.sub{number}')}"

    def function(self, number: int) -> Function:
        """Blocks and liveness of function `number`."""
        found = self._functions.get(number)
        if found is None:
            self._being_read.add(number)
            start, end = self.program.subprogs[number]
            found = build(self.program.insns, start, end, self.program.aux)
            liveness(found, self.program.insns, self.arguments)
            self._being_read.remove(number)
            self._functions[number] = found
        return found

    def arguments(self, index: int) -> int:
        """Mask of the registers that the call at `index` reads."""
        insn = self.program.insns[index]
        if insn.src_reg != BPF_PSEUDO_CALL:
            return (2 << self.target(index).args) - 2
        number = self.subprog_at(index, index + 1 + insn.imm)
        if number in self._being_read or len(self._being_read) > _MAX_DEPTH:
            return R1_TO_R5  # recursion, or a chain of calls longer than any verified one: all of them, for all we know
        callee = self.function(number)
        return callee.blocks[callee.start].live_in & R1_TO_R5

    def subprog_at(self, index: int, start: int) -> int:
        """Number of the function that begins at instruction `start`, which instruction `index` refers to."""
        number = self._starts.get(start)
        if number is None:
            raise refuse(index, self.program.insns, f"no function starts at insn {start}")
        if number == 0:
            raise refuse(index, self.program.insns, "the main function cannot be called")
        return number

    def target(self, index: int) -> CallTarget:
        """Target of the helper call at `index`."""
        target = self._targets.get(index)
        if target is None:
            try:
                target = self.program.resolve(index, self.program.insns[index])
            except KeyError:
                raise refuse(index, self.program.insns, "the helper has no native function") from None
            self._targets[index] = target
        return target

    def declare(self, symbol: str, parameters: str) -> str:
        """Name of an external function that takes `parameters` and gives an i64."""
        name = f"@{_quoted(symbol)}"
        self._declared.setdefault(name, f"declare i64 {name}({parameters}) nounwind")
        return name

    def map_symbol(self, index: int) -> str:
        """Name of the external global that the ld_imm64 at `index` refers to."""
        try:
            symbol = self.program.map_symbols(index)
        except KeyError:
            raise refuse(index, self.program.insns, "refers to nothing that has an address") from None
        return self.declare_global(symbol)

    def declare_global(self, symbol: str) -> str:
        """Name of an external global."""
        name = f"@{_quoted(symbol)}"
        # no size: an access at any offset is inside, for all that LLVM knows
        self._declared.setdefault(name, f"{name} = external global [0 x i8]")
        return name

    def zeros(self, size: int) -> str:
        """Address, as an i64, of that many zero bytes."""
        name = f"@zeros.{size}"
        self._declared.setdefault(name, f"{name} = private unnamed_addr constant [{size} x i8] zeroinitializer, align 8")
        return f"ptrtoint (ptr {name} to i64)"

    def map_value(self, index: int) -> tuple[str, int]:
        """(base, offset) of an ld_imm64 that refers into a map's values."""
        name = self.map_symbol(index)
        content = None if name in self.constants else self.program.constants(index)
        if content is not None:
            # loads read a copy that LLVM can look into; whoever wants the address gets that of the map
            copy = self.constants[name] = f"@constant.{len(self.constants)}"
            data = "".join(f"\\{byte:02x}" for byte in content)
            self._declared[copy] = f'{copy} = private unnamed_addr constant [{len(content)} x i8] c"{data}", align 8'
        return name, self.program.insns[index + 1].imm

    @property
    def call_suffix(self) -> str:
        """What stands behind the call of a helper."""
        return "" if self.program.options.inline else " noinline"

    def unreached(self, number: int) -> str:
        """A function that nobody calls."""
        return f"define internal i64 {self.function_name(number)}(i64, i64, i64, i64, i64, ptr) #0 {{\n  ret i64 0\n}}"

    def declarations(self) -> list[str]:
        """Declarations; complete once all functions are written."""
        return [*self._declared.values(), ""]

    def trailer(self) -> list[str]:
        """Attributes and metadata."""
        anywhere = "" if self.program.options.host_cpu else ' "target-cpu"="generic" "target-features"=""'
        return [f"attributes #0 = {{ nounwind{anywhere} }}", *self.metadata.lines()]


def _zeroes(name: str, size: int) -> str:
    # an intrinsic that optimisation knows how to take apart, unlike the store of an array
    return f"  call void @llvm.memset.p0.i64(ptr align 1 {name}, i8 0, i64 {size}, i1 false)"


def _quoted(name: str) -> str:
    """An LLVM identifier; what is no plain name is quoted, its odd bytes in hex."""
    if re.fullmatch(r"[A-Za-z._$][A-Za-z0-9._$]*", name):
        return name
    plain = re.compile(rb"[ !#-\[\]-~]")
    return '"' + "".join(chr(byte) if plain.match(bytes([byte])) else f"\\{byte:02x}" for byte in name.encode()) + '"'


class FunctionLowering:
    """Text of function `number` of a module."""

    def __init__(self, module: Module, number: int) -> None:
        program = module.program
        self.module = module
        self.number = number
        self.insns: Sequence[Insn] = program.insns
        self.aux = program.aux
        self.function = module.function(number)
        options = program.options
        self.flow = PointerFlow(
            self.function, self.insns, module.map_value, self._is_checked, main=number == 0, known=options.bases
        )
        self.stack = StackUse(self.flow, module.arguments, self._reads_upwards, private=options.private_stack)
        bits = BitFlow if options.narrow and options.whole_slots else EveryBit
        self.bits = bits(self.function, self.insns, module.arguments, self.stack.word_at)
        self.regs = Registers(self.emit, self.line, self.stack.private, whole_slots=options.whole_slots)
        self._lines: list[str] = []
        self._names = 0
        self._place = ""
        name = module.function_name(number).strip('@"')
        self._subprogram = module.metadata.subprogram(name, self.function.start) if program.debug else None

    def _is_checked(self, index: int) -> bool:
        return self.aux is not None and self.aux[index].access == "btf"

    def _reads_upwards(self, index: int) -> bool:
        """The call reads no memory below the pointers that it is given."""
        if self.insns[index].src_reg == BPF_PSEUDO_CALL:
            return False
        return self.module.target(index).kind not in ("loop", "for_each")

    def emit(self, text: str) -> str:
        """Append an instruction that yields a value; its name."""
        self._names += 1
        name = f"%v{self._names}"
        self._lines.append(f"  {name} = {text}{self._place}")
        return name

    def line(self, text: str) -> None:
        """Append an instruction that yields nothing."""
        self._lines.append(f"  {text}{self._place}")

    def label(self) -> str:
        """A new label's name."""
        self._names += 1
        return f"l{self._names}"

    def begin(self, label: str) -> None:
        """Start the LLVM block `label`; values made so far stay usable (it follows in straight line)."""
        self._lines.append(f"{label}:")

    def text(self) -> str:
        """The whole definition."""
        self._enter()
        entry, self._lines = self._lines, []
        for block in self.function.blocks.values():
            self._block(block)
        head = self._head()
        slots = [f"  {slot} = alloca i64" for slot in sorted(self.regs.slots)]
        self._lines = entry + self._lines
        return "\n".join([head, "entry:", *self._frame(), *slots, *self._lines, "}"])

    def _head(self) -> str:
        name = self.module.function_name(self.number)
        end = "#0 {" if self._subprogram is None else f"#0 !dbg !{self._subprogram} {{"
        if self.number == 0:
            # The kernel's context is written by nobody while the program runs; a test vector may write through any pointer.
            noalias = "noalias " if self._apart else ""
            return f"define i64 {name}(ptr {noalias}%ctx, ptr %env) {end}"
        return f"define internal i64 {name}(i64 %a1, i64 %a2, i64 %a3, i64 %a4, i64 %a5, ptr %env) {end}"

    def _frame(self) -> list[str]:
        lines = []
        if any(row.kind is Kind.MAY_GOTO for row in self.function.rows.values()):
            lines += ["  %may_goto = alloca i64", f"  store i64 {BPF_MAX_LOOPS}, ptr %may_goto"]
        # A privileged program may read stack that it never wrote. To LLVM that would be any value, and another one at
        # each use: it could pass a bounds check as one and index memory as another. Zeroes that nobody reads are dropped.
        for offset, size in self.stack.slots:
            kind = "i32" if offset in self.bits.narrow_slots else f"i{size * 8}" if size in (1, 2, 4, 8) else f"[{size} x i8]"
            name = slot_name(offset)
            lines.append(f"  {name} = alloca {kind}")
            lines.append(f"  store {kind} 0, ptr {name}" if kind[0] == "i" else _zeroes(name, size))
        if any(_FP.search(line) for line in self._lines):
            size = -self.stack.floor + 15 & -16
            lines += [f"  %stack = alloca [{size} x i8], align 16", _zeroes("%stack", size)]
            lines.append(f"  %fp = getelementptr i8, ptr %stack, i64 {size}")
        return lines

    def _enter(self) -> None:
        regs = self.regs
        self._at(self.function.start)
        regs.enter([None] * MAX_BPF_REG, 0)
        for register in range(MAX_BPF_REG - 1):
            regs.set_full(register, "0")
        live = self.function.blocks[self.function.start].live_in
        if self.number:
            for register in range(1, 6):
                self.define(register, f"%a{register}", f"p.a{register}")
        else:
            if self.flow.entry[1] is None:
                regs.set_full(1, self.emit("ptrtoint ptr %ctx to i64"))
            else:
                regs.set_offset(1, "ctx", "0")
            if self.aux is None and live & 1 << 2:
                regs.set_full(2, self.emit("ptrtoint ptr %env to i64"))
        regs.save(live, [self._wanted(self.function.start)])
        self.line(f"br label %b{self.function.start}")

    def _at(self, index: int) -> None:
        if self._subprogram is not None:
            self._place = self.module.metadata.place(index, self._subprogram)

    def _block(self, block: Block) -> None:
        self.begin(f"b{block.start}")
        self.regs.enter(self.flow.states[block.start], self.bits.narrow(block.start))
        for index in block.insns(self.function):
            self._at(index)
            self._insn(index, self.insns[index], self.function.rows[index], block)
        last = self.function.rows.get(block.end - 1)
        if last is None or last.kind not in ENDS_BLOCK:
            self._leave(block)
            self.line(f"br label %b{block.succs[0]}")

    def define(self, register: int, value: str, base: str) -> None:
        """Write a number that may be an address: `base` is its name as one."""
        if self.flow.is_base(base):
            self.line(f"%{base} = inttoptr i64 {value} to ptr")
            self.regs.set_offset(register, base, "0", value)
        else:
            self.regs.set_full(register, value)

    def _leave(self, block: Block) -> None:
        self.regs.save(block.live_out, [self._wanted(succ) for succ in block.succs])

    def _wanted(self, start: int) -> tuple[int, State, int]:
        """What the block at `start` reads of the registers: live mask, states, mask of those that it takes as 32 bits."""
        return self.function.blocks[start].live_in, self.flow.states[start], self.bits.narrow(start)

    def _insn(self, index: int, insn: Insn, row: Row, block: Block) -> None:
        regs = self.regs
        dst, src = insn.dst_reg, insn.src_reg
        match row.kind:
            case Kind.ALU:
                lower_values.arithmetic(self, index, insn, row)
            case Kind.MOV if not row.x:
                regs.set_full(dst, str(insn.imm)) if row.wide else regs.set_low(dst, str(insn.imm))
            case Kind.MOV:
                regs.copy(dst, src) if row.wide else regs.set_low(dst, regs.low(src))
            case Kind.MOVSX:
                lower_values.movsx(self, insn, row)
            case Kind.NEG:
                lower_values.negate(self, index, insn, row)
            case Kind.END | Kind.BSWAP:
                lower_values.byte_order(self, dst, row)
            case Kind.LOAD:
                self._load(index, insn, row)
            case Kind.STORE | Kind.STORE_IMM:
                self._store(index, insn, row)
                regs.memory_written()
            case Kind.ATOMIC:
                atomic(self, insn, row)
                regs.memory_written()
            case Kind.LD_IMM64:
                self._ld_imm64(index, insn, row)
            case Kind.CALL:
                call(self, index)
                regs.memory_written()
            case Kind.PSEUDO_CALL:
                call_subprog(self, index)
                regs.memory_written()
            case Kind.EXIT:
                self.line(f"ret i64 {regs.full(0)}")
            case Kind.JUMP:
                self._leave(block)
                self.line(f"br label %b{block.succs[0]}")
            case Kind.BRANCH | Kind.MAY_GOTO:
                self._branch(index, insn, row, block)

    def _load(self, index: int, insn: Insn, row: Row) -> None:
        regs, bits = self.regs, row.size
        if self.stack.word_at(index) in self.bits.narrow_slots:
            pointer = regs.pointer(insn.src_reg, insn.off, bits // 8)
            regs.set_low(insn.dst_reg, self.emit(f"load i32, ptr {pointer}"))
            return
        made = None
        if self._is_checked(index):
            value = checked_load(self, insn, row)
        else:
            start, at = regs.place(insn.src_reg, insn.off, bits // 8, self.module.constants)
            value = self.emit(f"load i{bits}, ptr {regs.pointer_to(start, at)}, align 1{self._access(index)}")
            made = MemoryBytes(start, at, bits // 8)
        if bits == 64:
            self.define(insn.dst_reg, value, f"p{index}")
        elif row.signed:
            regs.set_full(insn.dst_reg, self.emit(f"sext i{bits} {value} to i64"))
        elif bits == 32:
            regs.set_low(insn.dst_reg, value)
        else:
            regs.set_full(insn.dst_reg, self.emit(f"zext i{bits} {value} to i64"))
        if made is not None and bits < 64 and not row.signed:
            regs.set_bytes(insn.dst_reg, made)

    def _store(self, index: int, insn: Insn, row: Row) -> None:
        regs, bits = self.regs, row.size
        if self.stack.word_at(index) in self.bits.narrow_slots:
            value = regs.low(insn.src_reg) if row.kind is Kind.STORE else str(insn.imm)
            self.line(f"store i32 {value}, ptr {regs.pointer(insn.dst_reg, insn.off, bits // 8)}")
            return
        if row.kind is Kind.STORE_IMM:
            value = str(signed(insn.imm, bits))
        elif bits == 64:
            value = regs.full(insn.src_reg)
        elif bits == 32:
            value = regs.low(insn.src_reg)
        else:
            value = regs.full(insn.src_reg)
            value = str(signed(int(value), bits)) if is_number(value) else self.emit(f"trunc i64 {value} to i{bits}")
        pointer = regs.pointer(insn.dst_reg, insn.off, bits // 8)
        self.line(f"store i{bits} {value}, ptr {pointer}, align 1{self._access(index)}")

    def _access(self, index: int) -> str:
        return self.module.metadata.access(self.aux[index].access) if self.aux is not None and self._apart else ""

    @property
    def _apart(self) -> bool:
        """Whether the kinds of memory can be told apart: the verifier has said which an access is to."""
        return self.aux is not None and self.module.program.options.apart

    def _ld_imm64(self, index: int, insn: Insn, row: Row) -> None:
        regs = self.regs
        if row.op == "imm":
            number = (self.insns[index + 1].imm & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF
            regs.set_full(insn.dst_reg, str(signed(number, 64)))
        elif row.op in ("map_value", "map_idx_value"):
            base, offset = self.module.map_value(index)
            if self.module.program.options.bases:
                regs.set_offset(insn.dst_reg, base, str(offset))
            else:
                regs.set_full(insn.dst_reg, self.emit(f"ptrtoint ptr getelementptr (i8, ptr {base}, i64 {offset}) to i64"))
        elif row.op == "func":
            name = self.module.function_name(self.module.subprog_at(index, index + 1 + insn.imm))
            regs.set_full(insn.dst_reg, self.emit(f"ptrtoint ptr {name} to i64"))
        else:
            regs.set_full(insn.dst_reg, self.emit(f"ptrtoint ptr {self.module.map_symbol(index)} to i64"))

    def _branch(self, index: int, insn: Insn, row: Row, block: Block) -> None:
        if row.kind is Kind.MAY_GOTO:
            left = self.emit("load i64, ptr %may_goto")
            condition = self.emit(f"icmp eq i64 {left}, 0")
            less = self.emit(f"sub i64 {left}, 1")
            less = self.emit(f"select i1 {condition}, i64 0, i64 {less}")
            self.line(f"store i64 {less}, ptr %may_goto")
        else:
            condition = lower_values.condition(self, index, insn, row)
        self._leave(block)
        if len(block.succs) == 1:
            self.line(f"br label %b{block.succs[0]}")
        else:
            self.line(f"br i1 {condition}, label %b{block.succs[1]}, label %b{block.succs[0]}")
