"""`python -m tests.architectures`: compile a small model of each architecture and say how right it is.

Columns: largest difference of logits in float32 between the imported graph and Hugging Face, over the largest
logit; lowest cosine of a net's output of the compiled bf16 file; tokens that are Hugging Face's; distinct
layers; seconds to compile; ops. Ends with 1 if a model is computed wrongly or ends in no message.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import runtime_sim  # noqa: F401  (before numpy: it keeps products to one thread)
from tests.architectures.configs import CONFIGS
from tests.architectures.measure import measure


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
    names = arguments.names or (others() if arguments.others else list(CONFIGS))
    print(f"{'':20} {'float32':>8} {'cosine':>9} tokens layers    s  ops")
    bad = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            row = measure(name, Path(folder))
        print(row.line(), flush=True)
        bad += [name] if row.bad else []
    print(
        f"{len(names) - len(bad)} of {len(names)} are right or refused"
        + (f"; not: {', '.join(bad)}" if bad else "")
    )
    return int(bool(bad))


def others() -> Sequence[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - {model_type for model_type, _ in CONFIGS.values()})


if __name__ == "__main__":
    raise SystemExit(main())
