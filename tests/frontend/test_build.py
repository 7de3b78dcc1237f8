"""Models that cannot be built, and settings that do not matter to one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compiler.diagnostics import UserError
from compiler.ir.printer import print_module
from frontend.build import native_model
from frontend.importer import import_model
from tests.frontend.models import check_refused, config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rope_scaling": {"type": "mrope"}},
            r"rope_scaling.type is 'mrope', which is unknown\nknown: default, ",
        ),
        (
            {"rope_parameters": {"rope_type": "su"}},
            r"rope_parameters.rope_type is 'su', which is unknown\nknown: ",
        ),
        ({"hidden_act": "swiglu"}, r"hidden_act is 'swiglu', which is unknown\nknown: .*gelu"),
    ],
)
def test_words_that_the_library_does_not_know_are_named_by_key(settings, message):
    with pytest.raises(UserError, match=message):
        native_model(config("llama", **settings), 8)


@pytest.mark.parametrize(("model_type", "positions"), [("gpt_bigcode", 10**5), ("codegen", 10**8)])
def test_buffers_that_would_fill_memory_are_refused(model_type, positions):
    settings = config(model_type, n_positions=positions)
    del settings["max_position_embeddings"]
    with pytest.raises(UserError, match=r"cannot build the \w+ model: it keeps \d+ numbers beside its weights"):
        native_model(settings, 8)


def test_keys_of_classifiers_and_of_calls_do_not_matter():
    asked = {
        "num_labels": 10**9,
        "id2label": [1],
        "problem_type": "x",
        "return_dict": False,
        "use_cache": False,
    }
    model = import_model(config("llama", **asked, output_hidden_states=True, output_attentions=True), 8)
    plain = import_model(config("llama"), 8)
    for ours, theirs in zip(model.nets, plain.nets, strict=True):
        assert print_module(ours.module) == print_module(theirs.module)


REFUSED = {
    "own attention": (config("gptj"), r"gptj model: its attention does not use the library's"),
    "unknown type": (config("llamma"), r"unknown model_type 'llamma'"),
    "bad value": (config("llama", num_attention_heads=5), r"cannot build the llama model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])


def test_parameters_have_no_memory_and_buffers_are_computed():
    model = native_model(config("llama"), 8)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    (frequency,) = {name: buffer for name, buffer in model.named_buffers() if "original" not in name}.values()
    exact = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    torch.testing.assert_close(frequency, exact)
    assert not model.training
    assert nn.Linear(2, 2).weight.device.type == "cpu"  # modules built later are as usual
