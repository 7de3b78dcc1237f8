"""Compile the programs of the table below and print what the timing model says of them.

python bench/timing.py SMOLLM2 OUTPUT [--skip-large]

SMOLLM2 is the folder of SmolLM2-135M. The others have the shapes of Qwen2-0.5B, Qwen3-1.7B and Qwen2-7B,
but two layers of random weights and a small vocabulary, or towers of Qwen2.5-VL-3B, one windowed layer and
one full, and of InternVL3, one layer, before a small model of text; their checkpoints, of 2 GB, are made in
OUTPUT. The vendor's cycles are those of what its compiler, tpu_mlir 1.30.2, makes of the same models, by the
same two estimates.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from compiler.bmodel import read_bmodel
from compiler.target.timing import NetTiming
from runtime_sim.launch.loader import Program
from runtime_sim.tool.measured import measure_file

ROOT = Path(__file__).resolve().parent.parent
SMALL, HALF, MEDIUM, LARGE = "smollm2", "qwen2-0.5b-shape", "qwen3-1.7b-shape", "qwen2-7b-shape"
COMMON = {"layers": 2, "vocab": 4096, "max_position_embeddings": 32768}
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    HALF: ("qwen2", {"hidden": 896, "heads": 14, "kv_heads": 2, "head_dim": 64, "intermediate": 4864}),
    MEDIUM: ("qwen3", {"hidden": 2048, "heads": 16, "kv_heads": 8, "head_dim": 128, "intermediate": 6144}),
    LARGE: ("qwen2", {"hidden": 3584, "heads": 28, "kv_heads": 4, "head_dim": 128, "intermediate": 18944}),
}
GRID_TOWER, TILE_TOWER = "qwen2.5-vl-3b-tower", "internvit-300m-tower"
HEADS_OF_TEXT = {"num_hidden_layers": 1, "num_key_value_heads": 2, "intermediate_size": 1024}
# What differs in the settings of `tests.vision`, of the tower and of the text.
TOWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    GRID_TOWER: (
        "qwen2_5_vl",
        {
            "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 2048,
            "window_size": 112,
        },
        {
            **HEADS_OF_TEXT, "hidden_size": 2048, "num_attention_heads": 16, "max_position_embeddings": 4096,
            "rope_scaling": {"rope_type": "default", "type": "mrope", "mrope_section": [16, 24, 24]},
        },
    ),
    TILE_TOWER: (
        "internvl",
        {
            "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 1, "intermediate_size": 4096,
            "image_size": [448, 448],
        },
        {**HEADS_OF_TEXT, "hidden_size": 896, "num_attention_heads": 14},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Build:
    """One call of llm_convert.py."""

    model: str
    mode: str
    tokens: int
    group: int = 64
    chip: str = "bm1684x"  # all of its cores
    pixels: str | None = None  # --max_pixels

    def __str__(self) -> str:
        group = f" g{self.group}" if self.mode.startswith("w4") else ""
        return f"{self.model} {self.mode}{group} -s {self.tokens} -c {self.chip}"


@dataclass(frozen=True)
class Row:
    """A net, and cycles by the plain and the cautious estimate: the vendor's if known, and what we aim at."""

    build: Build
    net: str
    vendor: tuple[int | None, int | None]
    goal: tuple[int, int | None]


W4, W8, BF16 = (Build(SMALL, mode, 512) for mode in ("w4bf16", "w8bf16", "bf16"))
BIG, BIG_LONG = (Build(LARGE, "w4bf16", tokens, 128) for tokens in (384, 4096))
HALF_LONG, HALF_LONGER = (Build(HALF, "w4bf16", tokens) for tokens in (4096, 8192))
MEDIUM_LONG = Build(MEDIUM, "w4bf16", 4096)
TWO, ONE = (Build(SMALL, "w4bf16", 512, chip=chip) for chip in ("bm1688", "cv186ah"))
GRIDS, TILES = Build(GRID_TOWER, "bf16", 1024, pixels="672,896"), Build(TILE_TOWER, "bf16", 320)
BIG_TWO, BIG_ONE = (Build(LARGE, "w4bf16", 384, 128, chip) for chip in ("bm1688", "cv186ah"))
ROWS = (
    Row(W4, "block_cache_0", (75_688, 112_762), (42_500, 49_500)),
    Row(W4, "block_0", (1_054_451, 1_192_167), (345_000, 390_000)),
    Row(W4, "lm_head", (1_382_385, 1_388_912), (980_000, 990_000)),  # the vendor's is without argmax
    Row(W8, "block_cache_0", (108_157, None), (72_000, None)),
    Row(BF16, "block_cache_0", (152_279, 223_561), (132_000, None)),
    Row(BF16, "block_0", (608_425, 647_118), (345_000, None)),
    Row(BIG, "block_cache_0", (2_408_199, 2_697_000), (2_140_000, 2_280_000)),
    Row(BIG, "block_0", (15_410_997, 16_490_000), (11_900_000, 12_400_000)),
    Row(BIG, "lm_head", (680_517, None), (512_000, None)),
    Row(HALF_LONG, "block_cache_0", (269_824, None), (181_000, None)),
    Row(HALF_LONG, "block_0", (27_017_111, None), (10_900_000, None)),
    Row(HALF_LONGER, "block_cache_0", (347_668, None), (218_000, None)),
    Row(HALF_LONGER, "block_0", (76_285_333, None), (26_500_000, None)),
    Row(MEDIUM_LONG, "block_cache_0", (888_607, None), (800_000, None)),
    Row(MEDIUM_LONG, "block_0", (57_150_741, None), (33_500_000, None)),
    Row(BIG_LONG, "block_cache_0", (2_579_783, None), (2_270_000, None)),
    Row(BIG_LONG, "block_0", (188_934_925, None), (134_000_000, None)),
    Row(TWO, "block_cache_0", (97_581, None), (52_000, None)),
    Row(TWO, "block_0", (2_569_645, None), (1_200_000, None)),
    Row(TWO, "lm_head", (1_836_561, None), (1_090_000, None)),  # the vendor's is without argmax, and below
    Row(BIG_TWO, "block_cache_0", (2_915_692, None), (2_450_000, None)),
    Row(BIG_TWO, "block_0", (89_645_002, None), (50_000_000, None)),
    Row(ONE, "block_cache_0", (161_931, None), (98_000, None)),
    Row(ONE, "block_0", (4_095_069, None), (2_300_000, None)),
    Row(ONE, "lm_head", (2_299_517, None), (2_160_000, None)),
    Row(BIG_ONE, "block_cache_0", (None, None), (4_900_000, None)),
    Row(BIG_ONE, "block_0", (None, None), (100_000_000, None)),
    Row(GRIDS, "vit", (60_873_445, None), (25_800_000, 26_550_000)),
    Row(TILES, "vit", (4_339_968, None), (2_400_000, None)),
)
HEAD = (
    "program", "vendor", "cautious", "goal", "cautious", "ours", "cautious", "to goal", "roofline",
    "TIU busy", "DMA busy", "DMA alone", "commands",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, metavar="SMOLLM2")
    parser.add_argument("output", type=Path)
    parser.add_argument("--skip-large", action="store_true", help="only SmolLM2")
    arguments = parser.parse_args()
    models = {SMALL: arguments.model}
    if not arguments.skip_large:
        models |= {name: random_checkpoint(arguments.output / name, *SHAPES[name]) for name in SHAPES}
        models |= {name: random_tower(arguments.output / name, *TOWERS[name]) for name in TOWERS}
    rows = [row for row in ROWS if row.build.model in models]
    files = {
        build: compile_(build, models[build.model], arguments.output)
        for build in dict.fromkeys(r.build for r in rows)
    }
    print()
    print_table([HEAD, *(cells(row, timing_of(files[row.build], row.net)) for row in rows)])


def random_checkpoint(folder: Path, family: str, shape: dict[str, int]) -> Path:
    """The checkpoint; made once, in another process: what this one holds counts in its children."""
    if not (folder / "config.json").exists():
        from tests.checkpoints import make_checkpoint

        with ProcessPoolExecutor(1) as pool:
            pool.submit(make_checkpoint, folder, family, **COMMON, **shape).result()
    return folder


def random_tower(folder: Path, family: str, tower: dict[str, Any], text: dict[str, Any]) -> Path:
    """As `random_checkpoint`, of a model that sees."""
    if not (folder / "config.json").exists():
        from tests.vision import CONFIGS, make_vision_checkpoint

        parts = {"vision_config": tower, "text_config": text}
        settings = {key: CONFIGS[family][key] | changed for key, changed in parts.items()}
        with ProcessPoolExecutor(1) as pool:
            pool.submit(make_vision_checkpoint, folder, family, **settings).result()
    return folder


def compile_(build: Build, model: Path, output: Path) -> Path:
    """The compiled file; prints seconds and peak memory."""
    folder = output / str(build).replace(" ", "_")
    what = ["-m", model, "-s", build.tokens, "-q", build.mode, "-g", build.group]
    pixels = ["--max_pixels", build.pixels] if build.pixels else []
    flags = [*what, *pixels, "-c", build.chip, "-o", folder]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, ROOT / "llm_convert.py", *map(str, flags)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{build}: llm_convert.py failed")
    print(
        f"{build}: compiled in {time.monotonic() - start:.1f} s, {usage.ru_maxrss / 1024:.0f} MB", flush=True
    )
    (file,) = folder.glob("*.bmodel")
    return file


def timing_of(file: Path, net: str) -> tuple[NetTiming, int]:
    """The figures of a net, and the cycles in which only the DMA works."""
    program = Program(read_bmodel(file))
    timing = measure_file(program, only=net).model.nets[net]
    return timing, sum(core.dma.busy - core.overlapped for core in timing.plain)


def cells(row: Row, found: tuple[NetTiming, int]) -> tuple[str, ...]:
    timing, alone = found
    figures = timing.as_dict()
    ours = (timing.cycles, timing.cycles_cautious)
    return (
        f"{row.build} {row.net}",
        *(f"{value:,}" if value else "" for pair in (row.vendor, row.goal, ours) for value in pair),
        f"{timing.cycles / row.goal[0]:.2f}",
        f"{timing.roofline:,}",
        f"{figures['tiu_busy']:,}",
        f"{figures['gdma_busy']:,}",
        f"{alone:,}",
        f"{timing.work.dma_commands}",
    )


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        numbers = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([first.ljust(widths[0]), *numbers]))


if __name__ == "__main__":
    main()
