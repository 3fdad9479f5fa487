"""Random pairs at 64 bits, through the compiled functions: for what a solver proves at fewer bits only, and the compiler's share.

`python -m tests.proofs --pairs N`: N pairs of abstract and concrete operands for each operation.
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Callable

from fastrtp import isa
from fastrtp.native.library import library
from fastrtp.verifier.domain.records import REG_SIZE, SCALAR_ALU32, SCALAR_ALU64, SCALAR_SYNC, VReg

_BOUNDS = struct.Struct("<QQqqQQiiII")
_AT = VReg.layout.at("value")
U64, U32 = (1 << 64) - 1, (1 << 32) - 1


def signed(x: int, bits: int) -> int:
    """As a signed number of so many bits."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def shifted(x: int, y: int, bits: int) -> int:
    """Arithmetic shift right."""
    return signed(x, bits) >> (y & (bits - 1))


OPERATIONS: dict[str, tuple[int, Callable[[int, int, int], int]]] = {
    "add": (isa.BPF_ADD, lambda x, y, bits: x + y),
    "sub": (isa.BPF_SUB, lambda x, y, bits: x - y),
    "mul": (isa.BPF_MUL, lambda x, y, bits: x * y),
    "and": (isa.BPF_AND, lambda x, y, bits: x & y),
    "or": (isa.BPF_OR, lambda x, y, bits: x | y),
    "xor": (isa.BPF_XOR, lambda x, y, bits: x ^ y),
    "neg": (isa.BPF_NEG, lambda x, y, bits: -x),
    "lsh": (isa.BPF_LSH, lambda x, y, bits: x << (y & (bits - 1))),
    "rsh": (isa.BPF_RSH, lambda x, y, bits: x >> (y & (bits - 1))),
    "arsh": (isa.BPF_ARSH, shifted),
}


def number(rng: random.Random) -> int:
    """A number near an edge, small, or anything."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.getrandbits(64)
    if kind == 1:
        return rng.getrandbits(rng.randrange(1, 20))
    edge = 1 << rng.choice((7, 8, 15, 16, 31, 32, 33, 63, 64))
    return (edge + rng.randrange(-5, 6) if kind == 2 else rng.randrange(-300, 300)) & U64


def abstract(rng: random.Random, x: int) -> tuple[int, ...]:
    """Members of a register that allows `x`, each drawn by itself."""
    mask = number(rng) if rng.random() < 0.7 else 0
    near = lambda bits: rng.getrandbits(rng.randrange(1, bits + 1)) if rng.random() < 0.6 else 1 << 65  # noqa: E731
    s, low, s_low = signed(x, 64), x & U32, signed(x, 32)
    return (
        x & ~mask,
        mask,
        max(-(1 << 63), s - near(63)),
        min((1 << 63) - 1, s + near(63)),
        max(0, x - near(63)),
        min(U64, x + near(63)),
        max(-(1 << 31), s_low - near(31)),
        min((1 << 31) - 1, s_low + near(31)),
        max(0, low - near(31)),
        min(U32, low + near(31)),
    )


def allows(members: tuple[int, ...], x: int) -> bool:
    """Whether `x` is one of the register's values."""
    value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max = members
    return (
        x & ~mask & U64 == value
        and smin <= signed(x, 64) <= smax
        and umin <= x <= umax
        and s32_min <= signed(x, 32) <= s32_max
        and u32_min <= x & U32 <= u32_max
    )


def check(name: str, bits: int, count: int, seed: int) -> str | None:
    """Draw `count` pairs; the first one whose result is not allowed, in words."""
    rng = random.Random(f"{name}{bits}{seed}")
    op, concrete = OPERATIONS[name]
    data = bytearray(3 * REG_SIZE)
    a = ctypes.addressof(ctypes.c_char.from_buffer(data))
    run = library().verifier_scalar
    for _ in range(count):
        x, y = number(rng), number(rng)
        first, last = abstract(rng, x), abstract(rng, y)
        for place, members in enumerate((first, last)):
            _BOUNDS.pack_into(data, place * REG_SIZE + _AT, *members)
            run(SCALAR_SYNC, a + place * REG_SIZE, 0, 0, 0, 0, 0)
        run(SCALAR_ALU64 if bits == 64 else SCALAR_ALU32, a, a + REG_SIZE, op, 0, 0, a + 2 * REG_SIZE)
        narrow = (1 << bits) - 1
        wanted = concrete(x & narrow, y & narrow, bits) & narrow
        found = _BOUNDS.unpack_from(data, _AT)
        if not allows(found, wanted):
            return f"{name}{bits}: {x:#x} in {first}, {y:#x} in {last}: {wanted:#x} is not in {found}"
    return None
