"""Metrics at scale are what a slow reader of the definitions computes by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import functions as F

from sparkrec.config import FullRanking, GivenCandidates, SampledNegatives
from sparkrec.errors import ConfigError, EvaluateError
from sparkrec.kernels.random import uniform
from sparkrec.spark.data.dataset import Dataset
from sparkrec.spark.evaluation.model_metrics import measure, metrics_of, overall
from sparkrec.spark.evaluation.protocols import RankingRequest
from sparkrec.spark.evaluation.protocols import _candidates as ranking_candidates
from sparkrec.spark.evaluation.segments import bounds_of
from sparkrec.spark.model.fitted import Model
from sparkrec.spark.model.rows import dense

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]

CUTOFFS = [1, 3, 10]


class World:
    """Random splits, scores with ties, and a model that lacks one user and two items."""

    def __init__(self, spark, n_users=40, n_items=25, seed=0):
        rng = np.random.default_rng(seed)
        self.spark, self.n_users, self.n_items = spark, n_users, n_items
        x, w = rng.integers(-2, 3, (n_users, 3)), rng.integers(-2, 3, (n_items, 3))
        self.scores = (x @ w.T).astype(float)
        activity = rng.uniform(0.05, 0.5, n_users)[:, None]
        split = rng.choice(4, size=(n_users, n_items), p=[0.4, 0.3, 0.1, 0.2])
        split[rng.random((n_users, n_items)) > 2 * activity] = 0
        split[7] = np.where(split[7] == 3, 1, split[7])  # nothing of user 7 is held out
        split[9, :] = 0
        split[9, 4] = 3  # user 9 has nothing but that
        self.train, self.validation, self.test = split == 1, split == 2, split == 3
        self.values = rng.integers(1, 6, (n_users, n_items)).astype(float)
        self.known_users, self.known_items = np.arange(n_users) != 11, ~np.isin(np.arange(n_items), (3, 8))
        self.model = Model(
            self.rows("user", x, self.known_users), self.rows("item", w, self.known_items), 3, "dense", "dense"
        )
        self.dataset = Dataset(
            reference="world@0123456789ab",
            folder="none",
            manifest={},
            train=self.cells(self.train),
            validation=self.cells(self.validation),
            test=self.cells(self.test),
            users=self.counts("user", self.train.sum(1)),
            items=self.counts("item", self.train.sum(0)),
        )

    def rows(self, key, matrix, known):
        numbers = [(i, *map(float, row)) for i, row in enumerate(matrix) if known[i]]
        frame = self.spark.createDataFrame(numbers, f"{key} long, a double, b double, c double")
        return dense(frame, key, F.col("a"), F.col("b"), F.col("c"))

    def cells(self, mask):
        found = [(int(u), int(i), float(self.values[u, i])) for u, i in np.argwhere(mask)]
        return self.spark.createDataFrame(found, "user long, item long, value float")

    def counts(self, key, counts):
        found = [(i, str(i), int(n)) for i, n in enumerate(counts)]
        return self.spark.createDataFrame(found, f"{key} long, {key}_id string, train_count long")

    def seen(self):
        return self.train | self.validation

    def reference(self, allowed, truth, cutoffs, drawn=False):
        """{user: {metric: value}} and {user: list} of the users with truth; `allowed` is what may be ranked. Equal
        scores are in the order of ids, or a drawn one."""
        metrics, lists = {}, {}
        for u in range(self.n_users):
            relevant = set(np.flatnonzero(truth[u]))
            if not relevant:
                continue
            rankable = [i for i in range(self.n_items) if allowed[u, i] and self.known_items[i] and self.known_users[u]]
            tie = uniform(0, np.arange(self.n_items) ^ (u << 20)) if drawn else np.arange(self.n_items)
            ranked = sorted(rankable, key=lambda i: (-self.scores[u, i], tie[i]))
            metrics[u], lists[u] = by_hand(ranked, relevant, cutoffs), ranked
            negatives = [i for i in rankable if i not in relevant and i not in self.also_held_out(u, truth)]
            shares = []
            for i in relevant:
                if not negatives:
                    shares.append(0.5)
                elif not self.known_items[i]:
                    shares.append(0.0)
                else:
                    lower = sum(self.scores[u, n] < self.scores[u, i] for n in negatives)
                    ties = sum(self.scores[u, n] == self.scores[u, i] for n in negatives)
                    shares.append((lower + ties / 2) / len(negatives))
            metrics[u]["auc"] = float(np.mean(shares))
        return metrics, lists

    def also_held_out(self, u, truth):
        return set(np.flatnonzero(self.test[u])) if truth is not self.validation else set()


def by_hand(ranked, relevant, cutoffs):
    """Every metric of one list, from its definition."""
    found = {}
    for k in cutoffs:
        hits = [i in relevant for i in ranked[:k]]
        dcg = sum(1 / math.log2(r + 2) for r, hit in enumerate(hits) if hit)
        ideal = sum(1 / math.log2(r + 2) for r in range(min(k, len(relevant))))
        precisions = [sum(hits[: r + 1]) / (r + 1) for r, hit in enumerate(hits) if hit]
        found[f"hit_rate@{k}"] = float(any(hits))
        found[f"recall@{k}"] = sum(hits) / len(relevant)
        found[f"precision@{k}"] = sum(hits) / k
        found[f"ndcg@{k}"] = dcg / ideal
        found[f"map@{k}"] = sum(precisions) / min(k, len(relevant))
        found[f"mrr@{k}"] = next((1 / (r + 1) for r, hit in enumerate(hits) if hit), 0.0)
    return found


def mean(metrics):
    return {name: float(np.mean([each[name] for each in metrics])) for name in metrics[0]}


@pytest.fixture(scope="module")
def world(spark):
    return World(spark)


@pytest.fixture(scope="module")
def measured():
    return {}


@pytest.fixture
def full(world, everywhere, measured):
    """All that full ranking with three segments says; it is measured once in each place."""
    if everywhere not in measured:
        measured[everywhere] = metrics_of(
            world.model,
            world.dataset,
            world.dataset.test,
            world.dataset.observed(include_validation=True),
            RankingRequest(FullRanking(), CUTOFFS),
            segments=3,
            ratings=True,
            clip=(0.0, 3.0),
        ).metrics
    return measured[everywhere]


def segment(found, name):
    return {each.name: each.value for each in found if each.segment == name}


def test_a_ranking_worked_by_hand():
    found = by_hand([5, 2, 9, 7], {2, 7, 8}, [4])
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found["recall@4"] == pytest.approx(2 / 3)
    assert found["ndcg@4"] == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert found["map@4"] == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert found["mrr@4"] == 0.5


def test_full_ranking_is_what_the_definitions_say(world, full):
    metrics, _ = world.reference(~world.seen(), world.test, CUTOFFS)
    expected = mean(list(metrics.values()))
    found = overall(full)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_a_user_the_model_does_not_know_counts_as_zero_and_half_an_auc(world, full):
    metrics, lists = world.reference(~world.seen(), world.test, CUTOFFS)
    assert lists[11] == []
    assert metrics[11]["auc"] == 0.5
    assert next(each.users for each in full if each.name == "auc") == len(metrics)


def test_every_segment_is_measured_on_its_own_users_or_items(world, full):
    users, items = groups(world.train.sum(1)[world.test.any(1)], 3), groups(world.train.sum(0), 3)
    of_user = dict(zip(np.flatnonzero(world.test.any(1)), users, strict=True))
    metrics, _ = world.reference(~world.seen(), world.test, CUTOFFS)
    for g in (1, 2, 3):
        expected = mean([each for u, each in metrics.items() if of_user[u] == g])
        found = segment(full, f"users:{g}/3")
        assert {name: found[name] for name in expected} == pytest.approx(expected)
        part, _ = world.reference(~world.seen(), world.test & (items == g), CUTOFFS)
        expected = mean(list(part.values()))
        found = segment(full, f"items:{g}/3")
        assert {name: found[name] for name in expected} == pytest.approx(expected)


def groups(counts, n):
    """Group of each count, from its rank among all."""
    middle = np.array([(counts < c).sum() + (counts == c).sum() / 2 for c in counts])
    return (n * middle / len(counts)).astype(int) + 1


def test_groups_are_about_equal_and_equal_counts_stay_together():
    assert bounds_of([(1, 10), (2, 10), (3, 10)], 3) == [1, 2]
    assert bounds_of([(0, 98), (5, 1), (6, 1)], 3) == [-1, 0]
    assert bounds_of([(4, 50)], 2) == [-1]


def test_coverage_and_novelty_are_about_what_is_shown_to_anyone(world, full):
    _, lists = world.reference(~world.seen(), world.test, CUTOFFS)
    count = world.train.sum(0)
    share = np.maximum(count, 1) / (world.train.any(1)).sum()
    found = overall(full)
    for k in CUTOFFS:
        shown = [ranked[:k] for ranked in lists.values() if ranked]
        assert found[f"coverage@{k}"] == pytest.approx(len(set().union(*shown)) / world.n_items)
        assert found[f"novelty@{k}"] == pytest.approx(np.mean([np.mean(-np.log2(share[own])) for own in shown]))


def test_rating_errors_are_clipped_and_count_what_is_not_predicted(world, full):
    known = world.known_users[:, None] & world.known_items[None, :]
    predicted = np.clip(np.where(known, world.scores, world.values[world.train].mean()), 0, 3)
    error = (predicted - world.values)[world.test]
    found = overall(full)
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["mae"] == pytest.approx(np.abs(error).mean())
    assert found["unpredicted"] == (world.test & ~known).sum()
    items = groups(world.train.sum(0), 3)
    error = (predicted - world.values)[world.test & (items == 2)]
    assert segment(full, "items:2/3")["rmse"] == pytest.approx(np.sqrt((error**2).mean()))


def test_given_candidates_are_ranked_with_the_held_out_items_and_nothing_is_excluded(world):
    rng = np.random.default_rng(1)
    candidates = rng.random(world.test.shape) < 0.4
    dataset = replace(world.dataset, candidates=world.cells(candidates).select("user", "item"))
    seen = world.dataset.observed(include_validation=True)
    found = metrics_of(
        world.model, dataset, dataset.test, seen, RankingRequest(GivenCandidates(), CUTOFFS), segments=2
    ).metrics
    metrics, _ = world.reference(candidates | world.test, world.test, CUTOFFS, drawn=True)
    expected = mean(list(metrics.values()))
    assert overall(found) == pytest.approx(expected)
    items = groups(world.train.sum(0), 2)
    part, _ = world.reference(candidates | world.test, world.test & (items == 2), CUTOFFS, drawn=True)
    assert segment(found, "items:2/2") == pytest.approx(mean(list(part.values())))


def test_sampled_negatives_are_all_others_when_more_are_asked_for_than_there_are(world):
    protocol = SampledNegatives(negatives=1000)
    found = metrics_of(world.model, world.dataset, world.dataset.test, None, RankingRequest(protocol, CUTOFFS)).metrics
    metrics, _ = world.reference(~world.seen(), world.test, CUTOFFS, drawn=True)
    assert overall(found) == pytest.approx(mean(list(metrics.values())))


def test_sampled_negatives_follow_their_seed(world):
    def run(seed):
        protocol = SampledNegatives(negatives=4, seed=seed)
        return overall(
            metrics_of(world.model, world.dataset, world.dataset.test, None, RankingRequest(protocol, [3])).metrics
        )

    first = run(1)
    assert first == run(1)
    assert first != run(2)


def test_one_metric_is_measured_by_its_name(world):
    dataset, seen = world.dataset, world.dataset.train
    metrics, _ = world.reference(~world.train, world.validation, [5])
    expected = mean(list(metrics.values()))
    for name in ("ndcg@5", "auc"):
        assert measure(world.model, dataset, dataset.validation, seen, name) == pytest.approx(expected[name])
    known = world.known_users[:, None] & world.known_items[None, :]
    predicted = np.where(known, world.scores, world.values[world.train].mean())
    error = (predicted - world.values)[world.validation]
    assert measure(world.model, dataset, dataset.validation, None, "mae") == pytest.approx(np.abs(error).mean())


def test_a_metric_that_does_not_exist_is_refused(world):
    for name in ("ndcg", "ndcg@0", "accuracy@3", "rmse@3"):
        with pytest.raises(ConfigError, match="does not exist"):
            measure(world.model, world.dataset, world.dataset.test, None, name)


def test_what_cannot_be_measured_is_an_error(world):
    dataset = world.dataset
    with pytest.raises(EvaluateError, match="came without candidates"):
        metrics_of(world.model, dataset, dataset.test, None, RankingRequest(GivenCandidates(), [1]))
    with pytest.raises(EvaluateError, match="has no row in that split"):
        metrics_of(world.model, dataset, dataset.test.limit(0), None, RankingRequest(FullRanking(), [1]), segments=3)


def test_samples_of_one_held_out_item_tell_of_full_ranking_and_large_cutoffs_warn(world, caplog):
    one = world.dataset.test.groupBy("user").agg(F.min("item").alias("item"), F.first("value").alias("value"))
    found = metrics_of(
        world.model, world.dataset, one, None, RankingRequest(SampledNegatives(negatives=4), [1, 3])
    ).metrics
    names = {each.name for each in found}
    assert {"corrected_hit_rate@1", "corrected_ndcg@3", "corrected_mrr@3"} < names
    assert "cutoff 3 of 4 negatives: chance has a hit rate of 0.60; sample more" in caplog.text
    figures = overall(found)
    assert figures["corrected_hit_rate@1"] < figures["hit_rate@1"]
    several = metrics_of(
        world.model, world.dataset, world.dataset.test, None, RankingRequest(SampledNegatives(negatives=4), [1])
    )
    assert not any(each.name.startswith("corrected") for each in several.metrics)


def test_every_figure_has_an_interval_but_those_of_the_catalogue(world, full):
    for each in full:
        if each.segment == "all" and each.k is not None:
            assert (each.low is None) == (each.metric == "coverage")
            if each.low is not None:
                assert each.low <= each.value <= each.high


def test_what_the_user_had_may_be_ranked(world):
    repeated = world.test | world.train
    found = metrics_of(
        world.model,
        world.dataset,
        world.cells(repeated),
        world.dataset.train,
        RankingRequest(FullRanking(exclude_seen=False), CUTOFFS),
    )
    everything = np.ones_like(world.test)
    metrics, _ = world.reference(everything, repeated, CUTOFFS, drawn=False)
    expected = mean([{k: v for k, v in each.items() if k != "auc"} for each in metrics.values()])
    told = overall(found.metrics)
    assert {name: told[name] for name in expected} == pytest.approx(expected)


def test_a_single_metric_ranks_what_the_user_had_where_it_is_told_to(world):
    train, name = world.dataset.train, f"recall@{world.n_items}"
    assert measure(world.model, world.dataset, train, train, name) == 0.0
    assert measure(world.model, world.dataset, train, train, name, exclude_seen=False) > 0.5


def test_held_out_items_that_cannot_be_ranked_are_counted(world):
    held_out = world.test | world.train
    with_list = held_out & world.known_users[:, None]
    known = with_list & world.known_items[None]
    expected = {
        "pairs": held_out.sum(),
        "no_list": (held_out & ~world.known_users[:, None]).sum(),
        "unknown": (with_list & ~world.known_items[None]).sum(),
        "seen": (known & world.train).sum(),
    }
    assert min(expected.values()) > 0

    def counted(protocol, held_out=held_out):
        asked = RankingRequest(protocol, [3])
        truth, seen = world.cells(held_out), world.dataset.train
        return metrics_of(world.model, world.dataset, truth, seen, asked).unrankable._asdict()

    assert counted(FullRanking()) == expected
    assert counted(FullRanking(exclude_seen=False)) == {**expected, "seen": 0}
    assert counted(SampledNegatives(negatives=2)) == {**expected, "seen": 0}
    of_strangers = held_out & ~world.known_users[:, None]  # nobody has a list
    n = of_strangers.sum()
    assert counted(FullRanking(), of_strangers) == {"pairs": n, "no_list": n, "unknown": 0, "seen": 0}


def test_negatives_are_drawn_from_what_the_user_had_where_people_repeat(world):
    dataset = replace(world.dataset, validation=world.dataset.train.limit(0), test=world.cells(world.test))
    full_house = world.cells(np.ones_like(world.test) & ~world.test)  # everything that is not held out is in train
    dataset = replace(dataset, train=full_house)
    user = int(np.flatnonzero(world.test.sum(1))[0])
    one = dataset.test.where(F.col("user") == user)

    def ranked(exclude_seen):
        protocol = SampledNegatives(negatives=5, exclude_seen=exclude_seen)
        return ranking_candidates(dataset, one, one.select("user").distinct(), protocol).count() - one.count()

    assert ranked(True) == 0
    assert ranked(False) == 5
