"""`python -m fastrtp.programs.build [FOLDER_OR_SOURCE ...]`: compile .bpf.c files to the .bpf.o beside them.

vmlinux.h is generated from the shipped BTF, the other header is include/bpf_helpers.h. The compiler is a system clang, or else
the one in the ziglang package (the `cc` extra). A source may say what else it wants in a line `// build: -flags`.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fastrtp.btf import default_btf
from fastrtp.btf.dump import dump_header
from fastrtp.errors import FastrtpError

_HERE = Path(__file__).parent
_CLANGS = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))
_STRIPS = ("llvm-strip", *(f"llvm-strip-{version}" for version in range(22, 13, -1)))
_FLAGS = ["-O2", "-g", "-Wall", "-Wno-gnu-variable-sized-type-not-at-end", "-Wno-unused-function", "-fno-ident"]
_BUILD_LINE = re.compile(r"^// build:(.*)$", re.MULTILINE)


class CompilerError(FastrtpError, RuntimeError):
    """No compiler with the BPF target, or a source that it refuses; the text is the compiler's."""


def compiler() -> list[str]:
    """The command that compiles for BPF, target included. Raises `CompilerError` when there is none."""
    for name in _CLANGS:
        path = shutil.which(name)
        if path is not None:
            return [path, "-target", "bpf"]
    if importlib.util.find_spec("ziglang") is not None:
        return [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            "bpfel-freestanding",
            "-fno-stack-protector",
            "-fno-sanitize=undefined",
        ]
    raise CompilerError("no clang found: install one, or the `cc` extra of this package (ziglang)")


def compile_program(source: Path, target: Path, include: Sequence[Path] = (), command: Sequence[str] | None = None) -> None:
    """Compile one source; DWARF is stripped where llvm-strip is found, BTF stays. Raises `CompilerError`."""
    flags = [flag for line in _BUILD_LINE.findall(source.read_text()) for flag in line.split()]
    paths = [f"-I{path}" for path in (*include, _HERE / "include")]
    run = [*(command or compiler()), *_FLAGS, *flags, *paths, "-c", source.name, "-o", str(target.resolve())]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=source.parent)
    if done.returncode:
        raise CompilerError(f"{source}: {done.stderr.strip() or done.stdout.strip()}")
    strip = next((path for path in map(shutil.which, _STRIPS) if path is not None), None)
    if strip is not None:
        subprocess.run([strip, "--strip-debug", str(target)], check=True)


def build(sources: Sequence[Path], command: Sequence[str] | None = None) -> list[Path]:
    """Compile all sources, each to the .o beside it; returns the objects. Raises `CompilerError`."""
    out = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vmlinux.h").write_text(dump_header(default_btf()))
        for source in sources:
            target = source.with_suffix(".o")
            compile_program(source, target, [Path(folder)], command)
            out.append(target)
    return out


def main() -> None:
    """Command line of the module."""
    parser = argparse.ArgumentParser(prog="python -m fastrtp.programs.build", description=__doc__)
    parser.add_argument(
        "paths", nargs="*", type=Path, default=[_HERE], help="sources, or folders of *.bpf.c (default: the shipped programs)"
    )
    args = parser.parse_args()
    sources = [source for path in args.paths for source in (sorted(path.glob("*.bpf.c")) if path.is_dir() else [path])]
    try:
        for target in build(sources):
            print(f"{target}: {target.stat().st_size} bytes")
    except CompilerError as error:
        sys.exit(f"fastrtp.programs.build: {error}")


if __name__ == "__main__":
    main()
