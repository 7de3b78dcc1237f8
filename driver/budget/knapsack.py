"""Which of several choices to take for each of many items, so that little is lost and what they cost fits.

Choices of an item are in the order of what they cost. Greedy, by what a unit of cost saves: nothing that
costs as much or less loses less, but for what the last steps leave of the budget.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

SLOPES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the last step, by which plans are compared


@dataclass(frozen=True)
class Choice:
    """What one of the choices costs, and what is lost with it."""

    cost: int
    loss: float

    def __add__(self, other: Choice) -> Choice:
        return Choice(self.cost + other.cost, self.loss + other.loss)


NOTHING = Choice(0, 0.0)
Item: TypeAlias = Sequence[Choice]
Plan: TypeAlias = tuple[int, ...]  # the choice of each item


def total(items: Sequence[Item], plan: Sequence[int]) -> Choice:
    return sum((item[index] for item, index in zip(items, plan, strict=True)), NOTHING)


def best_plan(items: Sequence[Item], budget: int) -> Plan:
    """The first choices of all items, which may cost more than the budget, and what pays most beyond."""
    return stepped(items, budget)[0]


def stepped(items: Sequence[Item], budget: int) -> tuple[Plan, float]:
    """The plan, and what a unit of cost saved in the least of its steps; 0 where there was none."""
    plan, slope = [0] * len(items), float("inf")
    left = budget - total(items, plan).cost
    while True:
        steps = (step for at, item in enumerate(items) for step in steps_of(item, at, plan[at], left))
        saved, at, index = max(steps, default=(0.0, -1, -1), key=lambda step: (step[0], -step[1]))
        if at < 0:
            return tuple(plan), slope if slope < float("inf") else 0.0
        left -= items[at][index].cost - items[at][plan[at]].cost
        plan[at], slope = index, min(slope, saved)


def steps_of(item: Item, at: int, now: int, left: int) -> list[tuple[float, int, int]]:
    """What a unit of cost saves with the other choices that lose less and fit, and where that is."""
    found = []
    for index, choice in enumerate(item):
        more, saved = choice.cost - item[now].cost, item[now].loss - choice.loss
        if saved > 0 and more <= left:
            found.append((saved / more if more > 0 else float("inf"), at, index))
    return found


@dataclass(frozen=True)
class Layer:
    """Items whose choices are made together: layers of a kind with the same plan are compiled once."""

    kind: Hashable
    items: Sequence[Item]


def few_plans(layers: Sequence[Layer], budget: int, most: int) -> list[Plan]:
    """A plan for each layer, at most `most` different ones for those of a kind; see `best_plan`.

    Each kind has those of the plans that layers would take by themselves, and of those in which all items
    have the same choice, with which least is lost when cost is lost as well, at about the going rate.
    """
    items = [item for layer in layers for item in layer.items]
    free, slope = stepped(items, budget)
    wanted = iter(free)
    alone = [tuple(next(wanted) for _ in layer.items) for layer in layers]
    tried = (with_plans(layers, alone, slope * times, budget, most) for times in SLOPES)
    return min(tried, key=lambda plans: loss_of(layers, plans))


def loss_of(layers: Sequence[Layer], plans: Sequence[Plan]) -> float:
    return sum(total(layer.items, plan).loss for layer, plan in zip(layers, plans, strict=True))


def with_plans(
    layers: Sequence[Layer], alone: Sequence[Plan], slope: float, budget: int, most: int
) -> list[Plan]:
    """The best with few plans of each kind, where a unit of cost counts as `slope` units of loss."""
    plans: dict[Hashable, list[Plan]] = {}
    for kind in dict.fromkeys(layer.kind for layer in layers):
        alike = [layer for layer in layers if layer.kind == kind]
        wanted = [plan for layer, plan in zip(layers, alone, strict=True) if layer.kind == kind]
        plans[kind] = few(alike, wanted, slope, most)
    merged = [[total(layer.items, plan) for plan in plans[layer.kind]] for layer in layers]
    chosen = best_plan(merged, budget)
    return [plans[layer.kind][index] for layer, index in zip(layers, chosen, strict=True)]


def few(layers: Sequence[Layer], wanted: Sequence[Plan], slope: float, most: int) -> list[Plan]:
    """The plan of first choices, and one after the other those that lessen the sum of all layers most."""
    items = layers[0].items
    uniform = [(index,) * len(items) for index in range(len(items[0]))]
    costs = {
        plan: [worth(total(layer.items, plan), slope) for layer in layers]
        for plan in dict.fromkeys([*uniform, *wanted])
    }
    kept = [uniform[0]]
    least = costs[kept[0]]
    while len(kept) < most:
        sums = {plan: sum(map(min, least, cost)) for plan, cost in costs.items()}
        best = min(sums, key=lambda plan: sums[plan])
        if sums[best] >= sum(least):
            break
        kept.append(best)
        least = [*map(min, least, costs[best])]
    return kept


def worth(choice: Choice, slope: float) -> float:
    return choice.loss + choice.cost * slope
