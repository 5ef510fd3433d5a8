"""What is old goes, and whoever asks for it is forgotten; all else stays as it is."""

import os
import shutil
import time
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyspark.sql import functions as F

from sparkrec import storage
from sparkrec.cli import main
from sparkrec.config import IngestSettings, PrepareSettings, RetentionSettings, TrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import Refused
from sparkrec.spark.platform.lake import Lake, Run
from sparkrec.stages import ingest, prepare, train
from sparkrec.stages.catalog import STAGES
from sparkrec.stages.retraining import champions
from sparkrec.stages.retraining.lease import held
from sparkrec.stages.upkeep import clean as cleaning
from sparkrec.stages.upkeep.clean import clean, outdated
from sparkrec.stages.upkeep.forget import _without_positions, forget

DAY = 86400.0


def run(stage, name, number, days, **inputs):
    manifest = {"finished": 1000 * DAY - days * DAY}
    return Run(stage, name, f"{number:012x}", "", inputs.pop("settings", {}), inputs, manifest)


def test_runs_go_by_number_and_age_but_not_what_is_served_or_what_stays_was_made_of():
    data = [run("prepare", "shop", n, days=100 - n) for n in range(6)]
    models = [run("train", "shop-als", 10 + n, days=100 - n, dataset=data[n].reference) for n in range(6)]
    lists = [run("recommend", "shop-als", 20 + n, days=100 - n, model=models[n].reference) for n in range(6)]
    scores = run("evaluate", "shop-als", 30, days=1, model=models[1].reference)
    parent = run("train", "shop-gmf", 40, days=99, dataset=data[4].reference)
    models[5].inputs["warm_start"] = models[3].reference  # which it does not need any more
    other = [run("train", "shop-gmf", 41 + n, days=50 - n, dataset=data[4].reference) for n in range(2)]
    child = run("train", "shop-neumf", 50, days=2, settings={"model": {"start_from": [parent.reference]}})
    everything = [*data, *models, *lists, scores, parent, *other, child]

    def gone(served, **settings):
        found = outdated(everything, RetentionSettings(**settings), served, 1000 * DAY)
        return {each.reference for each in found}

    def references(*runs):
        return {each.reference for each in runs}

    served = {models[0].reference, "not-there@0"}
    assert gone(served, runs=2, days=30) == references(data[2], data[3], models[2], models[3], *lists[:4])
    assert gone(set(), runs=1, days=97.5) == references(data[0], data[2], models[0], models[2], *lists[:3])


def test_positions_go_from_rows_and_all_others_stay():
    index = pa.array([[0, 3, 5], [], [3], [1, 2]], pa.list_(pa.int32()))
    value = pa.array([[1.0, 2, 3], [], [4], [5, 6]], pa.list_(pa.float32()))
    table = pa.table({"item": pa.array([7, 8, 9, 10]), "index": index, "value": value})
    for given in (table, table.slice(0), pa.concat_tables([table.slice(0, 2), table.slice(2)])):
        left = _without_positions(given, [3, 1])
        assert left.schema == table.schema
        assert left["index"].to_pylist() == [[0, 5], [], [], [2]]
        assert left["value"].to_pylist() == [[1.0, 3.0], [], [], [6.0]]
    assert _without_positions(table.slice(2), [0]).equals(table.slice(2))
    assert _without_positions(table, [4]) is table


USERS = 24


@pytest.fixture(scope="module")
def prepared(spark, tmp_path_factory):
    """A lake of everything that keeps rows of users, each of whom has five of eleven items."""
    folder = tmp_path_factory.mktemp("upkeep")
    lake = Lake(spark, str(folder / "lake"))
    rows = [f"u{u},i{(u * 3 + n * n) % 11},{1_600_000_000 + 100 * n + u}" for u in range(USERS) for n in range(5)]
    (folder / "log.csv").write_text("\n".join(["user,item,time", *rows, "u3,,5", "u4,,6"]) + "\n")
    columns = {"user": "user", "item": "item", "timestamp": "time"}
    source = {"path": str(folder / "log.csv"), "format": "csv"}

    def stage(name, **raw):
        of_name = STAGES[name]
        return of_name.run(validate(of_name.settings, {"lake": lake.root, **raw}, name), lake)

    stage("ingest", source=source, columns=columns, timestamp_format="seconds", batch="first")
    split = {"kind": "leave_last_out", "validation": 0}
    dataset = stage("prepare", dataset="shop", split=split, sequences={"length": 4})
    models = [
        stage("train", dataset=dataset.reference, model=model)
        for model in ({"kind": "als", "rank": 4, "iterations": 2}, {"kind": "userknn", "neighbors": 5})
    ]
    runs = [stage("evaluate", model=model.reference, examples=USERS, keep_users=True) for model in models]
    lists = [stage("recommend", model=model.reference, k=3) for model in models]
    with held(lake, "shop", 1.0) as lease:
        for each in lists:
            last = champions.champion(lake, "shop")
            champions.promote(lake, lease, last, each, "served", "first")
    return SimpleNamespace(root=lake.root, dataset=dataset, models=models, evaluations=runs, lists=lists)


@pytest.fixture
def shop(spark, prepared, tmp_path):
    """A copy of it."""
    values = vars(prepared) | {"lake": Lake(spark, shutil.copytree(prepared.root, str(tmp_path / "lake")))}
    return SimpleNamespace(**values)


def rows_of(lake, skipped):
    """Everything about users but some, by table and Parquet file."""
    users = lake.table("interactions_users")
    integers = [row.user for row in users.where(F.col("user_id").isin(skipped)).collect()]
    found = {}
    for name in ("interactions", "recommendations", "served", "interactions_users"):
        rows = lake.table(name).where(~F.col("user_id").isin(skipped) & ~F.col("user_id").startswith("forgotten-"))
        found[name] = sorted(map(str, rows.collect()))
    for path, _, names in os.walk(lake.root):
        for name in names:
            if name.endswith(".parquet") and path.count("/") == lake.root.count("/") + 4:  # of a run
                table = pq.read_table(f"{path}/{name}", partitioning=None)
                rest = [row for row in table.to_pylist() if row.get("user") not in integers]
                found[f"{path}/{name}".removeprefix(lake.root)] = rest
    return found


@pytest.mark.spark
def test_whoever_is_forgotten_is_nowhere_and_all_others_are_as_they_were(shop):
    lake, gone = shop.lake, ["u3", "u17"]
    integers = [row.user for row in lake.table("interactions_users").where(F.col("user_id").isin(gone)).collect()]
    before = rows_of(lake, gone)
    learned = lake.path("models", shop.models[0].name, shop.models[0].id, "learned")
    storage.write(f"{learned}/shared.safetensors", b"rows of users, too")
    receipt = forget(lake, gone, "letter of 3 May")
    assert not storage.exists(learned)
    assert receipt["reason"] == "letter of 3 May"
    assert receipt["removed"] | {"recommendations": 12, "served": 6, "interactions": 10} == receipt["removed"]
    assert receipt["removed"]["interactions_rejected"] == 1

    for name in ("interactions", "recommendations", "served", "interactions_users"):
        assert lake.table(name).where(F.col("user_id").isin(gone)).isEmpty(), name
    assert [row.row for row in lake.table("interactions_rejected").collect()] == ['{"user":"u4","time":"6"}']
    for each in (shop.dataset, *shop.models, *shop.evaluations):
        folder = each.path.replace(shop.dataset.path.rsplit("/datasets", 1)[0], lake.root)
        for table in storage.folders(folder):
            rows = lake.spark.read.parquet(f"{folder}/{table}")
            if "user" in rows.columns:
                assert rows.where(F.col("user").isin(integers)).isEmpty(), (folder, table)
            if "index" in rows.columns and "userknn" in folder:
                positions = {position for row in rows.collect() for position in row["index"]}
                assert not positions & set(integers)
                assert positions
        about = storage.read_json(f"{folder}/metrics.json")
        assert about is None or {each["user"] for each in about["examples"]} == {f"u{u}" for u in range(USERS)} - set(
            gone
        )
    after = rows_of(lake, gone)
    assert after.keys() == before.keys()
    changed = [name for name in after if after[name] != before[name] and "userknn" not in name]
    assert changed == []

    again = forget(lake, gone, "again")
    assert again["removed"] == {}
    assert [len(row.users) for row in lake.table("forgotten").collect()] == [2, 2]


@pytest.mark.spark
def test_a_forgotten_user_who_comes_back_is_somebody_else(shop, tmp_path):
    lake = shop.lake
    taken = {row.user for row in lake.table("interactions_users").collect()}
    forget(lake, [f"u{u}" for u in range(USERS)][-3:], "asked")
    log = tmp_path / "more.csv"
    log.write_text("user,item,time\n" + "".join(f"u{USERS - 1},i{n},{1_700_000_000 + n}\n" for n in range(4)))
    raw = {"lake": lake.root, "source": {"path": str(log), "format": "csv"}, "timestamp_format": "seconds"}
    columns = {"user": "user", "item": "item", "timestamp": "time"}
    ingest.ingest(validate(IngestSettings, raw | {"columns": columns}, "test"), lake)
    new = prepare.prepare(validate(PrepareSettings, {"lake": lake.root, "dataset": "shop"}, "test"), lake)
    users = lake.spark.read.parquet(f"{new.path}/users").collect()
    (back,) = (row.user for row in users if row.user_id == f"u{USERS - 1}")
    assert back not in taken
    assert len(users) == USERS - 2
    model = {"kind": "als", "rank": 4, "iterations": 1}
    train.train(validate(TrainSettings, {"lake": lake.root, "dataset": new.reference, "model": model}, "test"), lake)


@pytest.mark.spark
def test_nobody_is_forgotten_while_something_runs(shop):
    lake = shop.lake
    with held(lake, "shop", 1.0), pytest.raises(Refused, match="'shop' is held by process"):
        forget(lake, ["u1"], "asked")
    half = lake.path("models", "shop-als", "0123456789ab", "scratch", "step-1")
    storage.write(half, b"users and all")
    with pytest.raises(Refused, match=r"train shop-als@0123456789ab may be under way: .* written to 0 minutes ago"):
        forget(lake, ["u1"], "asked")
    assert not lake.table("interactions").where("user_id = 'u1'").isEmpty()
    os.utime(half, (time.time() - 7200,) * 2)
    forget(lake, ["u1"], "asked")
    assert not storage.exists(half)


@pytest.mark.spark
def test_what_is_old_goes_and_what_is_served_stays(shop, capsys, monkeypatch):
    lake = shop.lake
    spare = lake.path("models", "shop-als", "0123456789ab", "scratch", "step-1")
    storage.write(spare, b"half")
    os.utime(spare, (time.time() - 40 * DAY,) * 2)
    later = time.time() + 40 * DAY
    monkeypatch.setattr(cleaning, "time", SimpleNamespace(time=lambda: later))

    monkeypatch.setattr("sys.argv", ["sparkrec", "clean", "--lake", lake.root, "--runs", "1", "--dry-run"])
    main()
    told = yaml.safe_load(capsys.readouterr().out)
    assert told["removed"] == {}
    assert told["unfinished"] == {"train shop-als@0123456789ab": 4}

    done = clean(RetentionSettings(runs=1, days=1), lake)
    assert done.removed == {}
    assert not storage.exists(spare)
    assert {"interactions", "recommendations", "champions", "metrics"} <= set(done.vacuumed)
