"""One file per dialect: its types, attributes, ops and verifiers."""

from __future__ import annotations

import importlib
import pkgutil


def load_all() -> None:
    """Import every dialect, so that its ops, types and attributes can be parsed."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
