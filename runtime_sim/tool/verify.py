"""`verify`: each net on real activations, against the Hugging Face model in float32.

Every net is given what the reference model has at that point, rounded to the net's type, so that each answers
for its own error only. The prompt goes through the blocks, the token after it through the cache nets.
"""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.bmodel import BModel
from compiler.diagnostics import UserError
from runtime_sim.compare import Difference, compare
from runtime_sim.runtime import NUMPY_TYPES, Buffer, RuntimeNet
from runtime_sim.session import Session
from runtime_sim.text import Text
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.reference import LayerValues, Reference, Trace

# The lowest cosine of any output of any net that counts as agreement, by the bits of the blocks' weights.
MIN_COSINE = {4: 0.9, 8: 0.995, 16: 0.999}
_DEFAULT_TOKENS = 12
_TOKEN_TOLERANCE = 0.05  # of the logits' standard deviation: a smaller gap is a tie that rounding decides


@dataclass(frozen=True)
class Verdict:
    """One output of one net against the reference."""

    net: str
    output: str
    difference: Difference


@dataclass(frozen=True)
class NetRun:
    """A launch of a net: copies of its inputs, and the reference's values of its outputs' first rows."""

    net: RuntimeNet
    tokens: slice  # of the reference's run
    inputs: list[np.ndarray]
    wanted: list[np.ndarray]

    def verdicts(self, outputs: Sequence[np.ndarray]) -> list[Verdict]:
        names = [output.info.name for output in self.net.outputs]
        return [
            Verdict(self.net.name, name, compare(_rows(given, wanted.size).reshape(wanted.shape), wanted))
            for name, given, wanted in zip(names, outputs, self.wanted, strict=True)
        ]

    def cosine(self, outputs: Sequence[np.ndarray]) -> float:
        """The lowest of the outputs' cosines; NaN when any is."""
        return float(np.min([verdict.difference.cosine for verdict in self.verdicts(outputs)]))


@dataclass(frozen=True)
class HeadRun(NetRun):
    """A launch of the head: the token is right when no other is clearly more likely to the reference."""

    def cosine(self, outputs: Sequence[np.ndarray]) -> float:
        return float(self.agrees(int(outputs[0].flat[0])))

    def agrees(self, token: int) -> bool:
        (logits,) = self.wanted
        return token == int(logits.argmax()) or self.gap(token) < _TOKEN_TOLERANCE * float(logits.std())

    def gap(self, token: int) -> float:
        """By how much the reference prefers its own token."""
        (logits,) = self.wanted
        return float(logits.max() - logits[token])

    def line(self, token: int) -> str:
        best = int(self.wanted[0].argmax())
        if token == best:
            return f"{self.net.name:18} token {token}, as the reference"
        return f"{self.net.name:18} token {token}, the reference {best}, {self.gap(token):.4g} ahead"


@dataclass(frozen=True)
class Suspect:
    """A run that parts from the reference (or that somebody wants to look into), and all that it took."""

    run: NetRun
    session: Session
    reference: Reference
    tokens: list[int]  # the reference's run: the prompt and one token after it
    min_cosine: float


Bisect = Callable[[Suspect, Path], Iterator[str]]  # says in lines where a net goes wrong, by its dumps


def run(arguments: Namespace) -> int:
    if arguments.bisect and not arguments.ir:
        raise UserError("--bisect needs --ir: the folder that llm_convert.py --dump-ir wrote")
    session = open_session(arguments.file, arguments.file.parent / "config", arguments.exact)
    if arguments.bisect and not session.runtime.has_net(arguments.bisect):
        raise UserError(f"--bisect {arguments.bisect}: the file has no such net")
    limit = arguments.min_cosine or MIN_COSINE[weight_bits(session.runtime.program.bmodel)]
    reference = Reference(arguments.reference)
    prompt = _prompt(arguments, reference, session)
    next_token = int(reference.trace(prompt).logits[-1].argmax())
    tokens = [*prompt, next_token]
    suspects: list[NetRun] = []
    parted: list[str] = []
    for run in Verifier(session, prompt, reference.trace(tokens)).runs():
        outputs = [output.array for output in run.net.outputs]
        wrong = _print_verdict(run, outputs, limit)
        parted += wrong
        if run.net.name == arguments.bisect or (wrong and not arguments.bisect):
            suspects.append(run)
    if parted:
        print(f"parts from the reference first at {parted[0]}")
    if arguments.ir and suspects:
        suspect = Suspect(suspects[0], session, reference, tokens, limit)
        for line in arguments.bisect_net(suspect, arguments.ir):
            print(line, flush=True)
    return 1 if parted else 0


def verify_file(file: Path, reference: Path, ir: Path | None = None, bisect_net: Bisect | None = None) -> int:
    """As the command does by default; 0 when the file computes what the reference does."""
    settings = {"exact": False, "prompt": None, "min_cosine": None, "bisect": None}
    return run(Namespace(file=file, reference=reference, ir=ir, bisect_net=bisect_net, **settings))


def weight_bits(bmodel: BModel) -> int:
    """The fewest bits of a weight, by what the file says its coefficients hold; 4 when it says nothing."""
    stages = [stage for net in bmodel.nets for stage in net.stages]
    names = [part.name for stage in stages if stage.coeff for part in stage.coeff.locations]
    found = {int(match.group(1)) for name in names if (match := re.search(r"\bbits = (\d+)", name))}
    return min(found & MIN_COSINE.keys(), default=4)


def _print_verdict(run: NetRun, outputs: Sequence[np.ndarray], min_cosine: float) -> list[str]:
    """Print a net's line; gives what of it parts from the reference."""
    if isinstance(run, HeadRun):
        token = int(outputs[0].flat[0])
        print(run.line(token), flush=True)
        return [] if run.agrees(token) else [f"{run.net.name} token {token}"]
    verdicts = run.verdicts(outputs)
    print(_line(verdicts), flush=True)
    bad = [v for v in verdicts if not v.difference.cosine >= min_cosine]
    return [f"{v.net} {v.output} (cosine below {min_cosine})" for v in bad]


def _prompt(arguments: Namespace, reference: Reference, session: Session) -> list[int]:
    """Tokens to run on, at most as many as the blocks take."""
    rows = min(session.sizes.prefill_rows, session.sizes.history_rows)
    if arguments.prompt is not None:
        return Text(_config(arguments)).encode(arguments.prompt)[:rows]
    rng = np.random.default_rng(0)
    return [int(token) for token in rng.integers(0, reference.vocabulary, min(_DEFAULT_TOKENS, rows))]


def _config(arguments: Namespace) -> Path:
    beside: Path = arguments.file.parent / "config"
    return beside if beside.is_dir() else arguments.reference


class Verifier:
    """Runs the nets on the reference's values. `trace` covers the prompt and one token after it."""

    def __init__(self, session: Session, prompt: Sequence[int], trace: Trace) -> None:
        self.session = session
        self.prompt = prompt
        self.trace = trace
        self.next_token = int(trace.logits[len(prompt) - 1].argmax())
        if len(trace.layers) != session.sizes.layers:
            layers = f"{session.sizes.layers} layers, the reference {len(trace.layers)}"
            raise UserError(f"not the same model: the file has {layers}")

    def runs(self) -> Iterator[NetRun]:
        """Launch each net; its outputs stand in its buffers until the next is asked for."""
        yield from self._embeddings()
        count = len(self.prompt)
        self.session.set_prompt(count)
        for layer, block in enumerate(self.session.blocks):
            yield self._block(block, self.trace.layers[layer], count)
        self.session.set_step(count)
        for layer in range(self.session.sizes.layers):
            yield self._cache(layer, self.trace.layers[layer], count)
        yield self._head(count - 1)

    def _embeddings(self) -> Iterator[NetRun]:
        """Prompt and next token, each through its own net, where the file has them."""
        nets = self.session.embedding, self.session.embedding_cache
        count = len(self.prompt)
        for net, tokens, rows in zip(
            nets, (self.prompt, [self.next_token]), ((0, count), (count, None)), strict=True
        ):
            if net is not None:
                ids = net.inputs[0].array
                ids[...] = 0
                ids.flat[: len(tokens)] = tokens
                given = [ids.copy()]
                self.session.runtime.launch(net)
                yield NetRun(net, slice(*rows), given, [self.trace.embedded[slice(*rows)]])

    def _block(self, block: RuntimeNet, values: LayerValues, count: int) -> NetRun:
        _put(block.inputs[0], values.states_in[:count])
        given = [buffer.array.copy() for buffer in block.inputs]
        self.session.runtime.launch(block)
        return NetRun(block, slice(0, count), given, _outputs(values, slice(0, count)))

    def _cache(self, layer: int, values: LayerValues, count: int) -> NetRun:
        cache = self.session.caches[layer]
        for history, rows in zip(self.session.history(layer), (values.keys, values.values), strict=True):
            _put(history, rows[:count])
        state = values.states_in[count:].astype(NUMPY_TYPES[cache.inputs[0].info.dtype])
        inputs = self.session.step_inputs(layer, state.reshape(-1).view(np.uint8))
        pairs = zip(cache.inputs, inputs, strict=True)
        given = [Buffer(buffer.info, data).array.copy() for buffer, data in pairs]
        self.session.runtime.launch(cache, inputs)
        return NetRun(cache, slice(count, None), given, _outputs(values, slice(count, None)))

    def _head(self, last: int) -> NetRun:
        """The token after the prompt's last state."""
        head = self.session.lm_head
        info = head.inputs[0].info
        state = self.trace.layers[-1].states_out[last].astype(NUMPY_TYPES[info.dtype])
        self.session.next_token(state.view(np.uint8))
        given = [state.reshape(info.shape)]
        return HeadRun(head, slice(last, last + 1), given, [self.trace.logits[last]])


def _put(buffer: Buffer, rows: np.ndarray) -> None:
    """Rows of float32 into the first rows of a buffer; the others are zero."""
    data = buffer.array.reshape(-1)
    data[...] = 0
    data[: rows.size] = rows.reshape(-1).astype(data.dtype)


def _outputs(values: LayerValues, rows: slice) -> list[np.ndarray]:
    return [each[rows] for each in (values.states_out, values.keys, values.values)]


def _rows(output: np.ndarray, size: int) -> np.ndarray:
    """The first items of an output; what follows belongs to padding."""
    return output.reshape(-1)[:size]


def _line(verdicts: list[Verdict]) -> str:
    """The worst of a net's outputs, by cosine and by error."""
    angle = min(verdicts, key=lambda v: v.difference.cosine)
    error = max(verdicts, key=lambda v: v.difference.max_error)
    return (
        f"{angle.net:18} cosine {angle.difference.cosine:.6f} ({angle.output})  "
        f"max error {error.difference.max_error:.3g} ({error.output})"
    )
