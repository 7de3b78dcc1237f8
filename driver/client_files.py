"""The files of a checkpoint that clients of its bmodel read: settings, tokenizer, chat template, terms."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from compiler.diagnostics import UserError, log
from compiler.files import JSON_BYTES, checkpoint_root, read_bytes, reason
from frontend.gguf import is_gguf, write_client_files

CLIENT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "*.model",
    "*.tiktoken",
    "*processor_config.json",
    "LICENSE*",
    "NOTICE*",
)


def copy_client_files(source: Path, target: Path) -> None:
    """What a client needs of the checkpoint; a note says what of it cannot be read."""
    target.mkdir()
    if is_gguf(source):
        return write_client_files(source, target)
    try:
        names = sorted(path.name for path in source.iterdir())
    except OSError as error:
        raise UserError(f"cannot list the files of {source}: {reason(error)}") from None
    for name in names:
        if any(fnmatch(name, pattern) for pattern in CLIENT_FILES):
            _copy(source / name, target / name)


def _copy(source: Path, target: Path) -> None:
    try:
        content = read_bytes(source, JSON_BYTES, checkpoint_root(source.parent))
    except UserError as error:
        log.warning("%s is left out of the output's %s/: %s", source.name, target.parent.name, error)
        return
    target.write_bytes(content)
