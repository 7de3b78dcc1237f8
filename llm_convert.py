#!/usr/bin/env python3
"""Compile the folder of a Hugging Face language model into one bmodel for Sophgo TPUs; see --help."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # ours, in a checkout and in a wheel

from compiler.interrupt import install


def main() -> int:
    install()  # before the imports, which take longest to begin with
    from compiler.cli import convert_main

    return convert_main()


if __name__ == "__main__":
    sys.exit(main())
