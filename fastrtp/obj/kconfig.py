"""Options of a kernel's configuration, and what they are as variables of a program: `extern int CONFIG_HZ __kconfig`.

Kernel: tools/lib/bpf/libbpf.c:bpf_object__process_kconfig_line, set_kcfg_value_tri, set_kcfg_value_str, set_kcfg_value_num,
find_kcfg_type. Must not know: where a configuration comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.types import BTF_INT_BOOL, ENUMS
from fastrtp.errors import ObjectError

_PREFIX = "CONFIG_"
_TRISTATE = "libbpf_tristate"
_TRISTATES = {"n": 0, "y": 1, "m": 2}

Config = Mapping[str, str]
"""Option -> what stands behind its "=": y, n, m, a number, or a string in quotes."""


class KcfgKind(Enum):
    """What an option's variable can hold. Kernel: libbpf.c:enum kcfg_type"""

    BOOL = "a bool"
    TRISTATE = "an enum libbpf_tristate"
    CHAR = "a char"
    INT = "an integer"
    STRING = "an array of char"


class KcfgType(NamedTuple):
    """A variable's kind, its bytes, whether it has a sign."""

    kind: KcfgKind
    size: int
    signed: bool = False


def kcfg_type(btf: Btf, type_id: int) -> KcfgType | None:
    """The type of an option's variable; None for one that no option can have. BtfError."""
    record = btf.type(btf.strip(type_id))
    if record.kind == BtfKind.INT:
        if record.encoding & BTF_INT_BOOL:
            return KcfgType(KcfgKind.BOOL, 1) if record.size == 1 else None
        if record.size == 1:
            return KcfgType(KcfgKind.CHAR, 1, record.signed)
        return KcfgType(KcfgKind.INT, record.size, record.signed) if record.size in (2, 4, 8) else None
    if record.kind in ENUMS and record.name == _TRISTATE and record.size in (4, 8):
        return KcfgType(KcfgKind.TRISTATE, record.size)
    if record.kind == BtfKind.ARRAY and record.nelems:
        element = kcfg_type(btf, record.type)
        if element is not None and element.kind == KcfgKind.CHAR:
            return KcfgType(KcfgKind.STRING, record.nelems)
    return None


def parse_config(text: str) -> dict[str, str]:
    """The options of a .config. ObjectError for a line that is none."""
    out: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith(_PREFIX):
            continue
        name, equals, value = line.partition("=")
        if not (equals and value):
            raise ObjectError(f"configuration, line {number}: {line!r} says no value")
        out.setdefault(name, value.strip())
    return out


def config_of(options: Mapping[str, object]) -> dict[str, str]:
    """A configuration in Python's words: True, False, numbers and text; "y", "n" and "m" stay what they are."""
    out = {}
    for name, value in options.items():
        if not name.startswith(_PREFIX):
            raise ObjectError(f"{name!r} is no option of a kernel: those begin with {_PREFIX}")
        if isinstance(value, bool):
            out[name] = "y" if value else "n"
        elif isinstance(value, int):
            out[name] = str(value)
        elif isinstance(value, str):
            out[name] = value if value in _TRISTATES or value.startswith('"') or _number(value) is not None else f'"{value}"'
        else:
            raise ObjectError(f"option {name} is a bool, a number or a string, not {type(value).__name__}")
    return out


def option_bytes(name: str, kcfg: KcfgType, text: str) -> bytes:
    """An option's value as its variable holds it. ObjectError for one that it cannot hold."""
    kind, size = kcfg.kind, kcfg.size
    if text in _TRISTATES:
        if kind == KcfgKind.BOOL and text != "m":
            return bytes([text == "y"])
        if kind == KcfgKind.TRISTATE:
            return _TRISTATES[text].to_bytes(size, "little")
        if kind == KcfgKind.CHAR:
            return text.encode()
    elif text.startswith('"'):
        if kind == KcfgKind.STRING and len(text) > 1 and text.endswith('"'):
            return text[1:-1].encode()[: size - 1].ljust(size, b"\0")
    else:
        number = _number(text)
        if number is not None:
            return number_bytes(name, kcfg, number)
    raise ObjectError(f"kernel option {name}={text} does not fit its variable, {kind.value} of {size} bytes")


def number_bytes(name: str, kcfg: KcfgType, number: int) -> bytes:
    """A number as its variable holds it. ObjectError for one that it cannot hold."""
    bits = 1 if kcfg.kind == KcfgKind.BOOL else 8 * kcfg.size
    low, high = (-(1 << bits - 1), 1 << bits - 1) if kcfg.signed else (0, 1 << bits)
    if kcfg.kind in (KcfgKind.TRISTATE, KcfgKind.STRING) or not low <= number < high:
        raise ObjectError(f"{name}={number} does not fit its variable, {kcfg.kind.value} of {kcfg.size} bytes")
    return (number & (1 << 8 * kcfg.size) - 1).to_bytes(kcfg.size, "little")


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None
