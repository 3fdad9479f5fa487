"""Calls of kernel functions: RCU and preemption sections; number iterators are the core's, objects: object_kfunc.py.

Kernel: kernel/bpf/verifier.c:check_kfunc_call.
"""

from __future__ import annotations

from errno import EACCES, EINVAL

from fastrtp.btf import BtfKind
from fastrtp.btf.kfuncs import KfuncProto, kfunc_ids
from fastrtp.isa import BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, Insn
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.func import clear_caller_saved_regs
from fastrtp.verifier.object_kfunc import check_object_kfunc
from fastrtp.verifier.regtype import (
    MEM_RCU,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_UNTRUSTED,
    base_type,
)
from fastrtp.verifier.section import check_call_in_section, enter, is_open, leave
from fastrtp.verifier.state import (
    REG_UNKNOWN,
    BpfRegState,
    BpfStackState,
)


def add_kfunc_calls(env: BpfVerifierEnv) -> None:
    """Name the functions that the program calls. Kernel: add_subprog_and_kfunc, add_kfunc_call."""
    calls = [
        i
        for i, insn in enumerate(env.insns)
        if insn.code == BPF_JMP | BPF_CALL and insn.src_reg == BPF_PSEUDO_KFUNC_CALL and insn.imm
    ]
    if not calls:
        return
    if not env.gpl_compatible:
        env.reject(EINVAL, "cannot call kernel function from non-GPL compatible program")
    known = kfunc_ids(env.attr.kernel_btf)
    for i in calls:
        proto, ident, btf = known.get(env.insns[i].imm), env.insns[i].imm, env.attr.kernel_btf
        is_func = btf is not None and 0 < ident < len(btf) and btf.type(ident).kind == BtfKind.FUNC
        if proto is None and not is_func and not env.insns[i].off:
            env.reject(EINVAL, f"kernel btf_id {ident} is not a function")
        if proto is None or env.insns[i].off:
            continue
        env.kfuncs[i] = proto
        env.aux[i].kfunc = proto.name


def check_kfunc_call(env: BpfVerifierEnv, insn: Insn) -> None:
    """Check the call at the current instruction and set R0. Errors: EINVAL, EACCES."""
    proto = env.kfuncs.get(env.insn_idx)
    if proto is None:
        _refuse_unknown(env, insn)
        return
    if env.cur_state.refs:
        check_call_in_section(env, insn, proto.is_graph)
    if proto.family:
        check_object_kfunc(env, proto)
        return
    _check_section(env, proto)
    clear_caller_saved_regs(env.frame)


def _refuse_unknown(env: BpfVerifierEnv, insn: Insn) -> None:
    """Calls with id 0, which libbpf left for dead code, are refused at the end if they are not dead."""
    if insn.imm:
        btf = env.attr.kernel_btf
        name = f"#{insn.imm}" if insn.off or btf is None else btf.type(insn.imm).name
        env.reject(EACCES, f"calling kernel function {name} is not allowed")
    env.regs[0:6] = [REG_UNKNOWN, *env.regs[1:6]]
    env.frame.deps[0] = 0


def _check_section(env: BpfVerifierEnv, proto: KfuncProto) -> None:
    if proto.opens:
        if proto.section == "rcu" and is_open(env, "rcu"):
            env.reject(EINVAL, f"nested rcu read lock (kernel function {proto.name})")
        enter(env, proto.section)
    elif leave(env, proto.section):
        if proto.section == "rcu":
            _end_rcu(env)
    else:
        what = "rcu read unlock" if proto.section == "rcu" else "attempt to enable preemption"
        env.reject(EINVAL, f"unmatched {what} (kernel function {proto.name})")


def _end_rcu(env: BpfVerifierEnv) -> None:
    """Pointers that were good in the section are not trusted any more."""

    def ended(reg: BpfRegState) -> BpfRegState:
        return reg.with_type(reg.type & ~(MEM_RCU | PTR_MAYBE_NULL) | PTR_UNTRUSTED)

    for frame in env.cur_state.frames:
        for regno, reg in enumerate(frame.regs):
            if reg.type & MEM_RCU and base_type(reg.type) == PTR_TO_BTF_ID:
                frame.regs[regno] = ended(reg)
        for spi, slot in list(frame.stack.items()):
            held = slot.spilled_ptr
            if held.type & MEM_RCU and base_type(held.type) == PTR_TO_BTF_ID:
                frame.stack[spi] = BpfStackState(slot.slot_type, ended(held))


__all__ = ["add_kfunc_calls", "check_kfunc_call"]
