"""The one owner of llvmlite: target machine, optimiser, object emission, LLVM's loader.

`optimised` and `emit_object` turn a module into an object (bytes, addresses left open as symbols), which `module` loads, or
else `load` here. Objects hold no address, so they can be cached across runs.

Must not know: BPF, maps, what the symbols mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import llvmlite.binding as llvm

from fastrtp.errors import JitError
from fastrtp.native import SMP
from fastrtp.once import once

_OPTIMISATION = 3

# Gathers are slower than the loads that they replace on AMD, and on Intel since the fix for Gather Data Sampling.
_TUNING = {"x86_64": ",+prefer-no-gather,+prefer-no-scatter"}

# Processor models with a large buffer of decoded instructions (Zen) unroll loops eightfold; rewritten in terms of its
# induction variables, a chain of eight dependent multiplications then becomes dozens that are not.
_MAX_UNROLL = 4


@once
def triple() -> str:
    """The host's target triple; also the point at which LLVM is initialised."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return str(llvm.get_default_triple())


@once
def cpu() -> tuple[str, str]:
    """(name, feature string) of the host's processor: part of every cache key."""
    triple()
    return str(llvm.get_host_cpu_name()), str(llvm.get_host_cpu_features().flatten())


@once
def target_machine(codegen: int = _OPTIMISATION) -> Any:
    """The host's target machine, at a level of optimisation of the code generator. Frame pointers are not kept."""
    name, features = cpu()
    features += _TUNING.get(triple().partition("-")[0], "")
    target = llvm.Target.from_triple(triple())
    # Large: the loader puts an object's sections wherever the process has room, which may be further apart than 32 bits
    # reach (it answers that with abort()), and maps and the native library are anywhere, too.
    return target.create_target_machine(cpu=name, features=features, opt=codegen, reloc="static", codemodel="large")


def head() -> str:
    """The first lines of a module's text for the host, without which LLVM reckons with an unknown machine's types."""
    return f'target datalayout = "{target_machine().target_data}"\ntarget triple = "{triple()}"\n'


def limit_unrolling() -> None:
    """Unroll loops of unknown length no further than pays. Once, and for all of the process: for one that only compiles."""
    llvm.set_option("fastrtp", f"-unroll-max-count={_MAX_UNROLL}")


def optimise(module: Any, level: int = 2) -> None:
    """Run LLVM's default pipeline of `level` over a module, in place."""
    options = llvm.create_pipeline_tuning_options(speed_level=level)
    builder = llvm.create_pass_builder(target_machine(), options)
    builder.getModulePassManager().run(module, builder)


def parse(text: str, *, name: str = "module") -> Any:
    """IR text to a verified module; JitError with LLVM's words when it is not well-formed."""
    triple()
    try:
        module = llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise JitError(f"{name}: {error}") from error
    return module


def parse_bitcode(data: bytes) -> Any:
    """Bitcode to a module."""
    triple()
    try:
        return llvm.parse_bitcode(data)
    except RuntimeError as error:
        raise JitError(f"bitcode: {error}") from error


def optimised(module: Any, library: bytes, level: int = 2, *, smp: bool = False) -> Any:
    """The module, optimised, with the bodies of `library` (bitcode) to inline from; `smp`: in their form for several CPUs."""
    module.link_in(llvm.parse_assembly(f"@{SMP} = constant i64 {int(smp)}"))
    module.link_in(parse_bitcode(library))
    module.get_global_variable(SMP).linkage = "internal"
    optimise(module, level)
    return module


def emit_object(module: Any, codegen: int = _OPTIMISATION) -> bytes:
    """An optimised module's object file."""
    return bytes(target_machine(codegen).emit_object(module))


def undefined(module: Any) -> tuple[str, ...]:
    """Symbols that a module names and does not define (LLVM's own aside)."""
    names = {
        f.name for f in module.functions if (f.is_declaration or "available" in f.linkage.name) and not f.name.startswith("llvm.")
    }
    names |= {variable.name for variable in module.global_variables if variable.is_declaration}
    return tuple(sorted(names))


def assembly(module: Any, codegen: int = _OPTIMISATION) -> str:
    """The host's assembly of an optimised module."""
    return str(target_machine(codegen).emit_assembly(module))


def load(obj: bytes, exports: Sequence[str], symbols: Mapping[str, int], name: str) -> tuple[dict[str, int], Callable[[], None]]:
    """An object in memory by LLVM's loader: (addresses of its exports, what frees it). JitError."""
    jit = llvm.create_lljit_compiler(target_machine())
    builder = llvm.JITLibraryBuilder().add_object_img(obj).add_current_process()
    for symbol, address in symbols.items():
        builder.import_symbol(symbol, address)
    for symbol in exports:
        builder.export_symbol(symbol)
    try:
        tracker = builder.link(jit, name)
    except (RuntimeError, ValueError) as error:
        jit.close()
        raise JitError(f"{name}: {error}") from error

    def release() -> None:
        tracker.close()
        jit.close()

    return {symbol: int(tracker[symbol]) for symbol in exports}, release
