"""Proofs of the verifier's arithmetic: its own source, executed symbolically, and an SMT solver.

`python -m tests.proofs` proves all theorems and prints the table; tests/test_verifier_proofs.py proves the quick ones.
"""
