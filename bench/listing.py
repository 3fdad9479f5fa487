"""A compiled program in three columns: its C lines, the BPF instructions of each, the native ones that these became."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from fastrtp.isa import print_bpf_insn
from fastrtp.jit.annotate import source_line

if TYPE_CHECKING:
    from fastrtp.kernel.prog import BpfProg

_LD_IMM64 = 0x18
_PRE = "<td style='text-align:left;vertical-align:top;white-space:pre;font-family:monospace'>"

Row = tuple[str, list[str], list[str]]
"""(C line, BPF instructions, native instructions)"""


def c_lines(prog: BpfProg) -> dict[int, str]:
    """Source line by instruction, from the program's line_info."""
    aux = prog.aux
    if aux.btf is None or aux.line_info is None:
        return {}
    btf = aux.btf.btf
    return {at: btf.string(text).strip() for at, _file, text, _place in aux.line_info.tolist()}


def rows(prog: BpfProg) -> list[Row]:
    """In the order of the native code: the compiler moves things, so a line may come up again. JitError."""
    lines, insns = c_lines(prog), prog.verified.insns
    found: list[Row] = []
    shown: set[int] = set()
    for piece in prog.native.annotated.pieces:
        line = source_line(piece.insn, lines) if piece.insn is not None else found[-1][0] if found else ""
        if not found or found[-1][0] != line:
            found.append((line, [], []))
        _, bpf, native = found[-1]
        if piece.insn is not None and piece.insn not in shown:
            shown.add(piece.insn)
            following = insns[piece.insn + 1] if insns[piece.insn].code == _LD_IMM64 else None
            bpf.append(f"{piece.insn:3}: {print_bpf_insn(insns[piece.insn], following)}")
        native += [f"{piece.label}:"] * bool(piece.label) + [f"  {text.expandtabs()}" for text in piece.lines]
    return [row for row in found if row[2]]


def listing_html(prog: BpfProg) -> str:
    """The three columns as an HTML table."""
    body = "".join(
        f"<tr>{_PRE}{html.escape(line)}</td>" + "".join(f"{_PRE}{html.escape(chr(10).join(cell))}</td>" for cell in (bpf, native))
        + "</tr>"
        for line, bpf, native in rows(prog)
    )  # fmt: skip
    heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in ("C", "BPF", "native"))
    return f"<table style='font-size:85%'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
