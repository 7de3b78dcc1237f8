"""Where tokens and positions meet before the first layer, and which net that is in."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.ir.module import walk
from dialects import llm
from frontend.graph import Constant, Node
from frontend.importer import import_model
from frontend.tables import Positions, Tables
from tests.frontend.models import check_refused, config, layers_of, signature
from tests.frontend.oracle import Subject

OPT = {"ffn_dim": 96, "word_embed_proj_dim": 64}
TOLERANCE = 1e-5


def ops(model, net, kind):
    return [op for op in walk(model.find(net)[1]) if isinstance(op, kind)]


def test_rows_of_learned_positions_are_added_in_the_first_block():
    model = import_model(config("opt", **OPT), 16)
    assert layers_of(model) == [[0], [1, 2]]
    assert len(ops(model, "embedding", llm.AddOp)) == 0
    for net in ("block_0", "block_cache_0"):
        (rows,) = ops(model, net, llm.GatherRowsOp)
        part = rows.table.defining(llm.SliceWeightsOp)
        assert (part.start, part.stop) == (2, 18)
        assert part.weight.owner.name == "/model.decoder.embed_positions.weight"
    assert not ops(model, "block_1", llm.GatherRowsOp)


def test_layers_without_positions_before_them_are_alike():
    assert layers_of(import_model(config("llama"), 16)) == [[0, 1, 2]]


def test_what_is_made_of_tokens_alone_stays_with_the_embedding():
    model = import_model(config("opt", **OPT | {"word_embed_proj_dim": 32}), 16)
    assert len(ops(model, "embedding", llm.LinearOp)) == 1
    assert signature(model, "embedding").endswith("tensor<1x16x64xbf16>")


def test_the_head_takes_a_state_as_wide_as_the_others():
    model = import_model(config("opt", **OPT | {"word_embed_proj_dim": 32}), 16)
    assert signature(model, "lm_head").startswith("(tensor<1x64xbf16>)")
    assert len(ops(model, "lm_head", llm.LinearOp)) == 2


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("opt", OPT),
        ("opt", OPT | {"word_embed_proj_dim": 32, "do_layer_norm_before": False}),
        ("biogpt", {}),
        ("gpt_bigcode", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}),
        ("gpt2", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64}),
        ("ctrl", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "dff": 96}),  # sines, not learned
    ],
)
def test_import_computes_what_the_model_computes(model_type, settings):
    subject = Subject.make(model_type, **settings)
    assert subject.error() < TOLERANCE
    assert subject.fuse().error() < TOLERANCE


def test_another_first_row_is_noticed():
    subject = Subject.make("opt", **OPT)
    for net in ("block_0", "block_cache_0"):
        (rows,) = ops(subject.imported, net, llm.SliceWeightsOp)
        rows.start, rows.stop = rows.start - 1, rows.stop - 1
    assert subject.error() > 100 * TOLERANCE


@pytest.mark.parametrize("first", [0, 2])
def test_positions_are_known_whatever_they_are_counted_from(first):
    runs = [np.arange(5)[None] + first, np.array([[7]]) + first, np.arange(8)[None] + first, np.arange(2)[None] + first]
    nodes = [[Node("constant", (Constant(run),))] for run in runs]
    assert Tables().uses(nodes, 7) == [Positions(first, 8)]


def test_more_positions_than_rows_are_refused():
    check_refused(config("opt", **OPT, max_position_embeddings=8), "18 rows of positions are needed, of 10")
