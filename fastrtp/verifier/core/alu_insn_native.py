"""ALU instructions on registers: moves, scalar arithmetic, pointer arithmetic and what of it is allowed.

Kernel: kernel/bpf/verifier.c:check_alu_op, adjust_reg_min_max_vals, adjust_ptr_min_max_vals.
"""

from __future__ import annotations

from fastrtp.isa import (
    BPF_ADD,
    BPF_ALU64,
    BPF_AND,
    BPF_ARSH,
    BPF_DIV,
    BPF_END,
    BPF_LSH,
    BPF_MOD,
    BPF_MOV,
    BPF_NEG,
    BPF_OR,
    BPF_RSH,
    BPF_SUB,
    BPF_X,
    BPF_XOR,
)
from fastrtp.native.intrinsics import device, ule
from fastrtp.verifier.core.mem_native import check_reg_read, check_reg_write, current_reg
from fastrtp.verifier.core.precision_native import mark_reg_precise
from fastrtp.verifier.core.reason import (
    OK,
    R_ADDR_SPACE_CAST,
    R_BAD_OPCODE,
    R_DIV_ZERO,
    R_MATH_OFF,
    R_MATH_RANGE,
    R_MATH_UNBOUNDED,
    R_MATH_VALUE,
    R_PTR_32,
    R_PTR_ARITH,
    R_PTR_BITWISE,
    R_PTR_FROM_SCALAR,
    R_PTR_NULL,
    R_PTR_OPERATOR,
    R_PTR_PTR,
    R_PTR_STACK_SUB,
    R_RESERVED,
    R_SHIFT,
)
from fastrtp.verifier.core.stack_native import (
    BPF_ADD_CONST,
    BPF_ADD_CONST32,
    BPF_ADD_CONST64,
    BPF_MAX_VAR_OFF,
    assign_scalar_id_before_mov,
    fits,
    is_const,
    say,
)
from fastrtp.verifier.core.state_native import (
    copy_reg,
    deps_union,
    mark_const,
    mark_unknown,
)
from fastrtp.verifier.domain.alu_native import adjust_scalar32, adjust_scalar64, byte_order
from fastrtp.verifier.domain.bounds_native import (
    S32_MAX,
    S32_MIN,
    coerce_subreg_to_size_sx,
    coerce_to_size_sx,
    zext_32_to_64,
)
from fastrtp.verifier.domain.records import VEnv, VInsn, VReg
from fastrtp.verifier.domain.regtype import ARITHMETIC_MASK, CONST_PTR_TO_MAP, PTR_MAYBE_NULL, PTR_TO_STACK, SCALAR_VALUE
from fastrtp.verifier.domain.tnum_native import U32, sx32

MOV_FIELDS, NEG_FIELDS, END_FIELDS, ALU_FIELDS, JMP_FIELDS, JA_FIELDS, EXIT_FIELDS, CALL_FIELDS = range(8)
ST_FIELDS, STX_FIELDS, LD_FIELDS = range(8, 11)
"""Operand of R_RESERVED."""
BPF_ADDR_SPACE_CAST = 1
"""`off` of a move between address spaces."""


@device
def insn_dst(insn: VInsn) -> int:
    """dst_reg."""
    return insn.regs & 15


@device
def insn_src(insn: VInsn) -> int:
    """src_reg."""
    return insn.regs >> 4


@device
def _forget(reg: VReg) -> None:
    """No identity any more."""
    reg.id = 0
    reg.off = 0


@device
def _unknown32(reg: VReg) -> None:
    mark_unknown(reg)
    zext_32_to_64(reg)


@device
def _check_end_neg(env: VEnv, insn: VInsn, op: int, is_alu64: int) -> int:
    reg_source = insn.code & BPF_X
    imm = insn.imm
    if op == BPF_NEG:
        if reg_source or insn_src(insn) or insn.off or imm:
            return say(env, R_RESERVED, NEG_FIELDS, 0, 0, 0)
    elif insn_src(insn) or insn.off or (imm != 16 and imm != 32 and imm != 64) or (is_alu64 and reg_source):
        return say(env, R_RESERVED, END_FIELDS, 0, 0, 0)
    regno = insn_dst(insn)
    reason = check_reg_read(env, regno)
    if reason == OK:
        reason = check_reg_write(env, regno)
    if reason != OK:
        return reason
    dst = current_reg(env, regno)
    if dst.type != SCALAR_VALUE:
        mark_unknown(dst)
        return OK
    _forget(dst)
    if op == BPF_END:
        byte_order(dst, imm >> 3, 1 if is_alu64 or reg_source else 0)
    elif is_alu64:
        adjust_scalar64(BPF_NEG, dst, dst)
    else:
        adjust_scalar32(BPF_NEG, dst, dst)
    return OK


@device
def _check_mov(env: VEnv, insn: VInsn, is_alu64: int) -> int:
    off = insn.off
    imm = insn.imm
    dst_regno = insn_dst(insn)
    src_regno = insn_src(insn)
    if (insn.code & BPF_X) == 0:
        if src_regno or off:
            return say(env, R_RESERVED, MOV_FIELDS, 0, 0, 0)
        reason = check_reg_write(env, dst_regno)
        if reason == OK:
            mark_const(current_reg(env, dst_regno), imm if is_alu64 else imm & U32)
        return reason
    if is_alu64 and off == BPF_ADDR_SPACE_CAST:
        return say(env, R_ADDR_SPACE_CAST, 1 if imm != 1 and imm != 1 << 16 else 0, 0, 0, 0)
    if imm or (off != 0 and off != 8 and off != 16 and (off != 32 or not is_alu64)):
        return say(env, R_RESERVED, MOV_FIELDS, 0, 0, 0)
    reason = check_reg_read(env, src_regno)
    if reason == OK:
        reason = check_reg_write(env, dst_regno)
    if reason != OK:
        return reason
    src = current_reg(env, src_regno)
    dst = current_reg(env, dst_regno)
    if src.type != SCALAR_VALUE:
        if is_alu64 and off == 0:
            copy_reg(int(dst), int(src))
        elif is_alu64:
            mark_unknown(dst)
        else:
            _unknown32(dst)
        return OK
    # a sign extension that changes nothing, or a move of all that there is
    same = ule(src.umax, (1 << (off - 1)) - 1) if off else is_alu64 != 0 or fits(src, 32) != 0
    if same:
        assign_scalar_id_before_mov(env, src)
        copy_reg(int(dst), int(src))
        return OK
    copy_reg(int(dst), int(src))
    _forget(dst)
    if off == 0:
        zext_32_to_64(dst)
    elif is_alu64:
        coerce_to_size_sx(dst, off >> 3)
    else:
        coerce_subreg_to_size_sx(dst, off >> 3)
    return OK


@device
def _check_sane_offset(env: VEnv, reg: VReg, type: int) -> int:
    """Offsets stay far below what could wrap. Kernel: check_reg_sane_offset."""
    if is_const(reg):
        value = reg.value
        if value <= -BPF_MAX_VAR_OFF or value >= BPF_MAX_VAR_OFF:
            return say(env, R_MATH_VALUE, type, value, 0, 0)
    off = reg.off
    if off <= -BPF_MAX_VAR_OFF or off >= BPF_MAX_VAR_OFF:  # of a linked number: its distance, as Linux has it
        return say(env, R_MATH_OFF, type, off, 0, 0)
    smin = reg.smin
    if smin == -(1 << 63):
        return say(env, R_MATH_UNBOUNDED, type, 0, 0, 0)
    if smin <= -BPF_MAX_VAR_OFF or smin >= BPF_MAX_VAR_OFF:
        return say(env, R_MATH_RANGE, type, smin, 0, 0)
    return OK


@device
def _adjust_ptr(env: VEnv, dst_regno: int, op: int, is_alu64: int, ptr: VReg, number: VReg, reverse: int, result: VReg) -> int:
    """`pointer op number`, or `number op pointer` where `reverse`, into `result` (no register)."""
    type = ptr.type
    if not is_alu64:
        if op == BPF_SUB:
            _unknown32(result)
            return OK
        return say(env, R_PTR_32, dst_regno, type, op, 0)
    known = is_const(number)
    delta = number.smin
    if type & PTR_MAYBE_NULL:
        return say(env, R_PTR_NULL, dst_regno, type, op, 0)
    base = type & 0xFF
    if ((ARITHMETIC_MASK >> base) & 1) == 0 and not (base == CONST_PTR_TO_MAP and known and delta == 0 and op == BPF_ADD):
        return say(env, R_PTR_ARITH, dst_regno, type, op, 0)
    reason = _check_sane_offset(env, number, type)
    if reason == OK:
        reason = _check_sane_offset(env, ptr, type)
    if reason != OK:
        return reason
    if op == BPF_AND or op == BPF_OR or op == BPF_XOR:
        return say(env, R_PTR_BITWISE, dst_regno, type, op, 0)
    if op != BPF_ADD and op != BPF_SUB:
        return say(env, R_PTR_OPERATOR, dst_regno, type, op, 0)
    if op == BPF_SUB and reverse:
        return say(env, R_PTR_FROM_SCALAR, dst_regno, type, op, 0)
    if op == BPF_SUB and type == PTR_TO_STACK:
        return say(env, R_PTR_STACK_SUB, dst_regno, type, op, 0)
    moved = ptr.off + (delta if op == BPF_ADD else -delta)
    copy_reg(int(result), int(ptr))
    if known and moved >= S32_MIN and moved <= S32_MAX:
        result.off = moved
    else:
        adjust_scalar64(op, result, number)
    result.deps = 0
    return _check_sane_offset(env, result, type)


@device
def _check_binary(env: VEnv, insn: VInsn, op: int, is_alu64: int) -> int:
    dst_regno = insn_dst(insn)
    src_regno = insn_src(insn)
    off = insn.off
    imm = insn.imm
    reg_source = insn.code & BPF_X
    div_mod = 1 if op == BPF_DIV or op == BPF_MOD else 0
    if (off != 0 and (off != 1 or not div_mod)) or (imm if reg_source else src_regno) != 0:
        return say(env, R_RESERVED, ALU_FIELDS, 0, 0, 0)
    src = env.scratch[0]
    if reg_source:
        reason = check_reg_read(env, src_regno)
        if reason != OK:
            return reason
        src = current_reg(env, src_regno)
    else:
        mark_const(src, imm)
    reason = check_reg_read(env, dst_regno)
    if reason != OK:
        return reason
    if not reg_source:
        if div_mod and imm == 0:
            return say(env, R_DIV_ZERO, 0, 0, 0, 0)
        if (op == BPF_LSH or op == BPF_RSH or op == BPF_ARSH) and (imm < 0 or imm >= (64 if is_alu64 else 32)):
            return say(env, R_SHIFT, imm, 0, 0, 0)
    reason = check_reg_write(env, dst_regno)
    if reason != OK:
        return reason
    dst = current_reg(env, dst_regno)
    dst_number = dst.type == SCALAR_VALUE
    src_number = src.type == SCALAR_VALUE
    if not dst_number or not src_number:
        if not dst_number and not src_number:
            if op == BPF_SUB:
                mark_unknown(dst)
                return OK
            return say(env, R_PTR_PTR, dst_regno, 0, op, 0)
        result = env.scratch[1]
        if dst_number:
            mark_reg_precise(env, dst_regno)
            reason = _adjust_ptr(env, dst_regno, op, is_alu64, src, dst, 1, result)
        else:
            if reg_source:
                mark_reg_precise(env, src_regno)
            reason = _adjust_ptr(env, dst_regno, op, is_alu64, dst, src, 0, result)
        if reason == OK:
            copy_reg(int(dst), int(result))
            dst.deps = 0
        return reason
    ident = dst.id
    delta = src.smin
    linked = (op == BPF_ADD or op == BPF_SUB) and ident != 0 and is_const(src) != 0 and (ident & BPF_ADD_CONST) == 0
    if src == dst:
        linked = False  # twice a number that happens to be known is not that number and a constant
    kind = BPF_ADD_CONST64
    if not is_alu64:
        kind = BPF_ADD_CONST32
        delta = sx32(delta)
        linked = linked and fits(dst, 32) != 0
    if op == BPF_SUB:
        delta = -delta
    if reg_source:
        dst.deps = deps_union(env, dst.deps, src.deps)
    if is_alu64:
        adjust_scalar64(op, dst, src)
    else:
        adjust_scalar32(op, dst, src)
    _forget(dst)
    if linked and delta >= S32_MIN and delta <= S32_MAX:
        # the sum stays linked to what it was made from
        dst.id = ident | kind
        dst.off = delta
    return OK


@device
def check_alu_op(env: VEnv, insn: VInsn) -> int:
    """Check one ALU instruction and set its destination."""
    code = insn.code
    op = code & 0xF0
    is_alu64 = 1 if (code & 7) == BPF_ALU64 else 0
    if op == BPF_MOV:
        return _check_mov(env, insn, is_alu64)
    if op == BPF_END or op == BPF_NEG:
        return _check_end_neg(env, insn, op, is_alu64)
    if op > BPF_END:
        return say(env, R_BAD_OPCODE, op, 0, 0, 0)
    return _check_binary(env, insn, op, is_alu64)
