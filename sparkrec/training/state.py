"""How far a run has come, and how it is saved and resumed, by as many processes as there are now."""

from __future__ import annotations

import logging
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from sparkrec.kernels.arrays import I64
from sparkrec.training.checkpoints import Checkpoints
from sparkrec.training.collective import Collective
from sparkrec.training.step import Stepper

log = logging.getLogger("sparkrec.training.loop")


class State(TypedDict):
    """How far a run has come, as its state.json."""

    epoch: int
    """The last one that has ended."""
    best: float
    """Of the metric of stopping, larger being better."""
    best_epoch: int
    """0: nothing has been measured yet."""
    popularity: float | None
    """What popularity has of that metric; None: it was not measured."""
    history: list[dict[str, Any]]
    """Of each epoch, its entry in the log."""
    users_without_negatives: int


def save(state: State, stepper: Stepper, users: I64, checkpoints: Checkpoints, collective: Collective) -> None:
    """Write a checkpoint, by all processes.

    users  ids of the rows of this process's table of users
    """
    mine = {"ids": torch.from_numpy(users), "weight": stepper.model.users.weight}
    mine |= {f"optimizer.{name}": each for name, each in stepper.user_optimizer.state_dict().items()}
    of_items = {"items.weight": stepper.model.items.weight}
    if (computed := stepper.tables.latest()) is not None:
        mine["computed"], w = computed
        of_items |= {} if w is stepper.model.items.weight else {"items.computed": w}
    checkpoints.write_users(state["epoch"], mine)
    collective.barrier()
    if collective.process_rank == 0:
        shared = {f"dense.{name}": each.data.clone() for name, each in stepper.model.named_parameters()}
        shared |= of_items
        shared |= {f"items.optimizer.{name}": each for name, each in stepper.item_optimizer.state_dict().items()}
        shared |= {f"optimizer.{name}": each for name, each in stepper.dense.optimizer.state_dict().items()}
        checkpoints.write_shared(state["epoch"], shared, dict(state), state["best_epoch"])
    collective.barrier()


def resume(
    stepper: Stepper, users: I64, checkpoints: Checkpoints, collective: Collective, users_without_negatives: int
) -> State:
    """Go back to the last checkpoint that is whole, or begin. The arguments are those of `save`."""
    if collective.process_rank == 0:
        checkpoints.clear()
    collective.barrier()
    last: Any = checkpoints.last()
    if last is None:
        return State(
            epoch=0,
            best=-1.0,
            best_epoch=0,
            popularity=None,
            history=[],
            users_without_negatives=users_without_negatives,
        )
    state: State = last
    log.info("resuming after epoch %s", state["epoch"])
    shared = checkpoints.shared(state["epoch"])
    mine = _gathered(checkpoints.users(state["epoch"]), users)
    with torch.no_grad():
        for name, parameter in stepper.model.named_parameters():
            parameter.copy_(shared[f"dense.{name}"])
        stepper.model.items.weight.copy_(shared["items.weight"])
        stepper.model.users.weight.copy_(mine["weight"])
    stepper.item_optimizer.load(_under("items.optimizer.", shared))
    stepper.user_optimizer.load(_under("optimizer.", mine))
    stepper.dense.optimizer.load(_under("optimizer.", shared))
    return state


def _gathered(parts: list[dict[str, Tensor]], users: I64) -> dict[str, Tensor]:
    """The rows of `users` from the files of all processes, which may have been others."""
    ids = torch.cat([part["ids"] for part in parts]).numpy()
    order = np.argsort(ids)
    at = torch.from_numpy(order[np.searchsorted(ids[order], users)])
    return {
        name: parts[0][name] if parts[0][name].dim() == 0 else torch.cat([part[name] for part in parts])[at]
        for name in parts[0]
    }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
