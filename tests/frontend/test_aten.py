"""What recorded functions are in the llm dialect."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import runtime_sim.interpret.llm  # noqa: F401  (registers the rules)
from compiler.diagnostics import UserError
from compiler.ir.types import F32, TensorType
from dialects import llm
from dialects.builtin import FuncOp
from dialects.nets import NetAttr, NetInput, NetOutput
from frontend.aten import HANDLERS, visible
from frontend.functions import GraphReader, Types, function_for, live_nodes, numbers
from runtime_sim.interpret.rules import interpret
from tests.frontend.recorded import record


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        ("causal", llm.Visible("causal")),
        ("full", llm.Visible("all")),
        ("sliding window of 7", llm.Visible("window", 7)),
        ("custom", llm.Visible("masked")),
        ("decode", llm.Visible("masked")),
    ],
)
def test_each_kind_of_mask_says_what_is_visible(mask, shown):
    assert visible(mask) == shown


# One function or more for each handler; `m` has weight [4, 4], patches [5, 3, 2], saved [4] and computed [4],
# x is [2, 3, 4].
CASES: dict[str, tuple[Callable[[Any, torch.Tensor], torch.Tensor], ...]] = {
    "linear": (lambda m, x: F.linear(x, m.weight), lambda m, x: F.linear(x, m.weight, m.saved)),
    "aten.addmm": (lambda m, x: torch.addmm(m.saved, x.view(-1, 4), m.weight).view(x.shape),),
    "matmul": (lambda m, x: torch.matmul(x, x.transpose(1, 2)),),
    "softmax": (lambda m, x: F.softmax(x, dim=-1), lambda m, x: F.softmax(x, dim=1)),
    "layer_norm": (lambda m, x: F.layer_norm(x, (4,), m.saved, m.saved, 1e-3), lambda m, x: F.layer_norm(x, (4,))),
    "rms_norm": (lambda m, x: F.rms_norm(x, (4,), m.saved, 1e-3),),
    "aten.add": (lambda m, x: x + x * 2, lambda m, x: 3 + x, lambda m, x: x + m.saved),
    "aten.mul": (lambda m, x: x * x, lambda m, x: 3 * x, lambda m, x: m.saved * x),
    "aten.sub": (lambda m, x: x - x * 3, lambda m, x: x - 3, lambda m, x: m.saved - x, lambda m, x: m.computed[3] - x),
    "aten.rsub": (lambda m, x: 3 - x,),
    "aten.div": (lambda m, x: x / (x + 9), lambda m, x: x / 3, lambda m, x: x / m.saved, lambda m, x: m.computed[3] / (x + 9)),
    "aten.pow": (lambda m, x: x**2, lambda m, x: (x + 9) ** 1.5, lambda m, x: (x + 9) ** -0.5),
    "aten.sqrt": (lambda m, x: (x + 9).sqrt(),),
    "aten.reciprocal": (lambda m, x: (x + 9).reciprocal(), lambda m, x: 1 / (x + 9)),
    "aten.neg": (lambda m, x: -x,),
    "aten.rsqrt": (lambda m, x: (x + 9).rsqrt(),),
    "aten.clamp": (lambda m, x: x.clamp(-0.5, 0.5), lambda m, x: x.clamp(min=0.1), lambda m, x: x.clamp(max=0.1)),
    "aten.mean": (lambda m, x: x.mean(-1, keepdim=True), lambda m, x: x.mean(1)),
    "aten.sum": (lambda m, x: x.sum(-1, keepdim=True), lambda m, x: x.sum(dim=[0])),
    "aten.silu": (lambda m, x: F.silu(x),),
    "aten.gelu": (lambda m, x: F.gelu(x), lambda m, x: F.gelu(3 * x, approximate="tanh")),
    "aten.relu": (lambda m, x: F.relu(x),),
    "aten.sigmoid": (lambda m, x: x.sigmoid(),),
    "aten.tanh": (lambda m, x: x.tanh(),),
    "aten.alias": (lambda m, x: torch.ops.aten.alias(x) * 1,),
    "aten.detach": (lambda m, x: x.detach() * 1,),
    "aten.clone": (lambda m, x: x.clone(),),
    "aten.copy": (lambda m, x: torch.ops.aten.copy(x, x[:1] + 1),),
    "aten.view": (lambda m, x: x.view(3, 8), lambda m, x: x.view(4, -1)),
    "aten._unsafe_view": (lambda m, x: x.transpose(0, 2).reshape(-1, 6),),
    "aten.unsqueeze": (lambda m, x: x.unsqueeze(1), lambda m, x: x.unsqueeze(-1)),
    "aten.squeeze": (lambda m, x: x[:1].squeeze(0), lambda m, x: x[:1, :, :1].squeeze(), lambda m, x: x.squeeze(0)),
    "aten.expand": (lambda m, x: x[:, :1].expand(-1, 5, -1), lambda m, x: x.expand(2, 2, 3, 4)),
    "aten.permute": (lambda m, x: x.permute(2, 0, -2),),
    "aten.transpose": (lambda m, x: x.transpose(0, -1),),
    "aten.t": (lambda m, x: x[0].t(),),
    "aten.slice": (lambda m, x: x[:, 1:], lambda m, x: x[..., ::2], lambda m, x: x[..., -3:-1]),
    "aten.select": (lambda m, x: x[:, 1], lambda m, x: x[..., -1]),
    "aten.split_with_sizes": (lambda m, x: x.split([1, 2], dim=1)[1],),
    "aten.split": (lambda m, x: x.split(3, dim=-1)[1],),
    "aten.unbind": (lambda m, x: x.unbind(1)[2],),
    "aten.cat": (lambda m, x: torch.cat((x, -x), -1), lambda m, x: torch.cat((x[..., 4:], x), -1)),
    "aten.stack": (lambda m, x: torch.stack((x, -x), 1), lambda m, x: torch.stack((x, -x), -1)),
    "aten._to_copy": (lambda m, x: F.relu(x).bool().float(), lambda m, x: x.double()),
    "aten.bitwise_not": (lambda m, x: (~F.relu(x).bool()).float(),),
    "aten.topk": (
        lambda m, x: x.topk(2).values,
        lambda m, x: x.gather(2, x.topk(3, dim=2, sorted=True)[1]),
    ),
    "aten.max": (lambda m, x: x.max(-1)[0], lambda m, x: x.max(2, keepdim=True)[0]),
    "aten.gather": (lambda m, x: (x + 1).gather(-1, (-x).topk(1)[1]),),
    "aten.zeros_like": (lambda m, x: torch.zeros_like(x).scatter(2, x.topk(2)[1], 1),),
    "aten.scatter": (
        lambda m, x: torch.zeros_like(x).scatter_(-1, x.topk(2)[1], 3),
        lambda m, x: x.scatter(-1, x.topk(1)[1], -0.5),
    ),
    "aten.masked_fill": (
        lambda m, x: x.masked_fill(F.relu(x).bool(), 0.5),
        lambda m, x: x.masked_fill(F.relu(x[:1, :, :1]).bool(), -0.5),
    ),
    "aten.new_empty": (lambda m, x: filled(m, x), ),
    "aten.convolution": (
        lambda m, x: F.conv1d(x, m.patches, stride=2),
        lambda m, x: F.conv1d(x[..., 2:], m.patches, stride=2),
    ),
    "aten.slice_scatter": (lambda m, x: torch.ops.aten.slice_scatter(x, -x[:, 1:2], 1, 1, 2),),
}
# `test_hooks.py` and `test_oracle.py` have what our own hooks record; the others are kinds of the same handler.
def filled(m, x):
    y = x.new_empty(2, 3, 6)
    y[..., 4:] = x[..., :1]
    y[..., :4] = -x
    return y


# `test_towers.py` has orders of rows, which are no values.
ELSEWHERE = {"llm.attention", "llm.experts", "llm.kv_concat", "aten.embedding", "aten.index", "aten.sort"}


class Values:
    """What `m` holds when a function runs for real."""

    weight = torch.linspace(-1, 1, 16).reshape(4, 4)
    patches = torch.linspace(-1, 1, 30).reshape(5, 3, 2)
    saved = torch.tensor([0.5, -1.0, 2.0, 0.25])
    computed = torch.arange(4.0)


def imported(function: Any, shape: tuple[int, ...]) -> FuncOp:
    graph = record(function, *shape)
    net = NetAttr("test", inputs=(NetInput("x"),), outputs=(NetOutput("y"),))
    func = function_for(net, {"x": TensorType(shape, F32)})
    nodes = live_nodes(graph)
    reader = GraphReader(func, Types(F32), "inner.", iter(numbers(nodes)))
    reader.bind(graph.inputs[0], func.args[0])
    reader.run(nodes)
    return reader.finish(reader.get(graph.outputs[0]))


@pytest.mark.parametrize(("name", "function"), [(name, each) for name, cases in CASES.items() for each in cases])
def test_a_handler_computes_what_torch_does(name, function, monkeypatch):
    called = []
    handler = HANDLERS[name]
    signature = inspect.signature(handler)
    spy = lambda *args, **kwargs: (called.append(name), handler(*args, **kwargs))[1]  # noqa: E731
    spy.__signature__ = signature
    monkeypatch.setitem(HANDLERS, name, spy)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32))
    (found,) = interpret(imported(function, (2, 3, 4)), [x.numpy()], lambda name: getattr(Values, name).numpy())
    np.testing.assert_allclose(found, function(Values, x).numpy(), rtol=1e-5, atol=1e-6)
    assert called


def test_every_handler_has_a_case():
    tried = {HANDLERS[name] for name in CASES} | {HANDLERS[name] for name in ELSEWHERE}
    assert [name for name, handler in HANDLERS.items() if handler not in tried] == []


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda m, x: torch.add(x, x, alpha=2), "aten.add.Tensor: alpha other than 1, in inner"),
        (lambda m, x: x.mean((0, 1)), "a reduction over several axes"),
        (lambda m, x: 2.0**x, "a number in place of a tensor|a power of a tensor"),
        (lambda m, x: x**x, "a power of a tensor"),
        (lambda m, x: F.layer_norm(x, (3, 4)), "a norm over more than the last axis"),
        (lambda m, x: F.rms_norm(x, (4,)), "a norm whose eps depends on the number format"),
        (lambda m, x: torch.ops.aten.slice_scatter(x, x[..., ::2], 2, 0, 4, 2), "a write with a step"),
        (lambda m, x: x.new_empty(2, 3, 4) + x, "an operand was not written as a whole"),
        (lambda m, x: x.topk(1, largest=False)[0], "aten.topk.default: the smallest elements, or those of another"),
        (lambda m, x: x.topk(1, dim=0)[0], "aten.topk.default: the smallest elements, or those of another"),
        (lambda m, x: x.gather(1, x.topk(1)[1]), "a choice along another axis than the last"),
        (lambda m, x: torch.zeros_like(x).scatter(0, x.topk(1)[1], 1), "a write along another axis"),
        (lambda m, x: x.scatter(2, x.topk(1)[1], x), "several values written by index"),
        (lambda m, x: x.topk(1)[1].float(), "aten._to_copy.default: it computes float32 values"),
        (lambda m, x: F.conv1d(x, m.patches), "a convolution whose patches overlap or leave gaps"),
        (lambda m, x: F.conv1d(x, m.patches, stride=2, padding=1), "a convolution that is none of patches"),
        (lambda m, x: x[torch.tensor([1, 0])], "aten.index.Tensor|a constant of shape"),
        (lambda m, x: x[0].sort()[0], "a sort of what is no order of rows"),
        (lambda m, x: x.erf(), "aten.erf.default: it has no counterpart in the llm dialect"),
    ],
)
def test_what_a_handler_does_not_take_is_refused_by_name(function, message):
    with pytest.raises(UserError, match=message):
        imported(function, (2, 3, 4))
