"""A compiled program in three columns: its C lines, the BPF instructions of each, the native ones that these became."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from fastrtp.isa import print_bpf_insn
from fastrtp.jit.annotate import source_line

if TYPE_CHECKING:
    from fastrtp.kernel.objects.prog import BpfProg

_LD_IMM64 = 0x18
_PRE = "<td style='text-align:left;vertical-align:top;white-space:pre;font-family:monospace'>"

Row = tuple[str, str, list[str]]
"""(C line where it is another than the row's before, BPF instruction, native instructions)"""


def c_lines(prog: BpfProg) -> dict[int, str]:
    """Source line by instruction, from the program's line_info."""
    aux = prog.aux
    if aux.btf is None or aux.line_info is None:
        return {}
    btf = aux.btf.btf
    return {at: btf.string(text).strip() for at, _file, text, _place in aux.line_info.tolist()}


def rows(prog: BpfProg) -> list[Row]:
    """In the order of the native code: the compiler moves things, so a line or an instruction may come up again. JitError."""
    lines, insns = c_lines(prog), prog.verified.insns
    found: list[tuple[str, int | None, list[str]]] = []
    for piece in prog.native.annotated.pieces:
        native = [f"{piece.label}:"] * bool(piece.label) + [f"  {text.expandtabs()}" for text in piece.lines]
        if found and piece.insn in (None, found[-1][1]):
            found[-1][2].extend(native)
        else:
            found.append((source_line(piece.insn, lines) if piece.insn is not None else "", piece.insn, native))
    made: list[Row] = []
    last = ""
    for line, insn, native in found:
        text = ""
        if insn is not None:
            text = f"{insn:3}: {print_bpf_insn(insns[insn], insns[insn + 1] if insns[insn].code == _LD_IMM64 else None)}"
        made.append((line if line != last else "", text, native))
        last = line or last
    return made


def listing_html(prog: BpfProg) -> str:
    """The three columns as an HTML table."""
    body = "".join(f"<tr>{_cell(line)}{_cell(bpf)}{_cell(chr(10).join(native))}</tr>" for line, bpf, native in rows(prog))
    heads = "".join(f"<th style='text-align:left'>{head}</th>" for head in ("C", "BPF", "native"))
    return f"<table style='font-size:85%'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    return f"{_PRE}{html.escape(text)}</td>"
