"""`fastrtp prog dump jited`: native code under the source lines and the instructions that it is for.

Kernel: tools/bpf/bpftool/jit_disasm.c. Differs: the listing is the compiler's, so places are those of a group of instructions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.cli.introspect import Answer

if TYPE_CHECKING:
    from fastrtp.jit.annotate import Piece
    from fastrtp.kernel.objects.prog import BpfProg

OPTIONS = frozenset({"opcodes", "linum", "bpf"})
_SOURCE = ("src", "file", "line_num", "line_col")


def jited(prog: BpfProg, rows: Mapping[int, dict[str, Any]], options: Sequence[str]) -> Answer:
    """The listing. `rows`: the dump of the instructions, by index. `options`: "linum" says where source lines are, "bpf" shows
    instructions, "opcodes" the bytes.
    """
    from fastrtp.kernel.objects.kallsyms import prog_symbol

    name = prog_symbol(prog)
    insns: list[dict[str, Any]] = []
    lines = [f"{name}:"]
    for piece, source in _with_source(prog.native.annotated.pieces, rows):
        row = rows.get(piece.insn) if piece.insn is not None else None
        lines += _text(piece, source, row, options)
        for number, line in enumerate(piece.lines):
            operation, _, operands = line.partition(" ")
            insn: dict[str, Any] = {"operation": operation, "operands": [part.strip() for part in operands.split(",") if part]}
            if number == 0:
                insn |= _plain(piece, source, row, options)
            insns.append(insn)
    return Answer([{"name": name, "insns": insns}], "\n".join(lines))


def _with_source(pieces: Sequence[Piece], rows: Mapping[int, dict[str, Any]]) -> Iterator[tuple[Piece, dict[str, Any] | None]]:
    """Each piece, and its source line where that is another one than before."""
    known = sorted(index for index, row in rows.items() if "src" in row)
    last: int | None = None
    for piece in pieces:
        at = max((index for index in known if piece.insn is not None and index <= piece.insn), default=None)
        yield piece, rows[at] if at is not None and at != last else None
        last = last if at is None else at


def _text(piece: Piece, source: dict[str, Any] | None, row: dict[str, Any] | None, options: Sequence[str]) -> list[str]:
    lines = [f"{piece.label}:"] if piece.label and piece.label.startswith(".L") else []
    if source is not None:
        place = (
            f" [file:{source['file']} line_num:{source['line_num']} line_col:{source['line_col']}]" if "linum" in options else ""
        )
        lines.append(f"; {source['src']}{place}")
    if row is not None and "bpf" in options:
        lines.append(f"{row['index']:>4}: {row['disasm']}")
    if "opcodes" in options and piece.code:
        lines.append(f"{piece.offset:>4x}:\t{piece.code.hex(' ')}")
    return lines + [f"\t{line}" for line in piece.lines]


def _plain(piece: Piece, source: dict[str, Any] | None, row: dict[str, Any] | None, options: Sequence[str]) -> dict[str, Any]:
    made: dict[str, Any] = {"pc": f"{piece.offset:#x}"} if piece.offset >= 0 else {}
    if source is not None:
        made |= {name: source[name] for name in (_SOURCE if "linum" in options else _SOURCE[:1])}
    if row is not None and "bpf" in options:
        made |= {"index": row["index"], "disasm": row["disasm"]}
    if "opcodes" in options and piece.code:
        made["opcodes"] = [f"{byte:#04x}" for byte in piece.code]
    return made
