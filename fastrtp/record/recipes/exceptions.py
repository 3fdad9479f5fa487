"""Recipes of arch/x86/include/asm/trace/exceptions.h.

A fault from user space finds the task's one pt_regs, the one that system calls use; a fault in the kernel makes another.
"""

from __future__ import annotations

from .recipe import Current, Obj, Recipe, Scalar

RECIPES = {
    "page_fault_user": Recipe(
        (
            Scalar("unsigned long", "address"),
            Obj("pt_regs", Current(), {"ip": "ip"}),
            Scalar("unsigned long", "error_code"),
        )
    ),
    "page_fault_kernel": Recipe(
        (
            Scalar("unsigned long", "address"),
            Obj("pt_regs", Current(), {"ip": "ip"}, space="kernel fault"),
            Scalar("unsigned long", "error_code"),
        )
    ),
}
