"""A share of the native library: the functions of some `*_native.py` modules, compiled together.

numba makes IR of the functions (`ir_pipeline`), LLVM makes code of all of them at once: bitcode to inline from, and an object to
call. What was made is kept, so a change of one module compiles no more than the shares that it is part of.

Must not know: what the functions do, and which shares there are (`build`).
"""

from __future__ import annotations

import hashlib
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numba

from fastrtp.entry_cache import EntryCache
from fastrtp.errors import JitError
from fastrtp.native import compiler_rt, engine, host
from fastrtp.native.intrinsics import ALWAYS_INLINE, REGISTRY, NativeFunction
from fastrtp.native.ir_pipeline import FunctionText, lowered, texts
from fastrtp.native.uses import uses

STEPS = ("IR", "optimised", "compiled")
_KEPT_BYTES = 4 << 20


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
    cache = EntryCache(folder, "share", ".bin", host.made_by(*modules, __name__), _KEPT_BYTES)
    entry = hashlib.sha256(" ".join((*sorted(modules), *runtime)).encode()).hexdigest()
    known = cache.get(entry)
    if known is not None:
        for step in STEPS:
            print(f"{report} {step}", flush=True)
        facts, body = known
        return Share(facts["functions"], facts["outside"], body[: facts["bitcode"]], body[facts["bitcode"] :])
    for name in modules:
        importlib.import_module(name)
    wanted = {entry.name: entry for entry in REGISTRY.values() if entry.function.py_func.__module__ in modules}
    share = compile_share(wanted, runtime, report)
    facts = {"functions": share.functions, "outside": share.outside, "bitcode": len(share.bitcode)}
    cache.put(entry, facts, share.bitcode + share.code)
    cache.trim()
    return share


def compile_share(wanted: Mapping[str, NativeFunction], runtime: Sequence[str], report: str) -> Share:
    """These functions and, by their names, the compiler's own routines."""
    parts = _ir(wanted)
    print(f"{report} {STEPS[0]}", flush=True)
    module = _linked(parts)
    if runtime:
        module.link_in(llvm.parse_assembly(compiler_rt.ir()))
    engine.optimise(module)
    print(f"{report} {STEPS[1]}", flush=True)
    outside = sorted(f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm."))
    # the bodies first, before the code generator has changed the module
    bitcode = _inlinable(module.clone(), wanted) if any(entry.inline for entry in wanted.values()) else b""
    code = engine.emit_object(module)
    print(f"{report} {STEPS[2]}", flush=True)
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
