"""Ids of users or items by their places, and their places by id: numbers, or texts."""

from __future__ import annotations

import operator
from bisect import bisect_left
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import InputError
from sparkrec.exported.files import Opened, Writing
from sparkrec.kernels.arrays import I32, I64
from sparkrec.kernels.ragged import starts_of


class Ids:
    """What is looked up is found by bisection in the files, so that no dictionary of all ids takes memory."""

    def __init__(self, folder: Opened, side: str) -> None:
        self._side = side
        self._order: I32 = folder.array(f"{side}_order")
        """(n,) places in the order of ids."""
        self._texts: NDArray[np.uint8] | None = None
        if folder.has(f"{side}_texts"):
            self._texts = folder.array(f"{side}_texts")
            self._start: I64 = folder.array(f"{side}_start")
        else:
            self._numbers: I64 = folder.array(f"{side}_numbers")
            self._sorted: I64 = folder.array(f"{side}_sorted")

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int | str:
        return int(self._numbers[place]) if self._texts is None else self._text(place).decode()

    def find(self, key: Any) -> int | None:
        """The place of an id; None where it is unknown. Raises InputError where it is of another type."""
        at = self._among_numbers(key) if self._texts is None else self._among_texts(key)
        return None if at is None else int(self._order[at])

    def _among_numbers(self, key: Any) -> int | None:
        try:
            number = operator.index(key)
        except TypeError:
            raise InputError(f"{self._side}: found {key!r}, expected an integer, as the ids of the log are.") from None
        if not -(2**63) <= number < 2**63:
            return None
        at = int(np.searchsorted(self._sorted, number))
        return at if at < len(self) and self._sorted[at] == number else None

    def _among_texts(self, key: Any) -> int | None:
        if not isinstance(key, str):
            raise InputError(f"{self._side}: found {key!r}, expected a text, as the ids of the log are.")
        sought = key.encode(errors="surrogatepass")
        at = bisect_left(range(len(self)), sought, key=lambda each: self._text(int(self._order[each])))
        return at if at < len(self) and self._text(int(self._order[at])) == sought else None

    def _text(self, place: int) -> bytes:
        assert self._texts is not None
        return self._texts[self._start[place] : self._start[place + 1]].tobytes()


def write_ids(out: Writing, side: str, ids: NDArray[Any] | list[str]) -> None:
    """Write ids in the order of their places: (n,) int64, or texts."""
    if isinstance(ids, np.ndarray):
        order = np.argsort(ids, kind="stable")
        out.array(f"{side}_numbers", ids)
        out.array(f"{side}_sorted", ids[order])
    else:
        texts = [each.encode() for each in ids]
        order = np.array(sorted(range(len(texts)), key=texts.__getitem__), np.int64)
        out.array(f"{side}_texts", np.frombuffer(b"".join(texts), np.uint8))
        out.array(f"{side}_start", starts_of(np.array([len(each) for each in texts], np.int64)))
    out.array(f"{side}_order", order.astype(np.int32))
