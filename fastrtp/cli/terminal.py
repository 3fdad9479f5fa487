"""What commands put on a terminal: consoles, progress bars, plain cells. rich is imported here, when something is printed.

Standard output has results alone; bars and remarks go to standard error. Text out of recordings and maps is made harmless
before it is printed.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.table import Table

_WIDE = 200
_PATIENCE = 1.0
"""Seconds that work may take before it gets a bar."""


def console(*, stderr: bool = False) -> Console:
    """A console for one of the streams. Without a terminal: no colours, and lines as long as they need to be."""
    import os

    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDE
    colours = {} if stream.isatty() else {"force_terminal": False, "no_color": True, "color_system": None}
    options: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "width": width} | colours
    return Console(file=stream, **options)


def unicode_output() -> bool:
    """Whether standard output takes more than ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")


def table(*columns: str, numbers: tuple[str, ...] = (), header: bool = True) -> Table:
    """A table without a frame; columns in `numbers` are set to the right."""
    from rich.table import Table

    made = Table(box=None, show_header=header, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", no_wrap=column in numbers)
    return made


def plain(value: Any) -> str:
    """A value for one line of text: escape sequences and other control characters shown as such."""
    text = value if isinstance(value, str) else str(value)
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def number(value: float) -> str:
    """An integer with separators, or a rate or time with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"


def scaled(value: float, unit: str = "") -> str:
    """12.3 M and the like, with a unit."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}{unit if unit.startswith('B') else f' {unit}'}".rstrip()
    return f"{value:.3g} {unit}".rstrip()


def seconds(value: float) -> str:
    """A duration in the unit that fits."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} us"


class Bar:
    """Progress of one piece of work, called with (done, total): a bar with rate that appears when the work takes longer than
    a second. Without a terminal there is none. `count` names what is counted ("events", "B"). A context manager.
    """

    def __init__(self, what: str, count: str, patience: float = _PATIENCE) -> None:
        self._what = what
        self._count = count
        self._start = time.monotonic()
        self._patience = patience
        self._shown: RichProgress | None = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown is not None:
            self._shown.stop()

    def __call__(self, done: int, total: int, name: str = "") -> None:
        """So much is done; `name` is what is being done now."""
        spent = time.monotonic() - self._start
        if self._shown is None:
            if spent < self._patience or not sys.stderr.isatty():
                return
            self._show()
        assert self._shown is not None
        rate = scaled(done / spent, f"{self._count}/s") if spent > 0 and self._count else name
        self._shown.update(self._task, completed=done, total=total, rate=plain(rate))

    def _show(self) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._shown = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(), console=console(stderr=True), transient=True,
        )  # fmt: skip
        self._shown.start()
        self._task = self._shown.add_task(self._what, rate="")


def need_native() -> float:
    """Build the native library unless the cache has it; seconds it took (0 when it was there).

    At a terminal that is said, and shown; not where the command prints for programs.
    """
    from fastrtp.native import library
    from fastrtp.native.progress import silent

    if library.is_built():
        return 0.0
    start = time.monotonic()
    library.ensure_built(silent if _for_programs() else None)
    return time.monotonic() - start


def _for_programs() -> bool:
    """Whether the running command was asked for JSON and the like."""
    context = click.get_current_context(silent=True)
    asked = context.params if context is not None else {}
    return asked.get("form", "table") != "table" or bool(asked.get("json")) or bool(asked.get("pretty"))
