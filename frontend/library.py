"""torch and transformers, which are told that torch cannot distribute: they import less then.

To import this module tells them: it comes before transformers, which asks once.
"""

from __future__ import annotations

from unittest.mock import patch

import torch.distributed
from transformers.utils.import_utils import is_torch_distributed_available


def without_distribution() -> None:
    with patch.object(torch.distributed, "is_available", return_value=False):
        is_torch_distributed_available()


without_distribution()
