"""One source compiled: the command line, what is kept of earlier runs, and what goes into the object.

An object depends on its source, the headers that it includes, the options and the compiler; it is found again as long as all are
the same. It does not depend on where anything lies: names of files in it are relative to the source, and DWARF is taken out
(BTF stays), so that the same source gives the same object everywhere with the same compiler.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastrtp.btf import Btf, default_btf
from fastrtp.entry_cache import EntryCache, cache_folder
from fastrtp.errors import CompilerError
from fastrtp.provenance import made_by

from .compiler import Compiler, find_compiler
from .headers import header_folder, headers_version
from .strip import strip_debug

FLAGS = (
    "-O2", "-g", "-mcpu=v3", "-fno-ident", "-fno-asynchronous-unwind-tables",
    "-Wall", "-Wno-unused-function", "-Wno-unknown-warning-option",
    "-Wno-gnu-variable-sized-type-not-at-end", "-Wno-default-const-init-var-unsafe", "-Wno-missing-declarations",
)  # fmt: skip
"""What every source is compiled with, ahead of its own flags. v3: compare-and-exchange and 32-bit jumps, since Linux 5.12."""

_BUILD_LINE = re.compile(r"^// build:(.*)$", re.MULTILINE)
"""A source says what else it wants in a line `// build: -flags`."""
_DEPENDENCY = re.compile(r"(?:\\.|[^\s\\])+")
_MAX_CACHED = 64 << 20


@dataclass(frozen=True)
class Compiled:
    """`data`: the object. `diagnostics`: what the compiler remarked, "" for nothing. `cached`: it was there already."""

    data: bytes
    diagnostics: str
    cached: bool


def is_source(path: str | os.PathLike[str]) -> bool:
    """Whether a path names C source, to be compiled before it is loaded."""
    return os.fspath(path).endswith(".c")


def compile_source(
    source: str | os.PathLike[str], btf: Btf | None = None, *, include: Sequence[str | os.PathLike[str]] = (),
    flags: Sequence[str] = (), compiler: Compiler | None = None,
) -> Compiled:  # fmt: skip
    """Compile a source for BPF, with vmlinux.h from `btf` (None: the shipped one). `include`: more folders of headers.

    CompilerError, with the compiler's words; OSError.
    """
    path = Path(source)
    text = path.read_bytes()
    types = default_btf() if btf is None else btf
    chosen = find_compiler() if compiler is None else compiler
    folders = [Path(folder).absolute() for folder in include]
    own = [flag for line in _BUILD_LINE.findall(text.decode("utf-8", "replace")) for flag in line.split()]
    wanted = [*FLAGS, *own, *flags]
    facts = [path.name, chosen.identity, headers_version(types), *map(str, folders), "", *wanted]
    key = hashlib.blake2b("\0".join(facts).encode() + b"\0" + text, digest_size=20).hexdigest()
    cache = EntryCache(cache_folder(), "cc", ".o", made_by(__name__), _MAX_CACHED)
    found = cache.get(key)
    if found is not None and _is_fresh(found[0], path.parent):
        return Compiled(found[1], str(found[0]["diagnostics"]), cached=True)
    headers = header_folder(types)
    data, diagnostics, included = _run(path, chosen, wanted, folders, headers)
    cache.put(key, {"diagnostics": diagnostics, **_dependencies(path, included, folders, headers)}, data)
    return Compiled(data, diagnostics, cached=False)


def _run(
    path: Path, compiler: Compiler, flags: Sequence[str], folders: Sequence[Path], headers: Path
) -> tuple[bytes, str, list[str]]:
    """(object, diagnostics, names of included files as the compiler saw them)."""
    here = str(path.parent.absolute())
    # the last map that fits is taken: the most special one comes last
    maps = [f"-ffile-prefix-map={folder}={folder.name}" for folder in folders]
    maps += [f"-ffile-prefix-map={here}=.", f"-ffile-prefix-map={headers}=fastrtp", "-fdebug-compilation-dir=."]
    search = [*(f"-I{folder}" for folder in folders), "-isystem", str(headers), "-isystem", str(headers / "bpf")]
    with tempfile.TemporaryDirectory(prefix="fastrtp-") as folder:
        target, listed = Path(folder, "object.o"), Path(folder, "object.d")
        command = [*compiler.command, *flags, *maps, *search, "-MD", "-MF", str(listed), "-c", path.name, "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=here)
        diagnostics = (done.stderr or done.stdout).strip().replace(f"{headers}{os.sep}", "fastrtp/")
        if done.returncode or not target.exists():
            raise CompilerError(f"{path}: {_count(diagnostics)}", diagnostics)
        return strip_debug(target.read_bytes()), diagnostics, _listed(listed)


def _count(diagnostics: str) -> str:
    errors = len(re.findall(r"(?m)^(?:\S.*?: )?(?:fatal )?error: ", diagnostics))
    return f"{errors} error{'s' if errors != 1 else ''}" if errors else "the compiler fails"


def _listed(file: Path) -> list[str]:
    """The files of a rule as make reads it, its target left out."""
    text = file.read_text().replace("\\\n", " ").partition(": ")[2]
    return [re.sub(r"\\(.)", r"\1", name) for name in _DEPENDENCY.findall(text)]


def _dependencies(path: Path, included: Sequence[str], folders: Sequence[Path], headers: Path) -> dict[str, Any]:
    """What else the object depends on: `read`, the digests of included files, and `absent`, where a header would have been found
    first had there been one. The package's own headers are in the key.
    """
    here = path.parent
    read: dict[str, str] = {}
    absent = set()
    for name in included:
        place = Path(name)
        if place.is_absolute() and place.is_relative_to(headers):
            below = place.relative_to(headers)
            shadows = [Path("."), *folders]
        elif name == path.name:
            continue
        else:
            read[name] = _digest(here / name)
            at = next((number for number, folder in enumerate(folders) if place.is_relative_to(folder)), None)
            if at is None:
                continue
            below = place.relative_to(folders[at])
            shadows = [Path("."), *folders[:at]]
        absent |= {str(folder / below) for folder in shadows}
    return {"read": read, "absent": sorted(absent)}


def _is_fresh(facts: dict[str, Any], here: Path) -> bool:
    """Whether the files that an object was made of are what they were."""
    return not any((here / name).exists() for name in facts["absent"]) and all(
        _digest(here / name) == digest for name, digest in facts["read"].items()
    )


def _digest(file: Path) -> str:
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    except OSError:
        return ""
