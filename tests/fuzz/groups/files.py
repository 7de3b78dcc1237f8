"""The file system: something else in the place of a file or folder that a command reads or writes."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

from tests.fuzz.case import Case
from tests.fuzz.checks import compiled_file, nothing_leaked
from tests.fuzz.groups.bmodel import tool_case
from tests.fuzz.samples import FLAGS, TOOL, Samples

SECRET = "the content of a file outside of the checkpoint"
CHECKPOINT = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "README.md",
              "model.safetensors", "adapter_config.json", "quantize_config.json", "more", "")  # fmt: skip
SHARDED = ("model.safetensors.index.json", "model-00002-of-00003.safetensors", "model.safetensors")
OUTPUT = ("", "config", "model.log", "config/config.json", "config/own.txt", "own.txt", ".partial-x",
          "model_bf16_seq16_bm1684x_1dev_static.bmodel", "config/embedding.bin", ".lock")  # fmt: skip
TOOL_FILES = ("model.bmodel", "other.bmodel", "in.npz", "out.npz", "out.html", "config", "config/tokenizer.json",
              "config/tokenizer_config.json", "config/generation_config.json", "config/config.json",
              "config/special_tokens_map.json", "config/chat_template.jinja", "config/embedding.bin",
              "model", "model/config.json", "model/model.safetensors")  # fmt: skip


def make(rng: Random, folder: Path, samples: Samples) -> Case:
    (folder / "outside").mkdir()
    (folder / "outside" / "secret.json").write_text(SECRET)
    return rng.choice((of_checkpoint, of_shards, of_output, of_tool, of_tool, of_ir))(rng, folder, samples)


def of_checkpoint(rng: Random, folder: Path, samples: Samples) -> Case:
    model = samples.copy_checkpoint(folder)
    return converting(place(rng, model, rng.choice(CHECKPOINT)))


def of_shards(rng: Random, folder: Path, samples: Samples) -> Case:
    model = Path(shutil.copytree(samples.sharded, folder / "model"))
    return converting(place(rng, model, rng.choice(SHARDED)))


def of_output(rng: Random, folder: Path, samples: Samples) -> Case:
    """What lies in the output folder and is not ours stays as it is; links there are the user's to follow."""
    samples.copy_checkpoint(folder)
    (folder / "out" / "config").mkdir(parents=True)
    what = place(rng, folder / "out", rng.choice(OUTPUT))
    case = converting(what, *rng.choice(((), ("--embedding_disk",), ("--dump-ir", "out"))))
    return replace(case, results=(".",), check=compiled_file)


def converting(what: str, *flags: str) -> Case:
    check = partial(nothing_leaked, SECRET)
    arguments = [*FLAGS, "-q", "bf16", *flags]
    dumps = ("out",) if "--dump-ir" in flags else ()
    return Case(f"files: {what}", "llm_convert", arguments, results=("out",), dumps=dumps, check=check)


def of_tool(rng: Random, folder: Path, samples: Samples) -> Case:
    samples.copy_bmodel(folder)
    what = place(rng, folder, rng.choice(TOOL_FILES))
    return tool_case(f"files: {what}", rng.choice(list(TOOL)))


def of_ir(rng: Random, folder: Path, samples: Samples) -> Case:
    shutil.copy(samples.dumps[0], folder / "in.mlir")
    what = place(rng, folder, rng.choice(("in.mlir", "out.mlir", "ir")))
    flags = ["in.mlir", "-o", "out.mlir", "--dump-ir", "ir"]
    return Case(f"files: {what}", "llm_opt", flags, results=(".",), dumps=("ir",))


def place(rng: Random, folder: Path, name: str) -> str:
    """Put an oddity in the place of a file, there or not; says which."""
    path = folder / name if name else folder
    oddity = rng.choice(ODDITIES)
    if oddity is not unreadable:
        remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    oddity(path)
    return f"{oddity.__name__} at {name or folder.name}"


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def empty_folder(path: Path) -> None:
    path.mkdir()


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "own.txt").write_text("a user's file\n")


def empty_file(path: Path) -> None:
    path.touch()


def user_file(path: Path) -> None:
    path.write_text("a user's file\n")


def huge_file(path: Path) -> None:
    """100 GB of nothing, in no space."""
    path.touch()
    os.truncate(path, 100 << 30)


def nothing(path: Path) -> None:
    pass


def unix_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # its address has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(here)


def unreadable(path: Path) -> None:
    if not path.exists():
        path.touch()
    path.chmod(0)


def unwritable(path: Path) -> None:
    path.mkdir()
    path.chmod(0o555)


def link_to(target: str) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        path.symlink_to(target)

    link.__name__ = f"link to {target}"
    return link


ODDITIES: tuple[Callable[[Path], None], ...] = (
    pipe, empty_folder, full_folder, empty_file, user_file, huge_file, nothing, unix_socket, unreadable, unwritable,
    link_to("/dev/zero"), link_to("/dev/null"), link_to("/dev/full"), link_to("absent"), link_to("."),
    link_to("../outside/secret.json"), link_to("../outside"), link_to("/proc/self/environ"),
)  # fmt: skip
