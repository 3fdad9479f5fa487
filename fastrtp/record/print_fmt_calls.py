"""The functions that print formats call. Kernel: kernel/trace/trace_output.c, include/trace/stages/stage3_trace_output.h."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .event_format import FieldKind, FormatField
from .print_fmt_parse import MASK, Expr, Parser, PrintFormatError
from .record_fields import field_bytes


def _print_symbolic(parser: Parser) -> Expr:
    """The text of the first equal value, else the number. Kernel: trace_print_symbols_seq"""
    value = parser.expression()
    parser.comma()
    pairs = parser.pairs()

    def text(data: bytes) -> bytes:
        number = value(data)
        return next((name for known, name in pairs if not (known - number) & MASK), b"0x%x" % (number & MASK))

    return text


def _print_flags(parser: Parser) -> Expr:
    """The texts of all bits that are set, in order, and what is left over. Kernel: trace_print_flags_seq"""
    value = parser.expression()
    parser.comma()
    delimiter = parser.expression()(b"") or b""
    parser.comma()
    pairs = parser.pairs()

    def text(data: bytes) -> bytes:
        number = value(data) & MASK
        found = []
        if number == 0:
            return next((name for mask, name in pairs if not mask), b"")
        for mask, name in pairs:
            if mask and number & mask == mask & MASK:
                found.append(name)
                number &= ~mask
        return bytes(delimiter.join([*found, b"%#x" % number] if number else found))

    return text


def _spec(parser: Parser) -> FormatField:
    spec = parser.fmt.field(parser.field_name())
    assert spec is not None
    return spec


def _get_str(parser: Parser) -> Expr:
    spec = _spec(parser)
    return lambda data: field_bytes(spec, data).partition(b"\0")[0]


def _get_array(parser: Parser) -> Expr:
    spec = _spec(parser)
    return lambda data: field_bytes(spec, data)


def _get_array_len(parser: Parser) -> Expr:
    spec = _spec(parser)
    if spec.kind not in (FieldKind.DATA_LOC, FieldKind.REL_LOC):
        raise PrintFormatError(f"{parser.fmt.name}: {spec.name} has no length of its own")
    return lambda data: len(field_bytes(spec, data))


def _print_hex(separator: str) -> Callable[[Parser], Expr]:
    def parse(parser: Parser) -> Expr:
        buffer = parser.expression()
        parser.comma()
        length = parser.expression()
        return lambda data: _raw(buffer(data))[: max(length(data), 0)].hex(separator or "\0").replace("\0", "").encode()

    return parse


def _print_array(parser: Parser) -> Expr:
    """{0x1,0x2}. Kernel: trace_print_array_seq"""
    buffer = parser.expression()
    parser.comma()
    count = parser.expression()
    parser.comma()
    size = parser.expression()

    def text(data: bytes) -> bytes:
        raw, step = _raw(buffer(data)), max(size(data), 1)
        items = (raw[at : at + step] for at in range(0, min(max(count(data), 0) * step, len(raw)), step))
        return b"{" + b",".join(b"%#x" % int.from_bytes(item, "little") for item in items) + b"}"

    return text


def _builtin_expect(parser: Parser) -> Expr:
    """What is expected changes nothing."""
    value = parser.expression()
    parser.comma()
    parser.expression()
    return value


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


CALLS: Mapping[str, Callable[[Parser], Expr]] = MappingProxyType(
    {
        "__builtin_expect": _builtin_expect,
        "__print_symbolic": _print_symbolic,
        "__print_flags": _print_flags,
        "__get_str": _get_str,
        "__get_rel_str": _get_str,
        "__get_dynamic_array": _get_array,
        "__get_rel_dynamic_array": _get_array,
        "__get_dynamic_array_len": _get_array_len,
        "__get_rel_dynamic_array_len": _get_array_len,
        "__print_hex": _print_hex(" "),
        "__print_hex_str": _print_hex(""),
        "__print_array": _print_array,
    }
)
"""By name: parses the arguments up to the closing parenthesis."""
