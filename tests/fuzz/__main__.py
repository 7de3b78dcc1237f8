"""`python -m tests.fuzz`: run the commands on spoilt inputs, or on one of them, and print what came out.

Each case ends in a clean error or a right result, within limits of time and memory, or has failed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import runtime_sim  # noqa: F401  (before numpy: it keeps products to one thread, and so a fork safe)
from tests.fuzz.groups import GROUPS
from tests.fuzz.run import Fuzzer, causes, run_groups


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("--group", action="append", choices=GROUPS, help="only this one (may be repeated)")
    parser.add_argument("--cases", type=int, default=40, metavar="N", help="of each group (default: 40)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the cases (default: 0)")
    parser.add_argument("--case", type=int, metavar="N", help="only this one of the group; keeps its folder")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), metavar="DIR",
                        help="emptied; then gets the folder of each case that failed (default: build/fuzz)")  # fmt: skip
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    groups = arguments.group or list(GROUPS)
    if arguments.case is not None and len(groups) > 1:
        parser.error("--case needs one --group")
    fuzzer = Fuzzer(arguments.out.resolve(), arguments.seed)
    if arguments.case is not None:
        result = fuzzer.run_one(groups[0], arguments.case, keep=True)
        print(fuzzer.report(result))
        return int(result.outcome.bad)
    results = run_groups(fuzzer, groups, arguments.cases)
    print(causes(results))
    return int(any(result.outcome.bad for result in results))


if __name__ == "__main__":
    sys.exit(main())
