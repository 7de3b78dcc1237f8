"""Mixtures of experts: the library's interface for them, and what each class of experts computes.

A class says how its parameters lie, and which function stands between its two products is code. Neither is
taken on trust: `form_of` runs the class's own code on experts of a few numbers, and finds the one form of
`llm.experts` that gives the same.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import nn
from torch.nn import functional as F

from compiler.ir.core import Value
from compiler.weights.part import Part
from dialects import llm
from dialects.activations import Activation
from frontend.aten import Emitter, handles
from frontend.trace import Traced

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x) ** 2,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
assert ACTIVATIONS.keys() == set(get_args(Activation))

EXPERTS, HIDDEN, INNER, TOKENS = 3, 5, 4, 64  # of the experts that are tried; unlike each other


@dataclass(frozen=True)
class Form:
    """What a class of experts computes, in the words of `llm.experts`, and how its parameters lie.

    gated: the first parameter holds gate and up, one behind the other or, `interleaved`, in turns.
    transposed: its matrices and those of the second are [inputs, outputs].
    """

    act: str
    gated: bool = True
    interleaved: bool = False
    transposed: bool = False
    limit: float | None = None
    offset: float = 0.0

    def rows(self, outputs: int) -> list[tuple[int, int, int] | None]:
        """Which rows of the first parameter are the gate's, and the up's; without a gate, all are."""
        if not self.gated:
            return [None]
        if self.interleaved:
            return [(0, outputs, 2), (1, outputs, 2)]
        return [(0, outputs // 2, 1), (outputs // 2, outputs, 1)]

    def activated(self, products: torch.Tensor) -> torch.Tensor:
        act = ACTIVATIONS[self.act]
        if not self.gated:
            return act(products)
        gate, up = (products[..., slice(*rows)] for rows in self.rows(products.shape[-1]) if rows)
        if self.limit is not None:
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return act(gate) * (up + self.offset)


def experts(
    module: nn.Module, hidden_states: Traced, top_k_index: Traced, top_k_weights: Traced, **keywords: Any
) -> Any:
    """Record one llm.experts; hidden and the result [S, K], index and weights [S, k]."""
    recorder = hidden_states.recorder
    if any(given is not None for given in keywords.values()):
        raise recorder.refuse(f"experts take {', '.join(keywords)} too, which is not understood")
    form = form_of(module)
    if form is None:
        raise recorder.refuse(f"{type(module).__name__} computes something else than llm.experts can say")
    stacks = [module._parameters.get(name) for name in parameter_names(form.gated)]
    result = torch.empty(hidden_states.shape, dtype=hidden_states.dtype, device="meta")
    return recorder.record(
        "llm.experts", (hidden_states, top_k_index, top_k_weights, *stacks), {"form": form}, result
    )


def parameter_names(gated: bool) -> tuple[str, str, str, str]:
    first = "gate_up_proj" if gated else "up_proj"
    return first, "down_proj", f"{first}_bias", "down_proj_bias"


# ---- what they compute ----


def form_of(module: Any) -> Form | None:
    """The one form under which experts of a few numbers give what the class's own code gives for them."""
    gated = "gate_up_proj" in module._parameters
    if not module._parameters.keys() <= set(parameter_names(gated)):
        return None
    candidates = [*forms(module, gated)]
    try:
        tried = small_copy(module, gated)
        given = probe(max((form.limit or 0 for form in candidates), default=0))
        expected = type(module).forward.__wrapped__(tried, *given)
    except Exception:  # whatever code of the library may do with experts that are not its own
        return None
    found = [form for form in candidates if same(run(form, tried, *given), expected)]
    return found[0] if len(found) == 1 else None


def forms(module: Any, gated: bool) -> Iterator[Form]:
    """All that may be meant, with the numbers that the module keeps as limits."""
    limits = dict.fromkeys(float(x) for x in vars(module).values() if isinstance(x, float) and x > 0)
    for act in ACTIVATIONS:
        form = Form(act, gated, transposed=bool(module.is_transposed))
        if not gated:
            yield form
            continue
        for interleaved, limit, offset in itertools.product((False, True), (None, *limits), (0.0, 1.0)):
            yield replace(form, interleaved=interleaved, limit=limit, offset=offset)


def small_copy(module: Any, gated: bool) -> Any:
    """The same module with parameters of a few numbers."""
    first, down, first_bias, down_bias = parameter_names(gated)
    copies = 2 if gated else 1
    shapes = {
        first: (HIDDEN, copies * INNER) if module.is_transposed else (copies * INNER, HIDDEN),
        down: (INNER, HIDDEN) if module.is_transposed else (HIDDEN, INNER),
        first_bias: (copies * INNER,),
        down_bias: (HIDDEN,),
    }
    numbers = torch.Generator().manual_seed(0)
    small = copy.copy(module)
    small.__dict__["_parameters"] = {
        name: torch.randn((EXPERTS, *shapes[name]), generator=numbers)
        for name, parameter in module._parameters.items()
        if parameter is not None
    }
    small.num_experts = EXPERTS
    return small


def probe(limit: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of many magnitudes, beyond the limit too, two experts for each, and their weights."""
    numbers = torch.Generator().manual_seed(1)
    scale = torch.logspace(-2, math.log10(4 * max(limit, 10.0)), TOKENS)
    x = torch.randn((TOKENS, HIDDEN), generator=numbers) * scale[:, None]
    ids = torch.rand((TOKENS, EXPERTS), generator=numbers).topk(2).indices
    return x, ids, torch.rand((TOKENS, 2), generator=numbers)


def run(form: Form, module: Any, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What `llm.experts` says of a form, on the parameters of a module."""
    up, down, up_bias, down_bias = (module._parameters.get(name) for name in parameter_names(form.gated))
    y = torch.zeros_like(x)
    for expert in range(EXPERTS):
        inner = form.activated(product(form, x, up, up_bias, expert))
        chosen = (weights * (ids == expert)).sum(-1, keepdim=True)
        y += chosen * product(form, inner, down, down_bias, expert)
    return y


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def product(form: Form, x: torch.Tensor, stack: Any, biases: Any, expert: int) -> torch.Tensor:
    matrix: torch.Tensor = stack[expert] if form.transposed else stack[expert].T
    return x @ matrix if biases is None else x @ matrix + biases[expert]


# ---- in the llm dialect ----


@handles("llm.experts")
def import_experts(
    emit: Emitter,
    hidden: Value,
    ids: Value,
    weights: Value,
    up: Value,
    down: Value,
    up_bias: Value | None,
    down_bias: Value | None,
    form: Form,
) -> Value:
    outputs = up.type.shape[2 if form.transposed else 1]
    matrices = [part(emit, up, rows, form.transposed) for rows in form.rows(outputs)]
    biases = [part(emit, up_bias, rows) for rows in form.rows(outputs)]
    gate, gate_bias = (matrices[0], biases[0]) if form.gated else (None, None)
    return emit(
        llm.ExpertsOp,
        hidden,
        ids,
        weights,
        gate,
        matrices[-1],
        part(emit, down, None, form.transposed),
        gate_bias,
        biases[-1],
        part(emit, down_bias, None),
        act=form.act,
        limit=form.limit,
        offset=form.offset,
    )


def part(
    emit: Emitter, stack: Value | None, rows: tuple[int, int, int] | None, transposed: bool = False
) -> Value | None:
    """A parameter of experts as the op takes it: each expert's matrix, or vector, by some of its outputs."""
    if stack is None:
        return None
    parameter = stack.defining(llm.WeightOp)
    assert parameter is not None, "experts take parameters as they are"
    if rows is None and not transposed:
        return stack
    chosen = Part(parameter.name, None, transposed, rows)
    type_ = replace(stack.type, shape=chosen.shape(stack.type.shape))
    return emit(llm.WeightOp, name=str(chosen), types=[type_])
