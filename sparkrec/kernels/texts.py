"""Texts among others, as UTF-8 bytes one after the other."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import I32, I64, frozen
from sparkrec.kernels.ragged import Ragged


def located_texts(sought: Ragged, texts: Ragged, order: I32) -> I32:
    """Where each sought text is among others, (n,) int32; -1 where it is not there.

    sought, texts  uint8
    order          the places of `texts` in the order of their bytes, no two of them equal
    """
    own, others = (
        (frozen(each.start, np.int64, "start"), frozen(each.values, np.uint8, "texts")) for each in (sought, texts)
    )
    return _located(*own, *others, frozen(order, np.int32, "order"))


@njit(cache=True, nogil=True)
def _located(sought_start: I64, sought: NDArray[Any], start: I64, texts: NDArray[Any], order: I32) -> I32:
    found = np.full(len(sought_start) - 1, -1, np.int32)
    for at in range(len(found)):
        own = sought[sought_start[at] : sought_start[at + 1]]
        first, stop = 0, len(order)
        while first < stop:
            middle = (first + stop) // 2
            place = order[middle]
            sign = _compared(texts[start[place] : start[place + 1]], own)
            if sign == 0:
                found[at] = place
                break
            if sign < 0:
                first = middle + 1
            else:
                stop = middle
    return found


@njit(cache=True, nogil=True)
def _compared(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Below, at or above 0 as bytes `a` are before, the same as or after `b`."""
    for at in range(min(len(a), len(b))):
        if a[at] != b[at]:
            return -1 if a[at] < b[at] else 1
    return len(a) - len(b)
