"""The whole pipeline on a generated log, with a summary for people."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F
from rich.console import Console
from rich.table import Table

from sparkrec import storage
from sparkrec.config import PipelineSettings
from sparkrec.configfile import override, read_yaml, validate
from sparkrec.spark.platform.keeping import kept, release
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.session import open_session
from sparkrec.stages.pipeline import PipelineResult, run
from sparkrec.stages.reporting.page import report
from sparkrec.synthetic import write_log

CONFIG = "conf/pipeline/demo.yaml"
SHOWN = ("hit_rate@10", "ndcg@10", "mrr@10", "auc", "coverage@10")


def demo(folder: str) -> None:
    """Write a log into `folder`, run conf/pipeline/demo.yaml on it, print what came out, make a page of it."""
    started = time.perf_counter()
    root = Path(folder).resolve()
    events, items = write_log(root)
    paths = [f"lake={root / 'lake'}", f"ingest.0.source.path={events}", f"evaluate.0.titles.source.path={items}"]
    console = Console()
    config = read_yaml(CONFIG)
    config["train"] = [entry for entry in config["train"] if _can_train(entry["model"], console)]
    settings = validate(PipelineSettings, override(config, paths), CONFIG)
    lake = Lake.of(settings, open_session(settings.spark))
    result = run(settings, lake)
    console.print(_rows_table(result), _metrics_table(result))
    _print_recommendations(console, lake, result, items)
    _write_report(console, settings.files, result, root / "report.html")
    console.print(f"Done in {time.perf_counter() - started:.0f} s. The lake is {settings.files}.")


def _can_train(model: dict[str, Any], console: Console) -> bool:
    """Whether what it needs is installed."""
    if "training" not in model:
        return True
    if find_spec("torch") is None:
        console.print(f"Without torch there is no {model['kind']}: pip install sparkrec[train]")
        return False
    return True


def _rows_table(result: PipelineResult) -> Table:
    batch = result.batches[0]
    table = Table(title="Rows", title_justify="left")
    table.add_column("what")
    table.add_column("rows", justify="right")
    table.add_row("in the log", f"{batch.rows + sum(batch.rejected.values()):,}")
    table.add_row("into interactions", f"{batch.rows:,}")
    for reason, count in sorted(batch.rejected.items()):
        table.add_row(f"quarantined: {reason}", f"{count:,}")
    return table


def _metrics_table(result: PipelineResult) -> Table:
    table = Table(title="Metrics on the test split (the last interaction of each user)", title_justify="left")
    table.add_column("model")
    for name in SHOWN:
        table.add_column(name, justify="right")
    for evaluation in result.evaluations:
        metrics = _facts(evaluation)["metrics"]
        table.add_row(evaluation.name, *[f"{metrics[name]:.4f}" for name in SHOWN])
    return table


def _print_recommendations(console: Console, lake: Lake, result: PipelineResult, items: Path) -> None:
    assert result.recommendations is not None
    rows = kept(lake.table("recommendations").where(F.col("run") == result.recommendations.id))
    console.print(f"\n{rows.count():,} recommendations are in the Delta table {lake.place('recommendations')}.")
    user = rows.agg(F.min("user_id")).collect()[0][0]
    names = lake.spark.read.option("header", "true").csv(str(items)).withColumnRenamed("item", "item_id")
    mine = lake.table("interactions").where(F.col("user_id") == user).join(names, "item_id")
    liked = mine.groupBy("genre").count().orderBy(F.desc("count"), "genre").collect()
    console.print(f"{user} listened to {', '.join(f'{row.genre} ({row[1]})' for row in liked)}. Ten for {user}:")
    for row in rows.where(F.col("user_id") == user).join(names, "item_id").orderBy("rank").collect():
        console.print(f"  {row['rank']:2}  {row['name']}  ({row['score']:.3f})")
    release(rows)


def _write_report(console: Console, lake: str, result: PipelineResult, page: Path) -> None:
    if not (find_spec("matplotlib") and find_spec("jinja2")):
        console.print("Without matplotlib and jinja2 there is no page of the evaluations: pip install sparkrec[plot]")
        return
    storage.write(str(page), report(lake, [evaluation.reference for evaluation in result.evaluations]).encode())
    console.print(f"The evaluations side by side, for a browser: {page}", soft_wrap=True)


def _facts(run: Any) -> dict[str, Any]:
    return dict(run.manifest)
