"""What a long call takes by a few of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.ir.module import Function
from compiler.target.spec import ChipSpec
from dialects import llm
from dialects.nets import token_count
from driver.pipelines import Effort
from driver.price import Price
from passes.llm_to_tensor.prefill import token_runs
from passes.ranges import Range

FEW = 4  # runs that are all compiled


@dataclass(frozen=True)
class Sample:
    """Two runs of a call stand for all: what a run takes is a straight line in the keys that it meets.

    `seen`: those of each run. The first run meets no keys of others, and is like none of the rest.
    """

    seen: Sequence[int]

    @property
    def programs(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the runs that are compiled together."""
        return (1,), (2,), (1, 2)

    def price(self, near: Price, far: Price, both: Price) -> Price:
        """Of all runs, by those of the programs. What a run adds to a program that has another one is what it
        takes in the midst of many, where the weights of one are loaded under the arithmetic of another.
        """
        others = (self.seen[0], *self.seen[3:])
        longer = sum(seen - self.seen[1] for seen in others)
        step = self.seen[2] - self.seen[1]
        return both + (both - far) * len(others) + (far - near) * (longer / step if step else 0)


def sample_of(function: Function, effort: Effort, spec: ChipSpec) -> Sample | None:
    """Of a function of the llm dialect; None where its runs are few."""
    tokens = token_count(function)
    runs = token_runs(tokens, effort.tokens or tokens, 0, spec.lanes)
    return Sample([seen_keys(function, run) for run in runs]) if len(runs) > FEW else None


def seen_keys(function: Function, run: Range) -> int:
    """The keys that a run meets, in all attentions."""
    found = 0
    for op in function.block.ops:
        if isinstance(op, llm.AttentionOp):
            stop = op.k.type.shape[2] if op.visible.sees_later else run.stop
            found += stop - op.visible.first_key(run.start)
    return found
