"""Popularity counts interactions."""

import numpy as np
import pytest

from sparkrec.spark.algorithms.popularity import PopularitySettings, fit_popularity
from sparkrec.spark.data.fit_inputs import FitInputs

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("everywhere")]


def test_everyone_gets_the_interaction_counts(dataset_of, scores_of):
    triples = [(0, 1, 1.0), (1, 1, 1.0), (2, 1, 1.0), (2, 0, 1.0)]
    dataset = dataset_of(triples, n_users=4, n_items=3)
    model = fit_popularity(PopularitySettings(), FitInputs(dataset, dataset.train, 0, "unused"))
    np.testing.assert_array_equal(scores_of(model), np.tile([1.0, 3.0, 0.0], (4, 1)))
