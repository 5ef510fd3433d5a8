"""A bar of Spark's tasks on a terminal, and nothing elsewhere."""

import io
import sys
import threading
import time

import pytest

from sparkrec.spark.platform.jobs import shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Stage:
    def __init__(self, tasks, done):
        self.numTasks, self.numCompletedTasks = tasks, done


class Session:
    """A session of which a status tracker is all that is there."""

    def __init__(self, stages, asked):
        self.stages, self.asked = stages, asked
        self.sparkContext = self

    def statusTracker(self):
        return self

    def getActiveStageIds(self):
        self.asked.release()
        return [*self.stages, 99]  # one that ended since

    def getStageInfo(self, number):
        return self.stages.get(number)


def test_a_terminal_shows_the_tasks_of_all_running_stages_and_is_left_clean(monkeypatch):
    terminal, asked = Terminal(), threading.Semaphore(0)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown(Session({1: Stage(30, 7), 2: Stage(12, 5)}, asked), "prepare"):
        for _ in range(2):
            assert asked.acquire(timeout=20)
    assert "prepare" in terminal.getvalue()
    assert "12/42" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")  # the line of the bar is erased


def test_a_log_shows_nothing_and_asks_nothing(monkeypatch):
    log, asked = io.StringIO(), threading.Semaphore(0)
    monkeypatch.setattr(sys, "stderr", log)
    with shown(Session({1: Stage(2, 1)}, asked), "prepare"):
        pass
    assert log.getvalue() == ""
    assert not asked.acquire(blocking=False)


def test_a_session_that_does_not_tell_and_one_that_fails_end_no_job(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown(object(), "prepare"):  # as over Spark Connect
        pass
    asked = threading.Semaphore(0)
    session = Session(None, asked)  # raises TypeError when it is asked
    with shown(session, "prepare"):
        assert asked.acquire(timeout=20)


def _slowly(batches):
    time.sleep(1)
    yield from batches


@pytest.mark.spark
def test_a_real_session_tells_its_tasks(spark, monkeypatch):
    from sparkrec.spark.platform.jobs import _tasks

    seen = []
    monkeypatch.setattr("sparkrec.spark.platform.jobs._tasks", lambda tracker: seen.append(_tasks(tracker)) or seen[-1])
    monkeypatch.setattr(sys, "stderr", Terminal())
    with shown(spark, "prepare"):
        spark.range(0, 4, 1, 4).mapInArrow(_slowly, "id long").collect()
    assert any(total > 0 for _, total in seen)
