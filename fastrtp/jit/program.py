"""From a verified program to native code: lower, link with the helpers' bodies, optimise (or find in the cache), load."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.jit.cache import CachedObject, ObjectCache
from fastrtp.jit.link import Linker, map_addresses
from fastrtp.jit.lower import LowerInput, lower
from fastrtp.maps import Map
from fastrtp.native import engine, library
from fastrtp.native.memory import Memory

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

ENTRY = "bpf_prog"
"""Symbol of every program's entry: names do not matter to the code, and so not to the cache."""


@functools.cache
def object_cache() -> ObjectCache:
    """The cache in the user's cache folder."""
    return ObjectCache(library.cache_folder())


def build(text: str) -> CachedObject:
    """Object of an IR module that may call the native library; from the cache where it is there."""
    lib = library.library()
    digest = hashlib.sha256(f"{lib.key}\n{text}".encode()).hexdigest()[:32]
    cache = object_cache()
    found = cache.get(digest)
    if found is None:
        module = optimised(text)
        found = CachedObject(engine.emit_object(module), engine.undefined(module))
        cache.put(digest, found)
    return found


def optimised(text: str) -> Any:
    """The optimised module of an IR text, the library's bodies inlined."""
    return engine.optimised(engine.parse(text, name=ENTRY), library.library().bitcode)


class NativeText:
    """Native code of an IR text: `addresses` of its `exports`, valid until close()."""

    def __init__(self, name: str, text: str, exports: Sequence[str], symbols: Mapping[str, int] | None = None) -> None:
        built = build(text)
        every = {**library.library().symbols, **(symbols or {})}
        self.name = name
        self._text = text
        self._module = engine.NativeModule(built.code, exports, {s: every[s] for s in built.symbols if s in every}, name)
        self.addresses = self._module.addresses
        self.code_size = len(built.code)

    def close(self) -> None:
        """Free the code; nobody may be running in it."""
        self._module.close()

    def ir(self, *, optimise: bool = True) -> str:
        """The LLVM IR."""
        return str(optimised(self._text)) if optimise else self._text

    def assembly(self) -> str:
        """The native code as assembly text."""
        return engine.assembly(optimised(self._text))


class NativeProgram(NativeText):
    """A program's native code. `entry`: its address, `u64 entry(u64 *ctx, Env *env)`."""

    def __init__(self, name: str, text: str, symbols: Mapping[str, int] | None = None) -> None:
        super().__init__(name, text, [ENTRY], symbols)
        self.entry: int = self.addresses[ENTRY]


def compile_program(verified: VerifiedProgram, maps: Sequence[Map], name: str, memory: Memory) -> NativeProgram:
    """Native code of a verified program over these maps (in the order of used_maps). JitError when LLVM refuses it."""
    linker = Linker(maps, verified.aux, memory.lib.parameters)
    text = lower(
        LowerInput(
            name=ENTRY,
            insns=verified.insns,
            subprogs=[(subprog.start, subprog.end) for subprog in verified.subprogs],
            aux=verified.aux,
            resolve=linker.resolve,
            map_symbols=linker.map_symbols(verified.insns),
            smp=False,
        )
    )
    return NativeProgram(name, text, map_addresses(maps))
