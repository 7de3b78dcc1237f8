#!/usr/bin/env python3
"""Compile the folder of a Hugging Face language model into one bmodel for Sophgo TPUs; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # ours, in a checkout and in a wheel

from compiler.cli import convert_main as main

if __name__ == "__main__":
    sys.exit(main())
