"""The good inputs that cases are made from: tiny checkpoints, their files compiled, and dumps of their IR."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from driver.options import ConvertOptions
from driver.pipelines import default_pipeline
from tests import packers
from tests.checkpoints import make_checkpoint
from tests.fuzz.harness import call
from tests.vision import make_vision_checkpoint

TINY = {"layers": 1, "hidden": 128, "heads": 2, "kv_heads": 1, "intermediate": 128, "vocab": 512}
FAMILIES = ("llama", "qwen2", "qwen3")
PACKED = {  # checkpoints that are quantized: packer, settings, how their weights are chosen
    "awq": (packers.awq, packers.AWQ, {}),
    "gptq": (packers.gptq, packers.GPTQ | {"desc_act": True}, {"shuffled": True}),
    "compressed": (packers.compressed, packers.compressed_config(bits=8, symmetric=False), {"bits": 8}),
}
LENGTH = 16  # tokens
CHAT, CHAT_LENGTH = "chat", 192  # the file that chat uses takes a template's text, at a token a byte
SEEING, SEEING_LENGTH = "seeing", 64  # a model that sees, whose prompts have room for some tiles
FLAGS = ("-m", "model", "-s", str(LENGTH), "-j", "1", "-o", "out")
TOOL = {  # each command of bmodel_tool.py on what `copy_bmodel` copies
    "info": ["info", "model.bmodel"],
    "info --json": ["info", "model.bmodel", "--json"],
    "disasm": ["disasm", "model.bmodel", "block_0"],
    "timing": ["timing", "model.bmodel"],
    "timing --html": ["timing", "model.bmodel", "--net", "lm_head", "--html", "out.html"],
    "check": ["check", "model.bmodel"],
    "diff": ["diff", "model.bmodel", "other.bmodel"],
    "run": ["run", "model.bmodel", "lm_head", "--input", "in.npz", "--output", "out.npz"],
    "verify": ["verify", "model.bmodel", "--reference", "model"],
    "chat": ["chat", "model.bmodel", "--max-tokens", "2", "--prompt", "hello"],
}
RESULTS = {"timing --html": ("out.html",), "run": ("out.npz",)}
MODES = ("bf16", "w4bf16", "w8f16", "f16")


@dataclass(frozen=True)
class Samples:
    """`folder` holds checkpoints/FAMILY, those of PACKED and sharded/; for each mode default/MODE, and compiled/MODE with
    its dumps in ir/MODE, made without the search for the fastest program; and compiled/chat and compiled/seeing.
    """

    folder: Path

    def checkpoint(self, family: str = "llama") -> Path:
        return self.folder / "checkpoints" / family

    @property
    def sharded(self) -> Path:
        return self.folder / "sharded"

    def bmodel(self, mode: str = "bf16") -> Path:
        return next((self.folder / "compiled" / mode).glob("*.bmodel"))

    def default(self, mode: str) -> Path:
        """The file that plain flags make of the llama checkpoint, in one file or in shards."""
        return next((self.folder / "default" / mode).glob("*.bmodel"))

    def config(self, mode: str = "bf16") -> Path:
        return self.folder / "compiled" / mode / "config"

    @cached_property
    def dumps(self) -> list[Path]:
        return sorted(self.folder.glob("ir/*/*.mlir"))

    def copy_checkpoint(self, folder: Path, family: str = "llama") -> Path:
        return Path(shutil.copytree(self.checkpoint(family), folder / "model"))

    def copy_seeing(self, folder: Path) -> None:
        """The file of a model that sees, and its config/."""
        shutil.copytree(self.config(SEEING), folder / "config")
        shutil.copy(self.bmodel(SEEING), folder / "model.bmodel")

    def copy_bmodel(self, folder: Path, mode: str = "bf16") -> Path:
        """A compiled file and all that TOOL names beside it."""
        self.copy_checkpoint(folder)
        shutil.copytree(self.config(mode), folder / "config")
        shutil.copy(self.bmodel(mode), folder / "other.bmodel")
        shutil.copy(self.folder / "in.npz", folder)
        return Path(shutil.copy(self.bmodel(mode), folder / "model.bmodel"))


def pipeline(mode: str) -> str:
    return default_pipeline(ConvertOptions(Path("model"), LENGTH, mode, out_dir=Path("out")))


def make_samples(folder: Path) -> Samples:
    """Make them in a process of its own, so that this one starts no threads."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            _make(folder)
            code = 0
        finally:
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise RuntimeError("the samples could not be made")
    return Samples(folder)


def _make(folder: Path) -> None:
    samples = Samples(folder)
    for family in FAMILIES:
        make_checkpoint(samples.checkpoint(family), family, **TINY, tokenizer=True)
    for name, (pack, settings, options) in PACKED.items():
        make_checkpoint(samples.checkpoint(name), "llama", **TINY, tokenizer=True, dtype="float16")
        packers.quantize_checkpoint(samples.checkpoint(name), pack, settings, **options)
    make_vision_checkpoint(samples.checkpoint(SEEING), "internvl")
    make_checkpoint(samples.sharded, "llama", **TINY, shards=3, tokenizer=True)
    np.savez(folder / "in.npz", hidden_states=np.ones((1, TINY["hidden"]), np.float32))
    shutil.copytree(samples.checkpoint(), folder / "work" / "model")
    os.chdir(folder / "work")
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        for mode in MODES:
            dumps = ("--dump-ir", f"../ir/{mode}", "--passes", pipeline(mode))
            assert call("llm_convert", [*FLAGS, "-q", mode, *dumps]) == 0
            shutil.move("out", f"../compiled/{mode}")
            assert call("llm_convert", [*FLAGS, "-q", mode]) == 0
            shutil.move("out", f"../default/{mode}")
        length = ("-s", str(CHAT_LENGTH), "--passes", pipeline("bf16"))
        assert call("llm_convert", [*FLAGS, "-q", "bf16", *length]) == 0
        shutil.move("out", f"../compiled/{CHAT}")
        flags = ("-m", f"../checkpoints/{SEEING}", "-s", str(SEEING_LENGTH), "-j", "1", "-o", "out", "-q", "bf16")
        assert call("llm_convert", [*flags, "--passes", pipeline("bf16")]) == 0
        shutil.move("out", f"../compiled/{SEEING}")
