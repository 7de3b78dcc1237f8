"""Fail if pip would build anything from source to install what is named, other than this project itself.

    python .ci/wheels_only.py --editable '.[dev]'
"""

import json
import subprocess
import sys


def report(arguments: list[str]) -> dict:
    """What pip would install into an empty environment, as `pip install --report` says it."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    command += ["--dry-run", "--ignore-installed", "--report", "-", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def from_source(item: dict) -> bool:
    download = item["download_info"]
    return "dir_info" not in download and not download["url"].endswith(".whl")


if __name__ == "__main__":
    items = report(sys.argv[1:])["install"]
    built = [item["metadata"]["name"] for item in items if from_source(item)]
    print(f"{len(items)} packages, built from source: {', '.join(built) or 'none'}")
    sys.exit(bool(built))
