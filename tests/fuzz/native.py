"""Our side: bpf_check, and a native run over maps whose memory lies between guard pages. To be used in a child process."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from fastrtp.btf import default_btf
from fastrtp.errors import BpfError, VerifierError
from fastrtp.jit.link import Linker, map_addresses
from fastrtp.jit.lower import LowerInput, lower
from fastrtp.jit.program import ENTRY
from fastrtp.maps import MAP_TYPES, ArrayOfMaps, HashMap, Map, MapAttr, ProgArray, RingBuf
from fastrtp.maps.map_in_map import bpf_map_meta_alloc
from fastrtp.native import engine, library
from fastrtp.native.compile_server import linked
from fastrtp.native.compiler import Job
from fastrtp.native.memory import Memory as NativeMemory
from fastrtp.native.module import NativeModule
from fastrtp.native.records import RunCtx
from fastrtp.trace.probe import ProgRecord
from fastrtp.uapi import BpfProgType
from fastrtp.verifier import AttachTarget, LoadAttr, VerifiedProgram, bpf_check

from .features import with_kfuncs
from .functions import btf, func_info
from .generator import Program
from .host import Verdict
from .shapes import ARRAYS, CTX, HASH_KEYS, HASHES, SHAPES, Memory
from .targets import TARGETS

_PAGE = mmap.PAGESIZE
_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
_RING, _PROGS = 3, 4


def _attr(program: Program, kernel_btf: Any, nr_cpu_ids: int, log_level: int) -> LoadAttr:
    def fd_to_map(fd: int) -> Any:
        if fd not in SHAPES:
            raise BpfError(9)
        return SHAPES[fd]

    kind, attach, types = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, None, kernel_btf or default_btf()
    if program.tracepoint:
        kind = BpfProgType.BPF_PROG_TYPE_TRACING
        attach = AttachTarget(program.tracepoint, types.find(f"btf_trace_{program.tracepoint}") or 0)
    info = func_info(program.insns, program.globals)
    return LoadAttr(
        kind, with_kfuncs(program.insns, types), fd_to_map, prog_flags=program.flags, log_level=log_level, btf=btf(),
        func_info=info, kernel_btf=types, attach=attach, expected_attach_type=23 if attach else 0, nr_cpu_ids=nr_cpu_ids,
    )  # fmt: skip


def verify(program: Program, kernel_btf: Any = None, nr_cpu_ids: int = 1) -> tuple[VerifiedProgram | None, Verdict]:
    """Ours: the program when it is accepted, and the verdict, on a machine of so many CPUs.

    `kernel_btf`: a tp_btf program's, default the shipped one.
    """
    try:
        return bpf_check(_attr(program, kernel_btf, nr_cpu_ids, 0)), Verdict(0)
    except VerifierError as error:
        return None, Verdict(error.errno or 0, error.strerror or "")


def log(program: Program, level: int, kernel_btf: Any, nr_cpu_ids: int) -> tuple[int, str]:
    """(errno, log) at a log level; 4: the statistics alone."""
    try:
        return 0, bpf_check(_attr(program, kernel_btf, nr_cpu_ids, level)).log
    except VerifierError as error:
        return error.errno or 0, error.log


def guarded(memory: NativeMemory, size: int) -> int:
    """Address of `size` bytes (rounded up to 8) that end where a page begins that nobody may touch; one lies in front, too."""
    size = -(-size // 8) * 8
    pages = -(-size // _PAGE)
    base = memory.arena.alloc((pages + 2) * _PAGE, _PAGE)
    libc = ctypes.CDLL(None, use_errno=True)
    for page in (base, base + (pages + 1) * _PAGE):
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_PAGE), 0) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return base + (pages + 1) * _PAGE - size


def _guarded_alloc(self: Map, size: int) -> int:
    return guarded(self.memory, size)


def _native_code(text: str, symbols: dict[str, int]) -> NativeModule:
    module = linked(Job(text, str(library.library().bitcode_path)))
    code, undefined = engine.emit_object(module), engine.undefined(module)
    every = {**library.library().symbols, **symbols}
    return NativeModule(code, [ENTRY], {symbol: every[symbol] for symbol in undefined if symbol in every})


class NativeSide:
    """One set of maps, context and environment. Programs run one after the other from the same initial contents."""

    def __init__(self) -> None:
        self.memory = NativeMemory(cpus=1)
        self.maps: dict[int, Any] = {}
        for fd, s in SHAPES.items():
            kind = type("Guarded" + MAP_TYPES[s.map_type].__name__, (MAP_TYPES[s.map_type],), {"_alloc": _guarded_alloc})
            inner = bpf_map_meta_alloc(self.maps[s.inner]) if s.inner else None
            attr = MapAttr(s.map_type, s.key_size, s.value_size, s.max_entries, s.map_flags, inner_map=inner)
            self.maps[fd] = kind(attr, self.memory)
            if s.inner:
                outer: ArrayOfMaps = self.maps[fd]
                outer.set_slot(0, self.maps[s.inner].address)
            if s.frozen:
                self.maps[fd].values()[0, :] = list(s.initial(0))
        self._ctx = guarded(self.memory, len(CTX))
        self._run_ctx, self._run_record = self.memory.record(RunCtx.layout.dtype)
        progs: ProgArray = self.maps[_PROGS]
        self._targets = []
        for slot, insns in TARGETS.items():
            verified, verdict = verify(Program(insns))
            if verified is None:
                raise AssertionError(f"the program for slot {slot}: {verdict.message}")
            self._targets.append(self._compile(verified))
            progs.set_slot(slot, ProgRecord(self.memory, self._targets[-1].addresses[ENTRY]).address)

    def run(self, verified: VerifiedProgram) -> tuple[int, Memory]:
        """(r0, map contents)."""
        module = self._compile(verified)
        self._reset()
        ctypes.memmove(self._ctx, CTX, len(CTX))
        result: int = _FUNCTION(module.addresses[ENTRY])(self._ctx, self.memory.env_of(0))
        module.close()
        return result, self._contents()

    def _compile(self, verified: VerifiedProgram) -> NativeModule:
        numbers = {id(shape): fd for fd, shape in SHAPES.items()}
        used = [self.maps[numbers[id(shape)]] for shape in verified.used_maps]
        linker = Linker(used, verified.aux, self.memory.lib.parameters)
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
        return _native_code(text, map_addresses(used))

    def _reset(self) -> None:
        for fd in HASHES:
            table: HashMap = self.maps[fd]
            for key, _ in list(table.raw_items()):
                table.delete_elem(key)
            for number in HASH_KEYS:
                table.update_elem(number.to_bytes(8, "little"), SHAPES[fd].initial(number))
        for fd in ARRAYS:
            for index in range(SHAPES[fd].max_entries):
                self.maps[fd].update_elem(index.to_bytes(4, "little"), SHAPES[fd].initial(index))
        ring: RingBuf = self.maps[_RING]
        for _ in ring.consume():
            pass
        self._run_record["tail_calls"] = 0
        self.memory.env["run_ctx"] = self._run_ctx

    def _contents(self) -> Memory:
        found = {}
        for fd in (*HASHES, *ARRAYS):
            for key, value in self.maps[fd].raw_items():
                found[f"{fd}[{key.hex()}]"] = value[: SHAPES[fd].value_size]
        for number, record in enumerate(self.maps[_RING].consume()):
            found[f"ring[{number}]"] = record
        return found
