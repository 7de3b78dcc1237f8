"""Mixed precision as the user says it: patterns of module names, and the bits that their weights have."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from compiler.diagnostics import UserError

BITS = (4, 8, 16)


@dataclass(frozen=True)
class Rule:
    """Linears whose modules have names like `pattern` are stored in `bits` bits; `flag` is what said so."""

    pattern: str
    bits: int
    flag: str
    in_layers: bool = True  # too, or only outside of them, where the head is

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Of `PATTERN=BITS`; UserError for other texts."""
        pattern, _, bits = text.rpartition("=")
        odd = set(pattern) & set(" ,={}\t\n")
        if not pattern or odd or bits not in map(str, BITS):
            raise UserError(f"--keep {text!r}: expected PATTERN=BITS with 4, 8 or 16 bits, such as lm_head=8")
        return cls(pattern, int(bits), f"--keep {text}")

    def applies(self, module: str, in_layer: bool) -> bool:
        return (self.in_layers or not in_layer) and fnmatchcase(module, self.pattern)


def head_rule(bits: int) -> Rule:
    """That of --lm_head_quantize: all linears outside of the layers."""
    return Rule("*", bits, f"--lm_head_quantize {bits}", in_layers=False)
