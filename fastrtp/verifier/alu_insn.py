"""ALU instructions on registers: moves, scalar arithmetic, pointer arithmetic and what of it is allowed.

Kernel: kernel/bpf/verifier.c:check_alu_op, adjust_reg_min_max_vals, adjust_ptr_min_max_vals.
"""

from __future__ import annotations

from errno import EACCES, EINVAL

from fastrtp.isa import (
    BPF_ADD,
    BPF_ALU64,
    BPF_AND,
    BPF_ARSH,
    BPF_CLASS,
    BPF_DIV,
    BPF_END,
    BPF_LSH,
    BPF_MOD,
    BPF_MOV,
    BPF_NEG,
    BPF_OP,
    BPF_OR,
    BPF_RSH,
    BPF_SRC,
    BPF_SUB,
    BPF_X,
    BPF_XOR,
    Insn,
)
from fastrtp.verifier.alu import add_bounds, adjust_scalar32, adjust_scalar64, byte_order, sub_bounds
from fastrtp.verifier.bounds import (
    S32_MAX,
    S32_MIN,
    S64_MIN,
    Bounds,
    coerce_subreg_to_size_sx,
    coerce_to_size_sx,
    s64,
    zext_32_to_64,
)
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.mem import check_reg_read, check_reg_write
from fastrtp.verifier.precision import mark_reg_precise
from fastrtp.verifier.regtype import (
    CONST_PTR_TO_DYNPTR,
    CONST_PTR_TO_MAP,
    PTR_MAYBE_NULL,
    PTR_TO_BTF_ID,
    PTR_TO_BUF,
    PTR_TO_CTX,
    PTR_TO_FUNC,
    PTR_TO_MAP_KEY,
    PTR_TO_MAP_VALUE,
    PTR_TO_MEM,
    PTR_TO_STACK,
    PTR_TO_TP_BUFFER,
    SCALAR_VALUE,
    base_type,
    reg_type_str,
)
from fastrtp.verifier.resolve import BPF_MAX_VAR_OFF
from fastrtp.verifier.stack import assign_scalar_id_before_mov, get_reg_width
from fastrtp.verifier.state import BPF_ADD_CONST, REG_UNKNOWN, BpfRegState, const_scalar, scalar
from fastrtp.verifier.tnum import U32

_ALU_STRING = ("+=", "-=", "*=", "/=", "|=", "&=", "<<=", ">>=", "neg", "%=", "^=", "=", "s>>=", "endian")
_ARITHMETIC = frozenset(
    {
        PTR_TO_CTX,
        PTR_TO_MAP_VALUE,
        PTR_TO_MAP_KEY,
        PTR_TO_STACK,
        PTR_TO_TP_BUFFER,
        PTR_TO_BTF_ID,
        PTR_TO_MEM,
        PTR_TO_BUF,
        PTR_TO_FUNC,
        CONST_PTR_TO_DYNPTR,
    }
)
_UNKNOWN32 = scalar(zext_32_to_64(REG_UNKNOWN.bounds))


def check_alu_op(env: BpfVerifierEnv, insn: Insn) -> None:
    """Check one ALU instruction and set its destination."""
    op = BPF_OP(insn.code)
    if op == BPF_MOV:
        _check_mov(env, insn)
    elif op in (BPF_END, BPF_NEG):
        _check_end_neg(env, insn, op)
    elif op > BPF_END:
        env.reject(EINVAL, f"invalid BPF_ALU opcode {op:x}")
    else:
        _check_binary(env, insn, op)


def _set(env: BpfVerifierEnv, regno: int, reg: BpfRegState, deps: int) -> None:
    env.regs[regno] = reg
    env.frame.deps[regno] = deps


def _check_end_neg(env: BpfVerifierEnv, insn: Insn, op: int) -> None:
    is_alu64 = BPF_CLASS(insn.code) == BPF_ALU64
    if op == BPF_NEG:
        if BPF_SRC(insn.code) or insn.src_reg or insn.off or insn.imm:
            env.reject(EINVAL, "BPF_NEG uses reserved fields")
    elif insn.src_reg or insn.off or insn.imm not in (16, 32, 64) or (is_alu64 and BPF_SRC(insn.code)):
        env.reject(EINVAL, "BPF_END uses reserved fields")
    dst = check_reg_read(env, insn.dst_reg)
    check_reg_write(env, insn.dst_reg)
    deps = env.frame.deps
    if op == BPF_NEG and dst.type == SCALAR_VALUE:
        bounds = (adjust_scalar64 if is_alu64 else adjust_scalar32)(BPF_NEG, dst.bounds, dst.bounds)
        _set(env, insn.dst_reg, scalar(bounds), deps[insn.dst_reg])
    elif op == BPF_END and dst.type == SCALAR_VALUE:
        swap = is_alu64 or bool(BPF_SRC(insn.code))
        _set(env, insn.dst_reg, scalar(byte_order(dst.bounds, insn.imm // 8, swap)), deps[insn.dst_reg])
    else:
        _set(env, insn.dst_reg, REG_UNKNOWN, 0)


def _check_mov(env: BpfVerifierEnv, insn: Insn) -> None:
    is_alu64 = BPF_CLASS(insn.code) == BPF_ALU64
    if not insn.code & BPF_X:
        if insn.src_reg or insn.off:
            env.reject(EINVAL, "BPF_MOV uses reserved fields")
        check_reg_write(env, insn.dst_reg)
        _set(env, insn.dst_reg, const_scalar(insn.imm if is_alu64 else insn.imm & U32), 0)
        return
    if insn.imm or insn.off not in ((0, 8, 16, 32) if is_alu64 else (0, 8, 16)):
        env.reject(EINVAL, "BPF_MOV uses reserved fields")
    src = check_reg_read(env, insn.src_reg)
    check_reg_write(env, insn.dst_reg)
    deps = env.frame.deps[insn.src_reg]
    if src.type != SCALAR_VALUE:
        if is_alu64 and not insn.off:
            _set(env, insn.dst_reg, src, deps)
        else:
            _set(env, insn.dst_reg, REG_UNKNOWN if is_alu64 else _UNKNOWN32, 0)
        return
    bits = insn.off or (64 if is_alu64 else 32)
    same = src.bounds.umax_value < 1 << bits - 1 if insn.off else is_alu64 or get_reg_width(src) <= 32
    if same:
        src = assign_scalar_id_before_mov(env, src)
        env.regs[insn.src_reg] = src
        _set(env, insn.dst_reg, src, deps)
        return
    if insn.off:
        bounds = (coerce_to_size_sx if is_alu64 else coerce_subreg_to_size_sx)(src.bounds, bits // 8)
    else:
        bounds = zext_32_to_64(src.bounds)
    _set(env, insn.dst_reg, scalar(bounds), deps)


def _check_binary(env: BpfVerifierEnv, insn: Insn, op: int) -> None:
    dst_regno = insn.dst_reg
    is_alu64 = BPF_CLASS(insn.code) == BPF_ALU64
    div_mod = op in (BPF_DIV, BPF_MOD)
    reg_source = bool(insn.code & BPF_X)
    if reg_source:
        if insn.imm or (insn.off and not (insn.off == 1 and div_mod)):
            env.reject(EINVAL, "BPF_ALU uses reserved fields")
        src = check_reg_read(env, insn.src_reg)
    else:
        if insn.src_reg or (insn.off and not (insn.off == 1 and div_mod)):
            env.reject(EINVAL, "BPF_ALU uses reserved fields")
        src = const_scalar(insn.imm)
    dst = check_reg_read(env, dst_regno)
    if not reg_source:
        if div_mod and insn.imm == 0:
            env.reject(EINVAL, "div by zero")
        if op in (BPF_LSH, BPF_RSH, BPF_ARSH) and not 0 <= insn.imm < (64 if is_alu64 else 32):
            env.reject(EINVAL, f"invalid shift {insn.imm}")
    check_reg_write(env, dst_regno)
    deps = env.frame.deps
    if dst.type != SCALAR_VALUE or src.type != SCALAR_VALUE:
        if dst.type != SCALAR_VALUE and src.type != SCALAR_VALUE:
            if op == BPF_SUB:
                _set(env, dst_regno, REG_UNKNOWN, 0)
                return
            env.reject(EACCES, f"R{dst_regno} pointer {_ALU_STRING[op >> 4]} pointer prohibited")
        if dst.type == SCALAR_VALUE:
            mark_reg_precise(env, dst_regno)
            pointer, number, reverse = src, dst, True
        else:
            if reg_source:
                mark_reg_precise(env, insn.src_reg)
            pointer, number, reverse = dst, src, False
        result = _adjust_ptr(env, insn, op, is_alu64, pointer, number, reverse)
        _set(env, dst_regno, result, 0)
        return
    bounds = (adjust_scalar64 if is_alu64 else adjust_scalar32)(op, dst.bounds, src.bounds)
    result = scalar(bounds)
    if is_alu64 and op in (BPF_ADD, BPF_SUB) and dst.id and not src.bounds.var_off.mask and not dst.id & BPF_ADD_CONST:
        delta = src.bounds.smin_value if op == BPF_ADD else -src.bounds.smin_value
        if S32_MIN <= delta <= S32_MAX:
            # the sum stays linked to what it was made from
            result = result.with_id(dst.id | BPF_ADD_CONST, delta)
    _set(env, dst_regno, result, deps[dst_regno] | (deps[insn.src_reg] if reg_source else 0))


def _check_sane_offset(env: BpfVerifierEnv, reg: BpfRegState, reg_type: int) -> None:
    """Offsets stay far below what could wrap. Kernel: check_reg_sane_offset."""
    b = reg.bounds
    name = reg_type_str(reg_type)
    if not b.var_off.mask:
        value = s64(b.var_off.value)
        if not -BPF_MAX_VAR_OFF < value < BPF_MAX_VAR_OFF:
            env.reject(EINVAL, f"math between {name} pointer and {value} is not allowed")
    if reg.type != SCALAR_VALUE and not -BPF_MAX_VAR_OFF < reg.off < BPF_MAX_VAR_OFF:
        env.reject(EINVAL, f"{name} pointer offset {reg.off} is not allowed")
    if b.smin_value == S64_MIN:
        env.reject(EINVAL, f"math between {name} pointer and register with unbounded min value is not allowed")
    if not -BPF_MAX_VAR_OFF < b.smin_value < BPF_MAX_VAR_OFF:
        env.reject(EINVAL, f"value {b.smin_value} makes {name} pointer be out of bounds")


def _adjust_ptr(
    env: BpfVerifierEnv, insn: Insn, op: int, is_alu64: bool, ptr: BpfRegState, number: BpfRegState, reverse: bool
) -> BpfRegState:
    """`pointer op number`, or `number op pointer` where `reverse`."""
    dst = insn.dst_reg
    off: Bounds = number.bounds
    known = not off.var_off.mask
    name = reg_type_str(ptr.type)
    if not is_alu64:
        if op == BPF_SUB:
            return _UNKNOWN32
        env.reject(EACCES, f"R{dst} 32-bit pointer arithmetic prohibited")
    if ptr.type & PTR_MAYBE_NULL:
        env.reject(EACCES, f"R{dst} pointer arithmetic on {name} prohibited, null-check it first")
    base = base_type(ptr.type)
    if base not in _ARITHMETIC and not (base == CONST_PTR_TO_MAP and known and off.smin_value == 0 and op == BPF_ADD):
        env.reject(EACCES, f"R{dst} pointer arithmetic on {name} prohibited")
    _check_sane_offset(env, number, ptr.type)
    _check_sane_offset(env, ptr, ptr.type)
    if op not in (BPF_ADD, BPF_SUB):
        if op in (BPF_AND, BPF_OR, BPF_XOR):
            env.reject(EACCES, f"R{dst} bitwise operator {_ALU_STRING[op >> 4]} on pointer prohibited")
        env.reject(EACCES, f"R{dst} pointer arithmetic with {_ALU_STRING[op >> 4]} operator prohibited")
    if op == BPF_SUB:
        if reverse:
            env.reject(EACCES, f"R{dst} tried to subtract pointer from scalar")
        if ptr.type == PTR_TO_STACK:
            env.reject(EACCES, f"R{dst} subtraction from stack pointer prohibited")
    moved = ptr.off + (off.smin_value if op == BPF_ADD else -off.smin_value)
    if known and -(1 << 31) <= moved < 1 << 31:
        result = ptr.with_id(ptr.id, moved)
    else:
        combine = add_bounds if op == BPF_ADD else sub_bounds
        result = ptr.with_bounds(combine(ptr.bounds, off))
    _check_sane_offset(env, result, ptr.type)
    return result
