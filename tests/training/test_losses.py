"""Losses on what was shown, and on what is held out, by hand."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.config import TrainingSettings
from sparkrec.training.losses import Scored, loss_of
from sparkrec.training.validation import value_metric

pytestmark = pytest.mark.torch


def test_whatever_is_above_zero_is_a_click():
    scores, values, confidence = [2.0, 2.0, -1.0, -1.0], [1.0, 0.0, 0.5, -3.0], [1.0, 2.0, 3.0, 4.0]
    batch = Scored(
        scores=torch.tensor(scores)[:, None],
        positive=torch.zeros(4, dtype=torch.long),
        values=torch.tensor(values),
        confidence=torch.tensor(confidence),
        user_positives=torch.ones(4),
    )
    wrong = np.log1p(np.exp([-2.0, 2.0, 1.0, -1.0]))  # of a click log(1 + exp -s), of none log(1 + exp s)
    found = loss_of(TrainingSettings(loss="log_loss"), batch)
    assert float(found) == pytest.approx(float(np.dot(confidence, wrong)), rel=1e-6)


def test_what_is_measured_on_held_out_values():
    scores, values = np.array([2.0, -1.0, 0.5]), np.array([1.0, 0.0, 0.4])
    assert value_metric("rmse", scores, values) == pytest.approx(np.sqrt((1 + 1 + 0.01) / 3))
    assert value_metric("auc", scores, values) == 1.0
    assert value_metric("auc", -scores, values) == 0.0
    expected = np.log1p(np.exp([-2.0, -1.0, -0.5])).mean()
    assert value_metric("log_loss", scores, values) == pytest.approx(expected)
