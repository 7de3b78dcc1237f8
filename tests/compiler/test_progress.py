"""Progress bars are for terminals only."""

from __future__ import annotations

import io

import pytest

from compiler.progress import note, track


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
