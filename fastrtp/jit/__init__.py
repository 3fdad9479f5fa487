"""BPF instructions to native code: `lower` (pure text), `link` (helpers and maps), `program` (LLVM and the cache),
`unverified` (test vectors)."""

from __future__ import annotations

from fastrtp.jit.program import NativeProgram, compile_program
from fastrtp.jit.unverified import compile, run

__all__ = ["NativeProgram", "compile", "compile_program", "run"]
