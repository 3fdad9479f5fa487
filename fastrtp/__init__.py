"""fastrtp: Linux raw tracepoint programs in user space, verified, compiled to native code, and fed with recordings.

    >>> import fastrtp as rtp
    >>> kernel = rtp.Kernel()
    >>> obj = kernel.load("runqlat.bpf.o")      # or its source, "runqlat.bpf.c"
    >>> with obj.attach():
    ...     report = kernel.replay("trace.dat")
    >>> report.events
    66152
    >>> obj.maps["runqlat"][125]["count"]
    829

Everything is imported when it is first used, so that `import fastrtp` costs next to nothing. Threads that come first get it here
one after the other. (Python takes the lock of a module before that of the package that it is in: threads that import the modules
of packages which nobody has imported yet can get in each other's way, so they had better take the names that are here.)
"""

from __future__ import annotations

import importlib
import os
from _thread import RLock  # `threading` would cost as much as all else here
from typing import TYPE_CHECKING, Any

from fastrtp.errors import (
    AsmError,
    BpfError,
    BtfError,
    CompilerError,
    FastrtpError,
    JitError,
    ObjectError,
    ObjectWarning,
    RecordingError,
    ReplayError,
    UnknownNameError,
    VerifierError,
)

if TYPE_CHECKING:
    from fastrtp import jit as jit
    from fastrtp.default import default_kernel as default_kernel
    from fastrtp.kernel import Kernel as Kernel
    from fastrtp.record import Recording as Recording
    from fastrtp.replay import ReplayReport as ReplayReport
    from fastrtp.trace import Tracepoint as Tracepoint

__version__ = "0.1.0"

_LAZY = {
    "Kernel": "fastrtp.kernel",
    "Recording": "fastrtp.record",
    "ReplayReport": "fastrtp.replay",
    "Tracepoint": "fastrtp.trace",
    "default_kernel": "fastrtp.default",
}
_MODULES = frozenset(
    {"btf", "cc", "isa", "jit", "kernel", "maps", "obj", "programs", "record", "replay", "tools", "trace", "uapi", "verifier"}
)


_importing = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: globals().update(_importing=RLock()))


def __getattr__(name: str) -> Any:
    if name not in _LAZY and name not in _MODULES:
        raise AttributeError(f"module 'fastrtp' has no attribute {name!r}")
    with _importing:
        module = importlib.import_module(_LAZY.get(name) or f"fastrtp.{name}")
        value = globals()[name] = getattr(module, name) if name in _LAZY else module
        return value


def __dir__() -> list[str]:
    """What there is, whether it was imported already or not: help(fastrtp) and completion show it."""
    return sorted({"__version__", "__doc__", "__all__", *__all__, *_MODULES})


def TRACE_EVENT(name: str, proto: str, *, kernel: Kernel | None = None, **options: Any) -> Tracepoint:  # noqa: N802 - the kernel's name
    """Add a tracepoint to `kernel` (the default one where None). `proto` is TP_PROTO as C text: "int a, u64 b, const char *c".

    >>> rtp.TRACE_EVENT("queue_full", "int queue, u64 length", kernel=kernel).name
    'queue_full'
    """
    from fastrtp.default import default_kernel

    return (kernel if kernel is not None else default_kernel()).trace_event(name, proto, **options)


__all__ = [
    "TRACE_EVENT", "AsmError", "BpfError", "BtfError", "CompilerError", "FastrtpError", "JitError", "Kernel", "ObjectError",
    "ObjectWarning", "Recording", "RecordingError", "ReplayError", "ReplayReport", "Tracepoint", "UnknownNameError",
    "VerifierError", "default_kernel", "jit",
]  # fmt: skip
