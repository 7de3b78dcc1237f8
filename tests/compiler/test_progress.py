"""Progress bars are for terminals only."""

from __future__ import annotations

import io

import pytest

from compiler.progress import LOOK, counter, note, steps, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), False), (Terminal(), True)])
def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, stream, shown):
    monkeypatch.setattr("sys.stderr", stream)
    assert list(track(iter(range(30)), "blocks", " layers", total=30)) == list(range(30))
    assert ("blocks" in stream.getvalue()) == ("/30" in stream.getvalue()) == shown


@pytest.mark.parametrize(("stream", "shown"), [(io.StringIO(), ""), (Terminal(), "read model\n")])
def test_a_note_is_for_a_terminal_only(monkeypatch, stream, shown):
    monkeypatch.setattr("sys.stderr", stream)
    note("read model")
    assert stream.getvalue() == shown


def test_some_may_be_done_at_a_time(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setitem(LOOK, "mininterval", 0)
    with counter("search", 100, " instructions") as done:
        done(40)
    assert "40/100" in stream.getvalue()


def test_time_left_is_by_what_each_step_takes(monkeypatch):
    """After the first step, which takes three eighths."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with steps("compile", [3.0, 5.0]) as done:
        done()
        done()
    assert "compile:  38%" in stream.getvalue()
