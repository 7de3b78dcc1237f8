"""The bmodel file: the container that Sophgo's runtime loads."""

from compiler.bmodel.container import (
    AddrMode,
    BlobSource,
    BModel,
    BytesBlob,
    Cascade,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
    WeightLocation,
)
from compiler.bmodel.reader import read_bmodel
from compiler.bmodel.writer import write_bmodel

__all__ = [
    "AddrMode",
    "BModel",
    "BlobSource",
    "BytesBlob",
    "Cascade",
    "Coeff",
    "CommandStreams",
    "Net",
    "Stage",
    "TensorInfo",
    "WeightLocation",
    "read_bmodel",
    "write_bmodel",
]
