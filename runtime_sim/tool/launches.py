"""What `verify` runs each net on, so that the positions that a client can give are covered.

- Blocks: a prompt of full length, each token of which is looked at. The first block of each program is also
  given a shorter prompt, whose padding must not reach its tokens.
- Cache nets, in each of their stages: the token in the middle of what it holds, the second and the last, with
  all others in the caches and those after it masked. What differs by position alone is the row of the rope
  table: of each program and table, one net is given the positions that its layer's block has not read from
  the same table: all of them, or as many as `POSITIONS` spread over them, where a run of each would take
  time that grows with the square of the length.
- Embeddings: every token that there is; the head: some states of the conversation.
- A tower: pictures (`shown`). The first block is given a prompt about one of them too, by itself: of all
  tokens that it is run on, those with positions of a picture's are too few to tell much.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compiler.diagnostics import UserError
from runtime_sim.arrays import Array
from runtime_sim.check.ranges import Access, accesses
from runtime_sim.launch.loader import Region
from runtime_sim.launch.runtime import NUMPY_TYPES, Buffer, CallableNet, RuntimeNet
from runtime_sim.launch.sampling import Sampler, Sampling, candidates, penalized
from runtime_sim.launch.session import Session, history_rows, step_inputs
from runtime_sim.launch.tower import Picture, Tower
from runtime_sim.tool.agreement import Agreement, Limits, weight_bits
from runtime_sim.tool.reference import LayerValues, Reference
from runtime_sim.tool.shown import Shown, drawn_pictures, prompt_shown

TABLE_ROWS = 4096  # of an embedding, compared at a time
HEAD_STATES = 8
ELSEWHERE = slice(0, 0)  # not in the conversation
PICTURE = " (picture)"  # behind the name of a net that is run on a prompt about one
BLOCK_OUTPUTS = 3  # of one device, states first
POSITIONS = 512  # that a cache net is given, at most
SAMPLING = Sampling(penalty=1.2, temperature=0.9, top_k=0, top_p=1.0)  # leaves no candidate out
LOGIT_TOLERANCE = 1e-4  # of logits that were penalized, which rounds
PROBABILITY_TOLERANCE = 1e-3
# Of the logits' standard deviation, by the bits of the head's weights: a smaller gap is a tie.
_TOKEN_TOLERANCE = {4: 0.6, 8: 0.05, 16: 0.05}


@dataclass(frozen=True)
class NetRun:
    """A launch of a net: copies of its inputs, and the reference's values of its outputs' first rows."""

    net: CallableNet
    tokens: slice  # of the reference's run; empty for what is not in it. Messages count from its start
    inputs: list[Array]
    wanted: list[Array]
    decided: Array | None = None  # which tokens' states no rounding can make others; None for all

    def agreements(self, outputs: Sequence[Array]) -> dict[str, Agreement]:
        """By the names of the outputs, of which states come first."""
        names = [output.info.name for output in self.net.outputs]
        share = min(len(names), BLOCK_OUTPUTS)
        decided = [None if index % share else self.decided for index in range(len(names))]
        return {
            name: Agreement.of(_rows(given, wanted.size).reshape(wanted.shape), wanted, each)
            for name, given, wanted, each in zip(names, outputs, self.wanted, decided, strict=True)
        }

    def problems(self, outputs: Sequence[Array], limits: Limits) -> list[str]:
        """Tokens for which the outputs part from the reference, in words."""
        found, first = self.agreements(outputs).items(), self.tokens.start
        return [
            f"{self.net.name} {name} ({text})"
            for name, each in found
            for text in limits.broken_by_one(each, first)
        ]

    def parts(self, outputs: Sequence[Array], limits: Limits) -> bool:
        """Whether the outputs of this launch alone are not those of the reference."""
        return any(text for each in self.agreements(outputs).values() for text in limits.broken(each))

    def cosine(self, outputs: Sequence[Array]) -> float:
        """The lowest of the outputs' cosines; NaN when any is."""
        return float(np.min([found.cosine for found in self.agreements(outputs).values()]))


@dataclass(frozen=True)
class HeadRun(NetRun):
    """A launch of the head: the token is right when no other is clearly more likely to the reference.

    Where the head gives logits, its token is that of the largest.
    """

    def token(self, outputs: Sequence[Array]) -> int:
        output = outputs[0].reshape(-1)
        return int(output.argmax()) if output.size > 1 else int(output[0])

    def cosine(self, outputs: Sequence[Array]) -> float:
        return float(self.agrees(self.token(outputs)))

    def problems(self, outputs: Sequence[Array], limits: Limits) -> list[str]:
        token = self.token(outputs)
        return [] if self.agrees(token) else [f"{self.net.name} ({self.text(token)})"]

    def parts(self, outputs: Sequence[Array], limits: Limits) -> bool:
        return not self.agrees(self.token(outputs))

    def agrees(self, token: int) -> bool:
        logits = self.wanted[0]
        tolerance = _TOKEN_TOLERANCE[bits_of(self.net)]
        return 0 <= token < len(logits) and self.gap(token) < tolerance * float(logits.std())

    def gap(self, token: int) -> float:
        """By how much the reference prefers its own token."""
        logits = self.wanted[0]
        return float(logits.max() - logits[token]) if 0 <= token < len(logits) else np.inf

    def text(self, token: int) -> str:
        best = int(self.wanted[0].argmax())
        if token == best:
            return f"token {token}, as the reference"
        return f"token {token}, the reference {best}, {self.gap(token):.4g} ahead"


@dataclass(frozen=True)
class ChoiceRun(HeadRun):
    """A launch of a net that takes logits: it names the largest, and says how likely each candidate is.

    `wanted` are the logits and, of a net that says it, the probabilities, the largest first.
    """

    def token(self, outputs: Sequence[Array]) -> int:
        return int(outputs[-1].flat[0])

    def agrees(self, token: int) -> bool:
        return self.gap(token) <= LOGIT_TOLERANCE

    def problems(self, outputs: Sequence[Array], limits: Limits) -> list[str]:
        found = super().problems(outputs, limits)
        for given, wanted in zip(outputs[:-1], self.wanted[1:], strict=True):
            off = float(np.abs(given.reshape(-1) - wanted).max())
            if not off <= PROBABILITY_TOLERANCE:
                found.append(f"{self.net.name} (a probability is off by {off:.4g})")
        return found

    def parts(self, outputs: Sequence[Array], limits: Limits) -> bool:
        return bool(self.problems(outputs, limits))


class Verifier:
    """Runs the nets on the reference's values; a prompt is repeated until its tokens fill the caches."""

    def __init__(
        self,
        session: Session,
        reference: Reference,
        prompt: Sequence[int],
        pictures: Sequence[Picture] = (),
    ) -> None:
        self.session = session
        self.reference = reference
        check_same_model(session, reference)
        sizes = session.sizes
        self.tokens = [int(token) for token in np.resize(prompt, sizes.history_rows)]
        self.heads = sorted({*np.linspace(0, len(self.tokens) - 1, HEAD_STATES).astype(int).tolist()})
        self.trace = reference.trace(self.tokens, self.heads)
        kept, here = self.trace.layers[0].keys.shape[1:], session.history(0)[0].info.shape[2:]
        if (len(heads_of(kept[0], session.devices)[0]), kept[1]) != tuple(here):
            raise UserError(f"not the same model: keys of {list(here)}, the reference has {list(kept)}")
        self.pictures, self.shown = [*pictures], None
        if session.tower is not None:
            self.pictures = self.pictures or drawn_pictures(session.tower)
            self.shown = prompt_shown(session, reference, self.pictures)

    @property
    def net_count(self) -> int:
        session = self.session
        others = 3 + len(session.choices) + (session.tower is not None) + (self.shown is not None)
        return (1 + len(session.stages)) * session.sizes.layers + others

    def nets(self) -> Iterator[tuple[str, Iterator[NetRun]]]:
        """The runs of each net; a run's outputs stand in the net's buffers until the next is asked for."""
        session = self.session
        if session.tower is not None:
            yield session.tower.net.name, self._tower(session.tower)
        for net in (session.embedding, session.embedding_cache):
            if net is not None:
                yield net.name, self._embedding(net)
        programs: set[object] = set()
        for layer, block in enumerate(session.blocks):
            yield block.name, self._block(layer, block, _is_new(programs, program_of(block)))
            if layer == 0 and self.shown is not None:
                yield block.name + PICTURE, self._about_picture(block, self.shown)
        known: set[object] = set()
        for caches in session.stages:
            for layer, cache in enumerate(caches):
                yield cache.name, self._cache(layer, caches, self._positions(layer, cache, known))
        yield session.lm_head.name, self._head()
        for net in session.choices:
            yield net.name, self._greedy(net) if len(net.inputs) == 1 else self._candidates(net)

    def _positions(self, layer: int, cache: CallableNet, known: set[object]) -> list[int]:
        """Where to try a cache net; `known` are the programs and tables that others were tried with."""
        block = self.session.blocks[layer]
        rows, last = position_rows(cache), history_rows(cache) - 1
        some = [-(-last // 2), min(1, last), last]  # what comes first in a conversation is a prompt
        if rows is not None and not _is_new(known, (program_of(cache), rows)):
            return list(dict.fromkeys(some))
        shared = rows is not None and rows == position_rows(block)  # then the prompt covered its first rows
        others = range(self.session.sizes.prefill_rows if shared else 1, last + 1)
        return list(dict.fromkeys([*some, *others[:: -(-len(others) // POSITIONS) or 1]]))

    def table_rows(self) -> Iterator[Agreement]:
        """The embedding on disk, part by part."""
        table = self.session.table
        assert table is not None
        for start in range(0, len(table), TABLE_ROWS):
            rows = table[start : start + TABLE_ROWS]
            yield Agreement.of(rows, self.reference.embedded(range(start, start + len(rows))))

    def _tower(self, tower: Tower) -> Iterator[NetRun]:
        """All pictures, by tiles where it takes these."""
        for whole in self.pictures:
            for picture in tower.parts(whole):
                wanted = self.reference.features(picture)
                tower.give(picture)
                given = [buffer.array.copy() for buffer in tower.net.inputs]
                self.session.runtime.launch(tower.net)
                yield NetRun(tower.net, ELSEWHERE, given, [wanted])

    def _embedding(self, net: CallableNet) -> Iterator[NetRun]:
        """The conversation, then all tokens if the net takes many at a time, else the first and the last."""
        size, vocabulary = net.inputs[0].array.size, self.reference.vocabulary
        yield self._lookup(net, self.tokens[:size], slice(0, size))
        starts = range(0, vocabulary, size) if size > 1 else (0, vocabulary - 1)
        for start in starts:
            elsewhere = slice(start, start)
            yield self._lookup(net, range(start, min(start + size, vocabulary)), elsewhere)

    def _lookup(self, net: CallableNet, tokens: Sequence[int], place: slice) -> NetRun:
        self.session.embed(net, tokens)
        given = [buffer.array.copy() for buffer in net.inputs]
        return NetRun(net, place, given, [self.reference.embedded(tokens)] * len(net.outputs))

    def _block(self, layer: int, block: CallableNet, with_padding: bool) -> Iterator[NetRun]:
        rows, values = self.session.sizes.prefill_rows, self.trace.layers[layer]
        for count in (rows, -(-rows // 3)) if with_padding and rows > 1 else (rows,):
            here = slice(0, count)
            yield replace(self._prompt(layer, block, values, here), tokens=here)

    def _about_picture(self, block: CallableNet, shown: Shown) -> Iterator[NetRun]:
        here = slice(0, len(shown.tokens))
        yield self._prompt(0, block, shown.trace.layers[0], here, shown.positions)

    def _prompt(
        self, layer: int, block: CallableNet, values: LayerValues, here: slice, ids: Array | None = None
    ) -> NetRun:
        self.session.set_prompt(here.stop, layer, ids)
        for x, *_ in self.session.shares(block.inputs):
            _put(x, values.states_in[here])
        given = [buffer.array.copy() for buffer in block.inputs]
        self.session.runtime.launch(block)
        return NetRun(block, ELSEWHERE, given, self._outputs(values, here), values.decided[here])

    def _cache(self, layer: int, caches: list[CallableNet], positions: Sequence[int]) -> Iterator[NetRun]:
        values = self.trace.layers[layer]
        for history, rows in zip(self.session.history(layer), self._kept(values, slice(None)), strict=True):
            _put(history, rows)
        for position in positions:
            yield self._step(layer, caches, values, position)

    def _step(self, layer: int, caches: list[CallableNet], values: LayerValues, position: int) -> NetRun:
        here, cache = slice(position, position + 1), caches[layer]
        self.session.set_step(position, caches)
        state = values.states_in[here].astype(NUMPY_TYPES[cache.inputs[0].info.dtype])
        inputs = step_inputs(caches, layer, [state.reshape(-1).view(np.uint8)] * self.session.devices)
        pairs = zip(cache.inputs, inputs, strict=True)
        given = [Buffer(buffer.info, data).array.copy() for buffer, data in pairs]
        self.session.runtime.launch(cache, inputs)
        return NetRun(cache, here, given, self._outputs(values, here), values.decided[here])

    def _outputs(self, values: LayerValues, rows: slice) -> list[Array]:
        kept = self._kept(values, rows)
        pairs = zip(kept[::2], kept[1::2], strict=True)
        return [each for keys, cached in pairs for each in (values.states_out[rows], keys, cached)]

    def _kept(self, values: LayerValues, rows: slice) -> list[Array]:
        """Keys and values of each device."""
        shares = heads_of(values.keys.shape[1], self.session.devices)
        return [each[rows][:, heads] for heads in shares for each in (values.keys, values.values)]

    def _head(self) -> Iterator[NetRun]:
        head = self.session.lm_head
        info = head.inputs[0].info
        for logits, position in zip(self.trace.logits, self.heads, strict=True):
            state = self.trace.layers[-1].states_out[position].astype(NUMPY_TYPES[info.dtype])
            self.session.next_token(state.view(np.uint8))
            yield HeadRun(head, slice(position, position + 1), [state.reshape(info.shape)], [logits])


    def _greedy(self, net: CallableNet) -> Iterator[NetRun]:
        for logits, position in zip(self.trace.logits, self.heads, strict=True):
            net.inputs[0].array[...] = logits
            self.session.runtime.launch(net)
            yield ChoiceRun(net, slice(position, position + 1), [net.inputs[0].array.copy()], [logits])

    def _candidates(self, net: CallableNet) -> Iterator[NetRun]:
        """After all tokens up to the one that the logits are of."""
        sampler = Sampler(net, SAMPLING, seed=0)
        for logits, position in zip(self.trace.logits, self.heads, strict=True):
            seen = self.tokens[: position + 1]
            sampler.draw(self.session.runtime, logits, seen)
            given = [buffer.array.copy() for buffer in net.inputs]
            scores = penalized(logits, np.array(seen), SAMPLING.penalty)
            probabilities, _ = candidates(logits, np.array(seen), SAMPLING, sampler.count)
            yield ChoiceRun(net, slice(position, position + 1), given, [scores, probabilities])


def check_same_model(session: Session, reference: Reference) -> None:
    """UserError when the sizes alone say that the file was made of something else."""
    sizes, state = session.sizes, session.caches[0].inputs[0].info
    for what, here, there in (
        ("layers", sizes.layers, len(reference.layers)),
        ("values in a state", state.shape[-1], reference.hidden),
        ("rows in the embedding", session.vocabulary or reference.vocabulary, reference.vocabulary),
    ):
        if here != there:
            raise UserError(f"not the same model: the file has {here} {what}, the reference {there}")


def heads_of(heads: int, devices: int) -> list[range]:
    """The heads of keys and values that each device has: where there are fewer than devices, each has one."""
    count = max(1, heads // devices)
    return [range(device * heads // devices, device * heads // devices + count) for device in range(devices)]


def bits_of(net: CallableNet) -> int:
    """The fewest bits of its weights."""
    return weight_bits(*(part.program.stage for part in net.parts))


def program_of(net: CallableNet) -> object:
    """Equal for nets that run the same instructions."""
    return tuple(id(core) for part in net.parts for core in part.program.cores)


def position_rows(called: CallableNet) -> bytes | None:
    """The tables from which a net picks rows by its position; None when that is not all it does with it.

    Each device does the same with the position as the first.
    """
    net = called.parts[0]
    program, info = net.program, net.inputs[1].info
    start = program.dma_address(info)
    found = []
    for core in program.cores:
        for instruction in core.dma:
            touched = [each for each in accesses(instruction, program.spec) if not each.is_local]
            if not any(_meets(each, start, start + info.size) for each in touched if not each.write):
                continue
            table = next((each for each in touched if each.operand == "src"), None)
            if instruction.name != "dma_gather" or table is None or _meets(table, start, start + info.size):
                return None
            found.append(_weights_in(net, table))
    distinct = dict.fromkeys(found)  # each run of tokens may pick from the same table
    return None if None in distinct or not distinct else b"".join(filter(None, distinct))


def _meets(access: Access, start: int, end: int) -> bool:
    return any(box.start < end and start < box.end for box in access.boxes)


def _weights_in(net: RuntimeNet, access: Access) -> bytes | None:
    """The bytes of the weights that an instruction reads; None when they are no weights."""
    span = net.program.span(Region.COEFF)
    if span is None or not all(span.start <= box.start and box.end <= span.end for box in access.boxes):
        return None
    memory = net.memories[Region.COEFF]
    return b"".join(memory[box.start - span.start : box.end - span.start].tobytes() for box in access.boxes)


def _is_new(known: set[object], key: object) -> bool:
    if key in known:
        return False
    known.add(key)
    return True


def _put(buffer: Buffer, rows: Array) -> None:
    """Rows of float32 into the first rows of a buffer; the others are zero."""
    data = buffer.array.reshape(-1)
    data[...] = 0
    data[: rows.size] = rows.reshape(-1).astype(data.dtype)


def _rows(output: Array, size: int) -> Array:
    """The first items of an output; what follows belongs to padding."""
    return output.reshape(-1)[:size]
