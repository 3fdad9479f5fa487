"""C source lines of a program, from its line_info. Kernel: kernel/bpf/log.c:verbose_linfo, kernel/bpf/verifier.c:find_linfo."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from fastrtp.errors import BtfError
from fastrtp.verifier.api import LoadAttr


class Source:
    """The records of a program, by instruction."""

    def __init__(self, attr: LoadAttr) -> None:
        self._set(attr.btf, attr.line_info)

    @classmethod
    def of(cls, btf: Any, line_info: Any) -> Source:
        """Of a program that is loaded; either may be None."""
        made = cls.__new__(cls)
        made._set(btf, line_info)
        return made

    def _set(self, btf: Any, line_info: Any) -> None:
        self._btf = btf
        rows = line_info if line_info is not None and btf is not None else ()
        whole = [tuple(int(value) for value in row) for row in rows]
        self._rows = sorted((row for row in whole if len(row) >= 4), key=lambda row: row[0])
        self._starts = [row[0] for row in self._rows]

    def place(self, insn_idx: int) -> tuple[str, int, str] | None:
        """(file without its folder, line, text) of an instruction; None where nothing is known."""
        at = bisect_right(self._starts, insn_idx) - 1
        if at < 0:
            return None
        _, file_name_off, line_off, line_col = self._rows[at][:4]
        try:
            text, name = self._btf.string(line_off).strip(), self._btf.string(file_name_off)
        except BtfError:
            return None
        return name.rsplit("/", 1)[-1], line_col >> 10, text

    def line(self, insn_idx: int) -> str:
        """`file:line: text`, "" where nothing is known."""
        place = self.place(insn_idx)
        return "" if place is None else f"{place[0]}:{place[1]}: {place[2]}"
