"""What single helpers need beyond their prototype: callbacks, tail calls, areas of special shape.

Kernel: kernel/bpf/verifier.c:check_helper_call (its switch), set_*_callback_state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import EACCES, EFAULT, EINVAL
from functools import partial
from types import MappingProxyType

from fastrtp.btf import BtfKind
from fastrtp.errors import ENOTSUPP
from fastrtp.helpers.argtype import DYNPTR_TYPE_LOCAL
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.maps import MAP_OPS
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    NOT_INIT,
    PTR_TO_BTF_ID,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    SCALAR_VALUE,
    reg_type_str,
)
from fastrtp.verifier.domain.state import REG_UNKNOWN, BpfFuncState, BpfRegState
from fastrtp.verifier.rules.async_cb import push_async_cb
from fastrtp.verifier.rules.call_args import CallArgMeta
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.format import format_is_valid
from fastrtp.verifier.rules.func import push_callback_call
from fastrtp.verifier.rules.precision import mark_reg_precise
from fastrtp.verifier.rules.refs import check_reference_leak


def _check_tail_call(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    index = env.regs[3]
    constant = index.type == SCALAR_VALUE and not index.bounds.var_off.mask
    if constant and index.bounds.var_off.value < meta.map_ptr.max_entries:
        mark_reg_precise(env, 3)  # where Linux's code generator jumps straight to the slot: record_func_key
    check_reference_leak(env, "tail_call")
    if env.frame.in_callback_fn and env.regs[0].type == NOT_INIT and not _checkpoint_in_frame(env):
        # a callback may not return any number: refused either way; Linux looks for where R0 was made, and finds no place
        env.reject(EFAULT, "verifier bug: callback unexpected regs 1")


def _checkpoint_in_frame(env: BpfVerifierEnv) -> bool:
    """Whether a state was kept since the callback was entered: the search ends there."""
    parent = env.cur_state.parent
    return parent is not None and parent.nframes >= env.cur_state.nframes


def _check_loop(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    _note_callback(env, meta.subprogno)
    mark_reg_precise(env, 1)
    if env.frame.callback_depth < env.regs[1].bounds.umax_value:
        push_callback_call(env, meta.subprogno, _set_loop_callback_state)
    else:
        env.frame.callback_depth = 0


def _check_for_each(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    if not MAP_OPS[meta.map_ptr.map_type].for_each:
        env.reject(ENOTSUPP, "callback function not allowed for map")
    _note_callback(env, meta.subprogno)
    push_callback_call(env, meta.subprogno, _set_map_elem_callback_state)


def _check_timer_callback(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    _note_callback(env, meta.subprogno)
    push_async_cb(env, meta.subprogno, meta.map_ptr)


def _check_find_vma(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    _note_callback(env, meta.subprogno)
    vma = env.attr.kernel_btf.find("vm_area_struct", BtfKind.STRUCT) if env.attr.kernel_btf is not None else None
    if vma is None:
        env.reject(EINVAL, "func bpf_find_vma#180: no struct vm_area_struct in the kernel's BTF")
    push_callback_call(env, meta.subprogno, partial(_set_find_vma_callback_state, vma))


def _check_user_ringbuf(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    _note_callback(env, meta.subprogno)
    push_callback_call(env, meta.subprogno, partial(_set_user_ringbuf_callback_state, env.new_id()))


def _check_dynptr_from_mem(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    if env.regs[1].type != PTR_TO_MAP_VALUE:
        env.reject(EACCES, f"Unsupported reg type {reg_type_str(env.regs[1].type)} for bpf_dynptr_from_mem data")


def _check_snprintf(env: BpfVerifierEnv, meta: CallArgMeta) -> None:
    size = env.regs[5].bounds.var_off.value
    if size % 8:
        env.reject(EINVAL, f"R5 size {size} of the data array is no multiple of 8")
    fmt = env.regs[3]
    start = fmt.off + fmt.bounds.var_off.value
    if not format_is_valid(fmt.map.read_value(start, fmt.map.value_size - start).partition(b"\0")[0], size // 8):
        env.reject(EINVAL, "Invalid format string")


def refuse_func_ip(env: BpfVerifierEnv, name: str) -> None:
    """Nothing that runs here was entered by a function's address. Kernel: check_get_func_ip."""
    only = "supported only for fentry/fexit/fmod_ret programs"
    env.reject(ENOTSUPP, f"func {name} {only if env.is_tracing else f'not supported for program type {int(env.prog_type)}'}")


def _note_callback(env: BpfVerifierEnv, subprogno: int) -> None:
    aux = env.aux[env.insn_idx]
    start = env.subprogs[subprogno].start
    if aux.callback_ambiguous or aux.callback not in (None, start):
        aux.callback, aux.callback_ambiguous = None, True
    else:
        aux.callback = start


def _set_loop_callback_state(caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the iteration's number, R2: the context that was given in R3."""
    callee.regs[1] = REG_UNKNOWN
    callee.regs[2], callee.deps[2] = caller.regs[3], caller.deps[3]


def _set_find_vma_callback_state(vma: int, caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the task, R2: the vm_area_struct (its type id is `vma`), R3: the context that was given in R4."""
    callee.regs[1], callee.deps[1] = caller.regs[1], caller.deps[1]
    callee.regs[2] = BpfRegState(PTR_TO_BTF_ID, ZERO, num=vma)
    callee.regs[3], callee.deps[3] = caller.regs[4], caller.deps[4]


def _set_user_ringbuf_callback_state(ident: int, caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: a dynptr of the sample (it has the id `ident`), R2: the context that was given in R3."""
    callee.regs[1] = BpfRegState(CONST_PTR_TO_DYNPTR, ZERO, id=ident, num=DYNPTR_TYPE_LOCAL | 1)
    callee.regs[2], callee.deps[2] = caller.regs[3], caller.deps[3]


def _set_map_elem_callback_state(caller: BpfFuncState, callee: BpfFuncState) -> None:
    """R1: the map, R2: pointer to the key, R3: pointer to the value, R4: the context that was given in R3."""
    pointer = caller.regs[1]
    callee.regs[1] = BpfRegState(CONST_PTR_TO_MAP, ZERO, map=pointer.map, num=pointer.num)
    callee.regs[2] = BpfRegState(PTR_TO_MAP_KEY, ZERO, map=pointer.map)
    callee.regs[3] = BpfRegState(PTR_TO_MAP_VALUE, ZERO, map=pointer.map, num=pointer.num)
    callee.regs[4], callee.deps[4] = caller.regs[3], caller.deps[3]


FUNC_CHECKS: Mapping[int, Callable[[BpfVerifierEnv, CallArgMeta], None]] = MappingProxyType(
    {
        HELPER_IDS["tail_call"]: _check_tail_call,
        HELPER_IDS["loop"]: _check_loop,
        HELPER_IDS["for_each_map_elem"]: _check_for_each,
        HELPER_IDS["timer_set_callback"]: _check_timer_callback,
        HELPER_IDS["find_vma"]: _check_find_vma,
        HELPER_IDS["user_ringbuf_drain"]: _check_user_ringbuf,
        HELPER_IDS["dynptr_from_mem"]: _check_dynptr_from_mem,
        HELPER_IDS["snprintf"]: _check_snprintf,
    }
)
"""What single helpers need beyond their prototype, by number."""
