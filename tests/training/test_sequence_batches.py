"""By how many questions the loss of a batch is divided."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from sparkrec.training.collective import Alone
from sparkrec.training.loop import Job, train
from tests.contracts.test_sequences import ITEMS, NEXT, examples, network

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kind", NEXT)
def test_the_loss_of_a_question_is_that_of_a_guess_among_all_items(kind, tmp_path):
    settings = network(kind, loss="full_softmax", epochs=1, learning_rate=1e-9, init_scale=1e-6)
    state = train(Job(settings, examples(tmp_path / "s", kind), None, str(tmp_path / "run"), 0), Alone())
    # Questions are counted in the mean: how many events are hidden is drawn, and a short history has fewer targets.
    assert state["history"][0]["loss"] == pytest.approx(np.log(ITEMS), rel=0.1)
