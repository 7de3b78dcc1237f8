"""What a function does, in sizes: in which ways it may use local memory, and which of them cannot fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from compiler.ir.core import Value
from compiler.ir.module import Function
from compiler.ir.types import BF16, F32
from compiler.target.spec import ChipSpec
from dialects import llm
from dialects.nets import token_count
from driver.pipelines import Effort
from passes.chip.allocate_local import DoesNotFit


@dataclass(frozen=True)
class Work:
    """The sizes of a function that matter to how it is cut.

    Bytes are those of a lane. `row_bytes`: the least that a row of lanes of tokens takes in activations alive
    at once; `key_bytes`: what one of keys and values takes, of all KV heads and attentions; `weight_bytes`:
    what all weights take that linears multiply by, in 16 bit.
    """

    tokens: int  # of a call
    row_bytes: int = 0
    key_bytes: int = 0
    weight_bytes: int = 0

    def guesses(self, spec: ChipSpec) -> Iterator[Effort]:
        """As many tokens at a time as leave half of local memory for the rest, and then fewer."""
        for tokens in run_lengths(self.tokens, spec.lanes):
            effort = Effort(tokens)
            if 2 * self.least_bytes(effort, spec) <= spec.lane_bytes or 0 < tokens <= spec.lanes:
                yield effort

    def neighbours(self, effort: Effort, spec: ChipSpec) -> Iterator[Effort]:
        """One step along one axis."""
        kept = [0, spec.lane_bytes // 2] if self.weight_bytes else [0]
        axes = {"tokens": run_lengths(self.tokens, spec.lanes), "keep": kept}
        for name, values in axes.items() if self.tokens > 1 else ():
            place = values.index(getattr(effort, name))
            for value in values[max(0, place - 1) : place + 2]:
                if value != values[place]:
                    yield replace(effort, **{name: value})

    def check(self, effort: Effort, spec: ChipSpec) -> None:
        """DoesNotFit where it cannot fit, whatever its program is."""
        least = self.least_bytes(effort, spec)
        if least > spec.lane_bytes:
            raise DoesNotFit(
                f"{effort.tokens or self.tokens} tokens at a time need at least {least} bytes of "
                f"local memory per lane, {spec.name} has {spec.lane_bytes}"
            )

    def least_bytes(self, effort: Effort, spec: ChipSpec) -> int:
        """The activations of a run of tokens, all keys and values, and the weights that are kept."""
        if self.tokens == 1:
            return 0
        run, call = (-(-tokens // spec.lanes) for tokens in (effort.tokens or self.tokens, self.tokens))
        return run * self.row_bytes + call * self.key_bytes + min(effort.keep, self.weight_bytes)


def run_lengths(input_length: int, lanes: int) -> list[int]:
    """0 for all tokens at once, then halves, in whole rows of lanes."""
    found = [0]
    length = -(-input_length // lanes) * lanes
    while length > lanes:
        length = -(-length // 2 // lanes) * lanes
        found.append(length)
    return found


def work_of(function: Function, spec: ChipSpec) -> Work:
    """Of a function of the llm dialect, fused."""
    tokens = token_count(function)
    weights = sum(weight.type.size for weight in weights_of(function))
    return Work(
        tokens=tokens,
        row_bytes=max(live_bytes(function)) // tokens,
        key_bytes=sum(key_sizes(function)) // tokens,
        weight_bytes=BF16.bytes * weights // spec.lanes,
    )


def weights_of(function: Function) -> Iterator[Value]:
    """The matrices of all linears, experts and the like."""
    for op in function.block.ops:
        yield from op.projections if isinstance(op, llm.Projects) else ()


def live_bytes(function: Function) -> Iterator[int]:
    """At each op, a lower bound of what activations take that were made before it, and are read later.

    Only what norms and linears make is counted, which is no view of anything else, and for as long as ops
    read it as it is; not what a gate makes, which exists tile by tile.
    """
    places = {op: place for place, op in enumerate(function.block.ops)}
    change = [0] * (len(places) + 1)
    for op, place in places.items():
        if isinstance(op, llm.RmsNormOp | llm.LayerNormOp | llm.LinearOp) and op.y.users:
            change[place + 1] += least_size(op.y)
            change[max(places[user] for user in op.y.users) + 1] -= least_size(op.y)
    return accumulate(change)


def least_size(value: Value) -> int:
    """Bytes of an activation: as its type has it, but sums in f32."""
    added_to = any(isinstance(user, llm.LinearOp) and user.residual is value for user in value.users)
    return int(value.type.size * (F32 if added_to else value.type.element).bytes)


def key_sizes(function: Function) -> Iterator[int]:
    """Bytes of the keys and values of each attention."""
    for op in function.block.ops:
        if isinstance(op, llm.AttentionOp):
            yield from (least_size(value) for value in (op.k, op.v))
