"""func_info: which FUNC of the program's BTF each of its functions is, and what that has to say of functions with tail calls.

A function that calls bpf_tail_call may return what another program returned: its BTF must call that a number.
Kernel: kernel/bpf/verifier.c:check_btf_func_early, check_btf_func, check_abnormal_return.
"""

from __future__ import annotations

from errno import EINVAL
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.btf.types import ENUMS
from fastrtp.verifier.rules.env import BpfVerifierEnv

_SMALL_INT = 8


def check_btf_func(env: BpfVerifierEnv) -> None:
    """A record for each function, in order, of a FUNC; those with tail calls return a number. Errors: EINVAL."""
    rows = _rows(env)
    if not rows:
        _check_abnormal_return(env)
        return
    previous = -1
    for number, (insn_off, type_id) in enumerate(rows):
        if number == 0 and insn_off:
            env.reject(EINVAL, f"nonzero insn_off {insn_off} for the first func info record")
        if insn_off <= previous:
            env.reject(EINVAL, f"same or smaller insn offset ({insn_off}) than previous func info record ({previous})")
        if _proto(env, type_id) is None:
            env.reject(EINVAL, f"invalid type id {type_id} in func info")
        previous = insn_off
    if len(rows) != len(env.subprogs):
        env.reject(EINVAL, "number of funcs in func_info doesn't match number of subprogs")
    for number, (subprog, (insn_off, type_id)) in enumerate(zip(env.subprogs, rows, strict=True)):
        if subprog.start != insn_off:
            env.reject(EINVAL, "func_info BTF section doesn't match subprog layout in BPF program")
        if number and subprog.has_tail_call and not _returns_number(env, type_id):
            env.reject(EINVAL, "tail_call is only allowed in functions that return 'int'.")


def has_func_info(env: BpfVerifierEnv) -> bool:
    """Whether the program came with records."""
    return bool(_rows(env))


def _rows(env: BpfVerifierEnv) -> list[tuple[int, int]]:
    info = env.attr.func_info
    return [] if info is None else [(int(row[0]), int(row[1])) for row in info]


def _check_abnormal_return(env: BpfVerifierEnv) -> None:
    if any(subprog.has_tail_call for subprog in env.subprogs[1:]):
        env.reject(EINVAL, "tail_call is not allowed in subprogs without BTF")


def _proto(env: BpfVerifierEnv, type_id: int) -> Any:
    """The FUNC_PROTO behind a FUNC, None where the id is that of something else."""
    btf = env.attr.btf
    if btf is None or not 0 < type_id < len(btf) or btf.type(type_id).kind != BtfKind.FUNC:
        return None
    proto = btf.type(btf.type(type_id).type)
    return proto if proto.kind == BtfKind.FUNC_PROTO else None


def _returns_number(env: BpfVerifierEnv, type_id: int) -> bool:
    """Kernel: btf_type_is_small_int, btf_is_any_enum."""
    btf = env.attr.btf
    record = btf.type(btf.strip(_proto(env, type_id).type))
    return record.kind in ENUMS or (record.kind == BtfKind.INT and record.size <= _SMALL_INT)
