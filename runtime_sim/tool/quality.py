"""`quality`: what a file lost of what its model knows, on texts.

The file's nets run on the simulated chip, each on what the one before it made, and the model in float32
beside them. Logits are those that the model's own head makes of the file's states, with the matrix of the
file's head.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compiler.diagnostics import UserError
from compiler.files import read_text
from compiler.progress import counter, note
from runtime_sim.arrays import Array
from runtime_sim.launch.runtime import NUMPY_TYPES
from runtime_sim.launch.session import Session
from runtime_sim.tokens.text import Text
from runtime_sim.tool.agreement import Agreement
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.launches import check_same_model
from runtime_sim.tool.quality_page import write_quality
from runtime_sim.tool.reference import Reference
from runtime_sim.tool.run import check_output
from runtime_sim.tool.stored import matrix

# The first two chapters of Alice's Adventures in Wonderland, Lewis Carroll, 1865, in the public domain; and
# modules of this program.
TEXTS = {name: Path(__file__).parent / "texts" / f"{name}.txt" for name in ("prose", "code")}
TEXT_BYTES = 64 << 20


@dataclass
class Loss:
    """Sums over the tokens of a text, and how its states agree after each layer."""

    tokens: int = 0
    guesses: int = 0  # tokens that have one after them
    nats_of_model: float = 0.0  # of surprise at these
    nats_of_file: float = 0.0
    divergence: float = 0.0  # KL of the file's probabilities from the model's
    same: int = 0  # tokens after which both think the same most likely
    layers: list[Agreement] = field(default_factory=list)

    def add(self, tokens: Sequence[int], model: Array, file: Array) -> None:
        """Of a window: its tokens, and the logits after each of them."""
        p, q = log_softmax(model), log_softmax(file)
        steps = np.arange(len(tokens) - 1)
        self.nats_of_model -= float(p[steps, tokens[1:]].sum())
        self.nats_of_file -= float(q[steps, tokens[1:]].sum())
        self.divergence += float((np.exp(p) * (p - q)).sum())
        self.same += int((model.argmax(1) == file.argmax(1)).sum())
        self.tokens, self.guesses = self.tokens + len(tokens), self.guesses + len(steps)

    def add_layers(self, states: Sequence[Agreement]) -> None:
        known = self.layers
        self.layers = [a + b for a, b in zip(known, states, strict=True)] if known else [*states]

    def as_dict(self) -> dict[str, Any]:
        return {
            "tokens": self.tokens,
            "perplexity_of_model": float(np.exp(self.nats_of_model / self.guesses)),
            "perplexity_of_file": float(np.exp(self.nats_of_file / self.guesses)),
            "kl": self.divergence / self.tokens,
            "same_top_token": self.same / self.tokens,
            "layers": [{"cosine": each.cosine, "error": error_of(each)} for each in self.layers],
        }


def run(arguments: Namespace) -> int:
    config = arguments.file.parent / "config"
    if arguments.html:
        check_output(arguments.html)
    session = open_session(arguments.file, config, exact=False)
    check_one_device(session, arguments.file)
    note(f"load {arguments.reference} in float32")
    reference = Reference(arguments.reference)
    check_same_model(session, reference)
    paths = {arguments.text.name: arguments.text} if arguments.text else TEXTS
    text = Text(config if config.is_dir() else arguments.reference)
    windows = {name: windows_of(text, path, session, arguments.tokens) for name, path in paths.items()}
    head = matrix(session.lm_head.parts[0], reference.vocabulary, reference.head_width)
    losses = {name: Loss() for name in paths}
    with counter("run", sum(map(len, windows.values())), " windows") as done:
        for name, each in windows.items():
            for window in each:
                measure(losses[name], session, reference, head, window)
                done()
    found = {name: loss.as_dict() for name, loss in losses.items()}
    if arguments.html:
        write_quality(arguments.html, arguments.file.name, found, reference.name_of_layers)
    print(json.dumps(found, indent=2) if arguments.json else "\n".join(lines(found)))
    return 0


def check_one_device(session: Session, file: Path) -> None:
    if session.devices > 1:
        raise UserError(f"{file} is for {session.devices} devices: quality takes files for one")


def windows_of(text: Text, path: Path, session: Session, most: int | None) -> list[list[int]]:
    """The tokens of a text, in runs as long as the file's prompts; a last one of one token is left out."""
    tokens = text.encode(read_text(path, TEXT_BYTES))[:most]
    rows = session.sizes.prefill_rows
    found = [tokens[start : start + rows] for start in range(0, len(tokens), rows)]
    found = [window for window in found if len(window) > 1]
    if not found:
        raise UserError(f"{path} has {len(tokens)} tokens; expected 2 or more")
    for window in found:
        session.check_prompt(window)
    return found


def measure(loss: Loss, session: Session, reference: Reference, head: Array, window: list[int]) -> None:
    """Run file and model on a window."""
    trace = reference.trace(window)
    states = list(states_of(session, window))
    pairs = zip(states, trace.layers, strict=True)
    loss.add_layers([Agreement.of(given, layer.states_out) for given, layer in pairs])
    logits = reference.logits_of(states[-1], head)
    check_head(session, states[-1][-1], logits[-1])
    loss.add(window, trace.logits, logits)


def states_of(session: Session, tokens: Sequence[int]) -> Iterator[Array]:
    """What each layer makes of tokens, f32 [tokens, hidden]."""
    states = session.embed_prompt(tokens)[0]
    for layer, block in enumerate(session.blocks):
        session.set_prompt(len(tokens), layer)
        block.inputs[0].data[...] = 0
        block.inputs[0].data[: len(states)] = states
        session.runtime.launch(block)
        output = block.outputs[0]
        states = output.data[: len(states)].copy()
        yield states.view(NUMPY_TYPES[output.info.dtype]).reshape(len(tokens), -1).astype(np.float32)


def check_head(session: Session, state: Array, logits: Array) -> None:
    """UserError when the file's head says a token that is far from the likeliest by these logits."""
    info = session.lm_head.inputs[0].info
    token = session.next_token(state.astype(NUMPY_TYPES[info.dtype]).view(np.uint8))
    if logits.max() - logits[token] > 0.05 * logits.std():
        raise UserError(f"the head of the file says token {token}, its weights {logits.argmax()}")


def log_softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def error_of(found: Agreement) -> float:
    """The length of the difference over that of the reference's states, for a typical token."""
    squares = np.maximum(found.given + found.wanted - 2 * found.products, 0)
    return float(np.median(np.sqrt(squares / np.where(found.wanted == 0, 1, found.wanted))))


def lines(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"{'text':16} {'tokens':>7} {'perplexity: model':>18} {'file':>9} {'KL':>8} {'same top token':>15}"
    for name, each in found.items():
        yield (
            f"{name:16.16} {each['tokens']:7} {each['perplexity_of_model']:18.2f} "
            f"{each['perplexity_of_file']:9.2f} {each['kl']:8.4f} {each['same_top_token']:15.1%}"
        )
    yield ""
    yield "after layer" + "".join(f"{name:>24.16}" for name in found)
    layers = zip(*(each["layers"] for each in found.values()), strict=True)
    for number, row in enumerate(layers):
        yield f"{number:11}" + "".join(f"   cosine {e['cosine']:.4f} off {e['error']:5.1%}" for e in row)
