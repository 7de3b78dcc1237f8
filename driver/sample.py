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
LEAST_GROUPS = 3  # one that is like no other, and two


@dataclass(frozen=True)
class Sample:
    """Two groups of runs stand for a call: what a group takes is a straight line in the keys that it meets.

    `seen`: the keys of each run; `near` and `far`: the numbers of runs of the two groups. A group are as many
    runs as a block of keys takes: the first meets whole blocks of others, the next ones parts of one besides.
    The first group of all meets no keys of others, and is like none of the rest.
    """

    seen: Sequence[int]
    near: Sequence[int]
    far: Sequence[int]

    @property
    def programs(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the runs that are compiled together."""
        return (*self.near,), (*self.far,), (*self.near, *self.far)

    def price(self, near: Price, far: Price, both: Price) -> Price:
        """Of all runs, by those of the programs. What a group adds to a program that has another one is what
        it takes in the midst of many, where the weights of one are loaded under the arithmetic of another.
        """
        others = [seen for number, seen in enumerate(self.seen) if number not in (*self.near, *self.far)]
        groups = len(others) / len(self.near)
        met = sum(self.seen[number] for number in self.near)
        step = sum(self.seen[number] for number in self.far) - met
        longer = sum(others) - groups * met
        return both + (both - far) * groups + (far - near) * (longer / step if step else 0)


def sample_of(function: Function, effort: Effort, spec: ChipSpec) -> Sample | None:
    """Of a function of the llm dialect; None where its runs are few.

    The two groups are an eighth and three eighths of the way, so that what differs between two blocks does
    not grow with the length.
    """
    tokens = token_count(function)
    runs = token_runs(tokens, effort.tokens or tokens, 0, spec.lanes)
    size = max(1, effort.keys // effort.tokens) if effort.tokens else 1
    groups = len(runs) // size
    if len(runs) <= FEW or groups < LEAST_GROUPS:
        return None
    near = max(1, groups // 8)
    far = min(3 * near, groups - 1)
    seen = [seen_keys(function, run) for run in runs]
    return Sample(seen, *(range(group * size, (group + 1) * size) for group in (near, far)))


def seen_keys(function: Function, run: Range) -> int:
    """The keys that a run meets, in all attentions."""
    found = 0
    for op in function.block.ops:
        if isinstance(op, llm.AttentionOp):
            stop = op.visible.stop_key(run.stop - 1, op.k.type.shape[2])
            found += stop - op.visible.first_key(run.start)
    return found
