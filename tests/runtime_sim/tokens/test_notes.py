"""What a compilation says of a checkpoint's tokenizer."""

import logging

import pytest

from runtime_sim.tokens.notes import tokenizer_noted
from tests.runtime_sim.tokens import layouts

pytestmark = pytest.mark.usefixtures("forked_tokenizers")


@pytest.fixture
def notes(caplog, tmp_path):
    def call(rows):
        with caplog.at_level(logging.WARNING), tokenizer_noted(tmp_path, rows):
            pass
        return [record.getMessage() for record in caplog.records]

    return call


def test_tokens_without_a_row_are_counted_and_the_first_is_named(notes, tmp_path):
    layouts.names_in_a_map(tmp_path)
    assert notes(1000) == []
    size = 256 + len(layouts.BYTE_MERGES)
    wanted = (
        f"the tokenizer has 2 tokens for which the embedding ({size} rows) has no row, first {size} ('<s>')"
    )
    assert notes(size) == [wanted]


def test_no_tokenizer(notes):
    (note,) = notes(10)
    assert "has no tokenizer (tokenizer.json)" in note
    assert note.endswith("; chat will not work")


def test_a_tokenizer_that_cannot_be_loaded(notes, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    (note,) = notes(10)
    assert "it has no tokenizer.json, only a form" in note


def test_an_error_of_the_work_is_all_that_is_said(caplog, tmp_path):
    layouts.names_in_a_map(tmp_path)
    with pytest.raises(ZeroDivisionError), tokenizer_noted(tmp_path, 10):
        1 / 0  # noqa: B018
    assert caplog.records == []
