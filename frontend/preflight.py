"""What is wrong with a checkpoint, gathered by tensor and told at once before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compiler.diagnostics import UserError

SHOWN = 10  # problems; a checkpoint of another model has hundreds


@dataclass
class Problems:
    """Lines of the form "TENSOR: expected ..., found ..."."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    def add(self, name: str, expected: str, found: str) -> None:
        self.lines.append(f"{name}: expected {expected}, found {found}")

    def check(self) -> None:
        """UserError if there are any; the only one that may take more than three lines."""
        count = len(self.lines)
        if count == 1:
            raise UserError(f"{self.folder}: {self.lines[0]}")
        if count:
            shown = [f"  {line}" for line in self.lines[:SHOWN]]
            more = [f"  and {count - SHOWN} more"] if count > SHOWN else []
            head = f"{self.folder}: {count} tensors do not fit the model of its config.json"
            raise UserError("\n".join([head, *shown, *more]))
