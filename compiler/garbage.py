"""Python's garbage collector, which finds objects that only refer to each other."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector out, where what is done with is taken apart; see `compiler.ir.module.discard`.

    It looks through all objects each time their number has grown by a quarter, and a program is millions.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()  # and back, as old objects: they are not looked at at once
            gc.unfreeze()
            gc.enable()
