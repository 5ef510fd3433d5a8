"""Scoring tiles of users against blocks of items, and keeping the best.

Every model scores bilinearly here, score(u, i) = <x_u, w_i> over s source columns, in one of three layouts:

    users           items             model
    (n, s) dense    (m, s) dense      factors: ALS, MF, two towers
    Csr             (m, s) dense      EASE: x_u the user's interactions, w_i column i of the item-item weights
    Csr             Csr               item neighbours: the same, w_i sparse

Items come in blocks; a position is an item's place in its block, and blocks and positions follow ascending
item ids. Padding, where fewer than k candidates are left: position -1, score -inf.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sparkrec.kernels.arrays import F32, I32, I64, Lists, check_indptr, check_range, checked_lists, frozen
from sparkrec.kernels.csr import Csr
from sparkrec.kernels.ragged import rows_of
from sparkrec.kernels.retrieval.heap import empty_places, offer_row, sort_best_first


class SourceMajor(NamedTuple):
    """A block of items turned round, source column -> items: the order in which sparse users read it.

    by_source  Csr of n_sources rows over item positions, or (n_sources, n_items) float32
    n_items    number of items in the block
    """

    by_source: Csr | F32
    n_items: int

    @property
    def n_sources(self) -> int:
        return self.by_source.n_rows if isinstance(self.by_source, Csr) else len(self.by_source)


def prepare_items(items: F32 | Csr, n_sources: int) -> SourceMajor:
    """Turn a block of items round for sparse users: once a block, not once a tile.

    items  (m, n_sources) float32, copied unless its transpose is contiguous as all of `weights.T` of EASE is;
           or Csr of m items over n_sources columns
    """
    if isinstance(items, Csr):
        items = items.checked(n_sources, "items")
        item_of_entry = rows_of(items.indptr)
        turned = Csr.from_pairs(items.indices, item_of_entry, items.values, n_sources)
        return SourceMajor(turned, items.n_rows)
    if items.ndim != 2 or items.shape[1] != n_sources:
        raise ValueError(f"items: found shape {items.shape}, expected (m, {n_sources})")
    return SourceMajor(frozen(items.T, np.float32, "items", 2), len(items))


def scores(users: F32 | Csr, items: F32 | SourceMajor, start: int, stop: int, out: F32 | None = None) -> F32:
    """Scores of user rows [start, stop) for every item of the block: (stop - start, m) float32.

    users  (n, s) float32 with items (m, s) float32, or Csr with items from `prepare_items`
    out    buffer for the result, to spare a large allocation a tile
    Sparse users add up their entries in order, so that a score does not depend on the block its item is in.
    The dense product is BLAS's: there the last bit may. Raises TypeError for any other pair of layouts,
    ValueError for shapes that do not fit.
    """
    if isinstance(users, Csr) and isinstance(items, SourceMajor):
        tile = users.rows(start, stop).checked(items.n_sources, "users")
        out = _buffer(out, (stop - start, items.n_items))
        if isinstance(items.by_source, Csr):
            _scores_sparse(*tile, *items.by_source.checked(items.n_items, "items"), out)
        else:
            _scores_dense(*tile, frozen(items.by_source, np.float32, "items", 2), out)
        return out
    if isinstance(users, np.ndarray) and isinstance(items, np.ndarray):
        users, items = _factors(users, items)
        if not 0 <= start <= stop <= len(users):
            raise ValueError(f"rows [{start}, {stop}): expected a range inside [0, {len(users)})")
        out = _buffer(out, (stop - start, len(items)))
        np.matmul(users[start:stop], items.T, out=out)
        return out
    raise TypeError(_LAYOUTS.format(type(users).__name__, type(items).__name__))


def score_pairs(users: F32 | Csr, items: F32 | SourceMajor, pairs: Lists) -> F32:
    """Scores of the given pairs only, (nnz,) float32: row u of `users` with each item position of list u.

    users, items  as in `scores`
    pairs         (indptr, positions) with a list for every row of `users`, positions ascending
    Sparse users: the very bits that `scores` gives. Dense: the last bits may differ from the matrix
    product's.
    """
    if isinstance(users, Csr) and isinstance(items, SourceMajor):
        users = users.checked(items.n_sources, "users")
        indptr, positions = _positions(pairs, users.n_rows, items.n_items, "pairs")
        found = np.zeros(len(positions), np.float32)
        if isinstance(items.by_source, Csr):
            sparse = items.by_source.checked(items.n_items, "items")
            _pairs_sparse(*users, *sparse, items.n_items, indptr, positions, found)
        else:
            dense = frozen(items.by_source, np.float32, "items", 2)
            _pairs_dense_items(*users, dense, indptr, positions, found)
        return found
    if isinstance(users, np.ndarray) and isinstance(items, np.ndarray):
        users, items = _factors(users, items)
        indptr, positions = _positions(pairs, len(users), len(items), "pairs")
        found = np.empty(len(positions), np.float32)
        _pairs_dense(users, items, indptr, positions, found)
        return found
    raise TypeError(_LAYOUTS.format(type(users).__name__, type(items).__name__))


def select_topk_reference(scores: F32, k: int, exclude: Lists | None = None) -> tuple[I32, F32]:
    """`select_topk` by sorting everything."""
    positions, best = empty_places(len(scores), k, np.int32)
    for row, row_scores in enumerate(scores):
        allowed = row_scores > -np.inf
        if exclude is not None:
            allowed[exclude[1][exclude[0][row] : exclude[0][row + 1]]] = False
        candidates = np.flatnonzero(allowed)
        chosen = candidates[np.argsort(-row_scores[candidates], kind="stable")][:k]
        positions[row, : len(chosen)], best[row, : len(chosen)] = chosen, row_scores[chosen]
    return positions, best


def select_topk(scores: F32, k: int, exclude: Lists | None = None) -> tuple[I32, F32]:
    """The k best columns of every row: `TopK` of one tile, (n, m) float32."""
    scores = frozen(scores, np.float32, "scores", 2)
    best = TopK(len(scores), scores.shape[1], k, exclude)
    best.offer(scores)
    return best.finish()


class TopK:
    """The k best columns of every row of a matrix that comes in tiles.

    n_rows, n_columns  of the matrix
    exclude            (indptr, positions) a list of columns a row, ascending, that are not selected (already seen, say)
    Ordered by descending score, then ascending position, which makes the result the same however the items were split
    into blocks. NaN and -inf are never selected; rows with fewer than k candidates end in -1 / -inf.
    """

    def __init__(self, n_rows: int, n_columns: int, k: int, exclude: Lists | None = None) -> None:
        if k < 1:
            raise ValueError(f"k: found {k}, expected at least 1")
        self._exclude = _exclusions(exclude, (n_rows, n_columns))
        self._positions, self._scores = empty_places(n_rows, k, np.int32)

    def offer(self, scores: F32, row: int = 0, column: int = 0) -> None:
        """A tile, (n, m) float32, that begins at a row and a column; tiles of a row come from left to right."""
        scores = frozen(scores, np.float32, "scores", 2)
        _offer(scores, row, column, *self._exclude, self._positions, self._scores)

    def finish(self) -> tuple[I32, F32]:
        """Positions (n_rows, k) int32 and scores (n_rows, k) float32, best first. The last call."""
        _sort(self._positions, self._scores)
        return self._positions, self._scores


def merge_topk(ids_a: NDArray[Any], scores_a: F32, ids_b: NDArray[Any], scores_b: F32, k: int) -> tuple[I64, F32]:
    """The k best of two padded lists a row: ids (n, k) int64 and scores (n, k) float32.

    ids, scores  (n, k_a) and (n, k_b), each ordered by descending score, then ascending id, its padding last
    The two hold different ids, as the best of disjoint item blocks do: item ids, not positions in a block.
    """
    ids_a, scores_a = frozen(ids_a, np.int64, "ids_a", 2), frozen(scores_a, np.float32, "scores_a", 2)
    ids_b, scores_b = frozen(ids_b, np.int64, "ids_b", 2), frozen(scores_b, np.float32, "scores_b", 2)
    if ids_a.shape != scores_a.shape or ids_b.shape != scores_b.shape or len(ids_a) != len(ids_b):
        raise ValueError(
            f"ids and scores: found shapes {ids_a.shape}, {scores_a.shape} and {ids_b.shape}, "
            f"{scores_b.shape}; expected equal shapes in each pair and equal numbers of rows"
        )
    if k < 1:
        raise ValueError(f"k: found {k}, expected at least 1")
    ids, best = empty_places(len(ids_a), k, np.int64)
    _merge(ids_a, scores_a, ids_b, scores_b, ids, best)
    return ids, best


def count_above(
    scores: F32, targets_indptr: I64, target_scores: F32, exclude_indptr: I64, exclude_indices: I32
) -> tuple[I64, I64]:
    """How many columns of its row score greater than, and equal to, each target: two (n_targets,) int64.

    scores           (n, m) float32; NaN counts as -inf, in targets too
    targets_indptr   (n + 1,) int64, target_scores (n_targets,) float32: the scores that row r asks about
    exclude_indptr, exclude_indices   columns of row r that do not count, ascending
    A target that is a column of its row, and not excluded, counts itself in `equal`. Counts over disjoint
    blocks of columns add up. For an AUC exclude the targets with the rest:
    then it does not matter that dense scores from `score_pairs` may be a rounding away from `scores`.
    """
    scores = frozen(scores, np.float32, "scores", 2)
    targets_indptr = frozen(targets_indptr, np.int64, "targets indptr")
    target_scores = frozen(target_scores, np.float32, "target scores")
    check_indptr(targets_indptr, len(target_scores), "targets")
    if len(targets_indptr) != len(scores) + 1:
        raise ValueError(f"targets: found {len(targets_indptr) - 1} rows, expected {len(scores)}")
    indptr, positions = _exclusions((exclude_indptr, exclude_indices), scores.shape)
    greater, equal = np.empty(len(target_scores), np.int64), np.empty(len(target_scores), np.int64)
    _count(scores, targets_indptr, target_scores, indptr, positions, greater, equal)
    return greater, equal


_LAYOUTS = "users and items: found {} and {}, expected two matrices, or a Csr and items from prepare_items()"


def _factors(users: F32, items: F32) -> tuple[F32, F32]:
    users, items = frozen(users, np.float32, "users", 2), frozen(items, np.float32, "items", 2)
    if users.shape[1] != items.shape[1]:
        raise ValueError(f"users and items: found {users.shape} and {items.shape}, expected (n, s) and (m, s)")
    return users, items


def _buffer(out: F32 | None, shape: tuple[int, int]) -> F32:
    if out is None:
        return np.empty(shape, np.float32)
    if out.shape != shape or out.dtype != np.float32:
        raise ValueError(f"out: found {out.dtype} {out.shape}, expected float32 {shape}")
    return out


def _positions(lists: Lists, n_rows: int, n_columns: int, name: str) -> tuple[I64, I32]:
    indptr, positions = checked_lists(lists, n_rows, name)
    check_range(positions, n_columns, name)
    return indptr, positions


def _exclusions(exclude: Lists | None, shape: tuple[int, ...]) -> tuple[I64, I32]:
    if exclude is None:
        exclude = np.zeros(shape[0] + 1, np.int64), np.zeros(0, np.int32)
    return _positions(exclude, shape[0], shape[1], "exclude")


# No fastmath here: vector and scalar code then add entries in the same order, and equal items tie exactly.


@njit(cache=True, nogil=True)
def _scores_dense(indptr: I64, indices: I32, values: F32, by_source: F32, out: F32) -> None:
    for u in range(len(out)):
        row = out[u]
        row[:] = 0.0
        e, last = indptr[u], indptr[u + 1]
        while e + 4 <= last:  # four at a time, a quarter of the traffic on `row`; additions stay in order
            w0, w1 = by_source[indices[e]], by_source[indices[e + 1]]
            w2, w3 = by_source[indices[e + 2]], by_source[indices[e + 3]]
            v0, v1, v2, v3 = values[e], values[e + 1], values[e + 2], values[e + 3]
            for i in range(len(row)):
                row[i] = (((row[i] + v0 * w0[i]) + v1 * w1[i]) + v2 * w2[i]) + v3 * w3[i]
            e += 4
        while e < last:
            w, v = by_source[indices[e]], values[e]
            for i in range(len(row)):
                row[i] += v * w[i]
            e += 1


@njit(cache=True, nogil=True)
def _scores_sparse(
    indptr: I64, indices: I32, values: F32, item_indptr: I64, item_indices: I32, item_values: F32, out: F32
) -> None:
    for u in range(len(out)):
        out[u] = 0.0
        _add_sources(indptr[u], indptr[u + 1], indices, values, item_indptr, item_indices, item_values, out[u])


@njit(cache=True, nogil=True)
def _add_sources(
    first: int,
    last: int,
    indices: I32,
    values: F32,
    item_indptr: I64,
    item_indices: I32,
    item_values: F32,
    row: F32,
) -> None:
    for e in range(first, last):
        value = values[e]
        for at in range(item_indptr[indices[e]], item_indptr[indices[e] + 1]):
            row[item_indices[at]] += value * item_values[at]


@njit(cache=True, nogil=True)
def _pairs_sparse(
    indptr: I64,
    indices: I32,
    values: F32,
    item_indptr: I64,
    item_indices: I32,
    item_values: F32,
    n_items: int,
    pair_indptr: I64,
    positions: I32,
    found: F32,
) -> None:
    row = np.empty(n_items, np.float32)
    for u in range(len(pair_indptr) - 1):
        if pair_indptr[u] == pair_indptr[u + 1]:
            continue
        row[:] = 0.0
        _add_sources(indptr[u], indptr[u + 1], indices, values, item_indptr, item_indices, item_values, row)
        for pair in range(pair_indptr[u], pair_indptr[u + 1]):
            found[pair] = row[positions[pair]]


@njit(cache=True, nogil=True)
def _pairs_dense_items(
    indptr: I64, indices: I32, values: F32, by_source: F32, pair_indptr: I64, positions: I32, found: F32
) -> None:
    for u in range(len(pair_indptr) - 1):
        for e in range(indptr[u], indptr[u + 1]):
            w, value = by_source[indices[e]], values[e]
            for pair in range(pair_indptr[u], pair_indptr[u + 1]):
                found[pair] += value * w[positions[pair]]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _pairs_dense(users: F32, items: F32, pair_indptr: I64, positions: I32, found: F32) -> None:
    for u in range(len(users)):
        x = users[u]
        for pair in range(pair_indptr[u], pair_indptr[u + 1]):
            w = items[positions[pair]]
            total = np.float32(0.0)
            for k in range(len(x)):
                total += x[k] * w[k]
            found[pair] = total


@njit(cache=True, nogil=True)
def _offer(scores: F32, row: int, column: int, exclude_indptr: I64, exclude: I32, chosen: I32, best: F32) -> None:
    for tile_row in range(len(scores)):
        r = row + tile_row
        passed_over = exclude[exclude_indptr[r] : exclude_indptr[r + 1]]
        offer_row(best[r], chosen[r], scores[tile_row], column, passed_over)


@njit(cache=True, nogil=True)
def _sort(chosen: I32, best: F32) -> None:
    for r in range(len(best)):
        sort_best_first(best[r], chosen[r])


@njit(cache=True, nogil=True)
def _merge(ids_a: I64, scores_a: F32, ids_b: I64, scores_b: F32, ids: I64, best: F32) -> None:
    for r in range(len(ids)):
        a = b = 0
        for place in range(ids.shape[1]):
            has_a = a < ids_a.shape[1] and ids_a[r, a] >= 0
            has_b = b < ids_b.shape[1] and ids_b[r, b] >= 0
            if has_a and has_b:
                tie = scores_a[r, a] == scores_b[r, b]
                take_a = ids_a[r, a] < ids_b[r, b] if tie else scores_a[r, a] > scores_b[r, b]
            elif has_a or has_b:
                take_a = has_a
            else:
                break
            if take_a:
                ids[r, place], best[r, place] = ids_a[r, a], scores_a[r, a]
                a += 1
            else:
                ids[r, place], best[r, place] = ids_b[r, b], scores_b[r, b]
                b += 1


@njit(cache=True, nogil=True)
def _count(
    scores: F32,
    targets_indptr: I64,
    target_scores: F32,
    exclude_indptr: I64,
    exclude: I32,
    greater: I64,
    equal: I64,
) -> None:
    for r in range(len(scores)):
        row = scores[r]
        for t in range(targets_indptr[r], targets_indptr[r + 1]):
            target = target_scores[t]
            lowest = not target > -np.inf  # -inf or NaN: nothing is below it
            if lowest:
                target = np.float32(-np.inf)
            # 32 bits wide as the scores are: six times as fast as counting in 64.
            above = np.int32(0)
            not_below = np.int32(0)
            for c in range(len(row)):
                above += np.int32(row[c] > target)
                not_below += np.int32(row[c] >= target)
            if lowest:
                not_below = np.int32(len(row))
            for at in range(exclude_indptr[r], exclude_indptr[r + 1]):
                score = row[exclude[at]]
                above -= np.int32(score > target)
                not_below -= np.int32(score >= target or lowest)
            greater[t] = above
            equal[t] = not_below - above
