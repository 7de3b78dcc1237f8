"""Small models, and files of them that may be damaged."""

from collections.abc import Hashable, Iterator

from compiler.bmodel import (
    AddrMode,
    BModel,
    Coeff,
    CommandStreams,
    Net,
    Stage,
    TensorInfo,
    WeightLocation,
    read_bmodel,
)

DDR = 0x1_0000_0000
TIU, DMA = b"\x0f" + bytes(127), b"\x06" + bytes(127)


class GeneratedBlob:
    """A blob that exists only chunk by chunk, as packed weights do."""

    def __init__(self, size: int, key: Hashable, seed: int = 0, chunk: int = 1 << 16) -> None:
        self.size, self.key, self.seed, self.chunk = size, key, seed, chunk
        self.passes = 0

    def chunks(self) -> Iterator[bytes]:
        self.passes += 1
        for start in range(0, self.size, self.chunk):
            yield bytes([(start // self.chunk + self.seed) % 251]) * min(self.chunk, self.size - start)


def stage(blob=None, streams=((TIU, 1, DMA, 1),), **changes) -> Stage:
    fields = {
        "inputs": [TensorInfo("x", "bf16", DDR, (1, 3, 5))],
        "outputs": [TensorInfo("y", "i32", DDR + 4096, (1, 1))],
        "ctx_address": DDR,
        "ctx_size": 8192,
        "cores": [CommandStreams(*core) for core in streams],
        "coeff": blob and Coeff(DDR - 4096, blob, (WeightLocation("w", 64, 32),)),
    }
    return Stage(**(fields | changes))


def model(*stages: Stage, chip="BM1684X") -> BModel:
    nets = [Net(f"net_{index}", AddrMode.BASIC, [each]) for index, each in enumerate(stages)]
    return BModel(chip, nets)


def read_bytes(tmp_path, data):
    path = tmp_path / "bad.bmodel"
    path.write_bytes(data)
    return read_bmodel(path)
