"""Sections: between bpf_spin_lock and bpf_spin_unlock, rcu_read_lock and unlock, preempt_disable and enable.

What is open is kept with the references of the state (`kind` "lock", "rcu", "preempt"), so states that differ in it are
never taken for each other. Kernel: kernel/bpf/verifier.c:process_spin_lock, check_resource_leak, check_kfunc_call.
"""

from __future__ import annotations

from errno import EACCES, EINVAL
from typing import Any

from fastrtp.helpers.table import HELPER_IDS
from fastrtp.isa import BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL, Insn
from fastrtp.verifier.domain.regtype import NON_OWN_REF, PTR_TO_BTF_ID, PTR_TO_MAP_VALUE, base_type
from fastrtp.verifier.domain.state import REG_UNKNOWN, SLOT_MISC, BpfReferenceState, BpfRegState
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import check_field_pointer

_SPIN_UNLOCK = HELPER_IDS["spin_unlock"]
_LEFT_OPEN = {"lock": "bpf_spin_lock", "rcu": "bpf_rcu_read_lock", "preempt": "bpf_preempt_disable"}


def is_open(env: BpfVerifierEnv, kind: str) -> bool:
    """Whether the path is inside such a section."""
    return any(ref.kind == kind for ref in env.cur_state.refs)


def enter(env: BpfVerifierEnv, kind: str, ident: int = 0, ptr: Any = None) -> None:
    """Open a section."""
    env.cur_state.refs = (*env.cur_state.refs, BpfReferenceState(ident, env.insn_idx, kind, ptr))


def leave(env: BpfVerifierEnv, kind: str) -> bool:
    """Close the last one of its kind; whether there was one."""
    refs = env.cur_state.refs
    for index in range(len(refs) - 1, -1, -1):
        if refs[index].kind == kind:
            env.cur_state.refs = (*refs[:index], *refs[index + 1 :])
            return True
    return False


def lock_ident(reg: BpfRegState) -> tuple[int, Any]:
    """(id, map or BTF): which lock the value or object of a register has. An object whose lock is taken is owned."""
    return (reg.id if base_type(reg.type) == PTR_TO_MAP_VALUE else reg.ref_obj_id), reg.map


def check_spin_lock(env: BpfVerifierEnv, regno: int, reg: BpfRegState, is_lock: bool) -> None:
    """bpf_spin_lock or bpf_spin_unlock on a map value or an object of the program. Errors: EINVAL. Kernel: process_spin_lock."""
    called = env.kfuncs.get(env.frame.callsite) if env.frame.in_callback_fn else None
    if called is not None and called.family == "rbtree":
        env.reject(EACCES, "can't spin_{lock,unlock} in rbtree cb")
    check_field_pointer(env, regno, reg, "bpf_spin_lock")
    ident, found = lock_ident(reg)
    held = [ref for ref in env.cur_state.refs if ref.kind == "lock"]
    if is_lock:
        if held:
            env.reject(EINVAL, "Locking two bpf_spin_locks are not allowed")
        enter(env, "lock", ident, found)
        return
    if not held:
        env.reject(EINVAL, "bpf_spin_unlock without taking a lock")
    if held[-1].id != ident or held[-1].ptr is not found:
        env.reject(EINVAL, "bpf_spin_unlock of different lock")
    leave(env, "lock")
    forget_types(env, NON_OWN_REF)


def forget_types(env: BpfVerifierEnv, flag: int) -> None:
    """Registers and slots of types with the flag are plain numbers from here on. Kernel: invalidate_non_owning_refs."""
    for frame in env.cur_state.frames:
        for regno, held in enumerate(frame.regs):
            if held.type & flag and base_type(held.type) == PTR_TO_BTF_ID:
                frame.regs[regno] = REG_UNKNOWN
                frame.deps[regno] = 0
        for spi, slot in list(frame.stack.items()):
            if slot.spilled_ptr.type & flag and base_type(slot.spilled_ptr.type) == PTR_TO_BTF_ID:
                frame.stack[spi] = SLOT_MISC
                frame.stack_deps[spi] = 0


def check_call_in_section(env: BpfVerifierEnv, insn: Insn, allowed_kfunc: bool = False) -> None:
    """While a lock is held nothing is called but what gives it back, functions of the program, and number iterators."""
    if not is_open(env, "lock"):
        return
    if (insn.src_reg == 0 and insn.imm != _SPIN_UNLOCK) or (insn.src_reg == BPF_PSEUDO_KFUNC_CALL and not allowed_kfunc):
        env.reject(EINVAL, "function calls are not allowed while holding a lock")
    if insn.src_reg == BPF_PSEUDO_CALL and is_global_func(env, env.insn_idx + insn.imm + 1):
        env.log.line("global function calls are not allowed while holding a lock,")
        env.reject(EINVAL, "use static function instead")


def is_global_func(env: BpfVerifierEnv, start: int) -> bool:
    """Whether the program's BTF says that the function at `start` is global."""
    if env.attr.func_info is None or env.attr.btf is None:
        return False
    return any(int(row[0]) == start and env.attr.btf.type(int(row[1])).linkage == 1 for row in env.attr.func_info)


def check_sections_closed(env: BpfVerifierEnv, prefix: str, kinds: tuple[str, ...]) -> None:
    """No section is open where a program ends or gives way to another. Errors: EINVAL. Kernel: check_resource_leak."""
    for kind in kinds:
        if is_open(env, kind):
            env.reject(EINVAL, f"{prefix} cannot be used inside {_LEFT_OPEN[kind]}-ed region")
