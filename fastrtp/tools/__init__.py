"""Tools: questions that are asked of recordings again and again, each a program in C, an object beside it, and a row of a table.

`rtp.tools.runqlat("trace.dat")` gives a data frame, `answer("runqlat", "trace.dat")` what stands behind it, and
`fastrtp tool runqlat trace.dat` prints it. What a recording cannot tell is in the frame's `.attrs["notes"]`.

>>> slow = rtp.tools.runqslower("trace.dat", min_us=8000)
>>> len(slow), slow.attrs["notes"]
(81, [])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .table import TOOLS
from .tool import Answer, Option, Tool

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]

    from fastrtp.record import Recording


def answer(name: str, recording: str | os.PathLike[str] | Recording, **options: Any) -> Answer:
    """What a tool finds in a recording. KeyError for a name that is none; see `Tool.answer`.

    >>> rtp.tools.answer("softirqs", "trace.dat")
    <Answer of softirqs: 3 rows>
    """
    return TOOLS[name].answer(recording, **options)


def _function(tool: Tool) -> Callable[..., pd.DataFrame]:
    def ask(recording: str | os.PathLike[str] | Recording, **options: Any) -> pd.DataFrame:
        return tool.answer(recording, **options).frame()

    options = "".join(f"\n    {one.name}: {one.help}" for one in tool.options)
    ask.__doc__ = f"{tool.summary} A pandas DataFrame.\n\n    recording: a path, or a Recording that is open.{options}\n"
    ask.__name__ = ask.__qualname__ = tool.name
    ask.__signature__ = tool.signature  # type: ignore[attr-defined]
    return ask


def __getattr__(name: str) -> Any:
    if name not in TOOLS:
        raise AttributeError(f"there is no tool {name!r}, there are: {', '.join(TOOLS)}")
    found = globals()[name] = _function(TOOLS[name])
    return found


def __dir__() -> list[str]:
    return sorted([*TOOLS, "TOOLS", "Answer", "Option", "Tool", "answer"])


__all__ = ["TOOLS", "Answer", "Option", "Tool", "answer"]
