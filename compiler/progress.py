"""Progress of long work, for whoever watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def counter(title: str, total: int) -> Iterator[Callable[[], object]]:
    """A function to call when one more of `total` steps is done; shown as `track` shows its items."""
    from tqdm import tqdm

    with tqdm(desc=title, total=total, leave=False, dynamic_ncols=True, disable=None) as bar:
        yield bar.update


def track(items: Iterable[Item], title: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that says how far they are and the time left; silent off a terminal."""
    from tqdm import tqdm

    count = len(items) if total is None and isinstance(items, Sized) else total
    yield from tqdm(items, title, count, leave=False, dynamic_ncols=True, disable=None)


def say(text: str) -> None:
    """Print a line of a result at once, above the bars that are being shown."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()
