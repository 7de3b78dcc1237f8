"""Weights made by workers on other machines, through a scheduler of dask.distributed.

A task is all that making some pieces needs: where the tensors lie, which pieces, how inputs count. Workers
read the checkpoint by the same paths, so the folder is one that all see. The bytes are the same wherever they
are made; a worker that is lost costs its tasks only, which the scheduler gives to others. Only codes are made
by workers: what keeps 16 bits is put in its place in less time than it takes to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np

from compiler.command import not_installed
from compiler.diagnostics import CompileError, UserError
from compiler.weights.order import weight_and_order
from compiler.weights.part import part_of
from compiler.weights.scaled import weight_and_scale
from compiler.weights.stored import Array, Floats
from dialects.weights import Joined, Packed
from driver.blob import Make, Materializer, Piece
from driver.cached import made_by, tensors_of
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
    sources: tuple[Packed, ...]
    importance: Mapping[str, Floats]


@dataclass(frozen=True)
class Made:
    pieces: Sequence[Array]  # arrays are sent as they lie in memory
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
    pieces = [np.ascontiguousarray(piece) for piece in made.pieces(task.sources)]
    return Made(pieces, frozenset(weights.beyond))


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
    def ahead(self) -> int:
        """Tasks to have under way: one at work and one that waits for each thread of the workers, and one
        whose result is taken.
        """
        return 2 * int(sum(self.client.nthreads().values())) + 1

    def close(self) -> None:
        with suppress(Exception):
            self.client.close()

    def make(self, weights: Weights, instance: Instance) -> Make:
        """As `Materializer.pieces`, by a worker where that is worth it."""

        def pieces_of(pieces: Sequence[Piece], materializer: Materializer) -> list[Array]:
            sources = tuple(piece.source for piece in pieces)
            coded = tuple(source for source in sources if isinstance(source, Packed) and source.tile.scheme)
            known = reached(weights, instance, coded) if coded == sources else None
            if known is None:
                return list(materializer.pieces(sources))
            task = Task(made_by(), known, instance, coded, counting(coded, materializer))
            with told(self.address):
                future = self.client.submit(carry_out, task, key=key_of_task(pieces))
                made: Made = self.client.gather(future, direct=True)  # or by the scheduler, if it must be
            weights.beyond.update(made.beyond)
            return list(made.pieces)

        return pieces_of


def key_of_task(pieces: Sequence[Piece]) -> str:
    """Of its own, and of a kind with those that make as much: the scheduler learns how long each kind takes,
    and shares them out by that.
    """
    return f"codes_{sum(piece.size for piece in pieces)}-{uuid4().hex}"


def reached(weights: Weights, instance: Instance, sources: Sequence[Packed | Joined]) -> Weights | None:
    """The weights with only those parameters that pieces are made of; None where some are codes that were
    chosen here: these are only to be packed.
    """
    names = {
        parameter
        for source in sources
        for name in tensors_of(source)
        for parameter in parameters_in(instance.parameter_name(name))
    }
    made = {name: weights.made[name] for name in sorted(names & weights.made.keys())}
    if any(each.scheme is not None for each in made.values()):
        return None
    tensors = {name: weights.tensors[name] for name in sorted(names)}
    return replace(weights, tensors=tensors, beyond=set(), made=made)


def parameters_in(name: str) -> set[str]:
    """What `Weights.read` reads for a name."""
    weight, other = weight_and_scale(name)
    if other is None:
        weight, other = weight_and_order(name)
    if other is not None:
        return parameters_in(weight) | parameters_in(other)
    part = part_of(name)
    return {name if part is None else part.parameter}


def counting(sources: Sequence[Packed], materializer: Materializer) -> dict[str, Floats]:
    """How the inputs of each tensor count, where that is known."""
    names = {name for source in sources for name in tensors_of(source)}
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
