"""Measure compiling a model and simulating the result: python bench/compile.py MODEL OUTPUT [SEQ] [MODE]."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

IMPORTS = ["-c", "import torch, transformers.models.auto.modeling_auto, transformers.masking_utils"]


def main(model: Path, output: Path, seq: str = "512", mode: str = "w4bf16") -> None:
    output = output / "compile"  # where bench/timing.py makes no folders: a run would refuse them
    print(f"{'':34}    wall s    user s     MB")
    measure("importing torch and transformers", IMPORTS)
    flags = ["-m", str(model), "-s", seq, "-q", mode, "-o", str(output)]
    measure(f"compiling {model.name} -s {seq} -q {mode}", [str(ROOT / "llm_convert.py"), *flags])
    (bmodel,) = output.glob(f"*_{mode}_seq{seq}_*.bmodel")
    print(f"{bmodel.name}: {bmodel.stat().st_size / 1e6:.1f} MB")
    simulate(bmodel, int(seq))


def measure(title: str, arguments: list[str]) -> None:
    """Run Python in a process of its own; print its time, and the most memory that it held."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{title}: failed")
    wall = time.monotonic() - start
    print(f"{title:34.34}{wall:10.2f}{usage.ru_utime:10.2f}{usage.ru_maxrss / 1024:7.0f}")


def simulate(bmodel: Path, tokens: int) -> None:
    """Print how long the simulator takes for a whole prompt and for one token after it."""
    from compiler.bmodel import read_bmodel
    from compiler.client_nets import layer_count
    from runtime_sim.launch.runtime import Runtime
    from runtime_sim.launch.session import Session

    runtime = Runtime(read_bmodel(bmodel), exact=False)
    layers = layer_count(runtime.has_net)
    session = Session(runtime)
    prompt = [100 + i % 1000 for i in range(tokens - 1)]
    for title, action in (
        (f"simulating a prefill of {tokens}", lambda: session.prefill(prompt)),
        ("simulating a decode step", lambda: session.decode(100)),
    ):
        seconds = seconds_of(action)
        print(f"{title:34.34}{seconds:10.2f}{'':10} {seconds / layers * 1000:6.0f} ms a block")


def seconds_of(action: Callable[[], object]) -> float:
    start = time.monotonic()
    action()
    return time.monotonic() - start


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
