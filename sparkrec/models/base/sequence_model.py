"""Models of what comes next: a vector of a history, and vectors of items."""

from __future__ import annotations

from abc import abstractmethod
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from sparkrec.models.base.recommender import Recommender, Sees, Unit


class History(NamedTuple):
    """Histories, one after the other, and where in them it is asked what comes next."""

    items: Tensor
    """(e,) long, events in the order of time."""
    start: Tensor
    """(h + 1,) long, where each history begins; none is empty."""
    at: Tensor
    """(n,) long, ascending: places in `items`. What comes after each of them is asked, by who knows it and those before
    it in its history."""

    @property
    def lengths(self) -> Tensor:
        return self.start.diff()

    @property
    def of(self) -> Tensor:
        """(e,) number of the history of each event."""
        return torch.repeat_interleave(torch.arange(len(self.start) - 1, device=self.items.device), self.lengths)


class SequenceModel(Recommender):
    """score(h, i) = <state of h, vector of i>. `users` has what a model knows of a user beside the history; `items` has
    both what an item says as an event and what it is as an answer."""

    sees: ClassVar[Sees] = "history"
    unit: ClassVar[Unit] = "sequences"
    asks: ClassVar[str] = "each"
    """What it is trained to predict: what comes after each event of a sequence; `last`: the targets of a window;
    `masked`: events that are hidden, whose item is the first of the extra ones; `around`: an event from those around
    it."""
    extra_items: ClassVar[int] = 0
    """Rows of `items` behind those of the items."""

    length: int = 1
    """Events of a history that it can see."""
    masked: float = 0.0
    """Share of events that are hidden in training."""

    @abstractmethod
    def states(self, users: Tensor, history: History) -> Tensor:
        """(n,) long rows of users and n questions -> (n, p)."""

    def query(self, users: Tensor, known: History) -> Tensor:
        at, question, n = known.at.unique_consecutive(return_inverse=True, return_counts=True)
        if len(at) == len(known.at):
            return self.states(users, known)
        first = n.cumsum(0) - n  # several answers to one question, as the targets of a window are
        return self.states(users[first], known._replace(at=at))[question]

    def interaction(self, x: Tensor, w: Tensor) -> Tensor:
        return (x * self.output_embeddings(w)).sum(-1)

    def output_embeddings(self, w: Tensor) -> Tensor:
        """(..., q) rows of items -> (..., p) their vectors."""
        return w

    def vectors(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor] | None:
        return x, self.output_embeddings(w)

    def initialize(self, generator: Generator) -> None:
        super().initialize(generator)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    continue
                for parameter in module.parameters(recurse=False):
                    if parameter.dim() > 1:
                        nn.init.xavier_uniform_(parameter.flatten(1), generator=generator)
                    else:
                        nn.init.zeros_(parameter)


class Padded(NamedTuple):
    """Histories of similar length as a rectangle."""

    places: Tensor
    """(h, m) long, of the events of each; behind the last one, it again."""
    real: Tensor
    """(h, m) bool."""


def similar(lengths: Tensor, ratio: float = 1.4) -> list[Tensor]:
    """(n,) lengths in groups, the longest of each last, in which none is shorter than it over `ratio`; those up to 4
    are one."""
    ascending, order = lengths.sort()
    sizes = ascending.tolist()
    cuts, longest = [0], sizes[0] * ratio
    for at, size in enumerate(sizes):
        if size > max(longest, 4):
            cuts.append(at)
            longest = size * ratio
    return [order[first:stop] for first, stop in pairwise([*cuts, len(sizes)])]


def by_length(history: History) -> list[Padded]:
    """All histories, in rectangles of `similar` ones."""
    found = []
    for some in similar(history.lengths):
        lengths = history.lengths[some]
        steps = torch.arange(int(lengths[-1]), device=lengths.device)
        places = history.start[some][:, None] + torch.minimum(steps, lengths[:, None] - 1)
        found.append(Padded(places, steps < lengths[:, None]))
    return found


def packed(parts: list[Tensor], rectangles: list[Padded], n: int) -> Tensor:
    """(h, m, d) of each rectangle -> (n, d), without what is not real."""
    places = torch.cat([each.places[each.real] for each in rectangles])
    values = torch.cat([part[each.real] for part, each in zip(parts, rectangles, strict=True)])
    order = torch.empty_like(places)
    order[places] = torch.arange(n, device=places.device)
    return values[order]


def left_padded(history: History, length: int) -> tuple[Tensor, Tensor]:
    """(n, length) places of the events up to each that is asked about, and which of them there are: on the left, where
    a history is shorter, there are none."""
    at = history.at[:, None] - torch.arange(length - 1, -1, -1, device=history.at.device)
    begin = history.start[history.of[history.at]][:, None]
    return at.clamp(min=0), at >= begin
