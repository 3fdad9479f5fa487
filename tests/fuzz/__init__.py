"""Differential fuzzing of verifier, JIT, maps and helpers: `python -m tests.fuzz --seed 1 --count 1000 --kernel`.

A generated program is verified here and, where bpf(2) may be used, by the running kernel. What is accepted runs natively
with guard pages around map values and context, in a reference interpreter that checks every access, and in the kernel
(PROG_TEST_RUN; nothing is ever attached). Each program is a function of seed and number alone.

What is generated: arithmetic of both widths, sign extensions, byte swaps, jumps of both widths and gotol, linked registers and
spills in whole and in part (generator, calls); map values, stack, context and atomics of every size, at constant and variable
offsets (generator); functions with precise arguments, nested callbacks, helpers whose result has bounds (calls); global
functions, dynptrs, bpf_for, may_goto, maps of maps, ring buffer references, RCU and preemption sections (features);
tail calls in programs, functions and callbacks, to programs that return odd values and write over every map (tails, targets);
and for tp_btf walks through kernel objects, spin locks, timers, kptrs, lists, trees and objects (walks, owned).
Of the latter, and of helpers that the interpreter does not have, the verdict alone is compared. Two of five programs are loaded
with BPF_F_TEST_STATE_FREQ: pruning is where unsound verdicts come from.
"""
