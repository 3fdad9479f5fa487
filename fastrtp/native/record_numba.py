"""Typed records in numba: pointers with fields, arrays of items, and their conversions to and from addresses.

A pointer is an int64 to LLVM, so `slot.reg.type` is the load that `load32(slot + 16)` is, and a function with typed parameters
has the ABI of one with addresses. Pointers convert to int64 and back without being asked: code that computes with addresses
calls code that has types, and the other way round.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators, allow-subclassing-any

from __future__ import annotations

import inspect
import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin, lower_cast, lower_getattr_generic, lower_setattr_generic
from numba.core.typeconv.castgraph import Conversion
from numba.core.typeconv.rules import default_type_manager
from numba.core.typing.templates import AbstractTemplate, AttributeTemplate, infer_getattr, infer_global, signature
from numba.extending import register_model

from fastrtp.native.record import Address, Array, Inner, Items, Kind, Number, Record

_I64 = ir.IntType(64)


class PointerType(types.Type):
    """The address of a record."""

    def __init__(self, record: type[Record]) -> None:
        self.record = record
        super().__init__(f"{record.__module__}.{record.__name__}*")

    def can_convert_to(self, typingctx: Any, other: Any) -> Any:
        """To a plain address."""
        return Conversion.safe if other == types.int64 else None

    def unify(self, typingctx: Any, other: Any) -> Any:
        """With the number 0, which is the null pointer."""
        return self if isinstance(other, types.Integer) else None


class ArrayType(types.Type):
    """The address of the first of several items."""

    def __init__(self, item: Number | Address | Inner) -> None:
        self.item = item
        super().__init__(f"{item!r}[]")

    def can_convert_to(self, typingctx: Any, other: Any) -> Any:
        """To a plain address."""
        return Conversion.safe if other == types.int64 else None


@register_model(PointerType)
@register_model(ArrayType)
class _AddressModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _I64)


_POINTERS: dict[type[Record], PointerType] = {}


def pointer_type(record: type[Record]) -> PointerType:
    """numba's type of a record's address; made once, when native code first names the record."""
    known = _POINTERS.get(record)
    if known is None:
        known = _POINTERS[record] = PointerType(record)
        default_type_manager.set_compatible(types.int64, known, Conversion.safe)
        _define_constructor(record, known)
    return known


def _define_constructor(record: type[Record], pointer: PointerType) -> None:
    """`VReg(address)` in native code."""

    class Constructor(AbstractTemplate):
        key = record

        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 1 and not kws and isinstance(args[0], (types.Integer, PointerType, ArrayType)):
                source = types.int64 if isinstance(args[0], types.Integer) else args[0]
                return signature(pointer, source)
            return None

    infer_global(record, types.Function(Constructor))

    @lower_builtin(record, types.int64)
    @lower_builtin(record, PointerType)
    @lower_builtin(record, ArrayType)
    def construct(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0]


def native_type(kind: Kind) -> Any:
    """numba's type of what a field gives when it is named."""
    if isinstance(kind, Number):
        return types.int64
    if isinstance(kind, Inner):
        return pointer_type(kind.record)
    if isinstance(kind, Items):
        return ArrayType(kind.item)
    if isinstance(kind.record, Number):
        return ArrayType(kind.record)
    return ArrayType(Inner(kind.record)) if kind.several else pointer_type(kind.record)


def _load(builder: Any, address: Any, kind: Kind) -> Any:
    """What stands at an address, as int64; of a record or items, the address itself."""
    if isinstance(kind, (Inner, Items)):
        return address
    size, signed = (kind.size, kind.signed) if isinstance(kind, Number) else (8, False)
    value = builder.load(builder.inttoptr(address, ir.IntType(8 * size).as_pointer()), align=1)
    return value if size == 8 else builder.sext(value, _I64) if signed else builder.zext(value, _I64)


def _store(builder: Any, address: Any, kind: Kind, value: Any) -> None:
    size = kind.dtype.itemsize
    narrow = value if size == 8 else builder.trunc(value, ir.IntType(8 * size))
    builder.store(narrow, builder.inttoptr(address, ir.IntType(8 * size).as_pointer()), align=1)


def _number(context: Any, builder: Any, value: Any, kind: Any) -> Any:
    return value if isinstance(kind, (PointerType, ArrayType)) else context.cast(builder, value, kind, types.int64)


@lower_cast(types.int64, PointerType)
@lower_cast(PointerType, types.int64)
@lower_cast(ArrayType, types.int64)
def _same(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return value


@lower_cast(types.Integer, PointerType)
def _from_integer(context: Any, builder: Any, fromty: Any, toty: Any, value: Any) -> Any:
    return context.cast(builder, value, fromty, types.int64)


@infer_getattr
class _Members(AttributeTemplate):
    key = PointerType

    def generic_resolve(self, pointer: Any, name: str) -> Any:  # type: ignore[override]
        field = pointer.record.layout.fields.get(name)
        return native_type(field.kind) if field else None


@lower_getattr_generic(PointerType)
def _get_member(context: Any, builder: Any, pointer: Any, value: Any, name: str) -> Any:
    field = pointer.record.layout.fields[name]
    return _load(builder, builder.add(value, ir.Constant(_I64, field.offset)), field.kind)


@lower_setattr_generic(PointerType)
def _set_member(context: Any, builder: Any, sig: Any, args: Any, name: str) -> None:
    field = sig.args[0].record.layout.fields[name]
    if isinstance(field.kind, (Inner, Items)):
        raise TypeError(f"{sig.args[0].record.__name__}.{name} is written member by member")
    address = builder.add(args[0], ir.Constant(_I64, field.offset))
    _store(builder, address, field.kind, _number(context, builder, args[1], sig.args[1]))


def _item_at(context: Any, builder: Any, array: Any, address: Any, number: Any, kind: Any) -> Any:
    index = context.cast(builder, number, kind, types.int64)
    return builder.add(address, builder.mul(index, ir.Constant(_I64, array.item.dtype.itemsize)))


@infer_global(operator.getitem)
class _Item(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], ArrayType) and isinstance(args[1], types.Integer):
            return signature(native_type(args[0].item), args[0], types.int64)
        return None


@lower_builtin(operator.getitem, ArrayType, types.int64)
def _get_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _item_at(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    return _load(builder, address, sig.args[0].item)


@infer_global(operator.setitem)
class _ItemStore(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if isinstance(args[0], ArrayType) and isinstance(args[1], types.Integer) and not isinstance(args[0].item, Inner):
            return signature(types.void, args[0], types.int64, types.int64)
        return None


@lower_builtin(operator.setitem, ArrayType, types.int64, types.int64)
def _set_item(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    address = _item_at(context, builder, sig.args[0], args[0], args[1], sig.args[1])
    _store(builder, address, sig.args[0].item, args[2])
    return context.get_dummy_value()


@infer_global(int)
class _AsNumber(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], (PointerType, ArrayType)):
            return signature(types.int64, args[0])
        return None


@lower_builtin(int, PointerType)
@lower_builtin(int, ArrayType)
def _as_number(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return args[0]


@infer_global(bool)
class _AsCondition(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], (PointerType, ArrayType)):
            return signature(types.boolean, args[0])
        return None


@lower_builtin(bool, PointerType)
@lower_builtin(bool, ArrayType)
def _as_condition(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.icmp_unsigned("!=", args[0], ir.Constant(_I64, 0))


def _compared(operation: Any, predicate: str) -> None:
    class Comparison(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if all(isinstance(arg, PointerType) for arg in args) and args[0] == args[1]:
                return signature(types.boolean, *args)
            return None

    infer_global(operation)(Comparison)

    @lower_builtin(operation, PointerType, PointerType)
    def compare(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_unsigned(predicate, args[0], args[1])


_compared(operator.eq, "==")
_compared(operator.ne, "!=")


def parameter_type(annotation: Any, scope: dict[str, Any]) -> Any:
    """numba's type of a native function's parameter by its annotation: int (generated functions have none), bool, a Record,
    or Array[Record].

    KeyError for any other.
    """
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    if text == "bool":
        return types.boolean
    if text == "int" or annotation is inspect.Parameter.empty:
        return types.int64
    if text.startswith("Array[") and text.endswith("]"):
        return ArrayType(Inner(scope[text[6:-1]]))
    named = scope[text]
    if isinstance(named, type) and issubclass(named, Record):
        return pointer_type(named)
    raise KeyError(text)


__all__ = ["Array", "ArrayType", "PointerType", "native_type", "parameter_type", "pointer_type"]
