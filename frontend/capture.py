"""Run a model with its decoder layers cut out: one graph around them, and one graph for each layer.

The forward of each layer is replaced by a stub that records the layer alone, on inputs of its own, and
hands the outer graph one node in its place. Attributes that the model reads from a layer stay what they were.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import frontend.library  # noqa: F401

import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from transformers.modeling_utils import PreTrainedModel

from compiler.diagnostics import UserError
from frontend.build import LONGEST_REASON
from frontend.graph import Graph, GraphValue
from frontend.hooks import RecordingCache
from frontend.streams import told_apart
from frontend.trace import Recorder, Traced


@dataclass(eq=False)
class LayerCapture:
    """One decoder layer: outputs of the graph are the hidden state, keys and values of this call.

    Inputs are nodes whose arguments say what they are: ("hidden",), ("mask", kind), ("history_k",) and
    ("history_v",). Whatever the layer makes of positions runs for real and is a constant of this graph.
    """

    path: str
    given: GraphValue  # the hidden state in the outer graph
    result: GraphValue  # what the outer graph goes on with
    late: bool = False  # whether attention reads what the layer makes of what it keeps: see `RecordingCache`
    graph: Graph = field(default_factory=Graph)


@dataclass(eq=False)
class Capture:
    """One run of the model on ids [1, tokens]."""

    graph: Graph  # from the input ids to the logits, with an "llm.layer" node for each layer
    logits: GraphValue
    layers: list[LayerCapture]


@dataclass
class LayerStub:
    """Takes the place of one layer's forward."""

    recorder: Recorder
    cache: RecordingCache
    path: str
    forward: Callable[..., Any]
    captures: list[LayerCapture]
    late: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, spec = tree_flatten((args, kwargs))
        hidden = [leaf for leaf in leaves if is_hidden(leaf)]
        if len({id(leaf) for leaf in hidden}) != 1:
            raise self.recorder.refuse(f"layer {self.path} takes {len(hidden)} computed values, expected one")
        given = hidden[0].read()
        capture = LayerCapture(self.path, given, self.recorder.graph.add_call(given, self.path))
        with self.recorder.into(capture.graph):
            inner_args, inner_kwargs = tree_unflatten([self._input(leaf) for leaf in leaves], spec)
            self.cache.begin(self.late)
            returned = self.forward(*inner_args, **inner_kwargs)
            result = self._finish(capture, returned)
            capture.late = self.cache.late
        self.captures.append(capture)
        return self._outer(capture, returned, result)

    def _input(self, leaf: Any) -> Any:
        """The layer's own version of one argument."""
        if not isinstance(leaf, Traced):
            return leaf
        key = ("hidden",) if is_hidden(leaf) else ("mask", leaf.value.node.args[0])
        return self.recorder.input(leaf.shape, leaf.dtype, *key)

    def _finish(self, capture: LayerCapture, returned: Any) -> Traced:
        """Check and store the outputs of the layer's graph; gives the hidden state among them."""
        if len(self.cache.new) != 1:
            raise self.recorder.refuse(
                f"layer {self.path} updates the key-value cache {len(self.cache.new)} times, expected once"
            )
        results = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Traced)]
        if not results:
            raise self.recorder.refuse(f"layer {self.path} returns no hidden state")
        capture.graph.outputs = [results[0].read(), *(part.read() for part in self.cache.new[0])]
        return results[0]

    def _outer(self, capture: LayerCapture, returned: Any, result: Traced) -> Any:
        """What the layer returned, with its hidden state as a value of the outer graph."""
        outer = Traced(self.recorder, result.meta, capture.result)
        leaves, spec = tree_flatten(returned)
        return tree_unflatten([outer if leaf is result else leaf for leaf in leaves], spec)


def capture_model(
    model: nn.Module, tokens: int, position: int = 0, history: int = 0, prefill: Capture | None = None
) -> Capture:
    """Record `tokens` tokens from `position` on, with `history` tokens in the cache; ids are [1, tokens].

    A prefill has shown which layers are late; without one, none is.
    """
    return capture_at(model, torch.arange(position, position + tokens)[None], history, prefill)


def capture_streams(model: nn.Module, streams: int) -> Capture:
    """Record tokens at positions, [streams, 1, tokens], that tell so many streams of them apart."""
    return capture_at(model, torch.from_numpy(told_apart(streams))[:, None])


def capture_at(
    model: nn.Module, positions: torch.Tensor, history: int = 0, prefill: Capture | None = None
) -> Capture:
    recorder = Recorder(model)
    recorder.cache = cache = RecordingCache(history)
    late = {layer.path for layer in prefill.layers if layer.late} if prefill else set()
    captures: list[LayerCapture] = []
    try:
        with one_thread(), unwarned(), recorder.recording(), stubbed_layers(recorder, cache, captures, late):
            ids = recorder.input((1, positions.shape[-1]), torch.int64, "ids")
            output = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True)
            logits = output.logits.read()
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {textwrap.shorten(str(error), LONGEST_REASON)}"
        raise recorder.refuse(reason) from error
    check_chain(recorder, captures)
    return Capture(recorder.graph, logits, captures)


@contextmanager
def one_thread() -> Iterator[None]:
    """Real arithmetic on one thread: rotary tables go into the compiled file, which must be reproducible.

    With torch 2.13 on two threads, the first cos of a process was seen to return values wrong by 1.5e-4,
    in a few processes of a hundred; later calls were right.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def unwarned() -> Iterator[None]:
    """Without the library's look at the ids for padding, which would read traced values for a warning."""
    with patch.object(PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_: None):
        yield


@contextmanager
def stubbed_layers(
    recorder: Recorder, cache: RecordingCache, captures: list[LayerCapture], late: Container[str] = ()
) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in find_layers(recorder.model):
            path = recorder.paths[id(layer)]
            stub = LayerStub(recorder, cache, path, layer.forward, captures, path in late)
            layer.forward = stub
            stack.callback(delattr, layer, "forward")
        yield


def find_layers(model: Any) -> list[nn.Module]:
    """The ModuleList of the decoder that is as long as its configuration says; UserError without one."""
    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder()
    lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise UserError(f"cannot trace {type(model).__name__}: no list of {count} decoder layers in it")
    return list(lists[0])


def check_chain(recorder: Recorder, layers: list[LayerCapture]) -> None:
    """Each layer takes exactly what the one before it returned."""
    for before, after in pairwise(layers):
        if after.given is not before.result:
            raise recorder.refuse(f"{after.path} does not take the result of {before.path} as it is")
    if len(layers) != len(find_layers(recorder.model)):
        raise recorder.refuse(f"{len(layers)} layers ran, expected each of them once")


def head_weight_name(model: Any) -> str:
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is head]
    if not names:
        raise UserError(f"cannot trace {type(model).__name__}: it has no output embedding")
    return f"{names[0]}.weight"


def is_hidden(leaf: Any) -> bool:
    return isinstance(leaf, Traced) and leaf.value.node.name != "llm.mask"
