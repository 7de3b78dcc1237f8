"""Orders in which queues may run as their waits permit. A missing wait does not survive all of them."""

from __future__ import annotations

import random

from runtime_sim.launch.queues import ENGINES, Choose


def alternating() -> Choose:
    """Each queue in turn."""
    last = -1

    def choose(ready: list[int]) -> int:
        nonlocal last
        last = next((queue for queue in ready if queue > last), ready[0])
        return last

    return choose


def run_ahead(engine: str) -> Choose:
    """One engine as far ahead of the other as the waits permit."""
    preferred = ENGINES.index(engine)
    return lambda ready: min(ready, key=lambda queue: (queue % 2 != preferred, queue))


def core_ahead(core: int) -> Choose:
    """One core as far ahead of the others as the waits permit."""
    return lambda ready: min(ready, key=lambda queue: (queue // 2 != core, queue))


def shuffled(seed: int) -> Choose:
    """Random bursts of one queue or another, the same for the same seed."""
    rng = random.Random(seed)
    favourite = 0

    def choose(ready: list[int]) -> int:
        nonlocal favourite
        if favourite not in ready or rng.random() < 0.1:
            favourite = rng.choice(ready)
        return favourite

    return choose
