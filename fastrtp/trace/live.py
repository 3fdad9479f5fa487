"""trace_<name>(): firing a tracepoint from Python, and the same as a numba function.

Arguments are checked against TP_PROTO: integers are cut to the C type's size, as a C call would; str and bytes become
NUL-terminated strings in kernel memory for the time of the call; pointers are addresses; structs and unions by value are
their bytes (bytes, a ctypes structure, a NumPy record), or the same as an integer.
"""

from __future__ import annotations

import ctypes
import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.native.memory import Memory
from fastrtp.once import once_property

if TYPE_CHECKING:
    from fastrtp.trace.tracepoint import Tracepoint

_MASK = 0xFFFFFFFFFFFFFFFF


class TraceFunction:
    """`trace_<name>` of one tracepoint. Disabled, a call is a check and a return. `njit` is its compiled form."""

    def __init__(
        self, tp: Tracepoint, memory: Memory, cpu: int = 0, prototype: str = "", structs: frozenset[int] = frozenset()
    ) -> None:
        """`structs`: numbers of the arguments that are structs or unions by value."""
        if not 0 <= cpu < memory.cpus:
            raise ValueError(f"cpu {cpu} of {memory.cpus}")
        self.tp = tp
        self.memory = memory
        self.cpu = cpu
        self.structs = structs
        self.prototype = prototype or f"{tp.name}({', '.join(arg.name or f'arg{n}' for n, arg in enumerate(tp.proto.args))})"
        self.__name__ = f"trace_{tp.name}"
        self._trace_call = memory.lib.symbols[f"trace_call{tp.num_args}"]
        self._masks = [(1 << 8 * arg.size) - 1 if arg.size < 8 else _MASK for arg in tp.proto.args]
        self._array: Any = ctypes.c_uint64 * tp.num_args

    def __repr__(self) -> str:
        return f"<trace_{self.prototype}>"

    def __call__(self, *args: Any) -> None:
        """Fire the event. TypeError for a wrong number or kind of arguments, with the prototype in the message; ReplayError when
        the kernel was shut down.
        """
        if len(args) != self.tp.num_args:
            raise TypeError(f"trace_{self.prototype} takes {self.tp.num_args} arguments, not {len(args)}")
        if self.memory.ended:
            raise ReplayError(f"the kernel was shut down: trace_{self.tp.name} fires nothing any more")
        if not self.tp.enabled:
            return
        strings: list[int] = []
        try:
            # a value that is an int, as most are, costs a mask and no call
            values = self._array(*[
                value & mask if type(value) is int else self._value(number, value, strings)
                for number, (value, mask) in enumerate(zip(args, self._masks, strict=True))
            ])  # fmt: skip
            memory = self.memory
            memory.lib.trace_fire(memory.machine_address, self.tp.address, self._trace_call, ctypes.addressof(values), self.cpu)
        finally:
            for address in strings:
                self.memory.arena.free(address)

    @once_property
    def njit(self) -> Any:
        """The numba form, for use inside @njit code: takes integers and addresses. It holds this process's addresses."""
        from fastrtp.trace.live_native import compile_trace

        return compile_trace(self.tp, self.memory, self._trace_call, self.cpu, self.prototype)

    def _value(self, number: int, value: Any, strings: list[int]) -> int:
        arg = self.tp.proto.args[number]
        if isinstance(value, str | bytes) and arg.is_pointer:
            data = (value.encode() if isinstance(value, str) else value) + b"\0"
            address = self.memory.arena.alloc(len(data))
            strings.append(address)
            self.memory.arena.view(address, len(data))[:] = np.frombuffer(data, np.uint8)
            return address
        if number in self.structs and not isinstance(value, int):
            return self._struct(number, value)
        try:
            integer = operator.index(value)
        except TypeError:
            kind = type(value).__name__
            raise TypeError(f"argument {number + 1} of trace_{self.prototype} is an integer or an address, not {kind}") from None
        return integer & self._masks[number]

    def _struct(self, number: int, value: Any) -> int:
        """The bytes of a struct as an unsigned integer of its size."""
        size = self.tp.proto.args[number].size
        try:
            data = bytes(memoryview(value))
        except TypeError:
            kind = type(value).__name__
            raise TypeError(f"argument {number + 1} of trace_{self.prototype} is a struct of {size} bytes, not {kind}") from None
        if len(data) != size:
            raise TypeError(f"argument {number + 1} of trace_{self.prototype} is a struct of {size} bytes, not {len(data)}")
        return int.from_bytes(data, "little")
