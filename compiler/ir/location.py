"""Where an op came from. A chip instruction still names the module of the model that asked for it."""

from __future__ import annotations

from dataclasses import dataclass


class Location:
    """Base of all locations; immutable, shared freely between ops."""

    __slots__ = ()

    def names(self) -> list[str]:
        """Module paths inside this location, outermost first."""
        return []


@dataclass(frozen=True, slots=True)
class UnknownLoc(Location):
    def __str__(self) -> str:
        return "unknown"


@dataclass(frozen=True, slots=True)
class FileLoc(Location):
    """A place in a text file; line and col count from 1."""

    file: str
    line: int
    col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"


@dataclass(frozen=True, slots=True)
class NameLoc(Location):
    """A module path of the traced model, such as ``model.layers.0.self_attn.q_proj``."""

    name: str

    def __str__(self) -> str:
        return self.name

    def names(self) -> list[str]:
        return [self.name]


@dataclass(frozen=True, slots=True)
class FusedLoc(Location):
    """Several origins of one op; build it with ``fused`` so that the parts stay flat and distinct."""

    parts: tuple[Location, ...]

    def __str__(self) -> str:
        return ", ".join(str(part) for part in self.parts)

    def names(self) -> list[str]:
        return [name for part in self.parts for name in part.names()]


UNKNOWN = UnknownLoc()


def fused(*locs: Location) -> Location:
    """Join locations in order: nested ones flattened, repeats and unknowns dropped; one left stays plain."""
    flat: dict[Location, None] = {}
    for loc in locs:
        for part in loc.parts if isinstance(loc, FusedLoc) else (loc,):
            if part != UNKNOWN:
                flat.setdefault(part)
    if not flat:
        return UNKNOWN
    return next(iter(flat)) if len(flat) == 1 else FusedLoc(tuple(flat))
