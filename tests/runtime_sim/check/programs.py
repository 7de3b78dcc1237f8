"""Small hand-written programs, as instructions and as bmodels: for BM1684X, if nothing else is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from compiler.bmodel import AddrMode, BModel, BytesBlob, Coeff, CommandStreams, Net, Stage, TensorInfo
from compiler.target.chips import CHIPS
from compiler.target.isa import PRECISION, Instruction, isa_for, split_address
from compiler.target.spec import ChipSpec
from runtime_sim.launch.queues import CoreProgram

SPEC = CHIPS["bm1684x"]
ISA = isa_for(SPEC)
DDR = SPEC.coeff_base
PAGE = 4096


@dataclass
class Assembler:
    """Collects instructions in program order; both queues get their ids, end commands and padding."""

    spec: ChipSpec = SPEC
    queues: dict[str, list[tuple[str, str, dict[str, int]]]] = field(
        default_factory=lambda: {"tiu": [], "dma": []}
    )

    def add(self, name: str, kind: str, after: int = 0, **fields: int) -> int:
        """Append to its engine's queue, waiting for `after` of the other; returns its number."""
        queue = self.queues["dma" if name.startswith("dma") else "tiu"]
        queue.append((name, kind, self._own_id(queue) | {"cmd_id_dep": after, **fields}))
        return len(queue)

    def _own_id(self, queue: Sequence[object]) -> dict[str, int]:
        return {"cmd_id": len(queue) + 1} if self.spec.command_ids else {}

    def copy(
        self, source: int, target: int, shape: tuple[int, ...], after: int = 0, dtype: str = "bf16"
    ) -> int:
        """A tensor DMA of compact items; local addresses have the DMA's local base."""
        return self.add(
            "dma_tensor",
            "copy",
            after,
            stride_enable=1,
            nchw_copy=1,
            src_data_format=PRECISION[dtype],
            localmem_mask_l32=0xFFFFFFFF,
            localmem_mask_h32=0xFFFFFFFF,
            **split_address("src", source),
            **split_address("dst", target),
            **self._geometry("src", source, shape),
            **self._geometry("dst", target, shape),
        )

    def _geometry(self, side: str, address: int, shape: tuple[int, ...]) -> dict[str, int]:
        _, c, h, w = shape
        items = self.spec.eu_items(2)
        c_str = h * w if address >= self.spec.ddr_base else -(-h * w // items) * items
        n_str = c * c_str if address >= self.spec.ddr_base else -(-c // self.spec.lanes) * c_str
        names = [f"{side}_{axis}" for axis in "nchw"]
        strides = dict(zip((f"{name}stride" for name in names), (n_str, c_str, w, 1), strict=True))
        return strides | dict(zip((f"{name}size" for name in names), shape, strict=True))

    def ar(
        self, kind: str, result: int, first: int, second: int, shape: tuple[int, ...], after: int = 0
    ) -> int:
        """An elementwise bf16 instruction on aligned operands."""
        bf16 = PRECISION["bf16"]
        return self.add(
            "ar",
            kind,
            after,
            tsk_opd_num=2,
            res0_prec=bf16,
            opd0_prec=bf16,
            opd1_prec=bf16,
            res0_addr=result,
            opd0_addr=first,
            opd1_addr=second,
            **{f"res0_{axis}": size for axis, size in zip("nchw", shape, strict=True)},
        )

    def streams(self) -> CommandStreams:
        ends = {"tiu": ("sys", "end"), "dma": ("dma_sys", "end")}
        data, counts = {}, {}
        for engine, queue in self.queues.items():
            last = (*ends[engine], self._own_id(queue))
            stream = b"".join(isa_for(self.spec).encode(*item) for item in [*queue, last])
            data[engine] = stream.ljust(-(-len(stream) // 128) * 128, b"\0")
            counts[engine] = len(queue) + 1
        return CommandStreams(data["tiu"], counts["tiu"], data["dma"], counts["dma"])

    def core(self) -> CoreProgram:
        streams, isa = self.streams(), isa_for(self.spec)
        return CoreProgram(isa.decode("tiu", streams.tiu), isa.decode("dma", streams.dma))


def local(offset: int) -> int:
    """A local address as the DMA sees it."""
    return SPEC.dma_local_base + offset


def changed(core: CoreProgram, engine: str, number: int, **fields: int) -> CoreProgram:
    """The program with some fields of one instruction replaced."""
    stream = list(getattr(core, engine))
    old: Instruction = stream[number - 1]
    stream[number - 1] = replace(old, fields=old.fields | fields)
    return replace(core, **{engine: stream})


@dataclass
class Layout:
    """Gives page-aligned addresses of a net's DDR in the order asked for."""

    address: int = DDR

    def take(self, size: int) -> int:
        start = self.address
        self.address += -(-size // PAGE) * PAGE
        return start


ADD_SHAPE = (1, 64, 1, 48)
ADD_TILES = 4


def add_program(inputs: tuple[int, int], output: int, tiles: int = ADD_TILES) -> Assembler:
    """y = a + b in tiles, two of which are in flight; every wait is needed.

    Local memory has two sets of buffers for a, b and the sum. The loads of tile t + 2 go ahead of the store
    of tile t, as soon as its addition is done; that store then needs no wait of its own.
    """
    asm, loads, stores = Assembler(), [], [0, 0]
    tile_bytes = 2 * int(np.prod(ADD_SHAPE))

    def buffer(tile: int) -> int:
        return tile % 2 * 0x10000

    def load(tile: int, after: int = 0) -> None:
        at, base = tile * tile_bytes, local(buffer(tile))
        asm.copy(inputs[0] + at, base, ADD_SHAPE, after)
        loads.append(asm.copy(inputs[1] + at, base + 0x4000, ADD_SHAPE))

    load(0)
    load(1)
    for tile in range(tiles):
        base = buffer(tile)
        ready = max(loads[tile], stores[tile])
        add = asm.ar("add", base + 0x8000, base, base + 0x4000, ADD_SHAPE, after=ready)
        is_last = tile + 2 >= tiles
        if not is_last:
            load(tile + 2, after=add)
        at = output + tile * tile_bytes
        stores.append(asm.copy(local(base + 0x8000), at, ADD_SHAPE, after=add if is_last else 0))
    return asm


def add_model() -> BModel:
    """One net, "add", with inputs a and b and the output y, all [tiles, 64, 48]."""
    shape = (ADD_TILES, 64, 48)
    layout = Layout()
    a, b, y = (TensorInfo(name, "bf16", layout.take(2 * int(np.prod(shape))), shape) for name in "aby")
    streams = add_program((a.address, b.address), y.address).streams()
    stage = Stage([a, b], [y], DDR, layout.address - DDR, [streams])
    return BModel(SPEC.chip, [Net("add", AddrMode.BASIC, [stage])])


# A language model made of copies. A token's state is 16 bytes: the number of the token that follows it, then
# noise. A token's keys are bytes 8 to 12 of its state, its values the position it was given.
VOCABULARY, ROWS, HISTORY, HIDDEN, KEYS = 40, 8, 12, 8, 2


def toy_table() -> np.ndarray:
    """[VOCABULARY, 4] i32: row t is the state of token t, beginning with the token that follows."""
    rng = np.random.default_rng(0)
    table = rng.integers(0x3C00, 0x3F00, (VOCABULARY, 8)).astype(np.uint16).view(np.int32)
    table[:, 0] = np.arange(7, VOCABULARY + 7) * 3 % VOCABULARY
    return table


def toy_model(layers: int = 2, histories: Iterable[int] = (HISTORY,), streams: int = 1) -> BModel:
    """With a stage of decode for each of the histories, the longest first; values are the first of a token's
    positions.
    """
    nets = [_toy_embedding("embedding", ROWS), _toy_embedding("embedding_cache", 1)]
    nets += [_toy_block(f"block_{layer}", streams) for layer in range(layers)]
    for layer in range(layers):
        stages = [_toy_cache(history, streams) for history in histories]
        nets.append(Net(f"block_cache_{layer}", AddrMode.IO_ALONE, stages))
    return BModel(SPEC.chip, [*nets, _toy_head()])


def _toy_embedding(name: str, rows: int) -> Net:
    layout = Layout()
    table = toy_table().tobytes()
    coeff = Coeff(layout.take(len(table)), BytesBlob(table))
    start = layout.address
    ids = TensorInfo("input_ids", "i32", layout.take(4 * rows), (1, rows))
    states = TensorInfo("states", "bf16", layout.take(2 * rows * HIDDEN), (1, rows, HIDDEN))
    streams = gather_states(coeff.address, (VOCABULARY, HIDDEN // 2), ids, states)
    stage = Stage([ids], [states], start, layout.address - start, [streams], coeff=coeff)
    return Net(name, AddrMode.BASIC, [stage])


def gather_states(
    table: int, shape: tuple[int, int], indices: TensorInfo, states: TensorInfo
) -> CommandStreams:
    """States from the beginnings of rows of a table, which has rows of so many words of 32 bits."""
    count, (rows, width) = indices.shape[-1], shape
    asm = Assembler()
    asm.add(
        "dma_gather",
        "copy",
        stride_enable=1,
        src_data_format=PRECISION["i32"],
        src_csize=1,
        src_cstride=rows * width,
        src_hsize=rows,
        src_hstride=width,
        src_wsize=HIDDEN // 2,
        dst_csize=1,
        dst_cstride=count * HIDDEN // 2,
        dst_hsize=count,
        dst_hstride=HIDDEN // 2,
        dst_wsize=HIDDEN // 2,
        index_csize=1,
        index_cstride=count,
        index_hsize=count,
        index_hstride=1,
        localmem_mask_l32=0xFFFFFFFF,
        localmem_mask_h32=0xFFFFFFFF,
        **split_address("src", table),
        **split_address("dst", states.address),
        **split_address("index", indices.address),
    )
    return asm.streams()


def block_programs(rows: int, x: int, positions: int, y: int, keys: int, values: int) -> CommandStreams:
    """y = x; a token's keys are a part of its state; its values are its position."""
    asm = Assembler()
    asm.copy(x, local(0), (1, rows, 1, HIDDEN))
    asm.copy(local(0), y, (1, rows, 1, HIDDEN))
    asm.copy(positions, values, (1, 1, 1, 2 * rows))
    for row in range(rows):
        asm.copy(x + 2 * row * HIDDEN + HIDDEN, keys + 4 * row, (1, 1, 1, KEYS))
    return asm.streams()


def _toy_block(name: str, streams: int) -> Net:
    layout = Layout()
    x = TensorInfo("x", "bf16", layout.take(2 * ROWS * HIDDEN), (1, ROWS, HIDDEN))
    positions = TensorInfo("position_ids", "i32", layout.take(4 * streams * ROWS), (streams, ROWS))
    mask = TensorInfo("mask", "bf16", layout.take(2 * ROWS * ROWS), (1, 1, ROWS, ROWS))
    y = TensorInfo("y", "bf16", layout.take(2 * ROWS * HIDDEN), (1, ROWS, HIDDEN))
    keys, values = (
        TensorInfo(name, "bf16", layout.take(4 * ROWS), (1, ROWS, 1, KEYS)) for name in ("k", "v")
    )
    program = block_programs(ROWS, x.address, positions.address, y.address, keys.address, values.address)
    stage = Stage([x, positions, mask], [y, keys, values], DDR, layout.address - DDR, [program])
    return Net(name, AddrMode.BASIC, [stage])


def _toy_cache(rows: int, streams: int) -> Stage:
    layout = Layout()
    history = (1, rows, 1, KEYS)
    x = TensorInfo("x", "bf16", layout.take(2 * HIDDEN), (1, 1, HIDDEN))
    positions = TensorInfo("position_ids", "i32", layout.take(4 * streams), (streams, 1))
    mask = TensorInfo("mask", "bf16", layout.take(2 * (HISTORY + 1)), (1, 1, 1, rows + 1))
    old = [TensorInfo(name, "bf16", layout.take(4 * HISTORY), history) for name in ("old_k", "old_v")]
    y = TensorInfo("y", "bf16", layout.take(2 * HIDDEN), (1, 1, HIDDEN))
    new = [TensorInfo(name, "bf16", layout.take(4), (1, 1, 1, KEYS)) for name in ("k", "v")]
    io_size = layout.address - DDR
    ctx = layout.take(PAGE)
    program = block_programs(1, x.address, positions.address, y.address, new[0].address, new[1].address)
    return Stage([x, positions, mask, *old], [y, *new], ctx, PAGE, [program], io_address=DDR, io_size=io_size)


# A tower made of copies: a token's state is the beginning of its first patch, or of its part of the tile.
PATCHES, MERGE, PATCH_VALUES = 16, 2, 8
TILE = (1, 2, HIDDEN)  # channels, rows, columns; a token for each row


def toy_grid_tower() -> Net:
    layout = Layout()
    tokens = PATCHES // MERGE**2
    pixels = TensorInfo("input_states", "f32", layout.take(4 * PATCHES * PATCH_VALUES), (PATCHES, PATCH_VALUES))
    positions = TensorInfo("position_ids", "i32", layout.take(8 * PATCHES), (PATCHES, 2))
    masks = [
        TensorInfo(f"{name}_attn_mask", "f32", layout.take(4 * PATCHES**2), (1, 1, PATCHES, PATCHES))
        for name in ("full", "window")
    ]
    reverse = TensorInfo("reverse_index", "i32", layout.take(4 * tokens), (tokens,))
    states = TensorInfo("states", "bf16", layout.take(2 * tokens * HIDDEN), (tokens, HIDDEN))
    streams = gather_states(pixels.address, (tokens, MERGE**2 * PATCH_VALUES), reverse, states)
    stage = Stage([pixels, positions, *masks, reverse], [states], DDR, layout.address - DDR, [streams])
    return Net("vit", AddrMode.BASIC, [stage])


def toy_tile_tower() -> Net:
    layout = Layout()
    channels, rows, columns = TILE
    pixels = TensorInfo("pixel_value", "f32", layout.take(4 * channels * rows * columns), (1, *TILE))
    states = TensorInfo("states", "bf16", layout.take(2 * rows * HIDDEN), (rows, HIDDEN))
    asm = Assembler()
    for row in range(rows):
        asm.copy(pixels.address + 4 * row * columns, states.address + 2 * row * HIDDEN, (1, 1, 1, HIDDEN))
    stage = Stage([pixels], [states], DDR, layout.address - DDR, [asm.streams()])
    return Net("vit", AddrMode.BASIC, [stage])


def _toy_head() -> Net:
    layout = Layout()
    state = TensorInfo("state", "bf16", layout.take(2 * HIDDEN), (1, HIDDEN))
    token = TensorInfo("token", "i32", layout.take(4), (1, 1))
    asm = Assembler()
    asm.copy(state.address, token.address, (1, 1, 1, 1), dtype="i32")
    stage = Stage([state], [token], DDR, layout.address - DDR, [asm.streams()])
    return Net("lm_head", AddrMode.BASIC, [stage])


def toy_tokens(last: int, count: int) -> list[int]:
    """What the toy model says after a prompt that ends in `last`."""
    table = toy_table()
    tokens = []
    for _ in range(count):
        last = int(table[last, 0])
        tokens.append(last)
    return tokens


def toy_tokenizer(folder: Path) -> None:
    """Write a tokenizer whose token t is the letter number t."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {chr(ord("0") + number): number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"))


class Letters:
    """The tokens of `toy_tokenizer`, without a process that loads them."""

    def __init__(self, config: Path) -> None:
        self.config = config

    def encode_chat(self, prompt: str) -> list[int]:
        return [ord(letter) - ord("0") for letter in prompt]

    def stop_ids(self, chat: bool) -> frozenset[int]:
        return frozenset()

    def beyond(self, rows: int) -> list[tuple[int, str]]:
        return [(number, chr(ord("0") + number)) for number in range(rows, VOCABULARY)]

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        return (chr(ord("0") + token) for token in tokens)


def changed_model(model: BModel, engine: str, number: int, **fields: int) -> BModel:
    """The model with some fields of one instruction of its first net replaced."""
    net = model.nets[0]
    streams = net.stages[0].cores[0]
    core = CoreProgram(ISA.decode("tiu", streams.tiu), ISA.decode("dma", streams.dma))
    stream = getattr(changed(core, engine, number, **fields), engine)
    data = b"".join(ISA.encode(each.name, each.kind, each.fields, each.size) for each in stream)
    padded = data.ljust(len(getattr(streams, engine)), b"\0")
    stage = replace(net.stages[0], cores=[replace(streams, **{engine: padded})])
    return replace(model, nets=[replace(net, stages=[stage]), *model.nets[1:]])
