"""The shipped sources compile to what is shipped, where there is a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

import fastrtp.programs
from fastrtp.btf import default_btf, host_btf
from fastrtp.errors import BtfError, ObjectError
from fastrtp.obj import ObjectSpec
from fastrtp.programs import PROGRAMS, build, read_object

SOURCES = Path(fastrtp.programs.__file__).parent


@pytest.fixture(scope="module")
def command() -> list[str]:
    """The compiler, or a skip."""
    try:
        return build.compiler()
    except build.CompilerError:
        pytest.skip("neither clang nor ziglang")


def test_sources_compile(command: list[str], tmp_path: Path) -> None:
    """The same programs, maps and relocated fields, whatever the compiler's version."""
    sources = []
    for name in PROGRAMS:
        source = tmp_path / f"{name}.bpf.c"
        source.write_text((SOURCES / f"{name}.bpf.c").read_text())
        sources.append(source)

    for name, target in zip(PROGRAMS, build.build(sources, command), strict=True):
        new = ObjectSpec.parse(target.read_bytes(), name)
        old = ObjectSpec.parse(read_object(name), name)
        assert {p.name: p.section for p in new.programs.values()} == {p.name: p.section for p in old.programs.values()}
        assert {m.name: (m.key_size, m.value_size) for m in new.maps.values()} == {
            m.name: (m.key_size, m.value_size) for m in old.maps.values()
        }
        for program in new.programs:
            assert new.relocated(program, default_btf())


def test_a_source_with_an_error(command: list[str], tmp_path: Path) -> None:
    """The compiler's own words, and no object."""
    source = tmp_path / "bad.bpf.c"
    source.write_text("int x = y;\n")

    with pytest.raises(build.CompilerError, match="undeclared identifier 'y'"):
        build.compile_program(source, tmp_path / "bad.bpf.o", command=command)
    assert not (tmp_path / "bad.bpf.o").exists()


def test_programs_relocate_for_the_running_kernel() -> None:
    """Where it shows its BTF: CO-RE finds every member there too."""
    try:
        kernel = host_btf()
    except BtfError:
        pytest.skip("the running kernel offers no BTF")
    for name in PROGRAMS:
        spec = ObjectSpec.parse(read_object(name), name)
        for program in spec.programs:
            assert len(spec.relocated(program, kernel)) == len(spec.programs[program].insns)


STATIC_MAP = """
#define SEC(name) __attribute__((section(name), used))
%s struct {
    int (*type)[2];
    int (*max_entries)[1];
    int *key, *value;
} m SEC(".maps");
SEC("raw_tp/sched_switch") int p(void *ctx) { return m.key != 0; }
char LICENSE[] SEC("license") = "GPL";
"""


def test_a_static_map_is_refused(command: list[str], tmp_path: Path) -> None:
    """libbpf takes global definitions alone, and says what another one is."""
    source = tmp_path / "m.bpf.c"
    source.write_text(STATIC_MAP % "")
    assert list(ObjectSpec.parse(build.build([source], command)[0].read_bytes(), "m").maps) == ["m"]
    source.write_text(STATIC_MAP % "static")

    with pytest.raises(ObjectError, match="map 'm': static, and maps must be global"):
        ObjectSpec.parse(build.build([source], command)[0].read_bytes(), "m")
