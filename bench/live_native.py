"""Numba loops around a live tracepoint: numba compiles them when they are first run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_intrinsic: Callable[[Any], Any] = intrinsic  # numba's own type says that an intrinsic cannot be called


@_intrinsic
def barrier(typingctx: Any, value: Any) -> Any:
    """Pretend to use a value, in no instruction: the loop around it stays."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(ir.InlineAsm(kind, "", "r", side_effect=True), [args[0]])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def loops(trace: Callable[[int, int], None]) -> tuple[Callable[[int], None], Callable[[int], None]]:
    """(loop that calls the tracepoint's njit form, the same loop without it), both of n rounds."""

    @numba.njit(nogil=True)
    def traced(n: int) -> None:
        for i in range(n):
            barrier(i)
            trace(i, 1)

    @numba.njit(nogil=True)
    def empty(n: int) -> None:
        for i in range(n):
            barrier(i)

    return traced, empty
