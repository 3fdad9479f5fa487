"""Routines that LLVM's code generator calls without having been asked to: 128-bit division.

It divides numbers of 128 bits where it works out how often a loop with an odd step runs. Compilers bind such calls to
their runtime library; here they are a few lines of IR in the native library.
"""

from __future__ import annotations

_UNSIGNED = """
define internal {i128, i128} @divide(i128 %n, i128 %d) nounwind {
entry:
  %both = or i128 %n, %d
  %high = lshr i128 %both, 64
  %small = icmp eq i128 %high, 0
  br i1 %small, label %word, label %long
word:
  %n.word = trunc i128 %n to i64
  %d.word = trunc i128 %d to i64
  %q.word = udiv i64 %n.word, %d.word
  %r.word = urem i64 %n.word, %d.word
  %q.wide = zext i64 %q.word to i128
  %r.wide = zext i64 %r.word to i128
  br label %done
long:
  br label %step
step:
  %i = phi i128 [ 127, %long ], [ %below, %step ]
  %q = phi i128 [ 0, %long ], [ %q.next, %step ]
  %r = phi i128 [ 0, %long ], [ %r.next, %step ]
  %carry = icmp slt i128 %r, 0
  %r.twice = shl i128 %r, 1
  %n.rest = lshr i128 %n, %i
  %bit = and i128 %n.rest, 1
  %r.more = or i128 %r.twice, %bit
  %enough = icmp uge i128 %r.more, %d
  %take = or i1 %carry, %enough
  %r.less = sub i128 %r.more, %d
  %r.next = select i1 %take, i128 %r.less, i128 %r.more
  %one = shl i128 1, %i
  %q.more = or i128 %q, %one
  %q.next = select i1 %take, i128 %q.more, i128 %q
  %below = sub i128 %i, 1
  %last = icmp eq i128 %i, 0
  br i1 %last, label %done, label %step
done:
  %q.done = phi i128 [ %q.wide, %word ], [ %q.next, %step ]
  %r.done = phi i128 [ %r.wide, %word ], [ %r.next, %step ]
  %pair.q = insertvalue {i128, i128} poison, i128 %q.done, 0
  %pair = insertvalue {i128, i128} %pair.q, i128 %r.done, 1
  ret {i128, i128} %pair
}
"""

_EXPORT = """
define i128 @NAME(i128 %n, i128 %d) nounwind {
  %pair = call {i128, i128} @divide(i128 %n, i128 %d)
  %part = extractvalue {i128, i128} %pair, FIELD
  ret i128 %part
}
"""

ROUTINES = {"__udivti3": 0, "__umodti3": 1}
"""Name -> which part of (quotient, remainder) it returns."""


def ir() -> str:
    """The routines as a module; the native library has them."""
    return _UNSIGNED + "".join(_EXPORT.replace("NAME", name).replace("FIELD", str(field)) for name, field in ROUTINES.items())


def symbols(code: bytes) -> dict[str, int]:
    """Addresses of the routines that an object names."""
    named = [name for name in ROUTINES if name.encode() in code]
    if not named:
        return {}
    from fastrtp.native import library

    return {name: library.library().symbols[name] for name in named}
