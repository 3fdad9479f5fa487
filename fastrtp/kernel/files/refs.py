"""Objects that live as long as something refers to them.

The kernel counts references by hand, and so does this package: when Python would collect an object is not when Linux
lets a program go, and the order of release (detach, then unload, then free) is part of the contract.

Kernel counterpart: refcount_t and the *_put functions.
"""

from __future__ import annotations


class RefCounted:
    """`refcnt` references; the last `put` calls `release`, once."""

    def __init__(self) -> None:
        self.refcnt = 1

    def get(self) -> None:
        """One more reference."""
        assert self.refcnt > 0, "a reference was taken to a released object"
        self.refcnt += 1

    def put(self) -> None:
        """One reference less."""
        assert self.refcnt > 0, "a released object was released again"
        self.refcnt -= 1
        if self.refcnt == 0:
            self.release()

    @property
    def is_released(self) -> bool:
        """Whether the last reference is given back: nothing of it may be used any more."""
        return self.refcnt <= 0

    def release(self) -> None:
        """Give back what the object holds. Overridden; never called directly."""
        raise NotImplementedError
