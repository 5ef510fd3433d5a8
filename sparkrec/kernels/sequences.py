"""Cutting ordered events into sequences: whole histories, truncated, or windows that slide over them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sparkrec.kernels.arrays import I64
from sparkrec.kernels.ragged import Ragged, spans


class Cut(NamedTuple):
    """Sequences of users, one after the other."""

    user: I64
    """(s,)"""
    session: I64
    """(s,) number of the session among those of its user, from 0."""
    items: Ragged
    """(s,) the items of each, int64."""


@dataclass
class Cutter:
    """Cuts events that come user after user, each user's in time order, however they come in pieces; keeps no more of
    them than the longest sequence has.

    A session ends with its user, or before a pause of more than `gap`. Of one with n events become
    - without `targets`, its last `length` + 1 events, or the n that it has;
    - with `targets`, windows of `length` + `targets` events, one event apart (Tang and Wang 2018, section 3); the n
      that it has if there are fewer.
    A session of one event has nothing to predict, and is left out.
    """

    length: int
    targets: int | None = None
    gap: int | None = None
    """In the units of the times."""
    _user: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _item: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _time: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _session: int = 0
    """Of the events kept."""
    _cut: bool = False
    """Whether windows of theirs were given out."""

    def feed(self, user: I64, item: I64, time: I64) -> Cut:
        """The sequences that are complete with these events, (n,) each."""
        return self._take(user, item, time, done=False)

    def end(self) -> Cut:
        """The rest."""
        nothing = np.zeros(0, np.int64)
        return self._take(nothing, nothing, nothing, done=True)

    @property
    def _most(self) -> int:
        """Events of a sequence."""
        return self.length + (self.targets or 1)

    def _take(self, user: I64, item: I64, time: I64, done: bool) -> Cut:
        user, item, time = (
            np.concatenate(pair) for pair in ((self._user, user), (self._item, item), (self._time, time))
        )
        if not len(user):
            return Cut(user, user, Ragged(np.zeros(1, np.int64), item))
        other = user[1:] != user[:-1]
        ends = other if self.gap is None else other | (time[1:] - time[:-1] > self.gap)
        first = np.concatenate(([0], np.flatnonzero(ends) + 1))
        sessions = self._numbers(first, user)
        n = np.diff(np.append(first, len(user)))
        again = np.zeros(len(first), bool)
        again[0] = self._cut
        whole = np.ones(len(first), bool)
        whole[-1] = done
        cut = self._windows if self.targets else self._histories
        begin, length, of = cut(first, n, whole, again)
        start, places = spans(begin, length)
        found = Cut(user[first[of]], sessions[of], Ragged(start, item[places]))
        kept = self._most - 1 if self.targets else self._most
        self._cut = bool(n[-1] >= self._most or again[-1]) if self.targets else False
        self._session = int(sessions[-1])
        tail = slice(max(len(user) - kept, int(first[-1])), len(user))
        self._user, self._item, self._time = user[tail], item[tail], time[tail]
        return found

    def _numbers(self, first: I64, user: I64) -> I64:
        """The number of each session: those of the first user go on from the one that was kept."""
        starts = np.concatenate(([True], user[first[1:]] != user[first[:-1]]))
        at = np.arange(len(first))
        number: I64 = at - np.maximum.accumulate(np.where(starts, at, 0))
        number[: int(np.argmax(starts[1:])) + 1 if starts[1:].any() else len(first)] += self._session
        return number

    def _histories(self, first: I64, n: I64, whole: np.ndarray, again: np.ndarray) -> tuple[I64, I64, I64]:
        """Where each sequence begins, its length, and of which session it is."""
        of = np.flatnonzero(whole & (n > 1))
        length = np.minimum(n[of], self._most)
        return first[of] + n[of] - length, length, of

    def _windows(self, first: I64, n: I64, whole: np.ndarray, again: np.ndarray) -> tuple[I64, I64, I64]:
        few = whole & (n > 1) & (n < self._most) & ~again
        many = np.maximum(n - self._most + 1, 0) + few
        of = np.repeat(np.arange(len(first)), many)
        within = np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
        return first[of] + within, np.minimum(n[of], self._most), of


@dataclass
class Latest:
    """The last `length` events of each user, and of these those after the last pause of more than `gap`; events come as
    to a `Cutter`, and no more of them are kept than a user has here."""

    length: int
    gap: int | None = None
    """In the units of the times."""
    _user: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _item: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    _time: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def feed(self, user: I64, item: I64, time: I64) -> tuple[I64, Ragged]:
        """Users who are complete with these events, (n,) each, and the items of each."""
        user, item, time = (
            np.concatenate(pair) for pair in ((self._user, user), (self._item, item), (self._time, time))
        )
        ends = np.flatnonzero(user[1:] != user[:-1]) + 1
        last = int(ends[-1]) if len(ends) else 0
        kept = slice(max(last, len(user) - self.length), len(user))
        self._user, self._item, self._time = user[kept], item[kept], time[kept]
        return self._latest(user[:last], item[:last], time[:last])

    def end(self) -> tuple[I64, Ragged]:
        """The rest."""
        return self._latest(self._user, self._item, self._time)

    def _latest(self, user: I64, item: I64, time: I64) -> tuple[I64, Ragged]:
        if not len(user):
            return user, Ragged(np.zeros(1, np.int64), item)
        stop = np.append(np.flatnonzero(user[1:] != user[:-1]) + 1, len(user))
        begin = np.maximum(np.append(0, stop[:-1]), stop - self.length)
        if self.gap is not None:
            pauses = np.append(0, np.flatnonzero(time[1:] - time[:-1] > self.gap) + 1)
            begin = np.maximum(begin, pauses[np.searchsorted(pauses, stop) - 1])
        start, places = spans(begin, stop - begin)
        return user[begin], Ragged(start, item[places])
