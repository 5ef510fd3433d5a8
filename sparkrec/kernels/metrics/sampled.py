"""What metrics under sampled negatives say of the whole catalogue.

A relevant item that stands at place R among the N items of the catalogue stands at place j among itself and n
irrelevant items, drawn with replacement, with chance

    A[R, j] = Binomial(j - 1; n, (R - 1) / (N - 1))

so that the mean of a metric over sampled places is not that over places: models can change order (Krichene and Rendle
2020). Their remedy is another value f'(j) for each sampled place, such that sum_j A[R, j] f'(j) comes near f(R). No f'
is exactly right for a metric with a cutoff unless n is near N: `gamma` weighs the variance of the estimate against its
bias (their section 5.3; 0 has the least bias).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from sparkrec.kernels.arrays import F64, I64

GAMMA = 0.1
"""What Krichene and Rendle use."""
_RANKS = 1 << 15
"""At a time."""


def corrected(values: F64, catalogue: int, negatives: int, gamma: float = GAMMA) -> F64:
    """(n + 1,) what a sampled place 1, 2, ..., n + 1 is worth.

    values     (K,) the metric f of places 1 ... K; it is 0 from K + 1 on
    catalogue  N, negatives n < N

    f' = ((1 - gamma) A'A + gamma diag(1'A))^-1 A' f, all places of the catalogue alike likely.
    """
    if not 0 < negatives < catalogue:
        raise ValueError(f"negatives: found {negatives} of a catalogue of {catalogue}, expected fewer, from 1")
    gram: F64 = np.zeros((negatives + 1, negatives + 1))
    mass: F64 = np.zeros(negatives + 1)
    wanted: F64 = np.zeros(negatives + 1)
    for first in range(0, catalogue, _RANKS):
        chances = place_chances(np.arange(first, min(first + _RANKS, catalogue)), catalogue, negatives)
        gram += chances.T @ chances
        mass += chances.sum(axis=0)
        own = values[first : first + len(chances)]
        wanted += own @ chances[: len(own)]
    return np.asarray(np.linalg.lstsq((1.0 - gamma) * gram + gamma * np.diag(mass), wanted, rcond=None)[0], np.float64)


def place_chances(above: I64, catalogue: int, negatives: int) -> F64:
    """(r, n + 1) the chance of each sampled place of items that have so many (r,) of the others above them."""
    n, j = negatives, np.arange(negatives + 1)
    p = above[:, None].astype(np.float64) / (catalogue - 1)
    ways = gammaln(n + 1) - gammaln(j + 1) - gammaln(n - j + 1)
    return np.asarray(np.exp(ways + xlogy(j, p) + xlog1py(n - j, -p)), np.float64)
