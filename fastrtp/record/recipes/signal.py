"""Recipes of include/trace/events/signal.h."""

from __future__ import annotations

from .recipe import CurrentKey, Obj, PerCpu, Recipe, Scalar, task

_SIGINFO = Obj("kernel_siginfo", PerCpu(), {"si_signo": "sig", "si_errno": "errno", "si_code": "code"})
"""SEND_SIG_NOINFO and SEND_SIG_PRIV are pointers 0 and 1 in the kernel; the record shows them as a siginfo."""

RECIPES = {
    "signal_generate": Recipe(
        (Scalar("int", "sig"), _SIGINFO, task("pid", comm="comm"), Scalar("int", "group"), Scalar("int", "result"))
    ),
    "signal_deliver": Recipe(
        (
            Scalar("int", "sig"),
            _SIGINFO,
            Obj("k_sigaction", CurrentKey("sig"), {"sa.sa_handler": "sa_handler", "sa.sa_flags": "sa_flags"}),
        )
    ),
}
