"""The simulator: what each op computes, what the bytes of a bmodel do, and how long they take."""

import os

# The simulated products are too small to share between threads: with two, a prefill takes three times as
# long. This is read when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
