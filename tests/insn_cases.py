"""Reader of tests/data/insn (its README has the format)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "data" / "insn"


@dataclass
class Case:
    """One case; `sections` by name, as text."""

    name: str
    sections: dict[str, str] = field(default_factory=dict)

    @property
    def asm(self) -> str:
        """Program text."""
        return self.sections["asm"]

    @property
    def mem(self) -> bytes:
        """Memory at the start."""
        return bytes.fromhex(self.sections.get("mem", ""))

    @property
    def result(self) -> int:
        """r0 at exit."""
        return int(self.sections["result"], 0)


def read_cases() -> list[Case]:
    """All cases, in file order."""
    cases: list[Case] = []
    for path in sorted(FOLDER.glob("*.txt")):
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("== "):
                cases.append(Case(f"{path.stem}: {line[3:]}"))
            elif line.startswith("-- "):
                section = line[3:]
                cases[-1].sections[section] = ""
            elif section and not line.startswith("#"):
                cases[-1].sections[section] = f"{cases[-1].sections[section]}{line}\n".lstrip("\n")
    return cases
