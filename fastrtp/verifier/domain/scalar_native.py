"""The arithmetic of scalars for Python: bounds in VReg records, one operation a call."""

from __future__ import annotations

from fastrtp.native.intrinsics import native
from fastrtp.verifier.domain.alu_native import adjust_scalar32, adjust_scalar64, byte_order
from fastrtp.verifier.domain.bounds_native import (
    coerce_subreg_to_size_sx,
    coerce_to_size,
    coerce_to_size_sx,
    range_within,
    reg_bounds_sync,
    zext_32_to_64,
)
from fastrtp.verifier.domain.branch_native import is_branch_taken, regs_refine_cond
from fastrtp.verifier.domain.records import (
    SCALAR_ALU32,
    SCALAR_ALU64,
    SCALAR_BYTE_ORDER,
    SCALAR_COERCE,
    SCALAR_COERCE_SUBREG_SX,
    SCALAR_COERCE_SX,
    SCALAR_REFINE,
    SCALAR_SYNC,
    SCALAR_TAKEN,
    SCALAR_WITHIN,
    SCALAR_ZEXT,
    VReg,
)


@native()
def verifier_scalar(what: int, a: VReg, b: VReg, arg: int, flag: int, other: int, scratch: int) -> int:
    """`what` on the registers at `a` and `b`; `arg`: operation or size, `flag`: 32 bits or swapped, `other`: taken."""
    if what == SCALAR_SYNC:
        reg_bounds_sync(a)
    elif what == SCALAR_ALU64:
        adjust_scalar64(arg, a, b)
    elif what == SCALAR_ALU32:
        adjust_scalar32(arg, a, b)
    elif what == SCALAR_BYTE_ORDER:
        byte_order(a, arg, flag)
    elif what == SCALAR_ZEXT:
        zext_32_to_64(a)
    elif what == SCALAR_COERCE:
        coerce_to_size(a, arg)
    elif what == SCALAR_COERCE_SX:
        coerce_to_size_sx(a, arg)
    elif what == SCALAR_COERCE_SUBREG_SX:
        coerce_subreg_to_size_sx(a, arg)
    elif what == SCALAR_WITHIN:
        return range_within(a, b)
    elif what == SCALAR_TAKEN:
        return is_branch_taken(a, b, arg, flag)
    elif what == SCALAR_REFINE:
        regs_refine_cond(a, b, arg, other, flag)
    return 0
