"""Checkpoints: safetensors and JSON, whole or not there, on any filesystem that the lake is on.

    epoch-00004/
        shared.safetensors                      items and dense layers, and what their optimisers keep
        users-00000-of-00002.safetensors ...    of each process the ids and rows of its users, and what theirs keeps
        state.json                              written last: epoch, history, the best so far

A file says nothing that Python would run: tensors and plain values.
"""

from __future__ import annotations

from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sparkrec import storage
from sparkrec.errors import InputError, TrainError


class Checkpoints:
    """Of one run, in a folder that all its processes reach."""

    def __init__(self, folder: str, process_rank: int, size: int) -> None:
        self.folder = folder
        self._users = f"users-{process_rank:05}-of-{size:05}.safetensors"

    def write_users(self, epoch: int, tensors: dict[str, Tensor]) -> None:
        """This process's part. Raises TrainError where it cannot be written."""
        self._write(f"{self.folder_of(epoch)}/{self._users}", _bytes(tensors))

    def write_shared(self, epoch: int, tensors: dict[str, Tensor], state: dict[str, Any], keep: int) -> None:
        """What all processes have, by one of them, after all have written theirs; and forget the others but `keep`."""
        self._write(f"{self.folder_of(epoch)}/shared.safetensors", _bytes(tensors))
        try:
            storage.write_json(f"{self.folder_of(epoch)}/state.json", state)
        except OSError as error:
            raise _no_room(self.folder_of(epoch), error) from None
        for each in self._finished():
            if each not in (keep, epoch):
                storage.delete(f"{self.folder_of(each)}/state.json")  # first: no half of it is taken for whole
                storage.delete(self.folder_of(each))

    def clear(self) -> None:
        """Forget what was left of those that never became whole: by one process, before any writes. Files of as many
        processes as there were then would be read with those of now."""
        for epoch in set(self._epochs()) - set(self._finished()):
            storage.delete(self.folder_of(epoch))

    def last(self) -> dict[str, Any] | None:
        """The state of the last one that is whole."""
        finished = self._finished()
        state: dict[str, Any] | None = (
            storage.read_json(f"{self.folder_of(finished[-1])}/state.json") if finished else None
        )
        return state

    def shared(self, epoch: int) -> dict[str, Tensor]:
        """What all processes have. Raises InputError where the file is damaged."""
        return self.read(f"{self.folder_of(epoch)}/shared.safetensors")

    def users(self, epoch: int) -> list[dict[str, Tensor]]:
        """Of each process that wrote it."""
        path = self.folder_of(epoch)
        return [self.read(f"{path}/{name}") for name in storage.files(path) if name.startswith("users-")]

    def _finished(self) -> list[int]:
        return [epoch for epoch in self._epochs() if storage.exists(f"{self.folder_of(epoch)}/state.json")]

    def _epochs(self) -> list[int]:
        return [int(name[6:]) for name in storage.folders(self.folder) if name.startswith("epoch-")]

    def folder_of(self, epoch: int) -> str:
        """Where the files of an epoch are."""
        return f"{self.folder}/epoch-{epoch:05}"

    def _write(self, path: str, data: bytes) -> None:
        try:
            storage.write(path, data)
        except OSError as error:
            raise _no_room(path, error) from None

    @staticmethod
    def read(path: str) -> dict[str, Tensor]:
        """The tensors of a file. Raises InputError where it is damaged."""
        try:
            tensors: dict[str, Tensor] = load(storage.read(path))
            return tensors
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read {path}: {error}. Remove its folder: the one before it is used.") from None


def _bytes(tensors: dict[str, Tensor]) -> bytes:
    data: bytes = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return data


def _no_room(path: str, error: OSError) -> TrainError:
    return TrainError(f"cannot write the checkpoint {path}: {error}. Make room and run again: the last one is kept.")
