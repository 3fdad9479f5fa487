"""Instructions to callable native code without the native library: what the lowering's tests run."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastrtp.isa import Insn
from fastrtp.jit.lower import CallTarget, InsnFacts, LowerInput, find_subprogs, lower
from fastrtp.native import engine
from fastrtp.native.module import NativeModule

ENTRY = "prog"
_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
_HELPER = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 5, ctypes.c_void_p)


@dataclass
class Facts:
    """Verifier's facts about one instruction."""

    seen: bool = True
    access: str | None = None
    callback: int | None = None


class NativeCode:
    """One compiled program. `helpers` by number are Python functions of r1..r5; `symbols` are further addresses."""

    def __init__(
        self,
        insns: Sequence[Insn],
        *,
        smp: bool = False,
        helpers: Mapping[int, Callable[..., int]] | None = None,
        aux: Sequence[InsnFacts] | None = None,
        resolve: Callable[[int, Insn], CallTarget] | None = None,
        map_symbols: Callable[[int], str] | None = None,
        symbols: Mapping[str, int] | None = None,
    ) -> None:
        thunks = {number: _HELPER(lambda *args, f=f: f(*args[:5])) for number, f in (helpers or {}).items()}
        addresses = {f"helper.{number}": ctypes.cast(thunk, ctypes.c_void_p).value or 0 for number, thunk in thunks.items()}

        def by_number(index: int, insn: Insn) -> CallTarget:
            if insn.imm not in thunks:
                raise KeyError(index)
            return CallTarget(f"helper.{insn.imm}")

        def no_map(index: int) -> str:
            raise KeyError(index)

        self.text = lower(LowerInput(ENTRY, insns, find_subprogs(insns), aux, resolve or by_number, map_symbols or no_map, smp))
        self.module = engine.parse(self.text)
        engine.optimise(self.module)
        code = engine.emit_object(self.module)
        self._keep = thunks, NativeModule(code, [ENTRY], {**addresses, **(symbols or {})})
        self.entry = self._keep[1].addresses[ENTRY]
        self.function = _PROTOTYPE(self.entry)

    def run(self, mem: bytes) -> tuple[int, bytes]:
        """(r0, memory at exit) of a run with r1 = address and r2 = length of a copy of `mem`."""
        buffer = (ctypes.c_char * max(len(mem), 1)).from_buffer_copy(mem or b"\0")
        result = self.function(ctypes.addressof(buffer), len(mem))
        return result, bytes(buffer)[: len(mem)]
