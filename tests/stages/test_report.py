"""The page about evaluations: what is in it, and that a browser shows it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from sparkrec import storage
from sparkrec.cli import main
from sparkrec.errors import ConfigError, InputError
from sparkrec.stages.report import report

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
IDS = {"plain": "0123456789ab", "good": "ab0123456789", "other": "cd0123456789"}


def publish(lake, name, lift, seed=0, dataset="shop@111111111111", users=400, keep=True, history=()):
    """A finished evaluation, whose users have values of ndcg and recall at 5 and 10."""
    rng = np.random.default_rng(7)
    values = {f"{metric}@{k}": rng.random(users) * 0.2 for metric in ("ndcg", "recall") for k in (5, 10)}
    values = {each: own + lift + 0.02 * np.random.default_rng(seed).normal(size=users) for each, own in values.items()}
    means = {each: float(own.mean()) for each, own in values.items()}
    figures = {"users": users, **means, "coverage@10": 0.4}
    about = {"model": f"{name}@{IDS[name]}", "kind": "als", "dataset": dataset, "split": "test", "protocol": "full"}
    segments = {"all": figures, **{f"users:{group}/2": {"users": 200, **means} for group in (1, 2)}}
    intervals = {segment: {each: [mean - 0.01, mean + 0.01] for each, mean in means.items()} for segment in segments}
    examples = [{"user": "<b>ann</b>", "had": ["i1"], "recommended": ["i2", "i3"], "held_out": ["i3"]}]
    folder = f"{lake}/evaluations/{name}/{IDS[name]}"
    storage.write_json(
        f"{folder}/metrics.json", about | {"segments": segments, "intervals": intervals, "examples": examples}
    )
    run = {"id": IDS[name], "finished": 1.0, "settings": {}, "name": name}
    storage.write_json(f"{folder}/manifest.json", run | {"inputs": {"model": f"{name}@{IDS[name]}"}})
    trained = run | {"inputs": {}, "facts": {"history": list(history)}}
    storage.write_json(f"{lake}/models/{name}/{IDS[name]}/manifest.json", trained)
    if keep:
        table = pa.table({"user": np.random.default_rng(seed).permutation(users)} | values)
        order = {"user": np.arange(users)} | values
        storage.write(f"{folder}/users/part-0.parquet", storage.parquet(pa.table(order) if seed == 0 else table))


@pytest.fixture
def lake(tmp_path):
    root = str(tmp_path / "lake")
    publish(root, "plain", 0.0)
    history = [{"epoch": n, "loss": 1 / n, **({"ndcg@10": n / 10} if n % 2 == 0 else {})} for n in range(1, 5)]
    publish(root, "good", 0.01, history=history)
    return root


class Page(HTMLParser):
    """Tables by id, each a list of rows of cells; classes of cells; titles; plots."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.classes, self.titles, self.plots, self.links = {}, [], [], 0, []
        self.rows, self.into = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [value for name, value in attributes.items() if name in ("src", "href") and value[0] != "#"]
        if tag == "table":
            self.rows = self.tables.setdefault(attributes.get("id") or f"example {len(self.tables)}", [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.classes.append(attributes.get("class"))
        self.plots += tag == "svg"
        self.into = tag

    def handle_data(self, data):
        if self.into == "h2":
            self.titles.append(data.strip())
        elif self.into in ("td", "th", "small", "span") and self.rows:
            self.rows[-1][-1] += data
        if self.into == "h2":
            self.into = None


def test_figures_intervals_and_differences_are_there(lake):
    page = Page(report(lake, ["plain", "good@ab0123456789"]))
    rows = {row[0]: row[1:] for row in page.tables["metrics"]}
    about = [
        json.loads(storage.read(f"{lake}/evaluations/{name}/{IDS[name]}/metrics.json")) for name in ("plain", "good")
    ]
    values = [each["segments"]["all"]["ndcg@10"] for each in about]
    assert f"{values[0]:.4f}" in rows["ndcg@10"][0]
    assert f"{values[0] - 0.01:.4f} to {values[0] + 0.01:.4f}" in rows["ndcg@10"][0]
    assert f"{values[1] - values[0]:+.4f}, p = " in rows["ndcg@10"][1]
    assert page.classes.count("better") == 4
    assert page.titles == [
        "Metrics", "By cutoff", "By segment", "What is shown", "Training", "Example recommendations"
    ]  # fmt: skip
    assert page.plots == 2 + 2 + 1 + 2
    assert page.links == []


def test_what_does_not_differ_is_not_called_better(lake):
    publish(lake, "other", 0.0)
    page = Page(report(lake, ["plain", "other"]))
    assert "better" not in page.classes
    assert "worse" not in page.classes
    assert "+0.0000, p = 1" in page.tables["metrics"][1][2]
    assert "worse" in Page(report(lake, ["good", "other"])).classes


def test_names_from_the_log_are_text(lake):
    text = report(lake, ["plain"])
    assert "<b>ann" not in text
    assert "&lt;b&gt;ann" in text


def test_runs_that_are_not_comparable_are_said_to_be_so(lake):
    publish(lake, "other", 0.1, dataset="else@222222222222", keep=False)
    text = report(lake, ["plain", "other"])
    assert "The runs are of more than one dataset" in text
    assert "Evaluate all runs with keep_users: true" in text
    assert "better" not in Page(text).classes


def test_what_cannot_be_shown_is_an_error(lake):
    with pytest.raises(InputError, match="there is no finished evaluate run 'nothing'"):
        report(lake, ["nothing"])
    for name in ("../plain", "plain@x", ""):
        with pytest.raises(ConfigError, match=f"found {re.escape(repr(name))}, expected the name of an evaluation"):
            report(lake, [name])
    storage.write_json(f"{lake}/evaluations/plain/{IDS['plain']}/metrics.json", {"segments": {}})
    with pytest.raises(InputError, match="made by an earlier version"):
        report(lake, ["plain"])


def test_the_command_writes_a_file(lake, tmp_path, monkeypatch, capsys):
    target = tmp_path / "out" / "page.html"
    monkeypatch.setattr("sys.argv", ["sparkrec", "report", "plain", "good", "--lake", lake, "--output", str(target)])
    main()
    assert capsys.readouterr().out.strip() == str(target)
    assert target.read_text().startswith("<!doctype html>")


def test_a_browser_shows_it(lake, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    target = tmp_path / "page.html"
    target.write_text(report(lake, ["plain", "good"]))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{target}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    page = Page(ended.stdout)
    assert [row[0] for row in page.tables["metrics"]][:2] == ["metric", "ndcg@5"]
    assert page.plots == 7
