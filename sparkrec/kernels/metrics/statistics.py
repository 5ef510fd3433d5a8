"""How sure a mean over users is, and a difference of two."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binomtest, norm

from sparkrec.kernels.arrays import F64, I64
from sparkrec.kernels.random import uniform

_MOST = 12
"""A Poisson number of mean 1 is larger once in 10^10."""


def poisson_weights(seed: int, users: I64, n: int) -> F64:
    """(u, n) how often each user is in each of n bootstrap samples: Poisson numbers of mean 1 instead of a multinomial
    draw, so that users need not be known together (Oza and Russell 2001). Of (seed, user) alone."""
    chances = np.cumsum([math.exp(-1.0) / math.factorial(count) for count in range(_MOST)])
    drawn = uniform(seed ^ 0x5EED, (users[:, None] * np.int64(n) + np.arange(n)).ravel())
    return np.searchsorted(chances, drawn, side="right").reshape(len(users), n).astype(np.float64)


def mean_test(differences: F64) -> tuple[float, float]:
    """Mean of (n,) differences, n > 1, and its `normal_p`."""
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return mean, normal_p(mean, error)


def normal_p(mean: float, error: float) -> float:
    """Two-sided chance of a mean at least as far from 0 if that of all users were 0: of a normal distribution, to which
    the mean of many users comes near. NaN where the standard error is.

    An error of 0 means that all differences are the same: 1 where they are 0, else 0.
    """
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2.0 * norm.sf(abs(mean) / error))


def sign_test(above: int, below: int) -> float:
    """Two-sided chance of a split at least as uneven if either side were as likely (Conover 1999); 1 where there is no
    difference at all."""
    return float(binomtest(above, above + below).pvalue) if above + below else 1.0


def holm(p: F64) -> F64:
    """p-values (n,) of as many tests, so that 0.05 is the chance of any false one among them (Holm 1979). NaN stays."""
    there = np.flatnonzero(np.isfinite(p))
    order = there[np.argsort(p[there], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted
