"""Native code: its records, its numba intrinsics, the library that numba compiles once, and the engine that loads it.

`layout` says what the records look like; `*_native.py` modules all over the package hold functions over int64 addresses,
registered with `intrinsics.native`; `build` compiles all of them into one LLVM module, kept in the user's cache as
bitcode (to be inlined into programs) and as an object (to be called); `engine` is the only owner of llvmlite. With a
warm cache numba is never imported.
"""
