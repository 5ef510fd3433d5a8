"""Ids of users or items by their places, and their places by id: numbers, or texts."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import InputError
from sparkrec.exported.files import Opened, Writing
from sparkrec.kernels.arrays import I32, I64
from sparkrec.kernels.csr import located
from sparkrec.kernels.ragged import Ragged, starts_of
from sparkrec.kernels.texts import located_texts


class Ids:
    """They are looked up by bisection in the files, so that no dictionary of all ids takes memory."""

    def __init__(self, folder: Opened, side: str) -> None:
        self._side = side
        self._order: I32 = folder.array(f"{side}_order")
        """(n,) places in the order of ids."""
        self._texts: Ragged | None = None
        if folder.has(f"{side}_texts"):
            self._texts = Ragged(folder.array(f"{side}_start"), folder.array(f"{side}_texts"))
        else:
            self._numbers: I64 = folder.array(f"{side}_numbers")
            self._sorted: I64 = folder.array(f"{side}_sorted")

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int | str:
        if self._texts is None:
            return int(self._numbers[place])
        start, data = self._texts
        return data[start[place] : start[place + 1]].tobytes().decode()

    def places(self, keys: Iterable[Any]) -> I32:
        """(n,) the place of each of n ids, -1 where it is unknown. Raises InputError where one is of another type."""
        if self._texts is not None:
            return located_texts(_packed([self._encoded(each) for each in keys]), self._texts, self._order)
        numbers = [self._number(each) for each in keys]
        # What is out of range is unknown, and so is not looked up as what it would be cut to.
        fits = np.array([-(2**63) <= each < 2**63 for each in numbers], bool)
        sought = np.array([each if fit else 0 for each, fit in zip(numbers, fits, strict=True)], np.int64)
        at, known = located(sought, self._sorted)
        found = np.full(len(sought), -1, np.int32)
        known &= fits
        found[known] = self._order[at[known]]
        return found

    def _number(self, key: Any) -> int:
        try:
            return operator.index(key)
        except TypeError:
            raise InputError(f"{self._side}: found {key!r}, expected an integer, as the ids of the log are.") from None

    def _encoded(self, key: Any) -> bytes:
        if not isinstance(key, str):
            raise InputError(f"{self._side}: found {key!r}, expected a text, as the ids of the log are.")
        return key.encode(errors="surrogatepass")


def write_ids(out: Writing, side: str, ids: NDArray[Any] | list[str]) -> str:
    """Write ids in the order of their places: (n,) int64, or texts. Returns their type, long or string."""
    if isinstance(ids, np.ndarray):
        order = np.argsort(ids, kind="stable")
        out.array(f"{side}_numbers", ids)
        out.array(f"{side}_sorted", ids[order])
    else:
        data = [each.encode() for each in ids]
        order = np.array(sorted(range(len(data)), key=data.__getitem__), np.int64)
        texts = _packed(data)
        out.array(f"{side}_texts", texts.values)
        out.array(f"{side}_start", texts.start)
    out.array(f"{side}_order", order.astype(np.int32))
    return "long" if isinstance(ids, np.ndarray) else "string"


def _packed(texts: list[bytes]) -> Ragged:
    lengths = np.array([len(each) for each in texts], np.int64)
    return Ragged(starts_of(lengths), np.frombuffer(b"".join(texts), np.uint8))
