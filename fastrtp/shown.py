"""Things that a notebook shows as tables, without an extension being loaded: IPython asks each for its HTML.

What they look like is the notebook layer's affair, which is imported when the first is shown.
"""

from __future__ import annotations

import importlib


class Shown:
    """Mixed into what fastrtp.notebook has a table for."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        html: str = importlib.import_module("fastrtp.notebook").html_of(self)
        return html
