"""What the core refuses, in the kernel's words: one row a reason, from the operands that the core left.

Kernel: kernel/bpf/verifier.c, the verbose() of each check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from errno import E2BIG, EACCES, EFAULT, EINVAL, ENOMEM, ENOSPC
from types import MappingProxyType
from typing import Any, NoReturn

from fastrtp.uapi import MAX_BPF_STACK
from fastrtp.verifier import reason as why
from fastrtp.verifier.log import Refusal, print_frame
from fastrtp.verifier.regtype import (
    PTR_TO_CTX,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_STACK,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.state import BpfVerifierState
from fastrtp.verifier.tnum import tnum_strn

_Said = tuple[int, str]
_ALU_STRING = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian")
_FIELDS = (
    "BPF_MOV", "BPF_NEG", "BPF_END", "BPF_ALU", "BPF_JMP/JMP32", "BPF_JA", "BPF_EXIT", "BPF_CALL", "BPF_ST", "BPF_STX",
)  # fmt: skip
_ALIGN_DESC = {PTR_TO_MAP_KEY: "key ", PTR_TO_MAP_VALUE: "value ", PTR_TO_CTX: "context ", PTR_TO_STACK: "stack "}
_DIRECTION = (" read from", " write to")


def _name(env: Any, regno: int) -> str:
    return reg_type_str(env.regs[regno].type)


def _var_off(env: Any, regno: int) -> str:
    return tnum_strn(env.regs[regno].bounds.var_off)


def _fields(env: Any) -> _Said:
    if env.a < len(_FIELDS):
        return EINVAL, f"{_FIELDS[env.a]} uses reserved fields"
    mode = env.b & 0xE0
    if mode in (0x20, 0x40):
        return EINVAL, "BPF_LD_[ABS|IND] instructions not allowed for this program type"
    if mode:
        return EINVAL, "invalid BPF_LD mode"
    return EINVAL, "BPF_LD_IMM64 uses reserved fields" if env.b & 0x18 == 0x18 else "invalid BPF_LD_IMM insn"


def _loop(env: Any) -> _Said:
    cur = env.cur_state
    env.log.line(f"infinite loop detected at insn {env.insn_idx}")
    env.log.line(f"cur state: {print_frame(cur.frames[-1], cur)}")
    old = BpfVerifierState(env.space, env.a, env)
    return EINVAL, f"old state: {print_frame(old.frames[-1], old)}"


def _region(env: Any) -> None:
    """A line on the bounds that are left. Kernel: __check_mem_access."""
    regno, off, size, limit = env.a, env.b, env.c, env.d
    base = base_type(env.regs[regno].type)
    if base == PTR_TO_MAP_KEY:
        env.log.line(f"invalid access to map key, key_size={limit} off={off} size={size}")
    elif base == PTR_TO_MAP_VALUE:
        env.log.line(f"invalid access to map value, value_size={limit} off={off} size={size}")
    else:
        env.log.line(f"invalid access to memory, mem_size={limit} off={off} size={size}")


def _min_outside(env: Any) -> _Said:
    _region(env)
    return EACCES, f"R{env.a} min value is outside of the allowed memory range"


def _max_outside(env: Any) -> _Said:
    _region(env)
    return EACCES, f"R{env.a} max value is outside of the allowed memory range"


def _stack_bounds(env: Any) -> _Said:
    regno, access, off, size = env.a, env.b, env.c, env.d
    b = env.regs[regno].bounds
    low, high = b.smin_value + off, b.smax_value + off + size
    errno = EACCES if low < -MAX_BPF_STACK or low > -1 else EINVAL if high > 0 else EFAULT
    if not b.var_off.mask:
        return errno, f"invalid{_DIRECTION[access]} stack R{regno} off={low} size={size}"
    where = f"var_off={tnum_strn(b.var_off)} off={off} size={size}"
    return errno, f"invalid variable-offset{_DIRECTION[access]} stack R{regno} {where}"


def _range_special(env: Any) -> _Said:
    b = env.regs[env.a].bounds
    where = f"var_off {tnum_strn(b.var_off)}" if b.var_off.mask else f"off {env.b}"
    return EACCES, f"invalid read from stack R{env.a} {where}+{env.c} size {env.d}"


def _too_large(env: Any) -> _Said:
    # a log of a million instructions fits no buffer, and bpf_vlog_finalize makes that the error
    return ENOSPC if env.attr.log_level else E2BIG, f"BPF program is too large. Processed {env.a} insn"


def _operator(env: Any) -> str:
    return _ALU_STRING[env.c >> 4]


def _misaligned(env: Any) -> _Said:
    reg = env.regs[env.a]
    what = _ALIGN_DESC.get(base_type(reg.type), "")
    return EACCES, f"misaligned {what}access off {_var_off(env, env.a)}+{reg.off}+{env.b} size {env.c}"


def _map_flags(what: str) -> Callable[[Any], _Said]:
    def said(env: Any) -> _Said:
        return EACCES, f"{what} map forbidden, value_size={env.regs[env.a].map.value_size} off={env.b} size={env.c}"

    return said


_MESSAGES: Mapping[int, Callable[[Any], _Said]] = MappingProxyType(
    {
        why.R_NO_MEMORY: lambda env: (ENOMEM, "no memory for the verifier's states"),
        why.R_INSN_IDX: lambda env: (EINVAL, f"invalid insn idx {env.a} insn_cnt {env.insn_cnt}"),
        why.R_TOO_LARGE: _too_large,
        why.R_TOO_COMPLEX: lambda env: (E2BIG, f"The sequence of {env.a} jumps is too complex."),
        why.R_LOOP: _loop,
        why.R_NO_REG: lambda env: (EINVAL, f"R{env.a} is invalid"),
        why.R_NOT_READ_OK: lambda env: (EACCES, f"R{env.a} !read_ok"),
        why.R_FP_READ_ONLY: lambda env: (EACCES, "frame pointer is read only"),
        why.R_RESERVED: _fields,
        why.R_BAD_OPCODE: lambda env: (EINVAL, f"invalid BPF_{'JMP/JMP32' if env.b else 'ALU'} opcode {env.a:x}"),
        why.R_DIV_ZERO: lambda env: (EINVAL, "div by zero"),
        why.R_SHIFT: lambda env: (EINVAL, f"invalid shift {env.a}"),
        why.R_PTR_PTR: lambda env: (EACCES, f"R{env.a} pointer {_operator(env)} pointer prohibited"),
        why.R_PTR_32: lambda env: (EACCES, f"R{env.a} 32-bit pointer arithmetic prohibited"),
        why.R_PTR_NULL: lambda env: (
            EACCES, f"R{env.a} pointer arithmetic on {reg_type_str(env.b)} prohibited, null-check it first"
        ),
        why.R_PTR_ARITH: lambda env: (EACCES, f"R{env.a} pointer arithmetic on {reg_type_str(env.b)} prohibited"),
        why.R_PTR_BITWISE: lambda env: (EACCES, f"R{env.a} bitwise operator {_operator(env)} on pointer prohibited"),
        why.R_PTR_OPERATOR: lambda env: (EACCES, f"R{env.a} pointer arithmetic with {_operator(env)} operator prohibited"),
        why.R_PTR_FROM_SCALAR: lambda env: (EACCES, f"R{env.a} tried to subtract pointer from scalar"),
        why.R_PTR_STACK_SUB: lambda env: (EACCES, f"R{env.a} subtraction from stack pointer prohibited"),
        why.R_MATH_VALUE: lambda env: (EINVAL, f"math between {reg_type_str(env.a)} pointer and {env.b} is not allowed"),
        why.R_MATH_OFF: lambda env: (EINVAL, f"{reg_type_str(env.a)} pointer offset {env.b} is not allowed"),
        why.R_MATH_UNBOUNDED: lambda env: (
            EINVAL, f"math between {reg_type_str(env.a)} pointer and register with unbounded min value is not allowed"
        ),
        why.R_MATH_RANGE: lambda env: (EINVAL, f"value {env.b} makes {reg_type_str(env.a)} pointer be out of bounds"),
        why.R_MAY_GOTO: lambda env: (EINVAL, f"invalid may_goto imm {env.a}"),
        why.R_MISALIGNED: _misaligned,
        why.R_INVALID_MEM: lambda env: (EACCES, f"R{env.a} invalid mem access '{_name(env, env.a)}'"),
        why.R_READ_ONLY_MEM: lambda env: (EACCES, f"R{env.a} cannot write into {_name(env, env.a)}"),
        why.R_CANNOT_WRITE: lambda env: (EACCES, f"R{env.a} cannot write into {_name(env, env.a)}"),
        why.R_KEY_WRITE: lambda env: (EACCES, f"write to change key R{env.a} not allowed"),
        why.R_MIN_NEGATIVE: lambda env: (
            EACCES, f"R{env.a} min value is negative, either use unsigned index or do a if (index >=0) check."
        ),
        why.R_MIN_OUTSIDE: _min_outside,
        why.R_UNBOUNDED: lambda env: (EACCES, f"R{env.a} unbounded memory access, make sure to bounds check any such access"),
        why.R_MAX_OUTSIDE: _max_outside,
        why.R_MAP_WRITE: _map_flags("write into"),
        why.R_MAP_READ: _map_flags("read from"),
        why.R_TP_OFF: lambda env: (EACCES, f"R{env.a} invalid tracepoint buffer access: off={env.b}, size={env.c}"),
        why.R_TP_VAR_OFF: lambda env: (
            EACCES, f"R{env.a} invalid variable buffer offset: off={env.b}, var_off={_var_off(env, env.a)}"
        ),
        why.R_STACK_UNBOUNDED: lambda env: (EACCES, f"invalid unbounded variable-offset{_DIRECTION[env.b]} stack R{env.a}"),
        why.R_STACK_BOUNDS: _stack_bounds,
        why.R_STACK_SPILL_SIZE: lambda env: (EACCES, "invalid size of register spill"),
        why.R_STACK_SPILL_CALLER: lambda env: (EINVAL, "cannot spill pointers to stack into stack frame of the caller"),
        why.R_STACK_FILL_SIZE: lambda env: (EACCES, "invalid size of register fill"),
        why.R_STACK_SPECIAL: lambda env: (EACCES, f"invalid read from stack off {env.a}+0 size {env.b}"),
        why.R_STACK_VAR_HELPER: lambda env: (
            EACCES,
            "variable offset stack pointer cannot be passed into helper function; "
            f"var_off={_var_off(env, env.a)} off={env.b} size={env.c}",
        ),
        why.R_STACK_ZERO_SIZE: lambda env: (EACCES, "invalid zero-sized read"),
        why.R_STACK_RANGE_SPECIAL: _range_special,
        why.R_STACK_DYNPTR: lambda env: (EACCES, f"potential write to dynptr at off={env.a} disallowed"),
        why.R_ATOMIC_OPCODE: lambda env: (EINVAL, f"BPF_ATOMIC uses invalid atomic opcode {env.a & 0xFFFFFFFF:02x}"),
        why.R_ATOMIC_SIZE: lambda env: (EINVAL, "invalid atomic operand size"),
        why.R_ATOMIC_POINTER: lambda env: (
            EACCES,
            f"BPF_ATOMIC {'stores into' if env.b else 'loads from'} R{env.a} {_name(env, env.a)} is not allowed",
        ),
        why.R_PTR_MISMATCH: lambda env: (EINVAL, "same insn cannot be used with different pointers"),
        why.R_EXPECTED_FP: lambda env: (EACCES, f"R{env.a} type={_name(env, env.a)} expected=fp"),
    }
)


def refuse(env: Any, reason: int) -> NoReturn:
    """Raise what the core said. `env`: the BpfVerifierEnv."""
    errno, message = _MESSAGES[reason](env)
    raise Refusal(errno, message)
