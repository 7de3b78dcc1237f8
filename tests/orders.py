"""Orders in which a program may run, as its waits permit: what a missing wait does not survive."""

from __future__ import annotations

import random

from runtime_sim.launch.queues import ENGINES, Choose


def run_ahead(engine: str) -> Choose:
    """One engine as far ahead of the other as the waits permit."""
    preferred = ENGINES.index(engine)
    return lambda ready: min(ready, key=lambda queue: (queue % 2 != preferred, queue))


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
