"""Global functions: each is verified once, on its own, for any arguments that its prototype allows; a call checks only those.

Only functions that a verified one calls are looked at. A global function returns an unknown number.
Kernel: kernel/bpf/verifier.c:do_check_main, do_check_subprogs, do_check_common, btf_check_func_arg_match, check_return_code.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import EACCES, EINVAL, EOPNOTSUPP

from fastrtp.btf import BtfKind
from fastrtp.helpers.argtype import DYNPTR_TYPE_LOCAL, MEM_RDONLY, PTR_MAYBE_NULL, PTR_TRUSTED, PTR_UNTRUSTED, ArgType
from fastrtp.helpers.table import HELPERS
from fastrtp.isa import BPF_CALL, BPF_JMP
from fastrtp.verifier.domain.bounds import ZERO
from fastrtp.verifier.domain.regtype import (
    CONST_PTR_TO_DYNPTR,
    MEM_RCU,
    PTR_TO_BTF_ID,
    PTR_TO_BUF,
    PTR_TO_CTX,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_PACKET,
    PTR_TO_PACKET_META,
    PTR_TO_STACK,
    SCALAR_VALUE,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.domain.state import REG_CTX, REG_UNKNOWN, BpfRegState, register_is_null
from fastrtp.verifier.report.log import Refusal
from fastrtp.verifier.rules.async_cb import check_async_return
from fastrtp.verifier.rules.ctx import check_ctx_access
from fastrtp.verifier.rules.dynptr import check_dynptr_arg
from fastrtp.verifier.rules.env import BpfVerifierEnv
from fastrtp.verifier.rules.mem import check_helper_mem_access, check_ptr_off_reg, check_reg_read
from fastrtp.verifier.rules.precision import mark_reg_precise
from fastrtp.verifier.rules.stack import READ, WRITE
from fastrtp.verifier.rules.subprog_args import SubprogArg, func_type, prepare_func_args, subprog_name

DoCheck = Callable[[BpfVerifierEnv], None]
"""Follows every path from the current state, which begins at `env.insn_idx`."""

_ANY_OFFSET = frozenset(
    {PTR_TO_STACK, PTR_TO_PACKET, PTR_TO_PACKET_META, PTR_TO_MAP_KEY, PTR_TO_MAP_VALUE, PTR_TO_MEM, PTR_TO_BUF, SCALAR_VALUE}
)
_BTF_TYPES = (PTR_TO_BTF_ID, PTR_TO_BTF_ID | PTR_TRUSTED, PTR_TO_BTF_ID | MEM_RCU)
_EXCEPTION_CALLBACK = "exception_callback:"


def do_check_main(env: BpfVerifierEnv, do_check: DoCheck) -> None:
    """Verify the program itself. Raises Refusal."""
    _refuse_exception_callback(env)
    _start(env, 0)
    if func_type(env, 0) is not None:
        try:
            prepare_func_args(env, 0)
        except Refusal as refusal:  # what is wrong with the prototype of the program itself is said, and does not matter
            if refusal.message:
                env.log.line(refusal.message)
    env.regs[1] = REG_CTX
    do_check(env)
    env.log.reset(0)


def do_check_subprogs(env: BpfVerifierEnv, do_check: DoCheck) -> None:
    """Verify the global functions that are called, and those that they call. Raises Refusal."""
    while todo := sorted(env.called_globals - env.verified_globals):
        for subprogno in todo:
            _start(env, subprogno)
            name = subprog_name(env, subprogno)
            env.log.line(f"Validating {name}() func#{subprogno}...")
            for regno, arg in enumerate(prepare_func_args(env, subprogno), 1):
                env.regs[regno] = _argument(env, arg)
            do_check(env)
            env.log.conclude(f"Func#{subprogno} ('{name}') is safe for any args that match its prototype")
            env.verified_globals.add(subprogno)


def _refuse_exception_callback(env: BpfVerifierEnv) -> None:
    record = func_type(env, 0)
    if record is None:
        return
    for tag in env.attr.btf:
        if tag.kind == BtfKind.DECL_TAG and tag.type == record.id and tag.name.startswith(_EXCEPTION_CALLBACK):
            name = tag.name.removeprefix(_EXCEPTION_CALLBACK)
            env.reject(EOPNOTSUPP, f"exception callback {name}() of {record.name}(): exceptions are not implemented yet")


def _start(env: BpfVerifierEnv, subprogno: int) -> None:
    """A fresh state at the first instruction of a function."""
    env.restart(subprogno)
    env.insn_log.begin()


def _argument(env: BpfVerifierEnv, arg: SubprogArg) -> BpfRegState:
    """Any value that a caller may pass."""
    base, flags = arg.arg_type & 0xFF, arg.arg_type & ~0xFF
    if base == ArgType.ARG_PTR_TO_CTX:
        return REG_CTX
    if base == ArgType.ARG_PTR_TO_MEM:
        ident = env.new_id() if flags & PTR_MAYBE_NULL else 0
        kind = PTR_TO_MEM | flags & (PTR_MAYBE_NULL | PTR_UNTRUSTED | MEM_RDONLY)
        return BpfRegState(kind, ZERO, id=ident, num=arg.mem_size)
    if base == ArgType.ARG_PTR_TO_BTF_ID:
        kind = PTR_TO_BTF_ID | flags & (PTR_MAYBE_NULL | PTR_UNTRUSTED | PTR_TRUSTED)
        return BpfRegState(kind, ZERO, id=env.new_id(), num=arg.btf_id)
    if base == ArgType.ARG_PTR_TO_DYNPTR:
        return BpfRegState(CONST_PTR_TO_DYNPTR, ZERO, id=env.new_id(), num=DYNPTR_TYPE_LOCAL | 1)
    return REG_UNKNOWN


def check_global_call(env: BpfVerifierEnv, subprogno: int) -> None:
    """A call of a global function: the arguments fit its prototype. Errors: EINVAL, and those of the arguments."""
    name = subprog_name(env, subprogno)
    problem = None
    try:
        for regno, arg in enumerate(prepare_func_args(env, subprogno), 1):
            _check_arg(env, regno, arg)
    except Refusal as refusal:
        problem = refusal
    if _might_sleep(env, subprogno):
        env.log.line("global functions that may sleep are not allowed in non-sleepable context,")
        env.log.line("i.e., in a RCU/IRQ/preempt-disabled section, or in")
        env.reject(EINVAL, "a non-sleepable BPF program context")
    if problem is not None:
        env.log.line(problem.message)
        env.reject(problem.errno, f"Caller passes invalid args into func#{subprogno} ('{name}')")
    env.log.line(f"Func#{subprogno} ('{name}') is global and assumed valid.")
    env.called_globals.add(subprogno)


def _might_sleep(env: BpfVerifierEnv, subprogno: int) -> bool:
    """Whether a helper that may sleep is called in the function, or in one that it calls. Kernel: mark_subprog_might_sleep."""
    seen: set[int] = set()
    todo = [subprogno]
    while todo:
        number = todo.pop()
        if number in seen:
            continue
        seen.add(number)
        subprog = env.subprogs[number]
        for i in range(subprog.start, subprog.end):
            insn = env.insns[i]
            if insn.code != BPF_JMP | BPF_CALL:
                continue
            if insn.src_reg == 0 and insn.imm in HELPERS and HELPERS[insn.imm].might_sleep:
                return True
            if insn.src_reg == 1:
                todo.append(env.subprog_at[i + insn.imm + 1])
    return False


def _check_arg(env: BpfVerifierEnv, regno: int, arg: SubprogArg) -> None:
    reg = env.regs[regno]
    base, flags = arg.arg_type & 0xFF, arg.arg_type & ~0xFF
    if base == ArgType.ARG_ANYTHING:
        if reg.type != SCALAR_VALUE:
            env.reject(EINVAL, f"R{regno} is not a scalar")
    elif flags & PTR_UNTRUSTED:
        return
    elif base == ArgType.ARG_PTR_TO_CTX:
        _check_offset(env, regno, reg)
        if reg.type != PTR_TO_CTX:
            env.reject(EINVAL, f"arg#{regno - 1} expects pointer to ctx")
    elif base == ArgType.ARG_PTR_TO_MEM:
        _check_offset(env, regno, reg)
        _check_mem_reg(env, regno, reg, arg.mem_size)
        if not flags & PTR_MAYBE_NULL and (reg.type & PTR_MAYBE_NULL or register_is_null(reg)):
            env.reject(EINVAL, f"arg#{regno - 1} is expected to be non-NULL")
    elif base == ArgType.ARG_PTR_TO_BTF_ID:
        _check_btf_reg(env, regno, reg, arg)
    else:
        if reg.type != PTR_TO_STACK:
            _check_offset(env, regno, reg)
        if reg.type not in (PTR_TO_STACK, CONST_PTR_TO_DYNPTR):
            env.reject(EINVAL, f"arg#{regno - 1} expected pointer to stack or const struct bpf_dynptr")
        check_dynptr_arg(env, regno, reg, arg.arg_type)


def _check_offset(env: BpfVerifierEnv, regno: int, reg: BpfRegState) -> None:
    """Kernel: check_func_arg_reg_off."""
    base = base_type(reg.type)
    if base not in _ANY_OFFSET:
        check_ptr_off_reg(env, regno, fixed_off_ok=base == PTR_TO_BTF_ID)


def _check_mem_reg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, size: int) -> None:
    """The function may read and write that many bytes; a pointer that may be NULL is looked at as if it were not."""
    if register_is_null(reg):
        mark_reg_precise(env, regno)  # the function reads through it when it is not 0, which no other path may bring
        return
    try:
        if reg.type & PTR_MAYBE_NULL:
            env.regs[regno] = reg.with_type(reg.type & ~PTR_MAYBE_NULL)
        for access in (READ, WRITE):
            if reg.type == PTR_TO_CTX:
                if size:
                    check_ctx_access(env, reg.off + size - 1, 1, access)
                continue
            check_helper_mem_access(env, regno, size, access, True)
    except Refusal as refusal:
        env.reject(EINVAL, refusal.message)
    finally:
        env.regs[regno] = reg


def _check_btf_reg(env: BpfVerifierEnv, regno: int, reg: BpfRegState, arg: SubprogArg) -> None:
    """Kernel: check_reg_type for ARG_PTR_TO_BTF_ID."""
    nullable = arg.arg_type & PTR_MAYBE_NULL
    if nullable and register_is_null(reg):
        mark_reg_precise(env, regno)
        return
    kind = reg.type & ~PTR_MAYBE_NULL if nullable else reg.type
    if kind not in _BTF_TYPES:
        expected = ", ".join(reg_type_str(t) for t in _BTF_TYPES)
        env.reject(EACCES, f"R{regno} type={reg_type_str(reg.type)} expected={expected}")
    btf = env.attr.kernel_btf
    if not _struct_ids_match(env, reg, arg.btf_id):
        env.reject(EACCES, f"R{regno} is of type {btf.type(reg.num).name} but {btf.type(arg.btf_id).name} is expected")
    check_ptr_off_reg(env, regno, fixed_off_ok=True)


def _struct_ids_match(env: BpfVerifierEnv, reg: BpfRegState, wanted: int) -> bool:
    """The type itself, or the struct that begins at the pointer's offset in it. Kernel: btf_struct_ids_match."""
    btf = env.attr.kernel_btf
    type_id, off = reg.num, reg.off
    while True:
        if type_id == wanted and not off:
            return True
        record = btf.type(btf.strip(type_id))
        if record.kind == BtfKind.ARRAY:
            size = btf.sizeof(record.type)
            if not size:
                return False
            type_id, off = btf.strip(record.type), off % size
            continue
        if record.kind not in (BtfKind.STRUCT, BtfKind.UNION):
            return False
        for member in record.members:
            start = member.bit_offset // 8
            if start <= off < start + btf.sizeof(member.type_id):
                type_id, off = btf.strip(member.type_id), off - start
                break
        else:
            return False


def check_return_code(env: BpfVerifierEnv) -> None:
    """R0 where the program, a global function that is verified on its own, or a callback that runs later, ends."""
    if env.frame.in_async_callback_fn:
        check_async_return(env)
        return
    reg = check_reg_read(env, 0)
    if env.frame.subprogno and reg.type != SCALAR_VALUE:
        env.reject(EINVAL, f"At subprogram exit the register R0 is not a scalar value ({reg_type_str(reg.type)})")
