"""Assembler: the disassembler's syntax, and labels.

One instruction a line; `;` and `//` start a comment; `name:` is a label, alone or before an instruction. Jump targets are
labels, `pc+3` or `+3` (counted in slots from the next instruction). Numbers are decimal or hex. Lines may keep the
prefixes of a verifier log (`4: (b7) r0 = 1`). `r1 = 5` moves a sign-extended 32-bit number; `r1 = 0x5` and `r1 = 5 ll` are
the two-slot ld_imm64, as in the kernel's own output. `call bpf_x` and `call 5` are helpers, any other name is a label.
"""

from __future__ import annotations

import re

from fastrtp.errors import AsmError
from fastrtp.isa.func_id import FUNC_IDS
from fastrtp.isa.insn import Insn
from fastrtp.isa.opcodes import MAX_BPF_REG, OPCODES, PLACEHOLDER, Kind, Row
from fastrtp.once import once

_NUMBER = r"[+-]?\s*(?:0[xX][0-9a-fA-F]+|\d+)"
_NAME = r"[A-Za-z_.][\w.]*"
_TARGET = rf"(?:pc\s*)?[+-]\s*\d+|{_NAME}"
_PATTERN = {
    "r:dst": r"r\d+", "r:src": r"r\d+", "w:dst": r"w\d+", "w:src": r"w\d+",
    "off": r"[+-]\s*(?:0[xX][0-9a-fA-F]+|\d+)", "imm": _NUMBER, "imm32": _NUMBER, "hex": _NUMBER, "next": _NUMBER,
    "jump": _TARGET, "jump32": _TARGET,
    "imm64": rf"0[xX][0-9a-fA-F]+(?:\s*ll)?|{_NUMBER}\s*ll", "func": rf"{_NAME}\#-?\d+|{_NAME}|-?\d+",
}  # fmt: skip
_RANGE = {
    "off": (-(1 << 15), 1 << 15), "imm": (-(1 << 31), 1 << 31), "imm32": (-(1 << 31), 1 << 32), "hex": (-(1 << 31), 1 << 32),
    "next": (-(1 << 31), 1 << 31), "imm64": (-(1 << 63), 1 << 64), "jump": (-(1 << 15), 1 << 15), "jump32": (-(1 << 31), 1 << 31),
}  # fmt: skip
_LABEL = re.compile(rf"({_NAME}):\s*")
_LOG_PREFIX = re.compile(r"(?:\d+:\s*)?(?:\([0-9a-f]{2}\)\s*)?")
_COMMENT = re.compile(r"(?:;|//).*")
_TOKEN = re.compile(r"\{[^}]+\}|\w+|[^\w\s]")


def assemble(text: str) -> list[Insn]:
    """Instructions of `text`. AsmError says which line, what is wrong with it, and the limit where there is one."""
    lines: list[tuple[int, str, Row, dict[str, str]]] = []
    labels: dict[str, int] = {}
    slot = 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = _LOG_PREFIX.sub("", _COMMENT.sub("", raw).strip(), count=1)
        while label := _LABEL.match(line):
            if label[1] in labels:
                raise AsmError(f"line {number}: label {label[1]!r} is defined twice")
            labels[label[1]] = slot
            line = line[label.end() :]
        if not line:
            continue
        row, operands = _match(number, line)
        lines.append((number, line, row, operands))
        slot += 2 if row.kind is Kind.LD_IMM64 else 1
    out: list[Insn] = []
    for number, line, row, operands in lines:
        try:
            out += _encode(row, operands, len(out), labels)
        except AsmError as error:
            raise AsmError(f"line {number}: {error} in {line!r}") from None
    return out


def _match(number: int, line: str) -> tuple[Row, dict[str, str]]:
    for pattern, row, placeholders in _patterns():
        found = pattern.fullmatch(line)
        if found is None:
            continue
        operands: dict[str, str] = {}
        for placeholder, value in zip(placeholders, found.groups(), strict=True):
            if operands.setdefault(placeholder, value) != value:
                break  # `w1 = -w2`: the same operand written twice must agree
        else:
            if row.kind is Kind.PSEUDO_CALL and operands["jump32"].startswith("bpf_"):
                continue
            return row, operands
    raise AsmError(f"line {number}: {line!r} is no BPF instruction")


@once
def _patterns() -> list[tuple[re.Pattern[str], Row, list[str]]]:
    return [(re.compile(_regex(row.text)), row, PLACEHOLDER.findall(row.text)) for row in OPCODES]


def _regex(text: str) -> str:
    out = ""
    was_word = False
    for token in _TOKEN.findall(text):
        operand = token[0] == "{"
        word = operand or token[0].isalnum() or token[0] == "_"
        if out:
            out += r"\s+" if word and was_word else r"\s*"
        out += f"({_PATTERN[token[1:-1]]})" if operand else re.escape(token)
        was_word = word
    return out


def _encode(row: Row, operands: dict[str, str], slot: int, labels: dict[str, int]) -> list[Insn]:
    fields = {"code": row.code, "dst_reg": 0, "src_reg": row.src_reg or 0, "off": row.off or 0, "imm": row.imm or 0}
    upper = 0
    for placeholder, value in operands.items():
        if placeholder[1] == ":":
            fields[f"{placeholder[2:]}_reg"] = _register(value)
        elif placeholder == "func":
            fields["imm"] = _func(value)
        elif placeholder in ("jump", "jump32"):
            fields["off" if placeholder == "jump" else "imm"] = _jump(placeholder, value, slot, labels)
        elif placeholder == "imm64":
            number = _number("imm64", value.removesuffix("ll"))
            fields["imm"], upper = _signed32(number), _signed32(number >> 32)
        elif placeholder == "next":
            upper = _number("next", value)
        else:
            number = _number(placeholder, value)
            fields["off" if placeholder == "off" else "imm"] = number if placeholder == "off" else _signed32(number)
    insn = Insn(**fields)
    return [insn, Insn(0, 0, 0, 0, upper)] if row.kind is Kind.LD_IMM64 else [insn]


def _register(text: str) -> int:
    number = int(text[1:])
    if number >= MAX_BPF_REG:
        raise AsmError(f"register {text} is beyond {text[0]}{MAX_BPF_REG - 1}")
    return number


def _func(text: str) -> int:
    _, sharp, number = text.rpartition("#")
    if sharp or number.lstrip("-").isdigit():
        return _number("imm", number)
    func_id = FUNC_IDS.get(number.removeprefix("bpf_"))
    if func_id is None:
        raise AsmError(f"no helper and no label is named {number!r}")
    return func_id


def _jump(placeholder: str, text: str, slot: int, labels: dict[str, int]) -> int:
    text = text.replace(" ", "")
    relative = text.removeprefix("pc")
    if relative[0] in "+-":
        return _number(placeholder, relative)
    if text not in labels:
        raise AsmError(f"label {text!r} is not defined")
    return _number(placeholder, str(labels[text] - slot - 1))


def _number(placeholder: str, text: str) -> int:
    digits = "".join(text.split())
    number = int(digits, 16 if "x" in digits.lower() else 10)
    low, end = _RANGE[placeholder]
    if not low <= number < end:
        raise AsmError(f"{number} is outside {low}..{end - 1}")
    return number


def _signed32(number: int) -> int:
    return ((number & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
