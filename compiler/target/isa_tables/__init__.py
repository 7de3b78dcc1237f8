"""Bit layouts of the instructions, one table per instruction set.

`families.py` holds what the instruction sets share, `bm1684x.py` and `bm1688.py` what is their own. A table
is a tuple of `Layout`; `compiler/isa.py` derives both encoding and decoding from it.
"""

from compiler.target.isa_tables import bm1684x, bm1688
from compiler.target.isa_tables.layout import Field, Layout

TABLES: dict[str, tuple[Layout, ...]] = {"bm1684x": bm1684x.LAYOUTS, "bm1688": bm1688.LAYOUTS}

__all__ = ["TABLES", "Field", "Layout"]
