"""BpfProg: a loaded program: what was verified, the native code, what it uses, its counters.

It holds its maps and its BTF; links, program arrays and open files hold it. The last reference frees the native code.

Kernel counterpart: kernel/bpf/core.c, kernel/bpf/syscall.c (bpf_prog_*).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastrtp.kernel.files.refs import RefCounted
from fastrtp.once import once_property
from fastrtp.trace.probe import ProgRecord
from fastrtp.uapi import (
    BPF_F_SLEEPABLE,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
    BPF_TAG_SIZE,
    BpfProgType,
)

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.effects import Effects, Member
    from fastrtp.isa import Insn
    from fastrtp.jit import NativeProgram
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.files.idr import Idr
    from fastrtp.kernel.objects.bpf_map import BpfMap
    from fastrtp.kernel.objects.btf_object import BtfObject
    from fastrtp.native.memory import Memory
    from fastrtp.verifier import VerifiedProgram
    from fastrtp.verifier.reads import ProgramReads

_LD_IMM64 = 0x18
_MAP_SOURCES = frozenset({BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE})
_ALL_MAP_SOURCES = _MAP_SOURCES | {BPF_PSEUDO_MAP_IDX, BPF_PSEUDO_MAP_IDX_VALUE}


@dataclass
class ProgAux:
    """What PROG_LOAD was told and found out besides the code. `load_time`: ns since boot."""

    load_time: int
    created_by_uid: int
    gpl_compatible: bool
    expected_attach_type: int = 0
    prog_flags: int = 0
    attach_btf: BtfObject | None = None
    attach_btf_id: int = 0
    attach_func_name: str = ""
    btf: BtfObject | None = None
    func_info: Any = None
    line_info: Any = None


class BpfProg(RefCounted):
    """`struct bpf_prog` with its aux. `native`: the compiled program, for one CPU that runs programs at a time."""

    def __init__(
        self, ids: Idr[BpfProg], prog_type: int, name: str, tag: bytes, aux: ProgAux, verified: VerifiedProgram,
        used_maps: Sequence[BpfMap], native: NativeProgram, memory: Memory,
    ) -> None:  # fmt: skip
        super().__init__()
        self.type = prog_type
        self.name = name
        self.tag = tag
        self.aux = aux
        self.verified = verified
        self.used_maps = list(used_maps)
        self.native = native
        self._smp_native: NativeProgram | None = None
        self._reads: dict[tuple[int, ...] | None, ProgramReads] = {}
        self._ids = ids
        self._memory = memory
        for bpf_map in self.used_maps:
            bpf_map.get()
        for btf in (aux.btf, aux.attach_btf):
            if btf is not None:
                btf.get()
        self.id = ids.alloc_cyclic(self)
        if native.is_ready:
            self.finish()

    @once_property
    def record(self) -> ProgRecord:
        """What links and program arrays point at. Waits for the compiler; JitError when it refused the program."""
        native = self.smp_native() if self._memory.parallel else self.native
        return ProgRecord(self._memory, native.entry, self.id, self.native.probes, self.max_ctx_offset)

    def finish(self) -> None:
        """Wait for the compiler. JitError when it refused the program."""
        _ = self.record

    def smp_native(self) -> NativeProgram:
        """The program for several CPUs that run programs at a time; compiled when it is first wanted, meanwhile. JitError."""
        from fastrtp.jit import compile_program
        from fastrtp.jit.options import CodeOptions

        if self._smp_native is None:
            maps = [bpf_map.map for bpf_map in self.used_maps[: len(self.verified.used_maps)]]
            name = self.name or "prog"
            self._smp_native = compile_program(self.verified, maps, name, self._memory, CodeOptions(smp=True), wait=False)
        return self._smp_native

    def run_smp(self) -> None:
        """Run that form from now on. JitError."""
        self.record.switch(self.smp_native().entry)

    def run_alone(self) -> None:
        """Run the other form again."""
        self.record.switch(self.native.entry)

    def __repr__(self) -> str:
        return f"<BpfProg {self.id} {self.name!r} {BpfProgType(self.type).name} tag {self.tag.hex()}>"

    @once_property
    def effects(self) -> Effects:
        """What it does to maps and to all else that is there afterwards (fastrtp.effects)."""
        from fastrtp.effects import effects_of

        return effects_of(self.verified, self.type)

    def effects_member(self, name: str = "") -> Member:
        """The program as one of a run, for fastrtp.effects.conflicts()."""
        from fastrtp.effects import Member
        from fastrtp.verifier.report.source import Source

        source = Source.of(self.aux.btf.btf if self.aux.btf is not None else None, self.aux.line_info)
        return Member(name or self.name or f"program {self.id}", self.effects, self.verified.used_maps, source.line)

    @property
    def sleepable(self) -> bool:
        """Loaded with BPF_F_SLEEPABLE."""
        return bool(self.aux.prog_flags & BPF_F_SLEEPABLE)

    @property
    def expected_attach_type(self) -> int:
        """BPF_* attach type given at load."""
        return self.aux.expected_attach_type

    @property
    def attach_btf_id(self) -> int:
        """Type that a tracing program is for, 0 for the others."""
        return self.aux.attach_btf_id

    @property
    def attach_func_proto(self) -> int:
        """Type of the tracepoint's arguments that a tracing program is for, 0 for the others. Kernel: aux->attach_func_proto"""
        if self.aux.attach_btf is None:
            return 0
        btf = self.aux.attach_btf.btf
        pointer: int = btf.type(self.attach_btf_id).type
        return int(btf.type(pointer).type)

    @property
    def max_ctx_offset(self) -> int:
        """End of the highest argument read, bytes."""
        return int(self.verified.max_ctx_offset)

    @property
    def max_tp_access(self) -> int:
        """End of the highest byte touched in a writable tracepoint's buffer."""
        return int(self.verified.max_tp_access)

    def stats(self) -> tuple[int, int, int]:
        """(run_time_ns, run_cnt, recursion_misses) over all CPUs; the first two count while BPF_ENABLE_STATS is held.

        Kernel: kernel/bpf/syscall.c:bpf_prog_get_stats
        """
        record = self.record
        return record.total("run_time_ns"), record.total("run_cnt"), record.total("misses")

    @property
    def runs(self) -> int:
        """How often it ran, counted always."""
        return self.record.total("runs")

    def reads(self, btf: Btf, arg_types: tuple[int, ...] | None) -> ProgramReads:
        """What it can read of a tracepoint with arguments of these types; None: of an event's record."""
        from fastrtp.verifier.reads_flow import program_reads

        if arg_types not in self._reads:
            self._reads[arg_types] = program_reads(self.verified, btf, arg_types)
        return self._reads[arg_types]

    def bind_map(self, bpf_map: BpfMap) -> None:
        """Let the program hold a map that its code does not name. Kernel: kernel/bpf/syscall.c:bpf_prog_bind_map"""
        if bpf_map not in self.used_maps:
            bpf_map.get()
            self.used_maps.append(bpf_map)

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: bpf_prog_release"""
        self.put()

    def release(self) -> None:
        """Free code and give back what it held. Kernel: kernel/bpf/syscall.c:__bpf_prog_put_noref"""
        if self._in_timers():
            self.refcnt = 1
            self._memory.park(self._leave_timers)
            return
        self._ids.remove(self.id)
        self._memory.synchronize_rcu()
        self.native.close()
        if self._smp_native is not None:
            self._smp_native.close()
        if "record" in self.__dict__:
            self.record.close()
        for bpf_map in self.used_maps:
            bpf_map.put()
        for btf in (self.aux.btf, self.aux.attach_btf):
            if btf is not None:
                btf.put()

    def _in_timers(self) -> bool:
        """Whether a timer has a callback in the code. Kernel: kernel/bpf/helpers.c:bpf_timer_set_callback takes a reference"""
        if not self._memory.timers["list"][0]:
            return False
        for native in (self.native, self._smp_native):
            if native is not None and native.is_ready:
                low, high = native.entry - native.code_size, native.entry + native.code_size
                if self._memory.lib.timers_within(self._memory.machine_address, low, high):
                    return True
        return False

    def _leave_timers(self) -> bool:
        """Give back the reference of the timers, if they are gone."""
        if self._in_timers():
            return False
        self.put()
        return True

    def xlated(self) -> bytes:
        """The verified instructions as bpftool shows them: maps by id instead of by descriptor.

        Kernel: kernel/bpf/syscall.c:bpf_insn_prepare_dump
        """
        from fastrtp.isa import encode

        insns = list(self.verified.insns)
        for index, insn in enumerate(insns):
            if insn.code == _LD_IMM64 and insn.src_reg in _ALL_MAP_SOURCES:
                value = insn.src_reg in (BPF_PSEUDO_MAP_VALUE, BPF_PSEUDO_MAP_IDX_VALUE)
                bpf_map = self.verified.used_maps[insn.imm]
                insns[index] = insn._replace(src_reg=BPF_PSEUDO_MAP_VALUE if value else BPF_PSEUDO_MAP_FD, imm=bpf_map.id)
        return encode(insns)


def bpf_prog_calc_tag(insns: Sequence[Insn]) -> bytes:
    """First 8 bytes of SHA-256 over the instructions, with the maps' descriptors (which differ from load to load) zeroed.

    Differs: kernels before 6.18 take SHA-1. Kernel: kernel/bpf/core.c:bpf_prog_calc_tag
    """
    from fastrtp.isa import encode

    plain: list[Insn] = []
    was_ld_map = False
    for insn in insns:
        if not was_ld_map and insn.code == _LD_IMM64 and insn.src_reg in _MAP_SOURCES:
            was_ld_map = True
            insn = insn._replace(imm=0)
        elif was_ld_map and not any((insn.code, insn.dst_reg, insn.src_reg, insn.off)):
            was_ld_map = False
            insn = insn._replace(imm=0)
        else:
            was_ld_map = False
        plain.append(insn)
    return hashlib.sha256(encode(plain)).digest()[:BPF_TAG_SIZE]
