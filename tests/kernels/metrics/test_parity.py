"""The same figures as four libraries give, and where they differ, why."""

import warnings

import numpy as np
import pytest

from sparkrec.kernels.metrics import clicks
from sparkrec.kernels.metrics.accuracy import accuracy
from sparkrec.kernels.metrics.hits import find_hits
from tests.kernels.metrics.test_accuracy import lists

USERS, ITEMS, K = 150, 60, 10


@pytest.fixture(scope="module")
def planted():
    """Lists of 20 with different scores, and relevant items of gains 1 to 3, of every user."""
    rng = np.random.default_rng(0)
    ranked = [rng.permutation(ITEMS)[:20].tolist() for _ in range(USERS)]
    relevant = [sorted(rng.choice(ITEMS, rng.integers(1, 16), replace=False).tolist()) for _ in range(USERS)]
    gains = [rng.integers(1, 4, len(own)).astype(float).tolist() for own in relevant]
    return ranked, relevant, gains


@pytest.fixture(scope="module")
def ours(planted):
    ranked, relevant, gains = planted
    hits = find_hits(lists(*ranked), lists(*relevant), np.concatenate(gains))
    return lambda name, k=None: accuracy(hits, name, k)


def score(place):
    return 1.0 / (1 + place)


def test_trec_eval(planted, ours):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    ranked, relevant, gains = planted
    qrels = {
        str(u): {str(i): int(g) for i, g in zip(own, gain, strict=True)}
        for u, (own, gain) in enumerate(zip(relevant, gains, strict=True))
    }
    run = {str(u): {str(i): score(place) for place, i in enumerate(own)} for u, own in enumerate(ranked)}
    names = {f"{each}.{K}" for each in ("ndcg_cut", "map_cut", "recall", "P", "success")}
    found = pytrec_eval.RelevanceEvaluator(qrels, {*names, "Rprec", "recip_rank"}).evaluate(run)
    theirs = {name: np.array([found[str(u)][name] for u in range(USERS)]) for name in found["0"]}
    for name, own in {
        f"ndcg_cut_{K}": ours("ndcg_linear", K),  # graded, as its relevance is
        f"map_cut_{K}": ours("map_full", K),  # over all that is relevant, whatever the cutoff
        f"recall_{K}": ours("recall", K),
        f"P_{K}": ours("precision", K),
        f"success_{K}": ours("hit_rate", K),
        "Rprec": ours("r_precision"),
        "recip_rank": ours("mrr", 20),  # of the whole list
    }.items():
        np.testing.assert_allclose(theirs[name], own, rtol=1e-9, err_msg=name)
    assert np.abs(theirs[f"map_cut_{K}"] - ours("map", K)).max() > 0.01


def test_ranx(planted, ours):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ranx = pytest.importorskip("ranx")
    ranked, relevant, gains = planted
    qrels = ranx.Qrels(
        {
            str(u): {str(i): int(g) for i, g in zip(own, gain, strict=True)}
            for u, (own, gain) in enumerate(zip(relevant, gains, strict=True))
        }
    )
    run = ranx.Run({str(u): {str(i): score(place) for place, i in enumerate(own)} for u, own in enumerate(ranked)})
    same = {
        f"ndcg@{K}": ours("ndcg_linear", K),
        f"ndcg_burges@{K}": ours("ndcg_exponential", K),
        f"map@{K}": ours("map_full", K),
        f"recall@{K}": ours("recall", K),
        f"precision@{K}": ours("precision", K),
        f"hit_rate@{K}": ours("hit_rate", K),
        f"mrr@{K}": ours("mrr", K),
        f"f1@{K}": ours("f1", K),
        "r-precision": ours("r_precision"),
    }
    found = ranx.evaluate(qrels, run, list(same))
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: own.mean() for name, own in same.items()}, rel=1e-9
    )


def test_scikit_learn(planted, ours):
    sklearn = pytest.importorskip("sklearn.metrics")
    ranked, relevant, gains = planted
    truth, scores = np.zeros((USERS, ITEMS)), np.zeros((USERS, ITEMS))
    for u in range(USERS):
        truth[u, relevant[u]] = gains[u]
        scores[u, ranked[u]] = [score(place) for place in range(20)]
        scores[u][scores[u] == 0] = -np.arange(1, ITEMS - 19)  # behind the list, in some order
    each = [sklearn.ndcg_score(truth[u : u + 1], scores[u : u + 1], k=K) for u in range(USERS)]
    np.testing.assert_allclose(each, ours("ndcg_linear", K), rtol=1e-9)

    flat, clicked = scores.ravel(), truth.ravel() > 0
    assert clicks.auc(flat, clicked) == pytest.approx(sklearn.roc_auc_score(clicked, flat))
    p = 1 / (1 + np.exp(-flat / 4))
    assert clicks.log_loss(flat / 4, clicked) == pytest.approx(sklearn.log_loss(clicked, p))
    sure = np.array([1e-30, 0.5])  # theirs has probabilities, cut to 2e-16; ours has logits, of which none is too small
    assert sklearn.log_loss([1, 0], sure) == pytest.approx((-np.log(2.0**-52) - np.log(0.5)) / 2)
    assert clicks.log_loss(np.log(sure / (1 - sure)), np.array([True, False])) == pytest.approx(
        (-np.log(1e-30) - np.log(0.5)) / 2
    )
    whole = [sklearn.average_precision_score(truth[u] > 0, scores[u]) for u in range(USERS)]
    hits = find_hits(lists(*np.argsort(-scores, axis=1)), lists(*relevant))
    np.testing.assert_allclose(whole, accuracy(hits, "map_full", ITEMS), rtol=1e-9)


def test_scikit_learn_averages_over_ties_where_we_draw():
    sklearn = pytest.importorskip("sklearn.metrics")
    truth = np.zeros((1, 50))
    truth[0, :5] = 1.0
    theirs = sklearn.ndcg_score(truth, np.zeros((1, 50)), k=K)
    rng = np.random.default_rng(0)
    drawn = [accuracy(find_hits(lists(rng.permutation(50)), lists(range(5))), "ndcg", K)[0] for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(theirs, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))


def test_torchmetrics(planted, ours):
    torch = pytest.importorskip("torch")
    retrieval = pytest.importorskip("torchmetrics.retrieval")
    ranked, relevant, gains = planted
    index, preds, target = [], [], []
    for u in range(USERS):
        gain = dict(zip(relevant[u], gains[u], strict=True))
        behind = [item for item in range(ITEMS) if item not in ranked[u]]
        for place, item in enumerate([*ranked[u], *behind]):
            index.append(u)
            preds.append(score(place))
            target.append(int(gain.get(item, 0)))
    index, preds, target = (torch.tensor(each) for each in (index, preds, target))

    def theirs(metric, target):
        return float(metric(preds, target, indexes=index))

    binary = (target > 0).long()
    for metric, own in (
        (retrieval.RetrievalNormalizedDCG(top_k=K), ours("ndcg_linear", K)),
        (retrieval.RetrievalRecall(top_k=K), ours("recall", K)),
        (retrieval.RetrievalPrecision(top_k=K), ours("precision", K)),
        (retrieval.RetrievalHitRate(top_k=K), ours("hit_rate", K)),
        (retrieval.RetrievalMRR(top_k=K), ours("mrr", K)),
        (retrieval.RetrievalRPrecision(), None),
        (retrieval.RetrievalMAP(top_k=K), None),
    ):
        graded = isinstance(metric, retrieval.RetrievalNormalizedDCG)
        value = theirs(metric, target if graded else binary)
        if own is not None:
            assert value == pytest.approx(own.mean(), rel=1e-5), metric
    # Their MAP divides by the hits among the first k: finding one item first is perfect, however many are missed.
    hits = find_hits(lists(*ranked), lists(*relevant))
    over_hits = accuracy(hits, "map_full", K) * hits.n_relevant
    found = np.bincount(hits.user[hits.place <= K], minlength=USERS)
    own = np.divide(over_hits, found, out=np.zeros(USERS), where=found > 0)
    assert theirs(retrieval.RetrievalMAP(top_k=K), binary) == pytest.approx(own.mean(), rel=1e-5)
    assert own.mean() > 1.5 * ours("map", K).mean()


def test_who_has_no_list_is_dropped_by_trec_eval_and_counted_by_us():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    qrels = {"0": {"1": 1}, "1": {"1": 1}}
    found = pytrec_eval.RelevanceEvaluator(qrels, {"recall.5"}).evaluate({"0": {"1": 1.0}})
    assert list(found) == ["0"]  # whoever averages what came gets 1
    assert accuracy(find_hits(lists([1], []), lists([1], [1])), "recall", 5).mean() == 0.5


def test_trec_eval_puts_the_later_id_first_among_equal_scores():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    for relevant, found in (("a", 0.0), ("e", 1.0)):
        evaluator = pytrec_eval.RelevanceEvaluator({"0": {relevant: 1}}, {"P.1"})
        assert evaluator.evaluate({"0": dict.fromkeys("abcde", 0.5)})["0"]["P_1"] == found
