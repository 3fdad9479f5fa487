"""From a verified program to native code: lower, link with the helpers' bodies, optimise (or find in the cache), load."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fastrtp.jit.annotate import Annotated, annotate
from fastrtp.jit.cache import CachedObject, ObjectCache
from fastrtp.jit.link import Linker, map_addresses
from fastrtp.jit.lower import LowerInput, lower
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.maps import Map
from fastrtp.native import compiler_rt, library
from fastrtp.native.compiler import Job, Part, server
from fastrtp.native.memory import Memory
from fastrtp.native.module import NativeModule
from fastrtp.native.perf_map import Line, PerfMap

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

ENTRY = "bpf_prog"
"""Symbol of every program's entry: names do not matter to the code, and so not to the cache."""


@functools.cache
def object_cache() -> ObjectCache:
    """The cache in the user's cache folder."""
    return ObjectCache(library.cache_folder())


def digest(text: str, parts: Sequence[Part] = ()) -> str:
    """Key of the object code of a text and its parts in the cache."""
    hashed = hashlib.sha256(f"{library.library().key}\n{text}".encode())
    for part in parts:
        hashed.update(f"\0{part.names}\0{part.text}".encode())
    return hashed.hexdigest()[:32]


def build(text: str, parts: Sequence[Part] = (), exports: Sequence[str] = ()) -> CachedObject:
    """Object of an IR module that may call the native library; from the cache where it is there. JitError."""
    key = digest(text, parts)
    cache = object_cache()
    found = cache.get(key)
    if found is None:
        code, symbols = server().compile(_job(text, parts, exports))
        found = CachedObject(code, symbols)
        cache.put(key, found)
    return found


def _job(text: str, parts: Sequence[Part], exports: Sequence[str]) -> Job:
    return Job(text, str(library.library().bitcode_path), tuple(parts), tuple(exports))


class NativeText:
    """Native code of an IR text and its parts: `addresses` of its `exports`, valid until close().

    `symbols`: addresses of what the text names and does not define, besides the native library's functions.
    """

    def __init__(
        self, name: str, text: str, exports: Sequence[str], symbols: Mapping[str, int] | None = None, parts: Sequence[Part] = ()
    ) -> None:
        built = build(text, parts, exports)
        every = {**library.library().symbols, **(symbols or {})}
        self.name = name
        self.text = text
        self.symbols = dict(symbols or {})
        self._job = _job(text, parts, exports)
        wanted = {s: every[s] for s in built.symbols if s in every} | compiler_rt.symbols(built.code)
        self._module = NativeModule(built.code, exports, wanted, name)
        self.addresses = self._module.addresses
        self.code_size = len(built.code)

    def close(self) -> None:
        """Free the code; nobody may be running in it."""
        self._module.close()

    def object(self) -> bytes:
        """The object file that is loaded."""
        return build(self.text, self._job.parts, self._job.exports).code

    def profile(self, perf_map: PerfMap | None, names: Mapping[str, str], lines: Iterable[Line] = ()) -> None:
        """Tell profilers about the code, its symbols under these names."""
        if perf_map is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to fail a load
                perf_map.add(self.object(), self.addresses, names, lines)

    def ir(self, *, optimise: bool = True) -> str:
        """The LLVM IR."""
        return server().compile(self._job, "ir")[0].decode() if optimise else self.text

    def assembly(self) -> str:
        """The native code as assembly text."""
        return server().compile(self._job, "assembly")[0].decode()


class NativeProgram(NativeText):
    """A program's native code. `entry`: its address, `u64 entry(u64 *ctx, Env *env)`."""

    def __init__(self, name: str, source: LowerInput, symbols: Mapping[str, int] | None = None) -> None:
        super().__init__(name, lower(source), [ENTRY], symbols)
        self.entry: int = self.addresses[ENTRY]
        self.source = source

    @functools.cached_property
    def annotated(self) -> Annotated:
        """The native instructions and the BPF instructions that they come from. Compiled once more, for this. JitError."""
        return annotate(self.source, self.object(), self.addresses[ENTRY])


def compile_program(
    verified: VerifiedProgram, maps: Sequence[Map], name: str, memory: Memory, options: CodeOptions = DEFAULT
) -> NativeProgram:
    """Native code of a verified program over these maps (in the order of used_maps). JitError when LLVM refuses it."""
    linker = Linker(maps, verified.aux, memory.lib.parameters, options)
    source = LowerInput(
        name=ENTRY,
        insns=verified.insns,
        subprogs=[(subprog.start, subprog.end) for subprog in verified.subprogs],
        aux=verified.aux,
        resolve=linker.resolve,
        map_symbols=linker.map_symbols(verified.insns),
        constants=linker.constants(verified.insns),
        smp=options.smp,
        options=options,
    )
    return NativeProgram(name, source, map_addresses(maps))
