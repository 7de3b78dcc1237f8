"""What a cache keeps of codes that depend on each other: an entry for each parameter, and one of all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compiler.weights.stored import Array
from driver.cache import Cache
from driver.calibration.feedback import Settling
from driver.calibration.kept import Codes, Replaced, Vector
from driver.calibration.running import Arrays, keep, taken
from frontend.sources.source import Source

Key = Callable[[str], str]  # of an entry: its parameter's, or that of all
ALL = ""
MADE = "/made"  # the names of those with an entry; others are of what is known of inputs


def keep_settled(cache: Cache, key: Key, settling: Settling) -> None:
    made = settling.weights.made
    for name, each in made.items():
        keep(cache, key(name), arrays_of(each))
    keep(cache, key(ALL), {**settling.importance, MADE: np.array([*made])})


def take_settled(cache: Cache, key: Key, settling: Settling) -> bool:
    """Whether all of it was there; or else nothing has changed."""
    known = taken(cache, key(ALL))
    if known is None:
        return False
    found = {}
    for name in known[MADE].tolist():
        arrays = taken(cache, key(name))
        if arrays is None:
            return False
        found[name] = replaced(name, arrays, settling)
    settling.weights.made.update(found)
    settling.importance.update((name, each) for name, each in known.items() if name != MADE)
    return True


def arrays_of(made: Source) -> Arrays:
    if isinstance(made, Vector):
        return {"values": made.values}
    assert isinstance(made, Codes)
    return {str(number): array for number, array in enumerate(made.stored)}


def replaced(name: str, arrays: Arrays, settling: Settling) -> Replaced:
    source = settling.weights.tensors[name]
    if "values" in arrays:
        return Vector(source, arrays["values"])
    scheme = settling.schemes[name]
    codes, scales, *zeros = (arrays[str(number)] for number in range(len(arrays)))
    typed: list[Array] = [codes, scales.view(scheme.scale.numpy), *zeros]
    return settling.shelf.put_stored(source, scheme, typed)
