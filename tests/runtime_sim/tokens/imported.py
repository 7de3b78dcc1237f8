"""What `runtime_sim.tokens.tokenizer` imports before it reads a file, in the process that forks."""

import os
import sys

from runtime_sim.tokens.library import ENVIRONMENT

os.environ.update(ENVIRONMENT)
sys.modules["torch"] = None  # type: ignore[assignment]
from transformers import AutoTokenizer  # noqa: E402, F401
