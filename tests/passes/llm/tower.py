"""A tower in llm ops: patches of a picture, a token in front of them, a layer, and neighbours merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tests.helpers import random_tensor

WIDTH, PATCH, HEADS = 64, 4, 2
INSIDE = 3 * PATCH * PATCH


def tensor(*shape: int, element: str = "bf16") -> str:
    return f"tensor<{'x'.join(map(str, shape))}x{element}>"


def moved(y: str, x: str, kind: str, how: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]) -> str:
    name = "shape" if kind == "reshape" else "order"
    return f'%{y} = "llm.{kind}"(%{x}) <{{{name} = array<i64: {", ".join(map(str, how))}>}}> : ({tensor(*before)}) -> {tensor(*after)}\n'


@dataclass(frozen=True)
class Tower:
    """Rows and columns of patches, tokens that are put in front, and rows and columns that become one."""

    rows: int
    columns: int
    known: int = 1
    merged: tuple[int, int] = (2, 2)
    visible: str = "all"
    exchanged: bool = False  # rows and columns of what is merged
    dropped: bool = True  # what was in front

    @property
    def count(self) -> int:
        return self.rows * self.columns

    @property
    def merged_count(self) -> int:
        return self.count // (self.merged[0] * self.merged[1])

    @property
    def picture(self) -> np.ndarray:
        return random_tensor(1, 3, self.rows * PATCH, self.columns * PATCH)

    @property
    def weights(self) -> Mapping[str, np.ndarray]:
        merged = self.merged[0] * self.merged[1] * WIDTH
        sizes = {"w": INSIDE, **dict.fromkeys("qkvo", WIDTH), "m": merged}
        found = {name: random_tensor(WIDTH, size, seed=ord(name), scale=size**-0.5) for name, size in sizes.items()}
        rows = {"cls": self.known, "at": self.known + self.count}
        found |= {name: random_tensor(1, count, WIDTH, seed=count) for name, count in rows.items() if count}
        return {name: x.astype("bfloat16") for name, x in found.items()}

    def linear(self, y: str, x: str, w: str, tokens: int, inner: int = WIDTH) -> str:
        weight = tensor(WIDTH, inner)
        return f"""
          %{y}w = "llm.weight"() <{{name = "{w}"}}> : () -> {weight}
          %{y} = "llm.linear"(%{x}, %{y}w) <{{operandSegmentSizes = array<i32: 1, 1, 0, 0>}}>
             : ({tensor(1, tokens, inner)}, {weight}) -> {tensor(1, tokens, WIDTH)}
        """

    def patches(self) -> str:
        side = (1, 3, self.rows * PATCH, self.columns * PATCH)
        split = (1, 3, self.rows, PATCH, self.columns, PATCH)
        turned = (1, self.rows, self.columns, 3, PATCH, PATCH)
        text = f'%p0 = "llm.narrow"(%x) : ({tensor(*side, element="f32")}) -> {tensor(*side)}\n'
        text += moved("p1", "p0", "reshape", split, side, split)
        text += moved("p2", "p1", "permute", (0, 2, 4, 1, 3, 5), split, turned)
        return text + moved("p", "p2", "reshape", (1, self.count, INSIDE), turned, (1, self.count, INSIDE))

    def embedded(self) -> str:
        n, t = self.count, self.count + self.known
        all_ = tensor(1, t, WIDTH)
        text = f'%atw = "llm.weight"() <{{name = "at"}}> : () -> {all_}\n'
        if self.known:
            known, twice, inputs = tensor(1, self.known, WIDTH), tensor(1, 2 * n, INSIDE), tensor(1, t, INSIDE)
            text += f"""
              %t = "llm.concat"(%p, %p) <{{axis = 1 : i64}}> : ({tensor(1, n, INSIDE)}, {tensor(1, n, INSIDE)}) -> {twice}
              %i = "llm.slice"(%t) <{{axis = 1 : i64, start = {n - self.known} : i64, stop = {2 * n} : i64}}> : ({twice}) -> {inputs}
              {self.linear("e0", "i", "w", t, INSIDE)}
              %cls = "llm.weight"() <{{name = "cls"}}> : () -> {known}
              %e1 = "llm.put"(%e0, %cls) <{{axis = 1 : i64}}> : ({all_}, {known}) -> {all_}
            """
        else:
            text += self.linear("e1", "p", "w", t, INSIDE)
        return text + f'%e = "llm.add"(%e1, %atw) : ({all_}, {all_}) -> {all_}\n'

    def layer(self) -> str:
        t, d = self.count + self.known, WIDTH // HEADS
        flat, split, heads = (1, t, WIDTH), (1, t, HEADS, d), (1, HEADS, t, d)
        text = ""
        for name in "qkv":
            text += self.linear(f"{name}0", "e", name, t) + moved(f"{name}1", f"{name}0", "reshape", split, flat, split)
            text += moved(name, f"{name}1", "permute", (0, 2, 1, 3), split, heads)
        text += f"""
          %a = "llm.attention"(%q, %k, %v) <{{scale = 0.2 : f64, visible = #llm.visible<kind = "{self.visible}">,
             operandSegmentSizes = array<i32: 1, 1, 1, 0, 0>}}> : ({", ".join([tensor(*heads)] * 3)}) -> {tensor(*split)}
        """
        text += moved("r", "a", "reshape", flat, split, flat) + self.linear("o", "r", "o", t)
        return text + f'%h = "llm.add"(%o, %e) : ({tensor(*flat)}, {tensor(*flat)}) -> {tensor(*flat)}\n'

    def merge(self) -> str:
        a, b = self.merged
        flat, count = (1, self.count, WIDTH), self.merged_count
        blocks = (1, self.rows // a, a, self.columns // b, b, WIDTH)
        order = (0, 3, 1, 2, 4, 5) if self.exchanged else (0, 1, 3, 2, 4, 5)
        text = moved("m0", "s", "reshape", blocks, flat, blocks)
        turned = tuple(blocks[i] for i in order)
        text += moved("m1", "m0", "permute", order, blocks, turned)
        shape = (1, count, a * b * WIDTH)
        return text + moved("m2", "m1", "reshape", shape, turned, shape) + self.linear("m", "m2", "m", count, shape[-1])

    def text(self) -> str:
        t, all_ = self.count + self.known, tensor(1, self.count + self.known, WIDTH)
        text = self.patches() + self.embedded() + self.layer()
        if not self.dropped:
            return text + self.linear("y", "h", "o", t)
        text += f"""
          %s = "llm.slice"(%h) <{{axis = 1 : i64, start = {self.known} : i64, stop = {t} : i64}}> : ({all_}) -> {tensor(1, self.count, WIDTH)}
        """
        if self.merged == (1, 1):
            return text + moved("y", "s", "reshape", (self.count, WIDTH), (1, self.count, WIDTH), (self.count, WIDTH))
        shape = (self.merged_count, WIDTH)
        return text + self.merge() + moved("y", "m", "reshape", shape, (1, *shape), shape)
