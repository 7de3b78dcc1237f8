"""Programs in which attention streams, against those in which it does not and against Hugging Face in float32."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from dialects import tensor
from driver.pipelines import Effort, default_pipeline
from passes.options import ByFunction
from runtime_sim.launch.session import Session
from tests.end_to_end.reference import greedy
from tests.end_to_end.tiny import ROUNDING, check_close

PROMPT = np.random.default_rng(4).integers(0, 1024, 170).tolist()
COUNT = 4  # one of prefill, three of decode

MODELS = {  # family, mode, changes to the checkpoint, tokens at once, keys at once
    "queries in rows of lanes": ("qwen3", "bf16", {"layers": 1}, 64, 64),
    "blocks that take keys of several runs": ("llama", "bf16", {"layers": 1}, 64, 128),
    "runs that hold several blocks": ("qwen2", "bf16", {"layers": 1, "heads": 6, "kv_heads": 1}, 128, 64),
    "a window that skips blocks": ("mistral", "bf16", {"layers": 1, "sliding_window": 70}, 64, 64),
    "codes of 4 bits": ("llama", "w4bf16", {"layers": 1}, 64, 64),
    "16 bits of the other kind": ("llama", "f16", {"layers": 1, "dtype": "float16"}, 64, 64),
}


@pytest.fixture
def streamed(tiny):
    """A model, and the same with attention in blocks."""

    def make(name):
        family, mode, checkpoint, tokens, keys = MODELS[name]
        lengths = {"seq_length": 230, "max_input_length": 190}
        whole = tiny(family, mode, checkpoint, lengths)
        pipeline = default_pipeline(replace(whole.options, passes=None), ByFunction(Effort(tokens, keys=keys)))
        return whole, tiny(family, mode, checkpoint, lengths | {"passes": pipeline})

    return make


@pytest.mark.parametrize("name", MODELS)
def test_blocks_of_keys_give_what_all_at_once_give(streamed, name):
    whole, model = streamed(name)
    for net in ("block_0", "block_cache_0"):
        inputs = whole.inputs(whole.nets[net])
        shown = (inputs[2][0, 0] == 0).any(-1)  # what others give is only finite
        assert 0 < np.count_nonzero(~shown) < 10 or net == "block_cache_0"
        wanted = whole.run(whole.nets[net], "llm", inputs)
        for stage in ("tensor", "file"):
            found = model.run(model.nets[net], stage, inputs)
            assert all(np.isfinite(each.astype(np.float32)).all() for each in found)
            used = ([each[:, shown] for each in outputs] for outputs in (found, wanted))
            check_close(model.nets[net], *used, ROUNDING)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model[1] != "w4bf16"])
def test_tokens_are_those_of_hugging_face(streamed, name):
    _, model = streamed(name)
    tokens = list(itertools.islice(Session(model.runtime).stream(PROMPT), COUNT))
    assert tokens == greedy(model.options.model_path, PROMPT, COUNT)


def test_keys_and_values_are_read_from_where_they_are_stored(streamed):
    """The only stores are of results; what is loaded of those is keys and values of earlier runs."""
    _, model = streamed("queries in rows of lanes")
    function = model.nets["block_0"].stages["tensor"]
    stores = [op for op in function.block.ops if isinstance(op, tensor.StoreOp)]
    assert len(stores) == 3 * 3  # states, keys and values of three runs
    read = [op for op in stores if any(not isinstance(user, tensor.ConcatOp) for user in op.stored.users)]
    assert len(read) == 2 * 2  # of the first two
