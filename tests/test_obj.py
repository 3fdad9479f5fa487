"""Object files as clang makes them: programs, maps, globals, relocations."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from fastrtp.btf import BtfKind, default_btf
from fastrtp.btf.core import BPF_CORE_POISON
from fastrtp.errors import ObjectError
from fastrtp.isa import Insn, encode
from fastrtp.obj import ObjectSpec
from fastrtp.obj.elf import ElfFile
from fastrtp.obj.globals import internal_map_name, object_name
from fastrtp.obj.link import POISON_CALL_KFUNC_BASE
from fastrtp.obj.sections import parse_section_name
from fastrtp.programs import PROGRAMS, read_object
from fastrtp.uapi import (
    BPF_F_MMAPABLE,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY_PROG,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_VALUE,
    BpfMapType,
    BpfProgType,
)

DATA = Path(__file__).parent / "data" / "elf"


def load(name: str) -> ObjectSpec:
    """One of the test objects."""
    return ObjectSpec.parse((DATA / f"{name}.bpf.o").read_bytes(), f"{name}.bpf.o")


def tag(insns: list[Insn]) -> str:
    """The program tag of Linux 6.18: a hash of the instructions with map references blanked. Kernel: bpf_prog_calc_tag"""
    out, blank = [], False
    for insn in insns:
        is_map = insn.code == 0x18 and insn.src_reg in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE)
        out.append(insn._replace(imm=0) if is_map or blank else insn)
        blank = is_map
    return hashlib.sha256(encode(out)).hexdigest()[:16]


TAGS = {
    ("globals", "options"): "e2d36e33703cea96",
    ("maps", "target"): "b11459a0e11ca14c",
    ("maps", "use_all"): "d7d390197bcda14b",
    ("subprogs", "calls_static"): "3254d2c626d7f687",
    ("subprogs", "calls_global"): "7956106ad8e58635",
    ("subprogs", "loops"): "d71d6193444bc8da",
    ("subprogs", "callee_program"): "9364da77bec6e959",
}
"""What Linux 6.18 called these programs (`bpftool prog show`) after libbpf 1.1 had linked and loaded them."""

LEGACY_SECTIONS = [
    # number, name, type, offset, size, flags, link, info
    (0, "", 0, 0x000, 0x00, 0, 0, 0),
    (1, ".strtab", 3, 0x23C, 0x7A, 0, 0, 0),
    (2, ".text", 1, 0x040, 0x48, 6, 0, 0),
    (3, "raw_tracepoint/sched_switch", 1, 0x088, 0x70, 6, 0, 0),
    (4, ".relraw_tracepoint/sched_switch", 9, 0x1E8, 0x50, 64, 9, 3),
    (5, "maps", 1, 0x0F8, 0x28, 3, 0, 0),
    (6, "license", 1, 0x120, 0x04, 3, 0, 0),
    (7, ".data", 1, 0x124, 0x04, 3, 0, 0),
    (8, ".llvm_addrsig", 0x6FFF4C03, 0x238, 0x04, 0x80000000, 0, 0),
    (9, ".symtab", 2, 0x128, 0xC0, 0, 1, 3),
]
LEGACY_SYMBOLS = [
    # name, type, bind, visibility, section, value, size
    ("", 0, 0, 0, 0, 0, 0),
    (".text", 3, 0, 0, 2, 0, 0),
    ("read", 2, 0, 0, 2, 0, 72),
    ("old", 2, 1, 0, 3, 0, 112),
    ("calls", 1, 1, 0, 7, 0, 4),
    ("hash", 1, 1, 0, 5, 0, 20),
    ("array", 1, 1, 0, 5, 20, 20),
    ("LICENSE", 1, 1, 0, 6, 0, 4),
]
LEGACY_RELOCS = [(0, 1, "calls"), (40, 1, "hash"), (56, 10, ".text"), (72, 1, "array"), (88, 10, ".text")]


@pytest.mark.parametrize(("name", "program"), TAGS)
def test_instructions_are_those_that_libbpf_loads(name: str, program: str) -> None:
    """The kernel's tag of the loaded program is the tag of ours: every instruction is the same."""
    assert tag(load(name).programs[program].insns) == TAGS[name, program]


def test_sections_say_type_and_tracepoint() -> None:
    """All raw tracepoint names load, the others are listed with the reason."""
    spec = load("sections")
    raw, writable = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE

    assert {p.name: (p.prog_type, p.attach_name, p.autoload) for p in spec.programs.values()} == {
        "on_raw_tp": (raw, "sched_switch", True),
        "on_raw_tracepoint": (raw, "sched_wakeup", True),
        "on_raw_tp_w": (writable, "bpf_test_finish", True),
        "on_raw_tracepoint_w": (writable, "nbd_send_request", True),
        "on_tp_btf": (BpfProgType.BPF_PROG_TYPE_TRACING, "task_rename", True),
        "on_bare": (raw, "", True),
        "on_manual": (raw, "irq_handler_entry", False),
        "on_second_in_section": (raw, "sched_switch", True),
        "on_tracepoint": (BpfProgType.BPF_PROG_TYPE_TRACEPOINT, "sched/sched_switch", True),
    }
    assert spec.programs["on_tp_btf"].attach_type == 23
    assert spec.programs["on_raw_tp_w"].writable
    assert spec.license == "MIT"
    assert spec.skipped == {
        "on_kprobe": "section 'kprobe/do_nanosleep': kprobe programs do not run on raw tracepoints",
        "on_fentry": "section 'fentry/do_unlinkat': fentry programs do not run on raw tracepoints",
        "on_xdp": "section '?xdp': xdp programs do not run on raw tracepoints",
        "on_unknown": "section 'whatever' names no program type, expected raw_tp/<tracepoint> or tp_btf/<tracepoint>",
    }
    assert [spec.programs[name].insns[0].imm for name in ("on_raw_tp", "on_second_in_section")] == [1, 8]


@pytest.mark.parametrize("name", ["raw_tpx", "raw_tp.s/x", "", "?", "tp_btf.s/x", "raw/tp"])
def test_section_names_that_are_no_raw_tracepoint(name: str) -> None:
    """A prefix must be whole."""
    assert parse_section_name(name).definition is None
    assert repr(name) in parse_section_name(name).reason


def test_globals_are_maps_named_as_libbpf_names_them() -> None:
    """One array per data section, with contents, flags and types."""
    spec = load("globals")
    maps = spec.maps

    assert list(maps) == [
        "globals.rodata",
        "globals.data",
        ".data.custom",
        ".rodata.custom",
        "globals.bss",
        ".bss.custom",
        "globals.kconfig",
    ]
    assert all((m.map_type, m.key_size, m.max_entries) == (BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 1) for m in maps.values())
    assert maps["globals.data"].initial == bytes([42, 0, 0, 0, 43, 0, 0, 0])
    assert maps["globals.bss"].initial == bytes(24)
    assert maps["globals.rodata"].map_flags == BPF_F_RDONLY_PROG | BPF_F_MMAPABLE
    assert maps["globals.data"].map_flags == BPF_F_MMAPABLE
    assert [m.name for m in maps.values() if m.frozen] == ["globals.rodata", ".rodata.custom", "globals.kconfig"]
    assert spec.version == 0x60100
    assert spec.license == "Dual BSD/GPL"


def test_globals_decode_by_their_variables() -> None:
    """The DATASEC has the places that clang leaves open."""
    spec = load("globals")
    assert spec.btf is not None

    def values(name: str) -> dict[str, object]:
        one = spec.maps[name]
        assert spec.btf is not None
        decoded = spec.btf.decode(one.btf_value_type_id, one.initial or b"")
        assert isinstance(decoded, dict)
        return decoded

    assert values("globals.rodata") == {"limit": 7, "settings": {"name": "abc", "ids": [3, 4]}}
    assert values("globals.data") == {"counter": 42, "hidden_counter": 43}
    assert values("globals.bss") == {"total": 0, "hidden_total": 0, "count.calls": 0}
    assert values(".data.custom") == {"custom": 5}
    assert values("globals.kconfig") == {"LINUX_KERNEL_VERSION": 0, "CONFIG_PREEMPT": False}


def test_references_to_globals_carry_their_offset() -> None:
    """src_reg 2, the offset in the second slot."""
    program = load("globals").programs["options"]

    assert [(ref.insn_idx, ref.map_name, ref.value_offset) for ref in program.map_refs] == [
        (0, "globals.kconfig", 4),
        (3, "globals.kconfig", 0),
    ]
    assert program.insns[0][:5] == (0x18, 1, BPF_PSEUDO_MAP_VALUE, 0, 0)
    assert program.insns[1].imm == 4


@pytest.mark.parametrize(
    ("obj", "section", "name"),
    [
        ("test", ".rodata", "test.rodata"),
        ("averylongobjname", ".rodata", "averylon.rodata"),
        ("averylongobjname", ".bss", "averylon.bss"),
        ("averylongobjname", ".kconfig", "averylo.kconfig"),
        ("x-y", ".data", "x_y.data"),
        ("test", ".data.custom", ".data.custom"),
        ("test", ".rodata.very_long_name", ".rodata.very_lo"),
    ],
)
def test_names_of_global_data_maps(obj: str, section: str, name: str) -> None:
    """15 characters, the section's part first."""
    assert internal_map_name(obj, section) == name


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b/runq.bpf.o", "runq"), ("x.o", "x"), ("", "object"), ("abcdefghijklmnopqrst.o", "abcdefghijklmno")]
)
def test_object_names(path: str, name: str) -> None:
    """The file's name up to its first dot."""
    assert object_name(path) == name


def test_subprograms_are_appended_at_their_first_call() -> None:
    """Depth first, once each; calls and callback addresses lead to them."""
    spec = load("subprogs")

    assert [name for _, name in spec.programs["calls_static"].subprogs] == ["calls_static", "middle", "leaf"]
    assert [name for _, name in spec.programs["calls_global"].subprogs] == [
        "calls_global", "global_function", "middle", "leaf", "hidden_function",
    ]  # fmt: skip
    assert [name for _, name in spec.programs["loops"].subprogs] == ["loops", "add_index", "leaf", "add_value"]
    assert [name for _, name in spec.programs["calls_program"].subprogs] == ["calls_program", "callee_program", "leaf"]
    for program in spec.programs.values():
        starts = {start for start, _ in program.subprogs}
        for at, insn in enumerate(program.insns):
            if (insn.code == 0x85 and insn.src_reg == 1) or (insn.code == 0x18 and insn.src_reg == BPF_PSEUDO_FUNC):
                assert at + insn.imm + 1 in starts


def test_function_and_line_tables_follow_the_instructions() -> None:
    """One func_info per subprogram, line_info ascending and inside the program."""
    spec = load("subprogs")
    assert spec.btf is not None
    for program in spec.programs.values():
        assert [(row["insn_off"], spec.btf.type(int(row["type_id"])).name) for row in program.func_info] == program.subprogs
        offsets = program.line_info["insn_off"].tolist()
        assert offsets == sorted(set(offsets))
        assert offsets[-1] < len(program.insns)
        assert {start for start, _ in program.subprogs} <= set(offsets)
        assert ".bpf.c" in spec.btf.string(int(program.line_info["file_name_off"][0]))


def test_hidden_functions_become_static_in_btf() -> None:
    """So that the verifier checks them with their callers' arguments."""
    spec = load("subprogs")
    assert spec.btf is not None

    def linkage(name: str) -> int:
        assert spec.btf is not None
        return spec.btf.type(spec.btf.find(name, BtfKind.FUNC) or 0).linkage

    assert (linkage("hidden_function"), linkage("global_function"), linkage("leaf")) == (0, 1, 0)


def test_maps_defined_by_btf() -> None:
    """Every attribute that a definition can have."""
    maps = load("maps").maps
    T = BpfMapType

    def row(name: str) -> tuple[int, int, int, int, int]:
        m = maps[name]
        return m.map_type, m.key_size, m.value_size, m.max_entries, m.map_flags

    assert row("hash") == (T.BPF_MAP_TYPE_HASH, 16, 16, 100, BPF_F_NO_PREALLOC)
    assert row("percpu") == (T.BPF_MAP_TYPE_PERCPU_HASH, 4, 12, 10, 0)
    assert row("slots") == (T.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1, 0)
    assert row("ring") == (T.BPF_MAP_TYPE_RINGBUF, 0, 0, 8192, 0)
    assert row("perf") == (T.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 0, 0)
    assert row("jumps") == (T.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 8, 0)
    assert maps["lru"].pinning == 1
    assert maps["jumps"].values == {5: "target"}


def test_maps_of_maps() -> None:
    """The inner map's definition and what is put in which slot; __ulong numbers."""
    maps = load("inner_maps").maps

    assert maps["bloom"].map_extra == 5
    assert maps["outer"].values == {0: "inner_b", 3: "inner_a"}
    inner = maps["outer"].inner
    assert inner is not None
    assert (inner.map_type, inner.key_size, inner.value_size, inner.max_entries) == (BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 8, 3)
    assert (maps["outer"].key_size, maps["outer"].value_size) == (4, 4)


def test_keys_and_values_decode_by_btf() -> None:
    """Enumerators and bitfields included."""
    spec = load("maps")
    assert spec.btf is not None
    one = spec.maps["hash"]

    assert spec.btf.decode(one.btf_key_type_id, b"\7\0\0\0bash" + bytes(8)) == {"pid": 7, "comm": "bash"}
    value = (3).to_bytes(8, "little") + (2).to_bytes(4, "little") + (0b1111).to_bytes(4, "little")
    assert spec.btf.decode(one.btf_value_type_id, value) == {"count": 3, "type": "PIDTYPE_PGID", "flags": -1, "rest": 1}


def test_an_object_without_btf() -> None:
    """Legacy maps, data, a static subprogram."""
    spec = load("legacy")

    assert spec.btf is None
    assert spec.btf_bytes == b""
    assert [(m.name, m.map_type, m.key_size, m.value_size, m.max_entries) for m in spec.maps.values()] == [
        ("hash", 1, 4, 8, 16),
        ("array", 2, 4, 8, 1),
        ("legacy.data", 2, 4, 4, 1),
    ]
    program = spec.programs["old"]
    assert [ref.map_name for ref in program.map_refs] == ["legacy.data", "hash", "array"]
    assert [name for _, name in program.subprogs] == ["old", "read"]
    assert len(program.func_info) == len(program.line_info) == 0
    assert spec.relocated("old", default_btf()) == program.insns


def test_externs() -> None:
    """Weak ones are zero, strong symbols keep their program out, options wait for a kernel."""
    spec = load("externs")

    assert spec.skipped == {
        "strong_ksym": "section 'raw_tp/a': kernel symbol 'init_task' (extern __ksym) is not supported",
    }
    assert [name for _, name in spec.programs["strong_kfunc"].kfunc_refs] == ["bpf_rcu_read_lock"]
    weak = spec.programs["weak_ksym"].insns
    address = next(at for at, insn in enumerate(weak) if insn.code == 0x18)
    assert (weak[address].src_reg, weak[address].imm, weak[address + 1].imm) == (0, 0, 0)
    assert any(insn.code == 0x85 and insn.imm >= POISON_CALL_KFUNC_BASE for insn in spec.programs["weak_kfunc"].insns)
    assert spec.maps["externs.kconfig"].initial == bytes(8)
    assert spec.programs["weak_option"].map_refs[0].map_name == "externs.kconfig"
    assert {name: (one.kind.value, one.weak) for name, one in spec.programs["strong_option"].externs.items()} == {
        "CONFIG_HZ": ("kernel option", False)
    }


def stored(insns: list[Insn]) -> dict[int, int]:
    """What a straight-line program stores where: offsets from the map value's address, constants alone are followed."""
    regs: dict[int, int] = {}
    out: dict[int, int] = {}
    at = 0
    while at < len(insns):
        insn = insns[at]
        if insn.code == 0x18:
            is_map = insn.src_reg == BPF_PSEUDO_MAP_VALUE
            regs[insn.dst_reg] = insns[at + 1].imm if is_map else insn.imm & 0xFFFFFFFF | insns[at + 1].imm << 32
            at += 1
        elif insn.code in (0xB7, 0xB4):
            regs[insn.dst_reg] = insn.imm
        elif insn.code == 0xBF:
            regs[insn.dst_reg] = regs.get(insn.src_reg, 0)
        elif insn.code == 0x7B:
            out[(regs[insn.dst_reg] + insn.off) // 8] = regs[insn.src_reg]
        elif insn.code == 0x7A:
            out[(regs[insn.dst_reg] + insn.off) // 8] = insn.imm
        at += 1
    return out


def test_core_relocations_of_a_real_object() -> None:
    """Each relocation kind, resolved against the shipped kernel's types."""
    spec, kernel = load("core"), default_btf()
    pid, comm = kernel.member("task_struct", "pid"), kernel.member("task_struct", "comm")
    nonagle = kernel.member("tcp_sock", "nonagle")
    mapping, auxv = kernel.member("sk_buff", "queue_mapping"), kernel.member("mm_struct", "saved_auxv")

    fields = stored(spec.relocated("fields", kernel))
    assert [fields[i] for i in range(6)] == [pid.offset_bytes, 4, 1, 1, 32, 32]
    assert [fields[i] for i in range(6, 9)] == [comm.offset_bytes + 3, 1, 1]
    shift = 64 - (nonagle.bit_offset - 8 * nonagle.offset_bytes) - nonagle.bitfield_size
    assert [fields[i] for i in range(12, 18)] == [nonagle.offset_bytes, nonagle.size, 1, 0, shift, 64 - nonagle.bitfield_size]
    assert [fields[i] for i in range(18, 22)] == [mapping.offset_bytes, 2, 1, 0]
    assert [fields[i] for i in range(24, 27)] == [auxv.offset_bytes + 8, 8, 1]
    assert fields[30] == 0

    types = stored(spec.relocated("types", kernel))
    assert spec.btf is not None
    assert [types[i] for i in range(32, 42)] == [
        spec.btf.find("task_struct___mine"),
        kernel.find("list_head", BtfKind.STRUCT),
        1, 0, 16, 0, 1, 0, 1, 1,
    ]  # fmt: skip

    enums = stored(spec.relocated("enums", kernel))
    assert [enums[i] for i in range(48, 51)] == [1, 2, 0]

    assert spec.relocated("unguarded", kernel)[0] == Insn(0x85, 0, 0, 0, BPF_CORE_POISON)
    assert spec.core_relo_at("unguarded", 0) == "FIELD_BYTE_OFFSET struct task_struct___mine.not_there"
    assert spec.core_relo_at("unguarded", 1) == spec.core_relo_at("nope", 0) == ""
    loads = [insn for insn in spec.relocated("direct", kernel) if insn.code & 7 == 1]
    weight = kernel.member("task_struct", "se.load.inv_weight")
    assert {insn.off for insn in loads} == {8, pid.offset_bytes, weight.offset_bytes}


def test_programs_that_are_not_there() -> None:
    """The error says why, or what there is."""
    with pytest.raises(ObjectError, match="no program 'nope': the object has on_raw_tp, on_second"):
        load("sections").relocated("nope", default_btf())
    with pytest.raises(ObjectError, match=r"no program .on_xdp.: section .\?xdp.: xdp programs do not run"):
        load("sections").relocated("on_xdp", default_btf())


def test_relocation_leaves_the_spec_alone() -> None:
    """It can be done for several kernels."""
    spec = load("core")
    before = list(spec.programs["direct"].insns)

    spec.relocated("direct", default_btf())

    assert spec.programs["direct"].insns == before


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_shipped_programs_relocate(name: str) -> None:
    """Each parses, names its tracepoints and finds every member that it reads."""
    spec = ObjectSpec.parse(read_object(name), name)

    assert spec.programs
    assert not spec.skipped
    assert spec.license == "GPL"
    assert all(program.attach_name for program in spec.programs.values())
    result = spec.maps[name]
    assert result.btf_key_type_id
    assert result.btf_value_type_id
    for program in spec.programs:
        reads = [insn for insn in spec.relocated(program, default_btf()) if insn.imm == BPF_CORE_POISON]
        # the guarded read of a member that Linux renamed in 5.14 is dead code on 6.1
        assert len(reads) <= (1 if name == "runqlat" else 0)


def test_the_object_of_the_recordings(shared: Path) -> None:
    """13 programs, 8 maps, members of 6.1."""
    data = (shared / "recordings" / "truth.bpf.o").read_bytes()
    spec = ObjectSpec.parse(data, "truth.bpf.o")
    kernel = default_btf()

    assert len(spec.programs) == 13
    assert {name: m.max_entries for name, m in spec.maps.items()} == {
        "switches": 65536, "start": 65536, "runq": 65536, "syscalls": 65536,
        "sysargs": 65536, "sysrets": 65536, "wakeups": 65536, "counts": 64,
    }  # fmt: skip
    insns = spec.relocated("sw", kernel)
    assert insns[12].imm == kernel.member("task_struct", "pid").offset_bytes
    assert insns[113].imm == kernel.member("task_struct", "comm").offset_bytes


def test_elf_tables_of_an_object() -> None:
    """Sections, symbols and relocations as `readelf -SWsr legacy.bpf.o` prints them."""
    elf = ElfFile((DATA / "legacy.bpf.o").read_bytes())
    code = elf.section("raw_tracepoint/sched_switch")
    assert code is not None

    assert [(s.number, s.name, s.type, s.file_offset, s.size, s.flags, s.link, s.info) for s in elf.sections] == LEGACY_SECTIONS
    assert [tuple(symbol) for symbol in elf.symbols] == LEGACY_SYMBOLS
    assert [(r.offset, r.type, r.symbol.name) for r in elf.relocs(code)] == LEGACY_RELOCS
    assert list(elf.relocs(elf.sections[0])) == []
    license_section = elf.section("license")
    assert license_section is not None
    assert license_section.data == b"GPL\0"


def test_symbols_have_binding_visibility_and_no_section() -> None:
    """Weak, hidden and undefined ones."""
    externs = {s.name: s for s in ElfFile((DATA / "globals.bpf.o").read_bytes()).symbols}
    functions = {s.name: s for s in ElfFile((DATA / "subprogs.bpf.o").read_bytes()).symbols}

    assert (externs["CONFIG_PREEMPT"].bind, externs["CONFIG_PREEMPT"].shndx) == (2, 0)
    assert (externs["LINUX_KERNEL_VERSION"].bind, externs["LINUX_KERNEL_VERSION"].shndx) == (1, 0)
    assert (functions["hidden_function"].visibility, functions["global_function"].visibility) == (2, 0)


def test_the_elf_library_is_imported_when_an_object_is_parsed() -> None:
    """And not before."""
    code = "import sys, fastrtp, fastrtp.obj, fastrtp.obj.parse; print('elftools' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
