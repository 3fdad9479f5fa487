"""Fixtures for every test."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the checkout; tests that need it are skipped where it is not."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "semantics.md").is_file():
        pytest.skip("no reference material beside the checkout (../shared)")
    return folder
