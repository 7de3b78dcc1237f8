"""Text that a model writes itself, with the parameters of one layer in memory at a time.

To measure what its layers are given it serves as well as text of people. Sequences are many and short, so
that the parameters are read few times.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import frontend.library  # noqa: F401

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from compiler.progress import track
from compiler.weights.stored import Array, Floats
from frontend.binding import Weights
from frontend.capture import head_weight_name, one_thread, unwarned
from frontend.layers import Outer, loaded

HEAD_ROWS = 16384  # tokens of the vocabulary that are judged at a time
SMALLEST = np.float32(1e-30)  # a draw of 0 has no logarithm
PARTS = 4  # of the sequences, run at the same time; fixed, since products of other sizes may round otherwise


@torch.no_grad()
def written(model: Any, weights: Weights, first: Array, count: int, jobs: int) -> Array:
    """Tokens [sequences, count] that go on from first ones [sequences], each drawn by its probability.

    `model` as for `frontend.calibration.run_layers`. The same on each call, whatever `jobs`.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    rng = np.random.default_rng(0)
    tokens = [first]
    with one_thread(), unwarned(), ThreadPoolExecutor(jobs) as pool:
        outer = Outer(model, weights, paths)
        caches: list[Any] = [DynamicCache() for _ in range(PARTS)]
        for _ in track(range(count - 1), "write", " tokens"):
            states, calls = [], []
            outer.embed(tokens[-1])
            for ids, cache in zip(np.array_split(tokens[-1][:, None], PARTS), caches, strict=True):
                cached = {"past_key_values": cache, "use_cache": True}
                states.append(outer.before_layers(torch.from_numpy(ids), **cached))
                calls.append(outer.calls)
            for layer, *parts in zip(outer.layers, *calls, strict=True):
                with loaded(layer, paths[id(layer)], weights):
                    states = [*pool.map(lambda call, state: call.run(state), parts, states)]
            tokens.append(drawn(outer, torch.cat(states), rng))
    return np.stack(tokens, axis=1)


def drawn(outer: Outer, states: torch.Tensor, rng: np.random.Generator) -> Array:
    """A token [sequences] by the probabilities that the model gives after `states` [sequences, 1, hidden]."""
    vocabulary = outer.weights.shape(head_weight_name(outer.model))[0]
    best, tokens = np.full(len(states), -np.inf), np.zeros(len(states), np.int64)
    for start in range(0, vocabulary, HEAD_ROWS):
        logits = outer.logits(states, slice(start, start + HEAD_ROWS))[:, -1].numpy()
        logits = logits + noise(logits.shape, rng)
        chosen = logits.argmax(axis=1)
        highest = np.take_along_axis(logits, chosen[:, None], 1)[:, 0]
        better = highest > best
        best, tokens = np.where(better, highest, best), np.where(better, start + chosen, tokens)
    return tokens


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Whichever logit is the largest with it is drawn by its probability."""
    found: Floats = -np.log(rng.standard_exponential(shape, np.float32) + SMALLEST)
    return found
