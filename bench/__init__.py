"""Benchmarks: asv suites, one class per subject, and `python -m bench`, which prints all of them as one table.

Every comparison is measured in one run against a baseline of that run: rounds of the two take turns, the best round of
each counts, and the result is their ratio (1 = as fast as the baseline, 2 = twice its time). Baselines are the same C
compiled by the system's clang or gcc with -O2, or an empty compiled loop.

A suite is a list of cases (`cases.Case`); its asv class and the table are both made of them. C sources are in c/, with
their .bpf.o beside them (`python -m bench.build` makes them), so that no BPF compiler is needed to run.
"""
