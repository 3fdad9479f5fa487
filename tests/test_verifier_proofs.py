"""The number domain of the verifier is proved: the quick theorems of tests/proofs, and that a wrong function is refuted."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest

pytest.importorskip("z3")

from fastrtp.verifier.core import mem_native
from fastrtp.verifier.domain import bounds_native, branch_native, tnum_native
from tests.proofs.prover import prove
from tests.proofs.symbolic import Executor
from tests.proofs.theorems import THEOREMS, Theorem

QUICK = [row for row in THEOREMS if row.quick]


@pytest.mark.parametrize("row", QUICK, ids=lambda row: row.name.replace(" ", "_"))
def test_holds(row: Theorem) -> None:
    """Every concrete result lies in the abstract one."""
    found = prove(row, timeout=120)

    assert found.proved, "\n".join(found.details)


def test_every_function_of_the_domain_has_a_theorem() -> None:
    """A transfer function, a refinement or an inclusion that is added wants its proof."""
    names = " ".join(row.name for row in THEOREMS)

    for module in (tnum_native, bounds_native):
        for name, function in vars(module).items():
            if hasattr(function, "py_func") and function.py_func.__module__ == module.__name__ and not _is_part(name):
                assert name in names, name


def _is_part(name: str) -> bool:
    """Accessors, and what is proved as a part of the function that calls it."""
    return name.startswith(("set_", "bounds_", "s32_", "umin_of", "umax_of", "verifier_")) or name in ("sx32", "smear")


WRONG = [
    (tnum_native.tnum_add, "sv) ^ sv) | am | bm", "sv) ^ sv) | am", "tnum_add"),
    (tnum_native.tnum_range, "return low & ~delta, delta", "return low & ~delta, delta >> 1", "tnum_range"),
    (bounds_native._deduce_bounds64, "umax = umin_of(umax, smax)", "umax = umin_of(umax, smax - 1)", "_deduce_bounds64"),
    (bounds_native._update_bounds, "if ult(umax, following):", "if ule(umax, following):", "_update_bounds"),
    (bounds_native.range_within, "and old.smax >= cur.smax", "", "range_within"),
    (bounds_native.coerce_to_size, "== (umax & ~limit)", "== (umin & ~limit)", "coerce_to_size 2"),
    (branch_native.is_branch_taken, "1 if min1 > max2 else", "1 if min1 >= max2 else", "jsgt decided"),
    (branch_native._refine_not_equal, "if a.umin == v:", "if a.umin != v:", "jne refines"),
    (mem_native.check_mem_region_access, "umax + off, size, mem_size", "smin + off, size, mem_size", "check_mem_region_access"),
    (mem_native._in_range, "off + size <= mem_size", "off <= mem_size", "_in_range"),
]
"""A function, what is changed in it, and the theorem that must notice."""


@pytest.mark.parametrize(("function", "old", "new", "name"), WRONG, ids=[row[3].replace(" ", "_") for row in WRONG])
def test_a_wrong_function_is_refuted(monkeypatch: pytest.MonkeyPatch, function: Any, old: str, new: str, name: str) -> None:
    """The same proof, of a source with one mistake, gives a counterexample."""
    source = textwrap.dedent(inspect.getsource(function.py_func))
    assert source.count(old) >= 1
    tree = ast.parse(source.replace(old, new)).body[0]
    monkeypatch.setitem(Executor.replaced, function.py_func, tree)
    row = next(row for row in THEOREMS if row.name == name)

    assert prove(row, timeout=120, until_refuted=True).refuted
