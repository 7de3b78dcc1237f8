"""Whole numbers of units, and sizes as people write them."""

from __future__ import annotations

import re

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def round_up(value: int, unit: int) -> int:
    """The least multiple of `unit` that is not below `value`."""
    return -(-value // unit) * unit


def human(size: int) -> str:
    """Bytes in the unit that leaves at least one digit before the point."""
    value = float(size)
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


def parse_bytes(text: str) -> int:
    """Bytes of "4.2GB" or "16 GiB"; ValueError when it is none."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmg]i?b|)", text.strip().lower(), re.ASCII)
    if found is None:
        raise ValueError(f"expected a size such as 4.2GB or 512MiB, not {text!r}")
    return int(float(found[1]) * UNITS[found[2]])
