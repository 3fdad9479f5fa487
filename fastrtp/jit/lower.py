"""Instructions to LLVM IR text. Pure: no llvmlite, no addresses, nothing of the process.

    entry:        define i64 @<name>(ptr ctx, ptr env)
    subprograms:  define internal i64 @<name>.sub<N>(i64 r1, ..., i64 r5, ptr env)    N counts `subprogs`, the main part is 0
    helpers:      i64 @<symbol>(i64 r1, ..., i64 r<args>, ptr env, <extra>...)

`env` is the running CPU's ENV record. Division, modulo and shifts are defined for every operand as in RFC 9669; memory
is accessed at any alignment. A load that the verifier marked "btf" is range-checked against the arena and gives 0
outside; every other access is trusted. Without a verifier (`aux` None) everything is trusted and r2 starts as the number
passed for env, so that entry(address, length) runs a test vector.

Speed, LLVM 22 at level 2 on x86-64 (Zen 4): the 45 C functions of `python -m bench jit`, compiled by clang -O2 for BPF and
lowered here, run at 0.77 of the time (geometric mean) of the same C compiled by clang 19 -O2, 0.92 with its -march=native, and
bench/jit.py says why where it is not about 1. What made the difference:

- addresses as getelementptr on a known base instead of i64 arithmetic: loops over the context or a loaded pointer
  vectorise (3.4 times slower otherwise), key buffers and spills on the stack become registers once the helper is inlined;
- 64-bit slots with trunc and zext, never a 32-bit load of a slot; a 32-bit result stays i32 until all of it is wanted;
- slots written only where a register is live, arguments passed only where the callee reads them: a stale pointer in r3
  would make its stack slot escape;
- stack slots that no helper can see in an alloca of their own each, zeroed by a store of their own type: zeroing all at once
  as an array of bytes made LLVM carry counters byte by byte (nested_loops: 3.9 times slower than native code, now 1.5);
- 32-bit arithmetic where no higher bit matters (lower_bits): bytecode without 32-bit instructions rotates by 64-bit shifts
  and masks otherwise (jenkins 1.47, murmur3 1.37; now 1.0 and 0.88);
- bytes put together are one load, frozen arrays are constants, kinds of memory that cannot overlap are said not to;
- loops unrolled at most fourfold (alu64 1.5, now 1.16), no gathers (unaligned 1.3, now 0.67): native/engine.py.

What did not: `inbounds`, level 3, vectors of straight code (SLP: calls_with_memory 0.98 to 0.65, but crc32_bitwise 0.77 to 1.03
and nested_loops 1.5 to 5.3), tuning for a generic processor (0.80 to 0.84), no loop strength reduction, merging loads before
the pipeline begins.

Kernel: arch/x86/net/bpf_jit_comp.c:do_jit, kernel/bpf/core.c:___bpf_prog_run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastrtp.isa import Insn
from fastrtp.jit.lower_cfg import InsnFacts, find_subprogs
from fastrtp.jit.lower_function import FunctionLowering, Module
from fastrtp.jit.options import DEFAULT, CodeOptions

__all__ = ["Area", "CallTarget", "InsnFacts", "LowerInput", "find_subprogs", "lower"]


class Area(NamedTuple):
    """An argument of a helper that may be memory of a kernel object: its register, the most bytes that the next one says it
    has, and whether NULL means something of its own.
    """

    register: int
    size: int
    nullable: bool


@dataclass(frozen=True, slots=True)
class CallTarget:
    """Native function of a helper call.

    `args`: how many of r1..r5 it takes; `extra`: LLVM operands after env ("i64 8"). `kind`: "tail_call": the symbol
    returns the native entry of the next program, or 0: then the call fails with r0 = -EINVAL; "loop": expanded in place
    when the callback is known; "for_each": takes a callback's address; "helper": anything else. `first`: the external global
    whose address it takes instead of r1, which names the map. `areas`: arguments that may be memory of kernel objects.
    """

    symbol: str
    extra: tuple[str, ...] = ()
    args: int = 5
    kind: str = "helper"
    first: str = ""
    areas: tuple[Area, ...] = ()


def _unresolved(index: int, insn: Insn) -> CallTarget:
    raise KeyError(index)


def _no_maps(index: int) -> str:
    raise KeyError(index)


def _no_constants(index: int) -> bytes | None:
    return None


@dataclass(frozen=True, slots=True)
class LowerInput:
    """A program to lower.

    `subprogs`: [start, end) of each function, the main part first. `resolve(insn_idx, insn)` gives the target of a helper
    call, `map_symbols(insn_idx)` the global whose address is what the ld_imm64 there refers to: the map, or the memory of
    its values (to which the instruction's offset is added here), or a kernel variable; both may raise KeyError.
    `constants(insn_idx)`: the bytes of the map values that the ld_imm64 there refers to, where nobody can ever change them.
    `smp`: False compiles atomics as plain accesses, for one CPU. `options`: for measurements. `debug`: each instruction's code
    carries its index + 1 as the line number.
    """

    name: str
    insns: Sequence[Insn]
    subprogs: Sequence[tuple[int, int]]
    aux: Sequence[InsnFacts] | None = None
    resolve: Callable[[int, Insn], CallTarget] = _unresolved
    map_symbols: Callable[[int], str] = _no_maps
    smp: bool = False
    options: CodeOptions = DEFAULT
    constants: Callable[[int], bytes | None] = _no_constants
    debug: bool = False


def lower(program: LowerInput) -> str:
    """LLVM IR of a module with the program's functions. JitError names the instruction that cannot be lowered."""
    module = Module(program)
    bodies = []
    for number, (start, _) in enumerate(program.subprogs):
        # a function that no path reaches was never checked, and is never called; its address may still be taken
        reached = program.aux is None or program.aux[start].seen
        bodies.append(FunctionLowering(module, number).text() if reached else module.unreached(number))
    return "\n".join([f"; {program.name}", *module.declarations(), *bodies, *module.trailer()]) + "\n"
