"""The verifier's own cases (tests/data/verifier): accepted, or refused at the instruction that says so."""

from __future__ import annotations

import errno as errnos
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import static_funcs

from fastrtp.btf import default_btf
from fastrtp.errors import ENOTSUPP, BpfError, VerifierError
from fastrtp.isa import Insn, assemble, decode
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType, BpfProgType
from fastrtp.verifier import AttachTarget, LoadAttr, VerifiedProgram, bpf_check

ERRNO = {**errnos.errorcode, ENOTSUPP: "ENOTSUPP"}
DATA = Path(__file__).parent / "data" / "verifier"
_TYPES = {"raw_tp": BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, "raw_tp.w": BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT_WRITABLE}


@dataclass
class CaseMap:
    """A map as the data files' README lists it."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int = 0
    frozen: bool = False
    data: bytes = b""
    name: str = ""

    def read_value(self, offset: int, size: int) -> bytes:
        return self.data.ljust(self.value_size, b"\0")[offset : offset + size]


T = BpfMapType
MAPS = {
    1: CaseMap(T.BPF_MAP_TYPE_HASH, 8, 48, 16),
    2: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 48, 2),
    3: CaseMap(T.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096),
    4: CaseMap(T.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 4),
    5: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG, True, b"%d %s"),
    6: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_WRONLY_PROG),
    7: CaseMap(T.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 16, 1),
    8: CaseMap(T.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 1),
    9: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1),
    10: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG, True, b"x" * 16),
    11: CaseMap(T.BPF_MAP_TYPE_ARRAY, 4, 16, 2, BPF_F_RDONLY_PROG, True),
    12: CaseMap(T.BPF_MAP_TYPE_STACK_TRACE, 4, 64, 16),
    13: CaseMap(T.BPF_MAP_TYPE_USER_RINGBUF, 0, 0, 4096),
}


@dataclass
class Case:
    """One program: settings, text, and the error with its instruction index."""

    name: str
    settings: dict[str, str]
    insns: list[Insn]
    errno: str = ""
    message: str = ""
    place: int = -1


def _cases() -> Iterator[Case]:
    for path in sorted(DATA.glob("*.txt")):
        for block in re.split(r"^;; ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, body = block.split("\n", 1)
            name, *settings = (part.strip() for part in title.split("|"))
            case = Case(f"{path.stem}: {name}", dict(part.split("=", 1) for part in settings), [])
            yield _parse(case, body)


def _parse(case: Case, body: str) -> Case:
    """Raw slots are assembled as placeholders and put in afterwards; the place is found by assembling what is before."""
    lines, raw, slot = [], {}, 0
    for line in body.splitlines():
        code = line.split(";")[0].strip()
        expected = re.search(r"; (E\w+) (.*)", line)
        if expected:
            case.errno, case.message, case.place = expected[1], expected[2].strip(), slot
        if code.startswith("raw "):
            raw[slot] = decode(bytes.fromhex(code[4:]))[0]
            code = "r0 = 0"
        lines.append(code)
        if code and not code.endswith(":"):
            slot += 2 if "map[" in code or code.endswith(" ll") or "subprog[" in code else 1
    case.insns = assemble("\n".join(lines))
    for index, insn in raw.items():
        case.insns[index] = insn
    return case


def fd_to_map(fd: int) -> CaseMap:
    if fd not in MAPS:
        raise BpfError(errnos.EBADF)
    return MAPS[fd]


def load(case: Case, log_level: int = 1) -> VerifiedProgram:
    kind, _, name = case.settings.get("type", "raw_tp").partition(":")
    btf = default_btf()
    attach = AttachTarget(name, btf.find(f"btf_trace_{name}") or 0) if name else None
    prog_type = BpfProgType.BPF_PROG_TYPE_TRACING if name else _TYPES[kind]
    return bpf_check(
        LoadAttr(
            prog_type,
            case.insns,
            fd_to_map,
            license=case.settings.get("license", "GPL"),
            prog_flags=int(case.settings.get("flags", "0")),
            attach=attach,
            kernel_btf=btf,
            log_level=log_level,
            btf=static_funcs.btf(),
            func_info=static_funcs.func_info(case.insns),
            nr_cpu_ids=int(case.settings.get("cpus", "8")),
        )
    )


CASES = list(_cases())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    """The verdict, the errno, the last line of the log and the instruction are those of the case."""
    if not case.errno:
        program = load(case)
        assert len(program.insns) == len(case.insns)
        if "ctx" in case.settings:
            assert program.max_ctx_offset == int(case.settings["ctx"])
        if "processed" in case.settings:
            assert program.verified_insns == int(case.settings["processed"])
        return
    with pytest.raises(VerifierError) as caught:
        load(case)
    lines = [line for line in caught.value.log.splitlines() if line]
    places = [int(match[1]) for line in lines if (match := re.match(r"(\d+): \(", line))]

    assert caught.value.strerror == case.message
    assert ERRNO.get(caught.value.errno, "") == case.errno
    assert lines[-2] == case.message
    assert lines[-1].startswith("processed ")
    if places and "tail_calls are not" not in case.message and "not eliminated" not in case.message and case.errno != "E2BIG":
        assert places[-1] == case.place


def test_log_levels() -> None:
    """Level 0 has no log; level 2 shows every instruction with the registers that it changed."""
    case = next(case for case in CASES if case.name == "func: a call and its result")

    assert load(case, 0).log == ""
    assert load(case, 1).log.startswith("processed 6 insns")
    text = load(case, 2).log
    assert "0: (b7) r1 = 5" in text
    assert re.search(r"r0 \+= 1 +; frame1: R0=6", text)


def test_facts_for_the_code_generator() -> None:
    """Kinds of memory, the one map of a call, callbacks, and code that no path reaches."""
    text = """
        r6 = *(u64 *)(r1 +16)
        *(u64 *)(r10 -8) = 0
        r1 = map[fd:1]
        r2 = r10
        r2 += -8
        call bpf_map_lookup_elem
        if r0 == 0 goto out
        r1 = *(u64 *)(r0 +0)
        r1 = 4
        r2 = subprog[pc+9]
        r3 = 0
        r4 = 0
        call bpf_loop
        r7 = 1
        if r7 == 1 goto out
        r7 = 2
        out:
        r0 = 0
        exit
        r0 = 0
        exit
    """
    program = load(Case("", {}, assemble(text)))
    kinds = [aux.access for aux in program.aux]

    assert (kinds[0], kinds[1], kinds[8]) == ("ctx", "stack", "map_value")
    assert program.aux[6].map == 0
    assert program.aux[14].callback == 20
    assert [i for i, aux in enumerate(program.aux) if not aux.seen] == [3, 11, 17]
    assert [(s.start, s.end, s.stack_depth, s.is_cb) for s in program.subprogs] == [(0, 20, 8, False), (20, 22, 0, True)]
    assert program.used_maps == [MAPS[1]]
    assert program.max_ctx_offset == 24


def test_tp_buffer_end() -> None:
    """The highest byte of the buffer that a writable program touches is known."""
    case = next(case for case in CASES if case.name == "ctx: the buffer of a writable tracepoint")

    assert load(case).max_tp_access == 16


def test_empty_program() -> None:
    """A program needs at least one instruction."""
    with pytest.raises(VerifierError) as caught:
        load(Case("", {}, []))

    assert caught.value.errno == errnos.E2BIG


def test_callbacks_need_func_info() -> None:
    """A function's address may be taken only where the program's BTF says that the function is static."""
    case = next(case for case in CASES if case.name == "func: bpf_loop")
    attr = LoadAttr(_TYPES["raw_tp"], case.insns, fd_to_map)
    with pytest.raises(VerifierError, match="missing btf func_info"):
        bpf_check(attr)


def test_program_type() -> None:
    """Programs of other types are refused by their number."""
    with pytest.raises(VerifierError, match="program type 2 is not supported"):
        bpf_check(LoadAttr(BpfProgType.BPF_PROG_TYPE_KPROBE, assemble("r0 = 0\nexit"), fd_to_map))
