"""The page about many nights: what is in it, and that a browser shows it."""

import datetime as dt
import re

import pytest

from sparkrec.stages.reporting.history import page
from sparkrec.stages.reporting.past import Past
from tests.stages.pages import Page, measured

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
START = dt.datetime(2026, 3, 1, 3, tzinfo=dt.timezone.utc)
HOUR = dt.timedelta(hours=1)
KEPT, FAILED = (3, 6), 8


def past(nights=10):
    """A month of a shop: better each night but two, which are kept, and one, of too few rows, that failed; a rollback
    after the fifth night."""
    rows, checks, drift, champions = [], [], [], []
    for n in range(1, nights + 1):
        at, champion = START + n * 24 * HOUR, 0.2 + 0.01 * n
        failed, kept = n == FAILED, n in KEPT
        gap = -0.05 if kept else 0.01
        metrics = {
            "champion_ndcg@10": champion, "challenger_ndcg@10": champion + gap, "margin": 0.1,
            "difference": gap, "low": gap - 0.02, "high": gap + 0.02, "users": 900.0,
            "champion_coverage@10": 0.5, "challenger_coverage@10": 0.6,
        }  # fmt: skip
        common = {"name": "shop", "number": n, "at": at, "dataset": f"shop@{n:012}", "rows": 100 if failed else 1000}
        steps = {"ingest": 60.0, "prepare": 120.0} | ({} if failed else {"train": 600.0, "gate": 120.0})
        rows.append(
            {**common, "outcome": "failed" if failed else "kept" if kept else "promoted", "challenger": f"als@{n:012}",
             "reason": "InputError: <b>few</b>" if failed else "as said", "metrics": None if failed else metrics,
             "seconds": steps}
        )  # fmt: skip
        for check, value, limit in (("volume", 0.1 if failed else 1.0, 0.5), ("rejected", 0.01 * n, 0.085)):
            side = value < limit if check == "volume" else value > limit
            verdict = "fine" if not side else "failed" if check == "volume" else "warned"
            checks.append({**common, "check": check, "value": value, "limit": limit, "verdict": verdict,
                           "at": at - 0.2 * HOUR})  # fmt: skip
        if failed or kept:
            continue
        change = {"model": f"als@{n:012}", "actor": "ann", "reason": "as said"}
        champions.append({**change, "action": "promote", "at": at - 0.01 * HOUR})
        of_lists = {"run": f"als@{n:012}", "model": f"als@{n:012}", "low": None, "high": None, "expected": None}
        own = {**of_lists, "seen": False}
        measures = ("popularity@10", "coverage@10", "divergence", "score_p10", "score_p50", "score_p90")
        drift += [{**own, "measure": measure, "value": 0.3, "at": at - 0.02 * HOUR} for measure in measures]
        served = {"seen": True, "value": 0.25, "low": 0.24, "high": 0.26, "expected": 0.22}
        drift.append({**own, **served, "measure": "ndcg@10", "at": at - 0.2 * HOUR})
    back = {"model": f"als@{4:012}", "actor": "bob", "action": "rollback", "reason": "complaints"}
    champions.append({**back, "at": START + 5.5 * 24 * HOUR})
    champions.sort(key=lambda row: row["at"])
    return Past("shop", champions, rows, checks, drift)


def test_the_page_has_what_was_decided_and_what_it_went_by():
    text = page(past())
    shown = Page(text)
    assert shown.links == []
    assert "als@000000000010 is served since 2026-03-11 02:59: promoted by ann (as said)." in text
    champions = shown.tables["champions"]
    assert champions[4] == ["2026-03-06 15:00", "2026-03-08 02:59", "als@000000000004", "rollback", "bob", "complaints"]
    nights = {row[0]: row[1:] for row in shown.tables["nights"]}
    assert nights["2026-03-04 03:00"] == [
        "kept", "als@000000000003", "ndcg@10 -0.0500 (-0.0700 to -0.0300)", "1,000", "15 min 0 s", "33%", "as said"
    ]  # fmt: skip
    assert nights["2026-03-09 03:00"][0] == "failed"
    assert "&lt;b&gt;few" in text
    assert [*nights][1] == "2026-03-11 03:00"  # the latest night comes first


def test_what_was_not_fine_is_said_with_its_limit():
    shown = Page(page(past()))
    checks = {row[0]: row[1:] for row in shown.tables["checks"]}
    assert checks["night"] == ["volume", "rejected"]
    assert checks["2026-03-03 03:00"] == ["1", "0.02"]
    assert checks["2026-03-09 03:00"] == ["0.1 failed: at least 0.5", "0.08"]
    assert checks["2026-03-11 03:00"][1] == "0.1 warned: at most 0.085"
    assert shown.classes.count("warned") == 2


def test_there_is_a_plot_of_all_that_changes_by_night():
    shown = Page(page(past()))
    assert shown.titles == [
        "Champion and challenger", "What the gate saw", "What came in", "What became of what was served",
        "Lists when they were published", "What took time", "Champions", "Checks", "Nights",
    ]  # fmt: skip
    assert shown.plots == 1 + 1 + 1 + 1 + 4 + 2


def test_an_instant_is_in_a_night_or_between_two():
    known = past()
    assert known.place(START + 24 * HOUR - 0.1 * HOUR) == 1.0
    assert known.place(START + 1.5 * 24 * HOUR) == 1.5
    assert known.place(START + 300 * 24 * HOUR) == 10.5


def test_a_first_night_that_failed_is_a_page():
    (night,) = past(1).nights
    alone = {**night, "outcome": "failed", "metrics": {}, "rows": 0, "seconds": {}}
    shown = page(Past("shop", [], [alone], [], []))
    assert "Nothing is served yet." in shown
    assert "shop: one night" in shown
    assert Page(shown).plots == 0


@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_is_as_wide_as_the_screen_and_its_text_is_large_enough(tmp_path, width):
    shown = measured(page(past(60)), tmp_path, width)
    assert shown["wide"] <= width
    assert shown["smallest"] > 9


def test_pages_share_their_look():
    style = re.compile("<style>(.*?)</style>", re.DOTALL)
    assert "#ranking" in style.search(page(past()))[1]
