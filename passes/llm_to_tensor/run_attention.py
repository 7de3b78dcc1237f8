"""Attention of a run of tokens: which queries meet which keys together, and what a mask hides of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from compiler.ir.core import Value
from compiler.ir.types import BF16, F32
from compiler.sizes import round_up
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.attend import KeyValues, Mask, Queries, Scores, attend, load_mask
from passes.llm_to_tensor.online import State, finished, met
from passes.llm_to_tensor.pieces import Part
from passes.ranges import Range, consecutive, even_parts, even_ranges
from passes.tensor.build import Build

EDGE_UNIT = 16  # columns


@dataclass
class Tile:
    """Queries [heads, tokens, d] that meet keys together, their sinks, and what they have seen."""

    queries: Queries
    sinks: Value | None
    state: State | None = None

    @property
    def known(self) -> State:
        assert self.state is not None
        return self.state


@dataclass(frozen=True)
class RunAttention:
    """The attention `op` of the queries at positions `run`; sinks f32 [heads, 1, 1]."""

    build: Build
    op: llm.AttentionOp
    run: Range
    mask: Mask
    sinks: Value | None

    # ---- all keys at once ----

    def at_once(self, q: Value, kv: KeyValues) -> Value:
        """q [1, heads, tokens, d] -> [1, tokens, heads, d].

        A row of lanes of queries at a time, and the heads of one KV head.
        """
        _, heads, count, width = q.type.shape
        blocks = []
        for block in even_ranges(count, self.build.spec.lanes, 1):
            some = self.build.slice(q, (0, 0, block.start, 0), (1, heads, block.size, width))
            some = self.build.reshape(some, (heads, block.size, width), Lanes(1))
            seen = self._seen_by(block)
            scores = Scores(self._mask_rows(block, seen), self.op.softcap, self.sinks)
            blocks.append(self._groups_of_heads(some, kv, kv.parts(seen), scores))
        return self._by_token(self.build.concat(blocks, 0), heads)

    def _groups_of_heads(self, q: Value, kv: KeyValues, parts: list[Part], scores: Scores) -> Value:
        """q [heads, queries, d] -> [queries, heads * width of values].

        Heads that share keys, as many at a time as have scores that take little room.
        """
        _, queries, width = q.type.shape
        most = max(1, self.build.spec.work_bytes // (F32.bytes * scores.mask.type.shape[2]))
        columns = []
        for head, group in enumerate(consecutive(self.op.heads_of)):
            for some in even_parts(group, 1, most):
                part = self.build.slice(q, (some.start, 0, 0), (some.size, queries, width))
                sinks = scores.sinks and self.build.slice(scores.sinks, (some.start, 0, 0), (some.size, 1, 1))
                out = attend(self.build, [Queries(head, part)], kv, parts, replace(scores, sinks=sinks))
                columns.append(self._columns(out))
        return self.build.concat(columns, 1)

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

        The first block are the run's own tokens; the others are asked for when those before are done with.
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

        Scores of a tile take little room, or twice that where heads that share keys then stay together.
        """
        count = q.type.shape[2]
        room = max(1, self.build.spec.work_bytes // (F32.bytes * most))
        groups = enumerate(consecutive(self.op.heads_of))
        shares = [(head, some) for head, group in groups for some in even_parts(group, 1, 2 * room)]
        lane_rows = room // max(some.size for _, some in shares)
        for tokens in even_ranges(count, self.build.spec.lanes, lane_rows):
            yield tokens, [self._tile(q, head, some, tokens) for head, some in shares]

    def _tile(self, q: Value, head: int, heads: Range, tokens: Range) -> Tile:
        width = q.type.shape[3]
        some = self.build.slice(q, (0, heads.start, tokens.start, 0), (1, heads.size, tokens.size, width))
        some = self.build.reshape(some, (heads.size, tokens.size, width), Lanes(1))
        if heads.size > 1:  # rows of heads that follow each other are one left operand
            some = self.build.copy(some)
        sinks = self.sinks and self.build.slice(self.sinks, (heads.start, 0, 0), (heads.size, 1, 1))
        return Tile(Queries(head, some), sinks)

    def _begin(self, tokens: Range, tiles: list[Tile], own: KeyValues, most: int) -> None:
        """Meet the keys of this run, each row of lanes of queries those up to its own."""
        lanes = self.build.spec.lanes
        states: list[list[State]] = [[] for _ in tiles]
        for row in even_parts(tokens, lanes, 1):
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
        mask = self._shown(tokens, keys, parts) or self._mask_rows(tokens, keys)
        for tile in tiles:
            rules = Scores(mask, self.op.softcap, tile.sinks)
            tile.state = met(self.build, [tile.queries], block, parts, rules, tile.state)

    def _finish(self, tile: Tile) -> Value:
        """[heads, queries, d] of 16 bit."""
        return finished(self.build, tile.known, tile.sinks, self.op.q.type.element, Lanes(1))

    # ---- masks ----

    def _seen_by(self, tokens: Range) -> Range:
        """The keys that some of these tokens of the run may see."""
        total = self.op.k.type.shape[2]
        return seen_keys(self.op.visible, tokens.moved(self.run.start), total, self.build.spec.lanes)

    def _shown(self, tokens: Range, keys: Range, parts: list[Part]) -> Value | None:
        """[1, queries, keys] ui16, where the order of tokens shows all of these keys to all of the queries,
        so that hardly one is hidden; else None.

        A mask of bf16 is 0 or hides. What it hides is then left out of the weights instead of the scores,
        in half of the time. It takes part in the maximum, so what counts loses its last bits where it is
        100 powers of two below what is hidden.
        """
        by_order = self.op.visible.kind == "causal" and keys.stop <= self.run.start + tokens.start + 1
        exact = self.mask.first is not None or self.mask.rows.type.element != BF16
        whole = all(part.rows.size % self.build.spec.lanes == 0 for part in parts)
        if exact or not (by_order and whole and self.op.q.type.element == BF16):
            return None
        local = self.build.load(self._mask_of(tokens, keys), Lanes(1))
        return self.build.add(tensor.WhereZeroOp(local))

    def _mask_of(self, tokens: Range, keys: Range) -> Value:
        """[1, queries, keys] of the client's mask, in DDR."""
        corner = (0, 0, self.run.start + tokens.start, keys.start)
        rows = self.build.slice(self.mask.rows, corner, (1, 1, tokens.size, keys.size))
        return self.build.reshape(rows, (1, tokens.size, keys.size), None)

    def _mask_rows(self, tokens: Range, keys: Range) -> Value:
        """[1, queries, keys] in its unit; only keys of the edge may lie before a query's first one."""
        edge = Range(keys.start, keys.start)
        if self.mask.first is not None:
            edge = edge_of(self.op.visible, tokens.moved(self.run.start), keys)
        parts = [(edge, self.mask), (Range(edge.stop, keys.stop), replace(self.mask, first=None))]
        found = [self._mask_part(part, tokens, some) for some, part in parts if some.size]
        return self.build.concat(found, 2)

    def _mask_part(self, mask: Mask, tokens: Range, keys: Range) -> Value:
        """Those columns of `_mask_rows`; `mask.first` [1, tokens, 1] is of all this run's queries."""
        rows = self._mask_of(tokens, keys)
        if mask.first is not None:
            first = self.build.slice(mask.first, (0, tokens.start, 0), (1, tokens.size, 1))
            first = self.build.scalar(tensor.SubOp, first, float(keys.start)) if keys.start else first
            mask = replace(mask, first=first)
        return load_mask(self.build, rows, Lanes(1), mask)


def joined(build: Build, states: Sequence[State]) -> State:
    """Of [heads, tokens, ..], one after the other."""
    highest, sums = ([getattr(state, name) for state in states] for name in ("highest", "sums"))
    return State(build.concat(highest, 1), build.concat(sums, 1))


def seen_keys(visible: llm.Visible, positions: Range, total: int, lanes: int) -> Range:
    """The keys that queries at these positions may see, from a row of lanes on, where matrices start."""
    first = visible.first_key(positions.start) // lanes * lanes
    return Range(first, visible.stop_key(positions.stop - 1, total))


def edge_of(visible: llm.Visible, positions: Range, seen: Range) -> Range:
    """Those of the seen keys that some query at these positions may not see, as they are too far back.

    In whole units, so that neither part is a single column, which would lie in another way.
    """
    if visible.kind not in ("window", "chunk"):
        return seen
    behind = max(0, visible.first_key(positions.stop - 1) - seen.start)
    stop = seen.start + round_up(behind, EDGE_UNIT)
    return Range(seen.start, stop if stop + EDGE_UNIT <= seen.stop else seen.stop)
