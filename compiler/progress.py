"""Progress of long work, for whoever watches a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

Item = TypeVar("Item")

LOOK: dict[str, Any] = {"leave": False, "dynamic_ncols": True, "disable": None}  # None: off a terminal


@contextmanager
def counter(title: str, total: int, unit: str) -> Iterator[Callable[..., object]]:
    """A function to call when one more of `total` is done, or as many as it is told; shown as `track` shows
    its items.
    """
    from tqdm import tqdm

    with tqdm(desc=title, total=total, unit=unit, **LOOK) as bar:
        yield bar.update


@contextmanager
def steps(title: str, seconds: Sequence[float]) -> Iterator[Callable[[], object]]:
    """A function to call when the next of some steps is done, which take time in proportion to `seconds`."""
    from tqdm import tqdm

    left, shown = iter(seconds), "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(desc=title, total=sum(seconds), bar_format=shown, mininterval=0, **LOOK) as bar:
        yield lambda: bar.update(next(left))


def track(items: Iterable[Item], title: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a bar on stderr that says how far they are and the time left; silent off a terminal.

    `unit` is what a person calls an item: " layers", " nets".
    """
    from tqdm import tqdm

    count = len(items) if total is None and isinstance(items, Sized) else total
    yield from tqdm(items, title, count, unit=unit, **LOOK)


def note(text: str) -> None:
    """Tell a person who waits what is going on; not a file or another program."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def say(text: str) -> None:
    """Print a line of a result at once, above the bars that are being shown."""
    from tqdm import tqdm

    tqdm.write(text)
    sys.stdout.flush()
