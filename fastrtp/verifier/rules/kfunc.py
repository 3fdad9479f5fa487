"""Calls of kernel functions: who may call what, RCU and preemption sections.

Number iterators are the core's; objects: object_kfunc.py; what a prototype says all of: kfunc_args.py.

Kernel: kernel/bpf/verifier.c:check_kfunc_call.
"""

from __future__ import annotations

from errno import EACCES, EINVAL

from fastrtp.btf import BtfKind
from fastrtp.btf.kfuncs import KfuncProto, kfunc_of
from fastrtp.errors import BtfError
from fastrtp.isa import BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, Insn
from fastrtp.uapi import BpfProgType
from fastrtp.verifier.domain.regtype import (
    MEM_RCU,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_UNTRUSTED,
    base_type,
)
from fastrtp.verifier.domain.state import (
    REG_UNKNOWN,
    BpfRegState,
    BpfStackState,
)
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.func import clear_caller_saved_regs
from fastrtp.verifier.rules.kfunc_args import check_plain_kfunc
from fastrtp.verifier.rules.object_kfunc import check_object_kfunc
from fastrtp.verifier.rules.section import check_call_in_section, enter, is_open, leave

TRACING_HOOK = (BpfProgType.BPF_PROG_TYPE_TRACING, BpfProgType.BPF_PROG_TYPE_TRACEPOINT)
"""May call what is there for tracing. Kernel: bpf_prog_type_to_kfunc_hook."""


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
    btf = env.attr.kernel_btf
    for i in calls:
        ident = env.insns[i].imm
        proto = kfunc_of(btf, ident)
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
    if not proto.common and env.prog_type not in TRACING_HOOK:
        env.reject(EACCES, f"calling kernel function {proto.name} is not allowed")
    if proto.sleepable:
        env.reject(EACCES, f"program must be sleepable to call sleepable kfunc {proto.name}")
    if proto.members:
        env.aux[env.insn_idx].operands = ",".join(map(str, _operands(env, proto)))
    if proto.family:
        check_object_kfunc(env, proto)
    elif proto.section:
        _check_section(env, proto)
        clear_caller_saved_regs(env.frame)
    else:
        check_plain_kfunc(env, proto)


def _operands(env: BpfVerifierEnv, proto: KfuncProto) -> list[int]:
    """Offsets and sizes that the function's body gets. Errors: EINVAL for a kernel without such a struct."""
    btf, found = env.attr.kernel_btf, []
    for struct, member in proto.members:
        type_id = btf.find(struct, BtfKind.STRUCT) if btf is not None else None
        if type_id is None:
            env.reject(EINVAL, f"{proto.name}: no struct {struct} in the kernel's BTF")
        try:
            found.append(btf.member(type_id, member).offset_bytes if member else btf.sizeof(type_id))
        except BtfError:
            found.append(-1)
    return found


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
