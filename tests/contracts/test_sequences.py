"""What every model of sequences does: what it sees of a history, and what it learns from it."""

from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from sparkrec.config import StoppingSettings, declaration, kinds
from sparkrec.models.base.inputs import next_item_inputs
from sparkrec.models.base.recommender import Features, Sizes
from sparkrec.models.base.scorers import load_scorer, scorer_of
from sparkrec.models.base.sequence_model import History, by_length, packed
from sparkrec.models.bert4rec import Bert4recSettings
from sparkrec.models.caser import CaserSettings
from sparkrec.models.fpmc import FpmcSettings
from sparkrec.models.gru4rec import Gru4recSettings
from sparkrec.models.item2vec import Item2vecSettings
from sparkrec.models.sasrec import SasrecSettings
from sparkrec.training import streamed
from sparkrec.training.collective import Alone
from sparkrec.training.export import Trained
from sparkrec.training.loop import Job, Trainer, train
from tests.training.examples import cut_off, in_threads, plain, write_shards

pytestmark = pytest.mark.torch

BASE = {"threads": 1, "epochs": 2, "batch": 16, "negatives": 3, "learning_rate": 0.02, "init_scale": 0.1}
KINDS = {
    "item2vec": (Item2vecSettings, {"window": 2}),
    "fpmc": (FpmcSettings, {}),
    "gru4rec": (Gru4recSettings, {"hidden": 12}),
    "caser": (CaserSettings, {"horizontal": 4, "vertical": 2}),
    "sasrec": (SasrecSettings, {"heads": 2}),
    "bert4rec": (Bert4recSettings, {"heads": 2, "masked": 0.4}),
}
NEXT = [kind for kind in KINDS if declaration(kind).module.asks != "around"]
"""Those that learn from questions about what comes next, or is hidden."""
USERS, ITEMS, LENGTH = 120, 24, 6


def network(kind, dropout=0.0, **training):
    settings, given = KINDS[kind]
    if "dropout" in settings.model_fields:
        given = given | {"dropout": dropout}
    return settings(dim=8, **given, training=plain(**{**BASE, **training}))


def walks(seed=0):
    """Of each user: after item i comes i + 5, on a circle that nobody walks to its end."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(ITEMS) + 5 * np.arange(rng.integers(2, 11))) % ITEMS for _ in range(USERS)]


def examples(folder, kind, *, held_out=False, **how):
    """What all users but for the last event did, or that event after what they did."""
    users, items, sequences = [], [], []
    for user, walk in enumerate(walks()):
        own = walk[-1:] if held_out else walk[:-1]
        users += [user] * len(own)
        items += own.tolist()
        if held_out:
            sequences.append((user, walk[:-1][-LENGTH:]))
        elif len(own) > 1 and kind == "caser":
            most = LENGTH + 2
            sequences += [(user, own[at : at + most]) for at in range(max(len(own) - most + 1, 1))]
        elif len(own) > 1:
            sequences.append((user, own[-LENGTH - 1 :]))
    ordered = {"sequences": sequences, "length": LENGTH, "targets": 2 if kind == "caser" else None}
    return write_shards(folder, np.array(users), np.array(items), ITEMS, ordered=ordered, **how)


def model_of(kind, seed=0):
    model = network(kind).network(Sizes(users=3, items=ITEMS, length=LENGTH))
    model.initialize(torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    for table in (model.users, model.items):
        table.weight.copy_(torch.from_numpy(rng.normal(size=table.weight.shape)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + torch.from_numpy(rng.normal(size=parameter.shape)) * 0.3)
    return model.eval()


def states(model, histories, users=None):
    """Of users, 0, 1, 2 if none are named, who ask after what they did."""
    start = np.cumsum([0, *map(len, histories)])
    shown = next_item_inputs((start, np.concatenate(histories)), type(model), LENGTH, ITEMS)
    with torch.no_grad():
        return model.query(torch.arange(len(histories)) if users is None else users, shown.tensors(torch.device("cpu")))


def test_every_model_of_sequences_is_here():
    assert set(KINDS) == {
        kind for kind in kinds() if declaration(kind).module and declaration(kind).settings().sequence_needs
    }


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind):
    model = model_of(kind)
    for table in (model.users, model.items):
        table.take()
    shown = History(torch.tensor([1, 4, 2, 7, 3, 8, 10, 11]), torch.tensor([0, 2, 8]), torch.tensor([1, 7]))
    model.score(torch.tensor([0, 2]), torch.tensor([[5, 6], [9, 5]]), Features(shown, None)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if "position" not in name:
            assert parameter.grad.abs().sum() > 0, name
    ids, gradients = model.items.take()
    read = {5, 6, 9, 4, 11} | ({1, 2, 7, 3, 8, 10} if kind != "fpmc" else set())
    assert set(ids[gradients.abs().sum(1) > 0].tolist()) == read


@pytest.mark.parametrize("kind", KINDS)
def test_the_scorer_comes_back_from_its_file(kind):
    model, n = model_of(kind), ITEMS
    histories = [np.array([5]), np.arange(4), np.arange(3, 3 + LENGTH)]
    scorer = load_scorer(scorer_of(network(kind), model).to_bytes())
    assert scorer.length == LENGTH
    start, items = np.cumsum([0, *map(len, histories)]), model.items.weight[:n].numpy()
    found = scorer.states(model.users.weight.numpy(), (start, np.concatenate(histories)), items)
    np.testing.assert_allclose(found, states(model, histories).numpy(), atol=1e-5)
    assert scorer.state_size == found.shape[1]
    everything = torch.arange(n)[None]
    shown = next_item_inputs((start, np.concatenate(histories)), type(model), LENGTH, n).tensors(torch.device("cpu"))
    with torch.no_grad():
        expected = model.score(torch.arange(3), everything, Features(shown, None)).numpy()
    np.testing.assert_allclose(found @ scorer.output_embeddings(items).T, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(kind, tmp_path):
    settings, shards = network(kind, epochs=4, table_l2=1e-4), examples(tmp_path / "s", kind)
    whole = train(Job(settings, shards, None, str(tmp_path / "whole"), 0), Alone())
    job = Job(settings, shards, None, str(tmp_path / "cut"), 0)
    cut_off(job)
    resumed = train(job, Alone())
    assert [e["loss"] for e in resumed["history"]] == pytest.approx([e["loss"] for e in whole["history"]], rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_who_asks_with_others_hears_what_it_would_hear_alone(kind, seed):
    """Histories of one batch differ in length, so that some of them are padded, and stand in any order: before a short
    one there is another one, and behind it, too."""
    rng = np.random.default_rng(seed)
    model, histories = model_of(kind), [rng.integers(ITEMS, size=n) for n in rng.permutation([1, 2, 3, 4, LENGTH, 9])]
    users = torch.from_numpy(rng.integers(3, size=len(histories)))
    together = states(model, histories, users)
    for at, history in enumerate(histories):
        torch.testing.assert_close(states(model, [history], users[at : at + 1])[0], together[at])


@pytest.mark.parametrize("kind", ["sasrec", "bert4rec"])
def test_an_event_is_its_item_and_its_place_from_the_end(kind):
    """What is added to the vector of a place and taken off that of the item there is nothing, whoever else asks."""
    model, rng, lengths = model_of(kind), np.random.default_rng(0), [2, LENGTH, 4]
    items, start = torch.from_numpy(rng.permutation(ITEMS)[: sum(lengths)]), torch.tensor([0, *np.cumsum(lengths)])
    history = History(items, start, start[1:] - 1)
    scale = model.dim**0.5 if kind == "sasrec" else 1.0
    with torch.no_grad():
        before = model.states(torch.arange(3), history)
        for of, length in enumerate(lengths):
            for back in range(1, length + 1):
                more = torch.from_numpy(rng.normal(size=model.dim)).float()
                place, vector = model.position[LENGTH - back], model.items.weight[items[start[of + 1] - back]]
                place += more
                assert not torch.isclose(model.states(torch.arange(3), history)[of], before[of], atol=1e-3).all()
                vector[: model.dim] -= more / scale
                after = model.states(torch.arange(3), history)
                torch.testing.assert_close(after[of], before[of], rtol=1e-4, atol=1e-4)
                place -= more
                vector[: model.dim] += more / scale


@pytest.mark.parametrize("kind", KINDS)
def test_a_history_of_any_length_counts_with_its_last_events(kind):
    model = model_of(kind)
    long = np.arange(100) % ITEMS
    torch.testing.assert_close(states(model, [long]), states(model, [long[-LENGTH:]]))
    assert not torch.equal(states(model, [long]), states(model, [np.roll(long, 1)]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if declaration(kind).module.asks == "each"])
def test_what_comes_later_changes_nothing(kind):
    model, n = model_of(kind), LENGTH
    start, at, users = torch.tensor([0, n]), torch.arange(n), torch.zeros(n, dtype=torch.long)
    with torch.no_grad():
        found = model.states(users, History(torch.arange(n), start, at))
        for changed in range(1, n):
            items = torch.arange(n)
            items[changed:] += 7
            again = model.states(users, History(items, start, at))
            torch.testing.assert_close(again[:changed], found[:changed])
            assert not torch.isclose(again[changed], found[changed]).all()


def test_what_is_hidden_is_not_seen(tmp_path):
    trainer = Trainer(Job(network("bert4rec"), examples(tmp_path / "s", "bert4rec"), None, str(tmp_path), 0), Alone())
    hidden = [
        (batch.shown.items[batch.shown.at] == ITEMS).all() and (batch.items < ITEMS).all()
        for batch in trainer.batches.epoch(0)
    ]
    assert all(hidden)
    assert sum(len(batch.shown.at) for batch in trainer.batches.epoch(0)) > 60


@pytest.mark.parametrize("kind", NEXT)
def test_an_epoch_asks_for_every_event_that_can_be(kind, tmp_path):
    job = Job(network(kind, negatives=0, loss="full_softmax"), examples(tmp_path / "s", kind), None, str(tmp_path), 0)
    trainer = Trainer(job, Alone())
    asked = []
    for batch in trainer.batches.epoch(0):
        shown, begin = batch.shown, batch.shown.start
        of = np.searchsorted(begin, shown.at, side="right") - 1
        for user, item, at, which in zip(batch.users, batch.items[:, 0], shown.at, of, strict=True):
            walk = walks()[trainer.users[user]][:-1].tolist()
            seen = shown.items[begin[which] : at + 1].tolist()
            if declaration(kind).module.asks == "masked":
                assert item in walk
            else:
                place = next(p for p in range(len(walk)) if walk[p : p + len(seen)] == seen) + len(seen)
                assert item == walk[place] or (kind == "caser" and item in walk[place : place + 2])
            asked.append((user, item))
    users = {user for user, _ in asked}
    assert len(users) == sum(len(walk) > 2 for walk in walks())
    if declaration(kind).module.asks == "each":
        assert len(asked) == sum(min(len(walk) - 2, LENGTH) for walk in walks())


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        *((kind, "full_softmax") for kind in NEXT),
        *((kind, "bce") for kind in KINDS if kind != "bert4rec"),
        ("sasrec", "softmax"),
        ("gru4rec", "bpr"),
    ],
)
def test_the_next_step_on_a_circle_is_learned(kind, loss, tmp_path):
    stopping = StoppingSettings(metric="hit_rate", k=1, every=5, patience=50)
    epochs = {"fpmc": 20, "sasrec": 20, "gru4rec": 40, "bert4rec": 120}.get(kind, 80)
    rate = 0.005 if kind == "bert4rec" else 0.02  # at .02 it depends on the rounding of the processor whether it learns
    settings = network(kind, loss=loss, epochs=epochs, learning_rate=rate, stopping=stopping)
    held_out = examples(tmp_path / "held_out", kind, held_out=True)
    state = train(Job(settings, examples(tmp_path / "s", kind), held_out, str(tmp_path / "run"), 0), Alone())
    assert state["best"] > 0.6


@pytest.mark.parametrize(("kind", "loss"), [*product(KINDS, ["bce"]), *product(NEXT, ["full_softmax"])])
def test_two_processes_take_the_steps_of_one(kind, loss, tmp_path):
    settings = network(kind, loss=loss, table_l2=1e-4)
    shards = examples(tmp_path / "s", kind, of_group=2)
    one = train(Job(settings, shards, None, str(tmp_path / "one"), 3), Alone())
    two = in_threads(lambda peers: train(Job(settings, shards, None, str(tmp_path / "two"), 3), peers), 2)[0]
    assert [e["loss"] for e in two["history"]] == pytest.approx([e["loss"] for e in one["history"]], rel=1e-4)
    ours, theirs = (
        Trained.of(settings, str(tmp_path / name), state, shards) for name, state in (("one", one), ("two", two))
    )
    np.testing.assert_allclose(ours.items(), theirs.items(), atol=5e-4)


@pytest.mark.parametrize("kind", NEXT)
def test_a_batch_in_parts_is_the_batch(kind, tmp_path):
    shards = examples(tmp_path / "s", kind)
    losses = [
        train(Job(network(kind, accumulate=parts), shards, None, str(tmp_path / str(parts)), 0), Alone())["history"]
        for parts in (1, 3)
    ]
    assert losses[0][-1]["loss"] == pytest.approx(losses[1][-1]["loss"], rel=1e-4)


def test_softmax_over_all_items_is_that_of_torch_in_less_memory(monkeypatch):
    monkeypatch.setattr(streamed, "CELLS", 80)
    monkeypatch.setattr(streamed, "ROWS", 1)
    torch.manual_seed(0)
    x, w = torch.randn(7, 5, requires_grad=True), torch.randn(33, 5, requires_grad=True)
    target, weight = torch.randint(33, (7,)), torch.rand(7)
    found = streamed.streamed_softmax(x, w, target, weight)
    mine = torch.autograd.grad(3.0 * found, (x, w))
    expected = (weight * torch.nn.functional.cross_entropy(x @ w.T, target, reduction="none")).sum()
    torch.testing.assert_close(found, expected)
    for each, other in zip(mine, torch.autograd.grad(3.0 * expected, (x, w)), strict=True):
        torch.testing.assert_close(each, other)


def test_rectangles_have_every_event_once_and_little_else():
    lengths = torch.tensor([1, 50, 3, 3, 17, 49, 2, 8, 9, 20])
    start = torch.cat((torch.zeros(1, dtype=torch.long), lengths.cumsum(0)))
    history = History(torch.arange(int(start[-1])), start, start[1:] - 1)
    rectangles = by_length(history)
    values = history.items[:, None].float()
    assert torch.equal(packed([values[each.places] for each in rectangles], rectangles, len(values)), values)
    assert sum(each.real.numel() for each in rectangles) < 1.4 * len(values)


def test_shards_keep_sequences_and_their_mean_length(tmp_path):
    shards = examples(tmp_path, "sasrec", of_group=3)
    kept = {
        int(shard.users[row]): shard.sequences.items[shard.sequences.start[at] : shard.sequences.start[at + 1]].tolist()
        for shard in map(shards.read, range(3))
        for at, row in enumerate(shard.sequences.rows)
    }
    expected = {user: walk[:-1][-LENGTH - 1 :].tolist() for user, walk in enumerate(walks()) if len(walk) > 2}
    assert kept == expected
    assert shards.mean_length == pytest.approx(np.mean([len(each) for each in expected.values()]))
