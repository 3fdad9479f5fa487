"""Recipes of kernel/trace/bpf_trace.h."""

from __future__ import annotations

from .recipe import Recipe, Text

RECIPES = {"bpf_trace_printk": Recipe((Text("bpf_string"),))}
