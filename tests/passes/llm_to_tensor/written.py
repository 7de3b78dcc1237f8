"""Types as these tests write them."""

from __future__ import annotations

ROW = "tensor<1x1x64xbf16>"  # one token, in DDR
WEIGHT = "tensor<64x64xbf16>"


def wide(layout: str, shape: str = "1x1x64") -> str:
    return f"tensor<{shape}xf32, {layout}>"


def half(layout: str, shape: str = "1x1x64") -> str:
    return f"tensor<{shape}xbf16, {layout}>"
