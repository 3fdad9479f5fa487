"""`python -m bench.build`: compile the C sources of c/ to the .bpf.o beside them."""

from __future__ import annotations

import sys
from pathlib import Path

from fastrtp.cc import compile_source
from fastrtp.errors import CompilerError

SOURCES = Path(__file__).parent / "c"
V3 = ("jit_branches",)
"""Sources that are also compiled to bytecode with 32-bit instructions, for the ablation suite: <name>.v3.bpf.o."""


def main() -> None:
    """Compile all: transition.bpf.c and its like, and the sources of the jit suite, which are compiled natively too."""
    try:
        for source in [*sorted(SOURCES.glob("*.bpf.c")), *sorted(SOURCES.glob("jit_*.c"))]:
            _compile(source, source.with_name(f"{source.name.removesuffix('.c').removesuffix('.bpf')}.bpf.o"), "-mcpu=v1")
        for name in V3:
            _compile(SOURCES / f"{name}.c", SOURCES / f"{name}.v3.bpf.o", "-mcpu=v3")
    except CompilerError as error:
        sys.exit(f"bench.build: {error}")


def _compile(source: Path, target: Path, flag: str) -> None:
    target.write_bytes(compile_source(source, flags=[flag]).data)
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
