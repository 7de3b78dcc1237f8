"""A model run layer by layer in float32, with the parameters of one layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from compiler.diagnostics import UserError
from compiler.weights.stored import Array, Floats, Quantized, to_float32
from frontend.binding import Weights
from frontend.capture import find_layers

EMBEDDING_ROWS = 32  # read at a time: few of a large vocabulary are asked for
Stub: TypeAlias = Callable[[nn.Module, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Call:
    """How a model calls one of its layers, apart from the hidden state."""

    layer: nn.Module
    arguments: tuple[Any, ...]  # with None in the place of the hidden state
    keywords: dict[str, Any]

    def run(self, state: torch.Tensor) -> torch.Tensor:
        """What the layer makes of a state."""
        arguments, keywords = given(self.arguments, self.keywords, state)
        made = self.layer(*arguments, **keywords)
        return next(leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor))


def given(arguments: tuple[Any, ...], keywords: dict[str, Any], state: Any) -> tuple[Any, dict[str, Any]]:
    """The arguments of a layer with another hidden state, the first of them or by its name."""
    if arguments:
        return (state, *arguments[1:]), keywords
    return arguments, keywords | {"hidden_states": state}


class Unrunnable(UserError):
    """The model cannot be run layer by layer."""


class Reached(Exception):
    """The head is about to run on these states."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


class Outer:
    """A model around its layers, which hand on what they are given, up to its head."""

    def __init__(self, model: Any, weights: Weights, paths: Mapping[int, str]) -> None:
        self.model, self.weights, self.paths = model, weights, paths
        self.layers = find_layers(model)
        self.calls: list[Call] = []
        self.embedded = np.empty(0, np.int64), torch.empty(0)  # rows of the embedding at hand: their numbers

    def embed(self, ids: Array) -> None:
        """Have the embedding's rows of ids at hand: calls for some of them read none."""
        embedding, numbers = self.model.get_input_embeddings(), np.unique(ids)
        self.embedded = numbers, rows_of(self.weights, f"{self.paths[id(embedding)]}.weight", numbers)

    def before_layers(self, ids: torch.Tensor, **keywords: Any) -> torch.Tensor:
        """What the first layer is given for ids [sequences, tokens], and in `calls` how layers are called.

        Sequences of as many tokens have the same calls. `keywords` are the model's, as for a cache.
        """
        states: list[torch.Tensor] = []
        self.calls = []

        def stub(layer: nn.Module, state: torch.Tensor) -> torch.Tensor:
            states.append(state)
            return state

        self._up_to_head(ids, stub, **keywords)
        if any(state is not states[0] for state in states) or len(states) != len(self.layers):
            kind = type(self.model).__name__
            raise Unrunnable(f"--calibrate: the layers of {kind} do not hand states from one to the next")
        return states[0]

    def before_head(self, state: torch.Tensor) -> torch.Tensor:
        """What the head is given when the last layer gives `state` [sequences, tokens, hidden]."""
        return self._up_to_head(*self._instead_of_layers(state))

    def logits(self, state: torch.Tensor, rows: slice) -> torch.Tensor:
        """What the model says then of some tokens of the vocabulary, [sequences, tokens, rows]."""
        head = self.model.get_output_embeddings()
        with loaded(head, self.paths[id(head)], self.weights, rows=rows):
            found: torch.Tensor = self._run(*self._instead_of_layers(state)).logits
            return found

    def _instead_of_layers(self, state: torch.Tensor) -> tuple[torch.Tensor, Stub]:
        last = self.layers[-1]
        ids = torch.zeros(state.shape[:2], dtype=torch.int64)
        return ids, lambda layer, passed: state if layer is last else passed

    def _up_to_head(self, ids: torch.Tensor, stub: Stub, **keywords: Any) -> torch.Tensor:
        handle = self.model.get_output_embeddings().register_forward_pre_hook(reach)
        try:
            self._run(ids, stub, **keywords)
        except Reached as reached:
            return reached.states
        finally:
            handle.remove()
        raise Unrunnable(f"--calibrate: the head of {type(self.model).__name__} does not run")

    def _run(self, ids: torch.Tensor, stub: Stub, **keywords: Any) -> Any:
        def forward(layer: nn.Module, *arguments: Any, **keywords: Any) -> Any:
            state = arguments[0] if arguments else keywords["hidden_states"]
            self.calls.append(Call(layer, *given(arguments, keywords, None)))
            return stub(layer, state)

        with ExitStack() as stack:
            for layer in self.layers:
                layer.forward = lambda *a, _layer=layer, **k: forward(_layer, *a, **k)
                stack.callback(delattr, layer, "forward")
            known = stack.enter_context(self._loaded(ids))
            return self.model(**{"input_ids": known, "use_cache": False, **keywords})

    @contextmanager
    def _loaded(self, ids: torch.Tensor) -> Iterator[torch.Tensor]:
        """With the parameters of all but layers and head; of the embedding only the rows of `ids`, which are
        given by their numbers in it.
        """
        embedding, head = self.model.get_input_embeddings(), self.model.get_output_embeddings()
        apart = {id(each) for layer in (*self.layers, head) for each in layer.modules()}
        numbers, places = np.unique(ids.numpy(), return_inverse=True)
        with ExitStack() as stack:
            for path, module in self.model.named_modules():
                if module is embedding:
                    table = self._rows(f"{path}.weight", numbers)
                    stack.enter_context(replaced(module._parameters, "weight", table))
                    stack.enter_context(replaced(vars(module), "padding_idx", None))
                elif id(module) not in apart:
                    stack.enter_context(loaded(module, path, self.weights, recurse=False))
            yield torch.from_numpy(places.reshape(ids.shape))

    def _rows(self, name: str, numbers: Array) -> torch.Tensor:
        known, table = self.embedded
        if not np.isin(numbers, known).all():
            return rows_of(self.weights, name, numbers)
        return table[np.searchsorted(known, numbers)]


def reach(head: nn.Module, arguments: tuple[Any, ...]) -> None:
    raise Reached(arguments[0])


@contextmanager
def loaded(
    root: nn.Module, path: str, weights: Weights, recurse: bool = True, rows: slice = slice(None)
) -> Iterator[dict[int, str]]:
    """With the checkpoint's values of the parameters below a module, or of some of their rows; gives their
    names by where they lie.
    """
    names: dict[int, str] = {}
    modules = root.named_modules(prefix=path) if recurse else [(path, root)]
    with ExitStack() as stack:
        for prefix, module in modules:
            for table in (module._parameters, module._buffers):
                for name in [name for name in table if f"{prefix}.{name}" in weights.tensors]:
                    value = torch.from_numpy(values_of(weights, f"{prefix}.{name}", rows))
                    stack.enter_context(replaced(table, name, value))
                    names[value.untyped_storage().data_ptr()] = f"{prefix}.{name}"
        yield names


@contextmanager
def replaced(table: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    """With another value of a name; a parameter stays one."""
    before = table[name]
    table[name] = nn.Parameter(value, False) if isinstance(before, nn.Parameter) else value
    try:
        yield
    finally:
        table[name] = before


def values_of(weights: Weights, name: str, rows: slice = slice(None)) -> Floats:
    """The values that a program computes with, f32; inputs of codes in the model's order."""
    values = weights.read(name, rows)
    if not isinstance(values, Quantized):
        return to_float32(values)
    floats = values.dequantize()
    if name in weights.orders:
        ordered = np.empty_like(floats)
        ordered[:, weights.read_floats(weights.orders[name])] = floats
        return ordered
    return floats


def rows_of(weights: Weights, name: str, numbers: Array) -> torch.Tensor:
    """Some rows of a parameter, f32, by their sorted numbers; few others are read with them."""
    found: list[Floats] = []
    for place, some in groupby(numbers, lambda number: number // EMBEDDING_ROWS):
        start = int(place) * EMBEDDING_ROWS
        rows = weights.read_floats(name, slice(start, start + EMBEDDING_ROWS))
        found.append(to_float32(rows[[number - start for number in some]]))
    return torch.from_numpy(np.concatenate(found))
