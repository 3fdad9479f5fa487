"""Native code: its records, its numba intrinsics, the library that is compiled once, and the engine that compiles and loads.

`layout` says what the records look like; `*_native.py` modules all over the package hold functions over int64 addresses,
registered with `intrinsics.native`; numba makes LLVM IR of them (`ir_pipeline`), which `build` optimises as a whole and keeps
in the user's cache as bitcode (to be inlined into programs) and as objects (to be called); `engine` is the only owner of
llvmlite. With a warm cache numba is never imported.
"""

from __future__ import annotations

SMP = "fastrtp_smp"
"""Name of the global that native bodies read to know whether other CPUs run beside theirs (intrinsics.smp). A constant in
every compiled program, so that what is not needed folds away; to the library a variable, 0 until programs first run in
parallel.
"""
