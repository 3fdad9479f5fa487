"""The one kernel of those who need only one."""

from __future__ import annotations

from fastrtp.kernel import Kernel
from fastrtp.once import once


@once
def default_kernel() -> Kernel:
    """The kernel of those who need only one; made on first use.

    >>> rtp.default_kernel() is rtp.default_kernel()
    True
    """
    return Kernel()
