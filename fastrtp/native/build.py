"""Compile every `*_native.py` module into one LLVM module: bitcode to inline from, an object to call.

Run as `python -m fastrtp.native.build FOLDER STEM [WIDTHS ...]` in a process of its own, so that numba's optimiser can be
switched off (NUMBA_OPT=0: the pass over the whole library at the end does the work once) and its import costs the user nothing.
numba works in two more processes, one for the verifier and one for all else, which have next to nothing in common.
Progress goes to standard output, a line `total name` for each step that is done.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import multiprocessing
import pkgutil
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba

import fastrtp
from fastrtp.entry_cache import write_whole
from fastrtp.errors import JitError
from fastrtp.native import compiler_rt, engine
from fastrtp.native.intrinsics import ALWAYS_INLINE, EXTERNALS, REGISTRY, NativeFunction, uses


def native_modules() -> list[str]:
    """Names of the package's modules with native functions, sorted. What a package raises on import is raised here."""
    found = pkgutil.walk_packages(fastrtp.__path__, "fastrtp.", onerror=_raise)
    return sorted(module.name for module in found if module.name.endswith("_native"))


def _raise(_name: str) -> None:
    raise


class Piece(NamedTuple):
    """A registered function as numba made it: `text` is IR, `symbol` the C-callable function in it."""

    name: str
    parameters: tuple[str, ...]
    inline: bool
    uses: list[str]
    symbol: str
    text: str


class Share(NamedTuple):
    """What one process has compiled, and the names of functions that are always inlined, as its modules say."""

    pieces: list[Piece]
    always_inline: set[str]


def compile_share(modules: Sequence[str], steps: int) -> Share:
    """The registered functions of these modules. `steps`: of all shares together, for the progress."""
    for name in modules:
        importlib.import_module(name)
        print(f"{steps} {name}", flush=True)
    pieces = []
    for name in modules:
        own = [entry for entry in REGISTRY.values() if entry.function.py_func.__module__ == name]
        pieces += _compile_all(own)
        print(f"{steps} {name}", flush=True)
    return Share(pieces, ALWAYS_INLINE)


def _compile_all(entries: Iterable[NativeFunction]) -> list[Piece]:
    pieces = []
    for entry in entries:
        text, symbol = _compile(entry)
        pieces.append(Piece(entry.name, entry.parameters, entry.inline, sorted(uses(entry)), symbol, text))
    return pieces


def _compile_library() -> Share:
    """Both shares, at once where there are two processors."""
    modules = native_modules()
    verifier = [name for name in modules if name.startswith("fastrtp.verifier.")]
    shares = [verifier, [name for name in modules if name not in verifier]]
    with ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as pool:
        made = list(pool.map(compile_share, shares, [2 * len(modules)] * len(shares)))
    names = [piece.name for share in made for piece in share.pieces]
    if len(set(names)) != len(names):
        raise JitError(f"native functions of one name: {sorted({name for name in names if names.count(name) > 1})}")
    return Share([piece for share in made for piece in share.pieces], set().union(*(share.always_inline for share in made)))


def _compile_shims(shims: list[str]) -> Share:
    """Cast shims alone."""
    made = importlib.import_module("fastrtp.trace.trampoline_native").define_shims(shims)
    return Share(_compile_all(made.values()), ALWAYS_INLINE)


def build(folder: Path, stem: str, shims: list[str]) -> None:
    """Write `stem`.bc, .o and .json (the functions and their parameters; last, so that it vouches for the others).

    `shims`: argument widths; given, only their cast shims are built, as a library of their own.
    """
    pieces, always_inline = _compile_shims(shims) if shims else _compile_library()
    wanted = {piece.name: piece for piece in pieces}
    library = llvm.parse_assembly(f'target triple = "{engine.triple()}"')
    bodies = set()
    for piece in pieces:
        library.link_in(llvm.parse_assembly(piece.text))
        bodies |= {piece.symbol, piece.symbol.removeprefix("cfunc.")}
    library.link_in(llvm.parse_assembly("\n".join(_export(piece.name, piece.parameters, piece.symbol) for piece in pieces)))
    runtime = {} if shims else compiler_rt.ROUTINES
    if runtime:
        library.link_in(llvm.parse_assembly(compiler_rt.ir()))
    for function in library.functions:
        if function.is_declaration:
            continue
        if function.name in wanted:
            function.add_function_attribute("alwaysinline" if wanted[function.name].inline else "noinline")
        elif function.name not in runtime:
            function.linkage = "internal"
            if function.name in bodies or any(f"{len(name)}{name}B" in function.name for name in always_inline):
                function.add_function_attribute("alwaysinline")
    for variable in library.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    engine.optimise(library)
    strange = {f.name for f in library.functions if f.is_declaration and not f.name.startswith("llvm.")} - EXTERNALS
    if shims:
        strange -= set(REGISTRY)  # in the main library
    if strange:
        raise JitError(f"the native library calls {', '.join(sorted(strange))}")
    # the bodies first, before the code generator has changed the module
    parts = {"bc": _inlinable(library.clone(), wanted), "o": engine.emit_object(library)}
    for suffix, data in parts.items():
        write_whole(folder / f"{stem}.{suffix}", data)
    manifest = {
        "functions": {
            piece.name: {"parameters": piece.parameters, "inline": piece.inline, "uses": piece.uses} for piece in pieces
        },
        "runtime": list(runtime),
        "sha256": {suffix: hashlib.sha256(data).hexdigest() for suffix, data in parts.items()},
    }
    write_whole(folder / f"{stem}.json", json.dumps(manifest).encode())


def _compile(entry: NativeFunction) -> tuple[str, str]:
    """(IR, name of the C-callable symbol in it) of one function, as numba makes them."""
    int64 = numba.types.int64
    compiled = numba.cfunc(int64(*[int64] * len(entry.parameters)), nogil=True, error_model="numpy")(entry.function.py_func)
    text = compiled.inspect_llvm()
    # numba keeps the body out of its wrapper for the sake of tracebacks, which these functions cannot have
    text = re.sub(r"^(attributes #\d+ = \{) noinline \}", r"\1 nounwind }", text, flags=re.MULTILINE)
    # and it promises LLVM that integers do not overflow, where hashes and random numbers are meant to wrap
    return re.sub(r"\b(add|sub|mul|shl) nsw ", r"\1 ", text), compiled.native_name


def _inlinable(library: Any, wanted: dict[str, Piece]) -> bytes:
    """Bitcode of the functions that programs inline, and of what those call; a slow path stays a call into the object.

    Functions that are never inlined are declared only: LLVM would optimise their bodies with every program, and throw them away.
    """
    for function in library.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in wanted and wanted[function.name].inline else "internal"
    slow = "|".join(re.escape(name) for name, entry in wanted.items() if not entry.inline)
    body = re.compile(rf'^define internal ([^@]*@"?(?:{slow})"?\([^{{]*)\{{\n.*?^\}}$', re.MULTILINE | re.DOTALL)
    library = llvm.parse_assembly(body.sub(r"declare \1", str(library)))
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(library, llvm.create_pass_builder(engine.target_machine(), llvm.create_pipeline_tuning_options()))
    for function in library.functions:
        if function.name in wanted and not function.is_declaration:
            function.linkage = "available_externally"
        elif not function.is_declaration:
            function.add_function_attribute("alwaysinline")
    return bytes(library.as_bitcode())


def _export(name: str, parameters: tuple[str, ...], target: str) -> str:
    """IR of the exported form: `env` is a pointer there, as in the programs, and an integer in numba."""
    kinds = ["ptr" if parameter == "env" else "i64" for parameter in parameters]
    body = []
    values = []
    for index, kind in enumerate(kinds):
        if kind == "ptr":
            body.append(f"  %e{index} = ptrtoint ptr %a{index} to i64")
        values.append(f"i64 %{'e' if kind == 'ptr' else 'a'}{index}")
    signature = ", ".join(f"{kind} %a{index}" for index, kind in enumerate(kinds))
    declared = ", ".join(["i64"] * len(kinds))
    lines = [f'declare i64 @"{target}"({declared})', f"define i64 @{name}({signature}) nounwind {{", *body]
    lines += [f'  %r = call i64 @"{target}"({", ".join(values)})', "  ret i64 %r", "}"]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Command line of the building process."""
    if len(arguments) < 2 or not re.fullmatch(r"[\w.-]+", arguments[1]):
        print("usage: python -m fastrtp.native.build FOLDER STEM [WIDTHS ...]", file=sys.stderr)
        return 2
    build(Path(arguments[0]), arguments[1], arguments[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
