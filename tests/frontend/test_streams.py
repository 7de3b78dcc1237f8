"""Models whose tokens have several positions each: which column of a table follows which of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from compiler.diagnostics import UserError
from dialects import llm
from frontend.streams import FAR, streams_of, told_apart
from tests.frontend.oracle import COUNTED, PROMPT, SEQ_LENGTH, SMALL, Subject, ops_of

TOLERANCE = 1e-5  # of the largest logit
VISION = {"depth": 1, "num_hidden_layers": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64}
SECTIONS = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SEEING = {
    "qwen2_5_vl": {},
    "qwen2_vl": {},
    "qwen3_vl": {"head_dim": 16},  # streams take turns, column by column
    "glm4v": {},  # neighbours turn together
    "hunyuan_vl": {"head_dim": 16},  # sections of both halves at once
    "glm_ocr": {"head_dim": 16},
    "paddleocr_vl": {"head_dim": 16},
    "qwen3_vl_moe": {"head_dim": 16, **EXPERTS, "decoder_sparse_step": 1},
    "glm4v_moe": {  # a part of each head
        **EXPERTS, "head_dim": 32, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 0,
        "rope_parameters": SECTIONS | {"partial_rotary_factor": 0.5},
    },
    "ernie4_5_vl_moe": {  # height and width take turns, and time has the rest
        "head_dim": 16, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": [32, 32],
        "rope_parameters": SECTIONS | {"mrope_section": [3, 3, 2]},
    },
}


def turned(positions: np.ndarray, numbers: list[int]) -> np.ndarray:
    """Cosines [tokens, columns], each column by the stream of that number."""
    speeds = 5e6 ** -(np.arange(len(numbers)) / len(numbers))
    return np.cos(positions[numbers].T * speeds)


def test_a_token_at_a_time_is_far_away_in_one_stream():
    positions = told_apart(3)
    assert positions.shape == (3, 1 + 3 * len(FAR))
    assert not positions[:, 0].any()
    assert (np.count_nonzero(positions[:, 1:], axis=0) == 1).all()


@pytest.mark.parametrize("numbers", [[0] * 6, [0, 1, 1, 2, 0, 1], [2, 1, 0] * 20 + [2] * 4])
def test_each_column_follows_one_stream(numbers):
    found = streams_of(turned(told_apart(3), numbers), "layer")
    assert np.repeat(found.numbers, found.widths).tolist() == numbers
    assert found.axis == 0


def test_columns_that_follow_no_stream_or_two_are_refused():
    positions = told_apart(2)
    rows = turned(positions, [0, 1, 1])
    rows[:, 2] = np.cos(positions.sum(axis=0) * 1e-3)
    with pytest.raises(UserError, match=r"column 2 of a constant follows 2 of 2 streams.*, in layer\.3"):
        streams_of(rows, "layer.3")
    rows[:, 1:] = 1
    with pytest.raises(UserError, match="column 1 of a constant follows 0 of 2 streams"):
        streams_of(rows, "layer.3")


def three_positions() -> np.ndarray:
    """Text, a picture of two rows of three, and text that goes on behind its largest number; [3, tokens]."""
    text, rest = np.arange(3), np.arange(6, 6 + PROMPT - 8)
    time, height, width = np.full(6, 3), np.repeat([3, 4], 3), np.tile([3, 4, 5], 2)
    return np.stack([np.concatenate([text, each, rest]) for each in (time, height, width)])


@pytest.fixture(scope="module", params=SEEING)
def seeing(request):
    text = {**SMALL, "num_hidden_layers": 2, "rope_parameters": SECTIONS, **SEEING[request.param]}
    return Subject.of({"model_type": request.param, "text_config": text, "vision_config": VISION})


def test_windows_of_tokens_with_several_positions_are_refused():
    text = {**SMALL, "rope_parameters": SECTIONS, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    with pytest.raises(UserError, match="a sliding window of 8 among positions of 3 streams"):
        Subject.of({"model_type": "qwen2_5_vl", "text_config": text, "vision_config": VISION})


def test_tokens_turn_by_all_their_positions(seeing):
    """Which of a picture's tokens stand where is up to the client, so any numbers are right."""
    assert seeing.error(np.repeat(COUNTED, 3, axis=0)) < TOLERANCE
    assert seeing.error(three_positions()) < TOLERANCE
    assert seeing.error(np.random.default_rng(0).integers(0, SEQ_LENGTH, (3, PROMPT + 1))) < TOLERANCE


def test_a_stream_that_is_mistaken_is_noticed(seeing):
    mutant = seeing.copy()
    for op in ops_of(mutant, llm.GatherRowsOp):
        numbers = tuple(2 if number == 1 else number for number in op.streams.numbers)
        op.streams = replace(op.streams, numbers=numbers)
    assert mutant.error(three_positions()) > 100 * TOLERANCE
