"""What must hold after a command succeeded. Each runs in the folder of the case, in its process."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from tests.fuzz.case import Doubt, Wrong
from tests.fuzz.harness import call
from tests.fuzz.judge import last_own_frame


def quiet_call(command: str, *arguments: str) -> tuple[int, str]:
    """Exit code and the last line of what it says; Wrong when it ends in a traceback."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        code = call(command, list(arguments))
    if "Traceback" in error.getvalue():
        raise Wrong(f"{command}.py {arguments[0]} ends in a traceback: {last_own_frame(error.getvalue())}")
    lines = (out.getvalue() + error.getvalue()).strip().splitlines()
    return code, lines[-1][:200] if lines else ""


def compiled_file() -> Path:
    """The one bmodel in out/, with all that belongs to it."""
    found = sorted(Path("out").glob("*.bmodel"))
    if len(found) != 1 or not Path("out/config").is_dir() or not Path("out/model.log").is_file():
        raise Wrong("success, but out/ is not complete")
    return found[0]


def computes_as_the_model() -> None:
    """`verify` compares with the float model of transformers, loaded by transformers from the spoilt input."""
    code, says = quiet_call("bmodel_tool", "verify", str(compiled_file()), "--reference", "model")
    if code:
        raise Wrong(f"compiled, but verify ends with {code}: {says}")


def must_be_refused() -> None:
    raise Wrong("compiled, though no right result exists")


def same_bytes_as(sample: Path) -> None:
    """The spoilt part has no say in the file."""
    if compiled_file().read_bytes() != sample.read_bytes():
        raise Wrong("compiled into other bytes than without the change")


def same_program_as(sample: Path) -> None:
    """A file whose programs or weights are damaged must not be called sound."""
    code, says = quiet_call("bmodel_tool", "diff", "model.bmodel", str(sample))
    if code:
        raise Wrong(f"called right, but it is not the file it was\n{says}")


def differs_in_nothing_known(sample: Path) -> None:
    """The same, where the change may be as good as the original."""
    code, says = quiet_call("bmodel_tool", "diff", "model.bmodel", str(sample))
    if code:
        raise Doubt(f"called right, but changed\n{says}")


def reads_again(path: str) -> None:
    """IR text that was written can be read, and prints as it was."""
    from compiler.ir.parser import parse_module
    from compiler.ir.printer import print_module

    text = Path(path).read_text()
    body = text.partition("\n")[2] if text.startswith("// passes-left") else text
    if print_module(parse_module(text, path)) != body:
        raise Wrong("the IR that was written reads as another")


def tokens_as_transformers(prompt: str) -> None:
    """The ids that `chat` feeds are those of the library's own tokenizer and template."""
    from transformers import AutoTokenizer

    from runtime_sim.tokens.text import Text

    try:
        theirs = AutoTokenizer.from_pretrained("config")
        conversation = [{"role": "user", "content": prompt}]
        if theirs.chat_template:
            wanted = theirs.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
        else:
            wanted = theirs.encode(prompt)
    except Exception as error:
        raise Doubt(f"transformers refuses this tokenizer: {type(error).__name__}") from None
    found = Text(Path("config")).encode_chat(prompt)
    if found != list(wanted):
        raise Wrong(f"chat feeds other ids than transformers\n{found[:20]}, not {list(wanted)[:20]}")


def nothing_leaked(secret: str) -> None:
    """What a link out of the checkpoint points to is not copied."""
    for path in Path("out").rglob("*"):
        if path.is_file() and secret.encode() in path.read_bytes():
            raise Wrong(f"a file from outside of the checkpoint was copied to {path.name}")
