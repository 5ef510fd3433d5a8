"""Answers from the folder of an exported model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from sparkrec.errors import InputError
from sparkrec.exported.files import Opened
from sparkrec.exported.histories import Histories, History, read_histories
from sparkrec.exported.ids import Ids
from sparkrec.kernels.arrays import F32, I32, I64
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import taken
from sparkrec.kernels.retrieval import topk as kernel

if TYPE_CHECKING:
    from sparkrec.models.base.scorers.pairs import PairScorer

BY = ("model", "history", "folded in", "popularity")
"""What answers: a row that was fitted, one made of a history, one that was folded in; or what is popular, for those
whom none of these is for."""
SCORER = "scorer.safetensors"
_NOTHING: I32 = np.zeros(0, np.int32)


class Answer(NamedTuple):
    """The list of one who asks, best first."""

    items: list[Any]
    """Ids, as the log has them."""
    scores: F32
    by: str
    """One of BY."""


class ExportedModel:
    """A model that `sparkrec export` wrote, or `Recommender.export`. Its arrays are mapped: processes on one machine
    share them. It may be asked from several threads."""

    def __init__(self, folder: Opened) -> None:
        self._folder, self.manifest = folder, folder.manifest
        self.users, self.items = Ids(folder, "user"), Ids(folder, "item")
        self._by = folder.array("user_by")
        self._item_rows = _rows(folder, "item")
        self._user_rows = _rows(folder, "user")
        self._seen_start: I64 = folder.array("seen_start")
        self._seen: I32 = folder.array("seen_items")
        self._fitted = folder.array("item_fitted")
        self._popularity: F32 = folder.array("item_popularity")
        self._histories: Histories | None = read_histories(folder, self.manifest["histories"])

    @classmethod
    def load(cls, path: str) -> ExportedModel:
        """The model of a folder. Raises InputError where there is none, or its files are not whole."""
        return cls(Opened(path))

    def check(self) -> None:
        """Read all files. Raises InputError where one is not as it was written."""
        self._folder.check()

    def recommend(
        self,
        users: Iterable[Any] | None = None,
        histories: Iterable[Sequence[Any]] | None = None,
        *,
        values: Iterable[Sequence[float]] | None = None,
        k: int = 10,
        seen: bool = False,
    ) -> list[Answer]:
        """The k best items of each user, or of each history.

        users      ids. One whom the model does not know gets what is popular
        histories  instead: ids of items, in the order of time. What the model does not know is passed over, and where
                   it knows nothing of a history, that gets what is popular
        values     of each item of a history its rating, or, of implicit feedback, its confidence; 1 where not given
        seen       whether to list what a user has had already, or a history has in it

        Raises InputError for ids of another type than those of the log, and for histories where the model knows the
        users that it was fitted to and no others, or where it was fitted to ratings and `values` are not given.
        """
        if (users is None) == (histories is None):
            raise InputError("recommend: expected users or histories, one of the two.")
        if k < 1:
            raise InputError(f"k: found {k}, expected at least 1.")
        if isinstance(users, str):
            raise InputError(f"users: found the text {users!r}, expected a list of ids.")
        if histories is None:
            return [self._for_user(place, k, seen) for place in self.users.places(users or ())]
        made = self._asked(histories)
        told = [None] * len(made) if values is None else [*values]
        if len(told) != len(made):
            raise InputError(f"values: found {len(told)} lists, expected one for each of {len(made)} histories.")
        return [self._for_history(each, worth, k, seen) for each, worth in zip(made, told, strict=True)]

    def _for_user(self, place: int, k: int, seen: bool) -> Answer:
        if place < 0:
            return self._best(self._popularity, k, _NOTHING, BY.index("popularity"))
        exclude = _NOTHING if seen else self._seen[self._seen_start[place] : self._seen_start[place + 1]]
        by = int(self._by[place])
        scores = self._popularity if BY[by] == "popularity" else self._scores(self._row(place))
        return self._best(scores, k, exclude, by)

    def _asked(self, histories: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
        if self._histories is None:
            raise InputError(
                f"histories: a {self.manifest['kind']} knows the users that it was fitted to and no others. Ask by "
                "users, or export a model of another kind."
            )
        return [*histories]

    def _for_history(self, ids: Sequence[Any], values: Sequence[float] | None, k: int, seen: bool) -> Answer:
        assert self._histories is not None
        if isinstance(ids, str):
            raise InputError(f"histories: found the text {ids!r}, expected lists of item ids.")
        worth = np.ones(len(ids), np.float32) if values is None else np.asarray(values, np.float32)
        if worth.shape != (len(ids),) or not np.isfinite(worth).all():
            raise InputError(f"values: expected {len(ids)} finite numbers, one for each item of the history.")
        if self.manifest["explicit"] and values is None:
            raise InputError("values: the model was fitted to ratings; expected one for each item of a history.")
        places = self.items.places(ids)
        places, worth = places[places >= 0], worth[places >= 0]
        exclude = _NOTHING if seen else np.unique(places)
        if not self._histories.in_order:
            places, worth = _once(places, worth, self._fitted)
        if not len(places):
            return self._best(self._popularity, k, exclude, BY.index("popularity"))
        ones = np.ones_like(worth)
        history = History(places, *((worth, ones) if self.manifest["explicit"] else (ones, worth)))
        row = self._histories.row(history, cast(NDArray[Any], self._item_rows))
        return self._best(self._scores(row), k, exclude, BY.index(self._histories.by))

    def _best(self, scores: F32, k: int, exclude: I32, by: int) -> Answer:
        start = np.array([0, len(exclude)], np.int64)
        places, best = kernel.select_topk(scores[None], min(k, len(scores)), (start, exclude))
        n = int((places[0] >= 0).sum())
        return Answer([self.items[place] for place in places[0, :n]], best[0, :n], BY[by])

    def _row(self, place: int) -> F32 | Csr:
        """Of a user."""
        if isinstance(self._user_rows, Csr):
            return self._user_rows.rows(place, place + 1)
        row: F32 = self._user_rows[place]
        return row

    def _scores(self, row: F32 | Csr) -> F32:
        """(m,) of all items, as retrieval on Spark has them."""
        m, items = len(self.items), self._item_rows
        if isinstance(row, Csr):
            found = kernel.scores(*_of_sources(row, items, m), 0, 1)
        elif self._scorer is not None:
            found = self._scorer.scores(row[None], items)
        else:
            found = kernel.scores(row[None], items, 0, 1)
        scores: F32 = found[0, :m]
        return scores

    @cached_property
    def _scorer(self) -> PairScorer | None:
        """What scores rows, where scores are not inner products; with torch."""
        data = self._folder.bytes(SCORER)
        if data is None:
            return None
        from sparkrec.models.base.scorers import load_scorer

        return cast("PairScorer", load_scorer(data))


def _rows(folder: Opened, side: str) -> Any:
    """Rows of one side: a matrix; or sparse ones, which of items are by source."""
    if folder.has(f"{side}_rows"):
        return folder.array(f"{side}_rows")
    return Csr(*(folder.array(f"{side}_rows_{part}") for part in ("start", "index", "value")))


def _once(places: I32, values: F32, fitted: NDArray[np.bool_]) -> tuple[I32, F32]:
    """The fitted ones among places, ascending, each once with its largest value."""
    order = np.lexsort((-values, places))
    places, values = places[order], values[order]
    first = np.ones(len(places), bool)
    first[1:] = places[1:] != places[:-1]
    first &= fitted[places]
    return places[first], values[first]


def _of_sources(row: Csr, items: F32 | Csr, m: int) -> tuple[Csr, kernel.SourceMajor]:
    """A sparse row, and what items have of it: the rest of a large matrix is not looked at."""
    if isinstance(items, Csr):
        start, at = taken(items.indptr, row.indices.astype(np.int64))
        items = Csr(start, items.indices[at], items.values[at])
        row = Csr(row.indptr, np.arange(row.nnz, dtype=np.int32), row.values)
    return row, kernel.SourceMajor(items, m)
