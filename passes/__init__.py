"""One pass per file, in folders by the dialect that it works in."""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Import every pass file, so that its passes can be named in a pipeline."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
