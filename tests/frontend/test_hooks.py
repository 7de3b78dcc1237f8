"""Attention, masks, experts and caches of transformers, as they are recorded."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from compiler.ir.module import walk
from dialects import llm
from frontend import hooks
from frontend.hooks import mask_kind
from frontend.importer import import_model
from tests.frontend.models import QWEN3, check_refused, config


@pytest.fixture(scope="module")
def qwen3():
    return import_model(QWEN3, 24, 16)


def test_a_prompt_sees_what_came_before_and_a_step_what_the_client_says(qwen3):
    """The history is padded: which of its tokens are there, only the client's mask knows."""
    for function in (f for group in qwen3.nets if group.of_layers for f in group.module.functions()):
        kinds = {op.visible.kind for op in walk(function) if isinstance(op, llm.AttentionOp)}
        assert kinds == {"causal" if function.sym_name == "block" else "masked"}


def test_window_as_long_as_the_sequence_is_a_causal_mask():
    assert import_model(config("mistral", sliding_window=16), 16).nets
    with pytest.raises(UserError, match="sliding window of 16"):
        import_model(config("mistral", sliding_window=16), 17, 8)


REFUSED = {
    "linear attention": (config("qwen3_next"), r"keeps state that is not keys and values .*\.linear_attn"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])


MASKS = {
    "causal": lambda batch, head, query, key: key <= query,
    "full": lambda batch, head, query, key: True,
    "sliding window of 5": lambda batch, head, query, key: (key <= query) & (key > query - 5),
    "custom": lambda batch, head, query, key: (key <= query) & (key // 8 == query // 8),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_is_known_by_its_function(monkeypatch, kind):
    assert mask_kind(MASKS[kind], 19) == kind
    monkeypatch.setattr(hooks, "ROWS_AT_ONCE", 6)
    assert mask_kind(MASKS[kind], 19) == kind


@pytest.mark.parametrize("row", [0, 11, 18])
def test_one_row_that_differs_makes_a_mask_its_own(monkeypatch, row):
    monkeypatch.setattr(hooks, "ROWS_AT_ONCE", 6)
    odd = lambda batch, head, query, key: (key <= query) ^ ((query == row) & (key == 1))  # noqa: E731
    assert mask_kind(odd, 19) == "custom"
