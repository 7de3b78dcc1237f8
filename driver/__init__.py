"""The program: a checkpoint through the front end, the passes and the simulator to a finished bmodel."""

import os

# Weights are worked on by threads of our own, and each product is small: numpy's threads for one would wait
# for each other. This is read when numpy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
