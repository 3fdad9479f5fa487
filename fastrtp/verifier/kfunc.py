"""Calls of kernel functions: number iterators with their loops, RCU and preemption sections; objects: object_kfunc.py.

Kernel: kernel/bpf/verifier.c:check_kfunc_call, process_iter_arg, process_iter_next_call.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.btf.kfuncs import KfuncProto, kfunc_ids
from fastrtp.isa import BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, Insn
from fastrtp.verifier.bounds import ZERO
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.func import clear_caller_saved_regs
from fastrtp.verifier.mem import check_mem_access, check_reg_read
from fastrtp.verifier.object_kfunc import check_object_kfunc
from fastrtp.verifier.precision import find_prev_entry, widen_imprecise_scalars
from fastrtp.verifier.refs import release_reference
from fastrtp.verifier.regtype import (
    MEM_RCU,
    MEM_RDONLY,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_UNTRUSTED,
    SCALAR_VALUE,
    base_type,
)
from fastrtp.verifier.section import check_call_in_section, enter, is_open, leave
from fastrtp.verifier.slots import ALL_ITER, slot_of
from fastrtp.verifier.stack import WRITE, func
from fastrtp.verifier.state import (
    REG_UNKNOWN,
    REG_ZERO,
    SLOT_INVALID,
    STACK_ITER,
    BpfReferenceState,
    BpfRegState,
    BpfStackState,
)

ACTIVE, DRAINED = 1, 2
"""State of an iterator, in `num` of its slot's register."""


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
        check_call_in_section(env, insn, bool(proto.iterator) or proto.is_graph)
    if proto.family:
        check_object_kfunc(env, proto)
        return
    if proto.section:
        _check_section(env, proto)
        clear_caller_saved_regs(env.frame)
        return
    spi, frameno = _check_iter_arg(env, proto)
    if proto.iterator == "new":
        for regno in (2, 3):
            if check_reg_read(env, regno).type != SCALAR_VALUE:
                env.reject(EINVAL, f"R{regno} is not a scalar")
        _mark_iter(env, frameno, spi)
    elif proto.iterator == "next":
        _iter_next(env, frameno, spi)
        return
    else:
        ref = env.cur_state.frames[frameno].stack[spi].spilled_ptr.ref_obj_id
        env.cur_state.frames[frameno].stack[spi] = SLOT_INVALID
        env.cur_state.frames[frameno].stack_deps[spi] = 0
        release_reference(env, ref)
    clear_caller_saved_regs(env.frame)
    if proto.iterator == "new":
        env.regs[0] = REG_UNKNOWN


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


def _check_iter_arg(env: BpfVerifierEnv, proto: KfuncProto) -> tuple[int, int]:
    """(slot, frame) of the iterator in R1. Errors: EINVAL. Kernel: process_iter_arg."""
    reg = check_reg_read(env, 1)
    if reg.type != PTR_TO_STACK:
        env.reject(EINVAL, "arg#0 expected pointer to an iterator on stack")
    off = reg.off + reg.bounds.smin_value
    spi, frame = slot_of(env, off, reg.bounds.var_off.mask, "iter", 1), func(env, reg)
    kind = frame.stack.get(spi, SLOT_INVALID).slot_type[7]
    if proto.iterator == "new":
        if spi < 0 or kind == STACK_ITER:
            env.reject(EINVAL, "expected uninitialized iter_num as arg #0")
        check_mem_access(env, 1, 0, 8, WRITE)
    elif spi < 0 or kind != STACK_ITER:
        env.reject(EINVAL, "expected an initialized iter_num as arg #0")
    else:
        env.lib.verifier_mark_stack_read(env.address, frame.frameno, spi, 1)
    return spi, frame.frameno


def _mark_iter(env: BpfVerifierEnv, frameno: int, spi: int) -> None:
    ref = BpfReferenceState(env.new_id(), env.insn_idx, "iter")
    env.cur_state.refs = (*env.cur_state.refs, ref)
    _set_iter(env.cur_state.frames[frameno].stack, spi, ref.id, ACTIVE, 0)
    env.cur_state.frames[frameno].stack_deps[spi] = 0


def _set_iter(stack: Any, spi: int, ref: int, state: int, depth: int) -> None:
    stack[spi] = BpfStackState(ALL_ITER, BpfRegState(PTR_TO_STACK, ZERO, off=depth, ref_obj_id=ref, num=state))


def _iter_next(env: BpfVerifierEnv, frameno: int, spi: int) -> None:
    """Two ways on: another number, as a path of its own, and the end. Kernel: process_iter_next_call."""
    held = env.cur_state.frames[frameno].stack[spi].spilled_ptr
    clear_caller_saved_regs(env.frame)
    if held.num == ACTIVE:
        parent = env.cur_state.parent
        previous = None if parent is None else find_prev_entry(env, parent, env.insn_idx)
        queued = env.push_stack(env.insn_idx + 1)
        _set_iter(queued.frames[frameno].stack, spi, held.ref_obj_id, ACTIVE, held.off + 1)
        queued.frames[-1].regs[0] = BpfRegState(PTR_TO_MEM | MEM_RDONLY, ZERO, ref_obj_id=held.ref_obj_id, num=4)
        if previous is not None:
            widen_imprecise_scalars(env, previous, queued)
    _set_iter(env.cur_state.frames[frameno].stack, spi, held.ref_obj_id, DRAINED, held.off)
    env.regs[0] = REG_ZERO


__all__ = ["ACTIVE", "add_kfunc_calls", "check_kfunc_call"]
