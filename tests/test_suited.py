"""What settings leave to the data, and what the data make of them."""

import pytest

from sparkrec.config import DataFacts, TrainingSettings, chosen, values_of
from sparkrec.models.lightgcn import LightgcnSettings
from sparkrec.models.linear_autoencoder import LinearAutoencoderSettings
from sparkrec.models.mf import MfSettings
from sparkrec.models.sasrec import SasrecSettings
from sparkrec.spark.algorithms.als.settings import AlsSettings

CLICKS = DataFacts(users=6_000, items=3_500, rows=800_000, explicit=False, held_out="preferences")
STARS = DataFacts(
    users=900, items=1_700, rows=80_000, explicit=True, held_out="ratings", deviation=1.1, values="ratings"
)


def test_unobserved_cells_of_implicit_feedback_weigh_twenty_times_the_observed_ones():
    suited = AlsSettings().suited(CLICKS)
    assert suited.unobserved_weight * CLICKS.users * CLICKS.items == pytest.approx(20 * CLICKS.rows, rel=0.01)
    twice = AlsSettings().suited(CLICKS._replace(confidence=2.0))
    assert twice.unobserved_weight == pytest.approx(2 * suited.unobserved_weight, rel=0.01)
    assert not suited.biases


def test_the_penalty_of_als_is_a_share_of_what_a_row_weighs_whatever_scales_it():
    own = AlsSettings().suited(CLICKS)
    plain = AlsSettings(regularization_exponent=0.0, regularization_scaling="count").suited(CLICKS)
    n = CLICKS.rows_of_one
    of_row = own.regularization * (n + own.unobserved_weight * (CLICKS.users * CLICKS.items) ** 0.5)
    assert plain.regularization == pytest.approx(of_row, rel=0.02)
    assert plain.regularization == pytest.approx(0.2 * n * (1e5 / CLICKS.rows) ** (1 / 3), rel=0.02)


def test_ratings_have_biases_and_a_penalty_in_their_own_scale():
    suited, tenfold = (AlsSettings().suited(STARS._replace(deviation=scale)) for scale in (1.1, 11.0))
    assert (suited.biases, suited.unobserved_weight, suited.regularization_exponent) == (True, 0.0, 0.5)
    assert suited.regularization == pytest.approx(1.2 * 1.1, rel=0.01)
    assert tenfold.regularization == pytest.approx(10 * suited.regularization, rel=0.01)
    assert not AlsSettings(nonnegative=True).suited(STARS).biases


@pytest.mark.parametrize(
    "given", [{"regularization": 0.3}, {"unobserved_weight": 0.7}, {"biases": False}, {"propensity_exponent": 0.1}]
)
def test_what_is_set_stays(given):
    for data in (CLICKS, STARS):
        suited = AlsSettings(**given).suited(data)
        assert suited.model_dump() | given == suited.model_dump()
        assert None not in [getattr(suited, name) for name in chosen(AlsSettings(**given), suited)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (AlsSettings(unobserved_weight=0.0), "unobserved_weight is 0, and the feedback is implicit"),
        (MfSettings(training=TrainingSettings(loss="squared")), "training.loss is squared, which learns values"),
        (SasrecSettings(training=TrainingSettings(loss="log_loss")), "training.loss is log_loss, which learns values"),
    ],
)
def test_what_cannot_be_meant_of_implicit_feedback_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings.suited(CLICKS)
    settings.suited(STARS)


def test_networks_learn_what_the_values_are():
    assert MfSettings().suited(CLICKS).training.loss == "bce"
    ratings = MfSettings().suited(STARS).training
    assert (ratings.loss, ratings.negatives, ratings.stopping.metric) == ("squared", 0, "rmse")
    clicks = MfSettings().suited(STARS._replace(values="clicks", held_out="clicks")).training
    assert (clicks.loss, clicks.stopping.metric) == ("log_loss", "auc")
    assert values_of(True, 2, -1.0) == "clicks"
    assert values_of(True, 5, 0.0) == "ratings"
    assert values_of(True, 1, 1.0) == values_of(False, 9, 0.0) == "preferences"


@pytest.mark.parametrize("rows", [4_000, 100_000, 1_000_000, 50_000_000])
def test_small_logs_have_steps_enough_and_large_ones_no_more_than_needed(rows):
    data = CLICKS._replace(users=rows // 10, rows=rows)
    training = MfSettings().suited(data).training
    steps = rows / training.batch
    assert training.stopping.patience * steps >= 250
    assert training.stopping.patience == 4 or steps < 100
    unwatched = MfSettings().suited(data._replace(held_out=None)).training
    assert unwatched.stopping is None
    assert unwatched.epochs * steps >= 500
    assert unwatched.epochs == 15 or steps < 100


def test_whoever_sets_epochs_gets_them():
    training = MfSettings(training=TrainingSettings(epochs=7)).suited(CLICKS).training
    assert (training.epochs, training.stopping) == (7, None)


def test_a_rate_without_an_optimizer_is_one_of_adam():
    assert MfSettings(training=TrainingSettings(learning_rate=0.01)).suited(CLICKS).training.optimizer == "adam"
    own = MfSettings(training=TrainingSettings(optimizer="adam")).suited(CLICKS).training
    assert own.learning_rate == 1e-3


def test_a_large_catalogue_is_sampled():
    assert SasrecSettings().suited(CLICKS).training.loss == "full_softmax"
    large = SasrecSettings().suited(CLICKS._replace(items=2_000_000)).training
    assert (large.loss, large.negatives) == ("softmax", 128)


@pytest.mark.parametrize(("installed", "launcher"), [(True, "horovod"), (False, "torch")])
def test_processes_are_connected_by_what_is_installed(monkeypatch, installed, launcher):
    monkeypatch.setattr("sparkrec.config.training.find_spec", lambda name: installed or None)
    given = MfSettings(training=TrainingSettings(processes=2))
    assert chosen(given, given.suited(CLICKS))["training.launcher"] == launcher
    own = MfSettings(training=TrainingSettings(processes=2, launcher="horovod"))
    assert own.suited(CLICKS).training.launcher == "horovod"
    assert "training.launcher" not in chosen(MfSettings(), MfSettings().suited(CLICKS))


def test_what_reads_the_whole_graph_in_a_step_takes_few_and_whole_rows_are_counted_by_user():
    graph, rows, pairs = (
        kind().suited(CLICKS).training for kind in (LightgcnSettings, LinearAutoencoderSettings, MfSettings)
    )
    assert (graph.batch, pairs.batch, rows.batch) == (65_536, 2048, 128)
    assert LightgcnSettings(training=TrainingSettings(batch=100)).suited(CLICKS).training.batch == 100
    assert rows.loss == "full_softmax"
    assert LinearAutoencoderSettings().suited(CLICKS._replace(items=60_000)).training.loss == "softmax"
