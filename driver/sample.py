"""What a long call takes by a few of its runs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import mul

from compiler.ir.module import Function
from compiler.target.spec import ChipSpec
from dialects import llm
from dialects.nets import token_count
from driver.pipelines import Effort
from driver.price import Price
from passes.llm_to_tensor.in_sections import token_runs
from passes.llm_to_tensor.sections import Places, kind_of, sections_of
from passes.llm_to_tensor.turns import set_turns
from passes.ranges import Range

FEW = 4  # runs that are all compiled
LEAST_GROUPS = 3  # one that is like no other, and two


@dataclass(frozen=True)
class Some:
    """The numbers of the runs, and of the sections, that are compiled; none for all."""

    runs: tuple[int, ...] = ()
    sections: tuple[int, ...] = ()


@dataclass(frozen=True)
class SectionSample:
    """One section of each kind stands for all of its kind, and two of its runs for all of them.

    `times`: how much all take, by what the program of each kind takes.
    """

    programs: Sequence[Some]
    times: Sequence[float]

    def price(self, *prices: Price) -> Price:
        return sum(map(mul, prices, self.times), start=Price(0, 0, 0))


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
    def programs(self) -> Sequence[Some]:
        """The runs that are compiled together."""
        return Some((*self.near,)), Some((*self.far,)), Some((*self.near, *self.far))

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


def sample_of(function: Function, effort: Effort, spec: ChipSpec) -> Sample | SectionSample | None:
    """Of a function of the llm dialect; None where its runs are few, and no two of its sections alike.

    The two groups are an eighth and three eighths of the way, so that what differs between two blocks does
    not grow with the length.
    """
    if (found := section_sample(function, effort, spec)) is not None:
        return found
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


def section_sample(function: Function, effort: Effort, spec: ChipSpec) -> SectionSample | None:
    """None where there are no more than two sections, or none would be left out."""

    def cut(tokens: int) -> list[Range]:
        return token_runs(tokens, effort.tokens or tokens, 0, spec.lanes)

    sections = sections_of(function, Places(function), lambda tokens: len(cut(tokens)))
    if len(sections) <= 2:
        return None
    set_turns(sections, cut)
    alike: dict[Hashable, list[int]] = {}
    for number, section in enumerate(sections):
        alike.setdefault(kind_of(section), []).append(number)
    programs, times = [], []
    for first, *others in alike.values():
        runs = len(sections[first].runs)
        few = (runs // 2 - 1, runs // 2) if runs > 2 else ()
        programs.append(Some(few, (first,)))
        times.append((1 + len(others)) * (runs / 2 if few else 1))
    return SectionSample(programs, times) if any(each != 1 for each in times) else None


def seen_keys(function: Function, run: Range) -> int:
    """The keys that a run meets, in all attentions."""
    found = 0
    for op in function.block.ops:
        if isinstance(op, llm.AttentionOp):
            stop = op.visible.stop_key(run.stop - 1, op.k.type.shape[2])
            found += stop - op.visible.first_key(run.start)
    return found
