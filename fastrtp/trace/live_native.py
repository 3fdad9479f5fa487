"""The numba form of trace_<name>: a load, a branch that is not taken, and the call behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from fastrtp.native.intrinsics import call_fire, load_acquire, stack_bytes, store64
from fastrtp.native.records import TracepointRecord

if TYPE_CHECKING:
    from fastrtp.native.memory import Memory
    from fastrtp.trace.tracepoint import Tracepoint

# An ordinary load could be moved out of a loop, which would then never see that a probe was attached.
_SOURCE = """
def trace_{name}(*args):
    check(args)
    if load_acquire(key) != 0:
        fire(*args)
"""

_FIRE = """
def fire({params}):
    args = stack_bytes({size})
{stores}
    call_fire(function, machine, tracepoint, trace_call, args, cpu)
"""


def _check(prototype: str, count: int) -> Any:
    """A function of the tuple of arguments that compiles to nothing, or not at all: TypingError with the prototype."""

    def check(args: tuple[Any, ...]) -> None:
        """Checked when it is compiled."""

    @overload(check)
    def check_types(args: Any) -> Any:
        if len(args) != count:
            raise TypingError(f"trace_{prototype} takes {count} arguments, not {len(args)}")
        for number, kind in enumerate(args, 1):
            if not isinstance(kind, types.Integer | types.Boolean):
                raise TypingError(f"argument {number} of trace_{prototype} is an integer or an address, not {kind}")

        def nothing(args: Any) -> Any:
            return None

        return nothing

    return check


def compile_trace(tp: Tracepoint, memory: Memory, trace_call: int, cpu: int, prototype: str) -> Any:
    """An njit function over integers that fires `tp`. Not cached on disk: it holds addresses of this process.

    Arguments of another number or kind do not compile: numba's TypingError, with the prototype.
    """
    count = tp.num_args
    params = ", ".join(f"a{n}" for n in range(count))
    stores = "\n".join(f"    store64(args + {8 * n}, numba.int64(a{n}))" for n in range(count))
    scope: dict[str, Any] = {
        "numba": numba, "load_acquire": load_acquire, "store64": store64, "stack_bytes": stack_bytes, "call_fire": call_fire,
        "function": memory.lib.symbols["trace_fire"], "machine": memory.machine_address, "tracepoint": tp.address,
        "trace_call": trace_call, "cpu": cpu, "key": tp.address + TracepointRecord.layout.at("key"),
    }  # fmt: skip
    exec(_FIRE.format(params=params, size=8 * count, stores=stores), scope)
    scope["fire"] = numba.njit(nogil=True, error_model="numpy", inline="never")(scope["fire"])
    scope["check"] = _check(prototype, count)
    exec(_SOURCE.format(name=tp.name), scope)
    return numba.njit(nogil=True, error_model="numpy")(scope[f"trace_{tp.name}"])
