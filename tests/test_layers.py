"""The architecture, as the imports show it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastrtp

PACKAGE = Path(fastrtp.__file__).parent

LAYERS = (
    ("errors", "uapi", "once", "shown", "entry_cache", "provenance"),
    ("isa",),
    ("btf",),
    ("obj",),
    ("mem",),
    ("native",),
    ("maps",),
    ("helpers",),
    ("cc",),
    ("verifier",),
    ("effects",),
    ("jit",),
    ("trace",),
    ("kernel",),
    ("record", "programs"),
    ("replay",),
    ("tools",),
    ("__init__", "default"),
    ("notebook",),
    ("cli", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

ALLOWED_UPWARD = {
    # the facade's verbs hand over to the layers above, when they are called
    ("kernel", "replay"),
    # what an event's record looks like is told by the formats and recipes that recordings are read with
    ("kernel", "record"),
    # the native library is made of what all layers register
    ("native", "__init__"),
}

WITHIN = {
    "verifier": (("api",), ("domain",), ("core",), ("report",), ("rules",), ("__init__", "cache", "reads", "reads_flow")),
    "kernel": (
        ("files",),
        ("objects",),
        ("tracing",),
        ("syscall",),
        ("loader",),
        ("__init__", "kernel", "process", "verbs", "version"),
    ),
}
"""The packages of a layer, in the same way."""
WHOLE = {"Kernel", "Process", "Call", "TracepointRegistry", "TracepointEvent"}
"""Types that parts of the kernel may name from below: what they are parts of, who calls, and what they are attached to."""


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def layer(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def packages(parts: tuple[str, ...]) -> int | None:
    """Rank of a module (("verifier", "rules", "check.py")) among the packages of its layer; None where a layer has none."""
    ranks = {name: rank for rank, names in enumerate(WITHIN.get(parts[0], ())) for name in names}
    return ranks.get(parts[1].removesuffix(".py") if len(parts) > 1 else "__init__")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at import time) of every import that is not for type checkers alone."""
    tree = ast.parse(path.read_text())
    found = []
    typing_only = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    inside = {child for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    package = ["fastrtp", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            names = [f"fastrtp.{alias.name}" for alias in node.names] if module == "fastrtp" else [module]
            found += [(name, node not in inside) for name in names]
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """No layer knows one above it."""
    here = layer(path)

    upward = []
    for module, _ in imports(path):
        if module == "fastrtp" or module.startswith("fastrtp."):
            there = module.split(".")[1] if "." in module else "__init__"
            there = there if there in RANK else "__init__"
            if RANK[there] > RANK[here] and (here, there) not in ALLOWED_UPWARD:
                upward.append(module)

    assert upward == []


@pytest.mark.parametrize(
    "path", [path for path in modules() if layer(path) in WITHIN], ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_packages_of_a_layer_import_down(path: Path) -> None:
    """None knows one above it, nor names it in annotations: but for types that stand for the whole."""
    top, here = layer(path), packages(path.relative_to(PACKAGE).parts)
    assert here is not None

    upward = [
        node.module
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"fastrtp.{top}.")
        and not {alias.name for alias in node.names} <= WHOLE
        and (packages(tuple((node.module or "").split(".")[1:])) or 0) > here
    ]  # fmt: skip

    assert upward == []


def test_no_module_takes_what_the_facade_imports_while_it_is_imported() -> None:
    """The facade imports under a lock: a module whose own lock is held, and which waits for that one, could wait for ever."""
    given = {f"fastrtp.{name}" for name in (*fastrtp._LAZY, *fastrtp._MODULES)}
    taken = [
        (str(path), alias.name)
        for path in modules()
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module == "fastrtp" and not node.level
        for alias in node.names
        if f"fastrtp.{alias.name}" in given
    ]

    assert taken == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_where_they_belong(path: Path) -> None:
    """llvmlite is native/'s alone, numba is imported by native code alone, IPython by the notebook layer alone."""
    names = {module.split(".")[0] for module, _ in imports(path)}
    is_native = path.name.endswith("_native.py") or layer(path) == "native"

    assert "llvmlite" not in names or layer(path) == "native"
    assert "numba" not in names or is_native
    assert "IPython" not in names or layer(path) == "notebook"


@pytest.mark.parametrize("statement", ["import fastrtp", "import fastrtp; fastrtp.Kernel", "import fastrtp.cli"])
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    """Neither numba nor IPython, and for `import fastrtp` and the command line not LLVM or Arrow either."""
    heavy = ["numba", "IPython", "matplotlib", "pandas"]
    if "Kernel" not in statement:
        heavy += ["llvmlite", "pyarrow", "rich", "numpy"]
    code = f"import sys; {statement}; print([name for name in {heavy!r} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert found.strip() == "[]"
