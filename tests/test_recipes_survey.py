"""record/recipes/survey.py: what recordings tell of each event, and the file that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastrtp.cli import main
from fastrtp.record.recipes.data import add, forget
from fastrtp.record.recipes.survey import markdown, survey

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_is_the_shipped_recipes_table() -> None:
    """Mended by: fastrtp recipes table --format markdown > RECIPES.md"""
    assert (ROOT / "RECIPES.md").read_text() == markdown()


def test_what_a_field_does_not_tell_is_named() -> None:
    """For both kernels; a recipe by hand tells what the source alone does not."""
    rows = {(row.event, row.kernel.rpartition(".")[0]): row for row in survey()}

    for kernel in ("6.1", "6.12"):
        assert rows["net_dev_xmit", kernel].status == "exact"
        assert rows["net_dev_xmit_timeout", kernel].lacks == ("driver",)
        assert (rows["sched_switch", kernel].status, rows["sched_switch", kernel].by_hand) == ("exact", True)


def test_added_recipes_are_not_in_the_table() -> None:
    """It is of the files."""
    add("survey_event", "int a", a="a")
    try:
        assert all(row.event != "survey_event" for row in survey())
    finally:
        forget("survey_event")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["recipes", "table", "net:net_dev_xmit*", "--format", "json"])

    rows = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert {(row["event"], row["status"]) for row in rows} == {("net_dev_xmit", "exact"), ("net_dev_xmit_timeout", "partial")}


def test_names_that_begin_with_digits_are_whole() -> None:
    names = {row.event for row in survey()}

    assert {"9p_client_req", "9p_client_res"} <= names
    assert not [name for name in names if not name.replace("_", "a").isalnum()]
