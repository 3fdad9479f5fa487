"""Why the native core gave control back: a path's end, work that is Python's, or a refusal with its message.

Refusals are numbers from REFUSALS on; refuse.py says what each one says, from up to four operands.
"""

from __future__ import annotations

OK, PATH_DONE, SAFE, YIELD, ALL_DONE = range(5)
"""Go on; the path ended; it was pruned; asked to pause; no path is left."""

DO_CALL, DO_EXIT, DO_LOAD, DO_LD_IMM64, DO_SLOTS, DO_ACCESS, DO_ARG = range(10, 17)
"""A call; a return; a load whose result depends on types (a); a constant that names something; a store (a: frame, b..c: slots)
into special slots, to be repeated; an access (a: register; of a helper's area, b: its size, c: how) or an argument of a kind
that Python knows."""

RUN, RUN_ENTERED, RUN_ENTER, RUN_STEP, RUN_NEXT_PATH = range(5)
"""What `verifier_run` is to do."""

REFUSALS = 100
(
    R_NO_MEMORY,
    R_INSN_IDX,
    R_TOO_LARGE,
    R_TOO_COMPLEX,
    R_LOOP,
    R_NO_REG,
    R_NOT_READ_OK,
    R_FP_READ_ONLY,
    R_RESERVED,
    R_BAD_OPCODE,
    R_DIV_ZERO,
    R_SHIFT,
    R_PTR_PTR,
    R_PTR_32,
    R_PTR_NULL,
    R_PTR_ARITH,
    R_PTR_BITWISE,
    R_PTR_OPERATOR,
    R_PTR_FROM_SCALAR,
    R_PTR_STACK_SUB,
    R_MATH_VALUE,
    R_MATH_OFF,
    R_MATH_UNBOUNDED,
    R_MATH_RANGE,
    R_MAY_GOTO,
    R_MISALIGNED,
    R_INVALID_MEM,
    R_READ_ONLY_MEM,
    R_KEY_WRITE,
    R_MIN_NEGATIVE,
    R_MIN_OUTSIDE,
    R_UNBOUNDED,
    R_MAX_OUTSIDE,
    R_MAP_WRITE,
    R_MAP_READ,
    R_TP_OFF,
    R_TP_VAR_OFF,
    R_STACK_UNBOUNDED,
    R_STACK_BOUNDS,
    R_STACK_SPILL_SIZE,
    R_STACK_SPILL_CALLER,
    R_STACK_FILL_SIZE,
    R_STACK_SPECIAL,
    R_STACK_VAR_HELPER,
    R_STACK_ZERO_SIZE,
    R_STACK_RANGE_SPECIAL,
    R_STACK_DYNPTR,
    R_ATOMIC_OPCODE,
    R_ATOMIC_SIZE,
    R_ATOMIC_POINTER,
    R_PTR_MISMATCH,
    R_EXPECTED_FP,
    R_CANNOT_WRITE,
    R_ADDR_SPACE_CAST,
    R_OFF_NEGATIVE,
    R_OFF_FIXED,
    R_OFF_VARIABLE,
    R_ARG_TYPE,
    R_ARG_NULL,
    R_ARG_NULL_OBJECT,
    R_ARG_UNREFERENCED,
    R_ARG_TWO_REFS,
    R_ARG_RELEASE_OFF,
    R_ARG_TIMER_MAP,
    R_ARG_KEY_MAP,
    R_ARG_VALUE_MAP,
    R_SIZE_NEGATIVE,
    R_SIZE_ZERO,
    R_SIZE_UNBOUNDED,
    R_ALLOC_UNKNOWN,
    R_ALLOC_TOO_LARGE,
    R_CALL_RDONLY_MAP,
    R_CALL_NOT_ACQUIRED,
    R_CALL_MAP_TYPE,
    R_CALL_DEPTH,
    R_RETURN_STACK,
    R_ITER_ARG,
    R_ITER_STATE,
    R_ITER_NUMBER,
    R_LOOP_TOO_COMPLEX,
    R_ARG_MAY_WRITE,
    R_ARG_TRUSTED_NULL,
) = range(REFUSALS, REFUSALS + 82)
