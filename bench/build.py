"""`python -m bench.build`: compile the C sources of c/ to the .bpf.o beside them (a clang with the BPF target is needed)."""

from __future__ import annotations

import sys
from pathlib import Path

from fastrtp.programs.build import CompilerError, build, compile_program, compiler

SOURCES = Path(__file__).parent / "c"
V3 = ("jit_branches",)
"""Sources that are also compiled to bytecode with 32-bit instructions, for the ablation suite: <name>.v3.bpf.o."""


def main() -> None:
    """Compile all: transition.bpf.c and its like, and the sources of the jit suite, which are compiled natively too."""
    try:
        for target in build([*sorted(SOURCES.glob("*.bpf.c")), *sorted(SOURCES.glob("jit_*.c"))]):
            final = target if target.name.endswith(".bpf.o") else target.rename(target.with_suffix(".bpf.o"))
            print(f"{final.name}: {final.stat().st_size} bytes")
        for name in V3:
            final = SOURCES / f"{name}.v3.bpf.o"
            compile_program(SOURCES / f"{name}.c", final, command=[*compiler(), "-mcpu=v3"])
            print(f"{final.name}: {final.stat().st_size} bytes")
    except CompilerError as error:
        sys.exit(f"bench.build: {error}")


if __name__ == "__main__":
    main()
