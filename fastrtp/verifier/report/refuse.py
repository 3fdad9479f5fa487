"""What the core refuses, in the kernel's words: one row a reason, filled in from the operands that the core left.

`{a}` to `{d}` are the operands, `{name}` the type of register `a`, `{var_off}` its known bits; the rest is in `_Operands`.
Kernel: kernel/bpf/verifier.c, the verbose() of each check.
"""

from __future__ import annotations

from collections.abc import Mapping
from errno import E2BIG, EACCES, EFAULT, EINVAL, ENOMEM, ENOSPC
from types import MappingProxyType
from typing import Any, NoReturn

from fastrtp.isa import func_id_name
from fastrtp.uapi import MAX_BPF_STACK
from fastrtp.verifier.core import reason as why
from fastrtp.verifier.core.call_table import expected_types
from fastrtp.verifier.domain.regtype import (
    PTR_TO_CTX,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_STACK,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.domain.state import BpfVerifierState
from fastrtp.verifier.domain.tnum import tnum_strn
from fastrtp.verifier.report.log import Refusal, print_frame

_ALU_STRING = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian")
_ALIGN_DESC = {PTR_TO_MAP_KEY: "key ", PTR_TO_MAP_VALUE: "value ", PTR_TO_CTX: "context ", PTR_TO_STACK: "stack "}
_REGION = {PTR_TO_MAP_KEY: "map key, key_size", PTR_TO_MAP_VALUE: "map value, value_size"}

_MESSAGES: Mapping[int, tuple[int, str]] = MappingProxyType(
    {
        why.R_NO_MEMORY: (ENOMEM, "no memory for the verifier's states"),
        why.R_INSN_IDX: (EINVAL, "invalid insn idx {a} insn_cnt {insn_cnt}"),
        why.R_TOO_LARGE: (E2BIG, "BPF program is too large. Processed {a} insn"),
        why.R_TOO_COMPLEX: (EFAULT, "The sequence of {a} jumps is too complex."),
        why.R_LOOP_TOO_COMPLEX: (ENOMEM, "The sequence of {a} jumps is too complex."),
        why.R_LOOP: (EINVAL, "old state: {old}"),
        why.R_NO_REG: (EINVAL, "R{a} is invalid"),
        why.R_NOT_READ_OK: (EACCES, "R{a} !read_ok"),
        why.R_FP_READ_ONLY: (EACCES, "frame pointer is read only"),
        why.R_DIV_ZERO: (EINVAL, "div by zero"),
        why.R_SHIFT: (EINVAL, "invalid shift {a}"),
        why.R_PTR_PTR: (EACCES, "R{a} pointer {op} pointer prohibited"),
        why.R_PTR_32: (EACCES, "R{a} 32-bit pointer arithmetic prohibited"),
        why.R_PTR_NULL: (EACCES, "R{a} pointer arithmetic on {type_b} prohibited, null-check it first"),
        why.R_PTR_ARITH: (EACCES, "R{a} pointer arithmetic on {type_b} prohibited"),
        why.R_PTR_BITWISE: (EACCES, "R{a} bitwise operator {op} on pointer prohibited"),
        why.R_PTR_OPERATOR: (EACCES, "R{a} pointer arithmetic with {op} operator prohibited"),
        why.R_PTR_FROM_SCALAR: (EACCES, "R{a} tried to subtract pointer from scalar"),
        why.R_PTR_STACK_SUB: (EACCES, "R{a} subtraction from stack pointer prohibited"),
        why.R_MATH_VALUE: (EINVAL, "math between {type_a} pointer and {b} is not allowed"),
        why.R_MATH_OFF: (EINVAL, "{type_a} pointer offset {b} is not allowed"),
        why.R_MATH_UNBOUNDED: (EINVAL, "math between {type_a} pointer and register with unbounded min value is not allowed"),
        why.R_MATH_RANGE: (EINVAL, "value {b} makes {type_a} pointer be out of bounds"),
        why.R_MAY_GOTO: (EINVAL, "invalid may_goto imm {a}"),
        why.R_MISALIGNED: (EACCES, "misaligned {what}access off {var_off}+{off}+{b} size {c}"),
        why.R_INVALID_MEM: (EACCES, "R{a} invalid mem access '{name}'"),
        why.R_READ_ONLY_MEM: (EACCES, "R{a} cannot write into {name}"),
        why.R_CANNOT_WRITE: (EACCES, "R{a} cannot write into {name}"),
        why.R_ADDR_SPACE_CAST: (EINVAL, "addr_space_cast insn can only {cast}"),
        why.R_KEY_WRITE: (EACCES, "write to change key R{a} not allowed"),
        why.R_MIN_NEGATIVE: (EACCES, "R{a} min value is negative, either use unsigned index or do a if (index >=0) check."),
        why.R_MIN_OUTSIDE: (EACCES, "R{a} min value is outside of the allowed memory range"),
        why.R_UNBOUNDED: (EACCES, "R{a} unbounded memory access, make sure to bounds check any such access"),
        why.R_MAX_OUTSIDE: (EACCES, "R{a} max value is outside of the allowed memory range"),
        why.R_MAP_WRITE: (EACCES, "write into map forbidden, value_size={value_size} off={b} size={c}"),
        why.R_MAP_READ: (EACCES, "read from map forbidden, value_size={value_size} off={b} size={c}"),
        why.R_TP_OFF: (EACCES, "R{a} invalid tracepoint buffer access: off={b}, size={c}"),
        why.R_TP_VAR_OFF: (EACCES, "R{a} invalid variable buffer offset: off={b}, var_off={var_off}"),
        why.R_STACK_UNBOUNDED: (EACCES, "invalid unbounded variable-offset{direction} stack R{a}"),
        why.R_STACK_SPILL_SIZE: (EACCES, "invalid size of register spill"),
        why.R_STACK_SPILL_CALLER: (EINVAL, "cannot spill pointers to stack into stack frame of the caller"),
        why.R_STACK_FILL_SIZE: (EACCES, "invalid size of register fill"),
        why.R_STACK_SPECIAL: (EACCES, "invalid read from stack off {a}+0 size {b}"),
        why.R_STACK_VAR_HELPER: (
            EACCES,
            "variable offset stack pointer cannot be passed into helper function; var_off={var_off} off={b} size={c}",
        ),
        why.R_STACK_ZERO_SIZE: (EACCES, "invalid zero-sized read"),
        why.R_STACK_RANGE_SPECIAL: (EACCES, "invalid read from stack R{a} {place}+{c} size {d}"),
        why.R_STACK_DYNPTR: (EACCES, "potential write to dynptr at off={a} disallowed"),
        why.R_ATOMIC_OPCODE: (EINVAL, "BPF_ATOMIC uses invalid atomic opcode {unsigned_a:02x}"),
        why.R_ATOMIC_SIZE: (EINVAL, "invalid atomic operand size"),
        why.R_ATOMIC_POINTER: (EACCES, "BPF_ATOMIC {verb} R{a} {name} is not allowed"),
        why.R_PTR_MISMATCH: (EINVAL, "same insn cannot be used with different pointers"),
        why.R_EXPECTED_FP: (EACCES, "R{a} type={name} expected=fp"),
        why.R_OFF_NEGATIVE: (EACCES, "negative offset {name} ptr R{a} off={off} disallowed"),
        why.R_OFF_FIXED: (EACCES, "dereference of modified {name} ptr R{a} off={off} disallowed"),
        why.R_OFF_VARIABLE: (EACCES, "variable {name} access var_off={var_off} disallowed"),
        why.R_ARG_TYPE: (EACCES, "R{a} type={name} expected={expected}"),
        why.R_ARG_MAY_WRITE: (EACCES, "{helper}() may write into memory pointed by R{a} type={name}"),
        why.R_ARG_NULL: (EACCES, "Possibly NULL pointer passed to helper arg{a}"),
        why.R_ARG_TRUSTED_NULL: (EACCES, "Possibly NULL pointer passed to trusted arg{b}"),
        why.R_ARG_NULL_OBJECT: (EFAULT, "verifier bug: invalid PTR_TO_BTF_ID register for type match"),
        why.R_ARG_UNREFERENCED: (EINVAL, "R{a} must be referenced when passed to release function"),
        why.R_ARG_TWO_REFS: (EACCES, "more than one arg with ref_obj_id R{a} {b} {c}"),
        why.R_ARG_RELEASE_OFF: (EINVAL, "R{a} must have zero offset when passed to release func or trusted arg to kfunc"),
        why.R_ARG_TIMER_MAP: (EINVAL, "timer pointer in R1 map_uid={b} doesn't match map pointer in R2 map_uid={c}"),
        why.R_ARG_KEY_MAP: (EACCES, "invalid map_ptr to access map->key"),
        why.R_ARG_VALUE_MAP: (EACCES, "invalid map_ptr to access map->value"),
        why.R_SIZE_NEGATIVE: (EACCES, "R{a} min value is negative, either use unsigned or 'var &= const'"),
        why.R_SIZE_ZERO: (EACCES, "R{a} invalid zero-sized read: u64=[{umin},{umax}]"),
        why.R_SIZE_UNBOUNDED: (EACCES, "R{a} unbounded memory access, use 'var &= const' or 'if (var < const)'"),
        why.R_ALLOC_UNKNOWN: (EACCES, "R{a} is not a known constant'"),
        why.R_ALLOC_TOO_LARGE: (EACCES, "R{a} allocation size {umin} is too large"),
        why.R_CALL_RDONLY_MAP: (EACCES, "write into map forbidden"),
        why.R_CALL_NOT_ACQUIRED: (EINVAL, "func {func} reference has not been acquired before"),
        why.R_CALL_MAP_TYPE: (EINVAL, "cannot pass map_type {a} into func {func}"),
        why.R_CALL_DEPTH: (E2BIG, "the call stack of {a} frames is too deep"),
        why.R_ITER_ARG: (EINVAL, "arg#0 expected pointer to an iterator on stack"),
        why.R_ITER_NUMBER: (EINVAL, "R{a} is not a scalar"),
        why.R_RETURN_STACK: (EINVAL, "cannot return stack pointer to the caller"),
    }
)
_OPCODE_MESSAGES = ("invalid BPF_ALU opcode {a:x}", "invalid BPF_JMP/JMP32 opcode {a:x}")
_FIELDS_MESSAGES = (
    "BPF_MOV uses reserved fields",
    "BPF_NEG uses reserved fields",
    "BPF_END uses reserved fields",
    "BPF_ALU uses reserved fields",
    "BPF_JMP/JMP32 uses reserved fields",
    "BPF_JA uses reserved fields",
    "BPF_EXIT uses reserved fields",
    "BPF_CALL uses reserved fields",
    "BPF_ST uses reserved fields",
    "BPF_STX uses reserved fields",
)
_LD_MESSAGES = (
    "BPF_LD_[ABS|IND] instructions not allowed for this program type",
    "invalid BPF_LD mode",
    "invalid BPF_LD_IMM insn",
    "BPF_LD_IMM64 uses reserved fields",
)
_ITER_MESSAGES = ("expected uninitialized iter_num as arg #0", "expected an initialized iter_num as arg #0")
_STACK_MESSAGES = (
    "invalid{direction} stack R{a} off={low} size={d}",
    "invalid variable-offset{direction} stack R{a} var_off={var_off} off={c} size={d}",
)


_CAST_LIMITS = ("be used in a program that has an associated arena", "convert between address space 1 and 0")


class _Operands(Mapping[str, Any]):
    """What a message may name, found when it does."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def __getitem__(self, name: str) -> Any:
        env = self._env
        if name in ("a", "b", "c", "d", "insn_cnt"):
            return getattr(env, name)
        if name == "type_a" or name == "type_b":
            return reg_type_str(getattr(env, name[-1]))
        if name == "unsigned_a":
            return env.a & 0xFFFFFFFF
        if name == "op":
            return _ALU_STRING[env.c >> 4]
        if name == "direction":
            return (" read from", " write to")[env.b]
        if name == "verb":
            return ("loads from", "stores into")[env.b]
        if name == "func":
            func_id = env.insns[env.insn_idx].imm
            return f"{func_id_name(func_id)}#{func_id}"
        if name == "helper":
            return func_id_name(env.insns[env.insn_idx].imm)
        if name == "cast":
            return _CAST_LIMITS[env.a]
        if name == "old":
            old = BpfVerifierState(env.space, env.a, env)
            return print_frame(old.frames[-1], old)
        reg = env.regs[env.a]
        bounds = reg.bounds
        if name == "name":
            return reg_type_str(reg.type)
        if name == "var_off":
            return tnum_strn(bounds.var_off)
        if name == "off":
            return reg.off
        if name == "what":
            return _ALIGN_DESC.get(base_type(reg.type), "")
        if name == "value_size":
            return reg.map.value_size
        if name == "umin":
            return bounds.umin_value
        if name == "umax":
            return bounds.umax_value
        if name == "expected":
            return ", ".join(reg_type_str(kind) for kind in expected_types(env.b))
        if name == "low":
            return bounds.smin_value + env.c
        if name == "place":
            return f"var_off {tnum_strn(bounds.var_off)}" if bounds.var_off.mask else f"off {env.b}"
        raise KeyError(name)

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def _stack_bounds(env: Any) -> tuple[int, str]:
    b = env.regs[env.a].bounds
    low, high = b.smin_value + env.c, b.smax_value + env.c + env.d
    errno = EACCES if low < -MAX_BPF_STACK or low > -1 else EINVAL if high > 0 else EFAULT
    return errno, _STACK_MESSAGES[bool(b.var_off.mask)]


def _ld_fields(env: Any) -> str:
    mode = env.b & 0xE0
    if mode:
        return _LD_MESSAGES[0 if mode in (0x20, 0x40) else 1]
    return _LD_MESSAGES[3 if env.b & 0x18 == 0x18 else 2]


def _row(env: Any, reason: int) -> tuple[int, str]:
    """Errno and message of a reason; lines that go before it are written."""
    if reason == why.R_BAD_OPCODE:
        return EINVAL, _OPCODE_MESSAGES[env.b]
    if reason == why.R_RESERVED:
        return EINVAL, _FIELDS_MESSAGES[env.a] if env.a < len(_FIELDS_MESSAGES) else _ld_fields(env)
    if reason == why.R_STACK_BOUNDS:
        return _stack_bounds(env)
    if reason in (why.R_MIN_OUTSIDE, why.R_MAX_OUTSIDE):
        where = _REGION.get(base_type(env.regs[env.a].type), "memory, mem_size")
        env.log.line(f"invalid access to {where}={env.d} off={env.b} size={env.c}")
    if reason == why.R_ITER_STATE:
        if env.b:
            env.log.line("iter has to be at a constant offset" if env.b == 1 else f"cannot pass in iter at an offset={env.c}")
        return EINVAL, _ITER_MESSAGES[env.a]
    if reason == why.R_LOOP:
        env.log.line(f"infinite loop detected at insn {env.insn_idx}")
        env.log.line(f"cur state: {print_frame(env.frame, env.cur_state)}")
    errno, text = _MESSAGES[reason]
    if reason == why.R_TOO_LARGE and env.attr.log_level & 3:
        errno = ENOSPC  # a log of a million instructions fits no buffer, and bpf_vlog_finalize makes that the error
    return errno, text


def refuse(env: Any, reason: int) -> NoReturn:
    """Raise what the core said. `env`: the BpfVerifierEnv."""
    errno, text = _row(env, reason)
    raise Refusal(errno, text.format_map(_Operands(env)))
