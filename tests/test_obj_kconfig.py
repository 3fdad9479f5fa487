"""Options of a configuration as lines, as Python values, and as variables of a program."""

from __future__ import annotations

import pytest

from fastrtp.errors import ObjectError
from fastrtp.obj.kconfig import KcfgKind, KcfgType, config_of, number_bytes, option_bytes, parse_config

BOOL, TRISTATE, CHAR = KcfgType(KcfgKind.BOOL, 1), KcfgType(KcfgKind.TRISTATE, 4), KcfgType(KcfgKind.CHAR, 1, signed=True)
INT, UINT, LONG, STRING = (
    KcfgType(KcfgKind.INT, 4, signed=True), KcfgType(KcfgKind.INT, 4), KcfgType(KcfgKind.INT, 8), KcfgType(KcfgKind.STRING, 4),
)  # fmt: skip


def test_a_configuration_is_its_lines_that_set_an_option() -> None:
    text = '# comment\n# CONFIG_OFF is not set\nCONFIG_HZ=250\nCONFIG_A=y\nCONFIG_S="x=y"\nCONFIG_HZ=1000\nother\n'

    assert parse_config(text) == {"CONFIG_HZ": "250", "CONFIG_A": "y", "CONFIG_S": '"x=y"'}


@pytest.mark.parametrize("line", ["CONFIG_HZ", "CONFIG_HZ="])
def test_an_option_without_a_value_is_named(line: str) -> None:
    with pytest.raises(ObjectError, match=f"line 1: '{line}' says no value"):
        parse_config(line)


def test_python_values_say_what_a_line_would() -> None:
    values = {"CONFIG_A": True, "CONFIG_B": False, "CONFIG_C": 250, "CONFIG_D": "m", "CONFIG_E": "text", "CONFIG_F": "0x10"}

    assert config_of(values) == {
        "CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": "250", "CONFIG_D": "m", "CONFIG_E": '"text"', "CONFIG_F": "0x10",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [("HZ", 250), ("CONFIG_HZ", 2.5), ("CONFIG_HZ", None)])
def test_what_is_no_option_is_refused(name: str, value: object) -> None:
    with pytest.raises(ObjectError):
        config_of({name: value})


@pytest.mark.parametrize(
    ("kcfg", "text", "held"),
    [
        (BOOL, "y", b"\1"), (BOOL, "n", b"\0"), (BOOL, "1", b"\1"),
        (TRISTATE, "n", bytes(4)), (TRISTATE, "y", b"\1\0\0\0"), (TRISTATE, "m", b"\2\0\0\0"),
        (CHAR, "y", b"y"), (CHAR, "m", b"m"), (CHAR, "65", b"A"), (CHAR, "-1", b"\xff"),
        (INT, "250", b"\xfa\0\0\0"), (INT, "-2", b"\xfe\xff\xff\xff"), (UINT, "0xffffffff", b"\xff\xff\xff\xff"),
        (LONG, "0xdead000000000000", b"\0\0\0\0\0\0\xad\xde"),
        (STRING, '""', bytes(4)), (STRING, '"abc"', b"abc\0"), (STRING, '"abcdef"', b"abc\0"),
    ],
)  # fmt: skip
def test_a_variable_holds_an_option(kcfg: KcfgType, text: str, held: bytes) -> None:
    assert option_bytes("CONFIG_X", kcfg, text) == held


@pytest.mark.parametrize(
    ("kcfg", "text"),
    [
        (BOOL, "m"), (BOOL, "2"), (BOOL, '"y"'), (INT, "y"), (INT, '"5"'), (INT, str(1 << 31)), (UINT, "-1"), (TRISTATE, "1"),
        (STRING, "y"), (STRING, "5"), (STRING, '"open'), (STRING, '"'), (CHAR, "300"), (LONG, "text"),
    ],
)  # fmt: skip
def test_an_option_that_its_variable_cannot_hold_is_refused(kcfg: KcfgType, text: str) -> None:
    with pytest.raises(ObjectError, match="does not fit its variable"):
        option_bytes("CONFIG_X", kcfg, text)


def test_facts_are_numbers() -> None:
    assert number_bytes("LINUX_X", BOOL, 1) == b"\1"
    assert number_bytes("LINUX_X", INT, 6) == b"\6\0\0\0"
    with pytest.raises(ObjectError):
        number_bytes("LINUX_X", STRING, 1)
