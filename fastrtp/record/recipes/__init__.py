"""RECIPES: one table of how recorded fields become tracepoint arguments again, a file per trace header of the kernel.

A tracepoint that is not here still gets its integers where they can be told apart; its pointers are reported missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import bpf_trace, exceptions, irq, raw_syscalls, sched, signal, task, timer
from .recipe import (
    Argument,
    Bytes,
    Current,
    CurrentKey,
    Derived,
    Identity,
    Key,
    Missing,
    Obj,
    Part,
    PerCpu,
    Pid,
    Printk,
    Raw,
    Recipe,
    Scalar,
    Source,
    Text,
    Tgid,
    Value,
    When,
    Whole,
    Within,
)  # fmt: skip

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    sched.RECIPES
    | raw_syscalls.RECIPES
    | irq.RECIPES
    | timer.RECIPES
    | signal.RECIPES
    | task.RECIPES
    | exceptions.RECIPES
    | bpf_trace.RECIPES
)

__all__ = [
    "RECIPES", "Argument", "Bytes", "Current", "CurrentKey", "Derived", "Identity", "Key", "Missing", "Obj", "Part", "PerCpu",
    "Pid", "Printk", "Raw", "Recipe", "Scalar", "Source", "Text", "Tgid", "Value", "When", "Whole", "Within",
]  # fmt: skip
