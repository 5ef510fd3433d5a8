"""What the processes of a training run say to one another. The loop knows only this."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Collective(ABC):
    """`size` processes, of which this is number `process_rank`. All call the same in the same order.

    `seconds` and `sent` say what it took: time, and bytes that left this process.
    """

    process_rank: int
    local_rank: int
    """Among the processes of this machine."""
    size: int
    exchanges_on = torch.device("cpu")
    """Where values are while they travel, whatever device they are of."""
    beat: Callable[[], None] = staticmethod(lambda: None)
    """Says that this process has made a step: one that does not for long is ended."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sent = 0

    def broadcast(self, values: Tensor) -> Tensor:
        """The values of process 0."""
        return values if self.size == 1 else self._timed(self._broadcast, values).to(values.device)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each; it may take the place of the values."""
        return values if self.size == 1 else self._timed(self._sum, values).to(values.device)

    def gather(self, values: Tensor) -> list[Tensor]:
        """(n_r, ...) of each process r, in their order; n_r may differ."""
        if self.size == 1:
            return [values]
        return [each.to(values.device) for each in self._timed(self._gather, values)]

    def barrier(self) -> None:
        """Until all are here."""
        self.sum(torch.zeros(1))

    def any(self, mine: bool) -> bool:
        """Whether it is true of one of them."""
        return bool(self.sum(torch.tensor([float(mine)]))[0] > 0)

    def _timed(self, call: Callable[[Tensor], T], values: Tensor) -> T:
        started = time.perf_counter()
        result = call(values.to(self.exchanges_on))
        self.seconds += time.perf_counter() - started
        self.sent += values.numel() * values.element_size()
        return result

    @abstractmethod
    def _broadcast(self, values: Tensor) -> Tensor: ...

    @abstractmethod
    def _sum(self, values: Tensor) -> Tensor: ...

    @abstractmethod
    def _gather(self, values: Tensor) -> list[Tensor]: ...


def summed_with_gradients(values: Tensor, collective: Collective) -> Tensor:
    """`collective.sum`, for what has gradients: each process has those of its own losses by the sum, and they add
    up."""
    if collective.size == 1:
        return values
    summed: Tensor = _Sum.apply(values, collective)
    return summed


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, collective: Collective) -> Tensor:
        ctx.collective = collective
        return collective.sum(values.detach().clone())

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.collective.sum(gradients.contiguous().clone()), None


class Alone(Collective):
    """One process."""

    process_rank, local_rank, size = 0, 0, 1

    def _broadcast(self, values: Tensor) -> Tensor:
        return values

    def _sum(self, values: Tensor) -> Tensor:
        return values

    def _gather(self, values: Tensor) -> list[Tensor]:
        return [values]


class Horovod(Collective):
    """Horovod (Sergeev and Del Balso 2018), started by its launcher."""

    def __init__(self) -> None:
        super().__init__()
        import horovod.torch as hvd

        if not hvd.is_initialized():
            hvd.init()
        self._hvd = hvd
        self.process_rank, self.local_rank, self.size = hvd.rank(), hvd.local_rank(), hvd.size()

    def _broadcast(self, values: Tensor) -> Tensor:
        result: Tensor = self._hvd.broadcast(values, 0, name="broadcast")
        return result

    def _sum(self, values: Tensor) -> Tensor:
        # A name for each length: what Horovod has agreed on for a name is forgotten when its length changes.
        result: Tensor = self._hvd.allreduce_(values, name=f"sum of {values.numel()}", op=self._hvd.Sum)
        return result

    def _gather(self, values: Tensor) -> list[Tensor]:
        lengths = self._hvd.allgather(torch.tensor([len(values)]), name="lengths").tolist()
        return list(self._hvd.allgather(values, name="gather").split(lengths))


class TorchDistributed(Collective):
    """torch.distributed, whose process group the launcher has made, with a backend for values on this device."""

    def __init__(self, exchanges_on: torch.device) -> None:
        super().__init__()
        import torch.distributed as dist

        self._dist = dist
        self.process_rank, self.size = dist.get_rank(), dist.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        self.exchanges_on = exchanges_on

    def _broadcast(self, values: Tensor) -> Tensor:
        values = values.clone()
        self._dist.broadcast(values, 0)
        return values

    def _sum(self, values: Tensor) -> Tensor:
        self._dist.all_reduce(values)
        return values

    def _gather(self, values: Tensor) -> list[Tensor]:
        lengths = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(self.size)]
        self._dist.all_gather(lengths, torch.tensor([len(values)], device=values.device))
        longest = int(max(lengths))
        padded = values.new_zeros(longest, *values.shape[1:])
        padded[: len(values)] = values
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self._dist.all_gather(parts, padded)
        return [part[: int(n)] for part, n in zip(parts, lengths, strict=True)]
