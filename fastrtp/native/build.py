"""Compile every `*_native.py` module: to bitcode to inline from, and to objects to call.

Run as `python -m fastrtp.native.build FOLDER STEM [WIDTHS ...]` in a process of its own: its imports cost the user nothing.
numba makes IR of the functions (`ir_pipeline`), LLVM makes code of all of them together. A second process works on the
verifier meanwhile, which has next to nothing in common with all else. What either of them makes is kept, so a change of one
module compiles no more than the shares that it is part of.
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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba

import fastrtp
from fastrtp.entry_cache import EntryCache, files_digest, write_whole
from fastrtp.errors import JitError
from fastrtp.native import compiler_rt, engine, host, library
from fastrtp.native.intrinsics import ALWAYS_INLINE, EXTERNALS, REGISTRY, NativeFunction, uses
from fastrtp.native.ir_pipeline import FunctionText, lowered, texts

_STEPS = ("IR", "optimised", "compiled")
_KEPT_BYTES = 4 << 20
_NATIVE_IMPORT = re.compile(r"^from (fastrtp[\w.]*_native) import", re.MULTILINE)


def native_modules() -> list[str]:
    """Names of the package's modules with native functions, sorted. What a package raises on import is raised here."""
    found = pkgutil.walk_packages(fastrtp.__path__, "fastrtp.", onerror=_raise)
    return sorted(module.name for module in found if module.name.endswith("_native"))


def _raise(_name: str) -> None:
    raise


class Share(NamedTuple):
    """A part of the library: what it exports, the functions' bodies that programs inline, and the code.

    `functions`: {name: {"parameters", "inline", "uses"}}; `outside`: symbols that it wants of the process or the other part.
    """

    functions: dict[str, dict[str, Any]]
    outside: list[str]
    bitcode: bytes
    code: bytes


def make_share(folder: Path, modules: Sequence[str], runtime: Sequence[str], report: str) -> Share:
    """The registered functions of these modules, compiled or found in the cache. `report` goes before the steps' names."""
    cache = EntryCache(folder, "share", ".bin", _KEPT_BYTES)
    key = _key(modules, runtime)
    known = cache.get(key)
    if known is not None:
        for step in _STEPS:
            print(f"{report} {step}", flush=True)
        facts, body = known
        return Share(facts["functions"], facts["outside"], body[: facts["bitcode"]], body[facts["bitcode"] :])
    for name in modules:
        importlib.import_module(name)
    wanted = {entry.name: entry for entry in REGISTRY.values() if entry.function.py_func.__module__ in modules}
    share = compile_share(wanted, runtime, report)
    facts = {"functions": share.functions, "outside": share.outside, "bitcode": len(share.bitcode)}
    cache.put(key, facts, share.bitcode + share.code)
    cache.trim()
    return share


def _key(modules: Iterable[str], runtime: Iterable[str]) -> str:
    """Digest of what a share is made of: these modules and the native ones that they import, the tables, and what makes code."""
    package = Path(fastrtp.__file__).parent
    found = [path for path in library.sources() if not path.name.endswith("_native.py")]
    pending = set(modules)
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        seen.add(name)
        path = package.joinpath(*name.split(".")[1:]).with_suffix(".py")
        found.append(path)
        pending |= set(_NATIVE_IMPORT.findall(path.read_text())) - seen
    facts = (files_digest(package, found), host.versions(), host.processor(), *runtime, *sorted(modules))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def compile_share(wanted: Mapping[str, NativeFunction], runtime: Sequence[str], report: str) -> Share:
    """These functions and, by their names, the compiler's own routines."""
    parts = _ir(wanted)
    print(f"{report} {_STEPS[0]}", flush=True)
    module = _linked(parts)
    if runtime:
        module.link_in(llvm.parse_assembly(compiler_rt.ir()))
    engine.optimise(module)
    print(f"{report} {_STEPS[1]}", flush=True)
    outside = sorted(f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm."))
    # the bodies first, before the code generator has changed the module
    bitcode = _inlinable(module.clone(), wanted) if any(entry.inline for entry in wanted.values()) else b""
    code = engine.emit_object(module)
    print(f"{report} {_STEPS[2]}", flush=True)
    functions = {
        name: {"parameters": entry.parameters, "inline": entry.inline, "uses": sorted(uses(entry))}
        for name, entry in wanted.items()
    }
    return Share(functions, outside, bitcode, code)


def _ir(wanted: Mapping[str, NativeFunction]) -> list[str]:
    """The functions' IR, that of all that they call, and their exported form; numba's names without its counter of versions."""
    made = {name: lowered(entry.function, entry.types) for name, entry in wanted.items()}
    exports = [_export(entry, made[name]) for name, entry in wanted.items()]
    return [*(_plain(text) for text in texts(made.values())), "\n".join(exports)]


def _plain(text: str) -> str:
    """numba promises LLVM that integers do not overflow, where hashes and random numbers are meant to wrap."""
    return re.sub(r"\b(add|sub|mul|shl) nsw ", r"\1 ", text)


def _linked(parts: Iterable[str]) -> Any:
    """One module of these, in which only what is exported is seen from outside."""
    module = llvm.parse_assembly(engine.head())
    for text in parts:
        module.link_in(llvm.parse_assembly(text))
    for function in module.functions:
        if not function.is_declaration and function.name.startswith("_Z"):
            function.linkage = "internal"
            function.add_function_attribute("nounwind")
            if any(f"{len(name)}{name}B" in function.name for name in ALWAYS_INLINE):
                function.add_function_attribute("alwaysinline")
    for variable in module.global_variables:
        if not variable.is_declaration:
            variable.linkage = "internal"
    return module


def _library_shares(folder: Path) -> dict[str, Share]:
    """Both parts of the library, made at once where there are two processors; by the suffix of their files."""
    modules = native_modules()
    verifier = [name for name in modules if name.startswith("fastrtp.verifier.")]
    rest = [name for name in modules if name not in verifier]
    report = str(2 * len(_STEPS))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        other = pool.submit(make_share, folder, verifier, (), report)
        shares = {"o": make_share(folder, rest, tuple(compiler_rt.ROUTINES), report)}
        shares["verifier.o"] = other.result()
    if shares["verifier.o"].bitcode:
        raise JitError("programs inline nothing of the verifier's")
    return shares


def build(folder: Path, stem: str, shims: list[str]) -> None:
    """Write `stem`.bc, .o, .verifier.o and .json (the functions and their parameters; last, so that it vouches for the others).

    `shims`: argument widths; given, only their cast shims are built, as a library of their own.
    """
    if shims:
        made = importlib.import_module("fastrtp.trace.trampoline_native").define_shims(shims)
        shares = {"o": compile_share(made, (), str(len(_STEPS)))}
    else:
        shares = _library_shares(folder)
    names = [name for share in shares.values() for name in share.functions]
    if len(set(names)) != len(names):
        raise JitError(f"native functions of one name: {sorted({name for name in names if names.count(name) > 1})}")
    runtime = [] if shims else list(compiler_rt.ROUTINES)
    known = {*EXTERNALS, *names, *(REGISTRY if shims else ()), *runtime}  # of shims, the main library has the rest
    strange = {name for share in shares.values() for name in share.outside} - known
    if strange:
        raise JitError(f"the native library calls {', '.join(sorted(strange))}")
    parts = {"bc": shares["o"].bitcode, **{suffix: share.code for suffix, share in shares.items()}}
    for suffix, data in parts.items():
        write_whole(folder / f"{stem}.{suffix}", data)
    manifest = {
        "functions": {name: facts for share in shares.values() for name, facts in share.functions.items()},
        "objects": {suffix: [*share.functions, *(runtime if suffix == "o" else ())] for suffix, share in shares.items()},
        "sha256": {suffix: hashlib.sha256(data).hexdigest() for suffix, data in parts.items()},
    }
    write_whole(folder / f"{stem}.json", json.dumps(manifest).encode())


def _inlinable(module: Any, wanted: Mapping[str, NativeFunction]) -> bytes:
    """Bitcode of the functions that programs inline, and of what those call; a slow path stays a call into the object.

    Functions that are never inlined are declared only: LLVM would optimise their bodies with every program, and throw them away.
    """
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in wanted and wanted[function.name].inline else "internal"
    slow = "|".join(re.escape(name) for name, entry in wanted.items() if not entry.inline)
    body = re.compile(rf'^define internal ([^@]*@"?(?:{slow})"?\([^{{]*)\{{\n.*?^\}}$', re.MULTILINE | re.DOTALL)
    module = llvm.parse_assembly(body.sub(r"declare \1", str(module)))
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(engine.target_machine(), llvm.create_pipeline_tuning_options()))
    for function in module.functions:
        if function.name in wanted and not function.is_declaration:
            function.linkage = "available_externally"
        elif not function.is_declaration:
            function.add_function_attribute("alwaysinline")
    return bytes(module.as_bitcode())


def _export(entry: NativeFunction, made: FunctionText) -> str:
    """IR of the exported form: `env` is a pointer there, as in the programs, and an integer in numba."""
    if not isinstance(made.result, numba.types.Integer | numba.types.IntegerLiteral):
        raise JitError(f"native function {entry.name} gives {made.result}")
    kinds = ["ptr" if parameter == "env" else "i64" for parameter in entry.parameters]
    body = [f"  %e{index} = ptrtoint ptr %a{index} to i64" for index, kind in enumerate(kinds) if kind == "ptr"]
    values = "".join(f", i64 %{'e' if kind == 'ptr' else 'a'}{index}" for index, kind in enumerate(kinds))
    arguments = ", ".join(f"{kind} %a{index}" for index, kind in enumerate(kinds))
    return "\n".join([
        f'declare i32 @"{made.symbol}"(ptr, ptr{", i64" * len(kinds)})',
        f"define i64 @{entry.name}({arguments}) nounwind {'alwaysinline' if entry.inline else 'noinline'} {{",
        "  %result = alloca i64",
        "  %raised = alloca ptr",
        *body,
        f'  %status = call i32 @"{made.symbol}"(ptr %result, ptr %raised{values}) alwaysinline',
        "  %r = load i64, ptr %result",
        "  ret i64 %r",
        "}",
    ])  # fmt: skip


def main(arguments: list[str]) -> int:
    """Command line of the building process."""
    if len(arguments) < 2 or not re.fullmatch(r"[\w.-]+", arguments[1]):
        print("usage: python -m fastrtp.native.build FOLDER STEM [WIDTHS ...]", file=sys.stderr)
        return 2
    build(Path(arguments[0]), arguments[1], arguments[2:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
