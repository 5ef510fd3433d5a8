"""The page about evaluations: what is in it, and that a browser shows it."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from sparkrec import storage
from sparkrec.cli import main
from sparkrec.errors import ConfigError, InputError
from sparkrec.stages.reporting.page import report
from tests.stages.pages import Page, browse, measured

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
IDS = {"plain": "0123456789ab", "good": "ab0123456789", "other": "cd0123456789"}


def publish(lake, name, lift, seed=0, dataset="shop@111111111111", users=400, keep=True, history=(), id=None, **more):
    """A finished evaluation, whose users have values of ndcg and recall at 5 and 10."""
    id = id or IDS[name]
    rng = np.random.default_rng(7)
    values = {f"{metric}@{k}": rng.random(users) * 0.2 for metric in ("ndcg", "recall") for k in (5, 10)}
    values = {each: own + lift + 0.02 * np.random.default_rng(seed).normal(size=users) for each, own in values.items()}
    means = {each: float(own.mean()) for each, own in values.items()}
    figures = {"users": users, **means, "coverage@10": 0.4}
    about = {"model": f"{name}@{id}", "kind": "als", "dataset": dataset, "split": "test", "protocol": "full"}
    segments = {
        "all": figures,
        **{f"{side}:{group}/2": {"users": 200, **means} for side in ("users", "items") for group in (1, 2)},
    }
    intervals = {segment: {each: [mean - 0.01, mean + 0.01] for each, mean in means.items()} for segment in segments}
    examples = [{"user": "<b>ann</b>", "had": ["i1"], "recommended": ["i2", "i3"], "held_out": ["i3"]}]
    folder = f"{lake}/evaluations/{name}/{id}"
    storage.write_json(
        f"{folder}/metrics.json", about | {"segments": segments, "intervals": intervals, "examples": examples} | more
    )
    run = {"id": id, "finished": 1.0, "settings": {}, "name": name}
    storage.write_json(f"{folder}/manifest.json", run | {"inputs": {"model": f"{name}@{id}"}})
    trained = run | {"inputs": {}, "facts": {"history": list(history)}, "seconds": 83.0}
    storage.write_json(f"{lake}/models/{name}/{id}/manifest.json", trained)
    storage.write(f"{lake}/models/{name}/{id}/users/part-0.parquet", b"0" * 4_000_000)
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


def test_figures_intervals_and_differences_are_there(lake):
    page = Page(report(lake, ["plain", "good@ab0123456789"]))
    rows = {row[0]: row[1:] for row in page.tables["metrics"]}
    about = [
        json.loads(storage.read(f"{lake}/evaluations/{name}/{IDS[name]}/metrics.json")) for name in ("plain", "good")
    ]
    values = [each["segments"]["all"]["ndcg@10"] for each in about]
    assert f"{values[0]:.4f}" in rows["ndcg@10"][0]
    assert f"{values[0] - 0.01:.4f} to {values[0] + 0.01:.4f}" in rows["ndcg@10"][0]
    assert f"{values[1] - values[0]:+.4f}, p < 0.001" in rows["ndcg@10"][1]
    assert page.classes.count("better") == 4
    assert page.titles == [
        "Metrics", "By cutoff", "By segment", "What is shown", "Training", "Example recommendations",
        "What was measured",
    ]  # fmt: skip
    assert page.plots == 2 + 2 + 2 + 1 + 2
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
    assert "p = " not in text
    assert "better" not in Page(text).classes


def test_without_users_nothing_is_sure(lake):
    publish(lake, "other", 0.1, keep=False)
    text = report(lake, ["plain", "other"])
    assert "Evaluate all runs with keep_users: true" in text
    assert "other has the best figure; whether it is surely better than the others cannot be told" in text


def test_the_best_run_comes_first_with_how_sure_that_is_and_what_it_costs(lake):
    publish(lake, "other", 0.01, seed=0)
    page = report(lake, ["plain", "good", "other"])
    rows = Page(page).tables["ranking"]
    assert "good is surely better than plain, but not surely better than other." in page
    assert [row[0].lstrip("●■▲") for row in rows[1:]] == ["good", "other", "plain"]
    assert rows[1][3:] == ["best", "1 min 23 s", "4 MB"]
    assert rows[2][3].startswith("not surely worse than good (p = 1")
    assert rows[3][3].startswith("surely worse than good (p < 0.001)")


def test_an_error_is_better_when_it_is_lower(lake):
    for name, id, rmse in (("plain", "1" * 12, 0.9), ("good", "2" * 12, 0.8)):
        segments = {"all": {"users": 400, "rmse": rmse}}
        publish(lake, name, 0.0, id=id, segments=segments, intervals={}, keep=False)
    rows = Page(report(lake, ["plain@" + "1" * 12, "good@" + "2" * 12])).tables["ranking"]
    assert [row[0][1:] for row in rows[1:]] == ["good", "plain"]


def test_names_have_an_id_only_where_two_are_alike(lake):
    publish(lake, "plain", 0.0, id="ee0123456789")
    shown = Page(report(lake, ["plain@0123456789ab", "plain@ee0123456789", "good"])).tables["metrics"][0]
    assert [each.lstrip("●■▲") for each in shown] == ["metric", "plain@0123456789ab", "plain@ee0123456789", "good"]


def test_segments_and_items_are_called_what_they_are(lake):
    publish(lake, "other", 0.0, titles={"i2": "Kind of <Blue>"})
    text = report(lake, ["other"])
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]*>|<!--.*?-->", " ", text))
    for words in ("users with the fewest events", "users with the most events", "items with the fewest events"):
        assert words in plain
    assert "users:1/2" not in text
    assert '<span title="i2">Kind of &lt;Blue&gt;</span></span>, <span class="hit">i3</span>' in text


def test_many_runs_are_in_tables_that_fit_on_paper(lake):
    names = [f"plain@{n:012}" for n in range(9)]
    for n, name in enumerate(names):
        publish(lake, "plain", 0.001 * n, id=name.partition("@")[2], keep=False)
    page = Page(report(lake, names))
    assert [len(page.tables[each][0]) for each in ("metrics", "metrics-2")] == [6, 5]


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


def test_without_a_folder_the_file_lies_where_the_command_runs(lake, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["sparkrec", "report", "plain", "--lake", lake])
    main()
    assert capsys.readouterr().out.strip() == "report.html"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_iterations_are_steps_of_training_as_epochs_are(lake):
    rows = [{"iteration": n, "loss": 10.0 / n, "seconds": 0.5} for n in range(1, 4)]
    publish(lake, "other", 0.0, history=rows)
    both = report(lake, ["other", "good"])
    assert ">iteration<" in both
    assert ">epoch<" in both


def test_a_browser_shows_it(lake, tmp_path):
    target = tmp_path / "page.html"
    target.write_text(report(lake, ["plain", "good"]))
    page = Page(browse(tmp_path, "--dump-dom", f"file://{target}"))
    assert [row[0] for row in page.tables["metrics"]][:2] == ["metric", "ndcg@5"]
    assert page.plots == 9


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_is_as_wide_as_the_screen_and_its_text_is_large_enough(lake, tmp_path, width):
    shown = measured(report(lake, ["plain", "good"]), tmp_path, width)
    assert shown["wide"] <= width
    assert shown["smallest"] > 9


def test_the_page_can_be_printed(lake, tmp_path):
    target = tmp_path / "page.html"
    target.write_text(report(lake, ["plain", "good"]))
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'page.pdf'}", f"file://{target}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
