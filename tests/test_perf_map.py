"""What profilers are told: perf-PID.map and jit-PID.dump."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastrtp.programs
from fastrtp.cli import main
from fastrtp.isa import assemble, encode
from fastrtp.jit.unverified import Compiled
from fastrtp.kernel import Kernel
from fastrtp.kernel.objects.kallsyms import prog_symbol
from fastrtp.native.perf_map import ENVIRONMENT, PerfMap, requested
from fastrtp.record.demo import demo_recording

RUNQLAT = Path(fastrtp.programs.__file__).parent / "runqlat.bpf.o"
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="perf is Linux's")


def rows(path: Path) -> dict[str, tuple[int, int]]:
    """(address, bytes) by name."""
    found = {}
    for line in path.read_text().splitlines():
        address, size, name = line.split(" ", 2)
        found[name] = int(address, 16), int(size, 16)
    return found


def records(data: bytes) -> list[tuple[int, bytes]]:
    """(kind, body) of each record of a dump."""
    at, found = 40, []
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        found.append((kind, data[at + 16 : at + size]))
        at += size
    return found


def test_the_map_names_functions(tmp_path: Path) -> None:
    """The program under the name asked for; functions of which only the address is known reach to the next."""
    native = Compiled(encode(assemble("r0 = r2\nr0 *= 5\nexit"))).native
    perf_map = PerfMap(tmp_path)
    native.profile(perf_map, {"bpf_prog": "five times"})
    perf_map.add_symbols({"a": 0x1000, "b": 0x1010, "c": 0x90000})
    found = rows(tmp_path / f"perf-{os.getpid()}.map")

    assert found["five times"][0] == native.entry
    assert 4 < found["five times"][1] < 100
    assert found["a"] == (0x1000, 0x10)
    assert found["b"] == (0x1010, 0x10000)
    assert not perf_map.dump_path.exists()


def test_the_dump_has_code_and_lines(tmp_path: Path) -> None:
    """Header, debug information before the code that it is about, and each code's number its own."""
    native = Compiled(encode(assemble("r0 = r2\nr0 *= 7\nexit"))).native
    perf_map = PerfMap(tmp_path, dump=True)
    native.profile(perf_map, {"bpf_prog": "seven"}, [(native.entry, "seven.c", 12), (native.entry - 9, "other.c", 1)])
    native.profile(perf_map, {"bpf_prog": "again"})
    data = perf_map.dump_path.read_bytes()
    (kind, debug), (loaded, first), (_, second) = records(data)
    pid, _tid, vma, address, size, number = struct.unpack_from("<IIQQQQ", first)

    assert struct.unpack_from("<III", data) == (0x4A695444, 1, 40)
    assert struct.unpack_from("<I", data, 20) == (os.getpid(),)
    assert (kind, loaded) == (2, 0)
    assert debug == struct.pack("<QQQii", native.entry, 1, native.entry, 12, 0) + b"seven.c\0"
    assert (pid, vma, address) == (os.getpid(), native.entry, native.entry)
    assert first[40:] == b"seven\0" + ctypes.string_at(native.entry, size)
    assert number != struct.unpack_from("<IIQQQQ", second)[5]


def test_files_of_an_earlier_process_are_not_added_to(tmp_path: Path) -> None:
    """Process numbers come again; two kernels of one process share the files."""
    path = tmp_path / f"perf-{os.getpid()}.map"
    path.write_text("1 1 old\n")
    os.utime(path, (1, 1))
    PerfMap(tmp_path).add_symbols({"a": 0x1000})
    PerfMap(tmp_path).add_symbols({"b": 0x1000})

    assert rows(path).keys() == {"a", "b"}


@pytest.mark.parametrize(("value", "asked"), [(None, ""), ("", ""), ("0", ""), ("1", "map"), ("dump", "dump")])
def test_the_environment_asks(value: str | None, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FASTRTP_PERF_MAP."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    if value is not None:
        monkeypatch.setenv(ENVIRONMENT, value)

    assert requested() == asked


def test_replay_tells_perf_when_asked() -> None:
    """--perf-map, before or after the names of the files."""
    done = CliRunner().invoke(main, ["replay", "--perf-map", str(RUNQLAT), str(demo_recording()), "--format", "json"])
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    try:
        names = rows(path)
    finally:
        path.unlink(missing_ok=True)

    assert done.exit_code == 0
    assert any(name.startswith("bpf_prog_") and name.endswith("_on_switch") for name in names)


def test_a_kernel_names_its_programs_as_kallsyms_does() -> None:
    """And the trampolines and helpers of the native library. Without being asked it writes nothing."""
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    assert not path.exists()
    with Kernel() as kernel, kernel.load(RUNQLAT):
        assert not path.exists()
    try:
        with Kernel(perf_map=True) as kernel, kernel.load(RUNQLAT) as loaded:
            prog = loaded.programs["on_wakeup"].prog
            found = rows(path)

            assert found[prog_symbol(prog)][0] == prog.native.entry
            assert found["bpf_trace_run3"][0] == kernel.kallsyms.lookup_name("bpf_trace_run3")
    finally:
        path.unlink(missing_ok=True)
