#!/usr/bin/env python3
"""Compile the folder of a Hugging Face language model into one bmodel for Sophgo TPUs; see --help."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # ours, in a checkout and in a wheel

from compiler.interrupt import install


def main(arguments: Sequence[str] | None = None) -> int:
    install()  # before the imports, which take longest to begin with
    from driver.cli import convert_main

    return convert_main(arguments)


if __name__ == "__main__":
    sys.exit(main())
