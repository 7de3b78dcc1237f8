"""What a mask hides of some keys from some queries of a run of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compiler.ir.core import Value
from compiler.ir.types import BF16
from compiler.sizes import round_up
from dialects import llm, tensor
from dialects.tensor import Lanes
from passes.llm_to_tensor.attend import Mask, load_mask
from passes.llm_to_tensor.pieces import Part
from passes.ranges import Range
from passes.tensor.build import Build

EDGE_UNIT = 16  # columns


@dataclass(frozen=True)
class RunMask:
    """The mask of the attention `op` of the queries at positions `run`, from where tokens are counted."""

    build: Build
    op: llm.AttentionOp
    run: Range
    mask: Mask

    def hiding(self, tokens: Range, keys: Range, parts: Sequence[Part], heads: int) -> Value | None:
        """[heads, queries, keys] as `tensor.hiding` makes it, where the order of tokens shows all of these
        keys to all of the queries, so that hardly one is hidden; else None.

        A mask of bf16 is 0 or hides. What it hides is then left out of the weights instead of the scores,
        in half of the time. It takes part in the maximum, so what counts loses its last bits where it is
        100 powers of two below what is hidden.
        """
        by_order = self.op.visible.kind == "causal" and keys.stop <= self.run.start + tokens.start + 1
        exact = self.mask.first is not None or self.mask.rows.type.element != BF16
        whole = all(part.rows.size % self.build.spec.lanes == 0 for part in parts)
        if exact or not (by_order and whole and self.op.q.type.element == BF16):
            return None
        local = self.build.load(self._in_ddr(tokens, keys), Lanes(1))
        return self.build.add(tensor.HidingOp(local, times=heads))

    def rows(self, tokens: Range, keys: Range) -> Value:
        """[1, queries, keys] in its unit; only keys of the edge may lie before a query's first one."""
        edge = Range(keys.start, keys.start)
        if self.mask.first is not None:
            edge = edge_of(self.op.visible, tokens.moved(self.run.start), keys)
        parts = [(edge, self.mask), (Range(edge.stop, keys.stop), replace(self.mask, first=None))]
        found = [self._columns(part, tokens, some) for some, part in parts if some.size]
        return self.build.concat(found, 2)

    def _columns(self, mask: Mask, tokens: Range, keys: Range) -> Value:
        """Some of `rows`; `mask.first` [1, tokens, 1] is of all this run's queries."""
        if mask.first is not None:
            first = self.build.slice(mask.first, (0, tokens.start, 0), (1, tokens.size, 1))
            first = self.build.scalar(tensor.SubOp, first, float(keys.start)) if keys.start else first
            mask = replace(mask, first=first)
        return load_mask(self.build, self._in_ddr(tokens, keys), Lanes(1), mask)

    def _in_ddr(self, tokens: Range, keys: Range) -> Value:
        """[1, queries, keys] as the client wrote it."""
        corner = (0, 0, self.run.start + tokens.start, keys.start)
        rows = self.build.slice(self.mask.rows, corner, (1, 1, tokens.size, keys.size))
        return self.build.reshape(rows, (1, tokens.size, keys.size), None)


def edge_of(visible: llm.Visible, positions: Range, seen: Range) -> Range:
    """Those of the seen keys that some query at these positions may not see, as they are too far back.

    In whole units, so that neither part is a single column, which would lie in another way.
    """
    if visible.kind not in ("window", "chunk"):
        return seen
    behind = max(0, visible.first_key(positions.stop - 1) - seen.start)
    stop = seen.start + round_up(behind, EDGE_UNIT)
    return Range(seen.start, stop if stop + EDGE_UNIT <= seen.stop else seen.stop)
