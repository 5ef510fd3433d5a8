"""Who is told what came of a night, and that nobody who cannot be told changes it."""

import json
import logging
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sparkrec.config import NotifySettings, RetrainSettings
from sparkrec.configfile import validate
from sparkrec.errors import ConfigError, InputError, Refused
from sparkrec.secrets import masked
from sparkrec.stages.retraining import notifying
from sparkrec.stages.retraining.notifying import notify
from sparkrec.stages.retraining.retrain import Retraining, not_begun

SECRET = "T024/B057/hunter2"


@pytest.fixture(autouse=True)
def _no_time_to_lose(monkeypatch):
    monkeypatch.setattr(notifying, "_PAUSE", 0.0)
    monkeypatch.setattr(notifying, "_PATIENCE", 0.3)
    monkeypatch.setattr(notifying, "_COMMAND_PATIENCE", 0.5)


@contextmanager
def server(*answers):
    """A server on loopback that gives these answers, the last one again and again: a status, or None, which is none.
    Its address, and what it was sent."""
    sent, ended = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = answers[min(len(sent), len(answers)) - 1]
            if answer is None:
                ended.wait(10)
                return
            self.send_response(answer)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/{SECRET}", sent
    finally:
        ended.set()
        listening.shutdown()
        thread.join()
        listening.server_close()


def a_night(**more):
    night = Retraining("shop", "promoted", "ndcg@5 +0.1", "shop-als@1", "shop-als@1", "shop@2", exit_code=0)
    night.metrics = {"checks_volume": float("nan"), "challenger_coverage@5": 1.0, "champion_coverage@5": 1.0}
    night.metrics |= {"challenger_ndcg@5": 0.4, "champion_ndcg@5": 0.3}
    night.seconds = {"train": 20.4, "gate": 21.2}
    for key, value in more.items():
        setattr(night, key, value)
    return night


def test_a_night_is_posted_as_json_with_a_text_for_people():
    with server(200) as (url, sent):
        a_night().conclude([NotifySettings(webhook=url)])
    (told,) = sent
    assert told["text"] == (
        "shop: promoted (ndcg@5 +0.1); ndcg@5 0.4000, of the champion 0.3000; champion shop-als@1; "
        "challenger shop-als@1; 42 s"
    )
    assert {key: told[key] for key in ("name", "outcome", "reason", "champion", "challenger", "exit_code")} == {
        "name": "shop",
        "outcome": "promoted",
        "reason": "ndcg@5 +0.1",
        "champion": "shop-als@1",
        "challenger": "shop-als@1",
        "exit_code": 0,
    }
    assert told["metrics"]["checks_volume"] is None
    assert told["metrics"]["challenger_ndcg@5"] == 0.4
    assert told["seconds"] == {"train": 20.4, "gate": 21.2}
    assert told["at"].endswith("+00:00")


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (Refused("'shop' is held by another"), "refused", 5),
        (InputError("volume is 0.1"), "failed", 1),
        (OSError("disk full"), "failed", 75),
        (ZeroDivisionError("one\nand two"), "failed", 70),
    ],
)
def test_a_night_that_did_not_begin_is_told_with_its_exit_code_in_one_line(error, outcome, code, caplog):
    raw = {"lake": "lake", "name": "shop", "prepare": "prepare.yaml", "train": "train.yaml"}
    with server(200) as (url, sent), caplog.at_level(logging.INFO):
        not_begun(validate(RetrainSettings, {**raw, "notify": [{"webhook": url}]}, "test"), error)
    (told,) = sent
    assert (told["outcome"], told["exit_code"]) == (outcome, code)
    assert told["reason"] == f"{type(error).__name__}: {error}"
    assert told["text"] == f"shop: {outcome} ({' '.join(told['reason'].split())}); 0 s"
    assert [record.getMessage() for record in caplog.records] == [told["text"]]


def test_everybody_is_told_of_the_outcomes_that_they_asked_for(tmp_path):
    program = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
    command = [sys.executable, "-c", program, str(tmp_path / "told")]
    targets = [
        NotifySettings(command=["no-such-program"]),
        NotifySettings(command=command),
        NotifySettings(command=command, outcomes=["unchanged", "failed"]),
    ]
    for outcome in ("promoted", "unchanged", "failed"):
        notify(targets, {"outcome": outcome})
    told = [json.loads(line)["outcome"] for line in (tmp_path / "told").read_text().splitlines()]
    assert told == ["promoted", "unchanged", "failed", "failed"]


@pytest.mark.parametrize(
    ("answers", "times", "said"),
    [
        ((500, 429, 200), 3, None),
        ((500,), 3, "HTTP Error 500"),
        ((None,), 3, "timed out"),
        ((404,), 1, "HTTP Error 404"),
        ((302,), 1, "HTTP Error 302"),
    ],
)
def test_a_webhook_that_fails_is_tried_again_where_that_may_help_and_else_warned_of(answers, times, said, caplog):
    with server(*answers) as (url, sent):
        notify([NotifySettings(webhook=url)], {"outcome": "kept"})
    assert len(sent) == times
    assert [record.levelname for record in caplog.records] == ([] if said is None else ["WARNING"])
    if said is not None:
        assert "the webhook on 127.0.0.1 was not told what came of the night: " in caplog.text
        assert said in caplog.text
    assert SECRET not in caplog.text


def test_a_webhook_where_nobody_listens_is_warned_of(caplog):
    with server(200) as (url, _):
        pass
    notify([NotifySettings(webhook=url)], {"outcome": "kept"})
    assert "refused" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('no such list', file=sys.stderr); sys.exit(4)", "exit code 4, no such list"),
        ("import time; time.sleep(10)", "it did not end in 0.5 seconds"),
        ("import sys; sys.stdin.close()", None),
    ],
)
def test_a_command_that_fails_or_hangs_is_warned_of(program, said, caplog):
    command = [sys.executable, "-c", program, SECRET]
    notify([NotifySettings(command=command)], {"outcome": "failed", "text": "x" * 2**20})
    assert (said or "") in caplog.text
    assert SECRET not in caplog.text
    assert bool(caplog.records) == (said is not None)


def test_the_address_of_a_webhook_is_masked_as_a_secret():
    raw = {"lake": "lake", "name": "shop", "prepare": "prepare.yaml", "train": "train.yaml"}
    settings = validate(RetrainSettings, {**raw, "notify": [{"webhook": f"https://a.example/{SECRET}"}]}, "test")
    assert SECRET in str(settings.model_dump(mode="json"))
    assert SECRET not in str(masked(settings.model_dump(mode="json")))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "found both or neither of webhook and command"),
        (
            {"webhook": f"https://a.example/{SECRET}", "command": ["mail"]},
            "found both or neither of webhook and command",
        ),
        ({"webhook": f"ftp://a.example/{SECRET}"}, "notify.0.webhook: String should match pattern"),
        ({"webhook": f"https://ann:{SECRET}@a.example"}, "notify.0.webhook: String should match pattern"),
        ({"command": []}, "notify.0.command: List should have at least 1 item"),
        ({"command": ["mail"], "outcomes": ["well"]}, "notify.0.outcomes.0: Input should be 'promoted', 'kept'"),
    ],
)
def test_a_wrong_entry_says_what_is_expected_and_not_the_address(entry, said):
    raw = {"lake": "lake", "name": "shop", "prepare": "prepare.yaml", "train": "train.yaml", "notify": [entry]}
    with pytest.raises(ConfigError) as raised:
        validate(RetrainSettings, raw, "test")
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)
