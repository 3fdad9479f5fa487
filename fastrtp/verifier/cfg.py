"""The program's shape: functions, jumps, unreachable instructions, prune points, live registers.

Kernel: kernel/bpf/verifier.c:add_subprog_and_kfunc, check_subprogs, check_cfg, compute_live_registers.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL

from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.isa import (
    BPF_ATOMIC,
    BPF_CALL,
    BPF_CLASS,
    BPF_CMPXCHG,
    BPF_EXIT,
    BPF_FETCH,
    BPF_JA,
    BPF_JCOND,
    BPF_JMP,
    BPF_JMP32,
    BPF_LD,
    BPF_LDX,
    BPF_LOAD_ACQ,
    BPF_MODE,
    BPF_MOV,
    BPF_OP,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_ST,
    BPF_STORE_REL,
    BPF_STX,
    BPF_X,
    Insn,
)
from fastrtp.verifier.api import SubprogInfo
from fastrtp.verifier.env import BPF_MAX_SUBPROGS, BpfVerifierEnv
from fastrtp.verifier.resolve import LD_IMM64

_CALL = BPF_JMP | BPF_CALL
_EXIT = BPF_JMP | BPF_EXIT
_JA = BPF_JMP | BPF_JA
_JA32 = BPF_JMP32 | BPF_JA
_CALLER_SAVED = 0x3F

SYNC_CALLBACK_HELPERS = frozenset(HELPER_IDS[name] for name in ("for_each_map_elem", "find_vma", "loop", "user_ringbuf_drain"))
ASYNC_CALLBACK_HELPERS = frozenset({HELPER_IDS["timer_set_callback"]})
_TAIL_CALL = HELPER_IDS["tail_call"]


def jmp_offset(insn: Insn) -> int:
    """Distance of a jump. Kernel: bpf_jmp_offset."""
    return insn.imm if insn.code == _JA32 else insn.off


def add_subprogs(env: BpfVerifierEnv) -> None:
    """Find every function: the program itself and each target of a call or of a function address."""
    starts = {0}
    for i, insn in enumerate(env.insns):
        if (insn.code == LD_IMM64 and insn.src_reg == BPF_PSEUDO_FUNC) or (
            insn.code == _CALL and insn.src_reg == BPF_PSEUDO_CALL
        ):
            target = i + insn.imm + 1
            if not 0 <= target < env.insn_cnt:
                env.reject(EINVAL, "call to invalid destination")
            starts.add(target)
            if len(starts) > BPF_MAX_SUBPROGS:
                env.reject(E2BIG, "too many subprograms")
    ordered = sorted(starts)
    env.subprogs = [SubprogInfo(start, end) for start, end in zip(ordered, [*ordered[1:], env.insn_cnt], strict=True)]
    env.subprog_at = {start: number for number, start in enumerate(ordered)}
    for number, start in enumerate(ordered):
        if env.log.level & 2:
            env.log.line(f"func#{number} @{start}")


def check_subprogs(env: BpfVerifierEnv) -> None:
    """Jumps stay within their function, and a function does not run into the next."""
    for subprog in env.subprogs:
        for i in range(subprog.start, subprog.end):
            insn = env.insns[i]
            code = insn.code
            if code == _CALL and insn.src_reg == 0 and insn.imm == _TAIL_CALL:
                subprog.has_tail_call = True
                subprog.tail_call_reachable = True
            if BPF_CLASS(code) in (BPF_JMP, BPF_JMP32) and BPF_OP(code) not in (BPF_CALL, BPF_EXIT):
                target = i + jmp_offset(insn) + 1
                if not subprog.start <= target < subprog.end:
                    env.reject(EINVAL, f"jump out of range from insn {i} to {target}")
        if env.insns[subprog.end - 1].code not in (_EXIT, _JA, _JA32):
            env.reject(EINVAL, "last insn is not an exit or jmp")


def successors(env: BpfVerifierEnv, i: int) -> tuple[int, ...]:
    """Instructions that may follow `i` within its function."""
    insn = env.insns[i]
    code = insn.code
    if code == LD_IMM64:
        return (i + 2,)
    if BPF_CLASS(code) not in (BPF_JMP, BPF_JMP32) or BPF_OP(code) == BPF_CALL:
        return (i + 1,)
    if BPF_OP(code) == BPF_EXIT:
        return ()
    target = i + jmp_offset(insn) + 1
    return (target,) if BPF_OP(code) == BPF_JA else (i + 1, target)


def check_cfg(env: BpfVerifierEnv) -> None:
    """Every instruction is reachable, no jump lands inside a 64-bit immediate; prune points are marked.

    They are the kernel's, so that a program takes as many instructions here as there.
    """
    insns, count = env.insns, env.insn_cnt
    seen = bytearray(count)
    todo = [0]
    seen[0] = 1
    while todo:
        i = todo.pop()
        insn = insns[i]
        code = insn.code
        targets = successors(env, i)
        is_func_addr = code == LD_IMM64 and insn.src_reg == BPF_PSEUDO_FUNC
        if code == _CALL:
            if insn.src_reg == 0:
                _mark_helper_call(env, i, insn)
            elif i in env.kfuncs and env.kfuncs[i].name == "bpf_rbtree_add_impl":
                env.calls_callback[i] = env.force_checkpoint[i] = env.prune_point[i] = 1
            elif i in env.kfuncs and env.kfuncs[i].iterator == "next":
                env.prune_point[i] = env.force_checkpoint[i] = 1
            elif insn.src_reg == BPF_PSEUDO_CALL:
                env.prune_point[i] = 1
                targets = (*targets, i + insn.imm + 1)
        elif is_func_addr:
            targets = (*targets, i + insn.imm + 1)
        elif BPF_CLASS(code) in (BPF_JMP, BPF_JMP32) and BPF_OP(code) != BPF_EXIT:
            if BPF_OP(code) == BPF_JA:
                env.prune_point[targets[0]] = 1
            else:
                env.prune_point[i] = env.prune_point[targets[1]] = 1
                if BPF_OP(code) == BPF_JCOND:
                    env.force_checkpoint[i] = 1
        for target in targets:
            if not 0 <= target < count:
                env.reject(EINVAL, f"jump out of range from insn {i} to {target}")
            if not seen[target]:
                seen[target] = 1
                todo.append(target)
    i = 0
    while i < count:
        if not seen[i]:
            env.reject(EINVAL, f"unreachable insn {i}")
        if insns[i].code == LD_IMM64:
            if seen[i + 1]:
                env.reject(EINVAL, f"jump into the middle of ldimm64 insn {i}")
            i += 1
        i += 1


def _mark_helper_call(env: BpfVerifierEnv, i: int, insn: Insn) -> None:
    if insn.imm in SYNC_CALLBACK_HELPERS:
        env.calls_callback[i] = 1
        env.force_checkpoint[i] = 1
        env.prune_point[i] = 1
    elif insn.imm in ASYNC_CALLBACK_HELPERS:
        env.prune_point[i] = 1


def compute_live_registers(env: BpfVerifierEnv) -> None:
    """For each instruction the registers that may be read from there on (backward dataflow over the whole program)."""
    count = env.insn_cnt
    effects = [use_def(insn) for insn in env.insns]
    following = [tuple(s for s in successors(env, i) if s < count) for i in range(count)]
    live = [0] * (count + 1)
    changed = True
    while changed:
        changed = False
        for i in range(count - 1, -1, -1):
            out = 0
            for s in following[i]:
                out |= live[s]
            use, define = effects[i]
            before = out & ~define | use
            if before != live[i]:
                live[i] = before
                changed = True
    env.live_regs = live[:count]


def use_def(insn: Insn) -> tuple[int, int]:
    """Registers read and registers written (masks)."""
    dst, src, code = 1 << insn.dst_reg, 1 << insn.src_reg, insn.code
    cls = BPF_CLASS(code)
    if cls == BPF_LD:
        return (0, dst) if code == LD_IMM64 else (1 << 6 | src, _CALLER_SAVED)
    if cls == BPF_LDX:
        return src, dst
    if cls == BPF_ST:
        return dst, 0
    if cls == BPF_STX:
        if BPF_MODE(code) != BPF_ATOMIC:
            return dst | src, 0
        if insn.imm == BPF_CMPXCHG:
            return dst | src | 1, 1
        if insn.imm == BPF_LOAD_ACQ:
            return src, dst
        return dst | src, src if insn.imm & BPF_FETCH and insn.imm != BPF_STORE_REL else 0
    if cls in (BPF_JMP, BPF_JMP32):
        op = BPF_OP(code)
        if op in (BPF_JA, BPF_JCOND):
            return 0, 0
        if op == BPF_EXIT:
            return 1, 0
        if op == BPF_CALL:
            if insn.src_reg == 0 and insn.imm in HELPERS and HELPERS[insn.imm].proto:
                return ((1 << len(HELPERS[insn.imm].args)) - 1) << 1, _CALLER_SAVED
            return 0x3E, _CALLER_SAVED
        return dst | (src if code & BPF_X else 0), 0
    if BPF_OP(code) == BPF_MOV:
        return (src if code & BPF_X else 0), dst
    return dst | (src if code & BPF_X else 0), dst
