"""How much the next token's probabilities depend on each weight of a model, measured layer by layer.

The divergence that small errors d of weights bring is, to second order, half the sum of F d**2 where they are
independent. F is the diagonal of the Fisher information: the expected square of the derivative, by the
weight, of the log probability of tokens that are drawn from the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from compiler.progress import track
from compiler.weights.stored import Floats
from frontend.binding import Weights
from frontend.calibration import Beside
from frontend.capture import head_weight_name, one_thread, unwarned
from frontend.layers import Call, Outer, loaded

HEAD_ROWS = 16384  # tokens of the vocabulary that are judged at a time
Take: TypeAlias = Callable[[str, slice, Floats], None]


@torch.no_grad()
def run_back(
    model: Any,
    weights: Weights,
    tokens: np.ndarray,
    wanted: Container[str],
    take: Take,
    beside: np.ndarray | None = None,
) -> dict[str, Floats]:
    """Call `take` with the name of each wanted parameter, which of its rows, and F of these, per token.

    The head's come first, then those of the last layer. `model` and `tokens` [sequences, tokens] are as for
    `frontend.calibration.run_layers`. Memory holds the states [tokens, hidden] before all layers, and of one
    layer three times its parameters. UserError as there.

    Gives what `frontend.calibration.mean_squares` does of tokens `beside` these.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    with one_thread(), unwarned():
        outer = Outer(model, weights, paths)
        ids = torch.from_numpy(tokens.astype(np.int64))
        watch = None if beside is None else Beside(outer, beside)
        states = [outer.before_layers(each[None]) for each in ids]
        calls, before = [*outer.calls], []
        for number, (layer, call) in enumerate(
            track([*zip(outer.layers, calls, strict=True)], "run", " layers")
        ):
            before.append(states)
            with loaded(layer, paths[id(layer)], weights) as names:
                if watch is not None:
                    watch.layer(number, names)
                states = [call.run(state) for state in states]
        if watch is not None:
            watch.head()
        gradients = [*Head(outer, weights, wanted, take).back(torch.cat(states))[:, None]]
        steps = [*zip(outer.layers, calls, before, strict=True)]
        for layer, call, states in track(steps[::-1], "run back", " layers"):
            path = paths[id(layer)]
            with loaded(layer, path, weights):
                named = ((f"{path}.{name}", each) for name, each in layer.named_parameters())
                found = {name: each for name, each in named if name in wanted}
                gradients, squares = back(call, states, gradients, [*found.values()])
                for name, square in zip(found, squares, strict=True):
                    take(name, slice(None), (square / tokens.size).numpy())
    return {} if watch is None else watch.found


@torch.enable_grad()
def back(
    call: Call, states: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor], chosen: list[nn.Parameter]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The gradients by a layer's states, from those by what it makes of them; and the sums over sequences of
    the squares of those by some of its parameters.
    """
    squares = [torch.zeros_like(each.data) for each in chosen]
    found = []
    for each in chosen:
        each.requires_grad_()
    for state, gradient in zip(states, gradients, strict=True):
        state = state.detach().requires_grad_()
        made = call.run(state)
        own, *rest = torch.autograd.grad(made, [state, *chosen], gradient, allow_unused=True)
        found.append(own)
        for sum_, more in zip(squares, rest, strict=True):
            if more is not None:
                sum_ += more.square_()
    return found, squares


class Head:
    """What lies behind the layers, a part of the vocabulary at a time."""

    def __init__(self, outer: Outer, weights: Weights, wanted: Container[str], take: Take) -> None:
        self.outer, self.wanted, self.take = outer, wanted, take
        self.name = head_weight_name(outer.model)
        rows = weights.shape(self.name)[0]
        self.parts = [slice(at, min(at + HEAD_ROWS, rows)) for at in range(0, rows, HEAD_ROWS)]
        self.inputs = self.outputs = torch.empty(0)

    def back(self, states: torch.Tensor) -> torch.Tensor:
        """The gradient by `states` [sequences, tokens, hidden] of the log probability of drawn tokens."""
        total, tokens = self.drawn(states)
        gradient = torch.zeros_like(states)
        handle = self.outer.model.get_output_embeddings().register_forward_hook(self._keep)
        try:
            for rows in self.parts:
                gradient += self.part_back(states, rows, total, tokens)
        finally:
            handle.remove()
        return gradient

    def drawn(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logarithms of the sums that probabilities are parts of, and a token for each of them, by the
        largest of the logits less the logarithms of exponential draws; [sequences, tokens].
        """
        rng = torch.Generator().manual_seed(0)
        sums, best = (torch.full(states.shape[:2], -torch.inf) for _ in range(2))
        tokens = torch.zeros(states.shape[:2], dtype=torch.int64)
        for rows in self.parts:
            logits = self.outer.logits(states, rows)
            sums = torch.logaddexp(sums, logits.logsumexp(-1))
            draws = logits - torch.empty_like(logits).exponential_(generator=rng).log_()
            highest, chosen = draws.max(-1)
            tokens = torch.where(highest > best, chosen + rows.start, tokens)
            best = torch.maximum(highest, best)
        return sums, tokens

    @torch.enable_grad()
    def part_back(
        self, states: torch.Tensor, rows: slice, total: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        states = states.detach().requires_grad_()
        logits = self.outer.logits(states, rows)
        likely = (logits.detach() - total[..., None]).exp_()
        drawn = torch.arange(rows.start, rows.stop) == tokens[..., None]
        (gradient,) = torch.autograd.grad(logits, states, drawn.float() - likely, retain_graph=True)
        if self.name in self.wanted:
            spread = (likely * (1 - likely)).sqrt_()
            (own,) = torch.autograd.grad(logits, self.outputs, spread)
            by_output = own.square_().flatten(0, 1)
            by_input = self.inputs.detach().square().flatten(0, 1)
            self.take(self.name, rows, (by_output.T @ by_input / tokens.numel()).numpy())
        return gradient

    def _keep(self, module: nn.Module, arguments: tuple[Any, ...], made: torch.Tensor) -> None:
        self.inputs, self.outputs = arguments[0], made
