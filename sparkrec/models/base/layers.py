"""Dense layers that several models have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Ioffe and Szegedy 2015, over all dimensions but the last, and over the batch of all processes."""

    sum_over_processes: Callable[[Tensor], Tensor] = staticmethod(lambda values: values)
    """Sums of all processes, with gradients; whoever trains on several sets it."""

    def __init__(self, size: int, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.scale, self.shift = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.mean = nn.Parameter(torch.zeros(size), requires_grad=False)  # kept and saved with the others
        self.variance = nn.Parameter(torch.ones(size), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        mean: Tensor = self.mean
        variance: Tensor = self.variance
        if self.training:
            flat = values.reshape(-1, values.shape[-1])
            sums = torch.cat((flat.sum(0), flat.square().sum(0), flat.new_full((1,), len(flat))))
            sums = self.sum_over_processes(sums)
            n = sums[-1].detach().clamp(min=1.0)
            mean, squares = (sums[:-1] / n).chunk(2)
            variance = (squares - mean.square()).clamp(min=0.0)
            with torch.no_grad():
                self.mean.lerp_(mean, self.momentum)
                self.variance.lerp_(variance * n / (n - 1).clamp(min=1.0), self.momentum)
        return (values - mean) * (variance + self.epsilon).rsqrt() * self.scale + self.shift


def perceptron(sizes: Sequence[int], dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """Linear layers of these sizes; behind each batch norm, if it is wanted, ReLU and dropout."""
    layers: list[nn.Module] = []
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), *behind_layer(following, dropout, batch_norm)]
    return nn.Sequential(*layers)


def behind_layer(size: int, dropout: float, batch_norm: bool) -> list[nn.Module]:
    """What comes behind a linear layer."""
    norm: list[nn.Module] = [BatchNorm(size)] if batch_norm else []
    return [*norm, nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]


class Tower(nn.Module):
    """A perceptron of two sides together, the first layer as two, one a side: W (x, w) = W_x x + W_w w. So a user's
    part is computed once for all items."""

    def __init__(
        self, user: int, item: int, layers: Sequence[int], dropout: float = 0.0, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.user, self.item = nn.Linear(user, layers[0], bias=False), nn.Linear(item, layers[0])
        behind = behind_layer(layers[0], dropout, batch_norm)
        self.rest = nn.Sequential(*behind, *perceptron(layers, dropout, batch_norm))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(..., user) and (..., item) -> (..., last layer)."""
        hidden: Tensor = self.rest(self.user(x) + self.item(w))
        return hidden
