"""Progress of long work, for whoever watches a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

Item = TypeVar("Item")


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that says how far they are and the time left; silent off a terminal."""
    from tqdm import tqdm

    count = len(items) if total is None and isinstance(items, Sized) else total
    yield from tqdm(items, title, count, leave=False, dynamic_ncols=True, disable=None)
