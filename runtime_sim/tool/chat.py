"""`chat`: the answer to a prompt, from the simulated chip."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from compiler.bmodel import read_bmodel
from compiler.client_nets import EMBEDDING
from compiler.diagnostics import UserError
from compiler.files import checkpoint_root, read_json_object
from compiler.progress import note
from runtime_sim.check.client_rules import shape_problems
from runtime_sim.launch import embedding
from runtime_sim.launch.queues import Choose
from runtime_sim.launch.runtime import Runtime
from runtime_sim.launch.sampling import Sampling
from runtime_sim.launch.session import Session
from runtime_sim.tokens.text import Text
from runtime_sim.tool.run import drawn_order
from runtime_sim.tool.sight import Prompt, prompt_about

GENERATION = "generation_config.json"
PROMPT_BYTES = 16 << 20  # read from standard input

# Characters that steer a terminal: a model's output must not clear its screen or write its title.
VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def run(arguments: Namespace) -> int:
    limit = arguments.max_tokens
    if limit is not None and limit < 1:
        raise UserError(f"--max-tokens {limit}: expected 1 or more")
    if arguments.seed is not None and (arguments.seed < 0 or not arguments.sample):
        raise UserError(f"--seed {arguments.seed}: expected 0 or more, and --sample, which draws by it")
    config = arguments.config or arguments.file.parent / "config"
    session = open_session(arguments.file, config, arguments.exact, drawn_order(arguments.order))
    if arguments.sample:
        draw(session, config, arguments)
    text = Text(config)
    prompt = read_prompt(arguments.prompt)
    asked = ask(session, text, prompt, arguments)
    check_names(text, session, asked.tokens)
    start = time.monotonic()
    stop = text.stop_ids(chat=not arguments.raw)
    answer = Answer(session.stream(asked.tokens, asked.pictures), stop, limit)
    for piece in text.decode_stream(answer):
        write(piece)
    write("\n")
    took = f"{time.monotonic() - start:.1f} s on the simulated {session.chip}"
    note(f"{len(asked.tokens)} tokens read, {answer.count} written in {took}")
    return 0


def ask(session: Session, text: Text, prompt: str, arguments: Namespace) -> Prompt:
    """The prompt in tokens, with the pictures that it is about."""
    if arguments.image:
        return prompt_about(session, text, prompt, arguments.image, arguments.raw)
    return Prompt(text.encode(prompt) if arguments.raw else text.encode_chat(prompt))


def draw(session: Session, config: Path, arguments: Namespace) -> None:
    """Let the session draw tokens as the model's settings say."""
    settings = config / GENERATION
    found = read_json_object(settings, checkpoint_root(config)) if settings.exists() else {}
    try:
        session.sample(Sampling.from_settings(found, str(settings)), arguments.seed)
    except UserError as error:
        raise UserError(f"--sample: {error.message}") from None


class Answer:
    """Tokens up to one that ends the answer, at most `limit`; counted as they come."""

    def __init__(self, tokens: Iterator[int], stop: frozenset[int], limit: int | None) -> None:
        self.tokens, self.stop, self.limit = tokens, stop, limit
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        for token in self.tokens:
            if token in self.stop:
                return
            self.count += 1
            yield token
            if self.count == self.limit:
                return


def read_prompt(prompt: str) -> str:
    """The prompt itself, or what standard input holds for "-"."""
    if prompt != "-":
        return prompt
    content = sys.stdin.buffer.read(PROMPT_BYTES + 1)
    if len(content) > PROMPT_BYTES:
        raise UserError(f"--prompt -: standard input has more than {PROMPT_BYTES} bytes")
    return content.decode(errors="surrogateescape")  # which Text refuses


def check_names(text: Text, session: Session, tokens: Sequence[int]) -> None:
    """UserError that names the token for which the embedding has no row."""
    unknown = session.unknown_token(tokens)
    if unknown is not None and session.vocabulary is not None:
        word = dict(text.beyond(session.vocabulary)).get(unknown)
        raise UserError(
            f"the prompt has token {unknown} ({word!r}), the embedding {session.vocabulary} rows: "
            f"the tokenizer of {text.config} has more tokens than the model"
        )


def write(piece: str) -> None:
    """To a terminal, only what a terminal shows."""
    shown = piece.translate(VISIBLE) if sys.stdout.isatty() else piece
    encoding = sys.stdout.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)


def open_session(file: Path, config: Path, exact: bool, order: Choose | None = None) -> Session:
    """Load a file for generation; its embedding may be in `config/embedding.bin`."""
    bmodel = read_bmodel(file)
    if problem := next(shape_problems(bmodel), None):
        raise UserError(f"{file} is not a language model: {problem}")
    runtime, path = Runtime(bmodel, exact=exact, order=order), config / embedding.NAME
    step = bmodel.first_of(embedding.STEP)
    has_table = path.exists() or embedding.needs_table(bmodel)
    if step is None or bmodel.first_of(EMBEDDING) is not None or not has_table:
        return Session(runtime)
    return Session(runtime, embedding.open_table(path, bmodel, step.stages[0].inputs[0]))
