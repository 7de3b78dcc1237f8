"""Text generation, greedy or drawn, as Sophgo's chat programs drive a compiled language model.

What a client knows: nets by name, sizes from tensor shapes, inputs and outputs by index. What it does is in
`prefill` and `decode`, step by step; the nets must work under exactly this: which buffers survive, which
foreign ones are passed.

With several devices, a net has the inputs of all of them, one device's after the other's, and the same for
outputs; each has its own caches. The head has those of the first device only. Source: python_demo_parallel
of Qwen2_5 in Sophgo's LLM-TPU.

Pictures of a prompt are rows of its embedding, which the net `vit` gives, at tokens that only keep places.
Where positions have three rows, pictures have positions of their own (`grids`), text goes on after them, and
a token that decode is fed has the same number in all rows. Source: Qwen2_5_VL and InternVL3 there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compiler.client_nets import (
    CHOICES,
    EMBEDDING,
    EMBEDDING_CACHE,
    GREEDY_HEAD,
    LAYER_NETS,
    LM_HEAD,
    SAMPLE_HEAD,
    layer_count,
    net_name,
)
from compiler.diagnostics import UserError
from compiler.progress import track
from runtime_sim.arrays import Array
from runtime_sim.launch.grids import STREAMS, Box, prompt_positions
from runtime_sim.launch.runtime import Buffer, CallableNet, Runtime
from runtime_sim.launch.sampling import Sampler, Sampling
from runtime_sim.launch.tower import Picture, Tower

# The additive mask a client writes for "not visible", as a 16-bit word of the model's type.
MASK_WORDS = {"bf16": 0xC61C, "f16": 0xF0E2}  # -9984 and -10000

BLOCK_INPUTS, CACHE_INPUTS = 3, 5  # of one device

OnToken = Callable[[int], None]


@dataclass(frozen=True)
class Sizes:
    """What a client derives from the shapes of the nets."""

    layers: int
    prefill_rows: int  # prompts are padded to this many tokens
    history_rows: int  # tokens that the caches hold
    streams: int  # of positions that each token has
    hidden_bytes: int  # of one token
    row_bytes: int  # of one token's keys (or values) in one layer


class Session:
    """A conversation in one loaded file. `embedding` is the table of files compiled with --embedding_disk.

    Where the head gives logits, the net greedy_head takes the largest, unless there is a `sampler`. A prompt
    can have pictures where there is a `tower`.
    """

    def __init__(self, runtime: Runtime, embedding: Array | None = None, tower: Tower | None = None) -> None:
        self.runtime = runtime
        self.table = embedding
        self.tower = tower
        self.blocks, self.stages = _layers(runtime)
        self.caches = self.stages[0]
        self.devices = max(1, len(self.caches[0].inputs) // CACHE_INPUTS)
        self.lm_head = _need(runtime, LM_HEAD)
        self.greedy_head = _need(runtime, GREEDY_HEAD) if gives_logits(self.lm_head) else None
        self.sampler: Sampler | None = None
        self.embedding = None if embedding is not None else _need(runtime, EMBEDDING)
        self.embedding_cache = None if embedding is not None else _need(runtime, EMBEDDING_CACHE)
        self.sizes = _sizes(self.blocks, self.caches, self.devices)
        self.masked = MASK_WORDS[self.caches[0].inputs[0].info.dtype]
        self.length = 0  # tokens whose keys and values are in the caches
        self.seen: list[int] = []  # these tokens
        self.saved = 0  # positions that they take less than there are of them, since pictures have fewer

    @property
    def chip(self) -> str:
        return self.runtime.program.spec.chip

    def generate(
        self,
        prompt: Sequence[int],
        count: int,
        stop: Collection[int] = (),
        on_token: OnToken | None = None,
        pictures: Sequence[Picture] = (),
    ) -> list[int]:
        """Up to `count` tokens; a stop token ends the answer and is not part of it."""
        tokens: list[int] = []
        for token in self.stream(prompt, pictures):
            if token in stop:
                break
            tokens.append(token)
            if on_token:
                on_token(token)
            if len(tokens) == count:
                break
        return tokens

    def stream(self, prompt: Sequence[int], pictures: Sequence[Picture] = ()) -> Iterator[int]:
        """The tokens as they are found, until the caches are full."""
        token = self.next_token(self.prefill(prompt, pictures))
        yield token
        while self.length < self.sizes.history_rows:
            token = self.next_token(self.decode(token))
            yield token

    def prefill(self, prompt: Sequence[int], pictures: Sequence[Picture] = ()) -> Array:
        """Fill the caches with the prompt; the hidden state of its last token, as bytes."""
        count, sizes = len(prompt), self.sizes
        self.check_prompt(prompt)
        positions = self.positions(count, pictures)
        states = self.embed_prompt(prompt)
        self._show(states, pictures)
        for buffer in self.blocks[0].inputs + self.blocks[0].outputs:
            buffer.data[...] = 0
        for layer, block in enumerate(track(self.blocks, "read the prompt", " layers")):
            self._give_states(block, states)
            if layer == 0 or self.devices > 1:
                self.set_prompt(count, layer, positions)
            self.runtime.launch(block)
            made = [rows for _, *share in self.shares(block.outputs) for rows in share]
            for history, rows in zip(self.history(layer), made, strict=True):
                history.data[: count * sizes.row_bytes] = rows.data[: count * sizes.row_bytes]
            used = count * sizes.hidden_bytes
            states = [y.data[:used].copy() for y, *_ in self.shares(block.outputs)]
        self.length, self.seen = count, list(prompt)
        self.saved = count - 1 - int(positions.max())
        return states[0][-sizes.hidden_bytes :]

    def positions(self, count: int, pictures: Sequence[Picture] = ()) -> Array:
        """[streams, count]: those of a prompt's tokens; UserError for a picture that the file cannot take."""
        boxes = [self._box(picture) for picture in pictures]
        return prompt_positions(count, boxes if self.sizes.streams == STREAMS else ())[: self.sizes.streams]

    def _box(self, picture: Picture) -> Box:
        assert self.tower is not None, "pictures need a tower"
        return picture.start, *self.tower.token_grid(picture)

    def _show(self, states: Sequence[Array], pictures: Sequence[Picture]) -> None:
        """Write the rows of pictures over those of the tokens that keep their places."""
        for picture in pictures:
            assert self.tower is not None
            rows, start = self.tower.features(picture), picture.start * self.sizes.hidden_bytes
            for state in states:
                state[start : start + len(rows)] = rows

    def _give_states(self, block: CallableNet, states: Sequence[Array]) -> None:
        """Those of the prompt. Behind them is what the layer before left there; where other steps work in the
        same memory, clients write all.
        """
        for (x, *_), state in zip(self.shares(block.inputs), states, strict=True):
            x.data[: len(state)] = state
            if self.devices > 1:
                x.data[len(state) :] = 0

    def decode(self, token: int) -> Array:
        """Feed one token; its hidden state after all layers, as bytes."""
        row = self.length
        self._check_tokens([token])
        states = self._embed_token(token)
        caches = self.stage_for(row)
        self.set_step(row, caches, row - self.saved)
        for layer, cache in enumerate(caches):
            rows = [self._row(history, row) for history in self.history(layer)]
            given, states = states, [y.data for y, *_ in self.shares(cache.outputs)]
            outputs = [each for share in zip(states, rows[::2], rows[1::2], strict=True) for each in share]
            self.runtime.launch(cache, step_inputs(caches, layer, given), outputs)
        self.length, self.seen = row + 1, [*self.seen, token]
        return states[0]

    def check_prompt(self, prompt: Sequence[int]) -> None:
        """UserError for what the file cannot take: no token, too many, or one that the embedding lacks."""
        count, rows = len(prompt), self.sizes.prefill_rows
        if count == 0:
            raise UserError("the prompt is empty: it makes no token")
        if count > rows:
            raise UserError(
                f"the prompt has {count} tokens, this file takes at most {rows}: shorten it, or compile with "
                "a larger --max_input_length (or -s)"
            )
        self._check_tokens(prompt)

    def _check_tokens(self, tokens: Sequence[int]) -> None:
        unknown = self.unknown_token(tokens)
        if unknown is not None:
            raise UserError(f"token {unknown} has no row in the embedding, which has {self.vocabulary} rows")

    def unknown_token(self, tokens: Sequence[int]) -> int | None:
        """The first token that is no row of the embedding."""
        rows = self.vocabulary if self.vocabulary is not None else 1 << 31
        return next((token for token in tokens if not 0 <= token < rows), None)

    @cached_property
    def vocabulary(self) -> int | None:
        """Rows of the embedding; None where the nets do not say. Chips give zeros for any row beyond."""
        if self.table is not None:
            return len(self.table)
        assert self.embedding is not None
        cores = [core for part in self.embedding.parts for core in part.program.cores]
        instructions = [each for core in cores for each in core.dma]
        sizes = {each.fields["src_hsize"] for each in instructions if each.name == "dma_gather"}
        return sizes.pop() if len(sizes) == 1 else None

    def set_prompt(self, count: int, layer: int = 0, ids: Array | None = None) -> None:
        """Positions, `ids` or those of text alone, and mask of a prompt. Given to the first layer, the others
        find them in the same place; clients of several devices give them to each.

        Token i sees tokens 0..i; the rows of padding see nothing at all.
        """
        for _, positions, mask in self.shares(self.blocks[layer].inputs):
            positions.array[...] = 0
            positions.array[:, :count] = self.positions(count) if ids is None else ids
            words = mask.data.view(np.uint16).reshape(self.sizes.prefill_rows, -1)
            words[...] = self.masked
            for row in range(count):
                words[row, : row + 1] = 0

    def stage_for(self, row: int) -> list[CallableNet]:
        """The cache nets for one token after `row` others: the last of their stages before the first that has
        too few rows for all of them, this token included.

        Source: select_decode_stage of models/Qwen3/cpp_demo/chat.cpp in Sophgo's LLM-TPU; its programs in
        Python always take the first.
        """
        chosen = self.caches
        for caches in self.stages[1:]:
            if history_rows(caches[0]) <= row:
                break
            chosen = caches
        return chosen

    def set_step(self, row: int, caches: Sequence[CallableNet], position: int | None = None) -> None:
        """Position, that of text alone if none is given, and mask of one token after `row` others; all layers
        are given those of the first.
        """
        for _, positions, mask, *_ in self.shares(caches[0].inputs):
            positions.array[...] = row if position is None else position
            words = mask.data.view(np.uint16)
            words[:] = 0
            words[row : history_rows(caches[0])] = self.masked  # the last column is the new token itself

    def next_token(self, state: Array) -> int:
        output = self.lm_head.outputs[0]
        self.runtime.launch(self.lm_head, [state], [output.data])
        if self.greedy_head is None:
            return int(output.array.flat[0])
        if self.sampler is not None:
            return self.sampler.draw(self.runtime, output.array, self.seen)
        self.greedy_head.inputs[0].data[...] = output.data
        self.runtime.launch(self.greedy_head)
        return int(self.greedy_head.outputs[0].array.flat[0])

    @property
    def choices(self) -> list[CallableNet]:
        """The nets that choose a token where the head gives logits."""
        names = [] if self.greedy_head is None else [name for name in CHOICES if self.runtime.has_net(name)]
        return [self.runtime.net(name) for name in names]

    def sample(self, sampling: Sampling, seed: int | None = None) -> None:
        """Draw tokens from now on; UserError where the file cannot."""
        if self.greedy_head is None or not self.runtime.has_net(SAMPLE_HEAD):
            raise UserError(f"it has no net '{SAMPLE_HEAD}', which draws tokens: compile with --do_sample")
        self.sampler = Sampler(self.runtime.net(SAMPLE_HEAD), sampling, seed)

    def history(self, layer: int) -> list[Buffer]:
        """A layer's keys and values: the buffers are inputs 3 and 4 of its cache net, in its first stage;
        those of each device.
        """
        return [buffer for share in self.shares(self.caches[layer].inputs) for buffer in share[3:5]]

    def shares(self, buffers: Sequence[Buffer]) -> list[Sequence[Buffer]]:
        """Those of each device."""
        return shares(buffers, self.devices)

    def _row(self, history: Buffer, row: int) -> Array:
        size = self.sizes.row_bytes
        return history.data[row * size : (row + 1) * size]

    def embed_prompt(self, prompt: Sequence[int]) -> list[Array]:
        """The states of the prompt on each device, as bytes."""
        used = len(prompt) * self.sizes.hidden_bytes
        if self.embedding is None:
            return [self._look_up(prompt)] * self.devices
        return [states[:used].copy() for states in self.embed(self.embedding, prompt)]

    def _embed_token(self, token: int) -> list[Array]:
        if self.embedding_cache is None:
            return [self._look_up([token])] * self.devices
        return self.embed(self.embedding_cache, [token])

    def embed(self, net: CallableNet, tokens: Sequence[int]) -> list[Array]:
        """What each device has of the tokens, as bytes."""
        for buffer in net.inputs:
            buffer.array[...] = 0
            buffer.array.flat[: len(tokens)] = tokens
        self.runtime.launch(net)
        return [buffer.data for buffer in net.outputs]

    def _look_up(self, tokens: Sequence[int]) -> Array:
        assert self.table is not None
        return np.ascontiguousarray(self.table[list(tokens)]).reshape(-1).view(np.uint8)


def step_inputs(caches: Sequence[CallableNet], layer: int, states: Sequence[Array]) -> list[Array]:
    """The inputs of a layer's cache net, as bytes, by the states of each device: position and mask of the
    first layer, its own history.
    """
    firsts, owns = (shares(caches[each].inputs, len(states)) for each in (0, layer))
    found: list[Array] = []
    for state, first, own in zip(states, firsts, owns, strict=True):
        found += [state, *(buffer.data for buffer in (*first[1:3], *own[3:5]))]
    return found


def shares(buffers: Sequence[Buffer], devices: int) -> list[Sequence[Buffer]]:
    """Inputs or outputs of a net, by device."""
    count = len(buffers) // devices
    return [buffers[start : start + count] for start in range(0, count * devices, count)]


def history_rows(cache: CallableNet) -> int:
    """Tokens that a cache net reads keys and values of."""
    return int(cache.inputs[3].info.shape[1])


def gives_logits(head: CallableNet) -> bool:
    """Whether another net has to make a token of what the head gives; clients go by the size alone."""
    return head.outputs[0].info.shape[-1] > 1


def _need(runtime: Runtime, name: str) -> CallableNet:
    if not runtime.has_net(name):
        raise UserError(f"not a language model: it has no net '{name}'")
    return runtime.net(name)


def _layers(runtime: Runtime) -> tuple[list[CallableNet], list[list[CallableNet]]]:
    """Blocks of all layers up to the first that lacks either net, and, for each stage, their caches."""
    layers = range(max(1, layer_count(runtime.has_net)))
    blocks, caches = ([_need(runtime, net_name(kind, layer)) for layer in layers] for kind in LAYER_NETS)
    stages = [runtime.stages(cache.name) for cache in caches]
    if len({len(each) for each in stages}) > 1:
        raise UserError(f"its layers do not all have {len(stages[0])} stages of decode")
    return blocks, [list(each) for each in zip(*stages, strict=True)]


def _sizes(blocks: list[CallableNet], caches: list[CallableNet], devices: int) -> Sizes:
    counts = len(blocks[0].inputs), len(caches[0].inputs)
    if counts != (BLOCK_INPUTS * devices, CACHE_INPUTS * devices):
        raise UserError("its blocks do not have the inputs of a static text model")
    dtype = caches[0].inputs[0].info.dtype
    if dtype not in MASK_WORDS:
        raise UserError(f"its blocks compute in {dtype}; known are {', '.join(MASK_WORDS)}")
    return Sizes(
        layers=len(blocks),
        prefill_rows=blocks[0].inputs[0].info.shape[1],
        streams=blocks[0].inputs[1].info.shape[0],
        history_rows=history_rows(caches[0]),
        hidden_bytes=caches[0].outputs[0].info.size,
        row_bytes=caches[0].outputs[1].info.size,
    )
