"""Plans beside the best of all plans, which small cases can be tried for."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from driver.budget.knapsack import Choice, Layer, Plan, best_plan, few_plans, loss_of, total

CASES = range(20)


def items(seed: int, count: int = 6) -> list[list[Choice]]:
    """Of weights in 4, 8 and 16 bits: each step costs more, and gains less for it."""
    rng = np.random.default_rng(seed)
    sizes, losses = rng.integers(1, 9, count), rng.exponential(size=count)
    return [
        [Choice(int(size) * bits, float(loss) * left) for bits, left in ((4, 1.0), (8, 0.005), (16, 0.0))]
        for size, loss in zip(sizes, losses, strict=True)
    ]


def least_loss(given: list[list[Choice]], budget: int) -> float:
    found = (total(given, plan) for plan in product(range(3), repeat=len(given)))
    return min(each.loss for each in found if each.cost <= budget)


def bounds(given: list[list[Choice]]) -> tuple[int, int]:
    return sum(item[0].cost for item in given), sum(item[-1].cost for item in given)


@pytest.mark.parametrize("seed", CASES)
def test_nothing_that_fits_beside_the_largest_step_is_better(seed):
    given = items(seed)
    low, high = bounds(given)
    step = max(item[-1].cost - item[0].cost for item in given)
    for budget in range(low, high + 1, 7):
        made = total(given, best_plan(given, budget))
        assert made.cost <= budget
        assert made.loss <= least_loss(given, max(low, budget - step)) + 1e-12


@pytest.mark.parametrize("seed", CASES)
def test_what_is_left_of_a_budget_loses_little(seed):
    """Every plan is the best for what it costs itself until the first step that does not fit."""
    given = items(seed)
    low, high = bounds(given)
    ratios = [
        total(given, best_plan(given, budget)).loss / max(1e-9, least_loss(given, budget))
        for budget in range(low, low + (high - low) // 3, 5)
    ]
    assert np.mean(ratios) < 1.35


def test_ends():
    given = items(0)
    low, high = bounds(given)
    assert set(best_plan(given, low)) == {0}
    assert set(best_plan(given, high)) == set(best_plan(given, 10 * high)) == {2}


def test_what_costs_nothing_more_is_taken_and_what_gains_nothing_is_not():
    assert best_plan([[Choice(8, 1.0), Choice(4, 0.5)], [Choice(4, 0.0), Choice(8, 0.0)]], 12) == (1, 0)


def layers(seed: int, kinds: str) -> list[Layer]:
    return [Layer(kind, items(seed + index, 2)) for index, kind in enumerate(kinds)]


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("seed", CASES[:8])
def test_layers_of_a_kind_have_few_plans(seed, most):
    given = layers(seed, "aaaab")
    low = sum(item[0].cost for layer in given for item in layer.items)
    for budget in (low, low * 5 // 4, low * 3 // 2, low * 2, low * 4):
        plans = few_plans(given, budget, most)
        costs = [total(layer.items, plan).cost for layer, plan in zip(given, plans, strict=True)]
        assert sum(costs) <= budget
        assert len({*plans[:4]}) <= most


@pytest.mark.parametrize("seed", CASES[:8])
def test_few_plans_lose_little_more_than_the_best_few(seed):
    given = layers(seed, "aaa")
    low = sum(item[0].cost for layer in given for item in layer.items)
    wide, ratios = [*product(range(3), repeat=2)], []
    for budget in (low * 5 // 4, low * 3 // 2, low * 2):
        best = min(
            loss_of(given, plans)
            for plans in product(wide, repeat=3)
            if len({*plans}) <= 2 and cost_of(given, plans) <= budget
        )
        ratios.append((loss_of(given, few_plans(given, budget, 2)) + 1e-3) / (best + 1e-3))
    assert np.median(ratios) < 2.5


def cost_of(given: list[Layer], plans: tuple[Plan, ...]) -> int:
    return sum(total(layer.items, plan).cost for layer, plan in zip(given, plans, strict=True))


def test_a_budget_for_all_takes_all():
    given = layers(0, "aab")
    high = sum(item[-1].cost for layer in given for item in layer.items)
    assert {*few_plans(given, high, 2)} == {(2, 2)}
