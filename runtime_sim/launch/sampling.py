"""Drawing tokens: what `generation_config.json` asks for, and the net that weighs candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from runtime_sim.arrays import Array
from runtime_sim.launch.runtime import CallableNet, Runtime

LEAST = 5  # candidates that stay, however likely the first ones are
ABOVE = 1 + 2.0**-20  # a sum of probabilities that is above top_p by less is not


@dataclass(frozen=True)
class Sampling:
    """How to draw; the defaults are those of transformers' GenerationConfig, and change nothing."""

    penalty: float = 1.0  # of tokens that were
    temperature: float = 1.0
    top_k: int = 0  # 0: all candidates
    top_p: float = 1.0

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], source: str) -> Sampling:
        """Of generation_config.json; UserError names `source` and the key of a value that is none."""

        def number(key: str, low: float, high: float, default: float) -> float:
            value = settings.get(key)
            if value is None:
                return default
            if type(value) not in (int, float) or not low <= value <= high:
                raise UserError(f"{source}: {key} is {str(value)[:40]}, expected {low:g} to {high:g}")
            return float(value)

        return cls(
            number("repetition_penalty", 0.01, 100, 1.0),
            number("temperature", 0, 1000, 1.0),
            int(number("top_k", 0, 1 << 30, 0)),
            number("top_p", 0, 1, 1.0),
        )


class Sampler:
    """Draws tokens by a file's sample_head."""

    def __init__(self, net: CallableNet, sampling: Sampling, seed: int | None = None) -> None:
        self.net = net
        self.rng = np.random.default_rng(seed)
        candidates = net.outputs[0].array.size
        self.count = min(sampling.top_k or candidates, candidates)
        numbers = (sampling.penalty, sampling.temperature, self.count, sampling.top_p)
        for buffer, value in zip(net.inputs[2:], numbers, strict=True):
            buffer.array[...] = value

    def draw(self, runtime: Runtime, logits: Array, seen: Sequence[int]) -> int:
        """One of the candidates for logits [1, V], after the tokens `seen`; without a penalty for token 0."""
        self.net.inputs[0].array[...] = logits
        ids = self.net.inputs[1].array
        ids[...] = 0
        last = seen[-ids.size :]
        ids.flat[: len(last)] = last
        runtime.launch(self.net)
        weights, tokens = (output.array.reshape(-1)[: self.count] for output in self.net.outputs)
        exact = weights.astype(np.float64)
        return int(self.rng.choice(tokens, p=exact / exact.sum()))


def candidates(
    logits: Array, seen: Array, sampling: Sampling, count: int, least: int = LEAST
) -> tuple[Array, Array]:
    """What sample_head computes for logits [V]: probabilities [count] and tokens, in float64.

    The candidate at which the sum of probabilities reaches top_p is left out already, but never one of the
    first `least`.
    """
    x = penalized(logits, seen, sampling.penalty)
    tokens = np.argsort(-x.astype(np.float32), kind="stable")[:count]
    far = (x[tokens] - x[tokens[0]]) / max(sampling.temperature, 2.0**-20)
    places = np.arange(count)
    p = np.exp(far) * (places < (sampling.top_k or count))
    p /= p.sum()
    p[(np.cumsum(p) >= sampling.top_p * ABOVE) & (places >= least)] = 0
    return p / p.sum(), tokens


def penalized(logits: Array, seen: Array, penalty: float) -> Array:
    """Logits [V] in float64, less likely where a token was seen; one counts once, and token 0 never."""
    x = logits.astype(np.float64)
    known = np.unique(seen[(seen > 0) & (seen < x.size)])
    x[known] = np.where(x[known] < 0, x[known] * penalty, x[known] / penalty)
    return x
