"""Metrics of recommendations in DataFrames: the same as user by user in Python, whoever has which rows."""

import math

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec import compare, evaluate, user_metrics
from sparkrec.errors import EvaluateError, InputError
from sparkrec.kernels.metrics import clicks, counts
from sparkrec.kernels.metrics import lists as of_lists
from sparkrec.kernels.metrics.hits import find_hits
from sparkrec.spark.evaluation.totals import MetricTotals, PartialTotals
from tests.kernels.metrics.test_accuracy import lists, reference

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

NAMES = ["ndcg", "recall", "hit_rate", "map", "mrr", "precision", "ndcg_exponential"]
COLUMNS = "user long, item long, rank int"


def planted(users=60, items=40, seed=0):
    """Lists and relevant items with gains by user; some users have only one of the two."""
    rng = np.random.default_rng(seed)
    ranked = {user: rng.permutation(items)[: rng.integers(1, 16)].tolist() for user in range(users)}
    relevant = {
        user: dict.fromkeys(rng.choice(items, rng.integers(1, 9), replace=False).tolist(), 1.0)
        for user in range(6, users + 6)
    }
    for own in relevant.values():
        own.update({item: float(rng.integers(1, 4)) for item in own})
    return ranked, relevant


def frames(spark, ranked, relevant, seed=0):
    """Of them, in any order."""
    rng = np.random.default_rng(seed)
    rows = [(user, item, place) for user, own in ranked.items() for place, item in enumerate(own, start=1)]
    truth = [(user, item, gain) for user, own in relevant.items() for item, gain in own.items()]
    rng.shuffle(rows)
    rng.shuffle(truth)
    rows = [(int(user), int(item), int(place)) for user, item, place in rows]
    truth = [(int(user), int(item), float(gain)) for user, item, gain in truth]
    return spark.createDataFrame(rows, COLUMNS), spark.createDataFrame(truth, "user long, item long, relevance double")


def values(tidy, segment="all"):
    return {(row.metric, row.k): row for row in tidy.collect() if row.segment == segment}


def expected(ranked, relevant, users, k):
    each = [reference(ranked.get(user, []), relevant[user], k) for user in users]
    return {name: np.array([one[name] for one in each]) for name in NAMES}


def test_metrics_are_means_over_users_with_relevant_items(spark):
    ranked, relevant = planted()
    recommended, truth = frames(spark, ranked, relevant)
    found = values(evaluate(recommended, truth, NAMES, k=[3, 10]))
    assert len(found) == 2 * len(NAMES)
    for k in (3, 10):
        for name, own in expected(ranked, relevant, relevant, k).items():
            row = found[name, k]
            assert row.value == pytest.approx(own.mean(), rel=1e-12)
            error = own.std(ddof=1) / math.sqrt(len(own))
            assert row.standard_error == pytest.approx(error, rel=1e-9)
            assert (row.low, row.high) == pytest.approx(
                (own.mean() - 1.96 * error, own.mean() + 1.96 * error), rel=1e-4
            )
            assert row.users == len(relevant)


def test_no_partitioning_changes_a_metric(spark):
    recommended, truth = frames(spark, *planted())
    one = values(evaluate(recommended.coalesce(1), truth.coalesce(1), NAMES))
    many = values(evaluate(recommended.repartition(7), truth.repartition(5, "item"), NAMES))
    for key, row in one.items():
        assert many[key].value == pytest.approx(row.value, rel=1e-12)
        assert many[key].standard_error == pytest.approx(row.standard_error, rel=1e-9)


def test_ranks_scores_and_arrays_are_the_same_lists(spark):
    recommended, truth = frames(spark, *planted())
    by_rank = values(evaluate(recommended, truth, NAMES))
    scored = recommended.select("user", "item", (-F.col("rank") / 7.0).alias("score"))
    pair = F.array_sort(F.collect_list(F.struct("rank", "item")))
    lists = recommended.groupBy("user").agg(pair.alias("own")).select("user", F.col("own.item").alias("item"))
    text = [F.concat(F.lit("id "), name).alias(name) for name in ("user", "item")]
    named = recommended.select(*text, "rank"), truth.select(*text, "relevance")
    for other in (evaluate(scored, truth, NAMES), evaluate(lists, truth, NAMES), evaluate(*named, NAMES)):
        assert {key: row.value for key, row in values(other).items()} == pytest.approx(
            {key: row.value for key, row in by_rank.items()}, rel=1e-12
        )


def test_equal_scores_are_worth_what_chance_is(spark):
    n, users = 100, 400
    all_equal = spark.range(users).select(F.col("id").alias("user"), F.explode(F.sequence(F.lit(0), F.lit(n - 1))))
    all_equal = all_equal.select("user", F.col("col").cast("long").alias("item"), F.lit(0.5).alias("score"))
    truth = spark.range(users).select(F.col("id").alias("user"), F.lit(0).cast("long").alias("item"))
    found = values(evaluate(all_equal, truth, ["hit_rate"], k=[10]))["hit_rate", 10]
    assert abs(found.value - 0.1) < 4 * found.standard_error
    again = values(evaluate(all_equal.repartition(3), truth, ["hit_rate"], k=[10]))["hit_rate", 10]
    assert again.value == found.value
    other = values(evaluate(all_equal, truth, ["hit_rate"], k=[10], seed=1))["hit_rate", 10]
    assert other.value != found.value


def test_segments_are_of_users_who_may_be_in_several(spark):
    ranked, relevant = planted()
    recommended, truth = frames(spark, ranked, relevant)
    groups = {"even": range(0, 80, 2), "young": range(20), "nobody": [999]}
    rows = [(user, name) for name, users in groups.items() for user in users] + [(1, None)]
    tidy = evaluate(recommended, truth, NAMES, segments=spark.createDataFrame(rows, "user long, segment string"))
    assert {row.segment for row in tidy.collect()} == {"all", "even", "young"}
    for name in ("even", "young"):
        own = [user for user in groups[name] if user in relevant]
        for metric, each in expected(ranked, relevant, own, 10).items():
            row = values(tidy, name)[metric, 10]
            assert (row.value, row.users) == (pytest.approx(each.mean(), rel=1e-12), len(own))


def test_runs_are_told_apart_and_measured_on_the_same_users(spark):
    (first, relevant), (second, _) = planted(), planted(users=30, seed=1)
    a, truth = frames(spark, first, relevant)
    b, _ = frames(spark, second, relevant)
    both = a.withColumn("model", F.lit("a")).unionByName(b.withColumn("model", F.lit("b")))
    rows = evaluate(both, truth, NAMES, by="model").collect()
    for name, ranked in (("a", first), ("b", second)):
        own = {row.metric: row for row in rows if row.model == name}
        for metric, each in expected(ranked, relevant, relevant, 10).items():
            assert own[metric].value == pytest.approx(each.mean(), rel=1e-12)
            assert own[metric].users == len(relevant)


def test_what_is_not_relevant_and_what_comes_twice(spark):
    recommended = spark.createDataFrame([(1, 7, 1), (1, 8, 2), (2, 7, 1)], COLUMNS)
    rows = [(1, 7, 0.0), (1, 8, 1.0), (1, 8, 3.0), (2, 7, -1.0)]
    truth = spark.createDataFrame(rows, "user long, item long, relevance double")
    found = values(evaluate(recommended, truth, ["ndcg_linear", "recall"], k=[2]))
    assert found["recall", 2].users == 1  # nothing is relevant to the other
    assert found["recall", 2].value == 1.0
    assert found["ndcg_linear", 2].value == pytest.approx(1 / math.log2(3))
    assert math.isnan(found["recall", 2].standard_error)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, 7, 1), (1, 7, 2)], "found an item more than once in the list of a user"),
        ([(1, 7, 1), (1, 8, 3)], r"found 1 ranks that are not 1, 2, 3, \.\.\. of their user"),
        ([(1, 7, 1), (1, 8, 1)], "ranks that are not"),
        ([(1, 7, 0), (1, 8, 1)], "ranks that are not"),
    ],
)
def test_lists_that_are_none_are_refused(spark, rows, message):
    truth = spark.createDataFrame([(1, 7)], "user long, item long")
    with pytest.raises(EvaluateError, match=message):
        evaluate(spark.createDataFrame(rows, COLUMNS), truth)


def test_what_cannot_be_measured_says_why(spark):
    lists = spark.createDataFrame([(1, 7, 1)], COLUMNS)
    truth = spark.createDataFrame([(1, 7)], "user long, item long")
    scored = spark.createDataFrame([(1, 7, float("nan"))], "user long, item long, score double")
    with pytest.raises(EvaluateError, match="found 1 scores that are null or NaN"):
        evaluate(scored, truth)
    with pytest.raises(EvaluateError, match="found 'ndgc', expected any of hit_rate"):
        evaluate(lists, truth, ["ndgc"])
    for wrong in (0, -3, 2.5, True):
        with pytest.raises(EvaluateError, match=f"k: found {wrong}, expected whole numbers from 1"):
            evaluate(lists, truth, k=[wrong])
    with pytest.raises(EvaluateError, match="found neither rank nor score"):
        evaluate(lists.drop("rank"), truth)
    with pytest.raises(EvaluateError, match="item: found bigint in recommendations and string in relevant"):
        evaluate(lists, truth.withColumn("item", F.col("item").cast("string")))
    with pytest.raises(EvaluateError, match="found no user with a relevant item"):
        evaluate(lists, truth.where("user > 1"))
    with pytest.raises(EvaluateError, match="whose relevance is null, NaN or infinite"):
        evaluate(lists, truth.withColumn("relevance", F.lit(math.inf)))
    with pytest.raises(InputError, match="relevant"):
        evaluate(lists, truth.drop("item"))


def test_rows_of_nobody_and_a_segment_of_everyone_are_refused(spark):
    lists = spark.createDataFrame([(1, 7, 1)], COLUMNS)
    truth = spark.createDataFrame([(1, 7)], "user long, item long")
    none = spark.createDataFrame([(None, 7, 1), (1, None, 2), (1, 7, 1)], COLUMNS)
    with pytest.raises(EvaluateError, match="found 2 rows whose user or item is null"):
        evaluate(none, truth)
    with pytest.raises(EvaluateError, match="found 1 rows whose user or item is null"):
        evaluate(lists, spark.createDataFrame([(None, 7), (1, 7)], "user long, item long"))
    arrays = spark.createDataFrame([(1, [7, None])], "user long, item array<long>")
    with pytest.raises(EvaluateError, match="found 1 rows whose user or item is null"):
        evaluate(arrays, truth)
    with pytest.raises(EvaluateError, match="found 1 users in a segment named all"):
        evaluate(lists, truth, segments=spark.createDataFrame([(1, "all")], "user long, segment string"))


def catalogue(items=40, seed=3):
    """Vectors and categories of items."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(items, 4)).astype(np.float32), [
        rng.choice(5, rng.integers(0, 3), replace=False).tolist() for _ in range(items)
    ]


def test_lists_are_measured_by_what_came_before_and_what_items_are(spark):
    ranked, relevant = planted()
    recommended, truth = frames(spark, ranked, relevant)
    rng = np.random.default_rng(1)
    had = {user: np.unique((40 * rng.random(12) ** 2).astype(int)).tolist() for user in range(70)}
    before = spark.createDataFrame([(user, item) for user, own in had.items() for item in own], "user long, item long")
    vectors, categories = catalogue()
    rows = [(item, vectors[item].tolist(), [f"c{each}" for each in categories[item]]) for item in range(40)]
    items = spark.createDataFrame(rows, "item long, vector array<float>, categories array<string>")
    names = ["novelty", "popularity", "diversity", "category_diversity", "serendipity", "popularity_lift"]
    names.append("miscalibration")
    of_all = ["coverage", "entropy", "gini", "personalisation"]
    found = values(evaluate(recommended, truth, [*names, *of_all, "ndcg"], k=[3, 7], before=before, items=items))

    n = np.maximum(np.bincount([item for own in had.values() for item in own], minlength=40), 1)
    share, place = n / 70, np.empty(40, int)
    place[np.argsort(-share, kind="stable")] = np.arange(1, 41)
    users = [user for user in relevant if user in ranked]
    of = lists(*[ranked[user] for user in users])
    hits = find_hits(of, lists(*[sorted(relevant[user]) for user in users]))
    past = lists(*[had[user] for user in users])
    numbers = lists(*categories)
    for k in (3, 7):
        expected = {
            "novelty": of_lists.novelty(of, share, k),
            "popularity": of_lists.popularity(of, share, k),
            "diversity": of_lists.diversity(of, vectors, k),
            "category_diversity": of_lists.category_diversity(of, numbers, k),
            "serendipity": of_lists.serendipity(of, hits, place, k),
            "miscalibration": of_lists.miscalibration(of, past, numbers, k),
        }
        for name, each in expected.items():
            assert found[name, k].value == pytest.approx(np.nanmean(each), rel=1e-9), name
            assert found[name, k].users == np.isfinite(each).sum()
        mean = np.array([share[had[user]].mean() for user in users])
        lift = expected["popularity"].mean() / mean.mean() - 1
        assert found["popularity_lift", k].value == pytest.approx(lift, rel=1e-9)
        listed = np.bincount([item for user in users for item in ranked[user][:k]], minlength=40)
        for name, value in {
            "coverage": counts.coverage(listed, 40),
            "entropy": counts.entropy(listed),
            "gini": counts.gini(listed, 40),
            "personalisation": counts.personalisation(listed, len(users), k),
        }.items():
            assert found[name, k].value == pytest.approx(value, rel=1e-9)
            assert found[name, k].standard_error is None
    assert found["ndcg", 3].users == len(relevant)


def test_metrics_that_lack_what_they_are_made_from_say_what(spark):
    recommended, truth = frames(spark, *planted())
    truth = truth.drop("relevance")
    for name, what in {
        "novelty": "which take before",
        "coverage": "items or before",
        "diversity": "items with a column vector",
        "corrected_ndcg": "sampled_from",
        "log_loss": "recommendations with a score",
    }.items():
        with pytest.raises(EvaluateError, match=f"metrics: found {name}, .*{what}"):
            evaluate(recommended, truth, [name])
    scored = recommended.withColumn("score", -F.col("rank")).drop("rank")
    with pytest.raises(EvaluateError, match="found rmse, which take relevant with a relevance"):
        evaluate(scored, truth, ["rmse"])
    few = spark.createDataFrame([(0,)], "item long")
    with pytest.raises(EvaluateError, match="rows of recommendations or before whose item is not in the catalogue"):
        evaluate(recommended, truth, ["coverage"], items=few)
    with pytest.raises(EvaluateError, match="item that is null or comes more than once"):
        evaluate(recommended, truth, ["coverage"], items=few.unionAll(few))
    for name in ("coverage", "rmse"):
        with pytest.raises(EvaluateError, match=f"found {name}, which no user has a value of"):
            compare(recommended, truth, "rank", "1", [name])


def test_items_have_segments_of_their_own(spark):
    ranked, relevant = planted()
    recommended, truth = frames(spark, ranked, relevant)
    truth = truth.withColumn("segment", F.when(F.col("item") % 3 == 0, "third").when(F.col("item") % 3 == 1, "rest"))
    tidy = evaluate(recommended, truth, [*NAMES, "auc"])
    assert {row.segment for row in tidy.collect()} == {"all", "third", "rest"}
    every = values(evaluate(recommended, truth.drop("segment"), [*NAMES, "auc"]))
    assert {key: row.value for key, row in values(tidy).items()} == {key: row.value for key, row in every.items()}
    for name, rest in (("third", 0), ("rest", 1)):
        own = {user: {i: g for i, g in has.items() if i % 3 == rest} for user, has in relevant.items()}
        own = {user: has for user, has in own.items() if has}
        for metric, each in expected(ranked, own, own, 10).items():
            row = values(tidy, name)[metric, 10]
            assert (row.value, row.users) == (pytest.approx(each.mean(), rel=1e-12), len(own))
    with pytest.raises(EvaluateError, match="segment of items with the name of one of users"):
        evaluate(recommended, truth, segments=spark.createDataFrame([(7, "rest")], "user long, segment string"))


def test_scores_are_measured_over_rows(spark):
    rng = np.random.default_rng(0)
    rows = [(user, item, rng.normal()) for user in range(30) for item in rng.choice(50, 20, replace=False).tolist()]
    pairs = [(user, item, float(rng.integers(-1, 4))) for user, item, _ in rows if rng.random() < 0.3]
    scored = spark.createDataFrame(rows, "user long, item long, score double")
    truth = spark.createDataFrame(pairs, "user long, item long, relevance double")
    found = values(evaluate(scored, truth, ["auc", "grouped_auc", "log_loss", "rmse", "mae"]))
    rated = {(user, item): rating for user, item, rating in pairs}
    errors = np.array([score - rated[user, item] for user, item, score in rows if (user, item) in rated])
    assert found["rmse", None].value == pytest.approx(np.sqrt((errors**2).mean()))
    assert found["mae", None].value == pytest.approx(np.abs(errors).mean())
    score = np.array([each for _, _, each in rows])
    clicked = np.array([rated.get((user, item), 0) > 0 for user, item, _ in rows])
    user = np.array([each for each, _, _ in rows])
    assert found["log_loss", None].value == pytest.approx(clicks.log_loss(score, clicked))
    assert found["grouped_auc", None].value == pytest.approx(clicks.grouped_auc(score, clicked, user))
    each = [clicks.auc(score[user == u], clicked[user == u]) for u in range(30) if clicked[user == u].any()]
    assert found["auc", None].value == pytest.approx(np.mean(each))
    beaten = truth.withColumn("beaten", F.lit(0.25))
    assert values(evaluate(scored, beaten, ["auc"]))["auc", None].value == 0.25


def test_sampled_candidates_tell_of_the_catalogue(spark):
    rng = np.random.default_rng(0)
    users, items, negatives = 1500, 1000, 50
    rows, full = [], []
    for user in range(users):
        above = min(int(rng.geometric(1 / 60)) - 1, items - 1)
        full.append(above < 10)
        drawn = rng.random(negatives) < above / (items - 1)
        rows += [(user, 0, 0.0), *((user, at + 1, 1.0 if up else -1.0) for at, up in enumerate(drawn.tolist()))]
    scored = spark.createDataFrame(rows, "user long, item long, score double")
    truth = spark.range(users).select(F.col("id").alias("user"), F.lit(0).cast("long").alias("item"))
    found = values(evaluate(scored, truth, ["recall", "corrected_recall"], sampled_from=items))
    naive, estimate = found["recall", 10].value, found["corrected_recall", 10]
    assert naive > 5 * np.mean(full)
    assert abs(estimate.value - np.mean(full)) < max(0.2 * np.mean(full), 3 * estimate.standard_error)
    twice = truth.unionAll(truth.withColumn("item", F.lit(1).cast("long")))
    with pytest.raises(EvaluateError, match="found 1,500 users with more than one relevant item"):
        evaluate(scored, twice, ["corrected_recall"], sampled_from=items)


def test_each_user_has_a_row(spark):
    ranked, relevant = planted()
    recommended, truth = frames(spark, ranked, relevant)
    names = ["ndcg", "recall"]
    rows = user_metrics(recommended, truth, names, k=[3, 5]).collect()
    assert sorted(row.user for row in rows) == sorted(relevant)
    for k in (3, 5):
        for row in rows:
            each = reference(ranked.get(row.user, []), relevant[row.user], k)
            assert [row[f"{name}@{k}"] for name in names] == pytest.approx([each[name] for name in names])
    text = [F.concat(F.lit("id "), name).alias(name) for name in ("user", "item")]
    named = [each.select(*text, *each.columns[2:]) for each in (recommended, truth)]
    both = named[0].withColumn("model", F.lit("a")).unionAll(named[0].where("rank = 1").withColumn("model", F.lit("b")))
    rows = user_metrics(both, named[1], ["recall"], k=[1], by="model").collect()
    assert sorted((row.user, row.model) for row in rows) == sorted((f"id {u}", m) for u in relevant for m in "ab")
    with pytest.raises(Exception, match="found 1 ranks that are not 1, 2, 3"):
        user_metrics(recommended.where("rank > 1 OR user = 0").where("user < 2").limit(1), truth).collect()


def two_runs(spark, users=300):
    """Of two models, of which `good` puts more of what is relevant first."""
    rng = np.random.default_rng(0)
    truth = {user: dict.fromkeys(rng.choice(30, 5, replace=False).tolist(), 1.0) for user in range(users)}
    lists = {}
    for model, luck in (("good", 2.0), ("plain", 1.0)):
        chance = {user: np.where(np.isin(np.arange(30), list(own)), luck, 1.0) for user, own in truth.items()}
        draw = {user: rng.choice(30, 10, replace=False, p=own / own.sum()).tolist() for user, own in chance.items()}
        lists[model] = {user: own for user, own in draw.items() if user % 7 or model == "good"}
    rows = [
        (user, int(item), place, model)
        for model, own in lists.items()
        for user, items in own.items()
        for place, item in enumerate(items, start=1)
    ]
    pairs = [(user, int(item)) for user, own in truth.items() for item in own]
    frame = spark.createDataFrame(rows, COLUMNS + ", model string")
    return frame, spark.createDataFrame(pairs, "user long, item long"), lists, truth


def test_runs_are_compared_user_by_user(spark):
    recommended, relevant, lists, truth = two_runs(spark)
    names = ["ndcg", "recall"]
    rows = compare(recommended, relevant, "model", "plain", names, k=[5], bootstrap=500).collect()
    assert [(row.model, row.metric) for row in rows] == [("good", "ndcg"), ("good", "recall")]
    good, plain = (expected(lists[model], truth, truth, 5) for model in ("good", "plain"))
    for row in rows:
        differences = good[row.metric] - plain[row.metric]
        assert row.difference == pytest.approx(differences.mean(), rel=1e-10)
        error = differences.std(ddof=1) / math.sqrt(len(differences))
        assert row.standard_error == pytest.approx(error, rel=1e-9)
        assert row.low == pytest.approx(row.difference - 1.96 * error, abs=0.4 * error)
        assert row.high == pytest.approx(row.difference + 1.96 * error, abs=0.4 * error)
        assert (row.better, row.worse) == ((differences > 1e-15).sum(), (differences < -1e-15).sum())
        assert row.p_value == 1 / 500
        assert row.sign_p < 0.01
        assert row.adjusted_p == pytest.approx(2 / 500)
        assert row.users == len(truth)
    other_way = compare(recommended.repartition(5), relevant, "model", "good", names, k=[5], bootstrap=500).collect()
    for row, other in zip(rows, other_way, strict=True):
        assert other.difference == pytest.approx(-row.difference, rel=1e-10)
        assert (other.low, other.high) == pytest.approx((-row.high, -row.low), rel=1e-9)


def test_a_chance_has_two_sides_by_hand():
    """A mean 1.96 of its errors from 0, and samples of which one of four is on the other side."""

    def chance(differences, drawn=None):
        totals, there = PartialTotals(), np.ones((len(differences), 1))
        samples = np.zeros((len(there), 0)) if drawn is None else np.array(drawn, float)
        totals.add("difference", "run", "all", np.array(differences)[:, None], there, samples)
        rows = [row for batch in totals.batches() for row in batch.to_pylist()]
        return MetricTotals(rows, samples.shape[1], [False]).p_value("run", "all", 0)

    spread = np.tile([1.0, -1.0], 50) * math.sqrt(0.99)
    for shift in (0.196, -0.196):
        assert chance(shift + spread) == pytest.approx(0.05, abs=1e-5)
    for sign in (1.0, -1.0):
        assert chance([2.0 * sign, -1.0 * sign], [[1, 2, 0, 1], [1, 0, 2, 0]]) == 2 * 1 / 4
    assert chance([2.0, 1.0], [[1, 2, 0, 1], [1, 0, 2, 0]]) == 1 / 4  # none is on the other side
    assert chance(np.full(4, 0.5)) == 0.0  # nothing else is possible


def test_a_run_differs_from_itself_by_nothing(spark):
    recommended, relevant, _, _ = two_runs(spark)
    same = recommended.where("model = 'good'")
    both = same.unionByName(same.withColumn("model", F.lit("again")))
    for samples in (0, 100):
        for row in compare(both, relevant, "model", "again", ["ndcg"], k=[5], bootstrap=samples).collect():
            assert (row.difference, row.better, row.worse, row.p_value, row.sign_p) == (0.0, 0, 0, 1.0, 1.0)


def test_the_bootstrap_is_as_wide_as_the_standard_error_says(spark):
    recommended, relevant, _, _ = two_runs(spark)
    plain, drawn = (
        values(evaluate(recommended.where("model = 'good'"), relevant, ["recall"], k=[5], bootstrap=samples))
        for samples in (0, 800)
    )
    one, other = plain["recall", 5], drawn["recall", 5]
    assert (one.value, one.standard_error) == (other.value, other.standard_error)
    assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.3 * one.standard_error)


def test_what_cannot_be_compared_says_why(spark):
    recommended, relevant, _, _ = two_runs(spark, users=5)
    with pytest.raises(EvaluateError, match="found 'best', expected one of several runs in column model"):
        compare(recommended, relevant, "model", "best")
    with pytest.raises(EvaluateError, match="found -1, expected a number of samples"):
        compare(recommended, relevant, "model", "good", bootstrap=-1)


def test_columns_of_ids_may_have_any_name(spark):
    recommended, truth = frames(spark, *planted())
    before = truth.select("user", "item").unionByName(recommended.select("user", "item"))
    groups = (
        truth.select("user").distinct().withColumn("segment", F.when(F.col("user") > 20, "late").otherwise("early"))
    )

    def named(frame):
        return frame.withColumnsRenamed({"user": "the customer", "item": "sku"}).withColumn("user", F.lit(7.5))

    given = {"metrics": ["ndcg", "novelty"], "k": [1, 3], "before": before, "segments": groups}
    own = {**given, "before": named(before), "segments": named(groups), "user": "the customer", "item": "sku"}
    found = evaluate(named(recommended), named(truth), **own)
    assert found.collect() == evaluate(recommended, truth, **given).collect()
    each = user_metrics(named(recommended), named(truth), ["ndcg"], user="the customer", item="sku")
    assert each.columns == ["the customer", "ndcg@10"]
    runs = recommended.withColumn("run", F.lit("a")).unionByName(recommended.withColumn("run", F.lit("b")))
    settings = {"by": "run", "baseline": "a", "metrics": ["ndcg"], "bootstrap": 10}
    same = compare(named(runs), named(truth), **settings, user="the customer", item="sku")
    assert same.collect() == compare(runs, truth, **settings).collect()


@pytest.mark.parametrize("by", ["metric", "Users", "score", "ndcg@10"])
def test_a_column_of_runs_has_no_name_of_ours(spark, by):
    recommendations = spark.createDataFrame(
        [("a", "x", 1, "one")], f"user string, item string, rank int, `{by}` string"
    )
    relevant = spark.createDataFrame([("a", "x")], "user string, item string")
    for measure, more in ((evaluate, {}), (user_metrics, {}), (compare, {"baseline": "one"})):
        with pytest.raises(EvaluateError, match="Rename the column"):
            measure(recommendations, relevant, metrics=["ndcg"], k=[10], by=by, **more)


def test_a_column_of_runs_may_have_any_other_name(spark):
    by = "my `run` no. 1"
    rows = [("a", "x", 1, "one"), ("a", "y", 1, "two")]
    quoted = by.replace("`", "``")
    recommendations = spark.createDataFrame(rows, f"user string, item string, rank int, `{quoted}` string")
    relevant = spark.createDataFrame([("a", "x")], "user string, item string")
    found = evaluate(recommendations, relevant, ["recall"], k=[1], by=by).collect()
    assert {row[by]: row["value"] for row in found} == {"one": 1.0, "two": 0.0}
