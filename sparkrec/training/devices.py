"""Where the tensors of a process are."""

from __future__ import annotations

import torch

from sparkrec.config import TrainingSettings
from sparkrec.errors import TrainError


def own_device(settings: TrainingSettings, local_rank: int) -> torch.device:
    """That of a process with this number on its machine. Raises TrainError for a GPU that is not there."""
    if settings.device == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrainError("training.device is gpu, and torch finds none here: set it to cpu, or use workers with GPUs")
    return torch.device("cuda", local_rank % torch.cuda.device_count())
