"""What native code has one of in this process: the library with its flag for several CPUs, its shims, and the compilers.

Two libraries would be two flags, and programs that run beside each other would not know of it. So whoever wants one of these
gets it here (`library.library`, `compiler.server`), and it is made under one lock, at its first use. A forked child keeps the
code, which is memory like any other, and leaves the compilers to its parent.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from typing import TYPE_CHECKING

from fastrtp.native import SMP
from fastrtp.once import after_fork

if TYPE_CHECKING:
    from fastrtp.native.compiler import Compilers
    from fastrtp.native.library import NativeLibrary


class NativeProcess:
    """The owner. Safe in threads."""

    def __init__(self) -> None:
        self._smp = ctypes.c_int64(0)
        self._libraries: dict[str, NativeLibrary] = {}
        self._compilers: Compilers | None = None
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def library(self, stem: str, widths: tuple[str, ...] = ()) -> NativeLibrary:
        """The library of this name, built and loaded first if need be; with `widths` one of cast shims, which calls the main
        one. JitError.
        """
        from fastrtp.native import library

        with self._lock:
            if stem not in self._libraries:
                symbols = library.library().symbols if widths else {SMP: ctypes.addressof(self._smp)}
                self._libraries[stem] = library.load(stem, list(widths), symbols)
            return self._libraries[stem]

    @property
    def libraries(self) -> tuple[str, ...]:
        """Names of those that are loaded."""
        return tuple(self._libraries)

    @property
    def compilers(self) -> Compilers:
        """The compile servers."""
        from fastrtp.native.compiler import Compilers

        with self._lock:
            if self._compilers is None:
                self._compilers = Compilers()
                atexit.register(self._compilers.close)
            return self._compilers

    @property
    def smp(self) -> bool:
        """Whether programs may run on several CPUs at a time."""
        return bool(self._smp.value)

    def several_cpus(self) -> None:
        """From now on functions that are not part of a program's code reckon with other CPUs. There is no way back: one of them
        may be running.
        """
        self._smp.value = 1


PROCESS = NativeProcess()
"""This process."""
