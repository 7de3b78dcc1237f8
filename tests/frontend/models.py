"""Configurations of small models, and what an import gives of them."""

from __future__ import annotations

import pytest

from compiler.diagnostics import UserError
from frontend.imported import ImportedModel
from frontend.importer import import_model
from tests.frontend.oracle import SMALL


def config(model_type: str, **settings: object) -> dict[str, object]:
    return {**SMALL, **settings, "model_type": model_type}


def signature(model: ImportedModel, net: str) -> str:
    return str(model.find(net)[1].function_type)


def layers_of(model: ImportedModel) -> list[list[int | None]]:
    """The layers of each distinct module."""
    return [[instance.layer for instance in group.instances] for group in model.nets if group.of_layers]


def check_refused(settings: dict[str, object], message: str) -> None:
    """A model is refused in at most two lines that match `message`."""
    with pytest.raises(UserError, match=message) as caught:
        import_model(settings, 16)
    assert str(caught.value).count("\n") < 2


QWEN3 = config("qwen3", head_dim=32, tie_word_embeddings=True)
