"""What a run writes: the embedding, the bmodel and its list of nets."""

from __future__ import annotations

import hashlib
from pathlib import Path

from compiler.bmodel import BModel, write_bmodel
from compiler.bmodel.writer import size_of_file
from compiler.client_nets import stage_name
from compiler.diagnostics import log
from compiler.ir.types import ElementType, element
from compiler.progress import counter
from compiler.weights.stored import convert
from driver.groups import embedding_of, table_of
from driver.job import Job
from driver.options import ConvertOptions
from driver.output import EMBEDDING, LOG, Output, require_space
from frontend.binding import Weights
from frontend.imported import ImportedModel

EMBEDDING_ROWS = 4096  # converted at a time


def write(job: Job, bmodel: BModel, output: Output) -> None:
    """The embedding, the bmodel and its list of nets."""
    options = job.options
    needed = size_of_file(named_embedding(bmodel, options)) + embedding_bytes(job)
    require_space(options.out_dir, output.folder, needed)
    if options.embedding_disk:
        table = output.folder / EMBEDDING
        sha256 = write_embedding(job.model, job.weights, element(options.half), table)
        bmodel = named_embedding(bmodel, options, sha256)
        output.check_config()
    with counter("write", len(job.blobs), " layers") as done:
        for blob in job.blobs:
            blob.done = done
        write_bmodel(output.folder / output.name, bmodel)
    if job.executor is not None:
        job.executor.close()
    job.weights.note_limited()
    if job.cache is not None:
        log.info("cache: %d found, %d made", job.cache.hits, job.cache.misses)
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


def named_embedding(bmodel: BModel, options: ConvertOptions, sha256: str = "0" * 64) -> BModel:
    """The model as its file knows the embedding on disk, if that is asked for."""
    return bmodel.with_embedding(sha256) if options.embedding_disk else bmodel


def embedding_bytes(job: Job) -> int:
    """Of the embedding on disk."""
    return table_of(job.model).y.type.bytes if job.options.embedding_disk else 0


def listing(bmodel: BModel) -> str:
    """The nets of the file, and further stages of them, with the shapes of their inputs and outputs."""
    lines = [f"chip {bmodel.chip}"]
    for net in bmodel.nets:
        for index, stage in enumerate(net.stages):
            lines.append(f"net {stage_name(net.name, index)} ({net.addr_mode.name.lower()})")
            for kind, tensors in (("in ", stage.inputs), ("out", stage.outputs)):
                lines += [f"  {kind} {t.name}: {t.dtype} {list(t.shape)} at {t.address:#x}" for t in tensors]
    return "\n".join(lines) + "\n"
