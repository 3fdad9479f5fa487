"""The programs in the slots of the program array: they return odd values, and write over what a program can reach.

Map numbers are those of SHAPES. Slot 2 stays empty.
"""

from __future__ import annotations

from fastrtp.isa import assemble

_ODD = "r0 = 0x8000000141414141 ll\nexit"
_LOOKUP = """
r1 = map[fd:{fd}]
r2 = r10
r2 += -8
*(u64 *)(r10 -8) = {key}
call bpf_map_lookup_elem#1
if r0 == 0 goto none{fd}{key}
*(u64 *)(r0 +0) = r7
*(u64 *)(r0 +8) = -1
{more}
none{fd}{key}:
"""
_WHOLE = "*(u64 *)(r0 +16) = 47\n*(u32 *)(r0 +28) = 0x7fffffff\n*(u64 *)(r0 +40) = r7"
_SCRIBBLE = (
    "r6 = r1\nr7 = *(u64 *)(r6 +64)\n"
    + "".join(
        _LOOKUP.format(fd=fd, key=key, more=_WHOLE if fd < 3 else "") for fd, key in ((2, 0), (2, 1), (1, 0), (1, 1), (7, 0))
    )
    + "r1 = map[fd:6][0]+0\n*(u64 *)(r1 +8) = r7\nr1 = map[fd:9][0]+0\n*(u64 *)(r1 +0) = r7\n*(u32 *)(r1 +8) = 7\nr0 = r7\nexit"
)
_AGAIN = """
r6 = r1
r1 = map[fd:9][0]+0
r2 = 1
lock *(u64 *)(r1 +8) += r2
r1 = r6
r2 = map[fd:4]
r3 = 2
call bpf_tail_call#12
r1 = r6
r2 = map[fd:4]
r3 = 3
call bpf_tail_call#12
r1 = map[fd:9][0]+0
r0 = *(u64 *)(r1 +8)
exit
"""
TARGETS = {0: assemble(_ODD), 1: assemble(_SCRIBBLE), 3: assemble(_AGAIN)}
"""Slot -> instructions: a number of 64 bits; every map written over, and a word of the context; itself again and again."""
EMPTY = 2
