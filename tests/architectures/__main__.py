"""`python -m tests.architectures`: compile a small model of each architecture and say how right it is.

Columns: largest difference of logits in float32 between the imported graph and Hugging Face, over the largest
logit; lowest cosine of a net's output of the compiled bf16 file; tokens that are Hugging Face's; distinct
layers; seconds to compile; ops. Ends with 1 if a model is computed wrongly or ends in no message.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch

import runtime_sim  # noqa: F401  (before numpy: it keeps products to one thread)
from tests.architectures.configs import CONFIGS, SEEING
from tests.architectures.measure import Row, measure

CPU_SECONDS, MEMORY = 120, 12 << 30  # of one row


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.architectures", description=(__doc__ or "").partition(": ")[2]
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="rows of the table, or model types (default: all rows)"
    )
    parser.add_argument(
        "--others", action="store_true", help="all model types that transformers has and no row names"
    )
    arguments = parser.parse_args()
    names = arguments.names or (others() if arguments.others else [*CONFIGS, *SEEING])
    print(f"{'':20} {'float32':>8} {'cosine':>9} tokens layers    s  ops")
    bad = []
    for name in names:
        row = measured_in_child(name)
        print(row.line(), flush=True)
        bad += [name] if row.bad else []
    print(
        f"{len(names) - len(bad)} of {len(names)} are right, refused or skipped"
        + (f"; not: {', '.join(bad)}" if bad else "")
    )
    return int(bool(bad))


def measured_in_child(name: str) -> Row:
    """In a fork, within limits: a row named by model type alone may be of any size that its class likes."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("fork"), limit) as pool:
        try:
            return pool.submit(measure, name, Path(folder)).result()
        except BrokenProcessPool:
            return Row(name, skipped=f"it takes more than {CPU_SECONDS} s or {MEMORY >> 30} GB")


def limit() -> None:
    """Give this process no more than a tiny model needs."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def others() -> Sequence[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {model_type for model_type, _ in CONFIGS.values()})


if __name__ == "__main__":
    raise SystemExit(main())
