"""The engine and the compiler's own routines."""

from __future__ import annotations

import ast
import concurrent.futures
import ctypes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.errors import JitError
from fastrtp.native import compiler, compiler_rt, engine, library
from fastrtp.native.module import NativeModule

WORDS = st.integers(0, 2**64 - 1)
HIGH = st.just(0) | WORDS
_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)

CALLS = """
define void @divide(ptr %n, ptr %d, ptr %out) {
  %a = load i128, ptr %n, align 8
  %b = load i128, ptr %d, align 8
  %q = udiv i128 %a, %b
  %r = urem i128 %a, %b
  store i128 %q, ptr %out, align 8
  %more = getelementptr i8, ptr %out, i64 16
  store i128 %r, ptr %more, align 8
  ret void
}
"""


@pytest.fixture(scope="module")
def divide() -> NativeModule:
    code = engine.emit_object(engine.parse(CALLS))
    return NativeModule(code, ["divide"], compiler_rt.symbols(code))


@given(HIGH, WORDS, HIGH, WORDS)
def test_128_bit_division_is_exact(divide: NativeModule, a: int, b: int, c: int, d: int) -> None:
    numerator, divisor = a << 64 | b, (c << 64 | d) or 1
    n, m, out = ((ctypes.c_uint64 * 4)() for _ in range(3))
    n[:2], m[:2] = (b, a), (divisor & (2**64 - 1), divisor >> 64)

    _FUNCTION(divide.addresses["divide"])(n, m, out)

    assert (out[0] | out[1] << 64, out[2] | out[3] << 64) == divmod(numerator, divisor)


def test_an_object_that_names_no_routine_gets_none() -> None:
    code = engine.emit_object(engine.parse("define void @nothing() { ret void }"))

    assert compiler_rt.symbols(code) == {}


def test_text_that_is_no_module_says_why() -> None:
    with pytest.raises(JitError, match="expected"):
        engine.parse("define nonsense")


def test_a_symbol_that_is_nowhere_is_an_error() -> None:
    text = "declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n  ret void\n}"
    code = engine.emit_object(engine.parse(text))

    with pytest.raises(JitError):
        NativeModule(code, ["f"], {})


ABORTS = """
define void @f(ptr %p) {
  %a = load i8, ptr %p
  %b = lshr i8 %a, 3
  %c = and i8 %b, 24
  %d = zext nneg i8 %c to i64
  %q = getelementptr i8, ptr %p, i64 %d
  %l = load i64, ptr %q
  %o = or i64 %l, %d
  store i64 %o, ptr %q
  ret void
}
"""


def bitcode() -> str:
    return str(library.library().bitcode_path)


def test_what_llvm_aborts_on_is_compiled_all_the_same() -> None:
    """LLVM 22.1 ends the process on this at every level but 0 (a program of the fuzzer's)."""
    code, _ = compiler.server().compile(compiler.Job(ABORTS, bitcode()))
    memory = (ctypes.c_uint8 * 64)(0xFF)
    module = NativeModule(code, ["f"], {})

    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(module.addresses["f"])(memory)

    assert memory[24] == 24


def test_a_compiler_that_is_killed_is_started_again() -> None:
    server = compiler.CompileServer()
    job = compiler.Job("define void @f() { ret void }", bitcode())
    first, _ = server.compile(job)
    assert server._process is not None
    server._process.kill()

    assert server.compile(job)[0] == first
    server.close()


def test_text_that_the_compiler_cannot_parse_is_an_error_and_leaves_it_running() -> None:
    server = compiler.server()

    with pytest.raises(JitError, match="expected"):
        server.compile(compiler.Job("define nonsense", bitcode()))
    assert server.compile(compiler.Job("define void @f() { ret void }", bitcode()))[1] == ()


def test_threads_share_one_compiler() -> None:
    texts = [f"define i64 @f() {{\n  ret i64 {number}\n}}" for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        objects = list(pool.map(lambda text: compiler.server().compile(compiler.Job(text, bitcode()))[0], texts))
    modules = [NativeModule(code, ["f"], {}) for code in objects]

    assert [ctypes.CFUNCTYPE(ctypes.c_int64)(module.addresses["f"])() for module in modules] == list(range(8))


def test_bitcode_has_the_bodies_that_programs_inline_and_no_others() -> None:
    """What is never inlined would be optimised with every program for nothing."""
    found = library.library()
    functions = {f.name: f for f in engine.parse_bitcode(found.bitcode_path.read_bytes()).functions}
    declared = {name for name in functions if name in found.parameters and functions[name].is_declaration}
    defined = {name for name in functions if name in found.parameters and not functions[name].is_declaration}

    assert defined == found.inline
    assert "htab_alloc_slow" in declared


PACKAGE = Path(library.__file__).parent.parent


def _imported(path: Path) -> set[Path]:
    """The project's modules that a module takes names from when it runs, behind packages that only pass them on."""
    tree = ast.parse(path.read_text())
    typing_only = {id(node) for test in ast.walk(tree) if isinstance(test, ast.If) for node in ast.walk(test)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastrtp.") and id(node) not in typing_only:
            place = PACKAGE.parent / str(node.module).replace(".", "/")
            if place.with_suffix(".py").exists():
                found.add(place.with_suffix(".py"))
                continue
            names = {alias.name for alias in node.names} | {"*"}
            for passed in ast.parse((place / "__init__.py").read_text()).body:
                if isinstance(passed, ast.ImportFrom) and names & {alias.name for alias in passed.names}:
                    found.add(PACKAGE.parent / f"{str(passed.module).replace('.', '/')}.py")
            found |= {place / f"{name}.py" for name in names if (place / f"{name}.py").exists()}
    return found


def test_the_library_is_made_again_when_a_module_changes_that_its_functions_take_constants_from():
    sources = set(library.sources())
    natives = [path for path in sources if path.name.endswith("_native.py")]

    imported = {module for path in natives for module in _imported(path)}

    assert PACKAGE / "isa/opcodes.py" in imported
    assert imported - sources == set()
