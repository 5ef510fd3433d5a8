"""ALS as a Spark ML Estimator: MLlib's interface and results, and what MLlib's has not."""

import numpy as np
import pytest

from sparkrec import ALS, ALSModel
from sparkrec.errors import ConfigError, InputError, TrainError
from sparkrec.spark.data.id_column import IdColumn

pytestmark = pytest.mark.spark


FEW = {"numUserBlocks": 1, "numItemBlocks": 1}


@pytest.fixture(scope="module")
def ratings(spark):
    """Two tastes, explicit ratings; int ids as MLlib wants them."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(40):
        for item in rng.choice(24, 10, replace=False):
            liked = user % 2 == item % 2
            rows.append(
                (user, int(item) + 100, float(np.clip(3 + 1.5 * (1 if liked else -1) + rng.normal(0, 0.3), 1, 5)))
            )
    return spark.createDataFrame(rows, "user int, item int, rating double").persist()


@pytest.fixture(scope="module")
def named(spark, ratings):
    """The same with string ids."""
    from pyspark.sql import functions as F

    user, item = F.concat(F.lit("u"), "user").alias("who"), F.concat(F.lit("i"), "item").alias("what")
    return ratings.select(user, item, "rating").persist()


@pytest.fixture(scope="module")
def model(ratings):
    return ALS(rank=6, maxIter=4, regParam=0.05, seed=1).fit(ratings)


def mllib(**params):
    from pyspark.ml.recommendation import ALS as MllibALS

    return MllibALS(seed=1, **params)


def objective(ratings, users, items, reg, alpha=None):
    """Hu et al. (with alpha) or ALS-WR, of MLlib's definitions."""
    rows = ratings.collect()
    x = {row.id: np.array(row.features) for row in users.collect()}
    y = {row.id: np.array(row.features) for row in items.collect()}
    loss, n_user, n_item = 0.0, dict.fromkeys(x, 0), dict.fromkeys(y, 0)
    every = np.stack([*x.values()]) @ np.stack([*y.values()]).T
    if alpha is not None:
        loss += (every**2).sum()
    for row in rows:
        score = x[row.user] @ y[row.item]
        if alpha is None:
            loss += (row.rating - score) ** 2
        else:
            loss += (1 + alpha * abs(row.rating)) * (1 - score) ** 2 - score**2
        n_user[row.user] += 1
        n_item[row.item] += 1
    loss += reg * sum(n_user[u] * v @ v for u, v in x.items()) + reg * sum(n_item[i] * v @ v for i, v in y.items())
    return loss


@pytest.mark.parametrize("implicit", [False, True])
def test_the_objective_is_mllibs_and_ends_as_low(ratings, implicit):
    params = {"maxIter": 8, "regParam": 0.1, "implicitPrefs": implicit, "alpha": 2.0}
    ours, theirs = ALS(rank=2, seed=0, **params).fit(ratings), mllib(rank=2, **params).fit(ratings)
    alpha = 2.0 if implicit else None
    reached = [objective(ratings, each.userFactors, each.itemFactors, 0.1, alpha) for each in (ours, theirs)]
    assert reached[0] == pytest.approx(ours.history.collect()[-1].loss, rel=1e-4)
    assert reached[0] <= 1.01 * reached[1]


def test_every_method_returns_the_schema_of_mllibs(spark, ratings, model):
    theirs = mllib(rank=6, maxIter=1).fit(ratings)
    some = ratings.limit(5)
    for call in (
        lambda each: each.transform(ratings),
        lambda each: each.recommendForAllUsers(3),
        lambda each: each.recommendForAllItems(3),
        lambda each: each.recommendForUserSubset(some, 3),
        lambda each: each.recommendForItemSubset(some, 3),
        lambda each: each.userFactors,
        lambda each: each.itemFactors,
    ):
        assert simple(call(model)) == simple(call(theirs))
    assert model.rank == theirs.rank


def simple(frame):
    return [(field.name, field.dataType.simpleString()) for field in frame.schema]


def test_parameters_have_mllibs_names_and_defaults(spark):
    from pyspark.ml.recommendation import ALS as MllibALS

    ours, theirs = ALS(), MllibALS()
    for param in theirs.params:
        assert ours.hasParam(param.name)
        if param.name not in ("numUserBlocks", "numItemBlocks", "seed"):
            assert ours.getOrDefault(param.name) == theirs.getOrDefault(param.name)
        setter = "set" + param.name[0].upper() + param.name[1:]
        assert hasattr(ours, setter) == hasattr(theirs, setter)


def test_predictions_are_the_products_of_the_factors(spark, ratings, model):
    x = {row.id: np.array(row.features) for row in model.userFactors.collect()}
    y = {row.id: np.array(row.features) for row in model.itemFactors.collect()}
    for row in model.transform(ratings).collect():
        assert row.prediction == pytest.approx(x[row.user] @ y[row.item], rel=1e-5)
    strangers = spark.createDataFrame([(0, 100), (999, 100), (0, 999)], "user int, item int")
    found = {(row.user, row.item): row.prediction for row in model.transform(strangers).collect()}
    assert np.isnan(found[999, 100])
    assert np.isnan(found[0, 999])
    assert model.copy().setColdStartStrategy("drop").transform(strangers).count() == 1


def test_it_works_in_a_pipeline_and_a_cross_validator_and_is_saved_with_them(spark, ratings, tmp_path):
    from pyspark.ml import Pipeline, PipelineModel
    from pyspark.ml.evaluation import RegressionEvaluator
    from pyspark.ml.feature import SQLTransformer
    from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

    als = ALS(rank=2, maxIter=2, coldStartStrategy="drop", seed=0, **FEW)
    rmse = RegressionEvaluator(labelCol="rating", predictionCol="prediction")
    grid = ParamGridBuilder().addGrid(als.regParam, [0.1, 5.0]).build()
    chosen = CrossValidator(estimator=als, estimatorParamMaps=grid, evaluator=rmse, numFolds=2, seed=0).fit(ratings)
    assert np.isfinite(chosen.avgMetrics).all()
    assert chosen.bestModel.fitted.settings.regularization == [0.1, 5.0][int(np.argmin(chosen.avgMetrics))]
    pipeline = Pipeline(stages=[SQLTransformer(statement="SELECT * FROM __THIS__ WHERE rating > 0"), als]).fit(ratings)
    pipeline.save(str(tmp_path / "pipeline"))
    loaded = PipelineModel.load(str(tmp_path / "pipeline"))
    assert rmse.evaluate(loaded.transform(ratings)) == pytest.approx(rmse.evaluate(pipeline.transform(ratings)))


def params_of(als):
    return {param.name: value for param, value in als.extractParamMap().items()}


def test_a_saved_model_and_estimator_are_the_same_when_loaded(spark, named, tmp_path):
    als = ALS(rank=3, maxIter=1, userCol="who", itemCol="what", regScaling="none", seed=5, biases=True)
    als.save(str(tmp_path / "als"))
    assert params_of(ALS.load(str(tmp_path / "als"))) == params_of(als)
    model = als.fit(named)
    model.save(str(tmp_path / "model"))
    loaded = ALSModel.load(str(tmp_path / "model"))
    assert loaded.fitted.settings == model.fitted.settings
    assert loaded.history.collect() == model.history.collect()
    for call in (lambda each: each.transform(named), lambda each: each.recommendForAllUsers(2)):
        assert sorted(map(str, call(loaded).collect())) == sorted(map(str, call(model).collect()))
    with pytest.raises(InputError, match="loaded without its ratings: pass them as ratings="):
        loaded.explain("u0", "i100")
    suffixes = {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert suffixes <= {".parquet", ".txt", ".crc", ""}


def test_ids_that_an_earlier_version_saved_under_the_name_of_their_column_are_loaded(spark, named, tmp_path):
    ids = IdColumn.of(named, "who", "who")
    about = ids.save(str(tmp_path / "now"))
    ids.numbers.withColumnRenamed("id", "who").write.parquet(str(tmp_path / "then"))
    for path in ("now", "then"):
        loaded = IdColumn.load(spark, str(tmp_path / path), about)
        assert loaded.numbers.columns == ["number", "id"]
        assert sorted(loaded.numbers.collect()) == sorted(ids.numbers.collect())


def test_strings_and_longs_of_any_size_come_back_as_they_are(spark, ratings, named):
    from pyspark.sql import functions as F

    params = {"rank": 4, "maxIter": 2, "seed": 3, "numUserBlocks": 2, "numItemBlocks": 2}
    wide = ratings.select((F.col("user") + F.lit(2**40)).alias("user"), "item", "rating")
    best = ALS(**params).fit(wide).recommendForAllUsers(1).orderBy("user").first()
    assert best.user == 2**40
    strings = ALS(**params, userCol="who", itemCol="what").fit(named)
    best = {row.who: row.recommendations[0] for row in strings.recommendForAllUsers(1).collect()}
    assert best.keys() == {f"u{user}" for user in range(40)}
    for who, cell in best.items():
        assert int(cell.what[1:]) % 2 == int(who[1:]) % 2  # of the own taste


def test_seen_items_are_left_out_and_candidates_are_all_there_is(spark, ratings, model):
    seen = {(row.user, row.item) for row in ratings.collect()}
    for row in model.recommendForAllUsers(14, exclude=ratings).collect():
        items = [cell.item for cell in row.recommendations]
        assert len(items) == 14
        assert not seen & {(row.user, item) for item in items}
    few = spark.createDataFrame([(101,), (102,), (999,)], "item int")
    for row in model.recommendForAllUsers(5, candidates=few).collect():
        assert {cell.item for cell in row.recommendations} == {101, 102}
        ordered = [cell.rating for cell in row.recommendations]
        assert ordered == sorted(ordered, reverse=True)


def test_similar_items_share_the_taste_and_never_are_the_item_itself(model):
    rows = model.similarItems(3).collect()
    assert len(rows) == 24
    for row in rows:
        assert row.item not in [cell.item for cell in row.similar]
        assert all(-1.0001 <= cell.rating <= 1.0001 for cell in row.similar)
    same = [cell.item % 2 == row.item % 2 for row in rows for cell in row.similar]
    assert np.mean(same) > 0.9


@pytest.mark.parametrize("params", [{}, {"implicitPrefs": True, "alpha": 3.0}, {"biases": True}], ids=str)
def test_folding_in_the_ratings_of_the_fit_gives_factors_that_no_other_user_step_betters(spark, ratings, params):
    """Users folded in again are those of the next half-step: the dense solution against fixed items."""
    model = ALS(rank=4, maxIter=1, regParam=0.2, seed=2, **params).fit(ratings)
    again = model.foldIn(ratings.where("user < 20"))
    x = {row.id: np.array(row.features) for row in again.userFactors.collect()}
    old = {row.id: np.array(row.features) for row in model.userFactors.collect()}
    y = {row.id: np.array(row.features) for row in model.itemFactors.collect()}
    assert x.keys() == old.keys()
    every = np.stack([*y.values()])[:, :4]
    by_user = {}
    for row in ratings.collect():
        by_user.setdefault(row.user, []).append((row.item, row.rating))
    for user, rows in by_user.items():
        if user >= 20:
            np.testing.assert_array_equal(x[user], old[user])
            continue
        v = np.stack([y[item] for item, _ in rows])
        r = np.array([rating for _, rating in rows])
        a, b = 0.2 * len(r) * np.eye(4), 0.0
        if params.get("implicitPrefs"):
            c = 1 + 3.0 * r
            a, b = a + every.T @ every + (v.T * (c - 1)) @ v, v.T @ c
        else:
            if params.get("biases"):
                bias = (r - v[:, -1]).sum() / (len(r) + model.fitted.settings.bias.user_regularization)
                r = r - v[:, -1] - bias
                assert x[user][-2:] == pytest.approx([bias, 1.0], rel=1e-4)
            a, b = a + v[:, :4].T @ v[:, :4], v[:, :4].T @ r
        np.testing.assert_allclose(x[user][:4], np.linalg.solve(a, b), rtol=2e-3, atol=1e-4)


def test_new_users_and_items_are_folded_in_and_served(spark, named):
    model = ALS(rank=4, maxIter=3, userCol="who", itemCol="what", seed=0, **FEW).fit(named)
    fresh = spark.createDataFrame(
        [("new", "i100", 5.0), ("new", "i102", 5.0), ("new", "i101", 1.0), ("new", "unknown", 5.0)],
        "who string, what string, rating double",
    )
    served = model.foldIn(fresh).recommendForUserSubset(fresh.select("who").distinct(), 3, exclude=fresh)
    best = [int(cell.what[1:]) for cell in served.first().recommendations]
    assert all(item % 2 == 0 for item in best)
    liked = spark.createDataFrame(
        [(f"u{user}", "fresh", 5.0 if user % 2 else 1.0) for user in range(20)],
        "who string, what string, rating double",
    )
    scores = model.foldIn(liked, side="item").transform(liked)
    assert scores.where("rating = 5").agg({"prediction": "min"}).first()[0] > 3
    assert scores.where("rating = 1").agg({"prediction": "max"}).first()[0] < 3


@pytest.mark.parametrize("params", [{}, {"implicitPrefs": True}, {"biases": True}], ids=str)
def test_contributions_add_up_to_the_score_of_the_user_folded_in(spark, ratings, params):
    model = ALS(rank=4, maxIter=1, regParam=0.1, seed=2, **params).fit(ratings)
    explained = model.explain(3, 105).collect()
    pair = spark.createDataFrame([(3, 105)], "user int, item int")
    score = model.foldIn(ratings.where("user = 3")).transform(pair).first().prediction
    assert sum(row.contribution for row in explained) == pytest.approx(score, abs=1e-3)
    rated = {row.item for row in ratings.where("user = 3").collect()}
    assert {row.item for row in explained} - {None} == rated
    assert (None in {row.item for row in explained}) == bool(params.get("biases"))
    with pytest.raises(InputError, match="item 999 is not in the model"):
        model.explain(3, 999)


def test_every_solver_ends_near_the_exact_one(ratings):
    def ends_at(solver):
        als = ALS(rank=3, maxIter=5, implicitPrefs=True, seed=1, solver=solver, **FEW)
        return als.fit(ratings).fitted.history[-1]["loss"]

    exact = ends_at("cholesky")
    for solver in ("cg", "ials++"):
        assert ends_at(solver) == pytest.approx(exact, rel=0.03)


def test_nonnegative_factors_are_not_negative(ratings):
    model = ALS(rank=4, maxIter=3, nonnegative=True, seed=1).fit(ratings)
    for factors in (model.userFactors, model.itemFactors):
        assert min(min(row.features) for row in factors.collect()) >= 0
    losses = [row.loss for row in model.history.collect()]
    assert losses == sorted(losses, reverse=True)


def test_a_warm_start_goes_on_where_the_other_model_ended(ratings):
    params = {"rank": 4, "regParam": 0.1, "seed": 1, **FEW}
    first = ALS(**params, maxIter=2).fit(ratings)
    warm = ALS(**params, maxIter=1, warmStart=first).fit(ratings).history.collect()
    cold = ALS(**params, maxIter=3).fit(ratings).history.collect()
    assert warm[0].loss == pytest.approx(cold[2].loss, rel=1e-4)
    with pytest.raises(InputError, match="warmStart has rank 4, expected 5"):
        ALS(rank=5, warmStart=first).fit(ratings)


def test_confidence_of_a_column_counts_as_repeated_ratings_do(spark, ratings):
    from pyspark.sql import functions as F

    weighted = ratings.withColumn("sure", F.when(F.col("item") < 110, 2.0).otherwise(1.0))
    doubled = ratings.unionAll(ratings.where("item < 110"))
    params = {"rank": 4, "maxIter": 2, "regScaling": "none", "seed": 1}
    one = ALS(**params, confidenceCol="sure").fit(weighted).itemFactors.orderBy("id").collect()
    two = ALS(**params).fit(doubled).itemFactors.orderBy("id").collect()
    np.testing.assert_allclose([row.features for row in one], [row.features for row in two], atol=1e-4)


def killed_after_a_snapshot(monkeypatch, params, ratings):
    """Fit, and end right after the first snapshot."""
    from sparkrec.spark.algorithms.als.snapshots import Snapshots

    write = Snapshots.write

    def dies(self, *args):
        write(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            ALS(**params).fit(ratings)


def test_a_fit_resumes_from_its_own_snapshots_only(ratings, tmp_path, monkeypatch, caplog):
    params = {"rank": 4, "maxIter": 3, "checkpointInterval": 2, "checkpointDir": str(tmp_path), "seed": 1, **FEW}
    whole = ALS(**{**params, "checkpointDir": ""}).fit(ratings)
    killed_after_a_snapshot(monkeypatch, params, ratings)
    caplog.set_level("INFO")
    ALS(**{**params, "maxIter": 1}).fit(ratings.where("item > 101"))
    assert "resuming" not in caplog.text
    resumed = ALS(**params).fit(ratings)
    assert "resuming after iteration 2" in caplog.text
    for one, two in ((resumed.userFactors, whole.userFactors), (resumed.itemFactors, whole.itemFactors)):
        got, expected = ([row.features for row in each.orderBy("id").collect()] for each in (one, two))
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_plot_shows_the_history(model):
    figure = model.plotHistory()
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "seconds"]


def test_what_cannot_be_fitted_is_said(spark, ratings):
    rows = [(1, 2, 1e300), (None, 2, 1.0), (1, 3, 2.0)]
    broken = spark.createDataFrame(rows, "user int, item int, rating double")
    with pytest.raises(TrainError, match=r"2 ratings cannot be used, among them: user 1, item 2, value inf"):
        ALS().fit(broken.coalesce(1))
    with pytest.raises(TrainError, match="found no ratings"):
        ALS().fit(ratings.limit(0))
    with pytest.raises(InputError, match="stars"):
        ALS(ratingCol="stars").fit(ratings)
    with pytest.raises(ConfigError, match="rank"):
        ALS(rank=0).fit(ratings)
    with pytest.raises(ConfigError, match="nonnegative factors have one solver"):
        ALS(nonnegative=True, solver="cg").fit(ratings)


@pytest.mark.parametrize("other", [{"alpha": 40.0}, {"ratings": "weight"}])
def test_a_fit_in_another_sense_does_not_resume(ratings, tmp_path, monkeypatch, caplog, other):
    from pyspark.sql import functions as F

    params = {
        "rank": 4,
        "maxIter": 3,
        "checkpointInterval": 1,
        "checkpointDir": str(tmp_path),
        "implicitPrefs": True,
        **FEW,
    }
    killed_after_a_snapshot(monkeypatch, params, ratings)
    caplog.set_level("INFO")
    changed = ratings.withColumn("rating", F.col("rating") + 1) if "ratings" in other else ratings
    ALS(**params, **{name: each for name, each in other.items() if name != "ratings"}).fit(changed)
    assert "resuming" not in caplog.text
    ALS(**params).fit(ratings)
    assert "resuming after iteration 1" in caplog.text


def test_a_model_is_kept_whole_or_not_at_all(model, tmp_path, monkeypatch):
    path = str(tmp_path / "model")
    model.save(path)
    kept = sorted(each.name for each in (tmp_path / "model").iterdir())
    with pytest.raises(InputError, match="is there already"):
        model.save(path)
    assert sorted(each.name for each in (tmp_path / "model").iterdir()) == kept

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("sparkrec.storage.write", dies)
        with pytest.raises(KeyboardInterrupt):
            model.write().overwrite().save(path)
    loaded = ALSModel.load(path)
    assert loaded.itemFactors.count() == model.itemFactors.count()
    model.write().overwrite().save(path)
    assert len([*(tmp_path / "model").glob("tables-*")]) == 1
    assert ALSModel.load(path).itemFactors.count() == model.itemFactors.count()
