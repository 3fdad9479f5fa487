"""`fastrtp verify --effects`: what programs do to maps, and whether the order of events on different CPUs matters to that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.cli.terminal import plain, table

if TYPE_CHECKING:
    from rich.console import Console

    from fastrtp.cli.verify import Verdict
    from fastrtp.effects import Access
    from fastrtp.kernel.objects.prog import BpfProg


def effect_rows(prog: BpfProg) -> tuple[list[dict[str, Any]], list[str]]:
    """(what the program does to each map, what of that does not commute with itself on another CPU), JSON-ready."""
    from fastrtp.effects import conflicts

    member = prog.effects_member()
    found = conflicts([member])
    rows = []
    for index, used in enumerate(member.maps):
        does = [access for access in member.effects.of_map(index) if access.map is not None]
        if not does:
            continue
        rows.append({
            "map": used.name,
            "type": used.map_type.name.removeprefix("BPF_MAP_TYPE_").lower(),
            "does": list(dict.fromkeys(_text(access) for access in does)),
            "commutes": not any(conflict.map == used.name for conflict in found),
        })  # fmt: skip
    return rows, [str(conflict) for conflict in found]


def _text(access: Access) -> str:
    return f"{access.what} (its own CPU's part)" if access.own else str(access.what)


def print_effects(out: Console, verdicts: Sequence[Verdict]) -> None:
    """A row for each program and map, and the reasons below."""
    rows = table("program", "map", "type", "what it does", "commutes")
    for verdict in verdicts:
        for row in verdict.effects or ():
            rows.add_row(
                plain(verdict.program), plain(row["map"]), row["type"], ", ".join(row["does"]), "yes" if row["commutes"] else "no"
            )
    out.print()
    out.print(rows)
    for verdict in verdicts:
        for line in verdict.ordered or ():
            out.print(plain(line), soft_wrap=True, style="dim")
