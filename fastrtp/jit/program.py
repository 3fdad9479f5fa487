"""From a verified program to native code: lower, link with the helpers' bodies, optimise (or find in the cache), load."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastrtp.entry_cache import cache_folder
from fastrtp.errors import JitError
from fastrtp.jit.annotate import Annotated, annotate
from fastrtp.jit.cache import CachedObject, ObjectCache
from fastrtp.jit.facts import NO_FACTS, ProgramFacts, program_facts
from fastrtp.jit.key import program_key, text_key, toolchain
from fastrtp.jit.link import Linker, map_addresses
from fastrtp.jit.lower import LowerInput, lower
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.jit.probe_text import PROBE, probe_text
from fastrtp.maps import Map
from fastrtp.native import compiler_rt, library
from fastrtp.native.compiler import Job, Part, Pending, server
from fastrtp.native.memory import Memory
from fastrtp.native.module import NativeModule
from fastrtp.native.perf_map import Line, PerfMap
from fastrtp.once import once

if TYPE_CHECKING:
    from fastrtp.verifier import VerifiedProgram

ENTRY = "bpf_prog"
"""Symbol of every program's entry: names do not matter to the code, and so not to the cache."""


def object_cache() -> ObjectCache:
    """The cache in the user's cache folder."""
    return _object_cache(cache_folder(), toolchain())


@once
def _object_cache(folder: Path, made_by: str) -> ObjectCache:
    return ObjectCache(folder, made_by)


class NativeText:
    """Native code of an IR text and its parts, or of a program to lower: `addresses` of its `exports`, valid until close().

    `symbols`: addresses of what it names and does not define, besides the native library's functions. Code is found in the
    cache, or compiled: at once, or (`wait` False) meanwhile; then whatever needs it waits for it, and may raise JitError.
    `smp`: helpers and maps in their form for several CPUs that run at a time, which is right for one, too.
    """

    def __init__(
        self, name: str, source: str | LowerInput, exports: Sequence[str], symbols: Mapping[str, int] | None = None,
        parts: Sequence[Part] = (), *, smp: bool = False, wait: bool = True,
    ) -> None:  # fmt: skip
        self.name = name
        self.symbols = dict(symbols or {})
        self._source = source
        self._exports = tuple(exports)
        self._parts = tuple(parts)
        self._smp = smp
        if isinstance(source, str):
            self._key = text_key(source, parts, exports, smp=smp)
        else:
            self._key = program_key(source, parts, exports)
        self._module: NativeModule | None = None
        self._pending: Pending | None = None
        self._lock = threading.Lock()
        found = object_cache().get(self._key)
        if found is not None:
            with contextlib.suppress(JitError):  # it does not load: as if it was not there
                self._load(found)
        if self._module is None:
            if wait:
                self._keep(server().compile(self._job()))
            else:
                self._pending = server().submit(self._job())

    @functools.cached_property
    def text(self) -> str:
        """The LLVM IR as it was before LLVM saw it."""
        return self._source if isinstance(self._source, str) else lower(self._source)

    @property
    def is_ready(self) -> bool:
        """Whether the code is loaded."""
        return self._module is not None

    def ready(self) -> NativeModule:
        """The loaded code; waits for it. JitError when LLVM refused the text."""
        with self._lock:
            if self._pending is not None:
                self._keep(self._pending.result())
                self._pending = None
            if self._module is None:
                raise JitError(f"{self.name}: the code was freed")
            return self._module

    @property
    def addresses(self) -> dict[str, int]:
        """Addresses of the exports."""
        return self.ready().addresses

    @property
    def code_size(self) -> int:
        """Bytes of the object."""
        return self.ready().size

    def close(self) -> None:
        """Free the code; nobody may be running in it."""
        with self._lock:
            module, self._module, self._pending = self._module, None, None
        if module is not None:
            module.close()

    def object(self) -> bytes:
        """The object file that is loaded."""
        self.ready()
        found = object_cache().get(self._key)
        return found.code if found is not None else server().compile(self._job())[0]

    def profile(self, perf_map: PerfMap | None, names: Mapping[str, str], lines: Iterable[Line] = ()) -> None:
        """Tell profilers about the code, its symbols under these names."""
        if perf_map is not None:
            with contextlib.suppress(OSError):  # a full disk is no reason to fail a load
                perf_map.add(self.object(), self.addresses, names, lines)

    def ir(self, *, optimise: bool = True) -> str:
        """The LLVM IR."""
        return server().compile(self._job(), "ir")[0].decode() if optimise else self.text

    def assembly(self) -> str:
        """The native code as assembly text."""
        return server().compile(self._job(), "assembly")[0].decode()

    def _job(self) -> Job:
        return Job(self.text, str(library.library().bitcode_path), self._parts, self._exports, self._smp)

    def _keep(self, made: tuple[bytes, tuple[str, ...]]) -> None:
        """Load what was compiled, and store it."""
        found = CachedObject(*made)
        self._load(found)
        object_cache().put(self._key, found)

    def _load(self, found: CachedObject) -> None:
        every = {**library.library().symbols, **self.symbols}
        wanted = {s: every[s] for s in found.symbols if s in every} | compiler_rt.symbols(found.code)
        self._module = NativeModule(found.code, self._exports, wanted, self.name)


class NativeProgram(NativeText):
    """A program's native code. `facts`: what it can ask of a run; `widths`: the argument sizes that it has a probe of its own
    for, "" for none.
    """

    def __init__(
        self, name: str, source: LowerInput, symbols: Mapping[str, int] | None = None, *, wait: bool = True,
        facts: ProgramFacts = NO_FACTS, widths: str = "",
    ) -> None:  # fmt: skip
        parts = [Part(probe_text(ENTRY, widths, facts))] if widths else []
        super().__init__(name, source, [ENTRY, PROBE] if widths else [ENTRY], symbols, parts, smp=source.smp, wait=wait)
        self.source = source
        self.facts = facts
        self.widths = widths

    @functools.cached_property
    def annotated(self) -> Annotated:
        """The native instructions and the BPF instructions that they come from. Compiled once more, for this. JitError."""
        return annotate(self.source, self._job(), self.object(), self.addresses[ENTRY])

    @property
    def entry(self) -> int:
        """Address of `u64 entry(u64 *ctx, Env *env)`."""
        return self.addresses[ENTRY]

    @property
    def probes(self) -> dict[str, int]:
        """Argument sizes -> address of the probe for them: i64 probe(i64 link, i64 a1..aN, Env *env)."""
        return {self.widths: self.addresses[PROBE]} if self.widths else {}


def compile_program(
    verified: VerifiedProgram, maps: Sequence[Map], name: str, memory: Memory, options: CodeOptions = DEFAULT, *,
    wait: bool = True, widths: str = "",
) -> NativeProgram:  # fmt: skip
    """Native code of a verified program over these maps (in the order of used_maps). JitError when LLVM refuses it.

    `wait`: as in NativeText. `widths`: argument sizes of the tracepoint that it is for, where that is known: it gets a probe
    of its own.
    """
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
    facts = program_facts(verified, linker.resolve, memory.lib.uses)
    return NativeProgram(name, source, map_addresses(maps), wait=wait, facts=facts, widths=widths)
