"""Batches made ahead, on a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from sparkrec.training.batches.batch import StepGroup


@dataclass
class Prefetched:
    """Step groups made on a thread while the model works on others: an iterator, closed or run to its end."""

    make: Callable[[], Iterator[StepGroup]]
    ahead: int = 4
    waited: float = field(default=0.0, init=False)
    """Seconds that the model had to wait for batches."""

    def __post_init__(self) -> None:
        self._groups = self._made()

    def __iter__(self) -> Iterator[StepGroup]:
        return self._groups

    def close(self) -> None:
        """End the thread."""
        self._groups.close()

    def _made(self) -> Generator[StepGroup, None, None]:
        made: queue.Queue[StepGroup | BaseException | None] = queue.Queue(self.ahead)
        stopped = threading.Event()

        def put(each: StepGroup | BaseException | None) -> bool:
            while not stopped.is_set():
                try:
                    made.put(each, timeout=0.1)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            try:
                for group in self.make():
                    if not put(group):
                        return
                put(None)
            except BaseException as error:  # it is raised where the batches are wanted
                put(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                started = time.perf_counter()
                each = made.get()
                self.waited += time.perf_counter() - started
                if each is None:
                    return
                if isinstance(each, BaseException):
                    raise each
                yield each
        finally:
            stopped.set()
            thread.join()
