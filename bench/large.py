"""Compile a whole model of Qwen2-7B's shape, of random weights: python bench/large.py OUTPUT.

The checkpoint takes 15 GB in OUTPUT, and is made once; the bmodel takes 6 GB.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.compile import ROOT, measure

SHAPE = {
    "layers": 28, "hidden": 3584, "heads": 28, "kv_heads": 4, "head_dim": 128, "intermediate": 18944,
    "vocab": 152064, "max_position_embeddings": 32768, "shards": 30,
}  # fmt: skip


def main(output: Path) -> None:
    from tests.checkpoints import make_checkpoint

    model = output / "qwen2-7b"
    if not (model / "model.safetensors.index.json").exists():
        # in another process, since what this one holds is counted in those it starts
        with ProcessPoolExecutor(1) as pool:
            pool.submit(make_checkpoint, model, "qwen2", **SHAPE).result()
    print(f"{'':34}    wall s    user s     MB")
    flags = ["-m", model, "-s", 384, "-q", "w4bf16", "-g", 128, "-o", output / "qwen2-7b-w4"]
    measure("compiling 28 layers", [str(ROOT / "llm_convert.py"), *map(str, flags)])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
