"""Recipes of include/trace/events/syscalls.h, for x86-64: each task has one pt_regs, at the top of its kernel stack.

The record of a 32-bit task's call has the same six arguments, so its registers are filled as if it were a 64-bit one.
"""

from __future__ import annotations

from .recipe import Current, Obj, Recipe, Scalar

_ENOSYS = 38
_ENTER = Obj(
    "pt_regs",
    Current(),
    {
        "di": "args[0]",
        "si": "args[1]",
        "dx": "args[2]",
        "r10": "args[3]",
        "r8": "args[4]",
        "r9": "args[5]",
        "orig_ax": "id",
        "ax": -_ENOSYS,
    },
)
_EXIT = Obj("pt_regs", Current(), {"orig_ax": "id", "ax": "ret"})

RECIPES = {
    "sys_enter": Recipe((_ENTER, Scalar("long", "id"))),
    "sys_exit": Recipe((_EXIT, Scalar("long", "ret"))),
}
