"""Small modules of torch, and the graphs that the tracer records of them."""

from __future__ import annotations

import torch
from torch import nn

from frontend.graph import Graph
from frontend.trace import Recorder


class Body(nn.Module):
    """A module whose forward is the function under test."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(4, 4, device="meta"))
        self.patches = nn.Parameter(torch.empty(5, 3, 2, device="meta"))
        self.register_buffer("saved", torch.ones(4))
        self.register_buffer("computed", torch.arange(4.0), persistent=False)
        self.function = function

    def forward(self, x):
        return self.function(self, x)


class Outer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.inner = Body(function)

    def forward(self, x):
        return self.inner(x)


def record(function, *shape: int) -> Graph:
    """The graph of `function(module, x)` on x of that shape, [2, 4] by default."""
    model = Outer(function)
    recorder = Recorder(model)
    with recorder.recording():
        result = model(recorder.input(shape or (2, 4), torch.float32, "x"))
        recorder.graph.outputs = [result.read()]
    return recorder.graph
