"""What a run writes: the embedding, the bmodel and its list of nets."""

from __future__ import annotations

import hashlib
from pathlib import Path

from compiler.bmodel import BModel, write_bmodel
from compiler.bmodel.schema import PAGE_BYTES
from compiler.client_nets import stage_name
from compiler.ir.types import ElementType, element
from compiler.progress import counter
from compiler.weights.stored import convert
from driver.groups import embedding_of, table_of
from driver.job import Job
from driver.output import EMBEDDING, LOG, Output, require_space
from frontend.binding import Weights
from frontend.imported import ImportedModel

EMBEDDING_ROWS = 4096  # converted at a time


def write(job: Job, bmodel: BModel, output: Output) -> None:
    """The embedding, the bmodel and its list of nets."""
    options = job.options
    embedding = table_of(job.model).y.type.bytes if options.embedding_disk else 0
    require_space(options.out_dir, output.folder, file_bytes(bmodel) + embedding)
    if options.embedding_disk:
        table = output.folder / EMBEDDING
        sha256 = write_embedding(job.model, job.weights, element(options.half), table)
        bmodel = bmodel.with_embedding(sha256)
        output.check_config()
    with counter("write", len(job.blobs), " layers") as done:
        for blob in job.blobs:
            blob.done = done
        write_bmodel(output.folder / output.name, bmodel)
    job.weights.note_limited()
    (output.folder / LOG).write_text(listing(bmodel))


def write_embedding(model: ImportedModel, weights: Weights, half: ElementType, path: Path) -> str:
    """The embedding's rows as little-endian words of the activations' type, for clients that look them up
    themselves; their sha256 in hex.
    """
    name = embedding_of(model).instances[0].parameter_name(table_of(model).name)
    rows = weights.shape(name)[0]
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, rows, EMBEDDING_ROWS):
            values = weights.read_floats(name, slice(start, min(start + EMBEDDING_ROWS, rows)))
            data = convert(values, half.numpy).tobytes()
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def file_bytes(bmodel: BModel) -> int:
    """About what the file takes: its weights and instructions, and a page for what else a stage has."""
    stages = [stage for net in bmodel.nets for stage in net.stages]
    blobs = {stage.coeff.blob.key: stage.coeff.size for stage in stages if stage.coeff}
    streams = {data for stage in stages for core in stage.cores for data in (core.tiu, core.dma)}
    return sum(blobs.values()) + sum(map(len, streams)) + PAGE_BYTES * len(stages)


def listing(bmodel: BModel) -> str:
    """The nets of the file, and further stages of them, with the shapes of their inputs and outputs."""
    lines = [f"chip {bmodel.chip}"]
    for net in bmodel.nets:
        for index, stage in enumerate(net.stages):
            lines.append(f"net {stage_name(net.name, index)} ({net.addr_mode.name.lower()})")
            for kind, tensors in (("in ", stage.inputs), ("out", stage.outputs)):
                lines += [f"  {kind} {t.name}: {t.dtype} {list(t.shape)} at {t.address:#x}" for t in tensors]
    return "\n".join(lines) + "\n"
