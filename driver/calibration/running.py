"""A model that runs before its weights become codes, and what a cache keeps of that.

Keys are made of everything that enters: the program and the libraries that compute, the model and all of its
weights, the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np

from compiler.versions import library
from compiler.weights.stored import Array
from driver.cache import Cache, key_of
from driver.cached import digest_of, made_by
from driver.groups import table_of
from driver.job import Job
from frontend.build import native_model
from frontend.config import ModelConfig

COMPUTING = ("torch", "transformers")
Arrays: TypeAlias = Mapping[str, Array]


@dataclass
class Running:
    """The model of a job."""

    job: Job
    config: ModelConfig

    @cached_property
    def native(self) -> Any:
        return native_model(dict(self.config.values), self.job.options.seq_length, "eager", "eager")

    @property
    def vocabulary(self) -> int:
        return int(table_of(self.job.model).y.type.shape[0])

    def kept(self, what: str, entered: Sequence[object], make: Callable[[], Arrays]) -> Arrays:
        """What the job's cache has of some runs, or what is made by them, and kept there."""
        if self.job.cache is None:
            return make()
        key = self.key(what, *entered)
        found = taken(self.job.cache, key)
        if found is None:
            found = make()
            keep(self.job.cache, key, found)
        return found

    def key(self, what: str, *entered: object) -> str:
        """Of what depends on the model and some more: arrays, or what a text tells apart."""
        told = (digest_of(each) if isinstance(each, np.ndarray) else repr(each) for each in entered)
        return key_of(what, *self.identity, *told)

    @cached_property
    def identity(self) -> list[str | bytes]:
        """Of the program, the model and its weights, as the checkpoint has these."""
        job, values = self.job, sorted(self.config.values.items())
        names = sorted(job.weights.tensors.keys() - job.digests.keys())
        with ThreadPoolExecutor(job.options.job_count) as pool:
            found = pool.map(lambda name: digest_of(job.weights.read(name)), names)
            job.digests.update(zip(names, found, strict=True))
        weights = [part for name in sorted(job.weights.tensors) for part in (name, job.digests[name])]
        long = self.config.by_long_factors(job.options.seq_length)  # all that the length changes
        return [made_by(), *map(library, COMPUTING), repr(values), repr(long), *weights]


def taken(cache: Cache, key: str) -> Arrays | None:
    found = cache.get(key)
    if found is None:
        return None
    with np.load(BytesIO(found), allow_pickle=False) as arrays:
        return dict(arrays)


def keep(cache: Cache, key: str, arrays: Arrays) -> None:
    file = BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    cache.put(key, [file.getbuffer()])
