"""Who made what is kept: the import closure of the maker, and the versions of its tools, are in the name of every cache."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastrtp import provenance
from fastrtp.entry_cache import EntryCache
from fastrtp.jit import key as keys
from fastrtp.native import host, library
from fastrtp.provenance import PACKAGE, Import, Sources, closure, digest, imports, made_by
from fastrtp.verifier.cache import judge

MAKERS = {
    "verdict": ("fastrtp.verifier.cache",),
    "program": keys._MAKERS,
    "library": (*library.native_modules(), "fastrtp.native.build"),
    "share": (*library.native_modules(), "fastrtp.native.share"),
    "btf": ("fastrtp.btf.load",),
}

FILES = {
    "__init__.py": "from pkg.low import one\n",
    "low/__init__.py": "from .one import one, one_more as more\nfrom .two import two\n",
    "low/one.py": "one = one_more = 1\n",
    "low/two.py": "import numpy\ntwo = 2\n",
    "high.py": "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nfrom pkg.low import one\n"
    "if TYPE_CHECKING:\n    from pkg.types import T\n\n\ndef f():\n    from .later import (\n        three,  # at last\n    )\n",
    "later.py": "three = 3\n",
    "types.py": "class T: ...\n",
    "strange.py": "import pkg.high as high\n",
}  # fmt: skip


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def name_of(root: Path, *roots: str) -> str:
    sources = Sources(root)
    return digest(sources, closure(sources, roots))


def test_a_closure_is_what_names_are_taken_from(package: Path) -> None:
    """Also inside functions; through a package that passes a name on, to where it is defined; not what type checkers import."""
    sources = Sources(package)

    assert closure(sources, ["pkg.high"]).files == {"high.py", "low/one.py", "later.py"}
    assert closure(sources, ["pkg.strange"]).files == {"strange.py", "high.py", "low/one.py", "later.py"}
    assert closure(sources, ["pkg.low"]).files == {"low/__init__.py", "low/one.py", "low/two.py"}
    assert closure(sources, ["pkg.low"]).others == {"numpy"}
    with pytest.raises(ModuleNotFoundError, match=r"pkg\.absent"):
        closure(sources, ["pkg.absent"])


@pytest.mark.parametrize("changed", FILES)
def test_a_change_inside_changes_the_name_and_no_other_does(package: Path, changed: str) -> None:
    roots = ("pkg.high", "pkg.low", "pkg.strange")
    inside = {root: changed in closure(Sources(package), [root]).files for root in roots}
    before = {root: name_of(package, root) for root in roots}
    (package / changed).write_text(FILES[changed] + "# changed\n")
    after = {root: name_of(package, root) for root in roots}

    assert {root: before[root] != after[root] for root in roots} == inside


def test_a_name_that_comes_from_another_module_is_another_name(package: Path) -> None:
    """Both modules were there before, and have not changed."""
    (package / "high.py").write_text("from pkg.low import one, two\n")
    (package / "low/one.py").write_text("one = 1\nother = 2\n")
    texts = ["from .one import one\nfrom .two import two", "from .one import one as two\nfrom .two import two as one",
             "from .one import other as one\nfrom .two import two", "from .one import one\nfrom .two import two\n\n"]  # fmt: skip
    names = []
    for text in texts:
        (package / "low/__init__.py").write_text(text)
        names.append(name_of(package, "pkg.high"))

    assert len(set(names)) == 3
    assert names[0] == names[3]


@pytest.mark.parametrize("maker", MAKERS)
def test_every_source_of_a_real_maker_is_in_its_name(maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One by one: each file inside changes the name, and none outside does."""
    sources = Sources(PACKAGE)
    found = closure(sources, MAKERS[maker])
    before = digest(sources, found)
    whole = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    changed = {}
    for path in sorted(whole):
        read = sources.read(path)
        monkeypatch.setitem(sources._read, path, read._replace(digest="other"))
        changed[path] = digest(sources, closure(sources, MAKERS[maker])) != before
        sources._read[path] = read

    assert {path for path, differs in changed.items() if differs} == found.files
    assert found.files < whole


def test_makers_depend_on_what_they_are_known_to_depend_on() -> None:
    """Field tables, the tables of helpers, the core's layout: what a key once lacked; and not on what stands above them."""
    files = {maker: closure(Sources(PACKAGE), roots).files for maker, roots in MAKERS.items()}

    assert {"maps/fields.py", "helpers/table.py", "isa/opcodes.py", "verifier/domain/records.py", "uapi.py"} <= files["verdict"]
    assert {"jit/lower.py", "native/compile_server.py", "native/engine.py", "isa/opcodes.py"} <= files["program"]
    assert {"maps/hashtab_native.py", "helpers/argtype.py", "native/intrinsics.py", "native/ir_pipeline.py"} <= files["library"]
    assert "btf/parse.py" in files["btf"]
    above = ("cli/", "kernel/", "replay/", "notebook")
    assert [path for maker in ("verdict", "program", "btf") for path in files[maker] if path.startswith(above)] == []


def test_a_verdict_and_a_program_depend_on_the_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the verifier's core; and so on numba, llvmlite and the processor, which are in its key."""
    before = judge(), keys.toolchain()
    monkeypatch.setattr(library, "key", lambda: "another")

    assert not set(before) & {judge(), keys.toolchain()}
    assert {"numba", "llvmlite", "numpy"} <= closure(Sources(PACKAGE), MAKERS["library"]).others


@pytest.mark.parametrize("what", ["numba", "llvmlite", "numpy", "python", "processor"])
def test_the_tools_are_in_the_name_of_native_code(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def name() -> str:
        made_by.cache_clear()
        return host.made_by(*MAKERS["library"])

    before = name()
    version = provenance.package_version
    if what == "python":
        monkeypatch.setattr(sys, "version", "4.0")
    elif what == "processor":
        monkeypatch.setattr(host, "processor", lambda: "another")
    else:
        monkeypatch.setattr(provenance, "package_version", lambda name: "another" if name == what else version(name))
    after = name()
    monkeypatch.undo()

    assert after != before
    assert name() == before


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_are_read_as_python_reads_them(path: Path) -> None:
    """No import that runs is missed; what is taken for one besides stands at the beginning of a line of prose."""
    text = path.read_text()
    package = ".".join(["fastrtp", *path.relative_to(PACKAGE).parts[:-1]])
    tree = ast.parse(text)
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    real: set[Import] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            real |= {Import(one.name, "", one.asname or one.name.partition(".")[0]) for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")
            module = [*base[: len(base) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module or ""]
            real |= {Import(".".join(module), one.name, one.asname or one.name) for one in node.names}
    strings = "\n".join(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))

    found = set(imports(text, package))
    assert real <= found
    assert {one for one in found - real if f"import {one.module}" not in strings and f"from {one.module}" not in strings} == set()


LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*sorted(name for name in sys.modules if name.partition(".")[0] == "fastrtp"))
"""

FINGERPRINT = r"""
import importlib, json, re, sys, types
from fastrtp.provenance import PACKAGE, Sources, closure
roots, stubbed = json.loads(sys.argv[1]), sys.argv[2] == "stubbed"
sources = Sources(PACKAGE)
files = closure(sources, roots).files
if stubbed:  # packages that only pass names on: nothing runs in them
    import fastrtp
    class Package(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            path = f"{self.__name__.partition('.')[2].replace('.', '/')}/__init__.py"
            for module, names in sources.read(path).imports.items():
                for original, here in names:
                    if here == name:
                        found = importlib.import_module(module)
                        return getattr(found, original) if original else found
            raise AttributeError(name)
    for path in PACKAGE.rglob("*/__init__.py"):
        inner = str(path.relative_to(PACKAGE))
        if inner not in files:
            name = "fastrtp." + inner.removesuffix("/__init__.py").replace("/", ".")
            made = Package(name)
            made.__path__ = [str(path.parent)]
            sys.modules[name] = made
if any(name.endswith("_native") for name in roots):  # tables and texts are looked at, nothing is compiled
    import numba
    numba.njit = lambda *_, **__: lambda function: function
for name in roots:
    importlib.import_module(name)
def plain(value, depth=0):
    if depth > 6:
        return "..."
    if isinstance(value, dict):
        return {"dict": sorted(([plain(k, depth + 1), plain(v, depth + 1)] for k, v in list(value.items())), key=repr)}
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v, depth + 1) for v in value), key=repr)
    if isinstance(value, (list, tuple)):
        return [plain(v, depth + 1) for v in list(value)]
    return re.sub(r"0x[0-9a-f]+", "", repr(value))
found = {}
for path in sorted(files):
    name = "fastrtp." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    module = sys.modules.get(name)
    if module is not None and not path.endswith("__init__.py"):
        found[path] = {k: plain(v) for k, v in sorted(vars(module).items())
                       if isinstance(v, (int, str, bytes, tuple, frozenset, set, dict, list)) and not k.startswith("__")
                       and k not in ("_NAMED", "_renewals")}  # by address; and what is called after fork
print(json.dumps(found, sort_keys=True))
"""


def run(code: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": "0"}  # sets that are part of a record are written in one order
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.mark.parametrize("maker", ["verdict", "program", "btf"])
def test_what_python_loads_for_a_maker_is_its_closure_and_packages_on_the_way(maker: str) -> None:
    """Whatever a module's own imports load is inside; what else is loaded, a package's `__init__` on the way brought in."""
    found = closure(Sources(PACKAGE), MAKERS[maker]).files
    loaded = set(run(LOADED, *MAKERS[maker]).split())
    sources = Sources(PACKAGE)
    packages = {name for name in loaded if sources.path(name).endswith("__init__.py")}
    outside = {name for name in loaded if sources.path(name) not in found} - packages
    brought = closure(sources, sorted(packages)).files

    assert {sources.path(name) for name in outside} <= brought


@pytest.mark.parametrize("maker", ["verdict", "program", "library", "btf"])
def test_packages_on_the_way_change_nothing(maker: str) -> None:
    """Without the `__init__`s that are not part of the closure, every table of every module inside is the same."""
    roots = json.dumps(MAKERS[maker])
    whole, alone = (json.loads(run(FINGERPRINT, roots, how)) for how in ("whole", "stubbed"))

    assert len(alone) > 8
    assert alone == {path: whole[path] for path in alone}


def cache_of(folder: Path) -> EntryCache:
    return EntryCache(folder, "sources", ".json", "test")


def aged(package: Path) -> None:
    """As if the files had been there for a while (their other date cannot be set)."""
    for path in package.rglob("*.py"):
        os.utime(path, (time.time() - 100, time.time() - 100))


def test_what_was_read_is_read_once(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process looks at dates alone, until one has changed."""
    aged(package)
    monkeypatch.setattr(provenance, "_SETTLED_NS", 0)
    first = Sources(package, cache_of(tmp_path))
    before = digest(first, closure(first, ["pkg.high"]))
    first.keep()
    reads: list[Path] = []
    inner = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or inner(path))
    again = Sources(package, cache_of(tmp_path))

    assert digest(again, closure(again, ["pkg.high"])) == before
    assert reads == []
    (package / "later.py").write_text("three = 4\n")
    changed = Sources(package, cache_of(tmp_path))
    assert digest(changed, closure(changed, ["pkg.high"])) != before
    assert reads == [package / "later.py"]


def test_a_file_that_was_just_written_is_not_remembered(package: Path, tmp_path: Path) -> None:
    """Another change in the same moment would bear the same date."""
    first = Sources(package, cache_of(tmp_path))
    closure(first, ["pkg.high"])
    first.keep()
    entry = cache_of(tmp_path).get(first._key)

    assert entry is not None
    assert json.loads(entry[1]) == {}


def test_sources_that_changed_since_the_process_began_make_things_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have read the ones before: what it makes must not be found by others."""
    made_by.cache_clear()
    before = made_by("fastrtp.isa.asm")
    monkeypatch.setattr(provenance, "_START", 0.0)
    made_by.cache_clear()
    own = made_by("fastrtp.isa.asm")
    monkeypatch.undo()
    made_by.cache_clear()

    assert own != before == made_by("fastrtp.isa.asm")


def test_versions_are_known_without_importing() -> None:
    import llvmlite
    import numba
    import numpy

    assert llvmlite.__version__ in provenance.package_version("llvmlite")
    assert numba.__version__ in provenance.package_version("numba")
    assert numpy.__version__ in provenance.package_version("numpy")
    assert "zstandard-" in provenance.package_version("zstandard")
    assert "__version__" in provenance.package_version("elftools")
    assert provenance.package_version("no_such_package") == ""
