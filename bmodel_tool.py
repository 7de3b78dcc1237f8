#!/usr/bin/env python3
"""Look into a bmodel, run its nets on the simulated chip, check it, chat with it."""

import sys
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parent)
)  # the packages lie beside this file, installed or not

from runtime_sim.tool.cli import main

if __name__ == "__main__":
    sys.exit(main())
