"""PrintFormat: an event's record as the text of its print format.

printf's conversions with the kernel's extensions that events use: %ps and %pS (symbols), %pI4 and %pI6c (addresses).
A pointer is printed as it is. A format that is beyond the supported C shows the fields instead.

Kernel: lib/vsprintf.c
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from .event_format import EventFormat
from .print_fmt_parse import Expr, Names, Parser, PrintFormatError, no_value
from .record_fields import decode_record

Lookup = Callable[[int], tuple[str, int] | None]
"""Symbol and offset of an address, None for one that has none."""

_CONVERSION = re.compile(
    r"%(?P<flags>[-+ #0]*)(?P<width>\d+|\*)?(?:\.(?P<precision>\d+|\*))?(?P<length>hh|h|ll|l|L|z|t|j)?(?P<kind>[a-zA-Z%])"
)
_POINTER = re.compile(r"[sS]|I4|I6c|I6|ISpc")
_AF_INET, _AF_INET6, _SOCKADDR_IN, _SOCKADDR_IN6 = 2, 10, 8, 24
_BITS: dict[str | None, int] = {"hh": 8, "h": 16, None: 32}


def _no_symbols(_address: int) -> None:
    return None


class PrintFormat:
    """Of one event. `names`: values of enumerators and variables, a mapping or a function. `texts`: what pointers of %s
    lead to. `error`: why its print format cannot be used, "" when it can.
    """

    def __init__(
        self,
        fmt: EventFormat,
        names: Names | None = None,
        symbols: Lookup = _no_symbols,
        texts: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self.fmt = fmt
        self._texts = texts
        self.error = ""
        self._symbols = symbols
        self._pieces: list[str | Callable[[bytes], str]] = []
        try:
            text, args = Parser(fmt, names or {}).parse()
            self._compile(text, args)
        except (PrintFormatError, RecursionError) as error:
            self.error = str(error)

    def text(self, data: bytes) -> str:
        """The record as text."""
        if self.error:
            return self._fields(data)
        return "".join(piece if isinstance(piece, str) else piece(data) for piece in self._pieces)

    def _fields(self, data: bytes) -> str:
        rows = decode_record(self.fmt, data).items()
        return " ".join(f"{name}={value.decode(errors='replace') if isinstance(value, bytes) else value}" for name, value in rows)

    def _compile(self, text: str, args: list[Expr]) -> None:
        left = iter(args)
        at = 0
        while at < len(text):
            percent = text.find("%", at)
            if percent < 0:
                percent = len(text)
            if percent > at:
                self._pieces.append(text[at:percent])
            if percent == len(text):
                return
            match = _CONVERSION.match(text, percent)
            if match is None:
                raise PrintFormatError(f"{self.fmt.name}: conversion {text[percent : percent + 8]!r}")
            at = match.end()
            if match["kind"] == "%":
                self._pieces.append("%")
                continue
            extension = ""
            if match["kind"] == "p":
                found = _POINTER.match(text, at)
                extension = found[0] if found else ""
                at += len(extension)
            try:
                self._pieces.append(self._piece(match, extension, left))
            except StopIteration:
                raise PrintFormatError(f"{self.fmt.name}: fewer arguments than conversions") from None

    def _piece(self, match: re.Match[str], extension: str, left: Any) -> Callable[[bytes], str]:
        width = next(left) if match["width"] == "*" else _constant(match["width"])
        precision = next(left) if match["precision"] == "*" else _constant(match["precision"])
        value = next(left)
        flags, kind = match["flags"], match["kind"]
        if value is no_value:
            return lambda data: _pad("?", flags, width(data))
        if kind == "p":
            return lambda data: _pad(self._pointer(value(data), extension), flags, width(data))
        if kind == "s":
            return lambda data: _pad(_string(self._text_of(value(data)), precision(data)), flags, width(data))
        if kind == "c":
            return lambda data: _pad(chr(value(data) & 0xFF), flags, width(data))
        if kind not in "diuxXo":
            raise PrintFormatError(f"{self.fmt.name}: conversion %{kind}")
        bits = _BITS.get(match["length"], 64)
        return lambda data: _integer(value(data), kind, bits, flags, width(data), precision(data))

    def _text_of(self, value: Any) -> Any:
        return self._texts.get(value & (1 << 64) - 1, f"{value & (1 << 64) - 1:#x}") if isinstance(value, int) else value

    def _pointer(self, value: Any, extension: str) -> str:
        if extension in ("I4", "I6c", "I6"):
            raw = value if isinstance(value, bytes) else b""
            size = 4 if extension == "I4" else 16
            address = ipaddress.ip_address(raw[:size].ljust(size, b"\0"))
            if isinstance(address, ipaddress.IPv6Address):
                if extension == "I6":
                    return address.exploded
                return str(address) if address.ipv4_mapped is None else f"::ffff:{address.ipv4_mapped}"
            return str(address)
        if extension == "ISpc":
            return _socket_address(value if isinstance(value, bytes) else b"")
        number = (value if isinstance(value, int) else int.from_bytes(value[:8], "little")) & (1 << 64) - 1
        if extension in ("s", "S") and number >> 63:
            found = self._symbols(number)
            if found is not None:
                return found[0] if extension == "s" else f"{found[0]}+{found[1]:#x}"
        return f"{number:#x}" if number else "(nil)"


def _socket_address(raw: bytes) -> str:
    """%pISpc: an address with its port. Kernel: lib/vsprintf.c:ip4_addr_string_sa, ip6_addr_string_sa"""
    family, port = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:4], "big")
    if family == _AF_INET and len(raw) >= _SOCKADDR_IN:
        return f"{ipaddress.IPv4Address(raw[4:8])}:{port}"
    if family == _AF_INET6 and len(raw) >= _SOCKADDR_IN6:
        address = ipaddress.IPv6Address(raw[8:24])
        shown = str(address) if address.ipv4_mapped is None else f"::ffff:{address.ipv4_mapped}"
        return f"[{shown}]:{port}"
    return f"(family {family})" if raw else "(nil)"


def _constant(text: str | None) -> Expr:
    number = -1 if text is None else int(text)
    return lambda _data: number


def _pad(text: str, flags: str, width: int) -> str:
    return text.ljust(width) if "-" in flags else text.rjust(width)


def _string(value: Any, precision: int) -> str:
    text = value.partition(b"\0")[0].decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text[:precision] if precision >= 0 else text


def _integer(value: Any, kind: str, bits: int, flags: str, width: int, precision: int) -> str:
    """printf of one integer."""
    if isinstance(value, bytes):
        value = int.from_bytes(value[:8], "little")
    value &= (1 << bits) - 1
    sign = ""
    if kind in "di":
        if value >> (bits - 1):
            sign, value = "-", (1 << bits) - value
        elif "+" in flags or " " in flags:
            sign = "+" if "+" in flags else " "
    digits = {"x": f"{value:x}", "X": f"{value:X}", "o": f"{value:o}"}.get(kind, str(value))
    if "#" in flags and value and kind in "xXo":
        sign = {"x": "0x", "X": "0X", "o": "0"}[kind]
    if precision >= 0:
        digits = digits.rjust(precision, "0")
    elif "0" in flags and "-" not in flags:
        digits = digits.rjust(width - len(sign), "0")
    return _pad(sign + digits, flags, width)
