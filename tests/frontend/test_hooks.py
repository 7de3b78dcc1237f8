"""Attention, masks, experts and caches of transformers, as they are recorded."""

from __future__ import annotations

import pytest

from compiler.ir.module import walk
from dialects import llm
from frontend import hooks
from frontend.hooks import mask_kind
from frontend.importer import import_model
from tests.frontend.models import QWEN3, check_refused, config, signature


@pytest.fixture(scope="module")
def qwen3():
    return import_model(QWEN3, 24, 16)


def test_a_prompt_sees_what_came_before_and_a_step_what_the_client_says(qwen3):
    """The history is padded: which of its tokens are there, only the client's mask knows."""
    for function in (f for group in qwen3.nets if group.of_layers for f in group.module.functions()):
        kinds = {op.visible.kind for op in walk(function) if isinstance(op, llm.AttentionOp)}
        assert kinds == {"causal" if function.sym_name == "block" else "masked"}


def test_window_as_long_as_the_sequence_is_a_causal_mask():
    assert "first_key" not in import_model(config("mistral", sliding_window=16), 16).tables


def test_a_window_is_a_table_of_first_keys_for_the_runs_that_are_longer():
    model = import_model(config("mistral", sliding_window=16), 20, 8)
    assert model.tables["first_key"][:, 0].tolist() == [0] * 16 + [1, 2, 3, 4]
    hidden = {
        function.sym_name: [op for op in walk(function) if isinstance(op, llm.HideBeforeOp)]
        for group in model.nets
        if group.of_layers
        for function in group.module.functions()
    }
    assert not hidden["block"]
    assert len(hidden["block_cache"]) == 1


def test_layers_with_windows_and_without_are_distinct():
    """Both are alike to a prompt of 8 tokens, and have the same graph in decode: only their masks differ."""
    layers = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    settings = {"num_hidden_layers": 4, "sliding_window": 16, "head_dim": 16}
    model = import_model(config("gemma2", layer_types=layers, **settings), 20, 8)
    groups = [[each.layer for each in group.instances] for group in model.nets if group.of_layers]
    assert groups == [[0, 2], [1, 3]]


LATENT = config(
    "deepseek_v3", q_lora_rank=32, kv_lora_rank=24, qk_nope_head_dim=24, qk_rope_head_dim=8, v_head_dim=16,
    num_key_value_heads=4, first_k_dense_replace=3,
)  # fmt: skip


def test_what_attention_reads_is_kept_where_the_model_keeps_less():
    """Latents of all heads: the client is given keys of each, and values that are filled up to their width."""
    model = import_model(LATENT, 24, 16)
    assert signature(model, "block_cache_0").endswith("(tensor<1x1x64xbf16>, tensor<1x1x4x32xbf16>, tensor<1x1x4x32xbf16>)")
    function = model.find("block_cache_0")[1]
    (attention,) = (op for op in walk(function) if isinstance(op, llm.AttentionOp))
    assert attention.v.type.shape == (1, 4, 25, 16)
    assert all(value.defining(llm.KvConcatOp) for value in (attention.k, attention.v))
    assert sum(isinstance(op, llm.PadOp) for op in walk(function)) == 2


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
    "chunks of 8": lambda batch, head, query, key: (key <= query) & (key // 8 == query // 8),
    "custom": lambda batch, head, query, key: (key <= query) & (key // 8 >= query // 8 - 1),
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
