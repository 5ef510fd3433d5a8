"""How a model makes the row of somebody of whom a history is all that is known, without Spark.

A kind declares one of these classes (`Serving.exported`) where its rows of users follow from what they did; those of
networks follow from what is kept beside their tables. A field that is an array is a file of the folder, one of bytes
too, and all others stand in its manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import InputError
from sparkrec.exported.files import Opened, Writing
from sparkrec.kernels.als.half_step import EXACT, SingularSystem, Solver, half_step
from sparkrec.kernels.arrays import F32, F64, I32, I64
from sparkrec.kernels.csr import Csr

if TYPE_CHECKING:
    from sparkrec.models.base.scorers.histories import HistoryScorer
    from sparkrec.models.base.scorers.rows import RowEncoder

_PREFIX = "history_"
_FILE = "history.safetensors"
_one_at_a_time = Lock()
"""For networks of sequences, which keep the rows of who asks in a table of their own while they work."""


class History(NamedTuple):
    """What somebody did: items that the model knows, one at least."""

    items: I32
    """(n,) places: in the order of time where a model sees that, else ascending and each once."""
    values: F32
    """(n,) ratings, or 1 where feedback is implicit."""
    confidence: F32
    """(n,) and 1 where it is explicit."""


class Histories(Protocol):
    """What makes rows of histories."""

    by: ClassVar[str]
    """What answers then, of `serving.ANSWERS`."""
    in_order: ClassVar[bool]
    """Whether the order of a history matters, and an item may come twice."""

    def row(self, history: History, items: NDArray[Any]) -> F32 | Csr:
        """The row as the model scores it: (size,), or a sparse one.

        items  (m, size) rows of items, where these are dense and users, too
        """


@dataclass(frozen=True)
class Entries:
    """The row is the history: a number at the place of each item."""

    at: I32
    """(m,) place in a row of each item, ascending."""
    divisor: F64
    """(m,) by which the strength of an item is divided."""

    by: ClassVar[str] = "history"
    in_order: ClassVar[bool] = False

    def row(self, history: History, items: NDArray[Any]) -> Csr:
        strength = (history.values * history.confidence).astype(np.float64) / self.divisor[history.items]
        return _sparse(self.at[history.items], strength.astype(np.float32))


@dataclass(frozen=True)
class LastEvent:
    """The row has 1 at the place of the last item, and at the last of all places."""

    at: I32
    """(m,) place of each item."""
    size: int

    by: ClassVar[str] = "history"
    in_order: ClassVar[bool] = True

    def row(self, history: History, items: NDArray[Any]) -> Csr:
        return _sparse(np.array([self.at[history.items[-1]], self.size - 1], np.int32), np.ones(2, np.float32))


@dataclass(frozen=True)
class OwnBias:
    """The row is 1 and the bias of the user: the mean of what the items leave of the ratings, shrunk. An item's row
    begins with what it is worth."""

    regularization: float

    by: ClassVar[str] = "folded in"
    in_order: ClassVar[bool] = False

    def row(self, history: History, items: NDArray[Any]) -> F32:
        return np.array([1.0, own_bias(history, items[history.items, 0], self.regularization)], np.float32)


@dataclass(frozen=True)
class FoldedIn:
    """The row is what least squares give the user, with the factors of items as they are (Hu et al. 2008, eq. 4).

    With biases rows of items are (y, 1, bias) and the user's is (x, own bias, 1).
    """

    rank: int
    unobserved_weight: float
    regularization: float
    more: float
    exponent: float
    """reg is regularization (n + more)^exponent of a history of n items."""
    nonnegative: bool
    bias_regularization: float | None
    """Of the user's bias; None: there are no biases."""
    gram: F64
    """(rank, rank) unobserved_weight times that of the items that were fitted."""
    propensity: F64
    """(m,) by which the confidence of each item is multiplied."""

    by: ClassVar[str] = "folded in"
    in_order: ClassVar[bool] = False

    def row(self, history: History, items: NDArray[Any]) -> F32:
        rows = items[history.items]
        values, own = history.values, 0.0
        if self.bias_regularization is not None:
            level = rows[:, -1]
            own = own_bias(history, level, self.bias_regularization)
            values = (values - own - level.astype(np.float64)).astype(np.float32)
        confidence = (history.confidence * self.propensity[history.items]).astype(np.float32)
        n = len(values) if self.unobserved_weight == 0 else int((values > 0).sum())
        reg = np.array([self.regularization * (n + self.more) ** self.exponent])
        targets = _sparse(np.arange(len(values), dtype=np.int32), values)
        factors = np.ascontiguousarray(rows[:, : self.rank])
        solver = Solver("nonnegative") if self.nonnegative else EXACT
        try:
            x, _ = half_step(targets, confidence, factors, self.gram, self.unobserved_weight, reg, solver)
        except SingularSystem as error:
            raise InputError(f"a history of {len(values)} items has no finite row: {error.reason}.") from None
        return x[0] if self.bias_regularization is None else np.append(x[0], np.array([own, 1.0], np.float32))


@dataclass(frozen=True)
class Encoded:
    """The row is what a trained encoder makes of all that the user has. Needs torch."""

    data: bytes
    """The encoder's file."""

    by: ClassVar[str] = "history"
    in_order: ClassVar[bool] = False

    @cached_property
    def _encoder(self) -> RowEncoder:
        from sparkrec.models.base.scorers.rows import RowEncoder

        return RowEncoder.from_bytes(self.data)

    def row(self, history: History, items: NDArray[Any]) -> F32:
        start: I64 = np.array([0, len(history.items)])
        found = self._encoder.encode(start, history.items.astype(np.int64), history.values, history.confidence)
        return cast(F32, found[0])


@dataclass(frozen=True)
class States:
    """The row is the state of a trained model of sequences after the history. Needs torch."""

    data: bytes
    """The scorer's file."""
    size: int
    """Of a row of a user, which is zero for who is known by the history alone."""
    length: int
    """Events of a history that are taken, the last ones."""
    rows: F32
    """(m, q) of items, as the model reads them."""

    by: ClassVar[str] = "history"
    in_order: ClassVar[bool] = True

    @cached_property
    def _scorer(self) -> HistoryScorer:
        from sparkrec.models.base.scorers.histories import HistoryScorer

        return HistoryScorer.from_bytes(self.data)

    def row(self, history: History, items: NDArray[Any]) -> F32:
        last = history.items[-self.length :].copy()
        nobody = np.zeros((1, self.size), np.float32)
        with _one_at_a_time:
            return cast(F32, self._scorer.states(nobody, (np.array([0, len(last)]), last), self.rows)[0])


def own_bias(history: History, level: NDArray[Any], regularization: float) -> float:
    """The mean of what items are worth leaves of ratings, as if there were so many more of which nothing is left."""
    left = history.values - level.astype(np.float64)
    return float(left.sum() / (len(left) + regularization))


def write_histories(out: Writing, histories: Histories | None) -> dict[str, Any] | None:
    """Write what makes rows of histories. Returns what `read_histories` needs besides the files."""
    if histories is None:
        return None
    told: dict[str, Any] = {"class": type(histories).__name__}
    for each in fields(cast(Any, histories)):
        value = getattr(histories, each.name)
        if isinstance(value, np.ndarray):
            out.array(f"{_PREFIX}{each.name}", value)
        elif isinstance(value, bytes):
            out.bytes(_FILE, value)
        else:
            told[each.name] = value
    return told


def read_histories(folder: Opened, told: Mapping[str, Any] | None) -> Histories | None:
    """The counterpart of `write_histories`, which returned `told`."""
    if told is None:
        return None
    values = {name: value for name, value in told.items() if name != "class"}
    data = folder.bytes(_FILE)
    return cast(
        Histories,
        _CLASSES[told["class"]](**values, **folder.arrays(_PREFIX), **({} if data is None else {"data": data})),
    )


_CLASSES: dict[str, Any] = {each.__name__: each for each in (Entries, LastEvent, OwnBias, FoldedIn, Encoded, States)}


def _sparse(index: I32, values: F32) -> Csr:
    """One row."""
    return Csr(np.array([0, len(index)], np.int64), index, values)
