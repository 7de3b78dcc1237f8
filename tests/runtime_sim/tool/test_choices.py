"""Which tokens may choose other experts when states are off by a little."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from runtime_sim.tool.choices import Choices, changeable, mixtures_in

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "vocab_size": 64,
}


def model(model_type="mixtral"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **SIZES)).eval()


def test_only_tokens_near_a_tie_may_choose_others():
    mixture, experts = next(mixtures_in(model().model.layers[0]))
    with torch.no_grad():
        mixture.gate.weight[...] = torch.eye(4, 64)
    states = torch.zeros(1, 3, 64)
    states[0, :, :4] = torch.tensor([[4.0, 3.0, 1.0, 0.0], [4.0, 3.0, 2.999, 0.0], [4.0, 3.999, 1.0, 0.0]])
    assert changeable(mixture, experts, (states,)).tolist() == [False, True, False]


def test_a_run_is_watched_layer_by_layer_and_computes_the_same():
    watched = model()
    choices = Choices(watched.model.layers)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = watched(input_ids=ids).logits
        handles = choices.hooks()
        after = watched(input_ids=ids).logits
    assert len(handles) == 2
    assert torch.equal(before, after)
    assert [choices.decided(layer, 20).shape for layer in (0, 1)] == [(20,), (20,)]


def test_models_without_experts_are_decided():
    assert [*mixtures_in(model("llama").model.layers[0])] == []
    assert Choices([]).decided(0, 5).tolist() == np.ones(5, bool).tolist()
