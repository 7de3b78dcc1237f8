"""Which versions a run is of: to paste into a report, and to tell what another version made."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from compiler import __version__

ROOT = Path(__file__).resolve().parent.parent
OURS = ("compiler", "dialects", "frontend", "passes", "runtime_sim", "driver")
LIBRARIES = ("numpy", "torch", "transformers", "safetensors", "gguf", "tokenizers", "jinja2", "lark", "regex",
             "ml_dtypes", "flatbuffers", "tqdm", "typing_extensions", "pillow")  # fmt: skip


def versions() -> list[str]:
    """What a report of a problem should say of the program and what it ran on, a line each."""
    rows = [
        ("bmllm", f"{__version__}{_commit()}, sources {sources_digest()[:12]}"),
        ("python", f"{platform.python_version()} {sys.executable}"),
        ("system", f"{platform.platform()}, {os.cpu_count()} CPUs{_memory()}"),
        *((name, library(name)) for name in LIBRARIES),
    ]
    return [f"{name:<18} {text}" for name, text in rows]


def library(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def sources_digest() -> str:
    """sha256 of the program itself, in hex: all that a result may depend on beside inputs and libraries."""
    digest = hashlib.sha256()
    for path in _sources():
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _sources() -> Iterator[Path]:
    for folder in OURS:
        yield from sorted(p for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".lark"))


def _commit() -> str:
    """Of a checkout."""
    if not (ROOT / ".git").exists():
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return f" ({run.stdout.strip()})"
    return ""


def _memory() -> str:
    with suppress(OSError, ValueError):
        return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB of memory"
    return ""
