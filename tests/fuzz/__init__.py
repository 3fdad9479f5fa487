"""Differential fuzzing of verifier, JIT, maps and helpers: `python -m tests.fuzz --seed 1 --count 1000 --kernel`.

A generated program is verified here and, where bpf(2) may be used, by the running kernel. What is accepted runs natively
with guard pages around map values and context, in a reference interpreter that checks every access, and in the kernel
(PROG_TEST_RUN; nothing is ever attached). Each program is a function of seed and number alone.
"""
