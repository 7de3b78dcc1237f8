"""What the graphs of a job tell of its parameters before these become codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from compiler.ir.module import Module, discard
from compiler.weights.scheme import Scheme
from dialects.weights import Joined, LaneRecord, Packed, WeightSource, view_of_name
from driver.calibration.folds import Fold, folds_of
from driver.calibration.scores import Scores, scores_of
from driver.job import Job
from driver.pipelines import recognizing

Named = TypeVar("Named", Fold, Scores)  # parameters by name


def stored_plainly(job: Job) -> dict[str, Scheme]:
    """The parameters that the programs read as codes of one scheme wherever they do, and as they are."""
    found: dict[str, set[Scheme | None]] = {}
    for group in job.nets:
        for instance in group.instances:
            for piece in job.pieces(group.module, instance):
                for name, scheme in read_by(piece.source):
                    found.setdefault(instance.parameter_name(name), set()).add(scheme)
    known = {name: [*schemes] for name, schemes in found.items() if name in job.weights.tensors}
    once = {name: schemes[0] for name, schemes in known.items() if len(schemes) == 1}
    coded = job.weights.schemes
    return {name: scheme for name, scheme in once.items() if scheme is not None and name not in coded}


def read_by(source: WeightSource) -> Iterator[tuple[str, Scheme | None]]:
    """What a region is made of; with the scheme where it has codes of rows as they are."""
    if isinstance(source, LaneRecord):
        for part in source.parts:
            yield from read_by(part.source)
    for name in source.names if isinstance(source, Packed | Joined) else ():
        view = view_of_name(name)
        plain = isinstance(source, Packed) and not (view.transposed or view.matrix)
        yield view.tensor, source.tile.scheme if isinstance(source, Packed) and plain else None


def folds_of_norms(job: Job) -> list[Fold]:
    """Those that serve codes with feedback: with rows of the up projection divided too, KL of SmolLM2-135M
    stayed as it was on prose, and rose from 0.177 to 0.191 on code.
    """
    return [fold for fold in folds_of_layers(job) if not fold.rows]


def folds_of_layers(job: Job) -> list[Fold]:
    """Those of all layers, by full names."""
    return known_of_layers(job, folds_of)


def scores_of_layers(job: Job) -> list[Scores]:
    """Those of all layers, by full names."""
    return known_of_layers(job, scores_of)


def known_of_layers(job: Job, find: Callable[[Module], Sequence[Named]]) -> list[Named]:
    """What a layer's graph tells, for all layers."""
    found = []
    for group in job.model.nets:
        if group.of_layers:
            kept = job.precision.kept(group)
            module = job.run_passes(group.name, group.module, ",".join(recognizing(job.options, kept)), True)
            known = find(module)
            discard(module)
            found += [each.bound(instance.parameter_name) for instance in group.instances for each in known]
    return found
