"""Arguments of a helper call: the core checks each (call_native.py), and leaves to this what depends on C types, special fields
of values, constants of maps, and dynptrs.

Kernel: kernel/bpf/verifier.c:check_func_arg.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EINVAL
from typing import Any

from fastrtp.helpers.argtype import MEM_ALIGNED, OBJ_RELEASE, ArgType
from fastrtp.helpers.table import HelperProto
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType
from fastrtp.verifier.core import reason as why
from fastrtp.verifier.domain.records import VCall, VEnv
from fastrtp.verifier.domain.regtype import CONST_PTR_TO_DYNPTR, PTR_TO_BTF_ID, PTR_TO_MAP_VALUE, base_type
from fastrtp.verifier.domain.state import BpfRegState
from fastrtp.verifier.rules.btf_access import btf_name, btf_struct_ids_match
from fastrtp.verifier.rules.dynptr import check_dynptr_arg, held_dynptr
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.fields import BtfField, check_field_pointer
from fastrtp.verifier.rules.kptr import kptr_of_arg, match_kptr_type
from fastrtp.verifier.rules.mem import check_map_access, check_ptr_alignment, check_typed_area
from fastrtp.verifier.rules.section import check_spin_lock


class _Told:
    """What an earlier argument said: a number of the VCALL record."""

    def __init__(self, name: str) -> None:
        self.index = (VEnv.layout.at("call") + VCall.layout.at(name)) // 8

    def __get__(self, meta: Any, _owner: object = None) -> int:
        return int(meta.numbers[self.index])

    def __set__(self, meta: Any, value: int) -> None:
        meta.numbers[self.index] = value


class CallArgMeta:
    """What earlier arguments of a call said. Kernel: struct bpf_call_arg_meta."""

    def __init__(self, env: BpfVerifierEnv) -> None:
        self.numbers, self._space = env.numbers, env.space
        self.ret_btf_id = 0
        self.dynptr: BpfRegState | None = None
        self.kptr_field: BtfField | None = None
        self.kptr_btf: Any = None
        env.lib.verifier_begin_call(env.address)

    map_uid = _Told("map_uid")
    mem_size = _Told("mem_size")
    subprogno = _Told("subprogno")
    release_regno = _Told("release_regno")
    _map = _Told("map")

    @property
    def map_ptr(self) -> Any:
        """The map that the call works on, None for none."""
        return self._space.objects[self._map]

    @map_ptr.setter
    def map_ptr(self, found: Any) -> None:
        self._map = self._space.number(found)


def check_func_arg(env: BpfVerifierEnv, arg: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """Argument `arg` (from 0) of a helper; what it says goes to `meta`. Errors: EINVAL, EACCES."""
    regno, arg_type = arg + 1, fn.args[arg]
    env.check(env.lib.verifier_arg_type(env.address, fn.id, arg))
    reg = env.regs[regno]
    wanted = fn.arg_btf.get(arg) if base_type(reg.type) == PTR_TO_BTF_ID else None
    if wanted is not None and not btf_struct_ids_match(env.attr.kernel_btf, reg.num, reg.off, wanted):
        env.reject(EACCES, f"R{regno} is of type {btf_name(env, reg.num)} but {wanted} is expected")
    if meta.kptr_field is not None and base_type(reg.type) == PTR_TO_BTF_ID:
        match_kptr_type(env, regno, reg, meta.kptr_btf, meta.kptr_field)
    reason = env.lib.verifier_func_arg(env.address, fn.id, arg)
    if reason == why.DO_ARG:
        ARG_CHECKS[arg_type & 0xFF](env, regno, reg, arg_type, meta, fn)
    elif reason == why.DO_ACCESS:
        check_typed_area(env, env.a, env.b, env.c)
        if arg_type & MEM_ALIGNED:
            check_ptr_alignment(env, regno, 0, fn.arg_size[arg])
    else:
        env.check(reason)


def _check_percpu_btf(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    meta.ret_btf_id = reg.num


def _check_const_str(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    found = reg.map
    if not (found.map_flags & BPF_F_RDONLY_PROG and found.frozen):
        env.reject(EACCES, f"R{regno} does not point to a readonly map'")
    if reg.bounds.var_off.mask:
        env.reject(EACCES, f"R{regno} is not a constant address'")
    if found.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY:
        env.reject(EACCES, "no direct value access support for this map type")
    check_map_access(env, regno, reg, reg.off, found.value_size - reg.off, False, False)
    start = reg.off + reg.bounds.smin_value
    if b"\0" not in found.read_value(start, found.value_size - start):
        env.reject(EINVAL, "string is not zero-terminated")


def _check_spin_lock(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    check_spin_lock(env, regno, reg, fn.name == "spin_lock")


def _check_timer(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """Kernel: process_timer_func."""
    check_field_pointer(env, regno, reg, "bpf_timer")
    meta.map_ptr, meta.map_uid = reg.map, reg.num


def _check_dynptr(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    if arg_type & OBJ_RELEASE:
        if reg.type == CONST_PTR_TO_DYNPTR:
            env.reject(EINVAL, "cannot release unowned const bpf_dynptr")
        held = held_dynptr(env, reg)
        if held is None or not held.ref_obj_id:
            env.reject(EINVAL, f"arg {regno} is an unacquired reference")
    meta.dynptr = check_dynptr_arg(env, regno, reg, arg_type)


def _check_kptr_dest(
    env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto
) -> None:
    meta.kptr_btf, meta.kptr_field = kptr_of_arg(env, regno, reg)
    if reg.type == PTR_TO_MAP_VALUE:
        meta.map_ptr = reg.map


def _check_btf_arg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg_type: int, meta: CallArgMeta, fn: HelperProto) -> None:
    """Its type says it all: that was looked at before."""


_ArgCheck = Callable[[BpfVerifierEnv, int, BpfRegState, int, CallArgMeta, HelperProto], None]

ARG_CHECKS: dict[int, _ArgCheck] = {
    ArgType.ARG_PTR_TO_PERCPU_BTF_ID: _check_percpu_btf,
    ArgType.ARG_PTR_TO_CONST_STR: _check_const_str,
    ArgType.ARG_PTR_TO_SPIN_LOCK: _check_spin_lock,
    ArgType.ARG_PTR_TO_TIMER: _check_timer,
    ArgType.ARG_KPTR_XCHG_DEST: _check_kptr_dest,
    ArgType.ARG_PTR_TO_BTF_ID: _check_btf_arg,
    ArgType.ARG_PTR_TO_DYNPTR: _check_dynptr,
}
