"""What a function does, in sizes: in which ways it may use local memory, and which of them cannot fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from compiler.ir.core import Value
from compiler.ir.module import Function
from compiler.ir.types import BF16, F32
from compiler.sizes import round_up
from compiler.target.spec import ChipSpec
from dialects import llm
from driver.pipelines import Effort
from driver.sample import FEW
from passes.chip.allocate_local import DoesNotFit
from passes.llm_to_tensor.sections import most_tokens

GUESS = 0.6  # of a lane: where more is known to be alive at once, the rest has hardly any room
SCORES = 4  # times those that become weights at a time: a tile of them, its weights, and what makes these
WITH_SCORES = 0.75  # of a lane: where more is alive at once with these, loads ahead have hardly any room
SINGLE = (("keys",), ("tokens",), ("keep",))  # steps along one axis
AT_ONCE = 512  # tokens: longer runs gain little, and take longer to try


@dataclass(frozen=True)
class Work:
    """The sizes of a function that matter to how it is cut.

    Bytes are those of a lane. `row_bytes`: the least that a row of lanes of tokens takes in activations alive
    at once; `key_bytes`: what one of keys and values takes, of all KV heads of an attention; `seen_bytes`:
    what one of queries takes that meet keys block by block, with what they have seen so far; `weight_bytes`:
    what all weights take that linears multiply by, in 16 bit.
    """

    tokens: int  # of a call
    keys: int = 0  # that they attend to
    row_bytes: int = 0
    key_bytes: int = 0
    seen_bytes: int = 0
    weight_bytes: int = 0

    def guesses(self, spec: ChipSpec) -> Iterator[Effort]:
        """Many tokens at a time that leave room for the rest, in blocks of as many keys or more; then fewer.

        One token meets all keys at once, and then fewer.
        """
        if self.tokens == 1:
            yield from (Effort(keys=keys) for keys in run_lengths(self.keys, spec.lanes))
            return
        *lengths, last = run_lengths(self.tokens, spec.lanes)
        for twice, tokens in pairwise([0, *lengths]):
            at_once = (tokens or self.tokens) <= AT_ONCE or not self.keys
            for keys in self._blocks(tokens, twice):
                effort = Effort(tokens, keys=keys)
                if at_once and self.least_bytes(effort, spec) <= GUESS * spec.lane_bytes:
                    yield effort
        yield Effort(last, keys=last if self.keys else 0)

    def _blocks(self, tokens: int, twice: int) -> tuple[int, ...]:
        """Keys to meet at a time; where runs are many, twice as many first: most searches end there."""
        if not self.keys:
            return (0,)
        return (twice, tokens) if self.tokens > FEW * tokens > 0 else (tokens,)

    def neighbours(self, effort: Effort, spec: ChipSpec) -> Iterator[list[Effort]]:
        """One step along one axis, where that makes a difference and can be priced.

        Those to more at once come first, also along both axes of attention, as they are fewer commands; then
        those to less.
        """
        axes = {
            "tokens": run_lengths(self.tokens, spec.lanes),
            "keys": self.key_counts(effort.tokens, spec.lanes),
            "keep": [0, spec.lane_bytes // 2],
        }
        for by, steps in ((-1, (("tokens", "keys"), *SINGLE)), (1, SINGLE)):
            moved = (self._moved(effort, axes, names, by) for names in steps)
            yield [found for found in moved if found and self.is_sensible(found)]

    def _moved(
        self, effort: Effort, axes: Mapping[str, Sequence[int]], names: Sequence[str], by: int
    ) -> Effort | None:
        """So many steps along some axes, where these go on."""
        places = {name: axes[name].index(getattr(effort, name)) + by for name in names}
        if not all(0 <= place < len(axes[name]) for name, place in places.items()):
            return None
        return replace(effort, **{name: axes[name][place] for name, place in places.items()})

    def key_counts(self, tokens: int, lanes: int) -> list[int]:
        """0 for all at once; where runs of so many tokens are few, all that a run sees, loaded anew for each;
        then halves.
        """
        everything, *halves = run_lengths(self.keys, lanes)
        seen = [round_up(self.keys, lanes)] if 0 < self.keys <= 2 * tokens else []
        return [everything, *seen, *halves]

    def is_sensible(self, effort: Effort) -> bool:
        """Whether it may be better than what is simpler. Many runs are streamed, and keep no weights."""
        runs = -(-self.tokens // (effort.tokens or self.tokens))
        if effort.keep and (not self.weight_bytes or self.tokens == 1 or runs > FEW):
            return False
        if self.tokens == 1:
            return True
        return effort.keys <= 2 * effort.tokens if effort.keys else runs <= FEW or not self.keys

    def check(self, effort: Effort, spec: ChipSpec) -> None:
        """DoesNotFit where it cannot fit, whatever its program is."""
        least = self.least_bytes(effort, spec)
        if least > spec.lane_bytes:
            raise DoesNotFit(
                f"{effort.tokens or self.tokens} tokens at a time need at least {least} bytes of "
                f"local memory per lane, {spec.name} has {spec.lane_bytes}"
            )

    def scores(self, effort: Effort, spec: ChipSpec) -> int:
        """Bytes that become weights at a time: twice what is usual where there is room, in fewer commands."""
        twice = 2 * spec.work_bytes
        least = self.least_bytes(effort, spec) + SCORES * twice
        return twice if self.keys and least <= WITH_SCORES * spec.lane_bytes else 0

    def least_bytes(self, effort: Effort, spec: ChipSpec) -> int:
        """What is alive at once of many tokens: of one of a few moments, whichever takes the most."""
        if self.tokens == 1:
            return 0
        run, block, call = (
            -(-count // spec.lanes) for count in (effort.tokens or self.tokens, effort.keys, self.tokens)
        )
        local, met = run * self.row_bytes, 0
        if effort.keys:
            met = run * self.seen_bytes + (run + block) * self.key_bytes
        else:
            local += call * self.key_bytes
        return min(effort.keep, self.weight_bytes) + max(local, met)


def run_lengths(total: int, lanes: int) -> list[int]:
    """0 for all at once, then halves, in whole rows of lanes."""
    found = [0]
    length = -(-total // lanes) * lanes
    while length > lanes:
        length = -(-length // 2 // lanes) * lanes
        found.append(length)
    return found


def work_of(function: Function, spec: ChipSpec) -> Work:
    """Of a function of the llm dialect, fused."""
    tokens, attentions = most_tokens(function), attentions_of(function)
    weights = sum(weight.type.size for weight in weights_of(function))
    return Work(
        tokens=tokens,
        keys=max((op.k.type.shape[2] for op in attentions), default=0),
        row_bytes=max(live_bytes(function)) // tokens,
        key_bytes=max((bytes_per_token(op.k, 2) + bytes_per_token(op.v, 2) for op in attentions), default=0),
        seen_bytes=max((seen_bytes(op) for op in attentions), default=0),
        weight_bytes=BF16.bytes * weights // spec.lanes,
    )


def attentions_of(function: Function) -> list[llm.AttentionOp]:
    return [op for op in function.block.ops if isinstance(op, llm.AttentionOp)]


def bytes_per_token(value: Value, axis: int) -> int:
    return int(value.type.size // value.type.shape[axis] * value.type.element.bytes)


def seen_bytes(op: llm.AttentionOp) -> int:
    """Of a query of all heads, and of the sums of the values that it has seen, in f32."""
    sums = op.y.type.size // op.y.type.shape[1] * F32.bytes
    return bytes_per_token(op.q, 2) + int(sums)


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
