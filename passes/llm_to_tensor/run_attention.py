"""Attention of a run of tokens: which queries meet which keys together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from compiler.ir.core import Value
from compiler.ir.types import F32
from dialects import llm
from dialects.tensor import Lanes
from passes.llm_to_tensor.attend import KeyValues, Queries, Scores, attend
from passes.llm_to_tensor.online import State, finished, met
from passes.llm_to_tensor.pieces import Part
from passes.llm_to_tensor.run_mask import RunMask
from passes.ranges import Range, consecutive, even_parts, even_ranges
from passes.tensor.build import Build


@dataclass
class Tile:
    """Queries [heads, tokens, d] that meet keys together, their sinks, and what they have seen."""

    queries: Queries
    sinks: Value | None
    state: State | None = None

    @property
    def heads(self) -> int:
        return int(self.queries.q.type.shape[0])

    @property
    def known(self) -> State:
        assert self.state is not None
        return self.state


@dataclass(frozen=True)
class RunAttention:
    """The attention `op` of the queries at positions `run`; sinks f32 [heads, 1, 1].

    room: bytes of a lane, of the scores that become weights at a time.
    """

    build: Build
    op: llm.AttentionOp
    run: Range
    mask: RunMask | None
    sinks: Value | None
    room: int

    # ---- all keys at once ----

    def at_once(self, q: Value, kv: KeyValues) -> Value:
        """q [1, heads, tokens, d] -> [1, tokens, heads, d]; `kv` has all keys that they may see."""
        found = []
        for tokens in self._token_parts(q.type.shape[2]):
            seen = self._seen_by(tokens)
            mask = None if self.mask is None else self.mask.rows(tokens, seen)
            rules = Scores(mask, self.room, self.op.softcap, self.sinks)
            columns = [
                self._columns(self._met_at_once(q, tokens, heads, kv, kv.parts(seen), rules))
                for heads in self._heads_at_once(self._room(seen.size) // self._lane_rows(tokens))
            ]
            found.append(self.build.concat(columns, 1))
        return self._by_token(self.build.concat(found, 0), q.type.shape[1])

    def _room(self, keys: int) -> int:
        """How many rows of lanes of scores with so many keys become weights at a time."""
        return max(1, self.room // (F32.bytes * keys))

    def _lane_rows(self, tokens: Range) -> int:
        return -(-tokens.size // self.build.spec.lanes)

    def _token_parts(self, count: int) -> Iterator[Range]:
        """Tokens of the run that see the same keys: a row of lanes, or more where all see all."""
        most = 1 if self.op.visible.is_placed else self._room(self.op.k.type.shape[2])
        return even_ranges(count, self.build.spec.lanes, most)

    def _heads_at_once(self, most: int) -> Iterator[list[tuple[int, Range]]]:
        """Heads that share one softmax, about `most` of them: those of each KV head, beside its number."""
        groups = enumerate(consecutive(self.op.heads_of))
        found: list[tuple[int, Range]] = []
        for share in [(head, some) for head, group in groups for some in even_parts(group, 1, max(1, most))]:
            if found and share[1].stop - found[0][1].start > most:
                yield found
                found = []
            found.append(share)
        yield found

    def _met_at_once(
        self,
        q: Value,
        tokens: Range,
        heads: Sequence[tuple[int, Range]],
        kv: KeyValues,
        parts: Sequence[Part],
        rules: Scores,
    ) -> Value:
        """[heads, tokens, d] of 16 bit."""
        queries = [Queries(head, self._queries(q, some, tokens)) for head, some in heads]
        first, count = heads[0][1].start, heads[-1][1].stop - heads[0][1].start
        sinks = rules.sinks and self.build.slice(rules.sinks, (first, 0, 0), (count, 1, 1))
        return attend(self.build, queries, kv, parts, replace(rules, sinks=sinks))

    def _queries(self, q: Value, heads: Range, tokens: Range) -> Value:
        """[heads, tokens, d]."""
        width = q.type.shape[3]
        some = self.build.slice(q, (0, heads.start, tokens.start, 0), (1, heads.size, tokens.size, width))
        return self.build.reshape(some, (heads.size, tokens.size, width), Lanes(1))

    def _columns(self, out: Value) -> Value:
        """[heads, queries, d] -> [queries, heads * d]."""
        heads, queries, width = out.type.shape
        out = self.build.permute(out, (1, 0, 2))
        return self.build.reshape(out, (queries, heads * width), Lanes(0))

    def _by_token(self, rows: Value, heads: int) -> Value:
        """[tokens, heads * d] -> [1, tokens, heads, d]."""
        count, columns = rows.type.shape
        return self.build.reshape(rows, (1, count, heads, columns // heads), Lanes(1))

    # ---- block by block ----

    def streamed(self, q: Value, blocks: Iterable[KeyValues], most: int) -> Value:
        """As `at_once`, over blocks whose values are `counted`, at most `most` keys of them at a time.

        Where the order of tokens counts, the first block are the run's own tokens. The others are asked for
        when those before are done with.
        """
        rows = [*self._rows_of_tiles(q, most)]
        left = iter(blocks)
        own = next(left)
        for tokens, tiles in rows:
            self._begin(tokens, tiles, own, most)
        for block in left:
            for tokens, tiles in rows:
                self._go_on(tokens, tiles, block)
        found = [[self._columns(self._finish(tile)) for tile in tiles] for _, tiles in rows]
        outs = [self.build.concat(columns, 1) for columns in found]
        return self._by_token(self.build.concat(outs, 0), q.type.shape[1])

    def _rows_of_tiles(self, q: Value, most: int) -> Iterator[tuple[Range, list[Tile]]]:
        """Tokens of the run, and tiles of all heads for these.

        Half of the scores of a tile become weights at a time.
        """
        count, most = q.type.shape[2], 2 * self._room(most)
        groups = enumerate(consecutive(self.op.heads_of))
        shares = [(head, some) for head, group in groups for some in even_parts(group, 1, most)]
        lane_rows = most // max(some.size for _, some in shares)
        for tokens in even_ranges(count, self.build.spec.lanes, lane_rows):
            yield tokens, [self._tile(q, head, some, tokens) for head, some in shares]

    def _tile(self, q: Value, head: int, heads: Range, tokens: Range) -> Tile:
        some = self._queries(q, heads, tokens)
        if heads.size > 1:  # rows of heads that follow each other are one left operand
            some = self.build.copy(some)
        sinks = self.sinks and self.build.slice(self.sinks, (heads.start, 0, 0), (heads.size, 1, 1))
        return Tile(Queries(head, some), sinks)

    def _begin(self, tokens: Range, tiles: list[Tile], own: KeyValues, most: int) -> None:
        """Meet the first block; where the order of tokens counts, each row of lanes what it sees."""
        lanes = self.build.spec.lanes
        states: list[list[State]] = [[] for _ in tiles]
        for row in even_parts(tokens, lanes, 1 if self.op.visible.is_placed else tokens.size):
            part = row.moved(-tokens.start)
            some = [replace(tile, queries=self._rows_of(tile.queries, part)) for tile in tiles]
            for keys in even_parts(self._seen_by(row).within(own.tokens), lanes, most // lanes):
                self._meet(row, some, own, keys)
            for known, tile in zip(states, some, strict=True):
                known.append(tile.known)
        for tile, parts in zip(tiles, states, strict=True):
            tile.state = joined(self.build, parts)

    def _rows_of(self, queries: Queries, tokens: Range) -> Queries:
        heads, _, width = queries.q.type.shape
        q = self.build.slice(queries.q, (0, tokens.start, 0), (heads, tokens.size, width))
        return replace(queries, q=q)

    def _go_on(self, tokens: Range, tiles: list[Tile], block: KeyValues) -> None:
        keys = self._seen_by(tokens).within(block.tokens)
        if keys.size:
            self._meet(tokens, tiles, block, keys)

    def _meet(self, tokens: Range, tiles: list[Tile], block: KeyValues, keys: Range) -> None:
        parts = block.parts(keys)
        mask = hiding = None
        if self.mask is not None:
            hiding = self.mask.hiding(tokens, keys, parts, max(tile.heads for tile in tiles))
            mask = hiding or self.mask.rows(tokens, keys)
        for tile in tiles:
            ours = hiding and self.build.slice(hiding, (0, 0, 0), (tile.heads, *hiding.type.shape[1:]))
            rules = Scores(ours or mask, self.room, self.op.softcap, tile.sinks)
            tile.state = met(self.build, [tile.queries], block, parts, rules, tile.state)

    def _finish(self, tile: Tile) -> Value:
        """[heads, queries, d] of 16 bit."""
        return finished(self.build, tile.known, tile.sinks, self.op.q.type.element, Lanes(1))

    def _seen_by(self, tokens: Range) -> Range:
        """The keys that some of these tokens of the run may see."""
        total = self.op.k.type.shape[2]
        return seen_keys(self.op.visible, tokens.moved(self.run.start), total, self.build.spec.lanes)



def joined(build: Build, states: Sequence[State]) -> State:
    """Of [heads, tokens, ..], one after the other."""
    found = ([getattr(state, name) for state in states] for name in ("power", "sums"))
    return State(*(build.concat(parts, 1) for parts in found))


def most_seen(op: llm.AttentionOp, lanes: int) -> int:
    """How many keys a row of lanes of queries sees at most, wherever it is."""
    total, rows = op.k.type.shape[2], even_ranges(op.q.type.shape[2], lanes, 1)
    return max(seen_keys(op.visible, row, total, lanes).size for row in rows)


def seen_keys(visible: llm.Visible, positions: Range, total: int, lanes: int) -> Range:
    """The keys that queries at these positions may see, from a row of lanes on, where matrices start."""
    first = visible.first_key(positions.start) // lanes * lanes
    return Range(first, visible.stop_key(positions.stop - 1, total))
