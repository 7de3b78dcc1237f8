"""One architecture from its configuration to tokens: what it takes, and how far it is from Hugging Face."""

from __future__ import annotations

import contextlib
import copy
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compiler.client_nets import VIT
from compiler.diagnostics import CompileError, UserError
from compiler.ir.module import walk
from compiler.ir.types import F32
from driver.convert import convert
from driver.options import ConvertOptions
from frontend.importer import import_model
from frontend.towers import takes_grid
from runtime_sim.launch.session import Session
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import Verifier
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.shown import drawn_pictures
from runtime_sim.tool.sight import open_tower
from runtime_sim.tool.verify import results_of
from tests.architectures.configs import config_of
from tests.architectures.seeing import given, picture_error, streams_of
from tests.frontend.oracle import COUNTED, INPUT_LENGTH, SEQ_LENGTH, Subject, reference_model

LENGTH, PROMPT, COUNT = 48, 20, 8  # tokens of a conversation, of its prompt, of the answer
CHUNK = 24  # tokens of a stage of decode in which the answer begins, and does not end
MAX_PIXELS, PATCHES = (112, 112), 64  # of a picture, where a tower takes any size
TIE = 0.05  # of the logits' standard deviation: what rounding to bf16 may turn around
TOO_LARGE = "its class makes a model larger than this process may hold of the common sizes"
PLAIN = {"reshape", "permute", "slice", "weight", "concat_weights", "table", "gather_rows", "linear", "add"}


@dataclass
class Row:
    """What is said of one architecture; one of the last three has a message where there is no result."""

    name: str
    ops: Sequence[str] = ()  # of the llm dialect after its passes, but those that all have
    error: float = float("nan")  # largest difference of logits in float32, over the largest logit
    cosine: float = float("nan")  # lowest of all nets' outputs of the compiled file
    tokens: int = 0  # so many of COUNT are those of Hugging Face; others must be ties
    layers: int = 0  # distinct ones
    seconds: float = 0.0  # to compile
    problems: Sequence[str] = ()  # what verify says
    refused: str = ""
    crashed: str = ""
    skipped: str = ""

    @property
    def bad(self) -> bool:
        """Whether something was computed wrongly, or ended in no message."""
        if self.refused or self.skipped:
            return False
        return bool(self.crashed or self.problems) or not self.error < 1e-4

    def line(self) -> str:
        for kind in ("refused", "CRASHED", "skipped"):
            if text := getattr(self, kind.lower()):
                return f"{self.name:20} {kind}: {' '.join(text.split())}"
        numbers = (
            f"{self.error:8.0e} {self.cosine:9.6f} {self.tokens}/{COUNT} {self.layers:6} {self.seconds:6.1f}"
        )
        return f"{self.name:20} {numbers}  {', '.join(self.ops)}{'  WRONG: ' if self.bad else ''}{'; '.join(self.problems)}"


def measure(name: str, folder: Path) -> Row:
    """Make the model in `folder`, compile it as bf16, and compare each net and the tokens of a conversation."""
    row = Row(name)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            _measure(row, folder)
    except (UserError, CompileError) as error:
        row.refused = str(error)
    except MemoryError:
        row.skipped = TOO_LARGE
    except Exception as error:  # whatever it is, the table says it
        if "can't allocate memory" in str(error):  # torch has no class for it
            row.skipped = TOO_LARGE
            return row
        row.crashed = f"{type(error).__name__}: {error}"
    return row


def _measure(row: Row, folder: Path) -> None:
    config = config_of(row.name)
    try:
        reference = reference_model(config)
        reference(input_ids=torch.arange(3, 3 + PROMPT)[None], use_cache=False)
    except Exception as error:
        row.skipped = f"the library's own class fails with these settings: {error}"
        return
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(parameter.bfloat16().float())
    checkpoint, out = folder / "model", folder / "out"
    write(reference, checkpoint)
    subject = _subject(config, reference)
    row.error = subject.error(np.repeat(COUNTED, streams_of(subject), axis=0))
    if "vision_config" in config:
        row.error = max(row.error, picture_error(subject))
    subject.fuse()
    row.ops = sorted(_ops(subject) - PLAIN)
    row.layers = sum(group.of_layers for group in subject.imported.nets)
    start = time.monotonic()
    pixels = MAX_PIXELS if takes_grid(reference) else ()
    options = ConvertOptions(checkpoint, LENGTH, "bf16", chunk_length=CHUNK, out_dir=out, max_pixels=pixels)
    file = convert(options)
    row.seconds = time.monotonic() - start
    assert file is not None
    session = open_session(file, out / "config", exact=False)
    _tokens(row, session, reference)
    if session.runtime.has_net(VIT):
        session.tower = open_tower(session.runtime, out / "config")
        _tokens_about_picture(row, session, reference)
    _verify(row, session, Reference(checkpoint))


def write(model: Any, folder: Path) -> None:
    """A checkpoint of bf16, with the keys that the library's own reading maps."""
    stored = copy.deepcopy(model)  # buffers would come back rounded
    stored.to(torch.bfloat16).save_pretrained(folder)


def _subject(config: dict[str, Any], reference: Any) -> Subject:
    patches = PATCHES if "vision_config" in config else None
    imported = import_model(config, SEQ_LENGTH, INPUT_LENGTH, dtype=F32, patches=patches)
    parameters = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    return Subject(reference, imported, parameters)


def _ops(subject: Subject) -> set[str]:
    return {
        op.opname.removeprefix("llm.")
        for group in subject.imported.nets
        for op in walk(group.module)
        if op.opname.startswith("llm.")
    }


def _tokens(row: Row, session: Session, reference: Any) -> None:
    """Compare a greedy answer, token by token; Hugging Face reads what was answered so far."""
    tokens = np.random.default_rng(4).integers(3, 512, PROMPT).tolist()
    for token in session.generate(tokens, COUNT):
        row.tokens += _is_likeliest(row, token, tokens, reference)
        tokens.append(token)


def _tokens_about_picture(row: Row, session: Session, reference: Any) -> None:
    """The same for a prompt about a picture; only what is wrong is told."""
    assert session.tower is not None
    tokens, place = np.random.default_rng(5).integers(3, 500, PROMPT), reference.config.image_token_id
    picture = replace(drawn_pictures(session.tower)[-1], start=2)
    kept = int(np.prod(session.tower.token_grid(picture)))
    tokens[picture.start : picture.start + kept] = place
    asked = tokens.tolist()
    for token in session.generate(asked, COUNT, pictures=[picture]):
        _is_likeliest(row, token, asked, reference, **given([picture], asked, place))
        asked.append(token)


@torch.no_grad()
def _is_likeliest(row: Row, token: int, after: Sequence[int], reference: Any, **shown: Any) -> bool:
    logits = reference(input_ids=torch.tensor([after]), use_cache=False, **shown).logits[0, -1]
    if logits.max() - logits[token] > TIE * logits.std():
        row.problems = [*row.problems, f"token {token} after {len(after)}"]
    return int(logits.argmax()) == token


def _verify(row: Row, session: Session, reference: Reference) -> None:
    tokens = np.random.default_rng(0).integers(3, reference.vocabulary, LENGTH).tolist()
    results = list(results_of(Verifier(session, reference, tokens)))
    row.problems = [*row.problems, *(problem for result in results for problem in result.problems)]
    row.cosine = min(found.cosine for result in results for found in result.agreements.values())
