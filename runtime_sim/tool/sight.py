"""Prompts about pictures: what files, tokenizer and tower make of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compiler.client_nets import VIT
from compiler.diagnostics import UserError
from compiler.files import checkpoint_root, read_json_object
from compiler.progress import note
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.session import Session
from runtime_sim.launch.tower import Picture, Tower, tower_of
from runtime_sim.tokens.pictures import Pictures, Read
from runtime_sim.tokens.text import Text


@dataclass(frozen=True)
class Prompt:
    """Tokens, some of which only keep the places of pictures."""

    tokens: list[int]
    pictures: list[Picture] = field(default_factory=list)


def open_tower(runtime: Runtime, config: Path) -> Tower:
    """The net that takes the pictures of --image; UserError when there is none."""
    if not runtime.has_net(VIT):
        raise UserError(f"--image: it has no net '{VIT}', which takes pictures: compile a model that sees")
    settings = config / "config.json"
    return tower_of(
        runtime, runtime.net(VIT), read_json_object(settings, checkpoint_root(config)), str(settings)
    )


def prompt_about(session: Session, text: Text, prompt: str, files: Sequence[Path], raw: bool) -> Prompt:
    """A prompt about pictures, which share what room it leaves; `raw` without the chat template."""
    tower = session.tower = open_tower(session.runtime, text.config)
    processor = Pictures(text.config)
    places = text.place_pictures(prompt, len(files), raw)
    around = len(places.before) + len(places.after) - 1  # the one place is not counted twice
    room = session.sizes.prefill_rows - len(places.tokens) - around * len(files)
    most = tower.most(room // len(files))
    pictures = [seen(tower, file, processor.read(file, most)) for file in files]
    tokens, starts = places.fill([int(np.prod(tower.token_grid(picture))) for picture in pictures])
    pairs = zip(pictures, starts, strict=True)
    return Prompt(tokens, [Picture(each.pixels, each.grid, start) for each, start in pairs])


def seen(tower: Tower, file: Path, read: Read) -> Picture:
    """A file as the model sees it, which is said: it may be much less than the file has."""
    picture = Picture(read.pixels, read.grid)
    try:
        tokens = int(np.prod(tower.token_grid(picture)))
    except UserError as error:
        raise UserError(f"{file}: {error.message}") from None
    rows, columns = read.grid
    tiles = f"{len(read.pixels)} tile{'s' if len(read.pixels) > 1 else ''}"
    parts = f"{rows} x {columns} patches" if rows else tiles
    note(f"{file}: {read.size[0]} x {read.size[1]} pixels, seen as {parts}, {tokens} tokens")
    return picture
