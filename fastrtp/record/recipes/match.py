"""A recipe's arguments matched with a tracepoint's prototype: integers by name, pointers by what they lead to, in order.

A kernel's TP_PROTO may have an argument more, or one less, or another in its place than the recipe was written for, and its
TP_STRUCT another order than its TP_PROTO. So an integer is only ever what has its name: the recipe's entry of that name, or
the recorded field of that name. A BTF that has no names (before Linux 5.10) is matched by C type, in the recipe's order.
"""

from __future__ import annotations

from fastrtp.btf import Btf, BtfKind, ProtoArg, TracepointProto
from fastrtp.btf.tracepoints import argument_names
from fastrtp.errors import BtfError
from fastrtp.record.event_format import EventFormat, FieldKind

from .recipe import C_SIZES, Argument, Missing, Obj, Recipe, Scalar, Text

_C_TYPES = {size: name for name, size in C_SIZES.items()}


def match_arguments(btf: Btf, proto: TracepointProto, recipe: Recipe | None, fmt: EventFormat | None) -> list[Argument | None]:
    """For each argument of the prototype the recipe's entry, or the field of its name; None where there is neither."""
    if recipe is not None and recipe.fitted:
        return list(recipe.args)
    names = argument_names(btf, proto)
    left = list(recipe.args) if recipe is not None else []
    plans: list[Argument | None] = []
    for arg, name in zip(proto.args, names, strict=True):
        found = next((entry for entry in left if _fits(btf, entry, arg, name)), None)
        if found is not None:
            left.remove(found)
        plans.append(found or named_field(arg, name, fmt))
    return plans


def named_field(arg: ProtoArg, name: str, fmt: EventFormat | None) -> Scalar | None:
    """An integer argument as the recorded field of its name. A narrower field has what of it fitted."""
    spec = fmt.field(name) if fmt is not None and name and not name.startswith("common_") else None
    if spec is None or spec.kind is not FieldKind.SCALAR or arg.is_pointer or arg.size not in _C_TYPES:
        return None
    return Scalar(_C_TYPES[arg.size], name)


def pointer_target(btf: Btf, arg: ProtoArg) -> str:
    """Name of the type that a pointer argument leads to; "" for void and functions."""
    try:
        pointer = btf.type(btf.strip(arg.type_id))
        inner = btf.type(btf.strip_modifiers(pointer.type)) if pointer.kind == BtfKind.PTR else None
    except BtfError:
        return ""
    return inner.name if inner is not None and inner.id else ""


def _fits(btf: Btf, entry: Argument, arg: ProtoArg, name: str) -> bool:
    if isinstance(entry, Scalar):
        named = not name or name == entry.argument
        return named and not arg.is_pointer and arg.size == C_SIZES[entry.c_type]
    if not arg.is_pointer:
        return False
    target = pointer_target(btf, arg)
    if isinstance(entry, (Obj, Missing)):
        wanted = entry.type_name if isinstance(entry, Obj) else entry.struct
        return target == wanted
    return target in ("char", "") if isinstance(entry, Text) else True
