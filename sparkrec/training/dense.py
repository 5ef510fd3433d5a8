"""The dense parameters of a model in one piece: summed over the processes as one message, moved by one update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparkrec.config import TrainingSettings
from sparkrec.training.optimizers import Optimizer


class Dense:
    """Parameters that become views of `weights` (n,), their gradients views of `gradients` (n,)."""

    def __init__(self, model: nn.Module, settings: TrainingSettings, device: torch.device) -> None:
        self.parameters = [each for each in model.parameters() if each.requires_grad]
        self.settings = settings
        sizes = [each.numel() for each in self.parameters]
        parts = [each.data.reshape(-1) for each in self.parameters]
        self.weights = torch.cat([torch.zeros(0, device=device), *parts])
        self._message = torch.zeros(len(self.weights) + 1, device=device)
        self.gradients = self._message[:-1]
        views = self.weights.split(sizes), self.gradients.split(sizes)
        for each, weights, gradients in zip(self.parameters, *views, strict=True):
            each.data, each.grad = weights.view_as(each), gradients.view_as(each)
        self.optimizer = Optimizer(settings, self.weights[None])
        self._only = torch.zeros(1, dtype=torch.long, device=device)

    def message(self, loss: Tensor) -> Tensor:
        """The gradients and the loss, to be summed."""
        self._message[-1] = loss
        return self._message

    def step(self, message: Tensor, rate: float) -> float:
        """Move the weights by the sum over all processes, forget the gradients; the loss in it."""
        loss, gradients = float(message[-1]), message[:-1]
        if self.parameters:
            most = self.settings.clip_norm
            if most and (norm := float(gradients.norm())) > most:
                gradients = gradients * (most / norm)
            if self.settings.weight_decay and self.settings.optimizer != "adamw":
                gradients = gradients + self.settings.weight_decay * self.weights
            self.optimizer.step(self._only, gradients[None], rate)
            self.gradients.zero_()
        return loss
