"""From C to an object: what is compiled, with what, and what is kept of it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

import fastrtp
import fastrtp.programs
from fastrtp.btf import BtfWriter, default_btf, host_btf
from fastrtp.btf.core import describe
from fastrtp.cc import Compiled, Compiler, compile_source, find_compiler, header_folder, write_headers
from fastrtp.cc.compiler import zig_compiler
from fastrtp.cc.headers import helper_defs_h, vmlinux_h
from fastrtp.cc.strip import strip_debug
from fastrtp.cli import main
from fastrtp.errors import BtfError, CompilerError, ObjectError, ObjectWarning
from fastrtp.helpers.signatures import SIGNATURES
from fastrtp.helpers.table import HELPERS
from fastrtp.isa import FUNC_NAMES
from fastrtp.obj import ObjectSpec
from fastrtp.programs import PROGRAMS, read_object

PACKAGE = Path(fastrtp.__file__).parent
SOURCES = Path(fastrtp.programs.__file__).parent
WORDS = Path(__file__).parent / "data/cc/words.bpf.c"
RECORDING = PACKAGE / "record/data/churn.trace.dat"

PROGRAM = """#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
%s
char LICENSE[] SEC("license") = "GPL";
int runs;
SEC("tp_btf/sched_switch")
int BPF_PROG(p, bool preempt, struct task_struct *prev) { runs += 1; return VALUE; }
"""


def compilers() -> list[Compiler]:
    """The system's clang, and zig's: those that are here."""
    found = [zig_compiler()]
    with contextlib.suppress(CompilerError):
        found.append(find_compiler())
    return list({one.name: one for one in found if one is not None}.values())


COMPILERS = compilers()
needs_compiler = pytest.mark.skipif(not COMPILERS, reason="neither clang nor ziglang")
pytestmark = needs_compiler
each_compiler = pytest.mark.parametrize("compiler", COMPILERS, ids=lambda one: one.name)


def write(folder: Path, text: str, name: str = "p.bpf.c") -> Path:
    """A source in a folder that is made for it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def relocations(data: bytes, name: str) -> dict[str, Counter[str]]:
    """What CO-RE is asked for each program."""
    spec = ObjectSpec.parse(data, name)
    assert spec.btf is not None
    return {one.name: Counter(describe(relo, spec.btf) for relo in one.core_relos) for one in spec.programs.values()}


@each_compiler
def test_shipped_programs_compile_to_what_is_shipped(compiler: Compiler) -> None:
    """The same programs, maps and relocated members, whatever the compiler."""
    for name in PROGRAMS:
        data = compile_source(SOURCES / f"{name}.bpf.c", compiler=compiler, flags=["-mcpu=v1"]).data
        new, old = ObjectSpec.parse(data, name), ObjectSpec.parse(read_object(name), name)

        assert {p.name: p.section for p in new.programs.values()} == {p.name: p.section for p in old.programs.values()}
        assert {m.name: (m.key_size, m.value_size) for m in new.maps.values()} == {
            m.name: (m.key_size, m.value_size) for m in old.maps.values()
        }
        assert relocations(data, name) == relocations(read_object(name), name)
        for program in new.programs:
            assert new.relocated(program, default_btf())


@each_compiler
def test_compiled_programs_count_what_the_shipped_ones_count(compiler: Compiler) -> None:
    """Compiled for another instruction set, by another compiler: the maps after a replay are the same."""
    found = []
    for source in (read_object("runqlat"), compile_source(SOURCES / "runqlat.bpf.c", compiler=compiler).data):
        with fastrtp.Kernel() as kernel, kernel.load(source, name="runqlat") as obj, obj.attach():
            kernel.replay(RECORDING)
            found.append(dict(obj.maps["runqlat"].items()))

    assert found[0] == found[1]
    assert len(found[0]) > 20


@each_compiler
def test_every_word_of_the_headers(compiler: Compiler) -> None:
    """What two macros have to agree on agrees in every event, loops run as often as they say, arguments are where they are."""
    data = compile_source(WORDS, compiler=compiler)
    with fastrtp.Kernel() as kernel, kernel.load(data.data, name="words", strict=False) as obj, obj.attach():
        kernel.replay(RECORDING)
        runs, different, total, rounds, each, repeats, calls, parm1 = (value for _, value in obj.maps["counters"].items())
        bloom = obj.maps["bloom"].spec.map_extra

    assert data.diagnostics == ""
    assert (runs, different) == (5069, 0)
    assert (total, rounds, each, repeats) == (sum(range(7)) * runs, 10 * runs, (3 + 4 + 5) * runs, 4 * runs)
    assert (calls, parm1) == (13_654, 0)
    assert bloom == 3


def test_headers_give_what_libbpfs_give() -> None:
    """Where libbpf's headers are installed: the same relocations, and all but the same instructions."""
    if not Path("/usr/include/bpf/bpf_tracing.h").exists() or shutil.which("clang-19") is None:
        pytest.skip("no libbpf, or no clang-19")
    headers = header_folder(default_btf())
    for name in ("runqlat", "syscount", "switches"):
        source = SOURCES / f"{name}.bpf.c"
        command = ["clang-19", "-target", "bpf", "-O2", "-g", "-mcpu=v3", "-D__TARGET_ARCH_x86", "-c", str(source), "-o", "-"]
        # vmlinux.h alone from the package
        links = headers.parent / "libbpf-test"
        links.mkdir(exist_ok=True)
        shutil.copy(headers / "vmlinux.h", links / "vmlinux.h")
        theirs = subprocess.run([*command, f"-I{links}"], capture_output=True, check=True).stdout
        ours = compile_source(source).data

        assert relocations(ours, name) == relocations(theirs, name)
        ours_spec, their_spec = ObjectSpec.parse(ours, name), ObjectSpec.parse(theirs, name)
        if "19." in subprocess.run(["clang-19", "--version"], capture_output=True, text=True, check=True).stdout:
            assert {p.name: p.insns for p in ours_spec.programs.values()} == {
                p.name: p.insns for p in their_spec.programs.values()
            }


def test_every_helper_has_a_signature() -> None:
    """One row a helper, in order, with as many parameters as the verifier looks at."""
    names = [re.match(r".*?\W(\w+)\(", row) for row in SIGNATURES]
    assert [found[1] for found in names if found] == list(FUNC_NAMES[1:])
    for number, row in enumerate(SIGNATURES, 1):
        parameters = row.partition("(")[2].rstrip(")").split(", ")
        count = 0 if parameters == ["void"] else len([one for one in parameters if one != "..."])
        if HELPERS[number].proto:
            assert len(HELPERS[number].args) <= count, row
    assert "static long (*const bpf_map_pop_elem)(void *map, void *value) = (void *)88;" in helper_defs_h()


def test_helpers_of_the_header_are_called_by_their_numbers(tmp_path: Path) -> None:
    """A call of each helper that takes nothing is the call of its number."""
    plain = [number for number, row in enumerate(SIGNATURES, 1) if row.endswith("(void)")]
    calls = "".join(f"\tsum += (unsigned long)bpf_{FUNC_NAMES[number]}();\n" for number in plain)
    source = '#include "vmlinux.h"\n#include <bpf/bpf_helpers.h>\n' + (
        f'SEC("raw_tp/sched_switch") int p(void *ctx)\n{{\n\tunsigned long sum = 0;\n{calls}\treturn sum;\n}}\n'
    )

    spec = ObjectSpec.parse(compile_source(write(tmp_path, source)).data, "p")

    assert [insn.imm for insn in spec.programs["p"].insns if insn.code == 0x85] == plain


def test_linux_bpf_h_is_enough_for_those_who_do_not_use_vmlinux_h(tmp_path: Path) -> None:
    """The types of bpf(2), whole numbers, registers; and vmlinux.h may be included, too, first."""
    source = """%s#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); } m SEC(".maps");
SEC("raw_tp/sys_enter")
int p(struct bpf_raw_tracepoint_args *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
	__u32 key = sizeof(struct __sk_buff) + sizeof(*regs);
	__u64 value = BPF_F_CURRENT_CPU;
	return bpf_map_update_elem(&m, &key, &value, BPF_ANY);
}
"""
    for first in ("", '#include "vmlinux.h"\n'):
        found = compile_source(write(tmp_path, source % first))
        assert list(ObjectSpec.parse(found.data, "p").programs) == ["p"]


def test_errors_have_their_numbers(tmp_path: Path) -> None:
    """Where sources look for them, with and without a C library."""
    for header in ("errno.h", "linux/errno.h", "asm/errno.h", "asm-generic/errno.h"):
        text = f'#include "vmlinux.h"\n#include <{header}>\n_Static_assert(EEXIST == 17 && ENOTSUPP == 524, "");\n'
        assert compile_source(write(tmp_path, text)).diagnostics == ""


def test_vmlinux_h_has_what_programs_may_use_and_older_kernels_did_not_have() -> None:
    """Objects and map types of later kernels, for types of Linux 6.1."""
    assert default_btf().find("bpf_rb_root") is None
    text = vmlinux_h(default_btf())
    assert "struct bpf_rb_root { unsigned long long __opaque[2]; } __attribute__((aligned(8)));" in text
    assert "\tBPF_MAP_TYPE_CGRP_STORAGE = 32," in text
    assert text.count("struct bpf_timer {") == 1


def test_vmlinux_h_is_that_of_the_types_in_use(tmp_path: Path) -> None:
    """A struct that only some kernel has is there for it, and for no other."""
    writer = BtfWriter()
    integer = writer.add_int("int", 4, 1)
    writer.add_struct("only_here", 4, [("x", integer, 0)])
    btf = fastrtp.btf.Btf.parse(writer.dump())
    source = write(tmp_path, '#include "vmlinux.h"\nint f(struct only_here *p) { return p->x; }\n')

    assert compile_source(source, btf).data
    with pytest.raises(CompilerError, match="incomplete definition of type 'struct only_here'"):
        compile_source(source)


@each_compiler
def test_objects_say_nothing_of_the_machine(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same source in two folders, with two caches and two places of its own headers: the same bytes, and no path in them."""
    found = []
    for where in ("one", "two/deeper"):
        folder = tmp_path / where
        write(folder / "include", "#define VALUE extra(1)\nstatic inline int extra(int x) { return x * 3; }\n", "value.h")
        source = write(folder / "source", PROGRAM % "#include <value.h>")
        monkeypatch.setenv("FASTRTP_CACHE", str(folder / "cache"))
        monkeypatch.chdir(folder)
        paths = (source, source.relative_to(folder))
        found += [compile_source(path, include=[folder / "include"], compiler=compiler).data for path in paths]

    assert len(set(found)) == 1
    for part in (str(tmp_path), str(Path.home()), "/usr/", sys.prefix):
        assert part.encode() not in found[0]
    assert b"p.bpf.c" in found[0]


ROOT = Path(__file__).parents[1]
OBJECTS = [path for folder in ("fastrtp", "bench", "tests") for path in sorted((ROOT / folder).rglob("*.o"))]


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_no_object_of_the_project_says_where_it_was_made(path: Path) -> None:
    """No absolute path in types, lines or debug information."""
    assert re.findall(rb"/(?:home|root|usr|tmp|work|build|opt)/[\w./-]*", path.read_bytes()) == []


def test_an_object_is_kept_as_long_as_nothing_changes(tmp_path: Path) -> None:
    """Source, flags, an included header, a header that is found earlier: each makes another object."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    write(two, "#define VALUE 1\n", "value.h")
    source = write(tmp_path / "source", PROGRAM % "#include <value.h>")

    def compiled(*flags: str) -> Compiled:
        return compile_source(source, include=[one, two], flags=flags)

    first = compiled()
    assert not first.cached
    assert compiled().cached
    assert not compiled("-DMORE").cached
    write(two, "#define VALUE 2\n", "value.h")
    second = compiled()
    assert not second.cached
    assert second.data != first.data
    write(one, "#define VALUE 3\n", "value.h")
    third = compiled()
    assert not third.cached
    assert third.data != second.data
    (one / "value.h").unlink()
    assert compiled().data == second.data
    source.write_text(source.read_text() + "int more;\n")
    assert not compiled().cached


def test_a_header_beside_the_source_goes_before_the_packages(tmp_path: Path) -> None:
    """Whoever has a vmlinux.h of their own gets it, also where the object without it was kept."""
    source = write(tmp_path, '#include "vmlinux.h"\nint x = sizeof(struct task_struct);\n')
    first = compile_source(source)
    write(tmp_path, "struct task_struct { int pid; };\n", "vmlinux.h")
    second = compile_source(source)

    assert not second.cached
    assert second.data != first.data


@each_compiler
def test_a_source_with_an_error(compiler: Compiler, tmp_path: Path) -> None:
    """The compiler's own words, with the line; nothing is kept."""
    source = write(tmp_path, "int x = y;\n")

    for _ in range(2):
        with pytest.raises(CompilerError, match="undeclared identifier 'y'") as caught:
            compile_source(source, compiler=compiler)
        assert caught.value.summary == f"{source}: 1 error"
        assert caught.value.diagnostics.startswith("p.bpf.c:1:9: error: ")


def test_warnings_are_said_each_time(tmp_path: Path) -> None:
    """Also when the object was there already; a kernel warns with them."""
    source = write(tmp_path, PROGRAM % "#define VALUE 0 * ({ int unused_one; 1; })")

    assert "unused variable 'unused_one'" in compile_source(source).diagnostics
    again = compile_source(source)
    assert again.cached
    assert "unused variable 'unused_one'" in again.diagnostics
    with fastrtp.Kernel() as kernel, pytest.warns(ObjectWarning, match="unused variable 'unused_one'"):
        kernel.load(source).close()


def test_a_source_is_taken_where_an_object_is(tmp_path: Path) -> None:
    """Open, load, name; a source that is not there is an error of its own."""
    source = write(tmp_path, PROGRAM % "#define VALUE 0")
    with fastrtp.Kernel() as kernel:
        with kernel.load(source) as obj, obj.attach():
            kernel.replay(RECORDING)
            assert obj.bss.runs == 5069
            assert obj.name == "p"
        opened = kernel.open(str(source))
        assert list(opened.programs) == ["p"]
        with pytest.raises(ObjectError, match=r"nowhere\.bpf\.c: no such file or directory"):
            kernel.load(tmp_path / "nowhere.bpf.c")


def test_flags_of_a_source(tmp_path: Path) -> None:
    """`// build:` lines are the source's own flags; the caller's come last."""
    source = write(tmp_path, "// build: -DVALUE=4 -Werror\n" + PROGRAM % '_Static_assert(VALUE == 4, "");')

    assert compile_source(source).data
    with pytest.raises(CompilerError, match="VALUE"):
        compile_source(source, flags=["-DVALUE=5"])


def test_without_a_compiler_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clang on the path, no ziglang: what to install."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    find_compiler.cache_clear()
    try:
        with pytest.raises(CompilerError, match=r"no compiler for BPF.*pip install 'fastrtp\[cc\]'"):
            find_compiler()
    finally:
        find_compiler.cache_clear()


def test_a_clang_without_the_target_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was built for is asked, not tried."""
    fake = write(tmp_path, '#!/bin/sh\necho "  Registered Targets:"\necho "    x86-64 - 64-bit X86"\n', "clang")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if os.path.exists("/bin/sh") else str(tmp_path))
    monkeypatch.setattr("fastrtp.cc.compiler.CLANGS", ("clang",))
    find_compiler.cache_clear()
    try:
        if zig_compiler() is not None:
            assert find_compiler().name == "ziglang"
        else:
            with pytest.raises(CompilerError, match="clang has no BPF target"):
                find_compiler()
    finally:
        find_compiler.cache_clear()


def test_stripped_objects_are_the_same_but_for_dwarf(tmp_path: Path) -> None:
    """Programs, maps and types of an object are what they were, and what is no object stays as it is."""
    if shutil.which("clang-19") is None:
        pytest.skip("no clang to make an object with DWARF")
    source = write(tmp_path, PROGRAM % "#define VALUE 0")
    target = tmp_path / "p.o"
    headers = header_folder(default_btf())
    command = ["clang-19", "-target", "bpf", "-O2", "-g", "-isystem", str(headers), "-c", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    whole = target.read_bytes()
    stripped = strip_debug(whole)
    one, two = (ObjectSpec.parse(data, "p") for data in (whole, stripped))

    assert b".debug_info\0" in whole
    assert len(stripped) < len(whole) / 2
    assert one.programs["p"].insns == two.programs["p"].insns
    assert one.btf_bytes == two.btf_bytes
    assert strip_debug(stripped) == stripped
    assert strip_debug(b"no object") == b"no object"


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


def test_a_static_map_is_refused(tmp_path: Path) -> None:
    """libbpf takes global definitions alone, and says what another one is."""
    assert list(ObjectSpec.parse(compile_source(write(tmp_path, STATIC_MAP % "")).data, "m").maps) == ["m"]

    with pytest.raises(ObjectError, match="map 'm': static, and maps must be global"):
        ObjectSpec.parse(compile_source(write(tmp_path, STATIC_MAP % "static")).data, "m")


# on the command line


def run(*args: object) -> tuple[int, str, str]:
    """(status, standard output, standard error)"""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_cc_writes_beside_the_source_or_where_it_is_told(tmp_path: Path) -> None:
    """A file, a folder of them, and macros and headers from the command line."""
    source = write(tmp_path / "all", PROGRAM % "#include <value.h>")
    write(tmp_path / "all", PROGRAM % "#define VALUE 0", "q.bpf.c")
    write(tmp_path / "include", "#define VALUE GIVEN\n", "value.h")
    options = ("-I", tmp_path / "include", "-D", "GIVEN=7")

    status, out, err = run("cc", source, "-o", tmp_path / "out.o", *options)
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'out.o'}: ")
    assert run("cc", tmp_path / "all", *options)[0] == 0
    assert (tmp_path / "all/p.bpf.o").read_bytes() == (tmp_path / "out.o").read_bytes()
    assert list(ObjectSpec.parse((tmp_path / "all/q.bpf.o").read_bytes(), "q").programs) == ["p"]


def test_cc_says_what_the_compiler_says(tmp_path: Path) -> None:
    """Its diagnostics as they are, then one line; nothing is written."""
    source = write(tmp_path, "int x = y;\n")

    status, out, err = run("cc", source)
    lines = err.splitlines()

    assert (status, out) == (1, "")
    assert lines[0].startswith("p.bpf.c:1:9: error: ")
    assert lines[-1] == f"fastrtp: {source}: 1 error"
    assert not (tmp_path / "p.bpf.o").exists()
    assert run("cc", tmp_path / "nowhere.bpf.c")[0] == 1
    assert run("cc")[0] == 2
    assert run("cc", source, source, "-o", "x.o")[0] == 2


def test_cc_gives_headers_to_other_compilers(tmp_path: Path) -> None:
    """The folder is all that a compiler needs."""
    status, _, _ = run("cc", "--headers", tmp_path / "include")
    assert status == 0
    write_headers(tmp_path / "again", default_btf())
    for file in (tmp_path / "again").rglob("*.h"):
        assert (tmp_path / "include" / file.relative_to(tmp_path / "again")).read_text() == file.read_text()
    source = write(tmp_path, PROGRAM % "#define VALUE 0")
    command = [*COMPILERS[0].command, "-O2", "-g", f"-I{tmp_path / 'include'}", "-c", str(source), "-o", str(tmp_path / "p.o")]
    subprocess.run(command, check=True)
    assert list(ObjectSpec.parse((tmp_path / "p.o").read_bytes(), "p").programs) == ["p"]


def test_commands_take_sources(tmp_path: Path) -> None:
    """replay, check, verify, dump, prog: a .bpf.c is as good as a .bpf.o."""
    source = write(tmp_path, PROGRAM % "#define VALUE 0")
    for args, words in (
        (("replay", source, RECORDING), "5,069"),
        (("check", source, RECORDING), "sched_switch"),
        (("verify", source), "accepted"),
        (("dump", source), "exit"),
        (("prog", "-o", source, "show"), "name p"),
    ):
        status, out, err = run(*args)
        assert status == 0, err
        assert words in out


def test_btf_dump_file(tmp_path: Path) -> None:
    """Of an object, of a kernel's types, as C and as a list; what has none is an error."""
    types = PACKAGE / "btf/data/vmlinux-6.1.btf.zst"
    status, out, _ = run("btf", "dump", "file", types, "format", "c")
    assert status == 0
    assert out.rstrip("\n") == fastrtp.btf.dump.dump_header(default_btf()).rstrip("\n")
    status, out, _ = run("btf", "dump", "file", SOURCES / "runqlat.bpf.o")
    assert status == 0
    assert "STRUCT 'hist' size=160" in out
    assert out.splitlines()[0].startswith("[1] ")
    status, _, err = run("btf", "dump", "file", WORDS)
    assert status == 1
    assert err.startswith(f"fastrtp: {WORDS}: ")
