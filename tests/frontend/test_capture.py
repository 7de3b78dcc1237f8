"""Runs of a model with its layers cut out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from compiler.diagnostics import UserError
from frontend.build import native_model
from frontend.capture import capture_model, find_layers
from tests.frontend.models import check_refused, config

REFUSED = {
    "state space": (config("mamba"), r"cannot trace the model: .* in backbone\.layers\.0"),
    "two streams": (config("gemma4_text"), r"model\.layers\.0 takes 2 computed values, expected one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_understood_is_refused_by_name(case):
    check_refused(*REFUSED[case])


LAYERS = [f"model.layers.{index}" for index in range(3)]


@pytest.fixture(scope="module")
def llama():
    return native_model(config("llama"), 8)


@pytest.mark.parametrize(("tokens", "history"), [(5, 0), (1, 7)])
def test_layers_are_cut_out_of_the_run(llama, tokens, history):
    run = capture_model(llama, tokens, history, history)
    assert [layer.path for layer in run.layers] == LAYERS
    assert [node.path for node in run.graph.nodes if node.name == "llm.layer"] == LAYERS
    assert run.logits.shape == (1, tokens, 128)
    for before, after in pairwise(run.layers):
        assert after.given is before.result
    roles = ["hidden", "mask", *(["history_k", "history_v"] if history else [])]
    for layer in run.layers:
        given = {node.args[0]: node.results[0].shape for node in layer.graph.nodes if node.name == "input"}
        assert sorted(given) == sorted(roles)
        assert given["mask"] == (1, 1, tokens, history + tokens)
        assert [value.shape for value in layer.graph.outputs] == [(1, tokens, 64), *[(1, 2, tokens, 16)] * 2]


def test_a_run_leaves_the_model_as_it_was(llama):
    capture_model(llama, 4)
    assert not any("forward" in vars(layer) for layer in llama.model.layers)
    assert all(type(parameter) is nn.Parameter for parameter in llama.parameters())


def test_a_run_leaves_torch_its_threads(llama):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        capture_model(llama, 4)
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_a_model_without_a_list_of_its_layers_is_refused(llama, monkeypatch):
    monkeypatch.setattr(llama.config, "num_hidden_layers", 4)
    with pytest.raises(UserError, match="no list of 4 decoder layers"):
        find_layers(llama)
