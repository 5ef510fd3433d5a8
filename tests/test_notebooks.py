"""The notebooks run from top to bottom, with stand-ins for what Databricks gives them."""

import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.connecting import on_connect

pytestmark = [pytest.mark.spark, pytest.mark.slow]

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NEEDS = {"train_a_network": ["torch"], "read_a_report": ["matplotlib", "jinja2"]}
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


class Databricks:
    """Stand-ins for `display`, `displayHTML` and `dbutils`: what is shown is computed and kept."""

    def __init__(self, folder):
        self.folder, self.shown, self.pages = folder, [], []
        self.widgets = self

    def given(self, **more):
        """Names that a notebook finds."""
        return {"display": self.display, "displayHTML": self.pages.append, "dbutils": self, **more}

    def display(self, frame):
        self.shown.append(frame.collect())

    def text(self, name, default):
        assert default.startswith({"folder": "/Volumes/main/recsys/", "schema": "main.recsys"}[name])

    def get(self, name):
        return {"folder": str(self.folder), "schema": "notebook"}[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(spark, name, tmp_path):
    for module in NEEDS.get(name, []):
        pytest.importorskip(module)
    databricks = Databricks(tmp_path)
    spark.sql(f"CREATE SCHEMA IF NOT EXISTS notebook LOCATION '{tmp_path / 'notebook'}'")
    try:
        names = runpy.run_path(str(NOTEBOOKS / f"{name}.py"), databricks.given(spark=spark))
    finally:
        spark.sql("DROP SCHEMA notebook CASCADE")
    assert all(databricks.shown), "an empty table was shown"
    assert databricks.shown or databricks.pages
    for page in databricks.pages:
        HTMLParser().feed(page)
        assert "plays-als" in page
        assert "plays-popularity" in page
    if name == "train_a_network":
        ndcg = [table.where("metric = 'ndcg'").first().value for table in names["measured"].values()]
        assert ndcg[0] > ndcg[1]


ON_CONNECT = """
import runpy
from tests import refusing
from tests.test_notebooks import Databricks

refusing.refuse()
folder, *paths = given
for path in paths:
    databricks = Databricks(folder)
    runpy.run_path(path, databricks.given(spark=spark))
    say([len(rows) for rows in databricks.shown])
"""


def test_notebooks_of_dataframes_run_where_a_session_keeps_nothing(tmp_path):
    """On a Connect session that refuses what serverless compute refuses."""
    paths = [str(NOTEBOOKS / f"{name}.py") for name in ("first_steps", "als_from_mllib")]
    shown, log = on_connect(ON_CONNECT, [str(tmp_path), *paths], tmp_path, {}, timeout=400)
    assert shown == [[12, 3, 2, 5, 2], [5, 40, 3, 40, 20, 5]], log[-4000:]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_one_that_databricks_reads(name):
    lines = (NOTEBOOKS / f"{name}.py").read_text().splitlines()
    assert lines[:2] == ["# Databricks notebook source", "# MAGIC %md"]
    assert "# COMMAND ----------" in lines
