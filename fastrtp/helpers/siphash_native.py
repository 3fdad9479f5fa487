"""SipHash-2-4, by which Linux hides addresses in texts (%p, %pK). Kernel: lib/siphash.c, lib/vsprintf.c:ptr_to_hashval

The key is random in Linux, from boot to boot; here it is the one of SipHash's published test vectors, so that a replay says
the same each time.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, lshr, native, outline, stack_bytes, store64

_KEY_LOW, _KEY_HIGH = 0x0706050403020100, 0x0F0E0D0C0B0A0908
_SIZE = 8 << 56  # of what is hashed, in the top byte of the last word
_V0, _V1, _V2, _V3 = 0, 8, 16, 24


@device
def _rol(word: int, shift: int) -> int:
    return (word << shift) | lshr(word, 64 - shift)


@device
def _rounds(v: int, count: int) -> None:
    v0, v1, v2, v3 = load64(v + _V0), load64(v + _V1), load64(v + _V2), load64(v + _V3)
    while count > 0:
        v0 += v1
        v1 = _rol(v1, 13) ^ v0
        v0 = _rol(v0, 32)
        v2 += v3
        v3 = _rol(v3, 16) ^ v2
        v0 += v3
        v3 = _rol(v3, 21) ^ v0
        v2 += v1
        v1 = _rol(v1, 17) ^ v2
        v2 = _rol(v2, 32)
        count -= 1
    store64(v + _V0, v0)
    store64(v + _V1, v1)
    store64(v + _V2, v2)
    store64(v + _V3, v3)


@native()
def siphash_1u64(first: int) -> int:
    """Hash of one u64."""
    v = stack_bytes(32)
    store64(v + _V0, 0x736F6D6570736575 ^ _KEY_LOW)
    store64(v + _V1, 0x646F72616E646F6D ^ _KEY_HIGH)
    store64(v + _V2, 0x6C7967656E657261 ^ _KEY_LOW)
    store64(v + _V3, 0x7465646279746573 ^ _KEY_HIGH ^ first)
    _rounds(v, 2)
    store64(v + _V0, load64(v + _V0) ^ first)
    store64(v + _V3, load64(v + _V3) ^ _SIZE)
    _rounds(v, 2)
    store64(v + _V0, load64(v + _V0) ^ _SIZE)
    store64(v + _V2, load64(v + _V2) ^ 0xFF)
    _rounds(v, 4)
    return load64(v + _V0) ^ load64(v + _V1) ^ load64(v + _V2) ^ load64(v + _V3)


_siphash = outline("siphash_1u64", 1)


@device
def ptr_to_hashval(pointer: int) -> int:
    """What %p shows of an address: 32 bits of its hash; NULL and error pointers (-4095 to -1) as they are.

    Kernel: lib/vsprintf.c:ptr_to_id
    """
    return pointer if -4095 <= pointer <= 0 else _siphash(pointer) & 0xFFFFFFFF
