"""ARCHITECTURE.md and CONTRIBUTING.md name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastrtp.btf.kfuncs import EVERY
from fastrtp.cli.support import markdown, rows
from fastrtp.helpers.sources import HELPER_SOURCES
from fastrtp.helpers.table import HELPERS
from tests.test_layers import LAYERS

ROOT = Path(__file__).parent.parent
PATH = re.compile(r"`((?:fastrtp|tests|kernel|verifier|replay|record|native|maps)/[\w./]+?)(?:`|\s)")


def paths(document: str) -> set[str]:
    """Files and folders that a document names in code."""
    found = set(PATH.findall((ROOT / document).read_text()))
    assert len(found) > 10
    return found


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_path_that_is_named_exists(document: str) -> None:
    """A file that moves takes its mention along."""
    missing = {path for path in paths(document) if not (ROOT / path).exists() and not (ROOT / "fastrtp" / path).exists()}

    assert not missing


def test_the_support_table_is_what_the_tables_say() -> None:
    """Mended by: fastrtp support --format markdown > SUPPORT.md"""
    assert (ROOT / "SUPPORT.md").read_text() == markdown()


def test_every_helper_and_kernel_function_is_in_the_table() -> None:
    told = {row.name for row in rows()}

    assert {f"bpf_{proto.name}" for proto in HELPERS.values() if proto.proto} <= told
    assert EVERY.keys() <= told
    assert all(row.note for row in rows())
    assert HELPER_SOURCES.keys() == {proto.name for proto in HELPERS.values() if proto.proto and not proto.never}


def test_every_layer_is_told() -> None:
    """A package that is added has its row in the table."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    told = {name for layer in LAYERS for name in layer if f"`fastrtp/{name}" in text}

    assert told == {name for layer in LAYERS for name in layer} - {"__init__", "__main__"}
