"""The program's shape: functions, jumps, unreachable instructions; prune points and live registers, which the core finds.

Everything works on the table of instructions that the core gets (env.insn_table).
Kernel: kernel/bpf/verifier.c:add_subprog_and_kfunc, check_subprogs, check_cfg, compute_live_registers.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL
from typing import Any

import numpy as np

from fastrtp.btf.kfuncs import KfuncProto
from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.isa import BPF_CALL, BPF_EXIT, BPF_JA, BPF_JMP, BPF_JMP32, BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC
from fastrtp.once import once
from fastrtp.verifier.api import SubprogInfo
from fastrtp.verifier.domain.records import (
    CALLS_CALLBACK,
    FORCE_CHECKPOINT,
    HELPER_CALLS_BACK,
    HELPER_PRUNES,
    HELPER_ROWS,
    ITER_DESTROY,
    ITER_NEW,
    ITER_NEXT,
    KFUNC_ARGS,
    PRUNE_POINT,
    VInsn,
)
from fastrtp.verifier.rules.env import BPF_MAX_SUBPROGS, BpfVerifierEnv
from fastrtp.verifier.rules.resolve import LD_IMM64

_CALL = BPF_JMP | BPF_CALL
_EXIT = BPF_JMP | BPF_EXIT
_JA = BPF_JMP | BPF_JA
_JA32 = BPF_JMP32 | BPF_JA
_ANY_ARGS = 0x3E
_MAX_ARGS = 5
_ITER_FLAGS = {"new": ITER_NEW, "next": ITER_NEXT, "destroy": ITER_DESTROY}

SYNC_CALLBACK_HELPERS = frozenset(HELPER_IDS[name] for name in ("for_each_map_elem", "find_vma", "loop", "user_ringbuf_drain"))
ASYNC_CALLBACK_HELPERS = frozenset({HELPER_IDS["timer_set_callback"]})
_TAIL_CALL = HELPER_IDS["tail_call"]


@once
def _helper_facts() -> Any:
    """For the core: a helper's argument registers, and whether it calls back."""
    facts = np.full(HELPER_ROWS, _ANY_ARGS, "<u2")
    for number, helper in HELPERS.items():
        if helper.proto:
            facts[number] = ((1 << len(helper.args)) - 1) << 1
        if number in SYNC_CALLBACK_HELPERS:
            facts[number] |= HELPER_CALLS_BACK
        elif number in ASYNC_CALLBACK_HELPERS:
            facts[number] |= HELPER_PRUNES
    return facts


def add_subprogs(env: BpfVerifierEnv) -> None:
    """Find every function: the program itself and each target of a call or of a function address."""
    table = env.insn_table
    code, src = table["code"], table["regs"] >> 4
    named = np.flatnonzero(((code == LD_IMM64) & (src == BPF_PSEUDO_FUNC)) | ((code == _CALL) & (src == BPF_PSEUDO_CALL)))
    starts = {0}
    for i in named.tolist():
        target = i + env.insns[i].imm + 1
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
    table = env.insn_table
    code, op, kind = table["code"], table["code"] & 0xF0, table["code"] & 7
    starts = np.array([subprog.start for subprog in env.subprogs])
    ends = np.array([subprog.end for subprog in env.subprogs])
    calls = np.flatnonzero((code == _CALL) & (table["regs"] >> 4 == 0) & (table["imm"] == _TAIL_CALL))
    for i in calls.tolist():
        subprog = env.subprogs[env.subprog_of(i)]
        subprog.has_tail_call = subprog.tail_call_reachable = True
    jumps = np.flatnonzero(((kind == BPF_JMP) | (kind == BPF_JMP32)) & (op != BPF_CALL) & (op != BPF_EXIT))
    distance = np.where(code[jumps] == _JA32, table["imm"][jumps].astype("<i8"), table["off"][jumps].astype("<i8"))
    targets = jumps + 1 + distance
    owner = np.searchsorted(starts, jumps, side="right") - 1
    outside = np.flatnonzero((targets < starts[owner]) | (targets >= ends[owner]))
    open_end = np.flatnonzero(~np.isin(code[ends - 1], (_EXIT, _JA, _JA32)))
    if len(outside) and (not len(open_end) or owner[outside[0]] <= open_end[0]):
        env.reject(EINVAL, f"jump out of range from insn {jumps[outside[0]]} to {targets[outside[0]]}")
    if len(open_end):
        env.reject(EINVAL, "last insn is not an exit or jmp")


def check_cfg(env: BpfVerifierEnv) -> None:
    """Every instruction is reachable, no jump lands inside a 64-bit immediate; prune points are marked."""
    table, count = env.insn_table, env.insn_cnt
    for i, kfunc in env.kfuncs.items():
        table["flags"][i] |= _kfunc_args(env, i, kfunc)
        if kfunc.iterator:
            table["flags"][i] |= _ITER_FLAGS[kfunc.iterator]
        elif kfunc.name == "bpf_rbtree_add_impl":
            table["flags"][i] |= CALLS_CALLBACK | FORCE_CHECKPOINT | PRUNE_POINT
    seen, todo = np.zeros(count, "<u4"), np.zeros(count, "<u4")
    where = env.lib.verifier_check_cfg(table.ctypes.data, count, _helper_facts().ctypes.data, seen.ctypes.data, todo.ctypes.data)
    if where >= 0:
        target = where & 0xFFFFFFFF
        env.reject(EINVAL, f"jump out of range from insn {where >> 32} to {target - (target >> 31 << 32)}")
    wide = np.flatnonzero(table["code"] == LD_IMM64)
    second = np.zeros(count, bool)
    second[wide + 1] = True
    unreachable = np.flatnonzero((seen == 0) & ~second)
    middle = wide[seen[wide + 1] != 0]
    if len(unreachable) and (not len(middle) or unreachable[0] <= middle[0]):
        env.reject(EINVAL, f"unreachable insn {unreachable[0]}")
    if len(middle):
        env.reject(EINVAL, f"jump into the middle of ldimm64 insn {middle[0]}")


def _kfunc_args(env: BpfVerifierEnv, i: int, kfunc: KfuncProto) -> int:
    """Flags that say which registers the kernel function takes that instruction `i` calls."""
    btf, ident = env.attr.kernel_btf, env.insns[i].imm
    count = kfunc.args
    if btf is not None and 0 < ident < len(btf):
        count = max(count, len(btf.type(btf.type(ident).type).params))
    return KFUNC_ARGS * ((2 << min(count, _MAX_ARGS)) - 1)


def compute_scc(env: BpfVerifierEnv) -> None:
    """For each instruction the loop that it is in. Kernel: compute_scc."""
    low, stack, todo = (np.zeros(env.insn_cnt, "<u4") for _ in range(3))
    env.lib.verifier_compute_scc(env.insn_table.ctypes.data, env.insn_cnt, low.ctypes.data, stack.ctypes.data, todo.ctypes.data)


def compute_live_registers(env: BpfVerifierEnv) -> None:
    """For each instruction the registers that may be read from there on (backward dataflow over the whole program)."""
    env.lib.verifier_live_registers(env.insn_table.ctypes.data, env.insn_cnt, _helper_facts().ctypes.data)


def use_def(env: BpfVerifierEnv, insn_idx: int) -> tuple[int, int]:
    """Registers that an instruction reads, and that it writes (masks)."""
    found = env.lib.verifier_use(env.insn_table.ctypes.data + insn_idx * VInsn.layout.size, _helper_facts().ctypes.data)
    return found & 0xFFFF, found >> 16
