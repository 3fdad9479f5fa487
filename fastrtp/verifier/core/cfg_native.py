"""The program's shape: jumps, unreachable instructions, prune points, live registers.

Kernel: kernel/bpf/verifier.c:check_cfg, compute_live_registers.
"""

from __future__ import annotations

from fastrtp.isa import (
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CMPXCHG,
    BPF_END,
    BPF_EXIT,
    BPF_FETCH,
    BPF_JA,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MOV,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_ST,
    BPF_STORE_REL,
    BPF_STX,
    BPF_X,
)
from fastrtp.native.intrinsics import device, load16, load32, native, store32
from fastrtp.native.record import Array
from fastrtp.verifier.core.alu_insn_native import insn_dst, insn_src
from fastrtp.verifier.domain.records import (
    CALLS_CALLBACK,
    FORCE_CHECKPOINT,
    HELPER_CALLS_BACK,
    HELPER_PRUNES,
    HELPER_ROWS,
    ITER_NEXT,
    JMP_POINT,
    KFUNC_ARGS,
    PRUNE_POINT,
    VInsn,
)

LD_IMM64 = 0x18
CALL = BPF_JMP | BPF_CALL
CALLER_SAVED = 0x3F


@device
def _is_jmp(code: int) -> int:
    return 1 if (code & 7) == BPF_JMP or (code & 7) == BPF_JMP32 else 0


@device
def _target(insn: VInsn, i: int) -> int:
    """Where a jump goes."""
    return i + 1 + (insn.imm if insn.code == BPF_JMP32 | BPF_JA else insn.off)


@device
def _mark(insns: Array[VInsn], count: int, i: int, flags: int) -> None:
    if i >= 0 and i < count:
        insns[i].flags |= flags


@device
def _visit(insns: Array[VInsn], count: int, seen: int, todo: int, depth: int, target: int) -> int:
    """Note that an instruction is reached: the depth of the list of those to look at, -1 where there is none such."""
    if target < 0 or target >= count:
        return -1
    if load32(seen + 4 * target) == 0:
        store32(seen + 4 * target, 1)
        store32(todo + 4 * depth, target)
        depth += 1
    return depth


@native()
def verifier_check_cfg(insns: Array[VInsn], count: int, helpers: int, seen: int, todo: int) -> int:
    """Mark prune points; -1, or `insn << 32 | target` of a jump that leaves the program.

    `helpers`: u16 a helper, bits HELPER_*; `seen` and `todo`: u32[count], zeroes. Points are the kernel's, so that a
    program takes as many instructions here as there.
    """
    depth = _visit(insns, count, seen, todo, 0, 0)
    while depth > 0:
        depth -= 1
        i = load32(todo + 4 * depth)
        insn = insns[i]
        code = insn.code
        first = i + 1
        second = -2
        if code == LD_IMM64:
            first = i + 2
            if insn_src(insn) == BPF_PSEUDO_FUNC:
                second = i + insn.imm + 1
                _mark(insns, count, i, PRUNE_POINT)
                _mark(insns, count, first, PRUNE_POINT | JMP_POINT)
                _mark(insns, count, second, PRUNE_POINT | JMP_POINT)
        elif code == CALL:
            src = insn_src(insn)
            imm = insn.imm
            _mark(insns, count, first, PRUNE_POINT | JMP_POINT)
            if src == 0:
                facts = load16(helpers + 2 * imm) if imm >= 0 and imm < HELPER_ROWS else 0
                if facts & HELPER_CALLS_BACK:
                    _mark(insns, count, i, CALLS_CALLBACK | FORCE_CHECKPOINT | PRUNE_POINT | JMP_POINT)
                elif facts & HELPER_PRUNES:
                    _mark(insns, count, i, PRUNE_POINT)
            elif insn.flags & ITER_NEXT:
                _mark(insns, count, i, PRUNE_POINT | FORCE_CHECKPOINT)
            elif src == BPF_PSEUDO_CALL:
                second = i + imm + 1
                _mark(insns, count, i, PRUNE_POINT)
                _mark(insns, count, second, PRUNE_POINT | JMP_POINT)
        elif _is_jmp(code) and (code & 0xF0) != BPF_CALL:
            op = code & 0xF0
            if op == BPF_EXIT:
                first = -2
            elif op == BPF_JA:
                first = _target(insn, i)
                _mark(insns, count, first, PRUNE_POINT | JMP_POINT)
            else:
                second = _target(insn, i)
                _mark(insns, count, i, PRUNE_POINT | (FORCE_CHECKPOINT if op == BPF_JCOND else 0))
                _mark(insns, count, second, PRUNE_POINT | JMP_POINT)
        if first != -2:
            depth = _visit(insns, count, seen, todo, depth, first)
            if depth < 0:
                return (i << 32) | (first & 0xFFFFFFFF)
        if second != -2:
            depth = _visit(insns, count, seen, todo, depth, second)
            if depth < 0:
                return (i << 32) | (second & 0xFFFFFFFF)
    return -1


@device
def _successor(insns: Array[VInsn], count: int, i: int, which: int) -> int:
    """The first (0) or second (1) instruction that follows within the function, -1 for none. Kernel: bpf_insn_successors."""
    insn = insns[i]
    code = insn.code
    op = code & 0xF0
    next = i + 2 if code == LD_IMM64 else i + 1
    if _is_jmp(code) and op != BPF_CALL:
        if op == BPF_EXIT:
            return -1
        if op == BPF_JA:
            next = _target(insn, i) if which == 0 else -1
        elif which == 1:
            next = _target(insn, i)
    elif which == 1:
        return -1
    return next if next >= 0 and next < count else -1


@native()
def verifier_compute_scc(insns: Array[VInsn], count: int, low: int, stack: int, todo: int) -> int:
    """Number the loops: strongly connected components, and calls of helpers that call back. How many.

    `low`, `stack`, `todo`: u32[count], zeroes. `low`: 0 not seen, else the smallest number that a vertex leads to; all ones:
    its component is known. Kernel: compute_scc; Tarjan's algorithm, without recursion.
    """
    known = (1 << 32) - 1
    number = 0
    found = 0
    waiting = 0
    for root in range(count):
        if load32(low + 4 * root) != 0:
            continue
        depth = 1
        store32(todo, root)
        while depth > 0:
            i = load32(todo + 4 * (depth - 1))
            if load32(low + 4 * i) == 0:
                number += 1
                store32(low + 4 * i, number)
                store32(stack + 4 * waiting, i)
                waiting += 1
                # where it is on the stack tells its own number: both grow together
                insns[i].scc = number
            least = load32(low + 4 * i)
            deeper = False
            for which in range(2):
                after = _successor(insns, count, i, which)
                if after < 0 or deeper:
                    continue
                reached = load32(low + 4 * after)
                if reached == 0:
                    store32(todo + 4 * depth, after)
                    depth += 1
                    deeper = True
                elif reached != known:
                    least = min(least, reached)
            store32(low + 4 * i, least)
            if deeper:
                continue
            depth -= 1
            if least != insns[i].scc:
                continue
            insn = insns[i]
            loops = load32(stack + 4 * (waiting - 1)) != i or (insn.flags & CALLS_CALLBACK) != 0
            if _successor(insns, count, i, 0) == i or _successor(insns, count, i, 1) == i:
                loops = True
            if loops:
                found += 1
            member = -1
            while member != i:
                waiting -= 1
                member = load32(stack + 4 * waiting)
                store32(low + 4 * member, known)
                insns[member].scc = found if loops else 0
    return found


@device
def _use(insn: VInsn, helpers: int) -> int:
    """Registers that an instruction reads, in the low half, and those that it writes, in the high half."""
    code = insn.code
    dst = 1 << insn_dst(insn)
    src = 1 << insn_src(insn)
    kind = code & 7
    imm = insn.imm
    if kind == BPF_LD:
        return dst << 16 if code == LD_IMM64 else (1 << 6) | src | (CALLER_SAVED << 16)
    if kind == BPF_LDX:
        return src | (dst << 16)
    if kind == BPF_ST:
        return dst
    if kind == BPF_STX:
        if (code & 0xE0) != BPF_ATOMIC:
            return dst | src
        if imm == BPF_CMPXCHG:
            return dst | src | 1 | (1 << 16)
        if imm == BPF_LOAD_ACQ:
            return src | (dst << 16)
        return dst | src | (src << 16 if imm & BPF_FETCH and imm != BPF_STORE_REL else 0)
    if kind == BPF_JMP or kind == BPF_JMP32:
        op = code & 0xF0
        if op == BPF_JA or op == BPF_JCOND:
            return 0
        if op == BPF_EXIT:
            return 1
        if op == BPF_CALL:
            used = 0x3E
            if insn_src(insn) == 0 and imm >= 0 and imm < HELPER_ROWS:
                used = load16(helpers + 2 * imm) & 0x3E
            elif insn.flags & KFUNC_ARGS:
                used = (insn.flags >> 8) & 0x3E
            return used | (CALLER_SAVED << 16)
        return dst | (src if code & BPF_X else 0)
    read = src if code & BPF_X and (code & 0xF0) != BPF_END else 0
    if (code & 0xF0) != BPF_MOV:
        read |= dst
    return read | (dst << 16)


@native()
def verifier_use(insn: VInsn, helpers: int) -> int:
    """`_use` for Python."""
    return _use(insn, helpers)


@device
def _live_at(insns: Array[VInsn], count: int, i: int) -> int:
    return insns[i].live if i >= 0 and i < count else 0


@native()
def verifier_live_registers(insns: Array[VInsn], count: int, helpers: int) -> int:
    """For each instruction the registers that may be read from there on (backward dataflow over the whole program)."""
    changed = True
    while changed:
        changed = False
        for back in range(count):
            i = count - 1 - back
            insn = insns[i]
            code = insn.code
            out = 0
            if code == LD_IMM64:
                out = _live_at(insns, count, i + 2)
            elif _is_jmp(code) == 0 or (code & 0xF0) == BPF_CALL:
                out = _live_at(insns, count, i + 1)
            elif (code & 0xF0) != BPF_EXIT:
                out = _live_at(insns, count, _target(insn, i))
                if (code & 0xF0) != BPF_JA:
                    out |= _live_at(insns, count, i + 1)
            use = _use(insn, helpers)
            live = (out & ~(use >> 16)) | (use & 0xFFFF)
            if live != insn.live:
                insn.live = live
                changed = True
    return 0
