"""Compiled programs on disk: the same code again without LLVM or lowering, nothing from a damaged entry, the library too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastrtp.errors import JitError
from fastrtp.isa import assemble, encode
from fastrtp.jit import program
from fastrtp.jit.cache import CachedObject
from fastrtp.jit.lower import LowerInput, find_subprogs
from fastrtp.kernel import Kernel
from fastrtp.native import SMP, compiler, library
from fastrtp.programs import read_object

INSNS = assemble("r0 = 41\nr0 += 1\nexit")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the native library stays where it is."""
    library.library()
    monkeypatch.setenv("FASTRTP_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the compiler."""
    asked: list[str] = []
    inner = compiler.CompileServer.compile

    def compile(self: compiler.CompileServer, job: compiler.Job, what: str = "object") -> compiler.Output:
        asked.append(job.text)
        return inner(self, job, what)

    monkeypatch.setattr(compiler.CompileServer, "compile", compile)
    return asked


def made() -> program.NativeProgram:
    return program.NativeProgram("test", LowerInput(program.ENTRY, INSNS, find_subprogs(INSNS)))


def entry_of(folder: Path) -> Path:
    (found,) = folder.glob("program-*.o")
    return found


def test_the_second_time_nothing_is_lowered_or_compiled(
    folder: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made()
    monkeypatch.setattr(program, "lower", lambda source: pytest.fail("lowered again"))
    second = made()

    assert len(compilations) == 1
    assert second.object() == first.object()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data.replace(b"ELF", b"FLE"), lambda data: b""])
def test_a_damaged_object_is_compiled_again_and_replaced(folder: Path, compilations: list[str], damage: object) -> None:
    made()
    path = entry_of(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))  # type: ignore[operator]
    made()

    assert len(compilations) == 2
    assert path.read_bytes() == whole


@pytest.mark.parametrize("code", [b"", b"\x7fELF\x02\x01" + bytes(100), b"text"])
def test_an_entry_that_is_no_object_is_compiled_again_and_replaced(folder: Path, compilations: list[str], code: bytes) -> None:
    """The checksum is right, and still it does not load."""
    made()
    path = entry_of(folder)
    whole = path.read_bytes()
    program.object_cache().put(path.stem.rpartition("-")[2], CachedObject(code, ()))
    again = made()

    assert len(compilations) == 2
    assert path.read_bytes() == whole
    assert again.entry > 0


def test_the_library_is_rebuilt_when_a_file_of_it_was_changed(tmp_path: Path) -> None:
    """Not loaded: what is in its object would run."""
    source = library.library()
    stem = source.key
    original = source.bitcode_path.parent
    for suffix in ("json", "bc", "o", "verifier.o"):
        (tmp_path / f"{stem}.{suffix}").write_bytes((original / f"{stem}.{suffix}").read_bytes())
    code = (tmp_path / f"{stem}.o").read_bytes()
    for suffix, data in (("o", code[:5000] + b"\xcc" + code[5001:]), ("bc", b"")):
        held = (tmp_path / f"{stem}.{suffix}").read_bytes()
        (tmp_path / f"{stem}.{suffix}").write_bytes(data)
        with pytest.raises(JitError, match="damaged"):
            library.NativeLibrary(tmp_path, stem, {SMP: 1})
        (tmp_path / f"{stem}.{suffix}").write_bytes(held)

    assert library.NativeLibrary(tmp_path, stem, {SMP: 1}).parameters == source.parameters


def test_a_loaded_object_is_whole_when_load_returns(folder: Path, compilations: list[str]) -> None:
    """Its programs are compiled side by side; each is there at the end."""
    with Kernel(cpus=1) as kernel:
        with kernel.load(read_object("syscount"), name="syscount.bpf.o") as loaded:
            programs = list(loaded.programs.values())
            assert all(one.prog.native.is_ready for one in programs)
            assert not kernel.compiles_later
        assert len(compilations) == len(programs) > 1
        with kernel.load(read_object("syscount"), name="syscount.bpf.o") as loaded:
            assert [one.prog.native.object() for one in loaded.programs.values()] != []
        assert len(compilations) == len(programs)


def test_what_the_compiler_refuses_names_the_program_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, job: object, what: str = "object") -> compiler.Output:
        raise JitError("no")

    with Kernel(cpus=1) as kernel:
        allocated = kernel.memory.arena.allocated
        monkeypatch.setattr(compiler.CompileServer, "compile", refuse)
        with pytest.raises(JitError, match=r"load program .*: no"):
            kernel.load(read_object("syscount"), name="syscount.bpf.o")
        with pytest.raises(JitError, match="no"):
            kernel.prog_load(17, encode(INSNS))

        assert (len(kernel.progs), len(kernel.maps), kernel.memory.arena.allocated) == (0, 0, allocated)


SCRIPT = """
import sys, fastrtp
from fastrtp.programs import read_object
with fastrtp.Kernel(cpus=1) as kernel:
    with kernel.load(read_object("runqlat"), name="runqlat.bpf.o") as loaded:
        print(sorted(loaded.programs))
print(sorted({"llvmlite", "numba"} & set(sys.modules)))
"""


def test_two_processes_fill_one_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both load the same object at once, from nothing; afterwards everything is there, and LLVM in neither of them."""
    for suffix in ("json", "bc", "o", "verifier.o"):
        original = library.library().bitcode_path.with_suffix(f".{suffix}")
        (folder / original.name).write_bytes(original.read_bytes())
    command = [sys.executable, "-c", SCRIPT]
    pair = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [(*one.communicate(timeout=120), one.returncode) for one in pair]
    names = {path.name.partition("-")[0] for path in folder.iterdir()}

    assert [(error, status) for _, error, status in results] == [("", 0)] * 2
    assert results[0][0] == results[1][0]
    assert results[0][0].splitlines()[1] == "[]"
    assert {"program", "verified", "btf", "native"} <= names
