"""The recording tensor: what becomes a node, what runs for real, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compiler.diagnostics import UserError
from frontend import trace
from frontend.graph import Graph
from frontend.trace import Recorder
from tests.frontend.recorded import Outer, record


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes if node.name != "input"]


def test_linear_and_softmax_stay_whole():
    graph = record(lambda m, x: F.softmax(F.linear(x, m.weight), dim=-1))
    assert names(graph) == ["parameter", "linear", "softmax"]
    assert graph.outputs[0].shape == (2, 4)


def test_node_names_its_module_and_its_parameter():
    graph = record(lambda m, x: x * m.weight[0])
    assert {node.path for node in graph.nodes if node.name != "input"} == {"inner"}
    assert list(graph.parameters) == ["inner.weight"]


def test_operations_on_real_tensors_run_and_enter_as_constants():
    graph = record(lambda m, x: x * (m.computed + 1).cos())
    assert names(graph) == ["constant", "aten.mul.Tensor"]
    np.testing.assert_allclose(graph.nodes[1].args[0].data, np.cos(np.arange(1, 5)), rtol=1e-6)


def test_buffer_of_the_checkpoint_is_a_parameter():
    graph = record(lambda m, x: x + m.saved)
    assert list(graph.parameters) == ["inner.saved"]
    assert "constant" not in names(graph)


def test_constant_shared_by_two_readers_has_one_digest():
    graph = record(lambda m, x: (x + m.computed) * m.computed)
    first, second = (node.args[0] for node in graph.nodes if node.name == "constant")
    assert first is second


def test_real_values_may_steer_the_code():
    assert names(record(lambda m, x: x.neg() if m.computed.max().item() == 3 else x)) == ["aten.neg.default"]


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x if x.sum() > 0 else -x,
        lambda m, x: x * x.max().item(),
        lambda m, x: x + float(x[0, 0]),
        lambda m, x: torch.tensor(x.tolist()),
        lambda m, x: x[x > 0],
    ],
)
def test_reading_the_data_of_a_traced_tensor_is_refused(function):
    with pytest.raises(UserError, match=r"cannot trace the model: .*data of a traced tensor.* in inner"):
        record(function)


def test_write_through_a_slice_updates_the_whole():
    def write(module, x):
        y = x.clone()
        y[:, :2] = x[:, 2:]
        return y + 1

    graph = record(write)
    assert names(graph)[-3:] == ["aten.copy.default", "aten.slice_scatter.default", "aten.add.Tensor"]
    scatter = graph.nodes[-2]
    assert graph.nodes[-1].operands() == [scatter.results[0]]


def test_write_in_place_is_the_operation_that_returns_its_result():
    graph = record(lambda m, x: x.clone().mul_(2).add_(1))
    assert names(graph) == ["aten.clone.default", "aten.mul.Tensor", "aten.add.Tensor"]
    assert graph.nodes[-1].operands() == [graph.nodes[-2].results[0]]


def test_view_that_a_write_made_stale_is_refused():
    def write(module, x):
        y = x.clone()
        view = y[:, 1:]
        y.mul_(2)
        return view + 1

    with pytest.raises(UserError, match=r"a view is read after its tensor was written to, in inner"):
        record(write)


def test_write_through_a_view_that_is_not_understood_is_refused():
    def write(module, x):
        y = x.clone()
        y.diagonal().zero_()
        return y

    with pytest.raises(UserError, match=r"write through aten.diagonal.* is not understood"):
        record(write, 4, 4)


def test_write_of_a_traced_value_into_a_real_tensor_is_refused():
    def write(module, x):
        y = torch.zeros(2, 4)
        y[:] = x
        return y

    with pytest.raises(UserError, match=r"aten.copy_.* writes a traced value into a constant"):
        record(write)


def test_what_operations_give_is_worked_out_once_for_operands_that_are_alike(monkeypatch):
    worked = []
    on_meta = trace.on_meta
    monkeypatch.setattr(trace, "on_meta", lambda args: worked.append(args) or on_meta(args))
    record(lambda m, x: ((x * 2) * 2) * 2)
    assert len(worked) == 2  # the arguments by place and by name of one product


def test_operands_of_other_types_or_strides_are_not_alike():
    nodes = record(lambda m, x: (x.int() * 2) + (x.int() * 2.0)).nodes
    products = [node for node in nodes if node.name == "aten.mul.Tensor"]
    assert [node.results[0].dtype for node in products] == ["int32", "float32"]
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        record(lambda m, x: x.view(16) + x.t().view(16), 4, 4)


def test_parameters_are_back_after_recording():
    model = Outer(lambda m, x: x)
    with Recorder(model).recording():
        assert type(model.inner.weight) is not nn.Parameter
    assert type(model.inner.weight) is nn.Parameter
    assert type(model.inner.saved) is torch.Tensor
