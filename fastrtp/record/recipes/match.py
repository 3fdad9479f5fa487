"""A recipe's arguments matched with a tracepoint's prototype: by C type, in order."""

from __future__ import annotations

from fastrtp.btf import Btf, BtfKind, ProtoArg, TracepointProto
from fastrtp.errors import BtfError

from .recipe import C_SIZES, Argument, Missing, Obj, Recipe, Scalar, Text


def match_arguments(btf: Btf, proto: TracepointProto, recipe: Recipe) -> list[Argument | None]:
    """For each argument of the prototype the recipe's entry, None where there is none."""
    left = list(recipe.args)
    plans: list[Argument | None] = []
    for arg in proto.args:
        found = next((entry for entry in left if _fits(btf, entry, arg)), None)
        if found is not None:
            left.remove(found)
        plans.append(found)
    return plans


def pointer_target(btf: Btf, arg: ProtoArg) -> str:
    """Name of the type that a pointer argument leads to; "" for void and functions."""
    try:
        pointer = btf.type(btf.strip(arg.type_id))
        inner = btf.type(btf.strip_modifiers(pointer.type)) if pointer.kind == BtfKind.PTR else None
    except BtfError:
        return ""
    return inner.name if inner is not None and inner.id else ""


def _fits(btf: Btf, entry: Argument, arg: ProtoArg) -> bool:
    if isinstance(entry, Scalar):
        return not arg.is_pointer and arg.size == C_SIZES[entry.c_type]
    if not arg.is_pointer:
        return False
    target = pointer_target(btf, arg)
    if isinstance(entry, (Obj, Missing)):
        wanted = entry.type_name if isinstance(entry, Obj) else entry.struct
        return target == wanted
    return target in ("char", "") if isinstance(entry, Text) else True
