"""What is known of a value: tracked bits and ranges, types of registers and of stack bytes, and the records that hold them.

The arithmetic is native code over VReg records (`*_native.py`), proved sound from its own source (tests/proofs); `tnum`, `bounds`
and `state` are what Python reads and writes of the same bytes. Must not know: programs, instructions, paths.
"""
