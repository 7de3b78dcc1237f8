"""Stages of decode: the tokens of a conversation that grows out of them, and what they share."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from runtime_sim.launch.session import Session, history_rows
from tests.end_to_end.reference import greedy
from tests.end_to_end.tiny import ROUNDING, SUMMING, Tiny, check_close

PROMPT = np.random.default_rng(5).integers(0, 1024, 13).tolist()
COUNT = 26  # tokens; the first steps are in a stage of 16, then 32, then all 64
CHUNK = {"chunk_length": 16}

VARIANTS = {  # family, changes to the checkpoint, changes to the options
    "qwen2": ("qwen2", {}, {}),
    "windows shorter than a stage": ("mistral", {"layers": 1, "sliding_window": 12}, {}),
    "windows longer than a stage": ("mistral", {"layers": 1, "sliding_window": 20, "seed": 4}, {}),
    "short prefill": ("qwen3", {"layers": 1}, {"max_input_length": 20}),
    "the client looks up the embedding": ("qwen3", {"layers": 1}, {"embedding_disk": True}),
    "stages that do not divide the whole": ("llama", {"layers": 1}, {"seq_length": 50, "chunk_length": 17}),
    "rows of lanes that are not full": (
        "llama",
        {"layers": 1, "heads": 5, "kv_heads": 1, "head_dim": 50, "hidden": 250},
        {"chunk_length": 9},
    ),
}


def staged(tiny, variant: str, mode: str = "bf16") -> Tiny:
    family, checkpoint, options = VARIANTS[variant]
    return tiny(family, mode, checkpoint, CHUNK | options)


def session_of(model: Tiny) -> Session:
    table = model.path.parent / "config" / "embedding.bin"
    if not model.options.embedding_disk:
        return Session(model.runtime)
    state = model.runtime.net("block_cache_0").inputs[0].array
    return Session(model.runtime, np.fromfile(table, state.dtype).reshape(-1, state.shape[-1]))


@pytest.mark.parametrize("variant", VARIANTS)
def test_tokens_over_borders_are_those_of_hugging_face(tiny, variant):
    model = staged(tiny, variant)
    session = session_of(model)
    rows = [history_rows(session.stage_for(row)[0]) for row in range(len(PROMPT), len(PROMPT) + COUNT - 1)]
    assert len(set(rows)) == 3
    tokens = list(itertools.islice(session.stream(PROMPT), COUNT))
    assert tokens == greedy(model.options.model_path, PROMPT, COUNT)


@pytest.mark.parametrize("variant", ["qwen2", "windows shorter than a stage", "rows of lanes that are not full"])
def test_every_level_of_a_stage_computes_the_same(tiny, variant):
    model = staged(tiny, variant)
    stages = [net for name, net in model.nets.items() if name.startswith("block_cache_0.")]
    assert [net.stages["llm"].function_type.inputs[3].shape[1] for net in stages] == (
        model.options.shorter_histories
    )
    for net in stages:
        inputs = model.inputs(net)
        found = [model.run(net, level, inputs) for level in ("llm", "tensor", "chip", "placed", "file")]
        check_close(net, found[-1], found[0], ROUNDING)
        check_close(net, found[-1], found[1], SUMMING)
        for ours, theirs in zip(found[-1], found[-2], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", ["bf16", "w4bf16"])
def test_a_step_is_the_same_in_every_stage_that_holds_it(tiny, mode):
    """What is behind the tokens so far is masked, and counts as much as what is not there."""
    model = staged(tiny, "qwen2", mode)
    session = Session(model.runtime)
    tokens = list(itertools.islice(session.stream(PROMPT), 3))
    row, found = session.length - 1, []
    for caches in session.stages:
        session.length = row
        session.stage_for = lambda _, caches=caches: caches  # type: ignore[method-assign]
        found.append(session.decode(tokens[1]).copy())
    assert history_rows(session.stages[-1][0]) == 16
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_stages_share_weights_and_memory(tiny):
    """One blob, as large as without them but for what counts the tokens; one place for the history."""
    model, plain = staged(tiny, "qwen2", "w4bf16"), tiny("qwen2", "w4bf16")
    for name in ("block_cache_0", "block_cache_1"):
        net = model.runtime.program.bmodel.net(name)
        assert len({stage.coeff.check_code for stage in net.stages} | {block_code(model, name)}) == 1
        size = plain.runtime.program.bmodel.net(name).stages[0].coeff.size
        assert size <= net.stages[0].coeff.size <= 1.01 * size
        places = [[each.address for each in (*stage.inputs, *stage.outputs)] for stage in net.stages]
        assert places == [places[0]] * 3
        assert len({(stage.io_address, stage.io_size) for stage in net.stages}) == 1


def block_code(model: Tiny, name: str) -> bytes:
    """The hash of the weights of the same layer's prefill."""
    code: bytes = model.runtime.program.bmodel.net(name.replace("_cache", "")).stages[0].coeff.check_code
    return code
