"""From one night to the next: who becomes champion, what is served, and what happens when things go wrong."""

import datetime as dt
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from pyspark.errors import PySparkException
from pyspark.sql import Row
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.cli import main, stages
from sparkrec.config import Check, DriftChecks, RetrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import InputError, NoSpace, Refused
from sparkrec.spark.platform.lake import Lake
from sparkrec.stages.ledger import Ledger
from sparkrec.stages.retraining import champions, lease, notifying, serve
from sparkrec.stages.retraining import retrain as nights
from sparkrec.stages.retraining.challenger import is_cold_turn
from sparkrec.stages.retraining.champions import champion, history, rollback_by_name
from sparkrec.stages.retraining.drift import measure_served
from sparkrec.stages.retraining.lease import held
from sparkrec.stages.retraining.retrain import retrain
from sparkrec.stages.retraining.status import status
from tests.conftest import QUICK_JVM
from tests.pipeline.processes import kill_after

pytestmark = [pytest.mark.spark, pytest.mark.slow]

DAY = 86400
START = 1_700_000_000
GROUPS, USERS, ITEMS = 4, 120, 48


def write_days(folder, first, last):
    """A log of some days: each user has an item of its own group every day, in an order of its own."""
    rng = np.random.default_rng([first, last])
    rows = ["user,item,time"]
    for day in range(first, last):
        for user in range(USERS):
            own = rng.integers(ITEMS // GROUPS) * GROUPS + user % GROUPS
            rows.append(f"u{user},i{own},{START + day * DAY + user}")
    path = folder / f"days-{first}.csv"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    return [write_days(folder, *span) for span in ((0, 5), (5, 7), (7, 8))]


def of_night(lake, paths, kind="itemknn", **more):
    """Settings of a night that takes these files in, each a batch of its own."""
    columns = {"user": "user", "item": "item", "timestamp": "time"}
    raw = {
        "lake": lake.root,
        "name": "shop",
        "ingest": [
            {
                "source": {"path": path, "format": "csv"},
                "columns": columns,
                "timestamp_format": "seconds",
                "batch": f"b{at}",
            }
            for at, path in enumerate(paths)
        ],
        "prepare": {"dataset": "shop", "split": {"kind": "recent", "test": 1}},
        "train": {"model": {"kind": kind}},
        "recommend": {"k": 4},
        "gate": {"margin": 0.1, "metric": "ndcg@5"},
    }
    return validate(RetrainSettings, {**raw, **more}, "test")


def served(lake):
    """Model and lists that are served."""
    (model,) = {row.model for row in lake.table("served").select("model").distinct().collect()}
    return model, lake.table("served").count()


@pytest.fixture(scope="module")
def shop(spark, tmp_path_factory):
    return Lake(spark, str(tmp_path_factory.mktemp("shop") / "lake"))


def test_nights_of_a_shop(shop, days):
    """First, unchanged, better, worse, rolled back, and what was rolled back stays away."""
    lake = shop
    first = retrain(of_night(lake, days[:1], "popularity"), lake)
    assert (first.outcome, first.exit_code) == ("promoted", 0)
    assert "there was no champion" in first.reason
    assert served(lake) == (first.challenger, USERS * 4)

    again = retrain(of_night(lake, days[:1], "popularity"), lake)
    assert (again.outcome, again.exit_code, again.champion) == ("unchanged", 0, first.challenger)

    better = retrain(of_night(lake, days[:2]), lake)
    assert better.outcome == "promoted", better.reason
    assert better.metrics["low"] > 0
    assert better.metrics["champion_ndcg@5"] < better.metrics["challenger_ndcg@5"]
    assert better.metrics["margin"] == 0.1
    assert better.metrics["champion_served"] == better.metrics["challenger_served"] == 1.0
    assert better.metrics["lists_coverage@4"] > first.metrics["lists_coverage@4"]
    assert better.metrics["lists_popularity@4"] < first.metrics["lists_popularity@4"]
    assert better.metrics["lists_divergence"] > 0.3
    assert not any(key.startswith("served_") for key in better.metrics)  # nobody has seen them yet
    assert served(lake)[0] == better.challenger == champion(lake, "shop")["model"]

    before = dt.datetime.now(dt.timezone.utc)
    back = rollback_by_name(lake, "shop", None, "complaints")
    assert (back["model"], back["reason"], back["action"]) == (first.challenger, "complaints", "rollback")
    assert served(lake)[0] == first.challenger
    assert champion(lake, "shop", before)["model"] == better.challenger

    stays_away = retrain(of_night(lake, days[:2]), lake)
    assert (stays_away.outcome, stays_away.champion) == ("kept", first.challenger)
    assert "rolled back before" in stays_away.reason
    by_name = champions.promote_by_name(lake, "shop", better.challenger, None, "it was not the model")
    assert by_name["model"] == served(lake)[0] == better.challenger

    worse = retrain(of_night(lake, days, "popularity"), lake)
    assert (worse.outcome, worse.exit_code) == ("kept", 3)
    assert "may be worse than" in worse.reason
    assert worse.champion == better.challenger
    assert served(lake)[0] == better.challenger

    nights_of = Ledger(lake, tables.RETRAININGS, "shop").rows()
    assert [row.outcome for row in nights_of] == ["promoted", "unchanged", "promoted", "kept", "kept"]
    assert [row.number for row in history(lake, "shop")] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def two_nights(spark, tmp_path_factory, days):
    """Folder of a lake with a champion, popularity, and a challenger, itemknn, that was kept."""
    lake = Lake(spark, str(tmp_path_factory.mktemp("nights") / "lake"))
    retrain(of_night(lake, days[:1], "popularity"), lake)
    night = retrain(of_night(lake, days[:2], gate={"metric": "ndcg@5"}), lake)
    assert (night.outcome, night.exit_code) == ("kept", 3)
    assert "no gate.margin says what is enough" in night.reason
    return lake.root


@pytest.fixture
def served_shop(spark, tmp_path, two_nights):
    """A copy of that lake, and its champion."""
    lake = Lake(spark, shutil.copytree(two_nights, str(tmp_path / "lake")))
    return lake, champion(lake, "shop")["model"]


def test_a_gate_promotes_by_all_that_it_is_told(served_shop, days):
    lake, first = served_shop
    gates = {
        "120 users tell too little (gate.min_users: 500)": {"metric": "ndcg@5", "margin": 0.5, "min_users": 500},
        "lists share ": {"metric": "ndcg@5", "margin": 0.5, "min_overlap": 0.99},
    }
    for reason, gate in gates.items():
        night = retrain(of_night(lake, days[:2], gate=gate), lake)
        assert (night.outcome, night.champion) == ("kept", first)
        assert reason in night.reason
    groups = {"metric": "ndcg@5", "margin": 1.0, "segments": {"users:1/2": 0.0, "users:2/2": 1.0}}
    night = retrain(of_night(lake, days[:2], gate=groups), lake)
    assert {"difference users:1/2", "difference users:2/2"} <= night.metrics.keys()
    assert served(lake)[0] == night.champion


def test_a_champion_that_cannot_be_compared_with_is_a_matter_of_policy(served_shop, days, monkeypatch):
    lake, first = served_shop
    early = dt.datetime.fromtimestamp(START + 2 * DAY, dt.timezone.utc).isoformat()
    not_later = {"prepare": {"dataset": "shop", "split": {"kind": "time", "test_from": early}}}
    gate = {"margin": 0.5, "metric": "ndcg@5", "incompatible": "keep"}
    seen = retrain(of_night(lake, days[:2], **not_later, gate=gate), lake)
    assert seen.outcome == "kept"
    assert "was fitted to events of after the start of the test split" in seen.reason

    model = lake.finished_run("train", first)
    monkeypatch.setattr(nights.Lake, "finished_run", _without(nights.Lake.finished_run, model.reference))
    with pytest.raises(Refused, match=r"is gone: .*\(gate.incompatible: refuse\)"):
        retrain(of_night(lake, days[:2], gate={**gate, "incompatible": "refuse"}), lake)
    promoted = retrain(of_night(lake, days[:2], gate={**gate, "incompatible": "promote"}), lake)
    assert promoted.outcome == "promoted"
    assert "is gone" in promoted.reason


def _without(find, reference):
    def finished_run(self, stage, wanted):
        if stage == "train" and wanted == reference:
            raise InputError(f"there is no finished train run {wanted!r}")
        return find(self, stage, wanted)

    return finished_run


def test_one_run_at_a_time_holds_a_name_and_a_dead_one_loses_it(spark, tmp_path, monkeypatch):
    lake = Lake(spark, str(tmp_path / "lake"))
    with held(lake, "shop", 1.0) as mine:
        with pytest.raises(Refused, match=r"'shop' is held by process .* Run this again when"), held(lake, "shop", 1.0):
            pass
        with held(lake, "another", 1.0):
            mine.check()
        monkeypatch.setattr(lease, "PATIENCE", 0.0)
        with held(lake, "shop", 1.0), pytest.raises(Refused, match="another run has taken 'shop' meanwhile: this one"):
            mine.check()
    with held(lake, "shop", 1e-6) as late, pytest.raises(Refused, match="the deadline of this run of 'shop' was"):
        late.check()


def test_of_two_who_promote_at_once_one_is_refused(served_shop, days, monkeypatch):
    lake, first = served_shop

    def meanwhile(*arguments):
        told = check_lists(*arguments)
        champions.Ledger(lake, tables.CHAMPIONS, "shop").add(
            2, model=first, recommendations=champion(lake, "shop")["recommendations"], served="served", action="promote"
        )
        return told

    check_lists = nights.check_lists
    monkeypatch.setattr(nights, "check_lists", meanwhile)
    with pytest.raises(Refused, match="another run has changed the champion of 'shop' meanwhile: that one stays"):
        retrain(of_night(lake, days[:2]), lake)
    assert served(lake)[0] == champion(lake, "shop")["model"] == first
    failed = Ledger(lake, tables.RETRAININGS, "shop").latest()
    assert failed.outcome == "refused"
    assert failed.reason.startswith("Refused: another run")


def test_a_run_that_ends_between_promotion_and_the_swap_is_finished_by_the_next(served_shop, days, monkeypatch):
    lake, first = served_shop

    def ends(lake, run, table, name, number):
        if number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(champions, "serve", ends)
        with pytest.raises(KeyboardInterrupt):
            retrain(of_night(lake, days[:2]), lake)
    assert served(lake)[0] == first
    assert champion(lake, "shop")["model"] != first
    night = retrain(of_night(lake, days[:2]), lake)
    assert night.outcome == "unchanged"
    assert served(lake)[0] == night.champion != first


def test_a_night_that_ends_after_any_of_its_steps_comes_to_what_an_undisturbed_one_does(
    served_shop, days, tmp_path, monkeypatch
):
    lake, first = served_shop
    calm = Lake(lake.spark, shutil.copytree(lake.root, str(tmp_path / "calm")))
    wanted = retrain(of_night(calm, days[:2]), calm)

    def ends_after(step):
        def ended(*arguments, **more):
            step(*arguments, **more)
            raise KeyboardInterrupt

        return ended

    for step in (
        "ingest",
        "prepare",
        "check_data",
        "train_challenger",
        "_judged",
        "recommend",
        "check_lists",
        "promote",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(nights, step, ends_after(getattr(nights, step)))
            with pytest.raises(KeyboardInterrupt):
                retrain(of_night(lake, days[:2]), lake)
        assert served(lake)[0] == (first if step != "promote" else wanted.challenger)
    again = retrain(of_night(lake, days[:2]), lake)
    assert (again.outcome, again.champion) == ("unchanged", wanted.champion)
    assert wanted.outcome == "promoted"
    for table in ("interactions", "interactions_users", "interactions_items", "served"):
        assert sorted(map(str, lake.table(table).collect())) == sorted(map(str, calm.table(table).collect())), table
    assert [row.model for row in history(lake, "shop")] == [row.model for row in history(calm, "shop")]


def test_lists_that_are_unfit_are_not_served(served_shop, days, monkeypatch):
    lake, first = served_shop
    with pytest.raises(Refused, match=r"lists of shop-itemknn@\w+ are not served: .*\(lists.min_overlap: 100.0%\)"):
        retrain(of_night(lake, days[:2], lists={"min_overlap": 1.0}), lake)
    assert served(lake)[0] == first

    lists_of = serve.lists_of

    def broken(lake, run):
        rows = lists_of(lake, run)
        some = rows.where("rank < 4 AND user_id < 'u5'")
        return some.withColumn("score", F.lit(float("nan")).cast("float")).unionByName(some)

    monkeypatch.setattr(serve, "lists_of", broken)
    with pytest.raises(Refused) as raised:
        retrain(of_night(lake, days[:2]), lake)
    for said in (
        "users have an item twice",
        "items have no finite score",
        "of 120 now served (lists.min_users: 90.0%)",
    ):
        assert said in str(raised.value)
    assert served(lake)[0] == first


def test_a_night_that_is_killed_is_run_again_once_its_holder_is_dead(served_shop, days, config_file, monkeypatch):
    lake, first = served_shop
    settings = of_night(lake, days[:2])
    raw = settings.model_dump(mode="json", by_alias=True)
    raw["spark"] = {"master": "local[2]", "memory": "1g", "shuffle_partitions": 2, "conf": QUICK_JVM}
    kill_after("sparkrec.stages.retraining.retrain:check_lists", "retrain", "--config", config_file(raw))
    with pytest.raises(Refused, match=r"'shop' is held by process \d+ on .*, since"):
        retrain(settings, lake)
    assert served(lake)[0] == champion(lake, "shop")["model"] == first

    monkeypatch.setattr(lease, "PATIENCE", 0.0)
    night = retrain(settings, lake)
    assert night.outcome == "promoted"
    assert served(lake) == (night.challenger, USERS * 4)
    outcomes = [row.outcome for row in Ledger(lake, tables.RETRAININGS, "shop").rows()]
    assert outcomes[-3:] == ["kept", "refused", "promoted"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, and a function that says how many bytes it may have left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a file system takes rights that this process does not have")

    def leave(free):
        size = shutil.disk_usage(folder).used + free
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, leave
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_night_for_which_a_disk_has_no_space_is_run_again(served_shop, days, small_disk, monkeypatch, caplog):
    """It is full by the time that the challenger is trained, and the lease cannot be given back."""
    lake, first = served_shop
    folder, leave = small_disk
    lake = Lake(lake.spark, shutil.copytree(lake.root, str(folder / "lake")))
    leave(150 << 10)
    with pytest.raises(NoSpace, match="there is no space left.*Free some: `sparkrec clean`"):
        retrain(of_night(lake, days[:2]), lake)
    assert served(lake)[0] == champion(lake, "shop")["model"] == first
    assert "cannot give 'shop' back, which is free in 2 minutes: there is no space left" in caplog.text

    leave(32 << 20)
    monkeypatch.setattr(lease, "PATIENCE", 0.0)
    assert retrain(of_night(lake, days[:2]), lake).outcome == "promoted"


TELL = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
"""A program for `notify.command`."""


def test_the_command_tells_schedulers_by_its_exit_code_and_others_by_a_summary(
    served_shop, days, config_file, capsys, monkeypatch, tmp_path
):
    lake, first = served_shop
    told = tmp_path / "told"

    def summary():
        return json.loads(told.read_text().splitlines()[-1])

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sparkrec", *arguments])
        try:
            main()
        except SystemExit as ended:
            return ended.code, capsys.readouterr()
        return 0, capsys.readouterr()

    notify = [{"command": [sys.executable, "-c", TELL, str(told)]}, {"webhook": "http://127.0.0.1:9/hunter2"}]
    monkeypatch.setattr(notifying, "_PAUSE", 0.0)
    raw = of_night(lake, days[:2], gate={"metric": "ndcg@5"}, notify=notify).model_dump(mode="json", by_alias=True)
    path = config_file(raw)
    code, said = run("retrain", "--config", path)
    assert code == 3
    assert "outcome: kept" in said.out
    assert (summary()["outcome"], summary()["exit_code"], summary()["champion"]) == ("kept", 3, first)
    assert re.fullmatch(
        r"shop: kept \(ndcg@5 .*, but no gate.margin says what is enough\); ndcg@5 0.\d+, of the champion 0.\d+; "
        rf"champion {first}; challenger shop-itemknn@\w+; \d+ s",
        summary()["text"],
    )
    code, said = run("retrain", "--config", path, "gate.metric=ndcg")
    assert code == 2
    assert "metric: found 'ndcg', expected one with a cutoff, such as ndcg@10" in said.err
    with held(lake, "shop", 1.0):
        code, said = run("retrain", "--config", path)
        assert code == 5
        assert "'shop' is held by process" in said.err
        assert (summary()["outcome"], summary()["exit_code"]) == ("refused", 5)
        assert "'shop' is held by process" in summary()["text"]
        _, said = run("status", "shop", "--lake", lake.root)
    found = yaml.safe_load(said.out)
    assert found["champion"]["model"] == first
    assert found["held_by"].startswith("process ")
    assert found["next"] == "wait: a run has the name"
    assert [night["outcome"] for night in found["nights"]] == ["refused", "kept", "kept", "promoted"]
    assert re.fullmatch(r"ndcg@5 0.\d+, of the champion 0.\d+", found["nights"][1]["gate"])
    assert found["nights"][0].keys() == {"at", "outcome", "reason"}
    assert any(each.startswith("warned: age_hours is ") for each in found["checks"])
    assert 0 <= found["age_hours"]["champion"] < 1 < 48 < found["age_hours"]["last_event"]
    assert found["bytes"].keys() == {"datasets", "models", "lists"}
    assert all(size > 1000 for size in found["bytes"].values())
    assert status(lake, "shop", 1)["held_by"] is None
    assert status(lake, "shop", 1)["next"] == "look at why the last night was refused, and run it again"
    assert status(lake, "another")["next"] == "run the first night by `sparkrec retrain`"

    page = tmp_path / "history.html"
    code, said = run("history", "shop", "--lake", lake.root, "--output", str(page))
    assert (code, said.out.strip()) == (0, str(page))
    assert f"{first} is served since" in page.read_text()
    code, said = run("history", "stop", "--lake", lake.root)
    assert code == 1
    assert "nothing is known of 'stop' in the lake" in said.err

    code, said = run("champion", "shop", "--lake", lake.root)
    assert code == 0
    assert f"model: {first}" in said.out
    code, said = run("champion", "shop", "--lake", lake.root, "--at", "2020-01-01")
    assert code == 1
    assert "nothing is served under 'shop' at 2020-01-01" in said.err
    code, said = run("rollback", "shop", "--lake", lake.root)
    assert code == 1
    assert "there is no former champion of 'shop' to go back to: it has had one alone" in said.err
    code, said = run("promote", "shop", "shop-itemknn", "--lake", lake.root)
    assert code == 1
    assert "has made no lists. Run `sparkrec recommend model=shop-itemknn@" in said.err

    for error, expected in ((OSError("disk full"), 75), (PySparkException("lost"), 75), (ZeroDivisionError(), 70)):
        monkeypatch.setattr(nights, "_run", _raising(error))
        code, said = run("retrain", "--config", path)
        assert code == expected
        assert "Traceback" in said.err
        assert Ledger(lake, tables.RETRAININGS, "shop").latest().reason.startswith(type(error).__name__)
        assert (summary()["outcome"], summary()["exit_code"]) == ("failed", expected)
        assert status(lake, "shop")["next"] == "mend what the last night failed for, and run it again"

    monkeypatch.setattr(nights, "_run", lambda settings, lake, lease, night: setattr(night, "outcome", "kept"))
    assert [run("retrain", "--config", path, *more)[0] for more in ([], ["--kept-is-done"])] == [3, 0]
    monkeypatch.setattr(nights, "_run", _raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        retrain(validate(RetrainSettings, raw, "test"), lake)
    assert (summary()["outcome"], summary()["reason"], summary()["exit_code"]) == ("failed", "interrupted", None)

    monkeypatch.setattr(stages, "open_lake", _raising(InputError("no such bucket")))
    assert run("retrain", "--config", path)[0] == 1
    assert summary()["text"] == "shop: failed (InputError: no such bucket); 0 s"


def _raising(error):
    def run(*_):
        raise error

    return run


def test_data_that_may_not_be_trusted_are_not_trained_on(served_shop, days, tmp_path):
    """A night of a tenth of the usual rows, and one of others: told, recorded, and nothing is trained."""
    lake, first = served_shop
    settings = of_night(lake, days)
    nights_before = Ledger(lake, tables.RETRAININGS, "shop")
    for _ in range(2):
        nights_before.add(nights_before.latest()["number"] + 1, outcome="kept", rows=1000, dataset="gone@0123456789ab")
    dataset = nights_before.rows()[1].dataset
    nights_before.add(nights_before.latest()["number"] + 1, outcome="kept", rows=1200, dataset=dataset)
    for _ in range(2):
        with pytest.raises(InputError) as raised:
            retrain(settings, lake)
        assert "is not trained on: volume is 0.12, expected at least 0.5 (checks.volume)" in str(raised.value)
    assert served(lake)[0] == first
    assert Ledger(lake, tables.RETRAININGS, "shop").latest().reason.startswith("InputError: dataset shop@")

    def found():
        return {row.check: row for row in lake.table("checks").orderBy("at").collect()}

    rows = found()
    assert rows["volume"].verdict == "failed"
    assert rows["volume"].value == pytest.approx(120 / 1000)
    assert rows["rejected"].value == 0.0
    assert rows["nulls"].value == 0.0
    assert rows["ratings"].value == 0.0
    assert rows["new_users"].value == 0.0
    assert 0.0 <= rows["popularity"].value < 0.05
    assert rows["age_hours"].verdict == "warned"

    settled = retrain(of_night(lake, days, checks={"volume": {"limit": 0.5, "beyond": "warn"}}), lake)
    assert settled.outcome == "promoted"
    assert settled.metrics["checks_volume"] == pytest.approx(0.12)
    assert found()["volume"].verdict == "warned"

    other = tmp_path / "other.csv"
    other.write_text("user,item,time\n" + "".join(f"u{n},new{n % 9},{START + 9 * DAY + n * 190}\n" for n in range(900)))
    beyond, moved = {"limit": 0.3, "beyond": "fail"}, {"limit": 0.1, "beyond": "fail"}
    with pytest.raises(InputError, match=r"new_users is 0.\d+, expected at most 0.3 .*; popularity is 0.\d+, expected"):
        retrain(of_night(lake, [*days, str(other)], checks={"new_users": beyond, "popularity": moved}), lake)


def test_nights_begin_with_what_the_champion_has_learned_and_some_are_cold(spark, tmp_path, days):
    lake = Lake(spark, str(tmp_path / "lake"))

    def night(n, rank=4):
        als = {"kind": "als", "rank": rank, "tolerance": 1e-4, "iterations": 40}
        gate = {"margin": 1.0, "metric": "ndcg@5"}
        return retrain(of_night(lake, days[:n], train={"model": als}, gate=gate, cold_every=2), lake)

    first = night(1)
    assert first.metrics["warm"] == 0.0
    assert "cold_difference" not in first.metrics  # with nothing to begin with
    warm = night(2)
    assert lake.finished_run("train", warm.challenger).inputs["warm_start"] == first.challenger
    assert warm.metrics["warm"] == 1.0
    assert (night(2).outcome, warm.outcome) == ("unchanged", "promoted")
    cold = night(3)
    assert cold.metrics["warm"] == 0.0
    assert cold.metrics["warm_iterations"] < cold.metrics["iterations"]
    assert cold.metrics["cold_low"] <= cold.metrics["cold_difference"] <= cold.metrics["cold_high"]
    assert cold.champion == cold.challenger
    other = night(3, rank=5)
    assert other.metrics["warm"] == 0.0


def test_a_champion_of_another_shape_is_no_beginning(served_shop, days, caplog):
    lake, first = served_shop
    als = {"model": {"kind": "als", "rank": 4, "iterations": 2}}
    night = retrain(of_night(lake, days[:2], train=als, cold_every=7), lake)
    assert night.metrics["warm"] == 0.0
    assert f"the challenger begins cold: warm_start: {first}: found a popularity, expected an als" in caplog.text


def test_as_many_datasets_in_a_row_begin_warm_as_may():
    def rows(*told):
        return [{"dataset": dataset, "metrics": None if warm is None else {"warm": warm}} for dataset, warm in told]

    assert not is_cold_turn(3, "d", rows(("a", 1.0), ("b", 0.0), ("c", 1.0)))
    assert is_cold_turn(3, "d", rows(("a", 0.0), ("b", 1.0), ("c", 1.0)))
    assert not is_cold_turn(3, "c", rows(("a", 0.0), ("b", 1.0), ("c", 1.0)))  # that night is run again
    assert not is_cold_turn(3, "d", rows(("b", 0.0), ("c", 1.0), ("c", 1.0)))
    assert not is_cold_turn(3, "d", rows(("a", 1.0), ("b", None)))  # of before there was such a thing


def test_what_was_served_is_measured_by_what_people_did_afterwards(served_shop, days, tmp_path):
    """Every other user takes the first item of its list, and the rest what nobody was shown."""
    lake, first = served_shop
    now = dt.datetime.now(dt.timezone.utc).timestamp()
    best = {row.user_id: row.item_id for row in lake.table("served").where("rank = 1").collect()}
    rows = [f"u{n},{best[f'u{n}'] if n % 2 else f'new{n % 9}'},{now + n}" for n in range(USERS)]
    later = tmp_path / "later.csv"
    later.write_text("\n".join(["user,item,time", *rows, f"stranger,new0,{now}"]) + "\n")
    settings = of_night(lake, [*days[:2], str(later)])
    stages = nights.Plan(nights.pipeline_of(settings))
    for each in stages.ingest:
        nights.ingest(each, lake)
    new = nights.Dataset.open(lake, nights.prepare(stages.prepare, lake).reference)
    (change,) = history(lake, "shop")
    promising = Row(**{**change.asDict(), "metrics": {"challenger_ndcg@5": 1.0}})

    found = measure_served(DriftChecks(), settings.gate, lake, "shop", [change], new)
    assert found == {"served_users": USERS, "served_ndcg@5": 0.5}
    checks = DriftChecks(served=Check(limit=0.6))
    with pytest.raises(InputError, match=r"has not kept .*: served is 0.5, expected at least 0.6 \(drift.served\)"):
        measure_served(checks, settings.gate, lake, "shop", [promising], new)
    rows = {row.measure: row for row in lake.table("drift").where("seen").collect()}
    assert rows["hit_rate@5"].value == 0.5
    assert rows["ndcg@5"].low < 0.5 < rows["ndcg@5"].high
    assert rows["ndcg@5"].model == first
    verdicts = lake.table("checks").where("check = 'served'").select("verdict").collect()
    assert sorted(row.verdict for row in verdicts) == ["failed", "unknown"]
