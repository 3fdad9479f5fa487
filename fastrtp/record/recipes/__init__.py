"""Recipes: how recorded fields become tracepoint arguments again.

data, choose    what the source of each kernel says of its events, and which of them fits a recording's format
ops, known_types    the operations of the data on columns; what identifies an object in a record
build           data, format and BTF put together to a `Recipe` (the vocabulary is in recipe)
find            the recipe of an event kind; `data.add` puts one of a user's before all
sched, irq, ...    RECIPES: rows that a person wrote, where meaning is needed that TP_fast_assign does not say; these come first
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
