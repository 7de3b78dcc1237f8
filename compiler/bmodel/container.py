"""What a bmodel holds, without its encoding and without any IR: nets, their stages, streams and weights."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from math import prod
from typing import Protocol

from compiler.bmodel.schema import DATA_TYPE_BITS

CHUNK_BYTES = 1 << 20
VERSION = "2.2"
EMBEDDING_MARK = "+embedding-sha256."


class AddrMode(IntEnum):
    """Where the inputs and outputs of a net live at run time."""

    BASIC = 0  # in the scratch ("neuron") memory, which nets may share
    IO_ALONE = 1  # in a memory of the net's own, which survives other launches
    IO_TAG = 2  # in the caller's buffers, through address tags (BM1688)
    IO_TAG_FUSE = 3  # as IO_TAG, one tag for all inputs and one for all outputs
    IO_RELOC = 4  # in the caller's buffers, patched into the stream at each launch


class BlobSource(Protocol):
    """Bytes that may be too many to hold at once, such as the packed weights of a layer."""

    @property
    def size(self) -> int:
        """Exactly how many bytes `chunks` yields."""
        ...

    @property
    def key(self) -> Hashable:
        """Two sources with equal keys yield the same bytes; the file keeps one copy of them."""
        ...

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The bytes in order, from the start at each call."""
        ...


@dataclass(frozen=True, eq=False)
class BytesBlob:
    """A blob in memory or in a mapped file, cut into chunks."""

    data: bytes | memoryview

    @property
    def size(self) -> int:
        return len(self.data)

    @property
    def key(self) -> Hashable:
        return id(self.data)

    def chunks(self) -> Iterator[memoryview]:
        view = memoryview(self.data)
        for start in range(0, len(view), CHUNK_BYTES):
            yield view[start : start + CHUNK_BYTES]


@dataclass(frozen=True)
class WeightLocation:
    """A named part of a coefficient blob: byte offset and size in it. Only inspection tools read these."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class Coeff:
    """The weights of a stage: the program finds them at `address`, a virtual DDR byte address.

    `check_code` is the blob's sha256 as found in a file: the runtime uploads blobs of equal code and size
    once. The writer computes it anew and ignores this field.
    """

    address: int
    blob: BlobSource
    locations: tuple[WeightLocation, ...] = ()
    check_code: bytes = b""

    @property
    def size(self) -> int:
        return self.blob.size


@dataclass(frozen=True)
class TensorInfo:
    """An input or output. `address` is in virtual DDR bytes; a size left 0 is worked out from the shape.

    Those of a net in a cascade say more: what is `hidden` goes by its name from a step to later ones, and the
    others have the place `index` among the inputs, or outputs, that their device adds to the callable net.
    """

    name: str
    dtype: str  # one of schema.DATA_TYPES, named as the IR's element types
    address: int
    shape: tuple[int, ...]
    size: int = 0
    hidden: bool = False
    index: int = 0

    def __post_init__(self) -> None:
        if not self.size:
            object.__setattr__(self, "size", tensor_bytes(self.dtype, self.shape))


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    return (prod(shape) * DATA_TYPE_BITS[dtype] + 7) // 8


@dataclass(frozen=True)
class CommandStreams:
    """The two instruction queues of one core, padded to 128 bytes; counts include the end command."""

    tiu: bytes
    tiu_count: int
    dma: bytes
    dma_count: int


@dataclass(frozen=True, eq=False)
class Stage:
    """One program of a net, for one set of input shapes. Addresses are virtual DDR bytes, sizes are bytes."""

    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    ctx_address: int
    ctx_size: int
    cores: list[CommandStreams]
    io_address: int = 0
    io_size: int = 0
    coeff: Coeff | None = None
    is_dynamic: bool = False
    # A second part, by core, that does nothing. The runtime takes only the shapes of the file for a net of
    # one part; for a dynamic net of several it takes smaller ones too, and runs a static part as it is.
    idle: list[CommandStreams] = field(default_factory=list)
    unsupported: str = ""  # set by the reader: why only an inspector can use this stage
    # Set by the reader where it is unsupported: the parts that the engines run as they are, each by core.
    parts: list[list[CommandStreams]] = field(default_factory=list)


@dataclass(frozen=True)
class Cascade:
    """Where a net stands among those that make up the one that clients call, `main_name`.

    Devices run their nets of a step side by side, and all have ended before the next step begins.
    """

    main_name: str
    device: int = 0
    step: int = 0


@dataclass(frozen=True, eq=False)
class Net:
    name: str
    addr_mode: AddrMode
    stages: list[Stage]
    cascade: Cascade | None = None  # None for a net that is called by itself

    @property
    def main_name(self) -> str:
        """The name that clients call it by, or what it is a part of."""
        return self.cascade.main_name if self.cascade else self.name

    @property
    def device(self) -> int:
        return self.cascade.device if self.cascade else 0


@dataclass(frozen=True, eq=False)
class BModel:
    chip: str  # "BM1684X", "BM1688" or "CV186X"
    nets: list[Net]
    device_num: int = 1
    version: str = VERSION
    file_bytes: int = field(default=0)  # set by the reader
    has_digest: bool = False  # set by the reader: whether a hash guards its instructions; see `digest`

    def net(self, name: str) -> Net:
        return next(net for net in self.nets if net.name == name)

    def has_net(self, name: str) -> bool:
        return any(net.name == name for net in self.nets)

    def first_of(self, name: str) -> Net | None:
        """The net that clients call so, or the first of those that make it up; None when there is none."""
        return next((net for net in self.nets if net.main_name == name), None)

    @property
    def embedding_sha256(self) -> str:
        """The hash, in hex, of the embedding table that belongs to the file; empty when none is named."""
        return self.version.partition(EMBEDDING_MARK)[2]

    def with_embedding(self, sha256: str) -> "BModel":
        """The same model, for the embedding table of that hash. The version has it, as build metadata: the
        runtime does not read it.
        """
        return replace(self, version=f"{VERSION}{EMBEDDING_MARK}{sha256}")
