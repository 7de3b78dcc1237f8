"""What a model's linears are given, measured by running it layer by layer.

Some sequences are run together, on one thread, and what is measured of these batches is added in order: the
result does not depend on how many run at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from compiler.progress import track
from compiler.weights.moments import Moments, Squares, spans
from compiler.weights.stored import Floats
from frontend.binding import Weights
from frontend.capture import head_weight_name, one_thread, unwarned
from frontend.layers import Call, Outer, loaded

# What multiplies by a parameter: where in its arguments the inputs are, and the parameter.
FACTORS: Mapping[Callable[..., Any], tuple[int, int]] = {
    torch.nn.functional.linear: (0, 1),
    torch.matmul: (0, 1),
    torch.Tensor.matmul: (0, 1),
    torch.Tensor.__matmul__: (0, 1),
    torch.mm: (0, 1),
    torch.addmm: (1, 2),
}
Sum: TypeAlias = Squares | Moments
Sums: TypeAlias = Mapping[str, Sum]  # by parameter; one object for those with the same inputs
Item = TypeVar("Item")
BATCH_TOKENS = 1024  # run at once: sums of products are as large however few they are of


@dataclass(frozen=True)
class Measure:
    """Sums up the inputs of a parameter: their squares, or with a group, to whole ones, their moments."""

    group: int | None = None

    def __call__(self, inputs: torch.Tensor) -> Sum:
        rows = inputs.reshape(-1, inputs.shape[-1])
        if self.group is None:
            return Squares(rows.double().square_().sum(0).numpy(), len(rows))
        parts = [rows[:, span] for span in spans(rows.shape[1], self.group)]
        return Moments([(part.T @ part).numpy() for part in parts], len(rows))


MeasureOf: TypeAlias = Callable[[str], Measure]  # by the parameter's name
SQUARES = Measure()


class Watch(TorchFunctionMode):
    """Sums up all that is multiplied by parameters, known by where they lie in memory."""

    def __init__(self, names: Mapping[int, str], measure_of: MeasureOf) -> None:
        super().__init__()
        self.names, self.measure_of = names, measure_of
        self.found: Sums = {}
        self.latest: tuple[Measure, Any, Sum] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in FACTORS:
            inputs, weight = (args[place] for place in FACTORS[func])
            name = self.names.get(weight.untyped_storage().data_ptr())
            if name is not None:
                self.found = added(self.found, {name: self.sum_of(name, inputs)})
        return func(*args, **(kwargs or {}))

    def sum_of(self, name: str, inputs: torch.Tensor) -> Sum:
        """Linears of the same inputs follow each other, and share what is measured of these."""
        measure = self.measure_of(name)
        if self.latest is None or self.latest[0] != measure or self.latest[1] is not inputs:
            self.latest = measure, inputs, measure(inputs)
        return self.latest[2]


def added(sums: Sums, more: Sums) -> Sums:
    """Both; what is one object in each of them is one of the result."""
    made: dict[tuple[int, int], Sum] = {}
    result = dict(sums)
    for name, sum_ in more.items():
        before = sums.get(name)
        pair = id(before), id(sum_)
        if pair not in made:
            made[pair] = sum_ if before is None else before + sum_  # type: ignore[operator]
        result[name] = made[pair]
    return result


def mean_squares(model: Any, weights: Weights, tokens: np.ndarray, jobs: int) -> dict[str, Floats]:
    """The mean square of each input [inputs] of what multiplies by a parameter, by the parameter's full name.

    See `run_layers`. Experts have one mean for all of a layer.
    """
    found: dict[str, Floats] = {}

    def keep(sums: Sums) -> bool:
        found.update({name: sum_.mean for name, sum_ in sums.items()})
        return False

    run_layers(model, weights, tokens, jobs, lambda name: SQUARES, keep)
    return found


@torch.no_grad()
def run_layers(
    model: Any,
    weights: Weights,
    tokens: np.ndarray,
    jobs: int,
    measure_of: MeasureOf,
    settle: Callable[[Sums], bool],
) -> None:
    """Call `settle` with what was measured of the inputs of each layer's parameters, layer after layer, and
    then of the head's.

    It says whether it changed parameters of the layer in `weights`: what follows is then given what the layer
    makes with these. `model` is a native one that computes by the library's own functions; `tokens` are
    [sequences, tokens], of which `jobs` batches are run at the same time. Unrunnable for a model whose
    layers do not hand states from one to the next.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    with one_thread(), unwarned(), ThreadPoolExecutor(jobs) as pool:
        outer = Outer(model, weights, paths)
        states, calls = [], []
        for batch in batches_of(tokens):
            states.append(outer.before_layers(torch.from_numpy(batch)))
            calls.append(outer.calls)
        for layer, *at in track([*zip(outer.layers, *calls, strict=True)], "calibrate", " layers"):
            path = paths[id(layer)]
            with loaded(layer, path, weights) as names:
                run = partial(watched, names, measure_of)
                sums: Sums = {}
                results = []
                for state, more in in_order(pool, jobs, [*map(partial, repeat(run), at, states)]):
                    results.append(state)
                    sums = added(sums, more)
            if settle(sums):
                with loaded(layer, path, weights):
                    results = [*in_order(pool, jobs, [*map(partial, repeat(Call.run), at, states)])]
            states = results
        name = head_weight_name(model)
        sums = {}
        for state in states:
            sums = added(sums, {name: measure_of(name)(outer.before_head(state))})
        settle(sums)


def batches_of(tokens: np.ndarray) -> list[np.ndarray]:
    """Of sequences, those that are run together: others may round otherwise."""
    count = min(len(tokens), -(-tokens.size // BATCH_TOKENS))
    return np.array_split(tokens.astype(np.int64), count)


class Beside:
    """Tokens that are run through the layers while these are in memory for something else, and the mean
    squares that `mean_squares` finds.
    """

    def __init__(self, outer: Outer, tokens: np.ndarray) -> None:
        self.outer, self.found = outer, dict[str, Floats]()
        self.states: list[torch.Tensor] = []
        self.calls: list[list[Call]] = []
        for batch in batches_of(tokens):
            self.states.append(outer.before_layers(torch.from_numpy(batch)))
            self.calls.append(outer.calls)

    def layer(self, number: int, names: Mapping[int, str]) -> None:
        sums: Sums = {}
        for at, calls in enumerate(self.calls):
            self.states[at], more = watched(names, lambda name: SQUARES, calls[number], self.states[at])
            sums = added(sums, more)
        self.keep(sums)

    def head(self) -> None:
        name, sums = head_weight_name(self.outer.model), dict[str, Sum]()
        for state in self.states:
            sums = dict(added(sums, {name: SQUARES(self.outer.before_head(state))}))
        self.keep(sums)

    def keep(self, sums: Sums) -> None:
        self.found.update({name: sum_.mean for name, sum_ in sums.items()})


@torch.no_grad()
def watched(
    names: Mapping[int, str], measure_of: MeasureOf, call: Call, state: torch.Tensor
) -> tuple[torch.Tensor, Sums]:
    """What a layer makes of a state, and what is measured of what it multiplies by."""
    with Watch(names, measure_of) as watch:
        return call.run(state), watch.found


def sample_product(tokens: int, rows: int, columns: int) -> Callable[[], object]:
    """Multiplies so many tokens by a weight, as layers do; for those who want to know what that takes."""
    inputs, weight = torch.ones(tokens, columns), torch.ones(rows, columns)

    def multiply() -> object:
        with one_thread():
            return torch.nn.functional.linear(inputs, weight)

    return multiply


def in_order(pool: Executor, ahead: int, calls: Sequence[Callable[[], Item]]) -> Iterator[Item]:
    """The results of calls, of which no more than `ahead` are under way or wait to be taken."""
    waiting = deque[Future[Item]]()
    for call in calls:
        if len(waiting) == ahead:
            yield waiting.popleft().result()
        waiting.append(pool.submit(call))
    while waiting:
        yield waiting.popleft().result()
