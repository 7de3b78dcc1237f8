"""`verify`: each net on real activations, against the Hugging Face model in float32.

Every net is given what the reference model has at that point, rounded to the net's type, so that each answers
for its own error only. The prompt goes through the blocks, the token after it through the cache nets.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compiler.diagnostics import UserError
from runtime_sim.compare import Difference, compare
from runtime_sim.runtime import NUMPY_TYPES, Buffer, RuntimeNet
from runtime_sim.session import Session
from runtime_sim.text import Text
from runtime_sim.tool.chat import open_session
from runtime_sim.tool.reference import LayerValues, Reference, Trace

MIN_COSINE = 0.95  # of any output of any net, by default
_DEFAULT_TOKENS = 12
_TOKEN_TOLERANCE = 0.05  # of the logits' standard deviation: a smaller gap is a tie that rounding decides


@dataclass(frozen=True)
class Verdict:
    """One output of one net against the reference."""

    net: str
    output: str
    difference: Difference


def run(arguments: Namespace) -> int:
    session = open_session(arguments.file, arguments.file.parent / "config", arguments.exact)
    reference = Reference(arguments.reference)
    prompt = _prompt(arguments, reference, session)
    trace = reference.trace(prompt)
    next_token = int(trace.logits[-1].argmax())
    verifier = Verifier(session, prompt, reference.trace([*prompt, next_token]))
    parted: list[str] = []
    for verdicts in verifier.nets():
        print(_line(verdicts), flush=True)
        parted += [f"{v.net} {v.output}" for v in verdicts if not v.difference.cosine >= arguments.min_cosine]
    token_line, agrees = verifier.head(trace.logits[-1])
    print(token_line)
    if parted:
        print(f"parts from the reference first at {parted[0]} (cosine below {arguments.min_cosine})")
    return 0 if agrees and not parted else 1


def verify_file(file: Path, reference: Path) -> int:
    """As the command does by default; 0 when the file computes what the reference does."""
    return run(Namespace(file=file, reference=reference, exact=False, prompt=None, min_cosine=MIN_COSINE))


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

    def nets(self) -> Iterator[list[Verdict]]:
        yield from self._embeddings()
        count = len(self.prompt)
        self.session.set_prompt(count)
        for layer, block in enumerate(self.session.blocks):
            yield self._block(block, self.trace.layers[layer], count)
        self.session.set_step(count)
        for layer in range(self.session.sizes.layers):
            yield self._cache(layer, self.trace.layers[layer], count)

    def _embeddings(self) -> Iterator[list[Verdict]]:
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
                self.session.runtime.launch(net)
                yield [_verdict(net, net.outputs[0], self.trace.embedded[slice(*rows)])]

    def _block(self, block: RuntimeNet, values: LayerValues, count: int) -> list[Verdict]:
        _put(block.inputs[0], values.states_in[:count])
        self.session.runtime.launch(block)
        return _verdicts(block, values, slice(0, count))

    def _cache(self, layer: int, values: LayerValues, count: int) -> list[Verdict]:
        cache = self.session.caches[layer]
        for history, rows in zip(self.session.history(layer), (values.keys, values.values), strict=True):
            _put(history, rows[:count])
        state = values.states_in[count:].astype(NUMPY_TYPES[cache.inputs[0].info.dtype])
        inputs = self.session.step_inputs(layer, state.reshape(-1).view(np.uint8))
        self.session.runtime.launch(cache, inputs)
        return _verdicts(cache, values, slice(count, None))

    def head(self, logits: np.ndarray) -> tuple[str, bool]:
        """The head's token for the prompt's last state, in words, and whether the reference agrees."""
        state = self.trace.layers[-1].states_out[len(self.prompt) - 1]
        dtype = NUMPY_TYPES[self.session.lm_head.inputs[0].info.dtype]
        token = self.session.next_token(state.astype(dtype).view(np.uint8))
        best = int(logits.argmax())
        if token == best:
            return f"{'lm_head':18} token {token}, as the reference", True
        gap = float(logits[best] - logits[token])
        agrees = gap < _TOKEN_TOLERANCE * float(logits.std())
        return f"{'lm_head':18} token {token}, the reference {best}, {gap:.4g} ahead", agrees


def _put(buffer: Buffer, rows: np.ndarray) -> None:
    """Rows of float32 into the first rows of a buffer; the others are zero."""
    data = buffer.array.reshape(-1)
    data[...] = 0
    data[: rows.size] = rows.reshape(-1).astype(data.dtype)


def _verdicts(net: RuntimeNet, values: LayerValues, rows: slice) -> list[Verdict]:
    wanted = (values.states_out, values.keys, values.values)
    return [_verdict(net, output, each[rows]) for output, each in zip(net.outputs, wanted, strict=True)]


def _verdict(net: RuntimeNet, output: Buffer, wanted: np.ndarray) -> Verdict:
    """The first rows of an output against all of the reference's."""
    given = output.array.reshape(-1)[: wanted.size].reshape(wanted.shape)
    return Verdict(net.name, output.info.name, compare(given, wanted))


def _line(verdicts: list[Verdict]) -> str:
    """The worst of a net's outputs, by cosine and by error."""
    angle = min(verdicts, key=lambda v: v.difference.cosine)
    error = max(verdicts, key=lambda v: v.difference.max_error)
    return (
        f"{angle.net:18} cosine {angle.difference.cosine:.6f} ({angle.output})  "
        f"max error {error.difference.max_error:.3g} ({error.output})"
    )
