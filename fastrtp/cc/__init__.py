"""From C source to a BPF object: the compiler, the headers that come with the package, and the objects that are kept.

`compile_source("q.bpf.c")` gives what clang makes of a source, with nothing but a compiler installed: vmlinux.h is written from
BTF, the others (bpf/bpf_helpers.h, bpf_core_read.h, bpf_tracing.h, bpf_endian.h) are the package's own. One way for everything:
sources of users, those of the package, those of the tests. Must not know: what is in an object, the kernel that loads it.
"""

from __future__ import annotations

from .compile import Compiled, compile_source, is_source
from .compiler import Compiler, find_compiler
from .headers import header_folder, write_headers

__all__ = ["Compiled", "Compiler", "compile_source", "find_compiler", "header_folder", "is_source", "write_headers"]
