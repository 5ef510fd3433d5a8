"""What a policy would have earned, from what another one logged.

Of each event: the reward r of the action that was logged, the chance b with which the logging policy took it, and the
chance p with which the policy in question would have; w = p / b. With a model of rewards: q, what it says of that
action, and v, its mean over what the policy in question would have done.

    ips            mean of w r (Horvitz and Thompson 1952): unbiased where b is right and above 0 wherever p is
    snips          sum of w r over sum of w (Swaminathan and Joachims 2015): a little bias, far less variance
    doubly_robust  mean of v + w (r - q) (Dudik et al. 2011): unbiased where b or q is right

Each event has a sum and a weight; the value is the sum of the sums over that of the weights.
"""

from __future__ import annotations

import numpy as np

from sparkrec.kernels.arrays import F64

Sums = tuple[F64, F64]
"""(n,) sums and (n,) weights."""


def ips(weight: F64, reward: F64) -> Sums:
    return weight * reward, np.ones(len(weight))


def snips(weight: F64, reward: F64) -> Sums:
    return weight * reward, weight


def doubly_robust(weight: F64, reward: F64, predicted: F64, expected: F64) -> Sums:
    """predicted: q; expected: v."""
    return expected + weight * (reward - predicted), np.ones(len(weight))
