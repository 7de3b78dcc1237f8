"""What classes of experts compute, found by running their own code."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.integrations.moe import use_experts_implementation

from frontend.build import native_model
from frontend.experts import ACTIVATIONS, Form, form_of
from tests.frontend.models import check_refused, config


def experts_of(model_type: str, **settings: object) -> nn.Module:
    model = native_model(config(model_type, num_local_experts=4, num_experts_per_tok=2, **settings), 8)
    return next(module for name, module in model.named_modules() if name.endswith(".experts"))


def test_a_plain_class_is_known_by_its_activation():
    assert form_of(experts_of("mixtral")) == Form("silu")
    assert form_of(experts_of("mixtral", hidden_act="gelu_pytorch_tanh")) == Form("gelu_tanh")


def test_a_limited_gate_in_turns_with_transposed_matrices_is_known():
    form = Form("quick_gelu", interleaved=True, transposed=True, limit=7.0, offset=1.0)
    assert form_of(experts_of("gpt_oss", head_dim=16)) == form


class Experts(nn.Module):
    """As the library's classes are, with a function between the products that subclasses choose."""

    def __init__(self, config: object) -> None:
        super().__init__()
        self.num_experts = 6
        self.up_proj = nn.Parameter(torch.empty(6, 12, 20))
        self.down_proj = nn.Parameter(torch.empty(6, 20, 12))

    def inside(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x) ** 2

    def forward(self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        y = torch.zeros_like(hidden)
        for expert in range(self.num_experts):
            chosen = (weights * (ids == expert)).sum(-1, keepdim=True)
            inner = self.inside(hidden @ self.up_proj[expert].T)
            y = y + chosen * (inner @ self.down_proj[expert].T)
        return y


def made(inside: object, **says: bool) -> nn.Module:
    cls = type("Tried", (Experts,), {"forward": lambda self, *args: Experts.forward(self, *args)})
    cls.inside = inside
    return use_experts_implementation(cls, has_gate=False, **says)(None)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation_is_told_from_the_others(act):
    assert form_of(made(lambda self, x: ACTIVATIONS[act](x))) == Form(act, gated=False)


def test_other_functions_and_wrong_claims_are_no_form():
    assert form_of(made(lambda self, x: torch.sin(x))) is None
    assert form_of(made(lambda self, x: F.silu(x) + 1e-3 * x)) is None
    assert form_of(made(lambda self, x: F.silu(x), is_transposed=True)) is None


def test_parameters_that_nobody_knows_are_no_form():
    module = made(lambda self, x: F.silu(x))
    module.post_norm = nn.Parameter(torch.ones(20))
    assert form_of(module) is None


def test_experts_of_no_known_form_are_refused_by_class_and_module(monkeypatch):
    monkeypatch.setattr("frontend.experts.form_of", lambda module: None)
    why = r"MixtralExperts computes something else than llm.experts can say, in model\.layers\.0\.mlp\.experts"
    check_refused(config("mixtral"), why)
