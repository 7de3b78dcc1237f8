"""Weights made by workers on other machines, through a scheduler of dask.distributed.

A task is all that making some pieces needs: where the tensors lie, which pieces, how inputs count. Workers
read the checkpoint by the same paths, so the folder is one that all see. The bytes are the same wherever they
are made; a worker that is lost costs its tasks only, which the scheduler gives to others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from compiler.command import not_installed
from compiler.diagnostics import CompileError, UserError
from compiler.weights.order import weight_and_order
from compiler.weights.part import part_of
from compiler.weights.scaled import weight_and_scale
from compiler.weights.stored import Array, Floats
from dialects.weights import Joined, Packed, WeightSource
from driver.blob import Make, Materializer, Piece
from driver.cached import bytes_in, cut, made_by, tensors_of
from driver.options import ADDRESS
from frontend.binding import Weights
from frontend.imported import Instance

SECONDS = 10  # to reach a scheduler


@dataclass(frozen=True)
class Task:
    """What a worker is to make, and by which version."""

    version: str
    weights: Weights
    instance: Instance
    sources: tuple[WeightSource, ...]
    importance: Mapping[str, Floats]


@dataclass(frozen=True)
class Made:
    data: Array  # bytes; an array is sent without a copy
    beyond: frozenset[str]  # parameters that had to be clipped


def carry_out(task: Task) -> Made:
    """Done by a worker. UserError where it is of another version."""
    if task.version != made_by():
        raise UserError("a worker has another version of this program or its libraries")
    weights = replace(task.weights, beyond=set())
    made = Materializer(
        lambda name: weights.read(task.instance.parameter_name(name)),
        {},
        task.instance.parameter_name,
        task.importance.get,
    )
    data = [np.frombuffer(bytes_in(piece), np.uint8) for piece in made.pieces(task.sources)]
    return Made(np.concatenate(data), frozenset(weights.beyond))


class Executor:
    """The workers of a scheduler.

    UserError when it cannot be reached, or has no workers, or one of another version.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client = connected(address)
        with told(address):
            versions = self.client.run(made_by)
        if not versions:
            raise UserError(f"--executor {address}: has no workers: start some with 'dask worker'")
        for worker, version in sorted(versions.items()):
            if version != made_by():
                raise UserError(f"--executor {address}: worker {worker} has another version of this program")

    @property
    def slots(self) -> int:
        """Tasks that the workers do at once."""
        return int(sum(self.client.nthreads().values())) or 1

    def close(self) -> None:
        with suppress(Exception):
            self.client.close()

    def make(self, weights: Weights, instance: Instance) -> Make:
        """As `Materializer.pieces`, by a worker where that is worth it."""

        def pieces_of(pieces: Sequence[Piece], materializer: Materializer) -> list[Array]:
            sources = tuple(piece.source for piece in pieces)
            known = reached(weights, instance, sources)
            if known is None or not all(isinstance(source, Packed | Joined) for source in sources):
                return list(materializer.pieces(sources))
            task = Task(made_by(), known, instance, sources, counting(sources, materializer))
            with told(self.address):
                future = self.client.submit(carry_out, task, pure=False)
                made: Made = self.client.gather(future, direct=True)  # or by the scheduler, if it must be
            weights.beyond.update(made.beyond)
            return list(cut(made.data, [piece.size for piece in pieces]))

        return pieces_of


def reached(weights: Weights, instance: Instance, sources: Sequence[WeightSource]) -> Weights | None:
    """The weights with only those parameters that pieces are made of; None where some are of this process:
    codes that were chosen here are only to be packed.
    """
    names = {
        parameter
        for source in sources
        if isinstance(source, Packed | Joined)
        for name in tensors_of(source)
        for parameter in parameters_in(instance.parameter_name(name))
    }
    if not names.isdisjoint(weights.made):
        return None
    tensors = {name: weights.tensors[name] for name in sorted(names)}
    return replace(weights, tensors=tensors, beyond=set(), made={})


def parameters_in(name: str) -> set[str]:
    """What `Weights.read` reads for a name."""
    weight, other = weight_and_scale(name)
    if other is None:
        weight, other = weight_and_order(name)
    if other is not None:
        return parameters_in(weight) | parameters_in(other)
    part = part_of(name)
    return {name if part is None else part.parameter}


def counting(sources: Sequence[WeightSource], materializer: Materializer) -> dict[str, Floats]:
    """How the inputs of each tensor count, where that is known."""
    names = {name for source in sources if isinstance(source, Packed | Joined) for name in tensors_of(source)}
    found = {name: materializer.importance(name) for name in sorted(names)}
    return {name: importance for name, importance in found.items() if importance is not None}


def connected(address: str) -> Any:
    host, port = ADDRESS.fullmatch(address).groups()  # type: ignore[union-attr]
    try:
        from distributed import Client

        connect: Callable[..., Any] = Client
    except ImportError as error:
        raise not_installed(error, "--executor") from error
    with told(address):
        return connect(f"tcp://{host}:{port}", timeout=SECONDS, set_as_default=False)


class told:
    """Whatever a scheduler or its workers fail with, as UserError; a worker's own is as it is."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, CompileError):
            text = str(error).split("\n")[0][:200]
            raise UserError(f"--executor {self.address}: {type(error).__name__}: {text}") from error
