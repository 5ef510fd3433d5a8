"""Columns of any name, in any case, and errors that name what their reader has."""

from itertools import cycle

import pytest

from sparkrec import ALS, compare, evaluate, evaluate_policy
from sparkrec.errors import InputError, TrainError
from sparkrec.spark.algorithms.als.model import ALSModel
from sparkrec.spark.data.naming import named
from sparkrec.spark.platform.sources import resolved

pytestmark = pytest.mark.spark

FEW = {"rank": 2, "maxIter": 1, "numUserBlocks": 1, "numItemBlocks": 1, "seed": 0}
PAIRS = [(user, item) for user in range(4) for item in range(4) if user != item]
ODD = [
    ("user id", "item id", "how many"),
    ("user.id", "item.id", "r.r"),
    ("a`b", 'c"d', "e'f"),
    ("item", "user", "value"),
    ("id", "features", "x"),
    ("_id", "number", "confidence"),
    ("rank", "rating", "score"),
]


def plays(spark, names, kind):
    rows = [(f"u{u}", f"i{i}", 1.0 + i) if kind == "string" else (u, i, 1.0 + i) for u, i in PAIRS]
    return spark.createDataFrame(rows, f"u {kind}, i {kind}, r double").toDF(*names)


@pytest.mark.parametrize(("names", "kind"), [*zip(ODD, cycle(["string", "int"]))], ids=str)
def test_als_takes_columns_of_any_name(spark, names, kind, tmp_path):
    user, item, rating = names
    log = plays(spark, names, kind)
    fitted = ALS(userCol=user, itemCol=item, ratingCol=rating, **FEW).fit(log)
    best = fitted.recommendForAllUsers(1, exclude=log)
    assert best.columns == [user, "recommendations"]
    assert best.schema["recommendations"].dataType.elementType.fieldNames() == [item, "rating"]
    digits = [(str(row[0])[-1:], str(row[1][0][0])[-1:]) for row in best.collect()]
    assert sorted(digits) == [(str(n), str(n)) for n in range(4)]
    scored = fitted.transform(log)
    assert scored.columns == [*names, "prediction"]
    assert scored.where("prediction IS NOT NULL").count() == len(PAIRS)
    assert fitted.foldIn(log).userFactors.count() == 4
    assert fitted.foldIn(log, side="item").itemFactors.count() == 4
    who, what = log.first()[:2]
    assert fitted.explain(who, what).columns == [item, "contribution"]


def test_a_model_of_odd_names_is_loaded_as_it_was_saved(spark, tmp_path):
    fitted = ALS(userCol="user id", itemCol="item`id", ratingCol="r.r", **FEW).fit(
        plays(spark, ("user id", "item`id", "r.r"), "string")
    )
    fitted.save(str(tmp_path / "model"))
    loaded = ALSModel.load(str(tmp_path / "model"))
    assert sorted(loaded.recommendForAllUsers(2).collect()) == sorted(fitted.recommendForAllUsers(2).collect())


def test_names_are_found_as_spark_resolves_them(spark):
    log = plays(spark, ("User", "ITEM", "Rating"), "string")
    fitted = ALS(**FEW).fit(log)
    assert fitted.recommendForAllUsers(1).columns == ["user", "recommendations"]
    assert fitted.transform(log).columns == ["User", "ITEM", "Rating", "prediction"]
    with pytest.raises(InputError, match=r"log has no column 'usr'. It has 'User', 'ITEM', 'Rating'"):
        resolved(log, ["usr"], "log")
    with pytest.raises(InputError, match=r"more than one column 'user': 'user', 'USER'"):
        resolved(spark.createDataFrame([(1, 2)], "user int, USER int"), ["user"], "log")
    spark.conf.set("spark.sql.caseSensitive", "true")
    try:
        with pytest.raises(InputError, match="has no column 'user'"):
            resolved(log, ["user"], "log")
        both = spark.createDataFrame([(1, 2)], "user int, USER int")
        assert resolved(both, ["user"], "log").columns == ["user", "USER"]
    finally:
        spark.conf.unset("spark.sql.caseSensitive")


@pytest.mark.parametrize("by", ["the run", "a.b", "c`d", 'e"f'])
def test_runs_are_told_apart_by_a_column_of_any_name(spark, by):
    rows = [(run, user, int(run == "good"), 1) for run in ("good", "bad") for user in (1, 2)]
    lists = spark.createDataFrame(rows, "r string, USER int, Item int, Rank int").withColumnRenamed("r", by)
    relevant = spark.createDataFrame([(1, 1), (2, 1)], "user int, ITEM int")
    found = evaluate(lists, relevant, ["recall"], k=[1], by=by)
    assert found.columns[0] == by
    assert {row[0]: row.value for row in found.collect()} == {"good": 1.0, "bad": 0.0}
    assert compare(lists, relevant, by=by, baseline="bad", metrics=["recall"], k=[1]).first().difference == 1.0
    logged = spark.createDataFrame(
        [("x", 1.0, 0.5, 0.5)], "r string, Reward double, propensity double, probability double"
    )
    assert evaluate_policy(logged.withColumnRenamed("r", by), by=by).columns[0] == by


def test_a_system_without_solution_is_named_as_the_log_names_it(spark):
    log = plays(spark, ("who", "what", "rating"), "string")
    names = {"userCol": "who", "itemCol": "what", **FEW, "rank": 5}
    with pytest.raises(TrainError, match=r"the system of user 'u\d' \(column 'who'\) with 3 ratings has no finite"):
        ALS(**names, regParam=0.0).fit(log)
    fitted = ALS(**names).fit(log)
    fitted.fitted.params.set(fitted.fitted.params.regParam, 0.0)
    with pytest.raises(TrainError, match=r"the system of item 'i\d' \(column 'what'\) with 3 ratings has no finite"):
        fitted.foldIn(log, side="item")
    broken = log.replace(2.0, float("nan"), subset=["rating"]).where("who = 'u0'")
    with pytest.raises(TrainError, match=r"user 'u0' \(column 'who'\), item 'i1' \(column 'what'\), value nan"):
        ALS(**names).fit(broken)


def test_every_number_in_an_error_is_replaced_and_other_errors_are_left_alone():
    with pytest.raises(TrainError, match=r"^<3> and \[-7\] of 5$"), named("<{}>".format, "[{}]".format):
        raise TrainError("user number 3 and item number -7 of 5")
    error = InputError("user 3")
    with pytest.raises(InputError) as raised, named(str, str):
        raise error
    assert raised.value is error
