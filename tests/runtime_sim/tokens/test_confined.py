"""A process within limits: what it answers, how it fails, and what ends it."""

from __future__ import annotations

import pytest

from runtime_sim.tokens import confined
from runtime_sim.tokens.confined import Confined, Limits, Refused

LIMITS = Limits(seconds=1, megabytes=256)


def started(argument: str = "a", **environment: str) -> Confined:
    return Confined("tests.runtime_sim.tokens.misbehaving", argument, LIMITS, LIMITS, **environment)


def test_answers_come_in_order_from_one_object():
    process = started("made of this", COLOUR="blue")
    assert process.answer() is None
    assert process.ask("echo", 1, "zwei", [3]) == ["made of this", 1, "zwei", [3]]
    assert process.ask("setting", "COLOUR") == "blue"


def test_a_failure_is_one_printable_line_and_not_the_end():
    process = started()
    process.answer()
    for text, message in (("two\nlines\x1b[2J", r"two lines\x1b[2J"), ("word", "KeyError: 'word'"), ("1 " * 300, "1 " * 100)):
        with pytest.raises(Refused) as caught:
            process.ask("fail", text)
        assert str(caught.value) == message
    with pytest.raises(Refused, match="it needs more than 256 MB"):
        process.ask("fill")
    assert process.ask("echo") == ["a"]


@pytest.mark.parametrize(
    ("method", "message"),
    [("compute", "it takes more than 1 s"), ("vanish", "it crashes, or needs more than 256 MB")],
)
def test_a_process_that_ends_says_why_and_answers_no_more(method, message):
    process = started()
    process.answer()
    for name in (method, "echo"):
        with pytest.raises(Refused, match=message):
            process.ask(name)


def test_what_is_not_made_is_told_at_once():
    with pytest.raises(Refused, match="it does not start"):
        started("no start").answer()


def test_one_that_does_not_answer_is_killed(monkeypatch):
    monkeypatch.setattr(confined, "ANSWER_SECONDS", 0)
    with pytest.raises(Refused, match="it takes more than 0 s, or was killed"):
        started().answer()
