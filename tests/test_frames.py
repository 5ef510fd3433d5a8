"""DataFrame in, recommendations out."""

import pytest

from sparkrec import ALS, fit
from sparkrec.errors import ConfigError, InputError

pytestmark = [pytest.mark.spark, pytest.mark.sparks]


@pytest.fixture(scope="module")
def plays(spark):
    """Two groups with a taste each; every user has all but one item of the own group."""
    rows = [(f"{g}{u}", f"{g}-song{i}") for g in ("a", "b") for u in range(5) for i in range(5) if u != i]
    return spark.createDataFrame(rows, "listener string, song string")


def test_the_one_unheard_song_of_the_own_group_comes_first(spark, plays):
    model = fit(plays, user="listener", item="song", kind="itemknn", shrinkage=0.0)
    best = model.recommend(k=1).collect()
    assert {(row.listener, row.song) for row in best} == {(f"{g}{u}", f"{g}-song{u}") for g in "ab" for u in range(5)}
    asked = spark.createDataFrame([("a1",), ("stranger",)], "listener string")
    assert [row.listener for row in model.recommend(k=1, users=asked).collect()] == ["a1"]


def test_models_of_features_do_without_them(plays):
    training = {"epochs": 30, "batch": 16, "learning_rate": 0.05, "init_scale": 0.1, "threads": 1}
    model = fit(plays, user="listener", item="song", kind="fm", dim=4, training=training)
    best = model.recommend(k=1).collect()
    assert sum(row.song == f"{row.listener[0]}-song{row.listener[1]}" for row in best) >= 8


def test_wrong_settings_and_columns_are_named(plays):
    with pytest.raises(ConfigError, match=r"model.rnk: unknown key"):
        fit(plays, user="listener", item="song", rnk=3)
    with pytest.raises(InputError, match="interactions has no column 'user'"):
        fit(plays, item="song")


def test_ids_that_have_parts_are_refused_by_the_name_of_their_column(spark):
    rows = [((1, 2), "a", 1.0), ((1, 3), "b", 1.0)]
    plays = spark.createDataFrame(rows, "listener struct<a:int,b:int>, song string, rating double")
    with pytest.raises(InputError, match=r"listener: found ids of type struct<a:int,b:int>, expected numbers, texts"):
        fit(plays, user="listener", item="song")
    with pytest.raises(InputError, match="listener: found ids of type struct"):
        ALS(userCol="listener", itemCol="song", implicitPrefs=True).fit(plays)
