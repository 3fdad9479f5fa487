"""Kallsyms: the symbols of the recorded machine, parsed when first asked for."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple


class Symbol(NamedTuple):
    """A kernel symbol and the distance of an address from its start; `module` is "" for the kernel itself."""

    name: str
    offset: int
    module: str


class Kallsyms:
    """Symbols from the text of /proc/kallsyms. Kernel: kernel/kallsyms.c:s_show."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    @cached_property
    def _sorted(self) -> tuple[list[int], list[str]]:
        rows: list[tuple[int, str]] = []
        for line in self._text.decode("utf-8", "replace").splitlines():
            address, _, rest = line.partition(" ")
            try:
                value = int(address, 16)
            except ValueError:
                continue
            if value and len(rest) > 2:
                rows.append((value, rest[2:]))
        rows.sort(key=lambda row: row[0])
        return [value for value, _ in rows], [name for _, name in rows]

    def __len__(self) -> int:
        return len(self._sorted[0])

    def lookup(self, address: int) -> Symbol | None:
        """The symbol that `address` lies in, None below the first one."""
        addresses, names = self._sorted
        index = bisect_right(addresses, address) - 1
        if index < 0:
            return None
        name, _, module = names[index].partition("\t")
        return Symbol(name.strip(), address - addresses[index], module.strip("[] \n"))

    def address(self, name: str) -> int | None:
        """Address of the first symbol called `name`."""
        addresses, names = self._sorted
        for value, text in zip(addresses, names, strict=True):
            if text == name or text.partition("\t")[0] == name:
                return value
        return None
