"""What an abstract register means: the numbers that its known bits and its four ranges allow."""

from __future__ import annotations

from typing import Any

import z3

from fastrtp.verifier.domain.records import VReg
from tests.proofs.symbolic import Executor, Pointer

WIDE = ("value", "mask", "smin", "smax", "umin", "umax")
NARROW = ("s32_min", "s32_max", "u32_min", "u32_max")


def offset(name: str) -> int:
    """Where a member of VReg.layout.dtype stands."""
    fields = VReg.layout.dtype.fields
    assert fields is not None
    return int(fields[name][1])


def members(executor: Executor, register: Pointer) -> dict[str, Any]:
    """What memory holds of a register: the signed 32-bit ends zero-extended, as every load of four bytes is."""
    found = {name: executor.load(Pointer(register.region, register.offset + offset(name)), 64) for name in WIDE}
    return found | {name: executor.load(Pointer(register.region, register.offset + offset(name)), 32) for name in NARROW}


def extended(executor: Executor, narrow: Any) -> Any:
    """The low half, sign-extended."""
    return z3.SignExt(executor.width - executor.half, z3.Extract(executor.half - 1, 0, narrow))


def low(executor: Executor, x: Any) -> Any:
    """The low half, zero-extended."""
    return z3.ZeroExt(executor.width - executor.half, z3.Extract(executor.half - 1, 0, x))


def allows(executor: Executor, m: dict[str, Any], x: Any) -> list[tuple[str, Any]]:
    """What has to hold for `x` to be one of the register's values, member by member. 32-bit ends may be given either way."""
    number = executor.number
    return [
        ("known bits", (x & ~number(m["mask"])) == number(m["value"])),
        ("smin", number(m["smin"]) <= x),
        ("smax", x <= number(m["smax"])),
        ("umin", z3.ULE(number(m["umin"]), x)),
        ("umax", z3.ULE(x, number(m["umax"]))),
        ("s32_min", extended(executor, number(m["s32_min"])) <= extended(executor, x)),
        ("s32_max", extended(executor, x) <= extended(executor, number(m["s32_max"]))),
        ("u32_min", z3.ULE(low(executor, number(m["u32_min"])), low(executor, x))),
        ("u32_max", z3.ULE(low(executor, x), low(executor, number(m["u32_max"])))),
    ]


def within(executor: Executor, register: Pointer, x: Any) -> Any:
    """Whether `x` is one of the register's values."""
    return z3.And([condition for _, condition in allows(executor, members(executor, register), x)])


def tnum_has(value: Any, mask: Any, x: Any) -> Any:
    """Whether `x` is one of a tnum's values."""
    return (x & ~mask) == value
